// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-wayland against a compositor of the test's own: descriptors in both
 * directions, ends, and guests and programs that do what they should not.
 * Nothing may be left of any of it.
 */
#include "unit/wl_commands.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/log.h"

static void contexts_by_name(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t command[16] = { WL_NEW_CTX_NAMED, 0, CTX };
	uint32_t answer[8];

	memcpy(&command[7], "other", sizeof("other"));
	assert_int_equal(do_words(rig, command, 16, answer), WL_OK_NEW);
	int fd = rig_accept(rig->listeners[1]);

	assert_true(fd >= 0);
	close(fd);
	command[2] = 9;
	memset(&command[7], 'x', WL_NAME_MAX);
	assert_int_equal(do_words(rig, command, 16, answer), WL_ERR);
	must_close(rig, CTX);
}

static void malformed_commands_are_answered(void **state)
{
	static const struct {
		uint32_t words[10];
		unsigned size; /* bytes */
		uint32_t answer;
	} cases[] = {
		{ { 0 }, 0, WL_ERR },
		{ { WL_NEW }, 3, WL_ERR },
		{ { WL_NEW, 0, 9, 3, 0, 0, 4096 }, 27, WL_ERR },
		{ { WL_NEW, 0, 9, 3, 0, 0, 0 }, 28, WL_OUT_OF_MEMORY },
		{ { WL_NEW, 0, 9, 8, 0, 0, 4096 }, 28, WL_ERR },
		{ { WL_NEW, 0, 9, 3, 0, 0, UINT32_MAX }, 28, WL_OUT_OF_MEMORY },
		{ { WL_NEW, 0, 0, 3, 0, 0, 4096 }, 28, WL_INVALID_ID },
		{ { WL_NEW, 0, 0x800, 3, 0, 0, 4096 }, 28, WL_INVALID_ID },
		{ { WL_NEW, 0, 0x40000000, 3, 0, 0, 4096 }, 28, WL_INVALID_ID },
		{ { WL_NEW, 0, CTX, 3, 0, 0, 4096 }, 28, WL_INVALID_ID },
		{ { WL_CLOSE, 0 }, 8, WL_ERR },
		{ { WL_CLOSE, 0, 77 }, 12, WL_INVALID_ID },
		{ { WL_CLOSE, 0, UINT32_MAX }, 12, WL_INVALID_ID },
		{ { WL_SEND, 0, CTX }, 12, WL_ERR },
		{ { WL_SEND, 0, 77, 0, 1 }, 20, WL_INVALID_ID },
		{ { WL_SEND, 0, CTX, 1, 77, 1 }, 24, WL_INVALID_ID },
		{ { WL_SEND, 0, CTX, 3, MEMORY, 1 }, 24, WL_ERR },
		{ { WL_SEND, 0, CTX, 29, MEMORY, 1 }, 40, WL_INVALID_TYPE },
		{ { WL_SEND, 0, CTX, UINT32_MAX, 1 }, 40, WL_INVALID_TYPE },
		{ { WL_SEND, 0, CTX, 1, MEMORY }, 20, WL_INVALID_TYPE },
		{ { WL_SEND, 0, MEMORY, 0, 1 }, 20, WL_INVALID_TYPE },
		{ { WL_SEND, 0, CTX, 0 }, 16, WL_OK },
		{ { WL_NEW_CTX_NAMED, 0, 9 }, 40, WL_ERR },
		{ { WL_RECV, 0, 9 }, 40, WL_INVALID_CMD },
		{ { 0xffffffff, 0, 9 }, 40, WL_INVALID_CMD },
	};
	struct wl_rig *rig = *state;
	uint32_t answer[8], words[8];
	int compositor = connect_context(rig, CTX);
	uint8_t byte;

	new_memory(rig, MEMORY, 4096);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(do_bytes(rig, cases[i].words, cases[i].size, answer), 4);
		assert_int_equal(answer[0], cases[i].answer);
	}
	/* No room for the answer: nothing is made. */
	const uint32_t new[] = { WL_NEW, 0, 9, 3, 0, 0, 4096 };

	assert_int_equal(
		wl_host_command(rig->host, (const void *)new, sizeof(new), 31, (uint8_t *)words),
		4);
	assert_int_equal(words[0], WL_ERR);
	assert_int_equal(DO(rig, answer, WL_CLOSE, 0, 9), WL_INVALID_ID);
	assert_int_equal(recv(compositor, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(rig->mapped, 1);
	close(compositor);
}

static void descriptors_go_with_the_first_byte(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t command[4 + WL_FDS_MAX + 1] = { WL_SEND, 0, CTX, WL_FDS_MAX };
	int compositor = connect_context(rig, CTX);
	uint32_t answer[8];
	uint8_t data[16];
	int fds[64] = { -1 };
	unsigned count;

	new_memory(rig, MEMORY, 8192);
	for (unsigned i = 0; i < WL_FDS_MAX; i++)
		command[4 + i] = MEMORY;
	command[4 + WL_FDS_MAX] = 0x64636261;
	assert_int_equal(do_words(rig, command, ARRAY_SIZE(command), answer), WL_OK);
	assert_int_equal(rig_receive(compositor, data, sizeof(data), fds, &count), 4);
	assert_memory_equal(data, "abcd", 4);
	assert_int_equal(count, WL_FDS_MAX);

	/* The compositor sees what the guest writes, and cannot make it smaller. */
	uint8_t *guests = mmap(NULL, 8192, PROT_WRITE, MAP_SHARED, rig->host->table.mapped->fd, 0);
	uint8_t *hosts = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fds[WL_FDS_MAX - 1], 0);

	guests[5000] = 42;
	assert_int_equal(hosts[5000], 42);
	assert_int_equal(ftruncate(fds[0], 0), -1);
	munmap(guests, 8192);
	munmap(hosts, 8192);
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
	close(compositor);
}

static int memory_file(size_t size, unsigned seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	for (size_t i = 0; i < size; i += 3)
		assert_int_equal(pwrite(fd, "kmp", 3, (off_t)i), 3);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int again_read_only(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static const struct rig_mapping *mapping_at(const struct wl_rig *rig, uint64_t pfn)
{
	for (unsigned i = 0; i < RIG_MAPPINGS; i++)
		if (rig->mappings[i].size > 0 &&
			rig->mappings[i].offset + RIG_WINDOW_GPA == pfn * 4096)
			return &rig->mappings[i];
	return NULL;
}

/* As sway sends a keymap: read-only, of an odd size, and its owner could shrink it. */
static void a_keymap_is_the_guest_s_own_copy(void **state)
{
	struct wl_rig *rig = *state;
	enum { SIZE = 24167 };
	uint32_t words[1024];
	char text[3];
	int compositor = connect_context(rig, CTX);
	int owner = memory_file(SIZE, F_SEAL_SEAL);
	int sent = again_read_only(owner);

	assert_true(rig_send(compositor, "keymap!", 7, &sent, 1));
	assert_int_equal(next(rig, words), WL_NEW_SIZE);
	assert_int_equal(words[0], WL_NEW);
	assert_int_equal(words[2], WL_HOST_ID);
	assert_int_equal(words[6], SIZE);
	const struct rig_mapping *mapping = mapping_at(rig, words[4]);

	assert_non_null(mapping);
	assert_false(mapping->writable);
	assert_int_equal(ftruncate(owner, 0), 0);
	assert_int_equal(pread(mapping->fd, text, 3, 24000), 3);
	assert_memory_equal(text, "kmp", 3);
	assert_int_equal(next(rig, words), 16 + 4 + 7);
	assert_int_equal(words[0], WL_RECV);
	assert_int_equal(words[2], CTX);
	assert_int_equal(words[3], 1);
	assert_int_equal(words[4], WL_HOST_ID);
	assert_memory_equal(&words[5], "keymap!", 7);
	assert_int_equal(next(rig, words), 0);
	must_close(rig, WL_HOST_ID);
	assert_int_equal(rig->mapped, 0);
	close(owner);
	close(sent);
	close(compositor);
}

static void a_sealed_file_is_shared_as_it_is(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t words[1024];
	int compositor = connect_context(rig, CTX);
	int files[] = { memory_file(4096, F_SEAL_SHRINK), memory_file(4096, F_SEAL_SHRINK),
		open("/proc/self/status", O_RDONLY | O_CLOEXEC), memory_file(WL_COPY_MAX + 1, 0) };
	static const bool mapped[] = { true, true, false, false };
	struct stat theirs, ours;

	close(files[1]);
	files[1] = again_read_only(files[0]);
	assert_true(rig_send(compositor, "x", 1, files, ARRAY_SIZE(files)));
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		assert_int_equal(next(rig, words), WL_NEW_SIZE);
		assert_int_equal(words[2], WL_HOST_ID + i);
		const struct rig_mapping *mapping = mapping_at(rig, words[4]);

		assert_int_equal(mapping != NULL, mapped[i]);
		if (i > 0)
			close(files[i]);
		if (mapping == NULL) {
			assert_int_equal(words[4] | words[5] | words[6], 0);
			continue;
		}
		assert_int_equal(mapping->writable, i == 0);
		assert_int_equal(fstat(files[0], &theirs) | fstat(mapping->fd, &ours), 0);
		assert_int_equal(theirs.st_ino, ours.st_ino);
	}
	assert_int_equal(next(rig, words), 16 + 16 + 1);
	close(files[0]);
	close(compositor);
}

static void pipes_end_both_ways(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t words[1024], answer[8];
	int compositor = connect_context(rig, CTX);
	char data[8];
	int fds[64] = { -1 };
	unsigned count;

	/* The guest writes: what is behind it is the end. */
	assert_int_equal(DO(rig, answer, WL_NEW_PIPE, 0, PIPE, WL_TRANS_WRITE), WL_OK_NEW);
	assert_int_equal(DO(rig, answer, WL_SEND, 0, CTX, 1, PIPE, 1), WL_OK);
	assert_int_equal(DO(rig, answer, WL_SEND, 0, CTX, 1, PIPE, 1), WL_INVALID_TYPE);
	assert_int_equal(rig_receive(compositor, data, sizeof(data), fds, &count), 4);
	assert_int_equal(count, 1);
	assert_int_equal(DO(rig, answer, WL_SEND, 0, PIPE, 0, 0x6f6c6c61), WL_OK);
	assert_int_equal(DO(rig, answer, WL_SEND, 0, PIPE, 1, CTX, 1), WL_INVALID_TYPE);
	assert_int_equal(read(fds[0], data, sizeof(data)), 4);
	must_close(rig, PIPE);
	assert_int_equal(read(fds[0], data, sizeof(data)), 0);
	close(fds[0]);

	/* The guest reads. */
	assert_int_equal(DO(rig, answer, WL_NEW_PIPE, 0, PIPE, WL_TRANS_READ), WL_OK_NEW);
	assert_int_equal(DO(rig, answer, WL_SEND, 0, CTX, 1, PIPE, 1), WL_OK);
	assert_int_equal(rig_receive(compositor, data, sizeof(data), fds, &count), 4);
	assert_int_equal(write(fds[0], "text", 4), 4);
	assert_int_equal(next(rig, words), 16 + 4);
	assert_int_equal(words[2], PIPE);
	assert_memory_equal(&words[4], "text", 4);
	assert_int_equal(next(rig, words), 0);
	close(fds[0]);
	assert_int_equal(next(rig, words), WL_HUP_SIZE);
	assert_int_equal(words[0], WL_HUP);
	assert_int_equal(words[2], PIPE);
	assert_int_equal(next(rig, words), 0);

	/* One that the compositor sends. */
	int theirs[2];

	assert_int_equal(pipe2(theirs, O_CLOEXEC), 0);
	assert_true(rig_send(compositor, "x", 1, &theirs[1], 1));
	close(theirs[1]);
	assert_int_equal(next(rig, words), WL_NEW_SIZE);
	assert_int_equal(next(rig, words), 16 + 4 + 1);
	assert_int_equal(DO(rig, answer, WL_SEND, 0, WL_HOST_ID, 0, 0x6f6c6c61), WL_OK);
	must_close(rig, WL_HOST_ID);
	assert_int_equal(read(theirs[0], data, sizeof(data)), 4);
	assert_int_equal(read(theirs[0], data, sizeof(data)), 0);
	close(theirs[0]);
	close(compositor);
}

static void a_compositor_that_goes_is_one_hup(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t words[1024], answer[8];
	int compositor = connect_context(rig, CTX);

	new_memory(rig, MEMORY, 4096);
	assert_true(rig_send(compositor, "last", 4, NULL, 0));
	close(compositor);
	assert_int_equal(next(rig, words), 16 + 4);
	assert_int_equal(next(rig, words), WL_HUP_SIZE);
	assert_int_equal(next(rig, words), 0);
	assert_int_equal(DO(rig, answer, WL_SEND, 0, CTX, 0, 1), WL_INVALID_TYPE);
	must_close(rig, CTX);

	/* None listens; then another one does. */
	fd_close(&rig->listeners[0]);
	assert_int_equal(DO(rig, answer, WL_NEW_CTX, 0, CTX), WL_ERR);
	unlink(rig->sockets[0].path);
	assert_int_equal(DO(rig, answer, WL_NEW_CTX, 0, CTX), WL_ERR);
	rig->listeners[0] = rig_listen(rig->sockets[0].path);
	close(connect_context(rig, CTX));
	must_close(rig, CTX);
	must_close(rig, MEMORY);
	assert_int_equal(rig->mapped, 0);
}

static void what_a_reader_leaves_waits(void **state)
{
	enum { CHUNK = 60000, CHUNKS = 40 };
	struct wl_rig *rig = *state;
	uint8_t *command = calloc(1, 16 + CHUNK);
	int compositor = connect_context(rig, CTX);
	uint8_t seen[4096];
	uint32_t answer[8];
	uint64_t sum = 0, sent = 0, got = 0;
	ssize_t n;

	assert_non_null(command);
	memcpy(command, (const uint32_t[]){ WL_SEND, 0, CTX, 0 }, 16);
	for (unsigned i = 0; i < CHUNKS; i++) {
		memset(command + 16, (int)i, CHUNK);
		assert_int_equal(do_bytes(rig, command, 16 + CHUNK, answer), 4);
		assert_int_equal(answer[0], WL_OK);
		sent += CHUNK;
	}
	/* It goes on after the guest has closed it, and in order. */
	must_close(rig, CTX);
	assert_int_equal(DO(rig, answer, WL_CLOSE, 0, CTX), WL_INVALID_ID);
	while ((n = recv(compositor, seen, sizeof(seen), MSG_DONTWAIT)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			sum += seen[i] != (got + (uint64_t)i) / CHUNK;
		got += (uint64_t)n;
		wl_host_flush(rig->host);
	}
	assert_int_equal(n, 0);
	assert_int_equal(sum, 0);
	assert_int_equal(got, sent);
	close(compositor);
	free(command);
}

static void who_never_reads_is_hung_up(void **state)
{
	enum { CHUNK = 65000 };
	struct wl_rig *rig = *state;
	uint8_t *command = calloc(1, 16 + CHUNK);
	int compositor = connect_context(rig, CTX);
	uint32_t answer[8], words[1024];
	unsigned sends = 0;

	assert_non_null(command);
	memcpy(command, (const uint32_t[]){ WL_SEND, 0, CTX, 0 }, 16);
	log_set_level(LOG_LEVEL_NONE);
	do {
		assert_int_equal(do_bytes(rig, command, 16 + CHUNK, answer), 4);
		sends++;
	} while (answer[0] == WL_OK && sends < 1000);
	assert_int_equal(answer[0], WL_ERR);
	assert_in_range(sends, WL_PENDING_MAX / 65536, 100);
	assert_int_equal(next(rig, words), WL_HUP_SIZE);
	must_close(rig, CTX);
	close(compositor);
	free(command);
}

static void closing_takes_what_was_not_heard_of(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t words[1024];
	int compositor = connect_context(rig, CTX);
	int file = memory_file(4096, F_SEAL_SHRINK);
	int files[] = { file, file, file };

	assert_true(rig_send(compositor, "x", 1, files, 3));
	assert_int_equal(next(rig, words), WL_NEW_SIZE);
	assert_int_equal(rig->mapped, 3);
	must_close(rig, CTX);
	assert_int_equal(rig->mapped, 0);
	assert_int_equal(next(rig, words), 0);
	close(file);
	close(compositor);
}

/* A place of the table is another id's after a round of them, and free or not. */
static void ids_go_around_and_are_not_mixed_up(void **state)
{
	enum { LATER = WL_HOST_ID + WL_HOST_VFDS_MAX + 1 };
	struct wl_rig *rig = *state;
	uint32_t words[1024], answer[8];
	int compositor = connect_context(rig, CTX);
	int file = memory_file(4096, F_SEAL_SHRINK);

	assert_true(rig_send(compositor, "x", 1, &file, 1));
	assert_int_equal(next(rig, words), WL_NEW_SIZE);
	assert_int_equal(words[2], WL_HOST_ID);
	assert_int_equal(next(rig, words), 16 + 4 + 1);
	rig->host->table.next_host_id = WL_HOST_VFDS_MAX; /* the same place */
	assert_true(rig_send(compositor, "x", 1, &file, 1));
	assert_int_equal(next(rig, words), WL_NEW_SIZE);
	assert_int_equal(words[2], LATER);
	assert_int_equal(next(rig, words), 16 + 4 + 1);
	assert_int_equal(DO(rig, answer, WL_CLOSE, 0, LATER - 1), WL_INVALID_ID);
	assert_int_equal(DO(rig, answer, WL_CLOSE, 0, WL_HOST_ID + 1), WL_INVALID_ID);
	must_close(rig, WL_HOST_ID);
	must_close(rig, LATER);
	close(file);
	close(compositor);
}

static void too_many_descriptors_end_the_connection(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t words[1024];
	int compositor = connect_context(rig, CTX);
	int file = memory_file(4096, F_SEAL_SHRINK);
	int files[WL_FDS_MAX + 1];

	for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
		files[i] = file;
	assert_true(rig_send(compositor, "x", 1, files, ARRAY_SIZE(files)));
	assert_int_equal(next(rig, words), WL_HUP_SIZE);
	assert_int_equal(words[2], CTX);
	assert_int_equal(rig->mapped, 0);
	assert_int_equal(rig->host->table.descriptors, 1);
	close(file);
	close(compositor);
}

static void a_guest_gets_a_bounded_number_of_descriptors(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t answer[8], id = 1;

	while (DO(rig, answer, WL_NEW_PIPE, 0, id, WL_TRANS_READ) == WL_OK_NEW)
		id++;
	assert_int_equal(answer[0], WL_OUT_OF_MEMORY);
	assert_int_equal(id - 1, WL_DESCRIPTORS_MAX / 2);
	must_close(rig, 1);
	assert_int_equal(DO(rig, answer, WL_NEW_PIPE, 0, 1, WL_TRANS_READ), WL_OK_NEW);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(contexts_by_name),
		TEST(malformed_commands_are_answered),
		TEST(descriptors_go_with_the_first_byte),
		TEST(a_keymap_is_the_guest_s_own_copy),
		TEST(a_sealed_file_is_shared_as_it_is),
		TEST(pipes_end_both_ways),
		TEST(a_compositor_that_goes_is_one_hup),
		TEST(what_a_reader_leaves_waits),
		TEST(who_never_reads_is_hung_up),
		TEST(closing_takes_what_was_not_heard_of),
		TEST(ids_go_around_and_are_not_mixed_up),
		TEST(too_many_descriptors_end_the_connection),
		TEST(a_guest_gets_a_bounded_number_of_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
