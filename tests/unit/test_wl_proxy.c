// SPDX-License-Identifier: BSD-3-Clause
/*
 * crosvm-wl, the guest's half of wayland: what clients and compositors do that
 * is not the rule, and who pays for it.
 */
#include "unit/unit.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "unit/wl_proxy_rig.h"

static void fill_socket(int fd)
{
	static const uint8_t data[65536];

	while (send(fd, data, sizeof(data), MSG_DONTWAIT) > 0)
		;
}

/* A compositor that has no keymap sends /dev/null; a file that the guest cannot see is the same. */
static void what_is_neither_memory_nor_a_pipe_is_nothing(void **state)
{
	struct rig *rig = *state;
	int client = rig_connect(rig, 0);

	for (unsigned i = 0; i < PUMPS + 2; i++) {
		const struct device_event news = { .kind = EVENT_NEW, .vfd = HOST_VFD + i };

		rig_tell(rig, 0, &news, 1);
		rig_run(rig, 1);
		int fd = rig_take_fd(client);
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
		rig_tell(rig, 0, news, 16);
		rig_run(rig, 1);
		assert_false(rig_is_over(rig, 0));
	}
	rig_tell(rig, 0, news, 1);
	rig_run(rig, 1);
	assert_true(rig_is_over(rig, 0));
	assert_false(rig_is_over(rig, 1));
	close(client);
	close(other);
}

static int connect_to_one_that_closed(struct rig *rig)
{
	static const uint32_t message[] = { 9, 8 << 16 };
	int client = rig_connect(rig, 0);
	unsigned asked = rig->device.asked;

	rig->device.is_gone[rig->proxy.clients[0].vfd] = true;
	for (unsigned i = 0; i < 3; i++) {
		rig_say(client, message, sizeof(message), NULL, 0);
		rig_run(rig, 2);
		assert_false(rig_is_over(rig, 0));
	}
	assert_int_equal(rig->device.asked, asked + 1);
	return client;
}

/* Why it did is on its way still. */
static void a_client_hears_why_the_compositor_closed(void **state)
{
	struct rig *rig = *state;
	int client = connect_to_one_that_closed(rig);
	const struct device_event hup = { .kind = EVENT_HUP, .vfd = rig->proxy.clients[0].vfd };
	uint8_t data[16];

	rig_tell(rig, 0, NULL, 0);
	rig_run(rig, 1);
	assert_false(rig_is_over(rig, 0));
	rig_event(rig, hup);
	rig_run(rig, 1);
	assert_true(rig_is_over(rig, 0));
	assert_int_equal(read(client, data, sizeof(data)), 8);
	close(client);
}

static void a_client_of_a_compositor_that_closed_may_go_first(void **state)
{
	struct rig *rig = *state;

	close(connect_to_one_that_closed(rig));
	rig_run(rig, 1);
	assert_true(rig_is_over(rig, 0));
}

/* Listens with a client that waits, and returns that. */
static int call_listener(struct rig *rig)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t length = sizeof(address.sun_family);
	int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	rig->proxy.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Without a name the kernel gives it one. */
	assert_int_equal(bind(rig->proxy.listener, (void *)&address, length), 0);
	assert_int_equal(listen(rig->proxy.listener, 1), 0);
	length = sizeof(address);
	assert_int_equal(getsockname(rig->proxy.listener, (void *)&address, &length), 0);
	assert_int_equal(connect(client, (void *)&address, length), 0);
	return client;
}

/* poll() wants the limit to be above what it is told to look at. */
static void a_listener_without_descriptors_rests(void **state)
{
	enum { LIMIT = 200 };
	struct rig *rig = *state;
	int client = call_listener(rig), fds[LIMIT];
	struct rlimit before;
	unsigned count = 0;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	const struct rlimit small = { LIMIT, before.rlim_max };

	assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
	while ((fds[count] = dup(client)) >= 0)
		count++;
	rig_be_quiet(rig);
	uint64_t start = rig_time_ms();

	rig_run(rig, 3);
	assert_true(rig_is_over(rig, 0));
	assert_true(rig_time_ms() - start >= RETRY_MS - 1);
	while (count > 0)
		close(fds[--count]);
	rig_run(rig, 2);
	assert_false(rig_is_over(rig, 0));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	close(rig->proxy.listener);
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
	rig_run(rig, 1);
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
	rig_run(rig, 1);
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
	rig_run(rig, 1);
	assert_true(rig_is_over(rig, 0));
	close(file);
	close(client);
}

static void a_buffer_lies_within_the_size_of_its_pool(void **state)
{
	struct rig *rig = *state;
	int file, client = connect_with_pool(rig, 8192, &file);

	REQUEST(client, POOL_ID, 0, -1, FREE_ID, 4096, 64, 64, 64, 0);
	rig_run(rig, 1);
	assert_false(rig_is_over(rig, 0));
	REQUEST(client, POOL_ID, 0, -1, FREE_ID + 1, 4096, 64, 65, 64, 0);
	rig_run(rig, 1);
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
	rig_run(rig, 1);
	assert_true(rig_is_over(rig, 0));
	close(file);
	close(client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_neither_memory_nor_a_pipe_is_nothing),
		TEST(a_client_that_takes_no_descriptors_is_ended),
		TEST(a_client_hears_why_the_compositor_closed),
		TEST(a_client_of_a_compositor_that_closed_may_go_first),
		TEST(a_listener_without_descriptors_rests),
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
