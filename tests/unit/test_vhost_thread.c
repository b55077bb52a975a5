// SPDX-License-Identifier: BSD-3-Clause
/*
 * The thread backend with a device that copies: features, bounds of the config
 * space, start and stop of rings in any order, a driver that breaks a ring or
 * never stops offering. Also device_serve_chains(), which serves here.
 */
#include "unit/unit.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "base/fd.h"
#include "base/log_limit.h"
#include "unit/capture.h"
#include "unit/copier.h"
#include "unit/virtio_driver.h"
#include "virtio/vhost_thread.h"

struct rig {
	struct device device;
	struct guest_memory *memory;
	struct driver driver;
	struct vhost *vhost;
	int kick_fd, call_fd, error_fd;
};

static int make_rig(void **state)
{
	static struct rig rig;

	rig = (struct rig){
		.memory = driver_memory(),
		.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.call_fd = eventfd(0, EFD_CLOEXEC),
		.error_fd = eventfd(0, EFD_CLOEXEC),
	};
	driver_init(&rig.driver, rig.memory, SIZE);
	*state = &rig;
	int r = vhost_thread_create(&copier_ops, &rig.device, rig.memory, &rig.vhost);

	return r != 0 ? r : rig.vhost->ops->set_error_fd(rig.vhost, rig.error_fd);
}

static int free_rig(void **state)
{
	struct rig *rig = *state;

	rig->vhost->ops->free(rig->vhost);
	guest_memory_free(rig->memory);
	fd_close(&rig->kick_fd);
	fd_close(&rig->call_fd);
	fd_close(&rig->error_fd);
	return rig->device.frees != 1 || rig->device.starts < rig->device.stops;
}

static struct vhost_ring ring_of(const struct rig *rig)
{
	return (struct vhost_ring){
		.size = SIZE,
		.desc = DRIVER_DESC,
		.avail = DRIVER_AVAIL,
		.used = DRIVER_USED,
		.kick_fd = rig->kick_fd,
		.call_fd = rig->call_fd,
	};
}

static int start(struct rig *rig, unsigned index, uint16_t base)
{
	struct vhost_ring ring = ring_of(rig);

	ring.base = base;
	int r = rig->vhost->ops->set_vring(rig->vhost, index, &ring);

	return r != 0 ? r : rig->vhost->ops->start_vring(rig->vhost, index);
}

static int stop(struct rig *rig, unsigned index, uint16_t *ret_base)
{
	return rig->vhost->ops->stop_vring(rig->vhost, index, ret_base);
}

/* A request to copy 16 bytes, at descriptors 2 * slot and the next. */
static void offer_copy(struct rig *rig, unsigned slot, uint8_t byte)
{
	uint64_t gpa = DRIVER_DATA + slot * 2 * DATA_SIZE;
	uint8_t *data = guest_memory_at(rig->memory, gpa, (uint64_t)2 * DATA_SIZE);

	memset(data, byte, DATA_SIZE);
	memset(data + DATA_SIZE, 0, DATA_SIZE);
	driver_put(&rig->driver, slot * 2, gpa, DATA_SIZE, VRING_DESC_F_NEXT,
		(uint16_t)(slot * 2 + 1));
	driver_put(&rig->driver, slot * 2 + 1, gpa + DATA_SIZE, DATA_SIZE, VRING_DESC_F_WRITE, 0);
	driver_offer(&rig->driver, (uint16_t)(slot * 2));
}

static void kick(const struct rig *rig)
{
	assert_int_equal(eventfd_write(rig->kick_fd, 1), 0);
}

/* Waits for interrupts until so many are used; a hang is killed by the runner. */
static void wait_for_used(const struct rig *rig, uint16_t idx)
{
	eventfd_t count;

	while (driver_used_idx(&rig->driver) != idx)
		assert_int_equal(eventfd_read(rig->call_fd, &count), 0);
}

static bool is_copied(const struct rig *rig, unsigned slot)
{
	const uint8_t *data = guest_memory_at(
		rig->memory, DRIVER_DATA + slot * 2 * DATA_SIZE, (uint64_t)2 * DATA_SIZE);

	return memcmp(data, data + DATA_SIZE, DATA_SIZE) == 0;
}

static void features_are_the_devices_and_the_rings(void **state)
{
	struct rig *rig = *state;
	const struct vhost_ops *ops = rig->vhost->ops;
	uint64_t offered;
	uint16_t base;

	assert_int_equal(ops->get_features(rig->vhost, &offered), 0);
	assert_int_equal(offered, UINT64_C(0x30) | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
					  1ull << VIRTIO_RING_F_EVENT_IDX |
					  1ull << VIRTIO_F_VERSION_1);
	for (unsigned bit = 0; bit < 64; bit++)
		assert_int_equal(ops->set_features(rig->vhost, UINT64_C(1) << bit),
			(offered >> bit & 1) != 0 ? 0 : -EINVAL);
	assert_int_equal(ops->set_features(rig->vhost, 0x10), 0);
	assert_int_equal(start(rig, 0, 0), 0);
	assert_int_equal(rig->device.features, 0x10);
	assert_int_equal(ops->set_features(rig->vhost, 0x30), -EINVAL);
	assert_int_equal(ops->reset(rig->vhost), -EINVAL);
	assert_int_equal(stop(rig, 0, &base), 0);
	assert_int_equal(ops->reset(rig->vhost), 0);
	assert_int_equal(start(rig, 0, 0), 0);
	assert_int_equal(rig->device.features, 0);
}

static void config_has_bounds(void **state)
{
	enum { ALL = CONFIG_SIZE + CONTROL_SIZE };
	static const uint32_t far[] = { ALL + 1, ALL + 2, 0x7fffffff, 0x80000000, 0xfffffffe,
		0xffffffff };
	struct rig *rig = *state;
	const struct vhost_ops *ops = rig->vhost->ops;
	uint8_t data[16] = { 1, 2, 3, 4, 5, 6 };

	for (uint32_t offset = 0; offset <= ALL; offset++)
		for (uint32_t size = 0; size < sizeof(data); size++) {
			int driver = offset + size <= CONFIG_SIZE ? 0 : -EINVAL;
			int vmm = offset + size <= ALL ? 0 : -EINVAL;

			assert_int_equal(ops->get_config(rig->vhost, offset, data, size), vmm);
			assert_int_equal(ops->set_config(rig->vhost, offset, data, size), driver);
			assert_int_equal(ops->change_config(rig->vhost, offset, data, size), vmm);
		}
	for (unsigned i = 0; i < ARRAY_SIZE(far); i++) {
		assert_int_equal(ops->get_config(rig->vhost, far[i], data, 1), -EINVAL);
		assert_int_equal(ops->set_config(rig->vhost, far[i], data, 2), -EINVAL);
		assert_int_equal(ops->change_config(rig->vhost, far[i], data, 2), -EINVAL);
		assert_int_equal(ops->get_config(rig->vhost, 1, data, far[i]), -EINVAL);
	}
}

static void rings_out_of_range_or_too_large_are_refused(void **state)
{
	struct rig *rig = *state;
	const struct vhost_ops *ops = rig->vhost->ops;
	struct vhost_ring ring = ring_of(rig);
	uint16_t base = 77;

	assert_int_equal(ops->set_vring(rig->vhost, QUEUES, &ring), -EINVAL);
	assert_int_equal(ops->set_vring(rig->vhost, UINT32_MAX, &ring), -EINVAL);
	assert_int_equal(ops->start_vring(rig->vhost, QUEUES), -EINVAL);
	assert_int_equal(stop(rig, QUEUES, &base), -EINVAL);
	assert_int_equal(stop(rig, 0, &base), -EINVAL);
	ring.size = SIZE * 2;
	assert_int_equal(ops->set_vring(rig->vhost, 0, &ring), -EINVAL);
	assert_int_equal(ops->start_vring(rig->vhost, 1), -EINVAL); /* never set */
	assert_int_equal(ops->set_memory(rig->vhost, NULL), 0);
	assert_int_equal(start(rig, 0, 0), -EINVAL); /* nowhere to look */
	assert_int_equal(rig->device.starts, 0);
	assert_int_equal(base, 77);
}

static void bad_places_and_devices_that_fail_start_nothing(void **state)
{
	struct rig *rig = *state;
	const struct vhost_ops *ops = rig->vhost->ops;
	struct vhost_ring ring = ring_of(rig);

	ring.used = HIGH_END - 4;
	assert_int_equal(ops->set_vring(rig->vhost, 0, &ring), 0);
	assert_int_equal(ops->start_vring(rig->vhost, 0), -EINVAL);
	assert_int_equal(rig->device.starts, 0);
	rig->device.start_error = -EIO;
	assert_int_equal(start(rig, 0, 0), -EIO);
	assert_int_equal(rig->device.stops, 0);
	rig->device.start_error = 0;
	assert_int_equal(start(rig, 0, 0), 0);
	/* While it runs it is neither moved nor started. */
	ring = ring_of(rig);
	assert_int_equal(ops->set_vring(rig->vhost, 0, &ring), -EINVAL);
	assert_int_equal(ops->start_vring(rig->vhost, 0), -EINVAL);
}

/* A ring that stops may go on where it was, and then the device must not have forgotten anything.
 */
static void the_device_runs_until_it_is_reset(void **state)
{
	struct rig *rig = *state;
	const struct vhost_ops *ops = rig->vhost->ops;
	uint16_t base;

	for (unsigned round = 1; round <= 3; round++) {
		for (unsigned again = 0; again < 3; again++) {
			assert_int_equal(start(rig, 1, 0), 0);
			assert_int_equal(start(rig, 0, 0), 0);
			assert_int_equal(ops->reset(rig->vhost), -EINVAL);
			assert_int_equal(stop(rig, 1, &base), 0);
			assert_int_equal(stop(rig, 0, &base), 0);
			assert_int_equal(rig->device.starts, round);
			assert_int_equal(rig->device.stops, round - 1);
		}
		if (round == 2)
			assert_int_equal(ops->set_features(rig->vhost, 0), 0);
		else
			assert_int_equal(ops->reset(rig->vhost), 0);
		assert_int_equal(rig->device.stops, round);
		assert_int_equal(ops->reset(rig->vhost), 0);
		assert_int_equal(rig->device.stops, round);
	}
	assert_int_equal(start(rig, 0, 0), 0); /* and is freed while it runs */
}

static void kicks_are_served(void **state)
{
	struct rig *rig = *state;

	offer_copy(rig, 0, 1); /* before the start: needs no kick */
	assert_int_equal(start(rig, 0, 0), 0);
	wait_for_used(rig, 1);
	for (uint16_t n = 1; n < 5000; n++) {
		offer_copy(rig, n % 4, (uint8_t)n);
		kick(rig);
		wait_for_used(rig, (uint16_t)(n + 1));
		assert_true(is_copied(rig, n % 4));
		assert_int_equal(driver_used_length(&rig->driver, n), DATA_SIZE);
	}
}

static void a_stopped_ring_goes_on_at_its_base(void **state)
{
	struct rig *rig = *state;
	uint16_t base = 0;

	for (uint16_t n = 0; n < 200; n++) {
		assert_int_equal(start(rig, 0, base), 0);
		offer_copy(rig, n % 4, (uint8_t)n);
		kick(rig);
		wait_for_used(rig, (uint16_t)(n + 1));
		assert_int_equal(stop(rig, 0, &base), 0);
		assert_int_equal(base, n + 1);
		/* Nobody looks any more. */
		kick(rig);
	}
	assert_int_equal(rig->device.served, 200);
}

static void a_broken_ring_is_reported_and_stops_alone(void **state)
{
	struct rig *rig = *state;
	struct capture capture;
	eventfd_t count;
	uint16_t base;

	capture_begin(&capture);
	assert_int_equal(start(rig, 0, 0), 0);
	driver_set_avail_idx(
		&rig->driver, SIZE + 1); /* seen before the kick, if the thread is late */
	kick(rig);
	assert_int_equal(eventfd_read(rig->error_fd, &count), 0);
	kick(rig); /* nobody serves it any more, nobody spins */
	assert_int_equal(stop(rig, 0, &base), 0);
	capture_end(&capture);
	assert_int_equal(capture_lines(&capture), 1);
	assert_int_equal(base, 0);
	driver_init(&rig->driver, rig->memory, SIZE);
	assert_int_equal(rig->vhost->ops->reset(rig->vhost), 0);
	assert_int_equal(start(rig, 0, 0), 0);
	offer_copy(rig, 0, 9);
	kick(rig);
	wait_for_used(rig, 1);
	assert_true(is_copied(rig, 0));
}

/* A guest that does nothing else must not fill the host's log. */
static void a_driver_that_breaks_rings_writes_few_lines(void **state)
{
	struct rig *rig = *state;
	struct capture capture;
	eventfd_t count;
	uint16_t base;

	capture_begin(&capture);
	for (unsigned i = 0; i < 100; i++) {
		driver_init(&rig->driver, rig->memory, SIZE);
		assert_int_equal(start(rig, i % QUEUES, 0), 0);
		driver_set_avail_idx(&rig->driver, SIZE + 1);
		kick(rig);
		assert_int_equal(eventfd_read(rig->error_fd, &count), 0);
		assert_int_equal(stop(rig, i % QUEUES, &base), 0);
	}
	capture_end(&capture);
	assert_in_range(capture_lines(&capture), 1, LOG_LIMIT_BURST + 1);
}

struct offerer {
	struct rig *rig;
	bool stop; /* atomic */
};

static void *offer_for_ever(void *argument)
{
	struct offerer *offerer = argument;
	struct driver *driver = &offerer->rig->driver;

	while (!__atomic_load_n(&offerer->stop, __ATOMIC_RELAXED)) {
		uint16_t offered = driver_avail_idx(driver);

		if ((uint16_t)(offered - driver_used_idx(driver)) < SIZE)
			driver_offer(driver, offered % SIZE);
	}
	return NULL;
}

static void a_driver_that_never_stops_can_be_stopped(void **state)
{
	struct rig *rig = *state;
	struct offerer offerer = { .rig = rig };
	uint16_t base = 0;
	pthread_t thread;

	for (unsigned i = 0; i < SIZE; i++)
		driver_put(&rig->driver, i, DRIVER_DATA, 1, VRING_DESC_F_WRITE, 0);
	assert_int_equal(pthread_create(&thread, NULL, offer_for_ever, &offerer), 0);
	while (driver_avail_idx(&rig->driver) == 0)
		(void)poll(NULL, 0, 1); /* it may begin late */
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(start(rig, 0, base), 0);
		kick(rig);
		(void)poll(NULL, 0, 1); /* let it run */
		assert_int_equal(stop(rig, 0, &base), 0);
		/* All that was popped is pushed. */
		assert_int_equal(driver_used_idx(&rig->driver), base);
	}
	__atomic_store_n(&offerer.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_true(rig->device.served > 0);
}

/* What a thread may no longer do it has done before: the same one serves all of a queue's starts.
 */
struct counts {
	unsigned made, entered;
	int enter_result;
};

static int count_thread(
	void *owner, pthread_t *ret_thread, void *(*function)(void *argument), void *argument)
{
	struct counts *counts = owner;

	counts->made++;
	return -pthread_create(ret_thread, NULL, function, argument);
}

static int count_entry(void *owner, const char *device)
{
	struct counts *counts = owner;

	assert_string_equal(device, copier_ops.name);
	counts->entered++;
	return counts->enter_result;
}

static void a_queue_has_one_thread_for_all_its_starts(void **state)
{
	struct rig *rig = *state;
	struct counts counts = { 0 };
	const struct queue_threads threads = { count_thread, count_entry, &counts };
	uint16_t base = 0;

	vhost_thread_set_threads(rig->vhost, &threads);
	for (unsigned slot = 0; slot < SIZE / 2; slot++) {
		assert_int_equal(start(rig, 0, base), 0);
		offer_copy(rig, slot, (uint8_t)(slot + 1));
		kick(rig);
		wait_for_used(rig, (uint16_t)(slot + 1));
		assert_int_equal(stop(rig, 0, &base), 0);
		assert_true(is_copied(rig, slot));
	}
	assert_int_equal(counts.made, 1);
	assert_int_equal(counts.entered, 1);
	assert_int_equal(start(rig, 1, 0), 0);
	assert_int_equal(stop(rig, 1, &base), 0);
	assert_int_equal(counts.made, 2);
	assert_int_equal(counts.entered, 2);
}

/* Each time: the queue is not served. */
static void a_thread_that_cannot_drop_its_rights_serves_nothing(void **state)
{
	struct rig *rig = *state;
	struct counts counts = { .enter_result = -EPERM };
	const struct queue_threads threads = { count_thread, count_entry, &counts };
	struct capture capture;
	eventfd_t count;
	uint16_t base;

	vhost_thread_set_threads(rig->vhost, &threads);
	capture_begin(&capture);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(start(rig, 0, 0), 0);
		offer_copy(rig, i, 1);
		kick(rig);
		assert_int_equal(eventfd_read(rig->error_fd, &count), 0);
		assert_int_equal(stop(rig, 0, &base), 0);
	}
	capture_end(&capture);
	assert_non_null(strstr(capture.text, "Operation not permitted"));
	assert_int_equal(driver_used_idx(&rig->driver), 0);
	assert_int_equal(counts.made, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_rig, free_rig)
	const struct CMUnitTest tests[] = {
		TEST(features_are_the_devices_and_the_rings),
		TEST(config_has_bounds),
		TEST(rings_out_of_range_or_too_large_are_refused),
		TEST(bad_places_and_devices_that_fail_start_nothing),
		TEST(the_device_runs_until_it_is_reset),
		TEST(kicks_are_served),
		TEST(a_stopped_ring_goes_on_at_its_base),
		TEST(a_broken_ring_is_reported_and_stops_alone),
		TEST(a_driver_that_breaks_rings_writes_few_lines),
		TEST(a_driver_that_never_stops_can_be_stopped),
		TEST(a_queue_has_one_thread_for_all_its_starts),
		TEST(a_thread_that_cannot_drop_its_rights_serves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
