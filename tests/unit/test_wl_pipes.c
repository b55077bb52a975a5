// SPDX-License-Identifier: BSD-3-Clause
/*
 * Pipes and sockets of a wayland device whose other ends are slow, go away, or
 * are set up to hold the device up: nothing is lost, kept for good, or waited for.
 */
#include "unit/wl_commands.h"

#include <signal.h>
#include <sys/uio.h>

#include "virtio/wl_stream.h"

enum { PIECE = 4000, ROUNDS = 700 /* more than there are descriptors */ };
#ifndef SO_PASSPIDFD
enum { SO_PASSPIDFD = 76 };
#endif

/* The guest writes to a new pipe of its own, whose other end is returned. */
static int open_pipe(struct wl_rig *rig, int compositor)
{
	uint32_t answer[8];
	int fds[64] = { -1 };
	unsigned count;
	char data[8];

	assert_int_equal(DO(rig, answer, WL_NEW_PIPE, 0, PIPE, WL_TRANS_WRITE), WL_OK_NEW);
	assert_int_equal(DO(rig, answer, WL_SEND, 0, CTX, 1, PIPE, 1), WL_OK);
	assert_int_equal(rig_receive(compositor, data, sizeof(data), fds, &count), 4);
	assert_int_equal(count, 1);
	return fds[0];
}

static uint32_t send_bytes(struct wl_rig *rig, uint32_t id, size_t size, int value)
{
	uint8_t command[16 + PIECE];
	uint32_t answer[8];

	memcpy(command, (const uint32_t[]){ WL_SEND, 0, id, 0 }, 16);
	memset(command + 16, value, size);
	assert_int_equal(do_bytes(rig, command, (uint32_t)(16 + size), answer), 4);
	return answer[0];
}

/* Pieces of one value each, in order. How many bytes. */
static uint64_t read_pieces(struct wl_rig *rig, int fd, uint64_t from, uint64_t most)
{
	uint8_t seen[4096];
	uint64_t got = 0;
	ssize_t n = 1;

	while (got < most && n > 0) {
		n = read(fd, seen, min_u64(sizeof(seen), most - got));
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(seen[i], (uint8_t)((from + got + (uint64_t)i) / PIECE));
		got += (uint64_t)n;
		wl_host_flush(rig->host);
	}
	return got;
}

static void a_full_pipe_is_tried_again(void **state)
{
	struct wl_rig *rig = *state;
	int compositor = connect_context(rig, CTX);
	int fd = open_pipe(rig, compositor);
	unsigned pieces = 0;

	while (send_bytes(rig, PIPE, PIECE, (int)pieces) == WL_OK)
		pieces++;
	assert_true(pieces >= WL_PENDING_MAX / 4096);
	assert_int_equal(send_bytes(rig, PIPE, PIECE, 0), WL_OUT_OF_MEMORY);
	uint64_t got = read_pieces(rig, fd, 0, 1 * MIB);

	assert_int_equal(send_bytes(rig, PIPE, PIECE, (int)pieces++), WL_OK);
	must_close(rig, PIPE);
	got += read_pieces(rig, fd, got, UINT64_MAX);
	assert_int_equal(got, pieces * (uint64_t)PIECE);
	close(fd);
	close(compositor);
}

static void small_pieces_share_their_room(void **state)
{
	enum { SMALL = 20, MANY = 50000 };
	struct wl_rig *rig = *state;
	int compositor = connect_context(rig, CTX);
	int fd = open_pipe(rig, compositor);

	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(send_bytes(rig, PIPE, SMALL, 7), WL_OK);
	assert_true(rig->host->table.pending_count <= MANY * SMALL / WL_PENDING_CHUNK + 1);
	close(fd);
	close(compositor);
}

/* A reader that goes with data on their way to it: none of that is kept. */
static void who_goes_leaves_nothing(void **state)
{
	struct wl_rig *rig = *state;
	int compositor = connect_context(rig, CTX);

	for (unsigned round = 0; round < ROUNDS; round++) {
		int fd = open_pipe(rig, compositor);

		for (unsigned i = 0; i < 20; i++)
			assert_int_equal(send_bytes(rig, PIPE, PIECE, 1), WL_OK);
		assert_int_not_equal(rig->host->table.pending_count, 0);
		close(fd);
		wl_host_flush(rig->host);
		must_close(rig, PIPE);
		assert_int_equal(rig->host->table.descriptors, 1);
		assert_int_equal(rig->host->table.pending_count, 0);
		assert_null(rig->host->table.closed);
	}
	while (rig->host->table.pending_count == 0)
		assert_int_equal(send_bytes(rig, CTX, PIECE, 1), WL_OK);
	close(compositor);
	wl_host_flush(rig->host);
	must_close(rig, CTX);
	assert_int_equal(rig->host->table.descriptors, 0);
	assert_null(rig->host->table.closed);
}

static void fill(struct wl_rig *rig, uint32_t id)
{
	while (rig->host->table.pending_count == 0)
		assert_int_equal(send_bytes(rig, id, PIECE, 1), WL_OK);
}

/* Those of a message that waits are closed with it. */
static void descriptors_on_their_way_are_not_left(void **state)
{
	struct wl_rig *rig = *state;
	int compositor = connect_context(rig, CTX);
	uint32_t answer[8];

	new_memory(rig, MEMORY, 4096);
	fill(rig, CTX);
	assert_int_equal(DO(rig, answer, WL_SEND, 0, CTX, 1, MEMORY, 1), WL_OK);
	assert_int_equal(rig->host->table.descriptors, 3);
	close(compositor);
	wl_host_flush(rig->host);
	assert_int_equal(rig->host->table.descriptors, 2);
}

/* It says on, which nobody takes: others are heard all the same. */
static void who_was_closed_is_not_listened_to(void **state)
{
	enum { OTHER = 9 };
	struct wl_rig *rig = *state;
	uint32_t words[1024];
	int closed = connect_context(rig, CTX);
	int other = connect_context(rig, OTHER);

	fill(rig, CTX);
	assert_true(rig_send(closed, "late", 4, NULL, 0));
	must_close(rig, CTX);
	assert_true(rig_send(other, "x", 1, NULL, 0));
	assert_int_equal(next(rig, words), 16 + 1);
	assert_int_equal(words[2], OTHER);
	close(closed);
	close(other);
}

/* A socket that another process has as well goes on with its events when we close it. */
static void what_is_gone_has_no_events(void **state)
{
	struct wl_rig *rig = *state;
	int compositor = connect_context(rig, CTX);
	uint8_t bytes[PIECE];

	fill(rig, CTX);
	int kept = dup(wl_find(&rig->host->table, CTX)->fd);

	wl_host_reset(rig->host);
	while (recv(compositor, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	wl_host_flush(rig->host);
	assert_int_equal(rig->host->table.descriptors, 0);
	close(kept);
	close(compositor);
}

static bool kernel_never_waits_for_pipes(void)
{
	char byte = 0;
	const struct iovec iov = { &byte, 1 };
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	bool knows = pwritev2(ends[1], &iov, 1, -1, RWF_NOWAIT) == 1;

	close(ends[0]);
	close(ends[1]);
	return knows;
}

/* Who passed it on has it still, and can make it one that waits. */
static void a_pipe_that_waits_is_not_waited_for(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t words[1024];
	int compositor = connect_context(rig, CTX);
	int full[2], empty[2];

	if (!kernel_never_waits_for_pipes())
		skip();
	assert_int_equal(pipe2(full, O_CLOEXEC), 0);
	assert_int_equal(pipe2(empty, O_CLOEXEC), 0);
	assert_true(rig_send(compositor, "x", 1, (const int[]){ full[1], empty[0] }, 2));
	assert_int_equal(next(rig, words), WL_NEW_SIZE);
	assert_int_equal(next(rig, words), WL_NEW_SIZE);
	assert_int_equal(next(rig, words), 16 + 2 * 4 + 1);
	assert_int_equal(fcntl(full[1], F_SETFL, 0), 0);
	assert_int_equal(fcntl(empty[0], F_SETFL, 0), 0);
	/* The last piece finds it full. */
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(send_bytes(rig, WL_HOST_ID, PIECE, 1), WL_OK);
	assert_int_not_equal(rig->host->table.pending_count, 0);
	/* The reader comes late: somebody else took what was there. */
	struct wl_received received;

	assert_int_equal(
		wl_stream_receive(wl_find(&rig->host->table, WL_HOST_ID + 1), &received), -EAGAIN);
	for (unsigned i = 0; i < 2; i++) {
		close(full[i]);
		close(empty[i]);
	}
	close(compositor);
}

/* A socket may bring a descriptor of its sender's process with each message. */
static void descriptors_that_nobody_sent_are_closed(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t words[1024];
	int compositor = connect_context(rig, CTX);
	int pair[2], yes = 1;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	if (setsockopt(pair[0], SOL_SOCKET, SO_PASSPIDFD, &yes, sizeof(yes)) < 0) {
		close(pair[0]);
		close(pair[1]);
		close(compositor);
		skip();
	}
	assert_true(rig_send(compositor, "x", 1, &pair[0], 1));
	assert_int_equal(next(rig, words), WL_NEW_SIZE);
	assert_int_equal(next(rig, words), 16 + 4 + 1);
	unsigned before = count_fds();

	for (unsigned i = 0; i < 20; i++) {
		assert_true(rig_send(pair[1], "y", 1, NULL, 0));
		assert_int_equal(next(rig, words), 16 + 1);
	}
	assert_int_equal(count_fds(), before);
	close(pair[0]);
	close(pair[1]);
	close(compositor);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_full_pipe_is_tried_again),
		TEST(small_pieces_share_their_room),
		TEST(who_goes_leaves_nothing),
		TEST(descriptors_on_their_way_are_not_left),
		TEST(who_was_closed_is_not_listened_to),
		TEST(what_is_gone_has_no_events),
		TEST(a_pipe_that_waits_is_not_waited_for),
		TEST(descriptors_that_nobody_sent_are_closed),
	};

	signal(SIGPIPE, SIG_IGN); /* as in the VM's processes */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
