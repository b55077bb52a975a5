// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtqueue with drivers that break the rules: rings at bad places, chains that
 * are none, indices that jump. After each the queue is as it was, only broken,
 * and a new virtqueue_init() makes it work again.
 */
#include "unit/unit.h"

#include <errno.h>

#include "unit/virtio_driver.h"
#include "virtio/virtqueue.h"

enum { NEXT = VRING_DESC_F_NEXT, WRITE = VRING_DESC_F_WRITE, INDIRECT = VRING_DESC_F_INDIRECT };
enum { SIZE = 8, TABLE = DRIVER_DATA + 0x1000 };

static int pop(struct virtqueue *vq, struct iovec *iov, unsigned iov_max)
{
	struct virtqueue_chain chain = { .iov = iov, .iov_max = iov_max };

	return virtqueue_pop(vq, &chain);
}

/* Where no ring of any kind may lie, for rings of `bytes` bytes. */
static void check_bad_places(struct guest_memory *memory, uint64_t *ring,
	struct virtqueue_config *config, uint64_t bytes)
{
	const uint64_t good = *ring;
	const uint64_t places[] = {
		1,                                   /* unaligned */
		LOW_SIZE - align_up(bytes, 16) + 16, /* over the end of a region */
		LOW_SIZE - 16,                       /* the next region is next in the mapping */
		LOW_SIZE,                            /* the hole */
		3 * MIB,                             /* in the middle of it */
		HIGH_GPA - 16,                       /* out of the hole */
		HIGH_END - 16,                       /* end of memory */
		HIGH_END,
		UINT64_MAX - 15, /* its end wraps */
		UINT64_C(1) << 63,
		UINT64_C(0xc0000000),
	};
	struct virtqueue vq, before;

	memset(&vq, 0x5a, sizeof(vq));
	before = vq;
	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		*ring = places[i];
		assert_int_equal(virtqueue_init(&vq, memory, config, 0), -EINVAL);
	}
	assert_memory_equal(&vq, &before, sizeof(vq)); /* left alone */
	*ring = align_down(HIGH_END - bytes, 16);
	assert_int_equal(virtqueue_init(&vq, memory, config, 0), 0);
	*ring = HIGH_GPA;
	assert_int_equal(virtqueue_init(&vq, memory, config, 0), 0);
	*ring = good;
}

static void rings_must_lie_in_memory(void **state)
{
	for (uint16_t size = 8; size != 0 && size <= 1024; size *= 2) {
		struct virtqueue_config config = driver_config(size);

		check_bad_places(*state, &config.desc, &config, size * UINT64_C(16));
		check_bad_places(*state, &config.avail, &config, 6 + size * UINT64_C(2));
		check_bad_places(*state, &config.used, &config, 6 + size * UINT64_C(8));
	}
}

static void rings_must_be_aligned(void **state)
{
	struct virtqueue vq;

	for (uint64_t off = 0; off < 16; off++) {
		struct virtqueue_config config = driver_config(SIZE);

		config.desc += off;
		assert_int_equal(
			virtqueue_init(&vq, *state, &config, 0), off % 16 == 0 ? 0 : -EINVAL);
		config = driver_config(SIZE);
		config.avail += off;
		assert_int_equal(
			virtqueue_init(&vq, *state, &config, 0), off % 2 == 0 ? 0 : -EINVAL);
		config = driver_config(SIZE);
		config.used += off;
		assert_int_equal(
			virtqueue_init(&vq, *state, &config, 0), off % 4 == 0 ? 0 : -EINVAL);
	}
}

/* Exactly up to the last byte: the event index belongs to the ring. */
static void the_last_byte_of_a_ring_counts(void **state)
{
	struct virtqueue_config config = driver_config(SIZE);
	struct virtqueue vq;

	config.avail = HIGH_END - (6 + SIZE * 2);
	config.used = LOW_SIZE - (6 + SIZE * 8) - 2; /* by 4 */
	assert_int_equal(virtqueue_init(&vq, *state, &config, 0), 0);
	config.avail += 2;
	assert_int_equal(virtqueue_init(&vq, *state, &config, 0), -EINVAL);
	config.avail -= 2;
	config.used += 4;
	assert_int_equal(virtqueue_init(&vq, *state, &config, 0), -EINVAL);
}

/* Rings on top of each other are nonsense but inside of memory: whatever comes, it ends. */
static void rings_may_overlap(void **state)
{
	struct virtqueue_config config = driver_config(SIZE);
	struct iovec iov[SIZE];
	struct virtqueue vq;

	config.desc = config.avail = config.used = HIGH_GPA;
	uint64_t *words = guest_memory_at(*state, HIGH_GPA, SIZE * 16);

	for (unsigned seed = 0; seed < 20000; seed++) {
		for (unsigned i = 0; i < SIZE * 2; i++)
			words[i] = seed * UINT64_C(0x9e3779b97f4a7c15) >> (i * 3 % 61);
		words[0] = (words[0] & ~UINT64_C(0xffff0000)) | seed % 4 << 16;
		assert_int_equal(virtqueue_init(&vq, *state, &config, 0), 0);
		for (unsigned n = 0; n < SIZE && pop(&vq, iov, SIZE) == 1; n++) {
			virtqueue_push(&vq, (uint16_t)(seed % SIZE), seed);
			(void)!virtqueue_publish(&vq);
			(void)!virtqueue_enable_kicks(&vq);
		}
	}
}

/* ---- chains that are none ---- */

struct bad_chain {
	const char *why;
	uint16_t head;
	bool no_indirect;
	unsigned iov_max; /* 0: the queue's size */
	struct vring_desc desc[SIZE];
	struct vring_desc table[SIZE + 2];
};

#define BUFFER(flags, next)                                                                        \
	{                                                                                          \
		DRIVER_DATA, 1, flags, next                                                        \
	}

static const struct bad_chain bad_chains[] = {
	{ .why = "head is size", .head = SIZE },
	{ .why = "head is size, which would wrap to a good one", .head = 256 + 1 },
	{ .why = "head is all ones", .head = 0xffff },
	{ .why = "next is size", .desc = { BUFFER(NEXT, SIZE) } },
	{ .why = "next is all ones", .desc = { BUFFER(NEXT, 0xffff) } },
	{ .why = "next is itself", .desc = { BUFFER(NEXT, 0) } },
	{ .why = "a loop of two", .desc = { BUFFER(NEXT, 1), BUFFER(NEXT, 0) } },
	{ .why = "a loop of two empty ones", .desc = { { 0, 0, NEXT, 1 }, { 0, 0, NEXT, 0 } } },
	{ .why = "size long and back to the start",
		.desc = { BUFFER(NEXT, 1), BUFFER(NEXT, 2), BUFFER(NEXT, 3), BUFFER(NEXT, 4),
			BUFFER(NEXT, 5), BUFFER(NEXT, 6), BUFFER(NEXT, 7), BUFFER(NEXT, 0) } },
	{ .why = "length of all ones", .desc = { { DRIVER_DATA, 0xffffffff, 0, 0 } } },
	{ .why = "one byte over a region", .desc = { { LOW_SIZE - 4, 5, 0, 0 } } },
	{ .why = "one byte over the last region", .desc = { { HIGH_END - 1, 2, 0, 0 } } },
	{ .why = "one byte before a region", .desc = { { HIGH_GPA - 1, 2, WRITE, 0 } } },
	{ .why = "in the hole", .desc = { { LOW_SIZE, 1, 0, 0 } } },
	{ .why = "both regions and the hole", .desc = { { 0, 0x480000, 0, 0 } } },
	{ .why = "where devices are", .desc = { { 0xe0000000, 4, WRITE, 0 } } },
	{ .why = "the end wraps", .desc = { { UINT64_MAX, 2, 0, 0 } } },
	{ .why = "the end wraps to 0", .desc = { { UINT64_MAX - 3, 4, 0, 0 } } },
	{ .why = "the end wraps into memory", .desc = { { UINT64_MAX - 0xff, 0x1000, 0, 0 } } },
	{ .why = "the second one is bad", .desc = { BUFFER(NEXT, 1), { LOW_SIZE, 1, 0, 0 } } },
	{ .why = "readable after writable", .desc = { BUFFER(NEXT | WRITE, 1), BUFFER(0, 0) } },
	{ .why = "empty readable after writable",
		.desc = { BUFFER(NEXT | WRITE, 1), { 0, 0, 0, 0 } } },
	{ .why = "more buffers than the device takes",
		.iov_max = 2,
		.desc = { BUFFER(NEXT, 1), BUFFER(NEXT, 2), BUFFER(0, 0) } },
	{ .why = "indirect, not negotiated",
		.no_indirect = true,
		.desc = { { TABLE, 16, INDIRECT, 0 } },
		.table = { BUFFER(0, 0) } },
	{ .why = "indirect in indirect",
		.desc = { { TABLE, 16, INDIRECT, 0 } },
		.table = { { TABLE + 16, 16, INDIRECT, 0 }, BUFFER(0, 0) } },
	{ .why = "indirect that names itself",
		.desc = { { TABLE, 16, INDIRECT, 0 } },
		.table = { { TABLE, 16, INDIRECT, 0 } } },
	{ .why = "indirect and next",
		.desc = { { TABLE, 16, INDIRECT | NEXT, 1 }, BUFFER(0, 0) },
		.table = { BUFFER(0, 0) } },
	{ .why = "indirect of length 0", .desc = { { TABLE, 0, INDIRECT, 0 } } },
	{ .why = "indirect of half an entry", .desc = { { TABLE, 8, INDIRECT, 0 } } },
	{ .why = "indirect of one and a half",
		.desc = { { TABLE, 24, INDIRECT, 0 } },
		.table = { BUFFER(0, 0), BUFFER(0, 0) } },
	{ .why = "indirect of 4 GiB", .desc = { { TABLE, 0xfffffff0, INDIRECT, 0 } } },
	{ .why = "indirect over a region's end", .desc = { { LOW_SIZE - 16, 32, INDIRECT, 0 } } },
	{ .why = "indirect in the hole", .desc = { { LOW_SIZE, 16, INDIRECT, 0 } } },
	{ .why = "indirect whose end wraps", .desc = { { UINT64_MAX - 15, 32, INDIRECT, 0 } } },
	{ .why = "next behind the table",
		.desc = { { TABLE, 16, INDIRECT, 0 } },
		.table = { BUFFER(NEXT, 1), BUFFER(0, 0) } },
	{ .why = "a loop in the table",
		.desc = { { TABLE, 32, INDIRECT, 0 } },
		.table = { BUFFER(NEXT, 1), BUFFER(NEXT, 0) } },
	{ .why = "a table with one more than the queue has",
		.desc = { { TABLE, 16 * (SIZE + 1), INDIRECT, 0 } },
		.table = { BUFFER(NEXT, 1), BUFFER(NEXT, 2), BUFFER(NEXT, 3), BUFFER(NEXT, 4),
			BUFFER(NEXT, 5), BUFFER(NEXT, 6), BUFFER(NEXT, 7), BUFFER(NEXT, 8),
			BUFFER(0, 0) } },
	{ .why = "the same, and one of them is empty",
		.desc = { { TABLE, 16 * (SIZE + 1), INDIRECT, 0 } },
		.table = { BUFFER(NEXT, 1), BUFFER(NEXT, 2), BUFFER(NEXT, 3), BUFFER(NEXT, 4),
			BUFFER(NEXT, 5), BUFFER(NEXT, 6), { 0, 0, NEXT, 7 }, BUFFER(NEXT, 8),
			BUFFER(0, 0) } },
	{ .why = "one before the table, and the queue's size in it",
		.desc = { BUFFER(NEXT, 1), { TABLE, 16 * SIZE, INDIRECT, 0 } },
		.table = { BUFFER(NEXT, 1), BUFFER(NEXT, 2), BUFFER(NEXT, 3), BUFFER(NEXT, 4),
			BUFFER(NEXT, 5), BUFFER(NEXT, 6), BUFFER(NEXT, 7), BUFFER(0, 0) } },
};

/* Only `broken` differs from before, and it stays that way. */
static void check_broken(struct virtqueue *vq, const struct virtqueue *before, struct iovec *iov)
{
	struct virtqueue expected = *before;

	expected.broken = true;
	assert_memory_equal(vq, &expected, sizeof(expected));
	assert_int_equal(pop(vq, iov, SIZE), -EBADMSG);
	assert_false(virtqueue_publish(vq));
	assert_false(virtqueue_enable_kicks(vq)); /* else its user would pop for ever */
	vq->broken = true;
	assert_memory_equal(vq, &expected, sizeof(expected));
}

/* A driver that resets and behaves gets its request answered. */
static void check_works_again(struct guest_memory *memory)
{
	const struct virtqueue_config config = driver_config(SIZE);
	struct iovec iov[SIZE];
	struct driver driver;
	struct virtqueue vq;

	driver_init(&driver, memory, SIZE);
	driver_put(&driver, 0, DRIVER_DATA, 1, WRITE, 0);
	driver_offer(&driver, 0);
	assert_int_equal(virtqueue_init(&vq, memory, &config, 0), 0);
	assert_int_equal(pop(&vq, iov, SIZE), 1);
}

static void check_bad_chain(struct guest_memory *memory, const struct bad_chain *bad)
{
	struct virtqueue_config config = driver_config(SIZE);
	struct iovec iov[SIZE];
	struct driver driver;
	struct virtqueue vq;

	driver_init(&driver, memory, SIZE);
	memcpy(driver.desc, bad->desc, sizeof(bad->desc));
	assert_int_equal(guest_memory_write(memory, TABLE, bad->table, sizeof(bad->table)), 0);
	config.indirect = !bad->no_indirect;
	assert_int_equal(virtqueue_init(&vq, memory, &config, 0), 0);
	driver_offer(&driver, bad->head);
	struct virtqueue before = vq;
	int r = pop(&vq, iov, bad->iov_max != 0 ? bad->iov_max : SIZE);

	if (r != -EBADMSG)
		fail_msg("%s: %d", bad->why, r);
	check_broken(&vq, &before, iov);
	check_works_again(memory);
}

static void chains_that_are_none_break_the_queue(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(bad_chains); i++)
		check_bad_chain(*state, &bad_chains[i]);
}

/* As long as the queue, in the table, in an indirect table, and shared between both. */
static void the_longest_chains_are_good(void **state)
{
	const struct virtqueue_config config = driver_config(SIZE);
	struct vring_desc *table = guest_memory_at(*state, TABLE, SIZE * 16);
	struct iovec iov[SIZE];
	struct driver driver;
	struct virtqueue vq;

	driver_init(&driver, *state, SIZE);
	assert_int_equal(virtqueue_init(&vq, *state, &config, 0), 0);
	for (unsigned i = 0; i < SIZE; i++) {
		uint16_t flags = i < SIZE - 1 ? NEXT : 0;

		driver_put(&driver, i, DRIVER_DATA, 1, flags, (uint16_t)(i + 1));
		table[i] = driver.desc[i];
	}
	driver_offer(&driver, 0);
	assert_int_equal(pop(&vq, iov, SIZE), 1);
	virtqueue_push(&vq, 0, 0);
	driver_put(&driver, 0, TABLE, SIZE * 16, INDIRECT, 0);
	driver_offer(&driver, 0);
	assert_int_equal(pop(&vq, iov, SIZE), 1);
	driver_put(&driver, 1, DRIVER_DATA, 1, NEXT, 2);
	driver_put(&driver, 2, TABLE + 16, (SIZE - 1) * 16, INDIRECT, 0);
	for (unsigned i = 1; i < SIZE; i++) /* its indices count from its start */
		table[i].next = (uint16_t)i;
	driver_offer(&driver, 1);
	assert_int_equal(pop(&vq, iov, SIZE), 1);
}

/* Buffers that overlap may name more bytes than there are; 2^32 of them are too many. */
static void the_sum_of_lengths_stays_below_4_gib(void **state)
{
	const uint32_t length = LOW_SIZE;
	const struct virtqueue_config config = {
		.size = 1024,
		.desc = DRIVER_DESC,
		.avail = DRIVER_AVAIL,
		.used = DRIVER_USED,
		.indirect = true,
	};
	static struct iovec iov[1024];
	struct virtqueue_chain chain = { .iov = iov, .iov_max = 1024 };
	struct guest_memory *memory;
	struct driver driver;
	struct virtqueue vq;
	const struct guest_memory_range range = { 0, 64 * MIB }; /* never touched */

	(void)state;
	assert_int_equal(guest_memory_create(&range, 1, 0, &memory), 0);
	driver_init(&driver, memory, 1024);
	for (unsigned i = 0; i < 1024; i++)
		driver_put(&driver, i, 0, length * 128, NEXT, (uint16_t)(i + 1));
	/* 63 * 64 MiB readable, and writable up to one byte below 4 GiB. */
	driver.desc[63].flags = WRITE | NEXT;
	driver.desc[63].len = length * 128 - 1;
	driver.desc[64].flags = WRITE;
	driver.desc[64].len = 0;
	assert_int_equal(virtqueue_init(&vq, memory, &config, 0), 0);
	driver_offer(&driver, 0);
	assert_int_equal(virtqueue_pop(&vq, &chain), 1);
	assert_int_equal(chain.readable_bytes + (uint64_t)chain.writable_bytes, UINT32_MAX);
	virtqueue_push(&vq, 0, 0);
	driver.desc[64].len = 1;
	driver_offer(&driver, 0);
	assert_int_equal(virtqueue_pop(&vq, &chain), -EBADMSG);
	guest_memory_free(memory);
}

/* ---- the available ring ---- */

static void avail_idx_may_be_ahead_by_size_at_most(void **state)
{
	const struct virtqueue_config config = driver_config(SIZE);
	struct iovec iov[SIZE];
	struct driver driver;
	struct virtqueue vq;

	driver_init(&driver, *state, SIZE);
	driver_put(&driver, 0, DRIVER_DATA, 1, 0, 0);
	for (unsigned base = 0; base <= UINT16_MAX; base += 4369)
		for (unsigned ahead = 0; ahead <= UINT16_MAX; ahead++) {
			int expected = ahead == 0 ? 0 : ahead <= SIZE ? 1 : -EBADMSG;

			assert_int_equal(virtqueue_init(&vq, *state, &config, (uint16_t)base), 0);
			driver_set_avail_idx(&driver, (uint16_t)(base + ahead));
			/* A bad one counts as something to look at: pop finds out. */
			assert_int_equal(virtqueue_enable_kicks(&vq), expected != 0);
			if (pop(&vq, iov, SIZE) != expected || vq.broken != (expected < 0))
				fail_msg("at %u, ahead by %u", base, ahead);
		}
}

/* A driver that only ever moves idx is served size times: then heads repeat. */
static void moving_idx_does_not_make_chains(void **state)
{
	const struct virtqueue_config config = driver_config(SIZE);
	struct iovec iov[SIZE];
	struct driver driver;
	struct virtqueue vq;
	unsigned served = 0;
	int r;

	driver_init(&driver, *state, SIZE);
	for (unsigned i = 0; i < SIZE; i++) {
		driver_put(&driver, i, DRIVER_DATA, 1, 0, 0);
		driver_offer(&driver, (uint16_t)i);
	}
	assert_int_equal(virtqueue_init(&vq, *state, &config, 0), 0);
	while ((r = pop(&vq, iov, SIZE)) == 1) {
		served++;
		driver_set_avail_idx(&driver, (uint16_t)(served + 1));
	}
	assert_int_equal(r, -EBADMSG);
	assert_int_equal(served, SIZE);
}

static void a_head_in_flight_is_refused_until_it_is_pushed(void **state)
{
	const struct virtqueue_config config = driver_config(1024);
	struct iovec iov[SIZE];
	struct driver driver;
	struct virtqueue vq;

	driver_init(&driver, *state, 1024);
	for (unsigned i = 0; i < 1024; i++)
		driver_put(&driver, i, DRIVER_DATA, 1, 0, 0);
	for (unsigned i = 0; i < 1024; i++) {
		const uint16_t head = (uint16_t)i;

		driver_set_avail_idx(&driver, 0);
		assert_int_equal(virtqueue_init(&vq, *state, &config, 0), 0);
		for (unsigned n = 0; n < 3; n++) {
			driver_offer(&driver, head);
			assert_int_equal(pop(&vq, iov, SIZE), 1);
			virtqueue_push(&vq, head, 0);
		}
		driver_offer(&driver, head);
		driver_offer(&driver, head);
		assert_int_equal(pop(&vq, iov, SIZE), 1);
		struct virtqueue before = vq;

		assert_int_equal(pop(&vq, iov, SIZE), -EBADMSG);
		vq.broken = false;
		assert_memory_equal(&vq, &before, sizeof(vq));
	}
}

static void all_heads_may_be_in_flight(void **state)
{
	const struct virtqueue_config config = driver_config(1024);
	struct iovec iov[SIZE];
	struct driver driver;
	struct virtqueue vq;

	driver_init(&driver, *state, 1024);
	assert_int_equal(virtqueue_init(&vq, *state, &config, 0), 0);
	for (unsigned i = 0; i < 1024; i++) {
		driver_put(&driver, i, DRIVER_DATA, 1, 0, 0);
		driver_offer(&driver, (uint16_t)(i * 5 % 1024));
	}
	for (unsigned i = 0; i < 1024; i++)
		assert_int_equal(pop(&vq, iov, SIZE), 1);
	assert_int_equal(pop(&vq, iov, SIZE), 0);
	virtqueue_push(&vq, 700, 0);
	driver_offer(&driver, 700);
	assert_int_equal(pop(&vq, iov, SIZE), 1);
	driver_offer(&driver, 701);
	assert_int_equal(pop(&vq, iov, SIZE), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rings_must_lie_in_memory),
		cmocka_unit_test(rings_must_be_aligned),
		cmocka_unit_test(the_last_byte_of_a_ring_counts),
		cmocka_unit_test(rings_may_overlap),
		cmocka_unit_test(chains_that_are_none_break_the_queue),
		cmocka_unit_test(the_longest_chains_are_good),
		cmocka_unit_test(the_sum_of_lengths_stays_below_4_gib),
		cmocka_unit_test(avail_idx_may_be_ahead_by_size_at_most),
		cmocka_unit_test(moving_idx_does_not_make_chains),
		cmocka_unit_test(a_head_in_flight_is_refused_until_it_is_pushed),
		cmocka_unit_test(all_heads_may_be_in_flight),
	};

	return cmocka_run_group_tests(tests, driver_make_memory, driver_free_memory);
}
