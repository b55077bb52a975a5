// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-rng behind the thread backend: what comes back is random, as long as
 * the used ring says, never more than 64 KiB, and nothing else is touched.
 */
#include "unit/unit.h"

#include <sched.h>
#include <sys/eventfd.h>

#include "base/fd.h"
#include "unit/virtio_driver.h"
#include "virtio/vhost_thread.h"

enum { SIZE = 64, CAP = 64 << 10 };

struct rig {
	struct guest_memory *memory;
	struct driver driver;
	struct vhost *vhost;
	int kick_fd, call_fd;
};

static int make_rig(void **state)
{
	static struct rig rig;
	struct device *device;

	rig = (struct rig){
		.memory = driver_memory(),
		.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.call_fd = eventfd(0, EFD_CLOEXEC),
	};
	driver_init(&rig.driver, rig.memory, SIZE);
	*state = &rig;
	int r = rng_device_class.open(NULL, &device);

	if (r == 0)
		r = vhost_thread_create(rng_device_class.ops, device, rig.memory, &rig.vhost);
	const struct vhost_ring ring = {
		.size = SIZE,
		.desc = DRIVER_DESC,
		.avail = DRIVER_AVAIL,
		.used = DRIVER_USED,
		.kick_fd = rig.kick_fd,
		.call_fd = rig.call_fd,
	};

	if (r == 0)
		r = rig.vhost->ops->set_vring(rig.vhost, 0, &ring);
	return r != 0 ? r : rig.vhost->ops->start_vring(rig.vhost, 0);
}

static int free_rig(void **state)
{
	struct rig *rig = *state;

	rig->vhost->ops->free(rig->vhost);
	guest_memory_free(rig->memory);
	fd_close(&rig->kick_fd);
	fd_close(&rig->call_fd);
	return 0;
}

/* Offers the chain at descriptor 0; how many bytes came. */
static uint32_t request(struct rig *rig)
{
	uint16_t before = driver_used_idx(&rig->driver);
	eventfd_t count;

	driver_offer(&rig->driver, 0);
	assert_int_equal(eventfd_write(rig->kick_fd, 1), 0);
	while (driver_used_idx(&rig->driver) == before)
		assert_int_equal(eventfd_read(rig->call_fd, &count), 0);
	assert_int_equal(driver_used_id(&rig->driver, before), 0);
	return driver_used_length(&rig->driver, before);
}

static bool is_all(const uint8_t *data, uint8_t byte, size_t size)
{
	size_t same = 0;

	while (same < size && data[same] == byte)
		same++;
	return same == size;
}

static void a_buffer_is_filled_and_no_more(void **state)
{
	struct rig *rig = *state;
	uint8_t *data = guest_memory_at(rig->memory, DRIVER_DATA, 1024);
	uint8_t first[256];

	for (uint32_t size = 1; size <= 256; size++) {
		memset(data, 0x5a, 1024);
		driver_put(&rig->driver, 0, DRIVER_DATA + 100, size, VRING_DESC_F_WRITE, 0);
		assert_int_equal(request(rig), size);
		assert_true(is_all(data, 0x5a, 100));
		assert_true(is_all(data + 100 + size, 0x5a, 256));
	}
	memcpy(first, data + 100, sizeof(first));
	assert_int_equal(request(rig), 256);
	assert_memory_not_equal(first, data + 100, sizeof(first));
	/* Each bit is 1 about half of the time: 256 bytes hold 1024 +- 200 ones. */
	unsigned ones = 0;

	for (unsigned i = 0; i < sizeof(first); i++)
		ones += (unsigned)__builtin_popcount(first[i]);
	assert_in_range(ones, 824, 1224);
}

static void a_large_request_gets_64_kib(void **state)
{
	struct rig *rig = *state;
	uint8_t *data = guest_memory_at(rig->memory, HIGH_GPA, HIGH_SIZE);

	memset(data, 0x5a, HIGH_SIZE);
	driver_put(&rig->driver, 0, HIGH_GPA, HIGH_SIZE, VRING_DESC_F_WRITE, 0);
	assert_int_equal(request(rig), CAP);
	assert_true(is_all(data + CAP, 0x5a, HIGH_SIZE - CAP));
	assert_false(is_all(data + CAP - 16, 0x5a, 16));
	/* The most that a chain can name, over and over the same memory. */
	for (unsigned i = 0; i < SIZE; i++)
		driver_put(&rig->driver, i, HIGH_GPA, HIGH_SIZE,
			VRING_DESC_F_WRITE | (i < SIZE - 1 ? VRING_DESC_F_NEXT : 0),
			(uint16_t)(i + 1));
	assert_int_equal(request(rig), CAP);
}

static void several_buffers_count_together(void **state)
{
	struct rig *rig = *state;
	uint8_t *data = guest_memory_at(rig->memory, DRIVER_DATA, CAP * 2);

	memset(data, 0x5a, (size_t)CAP * 2);
	driver_put(
		&rig->driver, 0, DRIVER_DATA, CAP - 10, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
	driver_put(&rig->driver, 1, DRIVER_DATA + CAP, 32, VRING_DESC_F_WRITE, 0);
	assert_int_equal(request(rig), CAP);
	assert_true(is_all(data + CAP + 10, 0x5a, 22));
	assert_true(is_all(data + CAP - 10, 0x5a, 10));
}

static void what_is_readable_is_not_written(void **state)
{
	struct rig *rig = *state;
	uint8_t *data = guest_memory_at(rig->memory, DRIVER_DATA, 64);

	memset(data, 0x5a, 64);
	driver_put(&rig->driver, 0, DRIVER_DATA, 32, 0, 0);
	assert_int_equal(request(rig), 0);
	driver_put(&rig->driver, 0, DRIVER_DATA, 32, VRING_DESC_F_NEXT, 1);
	driver_put(&rig->driver, 1, DRIVER_DATA + 32, 32, VRING_DESC_F_WRITE, 0);
	assert_int_equal(request(rig), 32);
	assert_true(is_all(data, 0x5a, 32));
	driver_put(&rig->driver, 0, 0, 0, VRING_DESC_F_WRITE, 0);
	assert_int_equal(request(rig), 0);
}

/* 64 requests of 64 KiB each: an interrupt, and a look at who wants to stop, every MiB. */
static void a_batch_is_a_mib_at_most(void **state)
{
	struct rig *rig = *state;
	uint16_t base;
	eventfd_t calls;

	for (unsigned i = 0; i < SIZE; i++) {
		driver_put(&rig->driver, i, HIGH_GPA, CAP, VRING_DESC_F_WRITE, 0);
		driver_offer(&rig->driver, (uint16_t)i);
	}
	assert_int_equal(eventfd_write(rig->kick_fd, 1), 0);
	while (driver_used_idx(&rig->driver) != SIZE)
		sched_yield();
	assert_int_equal(rig->vhost->ops->stop_vring(rig->vhost, 0, &base), 0);
	assert_int_equal(base, SIZE);
	assert_int_equal(eventfd_read(rig->call_fd, &calls), 0);
	assert_true(calls >= SIZE * CAP / MIB);
}

static void it_says_what_it_is(void **state)
{
	struct rig *rig = *state;
	uint8_t byte;

	assert_int_equal(rng_device_class.ops->virtio_id, 4);
	assert_int_equal(rig->vhost->ops->queue_count(rig->vhost), 1);
	assert_true(rig->vhost->ops->get_config(rig->vhost, 0, &byte, 1) < 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_rig, free_rig)
	const struct CMUnitTest tests[] = {
		TEST(a_buffer_is_filled_and_no_more),
		TEST(a_large_request_gets_64_kib),
		TEST(several_buffers_count_together),
		TEST(what_is_readable_is_not_written),
		TEST(a_batch_is_a_mib_at_most),
		TEST(it_says_what_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
