// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-balloon behind the thread backend, with a driver that names pages,
 * free memory and statistics, or what is none: the host has what was given,
 * nothing else changes, and a request for statistics is answered once.
 */
#include "unit/unit.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "unit/virtio_driver.h"
#include "virtio/balloon.h"
#include "virtio/device.h"
#include "virtio/vhost_thread.h"

enum { SIZE = 64, PAGE = 4096, HIGH_PAGE = HIGH_GPA / PAGE, HIGH_PAGES = HIGH_SIZE / PAGE };
enum { INFLATE, DEFLATE, STATS, REPORTING };

#define ALL_FEATURES                                                                               \
	(UINT64_C(1) << VIRTIO_BALLOON_F_STATS_VQ | UINT64_C(1) << VIRTIO_BALLOON_F_REPORTING)

struct rig {
	struct guest_memory *memory;
	struct driver driver;
	struct vhost *vhost;
	int kick_fd, call_fd;
};

static int make_rig(void **state)
{
	static struct rig rig;
	char spec[] = "size=3,reporting";
	uint64_t options[16];
	struct device *device = NULL;
	const struct device_class *class = &balloon_device_class;

	rig = (struct rig){
		.memory = driver_memory(),
		.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.call_fd = eventfd(0, EFD_CLOEXEC),
	};
	driver_init(&rig.driver, rig.memory, SIZE);
	memset(guest_memory_at(rig.memory, HIGH_GPA, HIGH_SIZE), 0x5a, HIGH_SIZE);
	*state = &rig;
	assert_true(class->options_size <= sizeof(options));
	memcpy(options, class->defaults, class->options_size);
	int r = suboptions_parse(
		"--balloon", class->suboptions, class->suboption_count, spec, NULL, options);

	if (r == 0)
		r = class->open(options, &device);
	if (r == 0)
		r = vhost_thread_create(class->ops, device, rig.memory, &rig.vhost);
	return r;
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

static void start(struct rig *rig, unsigned index, uint64_t features)
{
	const struct vhost_ring ring = {
		.size = SIZE,
		.desc = DRIVER_DESC,
		.avail = DRIVER_AVAIL,
		.used = DRIVER_USED,
		.kick_fd = rig->kick_fd,
		.call_fd = rig->call_fd,
	};

	assert_int_equal(rig->vhost->ops->set_features(rig->vhost, features), 0);
	assert_int_equal(rig->vhost->ops->set_vring(rig->vhost, index, &ring), 0);
	assert_int_equal(rig->vhost->ops->start_vring(rig->vhost, index), 0);
}

static void wait_used(struct rig *rig, uint16_t idx)
{
	eventfd_t count;

	while (driver_used_idx(&rig->driver) != idx)
		assert_int_equal(eventfd_read(rig->call_fd, &count), 0);
}

static void offer(struct rig *rig)
{
	driver_offer(&rig->driver, 0);
	assert_int_equal(eventfd_write(rig->kick_fd, 1), 0);
}

/* Offers the chain at descriptor 0 and waits until it is back, with nothing written. */
static void request(struct rig *rig)
{
	uint16_t before = driver_used_idx(&rig->driver);

	offer(rig);
	wait_used(rig, (uint16_t)(before + 1));
	assert_int_equal(driver_used_id(&rig->driver, before), 0);
	assert_int_equal(driver_used_length(&rig->driver, before), 0);
}

static void name_pages(struct rig *rig, const uint32_t *pages, size_t count)
{
	memcpy(guest_memory_at(rig->memory, DRIVER_DATA, count * 4), pages, count * 4);
	driver_put(&rig->driver, 0, DRIVER_DATA, (uint32_t)count * 4, 0, 0);
	request(rig);
}

/* Whether a page of the high region was given back; else it must be as it was. */
static bool is_gone(struct rig *rig, unsigned page)
{
	const uint8_t *data = guest_memory_at(rig->memory, HIGH_GPA + page * UINT64_C(4096), PAGE);

	for (unsigned i = 1; i < PAGE; i++)
		assert_int_equal(data[i], data[0]);
	assert_true(data[0] == 0 || data[0] == 0x5a);
	return data[0] == 0;
}

static unsigned count_gone(struct rig *rig)
{
	unsigned gone = 0;

	for (unsigned page = 0; page < HIGH_PAGES; page++)
		gone += is_gone(rig, page);
	return gone;
}

/* What the host has for it. */
static uint64_t host_bytes(struct rig *rig)
{
	struct stat status;

	assert_int_equal(fstat(guest_memory_fd(rig->memory), &status), 0);
	return (uint64_t)status.st_blocks * 512;
}

static void pages_go_back_to_the_host(void **state)
{
	struct rig *rig = *state;
	uint32_t pages[HIGH_PAGES];
	uint64_t before = host_bytes(rig);

	start(rig, INFLATE, ALL_FEATURES);
	/* Up, down, and alone. */
	for (unsigned i = 0; i < 16; i++)
		pages[i] = HIGH_PAGE + i;
	for (unsigned i = 0; i < 16; i++)
		pages[16 + i] = HIGH_PAGE + 63 - i;
	pages[32] = HIGH_PAGE + 100;
	pages[33] = HIGH_PAGE + 90;
	pages[34] = HIGH_PAGE + 100; /* again */
	name_pages(rig, pages, 35);
	/* The list took one. Looking at the others brings them back, so the host comes first. */
	assert_int_equal(host_bytes(rig), before - UINT64_C(34) * PAGE + PAGE);
	for (unsigned page = 0; page < HIGH_PAGES; page++)
		assert_int_equal(is_gone(rig, page),
			page < 16 || (page >= 48 && page < 64) || page == 90 || page == 100);
	/* They can be used again. */
	memset(guest_memory_at(rig->memory, HIGH_GPA, HIGH_SIZE), 0x5a, HIGH_SIZE);
	assert_int_equal(count_gone(rig), 0);
}

/* None of these is memory; each request also names one page that is. */
static void pages_outside_of_memory_do_nothing(void **state)
{
	static const uint32_t wrong[] = { LOW_SIZE / PAGE, HIGH_PAGE - 1, HIGH_END / PAGE,
		UINT32_MAX, UINT32_MAX - 1, 0x80000000, 0xc0000 };
	struct rig *rig = *state;

	start(rig, INFLATE, ALL_FEATURES);
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		const uint32_t pages[] = { wrong[i], HIGH_PAGE + 5 + 2 * i, wrong[i] };

		name_pages(rig, pages, 3);
		assert_int_equal(count_gone(rig), i + 1);
		assert_true(is_gone(rig, 5 + 2 * i));
	}
}

static void a_request_of_any_size_is_answered(void **state)
{
	struct rig *rig = *state;
	uint32_t *pages = guest_memory_at(rig->memory, DRIVER_DATA, 16);

	start(rig, INFLATE, ALL_FEATURES);
	pages[0] = HIGH_PAGE;
	pages[1] = HIGH_PAGE + 1;
	for (uint32_t size = 1; size <= 9; size++) {
		driver_put(&rig->driver, 0, DRIVER_DATA, size, 0, 0);
		request(rig);
		assert_int_equal(count_gone(rig), size / 4 < 2 ? size / 4 : 2);
	}
	/* A number in two buffers; and nothing at all; and what only may be written. */
	pages[0] = HIGH_PAGE + 9;
	driver_put(&rig->driver, 0, DRIVER_DATA, 3, VRING_DESC_F_NEXT, 1);
	driver_put(&rig->driver, 1, DRIVER_DATA + 3, 1, 0, 0);
	request(rig);
	assert_true(is_gone(rig, 9));
	driver_put(&rig->driver, 0, DRIVER_DATA, 0, 0, 0);
	request(rig);
	driver_put(&rig->driver, 0, HIGH_GPA + 0x20000, PAGE, VRING_DESC_F_WRITE, 0);
	request(rig);
	assert_int_equal(count_gone(rig), 3);
	/* All of memory as page numbers: it may hit itself. */
	driver_put(&rig->driver, 0, HIGH_GPA, HIGH_SIZE, 0, 0);
	request(rig);
}

static void what_is_deflated_stays(void **state)
{
	const uint32_t pages[] = { HIGH_PAGE, HIGH_PAGE + 1 };
	struct rig *rig = *state;

	start(rig, DEFLATE, ALL_FEATURES);
	name_pages(rig, pages, 2);
	assert_int_equal(count_gone(rig), 0);
}

static void free_memory_goes_back_by_whole_pages(void **state)
{
	struct rig *rig = *state;

	start(rig, REPORTING, ALL_FEATURES);
	driver_put(&rig->driver, 0, HIGH_GPA + 8 * PAGE, 4 * PAGE,
		VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
	driver_put(&rig->driver, 1, HIGH_GPA + 20 * PAGE + 1, 3 * PAGE - 2,
		VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 2);
	driver_put(&rig->driver, 2, HIGH_GPA + 30 * PAGE + 1, PAGE,
		VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 3);
	driver_put(&rig->driver, 3, HIGH_GPA + 40 * PAGE, PAGE - 1,
		VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 4);
	driver_put(&rig->driver, 4, HIGH_END - PAGE, PAGE, VRING_DESC_F_WRITE, 0);
	request(rig);
	for (unsigned page = 0; page < HIGH_PAGES; page++)
		assert_int_equal(is_gone(rig, page),
			(page >= 8 && page < 12) || page == 21 || page == HIGH_PAGES - 1);
}

/* Without statistics the reports come by the queue that those would have. */
static void queues_have_no_gaps(void **state)
{
	struct rig *rig = *state;

	start(rig, STATS, UINT64_C(1) << VIRTIO_BALLOON_F_REPORTING);
	driver_put(&rig->driver, 0, HIGH_GPA, PAGE, VRING_DESC_F_WRITE, 0);
	request(rig);
	assert_int_equal(count_gone(rig), 1);
}

static void what_was_not_accepted_is_not_done(void **state)
{
	struct rig *rig = *state;

	start(rig, REPORTING, UINT64_C(1) << VIRTIO_BALLOON_F_STATS_VQ);
	driver_put(&rig->driver, 0, HIGH_GPA, PAGE, VRING_DESC_F_WRITE, 0);
	request(rig);
	assert_int_equal(count_gone(rig), 0);
}

/* ---- statistics and configuration ---- */

static struct balloon_state get_state(struct rig *rig)
{
	struct balloon_state state;

	assert_int_equal(
		rig->vhost->ops->get_config(rig->vhost, 0, (uint8_t *)&state, sizeof(state)), 0);
	return state;
}

static int change(struct rig *rig, uint32_t offset, uint32_t value, uint32_t size)
{
	return rig->vhost->ops->change_config(rig->vhost, offset, (const uint8_t *)&value, size);
}

enum { ASKED = offsetof(struct balloon_state, stats_asked) };

static void tell_stats(struct rig *rig, uint16_t tag, uint64_t value)
{
	const struct virtio_balloon_stat stats[] = {
		{ .tag = tag, .val = value },
		{ .tag = BALLOON_STATS, .val = 1 },
		{ .tag = UINT16_MAX, .val = 2 },
	};

	memcpy(guest_memory_at(rig->memory, DRIVER_DATA, sizeof(stats)), stats, sizeof(stats));
	/* A few bytes of one more. */
	driver_put(&rig->driver, 0, DRIVER_DATA, sizeof(stats) + 9, 0, 0);
	offer(rig);
}

static struct balloon_state wait_answer(struct rig *rig, uint32_t number)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	struct balloon_state state;

	while ((state = get_state(rig)).stats_answered != number)
		nanosleep(&pause, NULL);
	return state;
}

static void statistics_are_fetched_when_asked_for(void **state)
{
	struct rig *rig = *state;
	struct balloon_state seen = get_state(rig);

	for (unsigned i = 0; i < BALLOON_STATS; i++)
		assert_true(seen.stats[i] == BALLOON_STAT_UNKNOWN);
	start(rig, STATS, ALL_FEATURES);
	tell_stats(rig, VIRTIO_BALLOON_S_MEMFREE, 1);
	for (uint32_t number = 1; number <= 3; number++) {
		assert_int_equal(change(rig, ASKED, number, 4), 0);
		wait_used(rig, (uint16_t)number);
		assert_int_equal(get_state(rig).stats_answered, number - 1);
		tell_stats(rig, VIRTIO_BALLOON_S_MEMTOT, number * UINT64_C(0x100000001));
		seen = wait_answer(rig, number);
		for (unsigned i = 0; i < BALLOON_STATS; i++)
			assert_true(seen.stats[i] ==
				    (i == VIRTIO_BALLOON_S_MEMTOT ? number * UINT64_C(0x100000001)
								  : BALLOON_STAT_UNKNOWN));
	}
	/* The last buffer is with the device until it stops, and the driver's then. */
	uint16_t base;

	assert_int_equal(driver_used_idx(&rig->driver), 3);
	assert_int_equal(rig->vhost->ops->stop_vring(rig->vhost, STATS, &base), 0);
	assert_int_equal(base, 3);
	assert_int_equal(driver_used_idx(&rig->driver), 3);
}

/* Nobody is there to answer; who comes later does. */
static void a_request_may_come_before_the_driver(void **state)
{
	struct rig *rig = *state;

	for (uint32_t number = 1; number <= 100; number++)
		assert_int_equal(change(rig, ASKED, number, 4), 0);
	start(rig, STATS, ALL_FEATURES);
	tell_stats(rig, VIRTIO_BALLOON_S_AVAIL, 5);
	wait_used(rig, 1);
	tell_stats(rig, VIRTIO_BALLOON_S_AVAIL, 6);
	assert_true(wait_answer(rig, 100).stats[VIRTIO_BALLOON_S_AVAIL] == 6);
}

static void all_buffers_but_one_come_back(void **state)
{
	struct rig *rig = *state;

	start(rig, STATS, ALL_FEATURES);
	for (unsigned i = 0; i < SIZE; i++) {
		driver_put(&rig->driver, i, HIGH_GPA, HIGH_SIZE, 0, 0);
		driver_offer(&rig->driver, (uint16_t)i);
	}
	assert_int_equal(eventfd_write(rig->kick_fd, 1), 0);
	wait_used(rig, SIZE - 1);
	assert_int_equal(change(rig, ASKED, 1, 4), 0);
	wait_used(rig, SIZE);
}

static void configuration_has_an_owner_for_each_word(void **state)
{
	struct rig *rig = *state;
	const uint32_t word = 0x12345678;
	const uint8_t *bytes = (const uint8_t *)&word;
	struct balloon_state seen = get_state(rig);

	assert_int_equal(seen.target_pages, 3 * BALLOON_PAGES_PER_MIB);
	/* The driver's is only the second, in any part. */
	assert_int_equal(rig->vhost->ops->set_config(rig->vhost, 0, bytes, 4), 0);
	assert_int_equal(rig->vhost->ops->set_config(rig->vhost, 2, bytes, 4), 0);
	assert_int_equal(get_state(rig).target_pages, 3 * BALLOON_PAGES_PER_MIB);
	assert_int_equal(get_state(rig).actual_pages, 0);
	assert_int_equal(rig->vhost->ops->set_config(rig->vhost, 4, bytes, 4), 0);
	assert_int_equal(get_state(rig).actual_pages, word);
	assert_int_equal(rig->vhost->ops->set_config(rig->vhost, 7, bytes, 1), 0);
	assert_int_equal(get_state(rig).actual_pages, 0x78345678);
	assert_true(rig->vhost->ops->set_config(rig->vhost, 8, bytes, 4) < 0);
	assert_true(rig->vhost->ops->set_config(rig->vhost, 5, bytes, 4) < 0);
	/* The VMM's is the first, and its own. */
	assert_int_equal(change(rig, 0, 77, 4), 0);
	assert_int_equal(get_state(rig).target_pages, 77);
	assert_int_equal(change(rig, 4, 1, 4), -EINVAL);
	assert_int_equal(change(rig, 0, 1, 2), -EINVAL);
	assert_int_equal(change(rig, ASKED + 4, 1, 4), -EINVAL);
	assert_int_equal(change(rig, sizeof(seen), 1, 4), -EINVAL);
	assert_int_equal(change(rig, UINT32_MAX, 1, 4), -EINVAL);
	assert_int_equal(get_state(rig).actual_pages, 0x78345678);
}

static void a_driver_that_goes_takes_its_pages_along(void **state)
{
	struct rig *rig = *state;
	const uint32_t word = 256;
	uint16_t base;

	start(rig, INFLATE, ALL_FEATURES);
	assert_int_equal(rig->vhost->ops->set_config(rig->vhost, 4, (const uint8_t *)&word, 4), 0);
	assert_int_equal(rig->vhost->ops->stop_vring(rig->vhost, INFLATE, &base), 0);
	assert_int_equal(rig->vhost->ops->reset(rig->vhost), 0);
	assert_int_equal(get_state(rig).actual_pages, 0);
	assert_int_equal(get_state(rig).target_pages, 3 * BALLOON_PAGES_PER_MIB);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_rig, free_rig)
	const struct CMUnitTest tests[] = {
		TEST(pages_go_back_to_the_host),
		TEST(pages_outside_of_memory_do_nothing),
		TEST(a_request_of_any_size_is_answered),
		TEST(what_is_deflated_stays),
		TEST(free_memory_goes_back_by_whole_pages),
		TEST(queues_have_no_gaps),
		TEST(what_was_not_accepted_is_not_done),
		TEST(statistics_are_fetched_when_asked_for),
		TEST(a_request_may_come_before_the_driver),
		TEST(all_buffers_but_one_come_back),
		TEST(configuration_has_an_owner_for_each_word),
		TEST(a_driver_that_goes_takes_its_pages_along),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
