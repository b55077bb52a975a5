// SPDX-License-Identifier: BSD-3-Clause
/*
 * Pipes between the clients of crosvm-wl and the host: each byte arrives,
 * however slow its reader is, and there is a place for the next pipe.
 */
#include "unit/unit.h"

#include <signal.h>
#include <sys/stat.h>

#include "unit/capture.h"
#include "unit/wl_proxy_rig.h"

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
		rig_run(rig, 1);
		assert_int_equal(rig_pumps(rig), 16);
		close(fd);
		close(client);
		rig_run(rig, 1);
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

	rig_run(rig, 1);
	rig_say(client, words, sizeof(words), fds, 2);
	rig_run(rig, 1);
	assert_true(rig_is_over(rig, 0));
	assert_int_equal(rig_pumps(rig), 0);
	close(fds[0]);
	close(fds[1]);
	close(client);
}

/* The first go with the message, the next wait for another, and there is no place for the rest. */
static void pipes_that_are_too_many_end_with_their_client(void **state)
{
	static const uint32_t message[] = { 9, 8 << 16 };
	struct rig *rig = *state;
	int client = rig_connect(rig, 0), fd = make_pipe_end(), fds[15];

	for (unsigned i = 0; i < 15; i++)
		fds[i] = fd;
	for (unsigned i = 0; i < 4; i++) {
		rig_say(client, (const uint8_t *)message + i, 1, fds, 15);
		rig_run(rig, 1);
	}
	assert_int_equal(rig_pumps(rig), 60);
	rig_say(client, message + 1, 4, NULL, 0);
	rig_run(rig, 1);
	assert_true(rig_is_over(rig, 0));
	assert_int_equal(rig_pumps(rig), WL_FDS_MAX);
	rig_run(rig, 1);
	assert_int_equal(rig_pumps(rig), 0);
	close(fd);
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
	rig_run(rig, 3);
	assert_int_equal(rig_pumps(rig), 1);
	uint32_t vfd = rig->proxy.pumps[0].vfd;

	assert_int_equal(rig->device.got[vfd], 0);
	rig_say(client, message + 1, 4, NULL, 0);
	rig_run(rig, 3);
	assert_int_equal(rig->device.got[rig->proxy.clients[0].vfd], 8);
	assert_int_equal(rig->device.got[vfd], 4);
	assert_int_equal(rig_pumps(rig), 0);
	close(ends[0]);
	close(client);
}

/* The host's source does not end meanwhile. */
static void a_pipe_that_the_client_closes_ends(void **state)
{
	const struct device_event news = { .kind = EVENT_NEW, .vfd = HOST_VFD, .flags = WL_READ };
	struct rig *rig = *state;
	int client = rig_connect(rig, 0);

	rig_tell(rig, 0, &news, 1);
	rig_run(rig, 3);
	int fd = rig_take_fd(client);

	assert_int_equal(rig_pumps(rig), 1);
	close(fd);
	rig_run(rig, 1);
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
	rig_run(rig, 1);
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
	rig_run(rig, 20);
	assert_in_range(rig->device.got[vfd], FIRST - WL_DATA_MAX, FIRST);
	/* It is not read, also when it has ended: what it has is read once there is room. */
	assert_int_equal(rig_pumps(rig), 1);
	rig->device.room[vfd] = ALL;
	rig_run(rig, 20);
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
	rig_run(rig, 1);
	uint64_t start = rig_time_ms();
	unsigned asked = rig->device.asked;

	assert_int_equal(rig_pumps(rig), 1);
	rig_be_quiet(rig);
	rig_run(rig, 3);
	assert_int_equal(rig->device.asked, asked + 3);
	assert_true(rig_time_ms() - start >= 2 * RETRY_MS);
	rig->device.room[vfd] = 4;
	rig_run(rig, 1);
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
	rig_run(rig, 1);
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

	rig_tell(rig, 0, &news, 1);
	rig_run(rig, 1);
	*ret_end = rig_take_fd(client);
	assert_int_equal(fcntl(*ret_end, F_SETFL, O_NONBLOCK), 0);
	return client;
}

/* Of a text of numbers, the part at `at`; the pump is the first one. */
static void say_numbers(struct rig *rig, uint32_t at, unsigned count)
{
	static uint32_t numbers[WL_DATA_MAX / 4];
	const struct device_event event = { .kind = EVENT_DATA,
		.vfd = rig->proxy.pumps[0].vfd,
		.data = (const uint8_t *)numbers,
		.data_size = sizeof(*numbers) * count };

	for (unsigned i = 0; i < count; i++)
		numbers[i] = at + i;
	rig_event(rig, event);
	rig_run(rig, 1);
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
	rig_run(rig, 1);
	while (read_numbers(end, &seen))
		rig_run(rig, 1);
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
		rig_run(rig, 1);
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
	rig_run(rig, 1);
	assert_int_equal(rig_pumps(rig), 1);
	capture_begin(&capture);
	say_numbers(rig, 0, 1);
	capture_end(&capture);
	assert_int_equal(rig_pumps(rig), 0);
	assert_non_null(strstr(capture.text, "does not read"));
	close(end);
	close(client);
}

/* The client's descriptor is a copy: it can make that one wait, and so would crosvm-wl. */
static void check_unshared(struct rig *rig, const int ends[2])
{
	enum { PARTS = 400, COUNT = 1000 };
	static const uint32_t message[] = { 9, 8 << 16 };
	int client = rig_connect(rig, 0);
	uint32_t seen = 0;

	rig_say(client, message, sizeof(message), &ends[1], 1);
	rig_run(rig, 1);
	assert_int_equal(rig_pumps(rig), 1);
	assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0);
	assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	for (unsigned i = 0; i < PARTS; i++)
		say_numbers(rig, i * COUNT, COUNT);
	while (seen < PARTS * COUNT) {
		(void)read_numbers(ends[0], &seen);
		rig_run(rig, 1);
	}
	close(ends[1]);
	close(ends[0]);
	close(client);
	rig_run(rig, 1);
	assert_int_equal(rig_pumps(rig), 0);
	assert_true(rig_is_over(rig, 0));
}

static void a_client_cannot_make_us_wait(void **state)
{
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	check_unshared(*state, ends);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	check_unshared(*state, ends);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pipes_that_were_not_sent_end_with_their_client),
		TEST(pipes_that_were_about_to_be_sent_end_with_their_client),
		TEST(pipes_that_are_too_many_end_with_their_client),
		TEST(a_pipe_is_served_once_the_host_has_it),
		TEST(a_pipe_that_the_client_closes_ends),
		TEST(a_host_that_is_busy_gets_all_of_it),
		TEST(a_host_that_is_busy_is_asked_again_after_a_while),
		TEST(a_host_that_is_gone_ends_the_pipe),
		TEST(a_client_that_reads_late_gets_all_of_it),
		TEST(what_a_client_has_read_is_given_back),
		TEST(a_client_that_reads_nothing_has_a_bound),
		TEST(a_client_cannot_make_us_wait),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
