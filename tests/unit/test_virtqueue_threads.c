// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtqueue with the driver in another thread: one that changes descriptors
 * while they are read, and a good one that sleeps until it is told, so that a
 * notification too few is a hang.
 */
#include "unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "unit/virtio_driver.h"
#include "virtio/virtqueue.h"

enum { SIZE = 8, TABLE = DRIVER_DATA + 0x1000 };

/* ---- descriptors change while they are read ---- */

#if defined(__clang__)
#define GUEST_CODE __attribute__((no_sanitize("thread"), noinline))
#else
#define GUEST_CODE __attribute__((no_sanitize_thread, noinline))
#endif

struct flipper {
	struct driver *driver;
	bool stop; /* atomic */
};

static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

/* Another vCPU: no sanitizer sees what it does to memory either. */
GUEST_CODE static void flip(struct driver *driver, uint32_t *seed)
{
	static const uint64_t gpas[] = { DRIVER_DATA, LOW_SIZE - 8, LOW_SIZE, HIGH_GPA,
		HIGH_END - 8, HIGH_END, TABLE, UINT64_MAX - 7 };
	volatile struct vring_desc *desc = &driver->desc[next_random(seed) % SIZE];
	volatile struct vring_desc *entry =
		(volatile struct vring_desc *)guest_memory_at(driver->memory, TABLE, SIZE * 16) +
		next_random(seed) % SIZE;

	desc->addr = gpas[next_random(seed) % ARRAY_SIZE(gpas)];
	desc->len = next_random(seed) % 80 + (next_random(seed) % 64 == 0 ? 0xfffffff0 : 0);
	desc->flags = (uint16_t)(next_random(seed) % 8);
	desc->next = (uint16_t)(next_random(seed) % (SIZE + 1));
	entry->addr = desc->addr;
	entry->len = desc->len;
	entry->flags = (uint16_t)(next_random(seed) % 4);
	entry->next = desc->next;
}

static void *flip_descriptors(void *argument)
{
	struct flipper *flipper = argument;
	uint32_t seed = 1;

	while (!__atomic_load_n(&flipper->stop, __ATOMIC_RELAXED))
		flip(flipper->driver, &seed);
	return NULL;
}

static bool lies_in(
	const struct guest_memory *memory, uint64_t gpa, uint64_t size, const struct iovec *buffer)
{
	uint64_t start = (uintptr_t)guest_memory_at(memory, gpa, size);
	uint64_t base = (uintptr_t)buffer->iov_base;

	return base >= start && base - start < size && buffer->iov_len <= size - (base - start);
}

/* What a device may trust in a chain, whoever wrote to it meanwhile. */
static bool is_trusted(const struct guest_memory *memory, const struct virtqueue_chain *chain)
{
	uint64_t sums[2] = { 0, 0 };

	if (chain->readable + chain->writable > SIZE)
		return false;
	for (unsigned i = 0; i < chain->readable + chain->writable; i++) {
		const struct iovec *buffer = &chain->iov[i];

		if (buffer->iov_len == 0 || (!lies_in(memory, LOW_GPA, LOW_SIZE, buffer) &&
						    !lies_in(memory, HIGH_GPA, HIGH_SIZE, buffer)))
			return false;
		sums[i >= chain->readable] += buffer->iov_len;
	}
	return sums[0] == chain->readable_bytes && sums[1] == chain->writable_bytes;
}

static void descriptors_may_change_at_any_time(void **state)
{
	struct virtqueue_config config = driver_config(SIZE);
	unsigned good = 0, bad = 0, trusted = 0;
	struct iovec iov[SIZE];
	struct driver driver;
	pthread_t thread;

	driver_init(&driver, *state, SIZE);
	struct flipper flipper = { .driver = &driver };

	assert_int_equal(pthread_create(&thread, NULL, flip_descriptors, &flipper), 0);
	for (unsigned n = 0; n < 300000 || (n < 30000000 && (good < 1000 || bad < 1000)); n++) {
		struct virtqueue_chain chain = { .iov = iov, .iov_max = SIZE };
		struct virtqueue vq;

		driver_set_avail_idx(&driver, 1);
		driver.avail[2] = (uint16_t)(n % SIZE);
		if (virtqueue_init(&vq, *state, &config, 0) != 0)
			break;
		int r = virtqueue_pop(&vq, &chain);

		good += r == 1;
		trusted += r == 1 && is_trusted(*state, &chain);
		bad += r == -EBADMSG;
	}
	__atomic_store_n(&flipper.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_int_equal(trusted, good);
	assert_true(good >= 1000 && bad >= 1000);
}

/* ---- nobody waits for a notification that was left out ---- */

enum { REQUESTS = 100000 };

struct pair {
	struct driver driver;
	struct virtqueue vq;
	int kick_fd;
	int call_fd;
	unsigned kicks, calls;
};

static void wait_for(int fd, unsigned *count)
{
	eventfd_t value;

	while (eventfd_read(fd, &value) != 0)
		;
	(*count)++;
}

/* A device that never looks without having been told. */
static void *serve_pair(void *argument)
{
	struct pair *pair = argument;
	struct iovec iov[SIZE];
	unsigned served = 0;

	while (served < REQUESTS) {
		struct virtqueue_chain chain = { .iov = iov, .iov_max = SIZE };
		int r = virtqueue_pop(&pair->vq, &chain);

		if (r == 1) {
			virtqueue_push(&pair->vq, chain.head, 0);
			served++;
		}
		if (r < 0)
			break;
		/* In batches of any size: after each, when nothing is left, now and then. */
		if ((r == 0 || served % 5 == 0) && virtqueue_publish(&pair->vq))
			(void)eventfd_write(pair->call_fd, 1);
		if (r == 0 && !virtqueue_enable_kicks(&pair->vq))
			wait_for(pair->kick_fd, &pair->kicks);
	}
	if (virtqueue_publish(&pair->vq))
		(void)eventfd_write(pair->call_fd, 1);
	return NULL;
}

/* Offers as Linux does: idx, fence, and a kick if avail_event was passed. */
static uint16_t offer_some(struct pair *pair, uint16_t offered, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		driver_offer(&pair->driver, (uint16_t)((offered + i) % SIZE));
	uint16_t now = (uint16_t)(offered + count);

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	bool kick = pair->vq.event_idx
			    ? vring_need_event(driver_avail_event(&pair->driver), now, offered)
			    : (driver_used_flags(&pair->driver) & VRING_USED_F_NO_NOTIFY) == 0;

	if (kick)
		(void)eventfd_write(pair->kick_fd, 1);
	return now;
}

/* Waits until more than `seen` is used, asking for the interrupt at that place. */
static uint16_t wait_for_used(struct pair *pair, uint16_t seen)
{
	driver_set_used_event(&pair->driver, seen);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	while (driver_used_idx(&pair->driver) == seen)
		wait_for(pair->call_fd, &pair->calls);
	return driver_used_idx(&pair->driver);
}

static void run_pair(struct guest_memory *memory, bool event_idx)
{
	struct virtqueue_config config = driver_config(SIZE);
	struct pair pair = {
		.kick_fd = eventfd(0, EFD_CLOEXEC),
		.call_fd = eventfd(0, EFD_CLOEXEC),
	};
	uint16_t offered = 0, used = 0;
	pthread_t thread;

	config.event_idx = event_idx;
	driver_init(&pair.driver, memory, SIZE);
	for (unsigned i = 0; i < SIZE; i++)
		driver_put(&pair.driver, i, DRIVER_DATA, 1, 0, 0);
	assert_int_equal(virtqueue_init(&pair.vq, memory, &config, 0), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve_pair, &pair), 0);
	alarm(120); /* a lost notification is a hang */
	for (unsigned total = 0; total < REQUESTS;) {
		unsigned room = SIZE - (uint16_t)(offered - used);
		unsigned count = (unsigned)min_u64(room, min_u64(total % 3 + 1, REQUESTS - total));

		if (count != 0)
			offered = offer_some(&pair, offered, count);
		total += count;
		if (count == 0 || total % 7 == 0)
			used = wait_for_used(&pair, used);
	}
	while (used != offered)
		used = wait_for_used(&pair, used);
	pthread_join(thread, NULL);
	alarm(0);
	assert_int_equal((uint16_t)REQUESTS, used);
	fd_close(&pair.kick_fd);
	fd_close(&pair.call_fd);
}

static void no_notification_is_lost(void **state)
{
	run_pair(*state, true);
	run_pair(*state, false);
}

/* ---- of two that write and then look, one sees the other ---- */

#ifdef SANITIZED
enum { ROUNDS = 5000 }; /* too slow to meet, and sanitizers know no fences */
#else
enum { ROUNDS = 100000 }; /* finds a missing fence in most runs */
#endif

struct race {
	struct driver driver;
	struct virtqueue vq;
	void (*device_step)(struct race *race);
	bool told; /* what the device's step found */
	unsigned arrived;
};

/* Both leave at nearly the same time. */
static void meet(struct race *race, unsigned round)
{
	(void)__atomic_add_fetch(&race->arrived, 1, __ATOMIC_ACQ_REL);
	for (unsigned spins = 0; __atomic_load_n(&race->arrived, __ATOMIC_ACQUIRE) < round * 2;
		spins++)
		if (spins > 2000)
			(void)sched_yield();
}

static void *run_device(void *argument)
{
	struct race *race = argument;

	for (unsigned round = 0; round < ROUNDS; round++) {
		meet(race, round * 2 + 1);
		race->device_step(race);
		meet(race, round * 2 + 2);
	}
	return NULL;
}

static void push_and_publish(struct race *race)
{
	virtqueue_push(&race->vq, 0, 0);
	race->told = virtqueue_publish(&race->vq);
}

static bool used_is_seen(struct race *race, uint16_t round)
{
	driver_set_used_event(&race->driver, round);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return driver_used_idx(&race->driver) != round;
}

static void enable_kicks(struct race *race)
{
	race->told = virtqueue_enable_kicks(&race->vq);
	race->vq.next_avail++; /* as if it had been popped */
}

static bool kick_is_due(struct race *race, uint16_t round)
{
	driver_set_avail_idx(&race->driver, (uint16_t)(round + 1));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return driver_avail_event(&race->driver) == round;
}

static unsigned lost_in_races(struct guest_memory *memory, void (*device_step)(struct race *race),
	bool (*driver_step)(struct race *race, uint16_t round))
{
	struct virtqueue_config config = driver_config(SIZE);
	struct race race = { .device_step = device_step };
	unsigned lost = 0;
	pthread_t thread;

	config.event_idx = true;
	driver_init(&race.driver, memory, SIZE);
	/* Both wishes as of the round before the first. */
	driver_set_used_event(&race.driver, UINT16_MAX);
	memset(race.driver.used + 4 + SIZE * 8, 0xff, 2);
	assert_int_equal(virtqueue_init(&race.vq, memory, &config, 0), 0);
	assert_int_equal(pthread_create(&thread, NULL, run_device, &race), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		meet(&race, round * 2 + 1);
		for (volatile unsigned late = round % 50; late > 0; late--)
			;
		bool seen = driver_step(&race, (uint16_t)round);

		meet(&race, round * 2 + 2);
		lost += !seen && !race.told;
	}
	pthread_join(thread, NULL);
	return lost;
}

static void one_of_both_sees_the_other(void **state)
{
	assert_int_equal(lost_in_races(*state, push_and_publish, used_is_seen), 0);
	assert_int_equal(lost_in_races(*state, enable_kicks, kick_is_due), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(descriptors_may_change_at_any_time),
		cmocka_unit_test(no_notification_is_lost),
		cmocka_unit_test(one_of_both_sees_the_other),
	};

	return cmocka_run_group_tests(tests, driver_make_memory, driver_free_memory);
}
