// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtqueue with a driver that keeps the rules: positions, wrapping, who wants
 * to be told when. Where the state is small the tests go through all of it;
 * tests/proofs/virtqueue.c proves what they sample. Drivers that break the
 * rules are in test_virtqueue_hostile.c.
 */
#include "unit/unit.h"

#include <errno.h>

#include "unit/virtio_driver.h"
#include "virtio/virtqueue.h"

#ifdef SANITIZED
enum { EVENT_STEP = 61 }; /* instrumented, all events would take a minute */
#else
enum { EVENT_STEP = 1 };
#endif

static struct virtqueue_config config_of(const struct driver *driver)
{
	struct virtqueue_config config = driver_config(driver->size);

	config.event_idx = true;
	return config;
}

/* A queue and its driver, both at position `base`. */
static void start(struct virtqueue *vq, struct driver *driver, struct guest_memory *memory,
	uint16_t size, bool event_idx, uint16_t base)
{
	driver_init(driver, memory, size);
	struct virtqueue_config config = config_of(driver);

	config.event_idx = event_idx;
	driver_set_avail_idx(driver, base);
	assert_int_equal(virtqueue_init(vq, memory, &config, base), 0);
}

static int pop(struct virtqueue *vq, struct iovec *iov, struct virtqueue_chain *chain)
{
	*chain = (struct virtqueue_chain){ .iov = iov, .iov_max = vq->size };
	return virtqueue_pop(vq, chain);
}

static void sizes_are_powers_of_two_up_to_the_limit(void **state)
{
	struct driver driver;
	struct virtqueue vq;

	driver_init(&driver, *state, 1024);
	struct virtqueue_config config = config_of(&driver);

	for (unsigned size = 0; size <= UINT16_MAX; size++) {
		config.size = (uint16_t)size;
		bool good = size != 0 && size <= 1024 && (size & (size - 1)) == 0;

		assert_int_equal(virtqueue_init(&vq, *state, &config, 0), good ? 0 : -EINVAL);
	}
}

static void a_chain_comes_out_as_it_was_put_in(void **state)
{
	struct guest_memory *memory = *state;
	struct virtqueue_chain chain;
	struct driver driver;
	struct virtqueue vq;
	struct iovec iov[8];

	start(&vq, &driver, memory, 8, false, 0);
	driver_put(&driver, 3, DRIVER_DATA, 16, VRING_DESC_F_NEXT, 7);
	driver_put(&driver, 7, HIGH_GPA, 1, VRING_DESC_F_NEXT, 0);
	driver_put(&driver, 0, HIGH_END - 5, 5, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
	driver_put(&driver, 1, DRIVER_DATA + 1, 4096, VRING_DESC_F_WRITE, 0);
	assert_int_equal(pop(&vq, iov, &chain), 0);
	driver_offer(&driver, 3);
	assert_int_equal(pop(&vq, iov, &chain), 1);
	assert_int_equal(chain.head, 3);
	assert_int_equal(chain.readable, 2);
	assert_int_equal(chain.writable, 2);
	assert_int_equal(chain.readable_bytes, 17);
	assert_int_equal(chain.writable_bytes, 4101);
	assert_ptr_equal(iov[0].iov_base, guest_memory_at(memory, DRIVER_DATA, 1));
	assert_ptr_equal(iov[1].iov_base, guest_memory_at(memory, HIGH_GPA, 1));
	assert_ptr_equal(iov[2].iov_base, guest_memory_at(memory, HIGH_END - 5, 1));
	assert_int_equal(iov[2].iov_len, 5);
	assert_int_equal(iov[3].iov_len, 4096);
	assert_int_equal(pop(&vq, iov, &chain), 0);
}

static void empty_buffers_are_left_out(void **state)
{
	struct virtqueue_chain chain;
	struct driver driver;
	struct virtqueue vq;
	struct iovec iov[4];

	start(&vq, &driver, *state, 4, false, 0);
	/* Nobody looks at the address of nothing. */
	driver_put(&driver, 0, UINT64_MAX, 0, VRING_DESC_F_NEXT, 1);
	driver_put(&driver, 1, DRIVER_DATA, 8, VRING_DESC_F_NEXT, 2);
	driver_put(&driver, 2, 2 * MIB, 0, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 3);
	driver_put(&driver, 3, DRIVER_DATA, 9, VRING_DESC_F_WRITE, 0);
	driver_offer(&driver, 0);
	assert_int_equal(pop(&vq, iov, &chain), 1);
	assert_int_equal(chain.readable, 1);
	assert_int_equal(chain.writable, 1);
	assert_int_equal(iov[0].iov_len, 8);
	assert_int_equal(iov[1].iov_len, 9);
}

static void an_indirect_table_may_follow_and_lie_anywhere(void **state)
{
	struct guest_memory *memory = *state;
	struct virtqueue_chain chain;
	struct driver driver;
	struct virtqueue vq;
	struct iovec iov[4];
	const uint64_t table = HIGH_END - 3 * 16 - 1; /* unaligned */
	const struct vring_desc entries[] = {
		{ DRIVER_DATA, 1, VRING_DESC_F_NEXT, 2 },
		{ UINT64_MAX, UINT32_MAX, UINT16_MAX, UINT16_MAX }, /* not in the chain */
		{ DRIVER_DATA, 3, VRING_DESC_F_WRITE, 77 },
	};

	start(&vq, &driver, memory, 4, false, 0);
	assert_int_equal(guest_memory_write(memory, table, entries, sizeof(entries)), 0);
	driver_put(&driver, 1, DRIVER_DATA, 5, VRING_DESC_F_NEXT, 0);
	driver_put(&driver, 0, table, sizeof(entries), VRING_DESC_F_INDIRECT, 3);
	driver_offer(&driver, 1);
	assert_int_equal(pop(&vq, iov, &chain), 1);
	assert_int_equal(chain.readable, 2);
	assert_int_equal(chain.readable_bytes, 6);
	assert_int_equal(chain.writable_bytes, 3);
}

/* Every position of a ring of each small size, with every number of chains on offer. */
static void check_position(struct guest_memory *memory, uint16_t size, uint16_t base)
{
	struct virtqueue_chain chain;
	struct driver driver;
	struct virtqueue vq;
	struct iovec iov[8];

	for (uint16_t offered = 0; offered <= size; offered++) {
		start(&vq, &driver, memory, size, false, base);
		for (uint16_t i = 0; i < offered; i++) {
			uint16_t head = (uint16_t)((i * 3 + 1) % size);

			driver_put(&driver, head, DRIVER_DATA, head + 1u, VRING_DESC_F_WRITE, 0);
			driver_offer(&driver, head);
		}
		for (uint16_t i = 0; i < offered; i++) {
			uint16_t at = (uint16_t)(base + i);

			assert_int_equal(pop(&vq, iov, &chain), 1);
			assert_int_equal(chain.head, (i * 3 + 1) % size);
			assert_int_equal(virtqueue_base(&vq), (uint16_t)(at + 1));
			virtqueue_push(&vq, chain.head, chain.writable_bytes);
			assert_int_equal(driver_used_id(&driver, at), chain.head);
			assert_int_equal(driver_used_length(&driver, at), chain.head + 1);
		}
		assert_int_equal(pop(&vq, iov, &chain), 0);
		assert_int_equal(virtqueue_publish(&vq), offered != 0);
		if (offered != 0)
			assert_int_equal(driver_used_idx(&driver), (uint16_t)(base + offered));
	}
}

static void every_position_of_small_rings(void **state)
{
	const uint16_t sizes[] = { 1, 2, 4, 8 };

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
		for (unsigned base = 0; base <= UINT16_MAX; base += EVENT_STEP)
			check_position(*state, sizes[i], (uint16_t)base);
}

/* The specification in its own words: whether idx passed the event on its way. */
static bool passed(uint16_t event, uint16_t before, uint16_t after)
{
	for (uint16_t idx = before; idx != after; idx++)
		if (idx == event)
			return true;
	return false;
}

/* One batch of each size from one position, for each place of used_event. */
static void check_events(
	struct virtqueue *vq, struct driver *driver, uint16_t before, uint16_t batch)
{
	for (unsigned event = 0; event <= UINT16_MAX; event += EVENT_STEP) {
		vq->next_used = vq->published_used = before;
		for (uint16_t i = 0; i < batch; i++)
			virtqueue_push(vq, i, 0);
		driver_set_used_event(driver, (uint16_t)event);
		uint16_t after = (uint16_t)(before + batch);

		/* cmocka's own check is slow for millions. */
		if (virtqueue_publish(vq) != passed((uint16_t)event, before, after))
			fail_msg("event %u, from %u to %u", event, before, after);
		if (driver_used_idx(driver) != after)
			fail_msg("idx %u, not %u", driver_used_idx(driver), after);
	}
}

/* 2^24 cases: 32 positions around the wrap, batches of 1 to 8, every event. */
static void interrupts_come_exactly_when_used_event_is_passed(void **state)
{
	struct driver driver;
	struct virtqueue vq;

	start(&vq, &driver, *state, 8, true, 0);
	for (int before = -16; before < 16; before++)
		for (uint16_t batch = 1; batch <= 8; batch++)
			check_events(&vq, &driver, (uint16_t)before, batch);
}

static void without_event_idx_one_flag_decides(void **state)
{
	struct driver driver;
	struct virtqueue vq;

	start(&vq, &driver, *state, 8, false, 0);
	for (unsigned flags = 0; flags <= UINT16_MAX; flags++) {
		driver.avail[0] = (uint16_t)flags;
		virtqueue_push(&vq, 0, 0);
		assert_int_equal(virtqueue_publish(&vq), (flags & VRING_AVAIL_F_NO_INTERRUPT) == 0);
	}
	/* And used_event's place does not. */
	assert_int_equal(driver.avail[0] & VRING_AVAIL_F_NO_INTERRUPT, 1); /* the last one */
	driver_set_used_event(&driver, driver_used_idx(&driver));
	virtqueue_push(&vq, 0, 0);
	assert_false(virtqueue_publish(&vq));
}

static void nothing_is_shown_before_publish(void **state)
{
	struct driver driver;
	struct virtqueue vq;

	start(&vq, &driver, *state, 8, false, 65534);
	assert_false(virtqueue_publish(&vq)); /* nothing to tell */
	for (uint16_t i = 0; i < 5; i++)
		virtqueue_push(&vq, i, 0);
	assert_int_equal(driver_used_idx(&driver), 0); /* as driver_init() left it */
	assert_true(virtqueue_publish(&vq));
	assert_int_equal(driver_used_idx(&driver), 3);
	assert_false(virtqueue_publish(&vq));
}

static void kicks_are_asked_for_at_the_next_entry(void **state)
{
	struct virtqueue_chain chain;
	struct driver driver;
	struct virtqueue vq;
	struct iovec iov[8];

	start(&vq, &driver, *state, 8, true, 65535);
	driver_put(&driver, 0, DRIVER_DATA, 1, 0, 0);
	assert_false(virtqueue_enable_kicks(&vq));
	assert_int_equal(driver_avail_event(&driver), 65535);
	driver_offer(&driver, 0);
	assert_true(virtqueue_enable_kicks(&vq));
	assert_int_equal(pop(&vq, iov, &chain), 1);
	assert_int_equal(driver_avail_event(&driver), 65535);
	virtqueue_disable_kicks(&vq);
	assert_int_equal(driver_avail_event(&driver), 65535);
	assert_int_equal(driver_used_flags(&driver), 0); /* must stay 0 with event indices */
	assert_false(virtqueue_enable_kicks(&vq));
	assert_int_equal(driver_avail_event(&driver), 0);
}

static void without_event_idx_the_used_flags_ask(void **state)
{
	struct driver driver;
	struct virtqueue vq;

	start(&vq, &driver, *state, 8, false, 7);
	virtqueue_disable_kicks(&vq);
	assert_int_equal(driver_used_flags(&driver), VRING_USED_F_NO_NOTIFY);
	assert_false(virtqueue_enable_kicks(&vq));
	assert_int_equal(driver_used_flags(&driver), 0);
	assert_int_equal(driver_avail_event(&driver), 0); /* not negotiated: not written */
	driver_offer(&driver, 0);
	assert_true(virtqueue_enable_kicks(&vq));
}

static uint8_t byte_of(unsigned request, unsigned at)
{
	return (uint8_t)(request * 31 + at * 7 + (request >> 8));
}

/* The driver's half of one batch: puts requests of 1 to 24 bytes at slots [0, count). */
static void put_requests(struct driver *driver, uint8_t *data, unsigned first, unsigned count)
{
	for (unsigned slot = 0; slot < count; slot++) {
		unsigned request = first + slot;
		uint64_t gpa = DRIVER_DATA + slot * 64;
		uint32_t length = request % 24 + 1;

		for (unsigned at = 0; at < length; at++)
			data[slot * 64 + at] = byte_of(request, at);
		memset(data + slot * 64 + 32, 0, 32);
		driver_put(
			driver, slot * 2, gpa, length, VRING_DESC_F_NEXT, (uint16_t)(slot * 2 + 1));
		driver_put(driver, slot * 2 + 1, gpa + 32, length, VRING_DESC_F_WRITE, 0);
		driver_offer(driver, (uint16_t)(slot * 2));
	}
}

static void check_answers(
	const struct driver *driver, const uint8_t *data, unsigned first, unsigned count)
{
	for (unsigned n = 0; n < count; n++) {
		uint16_t idx = (uint16_t)(first + n);
		unsigned slot = driver_used_id(driver, idx) / 2;

		assert_int_equal(slot, count - 1 - n); /* the device answers backwards */
		assert_int_equal(driver_used_length(driver, idx), (first + slot) % 24 + 1);
		assert_memory_equal(data + slot * 64 + 32, data + slot * 64, 24);
	}
}

/* The device: takes all, then copies and gives back in the opposite order. */
static void answer_all(struct virtqueue *vq, unsigned count)
{
	struct virtqueue_chain chains[8];
	struct iovec iov[8][2];

	for (unsigned i = 0; i < count; i++) {
		chains[i] = (struct virtqueue_chain){ .iov = iov[i], .iov_max = 2 };
		assert_int_equal(virtqueue_pop(vq, &chains[i]), 1);
	}
	for (unsigned i = count; i-- > 0;) {
		assert_int_equal(iov[i][0].iov_len, iov[i][1].iov_len);
		memcpy(iov[i][1].iov_base, iov[i][0].iov_base, iov[i][0].iov_len);
		virtqueue_push(vq, chains[i].head, chains[i].writable_bytes);
	}
	assert_true(virtqueue_publish(vq));
}

static void data_survives_seventy_thousand_requests(void **state)
{
	struct guest_memory *memory = *state;
	struct driver driver;
	struct virtqueue vq;

	start(&vq, &driver, memory, 16, false, 0);
	uint8_t *data = guest_memory_at(memory, DRIVER_DATA, 8 * 64);

	memset(data, 0, 8 * 64);
	for (unsigned done = 0, count; done < 70000; done += count) {
		count = 1 + done % 7;
		/* Bytes beyond a request's length are 0 in both halves. */
		memset(data, 0, 8 * 64);
		put_requests(&driver, data, done, count);
		answer_all(&vq, count);
		assert_int_equal(driver_used_idx(&driver), (uint16_t)(done + count));
		check_answers(&driver, data, done, count);
	}
}

/* All that is not the used ring stays as it was, and of that ring only what was pushed changes. */
static void only_the_used_ring_is_written(void **state)
{
	static uint8_t before[DRIVER_DATA];
	struct guest_memory *memory = *state;
	const uint8_t *now = guest_memory_at(memory, 0, DRIVER_DATA);
	struct virtqueue_chain chain;
	struct driver driver;
	struct virtqueue vq;
	struct iovec iov[4];

	memset(guest_memory_at(memory, 0, DRIVER_DATA), 0xa5, DRIVER_DATA);
	start(&vq, &driver, memory, 4, true, 0);
	driver_put(&driver, 2, DRIVER_DATA, 1, VRING_DESC_F_WRITE, 0);
	driver_offer(&driver, 2);
	memcpy(before, now, sizeof(before));
	assert_int_equal(pop(&vq, iov, &chain), 1);
	virtqueue_push(&vq, 2, 0x11223344);
	(void)!virtqueue_publish(&vq);
	assert_false(virtqueue_enable_kicks(&vq));

	static const uint8_t used[] = { 0, 0, 1, 0, 2, 0, 0, 0, 0x44, 0x33, 0x22, 0x11 };
	const unsigned event = DRIVER_USED + 4 + 4 * 8;

	memcpy(before + DRIVER_USED, used, sizeof(used));
	before[event] = 1;
	assert_memory_equal(now, before, sizeof(before));
}

static void a_stopped_queue_goes_on_at_its_base(void **state)
{
	struct virtqueue_chain chain;
	struct driver driver;
	struct virtqueue vq;
	struct iovec iov[4];

	start(&vq, &driver, *state, 4, false, 0);
	for (unsigned i = 0; i < 3; i++) {
		driver_put(&driver, i, DRIVER_DATA, i + 1, 0, 0);
		driver_offer(&driver, (uint16_t)i);
	}
	assert_int_equal(pop(&vq, iov, &chain), 1);
	virtqueue_push(&vq, chain.head, 0);
	assert_true(virtqueue_publish(&vq));
	struct virtqueue_config config = config_of(&driver);

	assert_int_equal(virtqueue_init(&vq, *state, &config, virtqueue_base(&vq)), 0);
	assert_int_equal(pop(&vq, iov, &chain), 1);
	assert_int_equal(chain.head, 1);
	virtqueue_push(&vq, chain.head, 0);
	(void)!virtqueue_publish(&vq);
	assert_int_equal(driver_used_idx(&driver), 2);
	assert_int_equal(driver_used_id(&driver, 1), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_powers_of_two_up_to_the_limit),
		cmocka_unit_test(a_chain_comes_out_as_it_was_put_in),
		cmocka_unit_test(empty_buffers_are_left_out),
		cmocka_unit_test(an_indirect_table_may_follow_and_lie_anywhere),
		cmocka_unit_test(every_position_of_small_rings),
		cmocka_unit_test(interrupts_come_exactly_when_used_event_is_passed),
		cmocka_unit_test(without_event_idx_one_flag_decides),
		cmocka_unit_test(nothing_is_shown_before_publish),
		cmocka_unit_test(kicks_are_asked_for_at_the_next_entry),
		cmocka_unit_test(without_event_idx_the_used_flags_ask),
		cmocka_unit_test(data_survives_seventy_thousand_requests),
		cmocka_unit_test(only_the_used_ring_is_written),
		cmocka_unit_test(a_stopped_queue_goes_on_at_its_base),
	};

	return cmocka_run_group_tests(tests, driver_make_memory, driver_free_memory);
}
