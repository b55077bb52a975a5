// SPDX-License-Identifier: BSD-3-Clause
/*
 * crosvm-wl, the guest's half of wayland: what clients and the host's programs
 * do that is not the rule, and who pays for it.
 */
#include "unit/unit.h"

#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd_passing.h"

#include "unit/capture.h"
#include "unit/wl_proxy_rig.h"

static void run(struct rig *rig, unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++)
		assert_int_equal(run_round(&rig->proxy), 1);
}

static uint64_t time_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static const uint8_t part[4]; /* of a message: what comes with it waits for the rest */

static int make_pipe_end(void)
{
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	close(ends[0]);
	return ends[1];
}

static void pipes_that_were_not_sent_end_with_their_client(void **state)
{
	struct rig *rig = *state;
	int fds[16];

	for (unsigned n = 0; n <= PUMPS / 16; n++) {
		int client = rig_connect(rig, 0), fd = make_pipe_end();

		for (unsigned i = 0; i < 16; i++)
			fds[i] = fd;
		rig_say(client, part, sizeof(part), fds, 16);
		run(rig, 1);
		assert_int_equal(rig_pumps(rig), 16);
		close(fd);
		close(client);
		run(rig, 1);
		assert_true(rig_is_over(rig, 0));
		assert_int_equal(rig_pumps(rig), 0);
	}
}

/* What is ready to be sent is a pipe and a pool when a message is none. */
static void pipes_that_were_about_to_be_sent_end_with_their_client(void **state)
{
	enum { CREATE_POOL_SIZE = 16, NONE_SIZE = 8 };
	struct rig *rig = *state;
	int client = rig_connect_shm(rig, 0);
	int fds[] = { make_pipe_end(), memfd_create("pool", MFD_CLOEXEC) };
	const uint32_t words[] = { SHM_ID, CREATE_POOL_SIZE << 16, POOL_ID, 4096, 9,
		(NONE_SIZE - 4) << 16 };

	run(rig, 1);
	rig_say(client, words, sizeof(words), fds, 2);
	run(rig, 1);
	assert_true(rig_is_over(rig, 0));
	assert_int_equal(rig_pumps(rig), 0);
	close(fds[0]);
	close(fds[1]);
	close(client);
}

/* Its other end is gone when the message comes that it is for. */
static void a_pipe_is_served_once_the_host_has_it(void **state)
{
	static const uint32_t message[] = { 9, 8 << 16 };
	struct rig *rig = *state;
	int client = rig_connect(rig, 0), ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(write(ends[1], "text", 4), 4);
	close(ends[1]);
	rig_say(client, message, 4, ends, 1);
	run(rig, 3);
	assert_int_equal(rig_pumps(rig), 1);
	uint32_t vfd = rig->proxy.pumps[0].vfd;

	assert_int_equal(rig->device.got[vfd], 0);
	rig_say(client, message + 1, 4, NULL, 0);
	run(rig, 3);
	assert_int_equal(rig->device.got[rig->proxy.clients[0].vfd], 8);
	assert_int_equal(rig->device.got[vfd], 4);
	assert_int_equal(rig_pumps(rig), 0);
	close(ends[0]);
	close(client);
}

/* The host's message for the client with descriptors, each of which it announced. */
static void tell(struct rig *rig, unsigned place, const struct device_event *news, unsigned count)
{
	static const uint32_t message[] = { 9, 8 << 16 };
	struct device_event event = { .kind = EVENT_DATA,
		.vfd = rig->proxy.clients[place].vfd,
		.count = count,
		.data = (const uint8_t *)message,
		.data_size = sizeof(message) };

	for (unsigned i = 0; i < count; i++) {
		rig_event(rig, news[i]);
		event.ids[i] = news[i].vfd;
	}
	rig_event(rig, event);
}

static void fill_socket(int fd)
{
	static const uint8_t data[65536];

	while (send(fd, data, sizeof(data), MSG_DONTWAIT) > 0)
		;
}

/* One descriptor that came with a message of 8 bytes. */
static int take_fd(int client)
{
	uint8_t data[8];
	int fd = -1;

	assert_int_equal(fd_receive(client, data, sizeof(data), &fd), 0);
	assert_true(fd >= 0);
	return fd;
}

/* A compositor that has no keymap sends /dev/null; a file that the guest cannot see is the same. */
static void what_is_neither_memory_nor_a_pipe_is_nothing(void **state)
{
	struct rig *rig = *state;
	int client = rig_connect(rig, 0);

	for (unsigned i = 0; i < PUMPS + 2; i++) {
		const struct device_event news = { .kind = EVENT_NEW, .vfd = HOST_VFD + i };

		tell(rig, 0, &news, 1);
		run(rig, 1);
		int fd = take_fd(client);
		struct stat st;

		assert_int_equal(fstat(fd, &st), 0);
		assert_true(S_ISCHR(st.st_mode));
		close(fd);
		assert_false(rig_is_open(&rig->device, HOST_VFD + i));
	}
	assert_int_equal(rig_pumps(rig), 0);
	close(client);
}

/* A descriptor that is left out would make the next one stand for it. */
static void a_client_that_takes_no_descriptors_is_ended(void **state)
{
	struct rig *rig = *state;
	int client = rig_connect(rig, 0), other = rig_connect(rig, 1);
	struct device_event news[WL_FDS_MAX] = { 0 };

	/* So that what comes for it waits here. */
	fill_socket(rig->proxy.clients[0].fd);
	for (unsigned sent = 0; sent < FDS_HELD; sent += 16) {
		for (unsigned i = 0; i < 16; i++)
			news[i] = (struct device_event){ .kind = EVENT_NEW,
				.vfd = HOST_VFD + sent + i };
		tell(rig, 0, news, 16);
		run(rig, 1);
		assert_false(rig_is_over(rig, 0));
	}
	tell(rig, 0, news, 1);
	run(rig, 1);
	assert_true(rig_is_over(rig, 0));
	assert_false(rig_is_over(rig, 1));
	close(client);
	close(other);
}

/* The host's source does not end meanwhile. */
static void a_pipe_that_the_client_closes_ends(void **state)
{
	const struct device_event news = { .kind = EVENT_NEW, .vfd = HOST_VFD, .flags = WL_READ };
	struct rig *rig = *state;
	int client = rig_connect(rig, 0);

	tell(rig, 0, &news, 1);
	run(rig, 3);
	int fd = take_fd(client);

	assert_int_equal(rig_pumps(rig), 1);
	close(fd);
	run(rig, 1);
	assert_int_equal(rig_pumps(rig), 0);
	close(client);
}

/* A pipe that the host reads from. */
static int connect_with_source(struct rig *rig, int *ret_end)
{
	static const uint32_t message[] = { 9, 8 << 16 };
	int client = rig_connect(rig, 0), ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	rig_say(client, message, sizeof(message), ends, 1);
	close(ends[0]);
	run(rig, 1);
	assert_int_equal(rig_pumps(rig), 1);
	*ret_end = ends[1];
	return client;
}

static void a_host_that_is_busy_gets_all_of_it(void **state)
{
	enum { FIRST = 10000, ALL = 40000 };
	static uint8_t data[ALL];
	struct rig *rig = *state;
	int end, client = connect_with_source(rig, &end);
	uint32_t vfd = rig->proxy.pumps[0].vfd;

	rig->device.room[vfd] = FIRST;
	assert_int_equal(write(end, data, ALL), ALL);
	close(end);
	run(rig, 20);
	assert_in_range(rig->device.got[vfd], FIRST - WL_DATA_MAX, FIRST);
	/* It is not read, also when it has ended: what it has is read once there is room. */
	assert_int_equal(rig_pumps(rig), 1);
	rig->device.room[vfd] = ALL;
	run(rig, 20);
	assert_int_equal(rig->device.got[vfd], ALL);
	assert_int_equal(rig_pumps(rig), 0);
	close(client);
}

/* The device does not say when it has room. */
static void a_host_that_is_busy_is_asked_again_after_a_while(void **state)
{
	struct rig *rig = *state;
	int end, client = connect_with_source(rig, &end);
	uint32_t vfd = rig->proxy.pumps[0].vfd;

	rig->device.room[vfd] = 1;
	assert_int_equal(write(end, "text", 4), 4);
	run(rig, 1);
	uint64_t start = time_ms();
	unsigned asked = rig->device.asked;

	assert_int_equal(rig_pumps(rig), 1);
	rig_be_quiet(rig);
	run(rig, 3);
	assert_int_equal(rig->device.asked, asked + 3);
	assert_true(time_ms() - start >= 2 * RETRY_MS);
	rig->device.room[vfd] = 4;
	run(rig, 1);
	assert_int_equal(rig->device.got[vfd], 4);
	close(end);
	close(client);
}

static void a_host_that_is_gone_ends_the_pipe(void **state)
{
	struct rig *rig = *state;
	int end, client = connect_with_source(rig, &end);

	rig->device.is_gone[rig->proxy.pumps[0].vfd] = true;
	assert_int_equal(write(end, "text", 4), 4);
	run(rig, 1);
	assert_int_equal(rig_pumps(rig), 0);
	assert_int_equal(write(end, "text", 4), -1);
	close(end);
	close(client);
}

/* A pipe that the client reads from, and does not wait for. */
static int connect_with_sink(struct rig *rig, int *ret_end)
{
	const struct device_event news = { .kind = EVENT_NEW, .vfd = HOST_VFD, .flags = WL_READ };
	int client = rig_connect(rig, 0);

	tell(rig, 0, &news, 1);
	run(rig, 1);
	*ret_end = take_fd(client);
	assert_int_equal(fcntl(*ret_end, F_SETFL, O_NONBLOCK), 0);
	return client;
}

/* Of a text of numbers, the part at `at`. */
static void say_numbers(struct rig *rig, uint32_t at, unsigned count)
{
	static uint32_t numbers[WL_DATA_MAX / 4];
	const struct device_event event = { .kind = EVENT_DATA,
		.vfd = HOST_VFD,
		.data = (const uint8_t *)numbers,
		.data_size = sizeof(*numbers) * count };

	for (unsigned i = 0; i < count; i++)
		numbers[i] = at + i;
	rig_event(rig, event);
	run(rig, 1);
}

/* True: there is more to come. */
static bool read_numbers(int fd, uint32_t *at)
{
	uint32_t numbers[1000];
	ssize_t n = read(fd, numbers, sizeof(numbers));

	for (ssize_t i = 0; i < n / 4; i++)
		assert_int_equal(numbers[i], (*at)++);
	return n != 0;
}

static void a_client_that_reads_late_gets_all_of_it(void **state)
{
	enum { PARTS = 4000, COUNT = 900 };
	const struct device_event hup = { .kind = EVENT_HUP, .vfd = HOST_VFD };
	struct rig *rig = *state;
	uint32_t seen = 0;
	int end, client = connect_with_sink(rig, &end);

	/* 7 MiB while it reads, and as much while it does not. */
	for (unsigned i = 0; i < PARTS; i++) {
		say_numbers(rig, i * COUNT, COUNT);
		if (i < PARTS / 2 && i % 4 == 0)
			read_numbers(end, &seen);
	}
	rig_event(rig, hup);
	run(rig, 1);
	while (read_numbers(end, &seen))
		run(rig, 1);
	assert_int_equal(seen, PARTS * COUNT);
	assert_int_equal(rig_pumps(rig), 0);
	close(end);
	close(client);
}

/* What was read takes no memory, however long it goes on so. */
static void what_a_client_has_read_is_given_back(void **state)
{
	struct rig *rig = *state;
	uint32_t seen = 0, said = 0;
	struct stat st;
	int end, client = connect_with_sink(rig, &end);
	const struct spool *spool = &rig->proxy.pumps[0].spool;

	for (unsigned i = 0; i < 500; i++, said += 1000)
		say_numbers(rig, said, 1000);
	for (unsigned i = 0; i < 2000; i++, said += 1000) {
		say_numbers(rig, said, 1000);
		read_numbers(end, &seen);
	}
	assert_int_equal(fstat(spool->fd, &st), 0);
	assert_in_range(st.st_blocks * 512, 1 << 20, 3 << 20);
	while (spool_size(spool) > 0) {
		read_numbers(end, &seen);
		run(rig, 1);
	}
	assert_int_equal(fstat(spool->fd, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	close(end);
	close(client);
}

static void a_client_that_reads_nothing_has_a_bound(void **state)
{
	struct rig *rig = *state;
	struct capture capture;
	int end, client = connect_with_sink(rig, &end);

	for (unsigned i = 0; i < 100; i++)
		say_numbers(rig, 0, 1000);
	/* As if all but one byte of the bound were in there. */
	struct spool *spool = &rig->proxy.pumps[0].spool;

	assert_true(spool_size(spool) > 0);
	spool->end = spool->begin + SPOOL_MAX - 1;
	run(rig, 1);
	assert_int_equal(rig_pumps(rig), 1);
	capture_begin(&capture);
	say_numbers(rig, 0, 1);
	capture_end(&capture);
	assert_int_equal(rig_pumps(rig), 0);
	assert_non_null(strstr(capture.text, "does not read"));
	close(end);
	close(client);
}

/* ---- pools ---- */

/* Of a client whose pool has `size` bytes, with a file that is long enough for all that follow. */
static int connect_with_pool(struct rig *rig, uint32_t size, int *ret_file)
{
	int client = rig_connect_shm(rig, 0);
	int file = memfd_create("pool", MFD_CLOEXEC);

	assert_int_equal(ftruncate(file, 1 << 30), 0);
	REQUEST(client, SHM_ID, 0, file, POOL_ID, size);
	run(rig, 1);
	*ret_file = file;
	return client;
}

/* The file is written to at `at` before a commit of the buffer: does the host see that? */
static bool is_copied(struct rig *rig, int client, int file, uint32_t buffer, uint64_t at)
{
	static uint8_t mark;
	uint8_t seen = 0;

	mark = (uint8_t)(mark % 255 + 1);
	assert_int_equal(pwrite(file, &mark, 1, (off_t)at), 1);
	REQUEST(client, SURFACE_ID, 1, -1, buffer, 0, 0);
	rig_request(client, SURFACE_ID, 6, NULL, 0, -1);
	run(rig, 1);
	assert_false(rig_is_over(rig, 0));
	int twin = rig->device.memory[rig->proxy.clients[0].objects[POOL_ID].pool->vfd];

	assert_int_equal(pread(twin, &seen, 1, (off_t)at), 1);
	return seen == mark;
}

/* A program that draws into a small pool first and then makes its window large. */
static void a_pool_grows(void **state)
{
	enum { SIZE = 9 << 20, MORE = 100 << 20 };
	struct rig *rig = *state;
	int file, client = connect_with_pool(rig, SIZE, &file);
	const struct pool *pool = rig->proxy.clients[0].objects[POOL_ID].pool;

	assert_int_equal(pool->room, 16 * SIZE);
	/* Page tables are filled for what there is. */
	assert_int_equal(rig->device.mapped, SIZE);
	REQUEST(client, POOL_ID, 0, -1, FREE_ID, 0, 1, SIZE, 1, 0);
	assert_true(is_copied(rig, client, file, FREE_ID, SIZE - 1));
	REQUEST(client, POOL_ID, 2, -1, MORE);
	REQUEST(client, POOL_ID, 0, -1, FREE_ID + 1, MORE - 4096, 4096, 1, 4096, 0);
	assert_true(is_copied(rig, client, file, FREE_ID + 1, MORE - 1));
	assert_int_equal(rig->device.mapped, MORE);
	/* The buffer of before is where it was. */
	assert_true(is_copied(rig, client, file, FREE_ID, 0));
	/* To make it smaller is what the compositor refuses. */
	REQUEST(client, POOL_ID, 2, -1, SIZE);
	assert_true(is_copied(rig, client, file, FREE_ID + 1, MORE - 1));
	REQUEST(client, POOL_ID, 2, -1, 16 * SIZE + 1);
	run(rig, 1);
	assert_true(rig_is_over(rig, 0));
	close(file);
	close(client);
}

static void a_buffer_lies_within_the_size_of_its_pool(void **state)
{
	struct rig *rig = *state;
	int file, client = connect_with_pool(rig, 8192, &file);

	REQUEST(client, POOL_ID, 0, -1, FREE_ID, 4096, 64, 64, 64, 0);
	run(rig, 1);
	assert_false(rig_is_over(rig, 0));
	REQUEST(client, POOL_ID, 0, -1, FREE_ID + 1, 4096, 64, 65, 64, 0);
	run(rig, 1);
	assert_true(rig_is_over(rig, 0));
	close(file);
	close(client);
}

static void a_pool_has_room_for_what_it_may_become(void **state)
{
	static const struct {
		uint32_t size, largest, room; /* largest: what the device gives; 0: any */
	} pools[] = {
		{ 4096, 0, 16 << 20 },
		{ 1 << 20, 0, 16 << 20 },
		{ 2 << 20, 0, 32 << 20 },
		{ 100 << 20, 0, 256 << 20 },
		{ 512 << 20, 0, 512 << 20 },
		{ 2 << 20, 31 << 20, 16 << 20 },
		{ 20 << 20, 255 << 20, 20 << 20 },
		{ 2 << 20, 3 << 20, 2 << 20 },
		{ 2 << 20, 1 << 20, 0 },
	};
	struct rig *rig = *state;

	for (unsigned i = 0; i < sizeof(pools) / sizeof(pools[0]); i++) {
		rig->device.memory_max = pools[i].largest;
		int file, client = connect_with_pool(rig, pools[i].size, &file);

		assert_int_equal(rig_is_over(rig, 0), pools[i].room == 0);
		if (!rig_is_over(rig, 0)) {
			assert_int_equal(
				rig->proxy.clients[0].objects[POOL_ID].pool->room, pools[i].room);
			drop_client(&rig->proxy, &rig->proxy.clients[0]);
		}
		close(file);
		close(client);
	}
}

/* A hundred windows of 4K shall not be the last. */
static void pools_leave_addresses_to_others(void **state)
{
	struct rig *rig = *state;
	int file, client;

	rig->proxy.room = ROOM_PLENTY;
	client = connect_with_pool(rig, 2 << 20, &file);
	assert_int_equal(rig->proxy.clients[0].objects[POOL_ID].pool->room, POOL_ROOM_MIN);
	assert_int_equal(rig->proxy.room, ROOM_PLENTY + POOL_ROOM_MIN);
	drop_client(&rig->proxy, &rig->proxy.clients[0]);
	assert_int_equal(rig->proxy.room, ROOM_PLENTY);
	close(file);
	close(client);
}

static uint32_t fourcc(const char *name)
{
	uint32_t value;

	memcpy(&value, name, sizeof(value));
	return value;
}

static void all_planes_of_a_buffer_are_copied(void **state)
{
	enum { STRIDE = 64, HEIGHT = 32, FIRST = STRIDE * HEIGHT, OFFSET = 4096 };
	static const struct {
		char name[5];
		uint32_t bytes;
	} formats[] = {
		{ "\0\0\0\0", FIRST },
		{ "XR30", FIRST },
		{ "NV12", FIRST * 3 / 2 },
		{ "YU12", FIRST * 3 / 2 },
		{ "P010", FIRST * 3 / 2 },
		{ "NV16", FIRST * 2 },
		{ "YV16", FIRST * 2 },
		{ "YU24", FIRST * 3 },
		{ "NV42", FIRST * 3 },
	};
	struct rig *rig = *state;
	int file, client = connect_with_pool(rig, 1 << 20, &file);

	for (unsigned i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		uint32_t last = OFFSET + formats[i].bytes - 1, buffer = FREE_ID + i;

		REQUEST(client, POOL_ID, 0, -1, buffer, OFFSET, STRIDE, HEIGHT, STRIDE,
			fourcc(formats[i].name));
		assert_true(is_copied(rig, client, file, buffer, last));
		assert_false(is_copied(rig, client, file, buffer, last + 1));
	}
	close(file);
	close(client);
}

/* How the other planes lie is between client and compositor. */
static void planes_end_with_the_pool(void **state)
{
	struct rig *rig = *state;
	int file, client = connect_with_pool(rig, 6000, &file);

	REQUEST(client, POOL_ID, 0, -1, FREE_ID, 100, 64, 64, 64, fourcc("NV12"));
	assert_true(is_copied(rig, client, file, FREE_ID, 5999));
	assert_false(is_copied(rig, client, file, FREE_ID, 6000));
	/* Not even the first has room. */
	REQUEST(client, POOL_ID, 0, -1, FREE_ID + 1, 2000, 64, 64, 64, fourcc("NV12"));
	run(rig, 1);
	assert_true(rig_is_over(rig, 0));
	close(file);
	close(client);
}

static int setup(void **state)
{
	static struct rig rig;

	rig_open(&rig);
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	rig_close(*state);
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pipes_that_were_not_sent_end_with_their_client),
		TEST(pipes_that_were_about_to_be_sent_end_with_their_client),
		TEST(a_pipe_is_served_once_the_host_has_it),
		TEST(what_is_neither_memory_nor_a_pipe_is_nothing),
		TEST(a_client_that_takes_no_descriptors_is_ended),
		TEST(a_pipe_that_the_client_closes_ends),
		TEST(a_host_that_is_busy_gets_all_of_it),
		TEST(a_host_that_is_busy_is_asked_again_after_a_while),
		TEST(a_host_that_is_gone_ends_the_pipe),
		TEST(a_client_that_reads_late_gets_all_of_it),
		TEST(what_a_client_has_read_is_given_back),
		TEST(a_client_that_reads_nothing_has_a_bound),
		TEST(a_pool_grows),
		TEST(a_buffer_lies_within_the_size_of_its_pool),
		TEST(a_pool_has_room_for_what_it_may_become),
		TEST(pools_leave_addresses_to_others),
		TEST(all_planes_of_a_buffer_are_copied),
		TEST(planes_end_with_the_pool),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
