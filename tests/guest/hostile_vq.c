// SPDX-License-Identifier: BSD-3-Clause
/*
 * Virtqueues by a driver that breaks the specification: sizes, places, chains,
 * lengths, indirect tables; hostile_ring.c does the same over time. Parameter
 * victim= says whose. After each row the device works again after a reset, the
 * others worked all the time, and nothing outside of the buffers was written.
 */
#include "victims.h"

/* ---- where things may be said to lie -------------------------------------------- */

enum place {
	NOWHERE,      /* the offset is all of the address */
	IN_DATA,      /* the victim's buffer */
	IN_TABLE,     /* an indirect table, in the buffer's second half */
	FROM_RAM_END, /* below 3 GiB */
	FROM_BAR,     /* the victim's own */
};

enum { TABLE = sizeof(((struct buffers *)0)->data) / 2 };

static uint64_t ram_end(void)
{
	enum { E820_ENTRIES = 0x1e8, E820 = 0x2d0, E820_SIZE = 20 };
	uint64_t end = 0;

	for (unsigned i = 0; i < zero_page[E820_ENTRIES]; i++) {
		const uint8_t *entry = zero_page + E820 + i * E820_SIZE;
		uint64_t gpa = load(entry, 8);

		if (load(entry + 16, 4) == 1 && gpa < UINT64_C(1) << 32)
			end = gpa + load(entry + 8, 8);
	}
	return end;
}

static uint64_t resolve(const struct victim *victim, enum place place, uint64_t offset)
{
	switch (place) {
	case IN_DATA:
		return (uintptr_t)victim->buffers->data + offset;
	case IN_TABLE:
		return (uintptr_t)victim->buffers->data + TABLE + offset;
	case FROM_RAM_END:
		return ram_end() + offset;
	case FROM_BAR:
		return victim->bar + offset;
	default:
		return offset;
	}
}

/* ---- chains ----------------------------------------------------------------------- */

enum outcome {
	BREAKS, /* the device needs a reset, and the chain never comes back */
	COMES_BACK,
	EITHER,
};

struct chain_desc {
	enum place place;
	uint64_t offset;
	uint32_t length;
	uint16_t flags, next;
};

#define MINUS(number) (-(uint64_t)(number))
enum { AT_SIZE = 0xfff0 }; /* the queue's size, as a head or a next */

static const struct chain_row {
	const char *name;
	enum outcome outcome;
	uint16_t head;
	bool indirect_accepted;
	struct chain_desc ring[3], table[3];
} chain_rows[] = {
	/* indices */
	{ .name = "head is the size", .head = AT_SIZE },
	{ .name = "head is size + 1", .head = AT_SIZE + 1 },
	{ .name = "head 65535", .head = 65535 },
	{ .name = "next is the size", .ring = { { IN_DATA, 0, 16, NEXT, AT_SIZE } } },
	{ .name = "next 65535", .ring = { { IN_DATA, 0, 16, NEXT | WRITE, 65535 } } },
	{ .name = "loop of one", .ring = { { IN_DATA, 0, 16, NEXT, 0 } } },
	{ .name = "loop of one, writable", .ring = { { IN_DATA, 0, 16, NEXT | WRITE, 0 } } },
	{ .name = "loop of empty ones", .ring = { { IN_DATA, 0, 0, NEXT, 0 } } },
	{ .name = "loop of two",
		.ring = { { IN_DATA, 0, 16, NEXT, 1 }, { IN_DATA, 16, 16, NEXT, 0 } } },
	{ .name = "loop into the middle",
		.ring = { { IN_DATA, 0, 16, NEXT, 1 }, { IN_DATA, 16, 16, NEXT | WRITE, 2 },
			{ IN_DATA, 32, 16, NEXT | WRITE, 1 } } },
	/* addresses and lengths */
	{ .name = "length 4 GiB - 1", .ring = { { IN_DATA, 0, UINT32_MAX, WRITE, 0 } } },
	{ .name = "address wraps", .ring = { { NOWHERE, MINUS(16), 32, WRITE, 0 } } },
	{ .name = "last byte of all", .ring = { { NOWHERE, MINUS(1), 1, WRITE, 0 } } },
	{ .name = "address and length wrap to 0",
		.ring = { { NOWHERE, MINUS(16), 16, WRITE, 0 } } },
	{ .name = "after RAM", .ring = { { FROM_RAM_END, 0, 1, WRITE, 0 } } },
	{ .name = "out of RAM", .ring = { { FROM_RAM_END, MINUS(1), 2, WRITE, 0 } } },
	{ .name = "over the hole",
		.ring = { { FROM_RAM_END, MINUS(4096), UINT32_MAX - 4096, WRITE, 0 } } },
	{ .name = "in the hole", .ring = { { NOWHERE, 0xd0000000, 512, WRITE, 0 } } },
	{ .name = "in config space", .ring = { { NOWHERE, 0xe0000000, 512, WRITE, 0 } } },
	{ .name = "in the LAPIC", .ring = { { NOWHERE, 0xfee00000, 512, WRITE, 0 } } },
	{ .name = "in its own BAR", .ring = { { FROM_BAR, 0, 512, WRITE, 0 } } },
	{ .name = "reads its own BAR", .ring = { { FROM_BAR, 0, 512, 0, 0 } } },
	{ .name = "good, then bad",
		.ring = { { IN_DATA, 0, 64, NEXT | WRITE, 1 },
			{ NOWHERE, MINUS(16), 64, WRITE, 0 } } },
	{ .name = "last byte of RAM",
		.outcome = COMES_BACK,
		.ring = { { FROM_RAM_END, MINUS(1), 1, WRITE, 0 } } },
	{ .name = "length 0", .outcome = COMES_BACK, .ring = { { IN_DATA, 0, 0, WRITE, 0 } } },
	{ .name = "length 0 nowhere",
		.outcome = COMES_BACK,
		.ring = { { NOWHERE, MINUS(1), 0, WRITE, 0 } } },
	{ .name = "one byte", .outcome = COMES_BACK, .ring = { { IN_DATA, 0, 1, WRITE, 0 } } },
	/* directions */
	{ .name = "readable after writable",
		.ring = { { IN_DATA, 0, 16, NEXT | WRITE, 1 }, { IN_DATA, 16, 16, 0, 0 } } },
	{ .name = "readable between writable",
		.ring = { { IN_DATA, 0, 16, NEXT | WRITE, 1 }, { IN_DATA, 16, 16, NEXT, 2 },
			{ IN_DATA, 32, 16, WRITE, 0 } } },
	{ .name = "nothing writable", .outcome = COMES_BACK, .ring = { { IN_DATA, 0, 16, 0, 0 } } },
	{ .name = "nothing readable",
		.outcome = COMES_BACK,
		.ring = { { IN_DATA, 0, 16, WRITE, 0 } } },
	{ .name = "unknown flags",
		.outcome = COMES_BACK,
		.ring = { { IN_DATA, 0, 16, 0xfff8 | WRITE, 0 } } },
	/* indirect tables */
	{ .name = "indirect, not accepted",
		.ring = { { IN_TABLE, 0, 16, INDIRECT, 0 } },
		.table = { { IN_DATA, 0, 16, WRITE, 0 } } },
	{ .name = "indirect",
		.outcome = COMES_BACK,
		.indirect_accepted = true,
		.ring = { { IN_TABLE, 0, 32, INDIRECT, 0 } },
		.table = { { IN_DATA, 0, 16, NEXT | WRITE, 1 }, { IN_DATA, 16, 16, WRITE, 0 } } },
	{ .name = "indirect in indirect",
		.indirect_accepted = true,
		.ring = { { IN_TABLE, 0, 32, INDIRECT, 0 } },
		.table = { { IN_TABLE, 16, 16, INDIRECT, 0 }, { IN_DATA, 0, 16, WRITE, 0 } } },
	{ .name = "indirect with next",
		.indirect_accepted = true,
		.ring = { { IN_TABLE, 0, 16, INDIRECT | NEXT, 1 }, { IN_DATA, 0, 16, WRITE, 0 } },
		.table = { { IN_DATA, 0, 16, WRITE, 0 } } },
	{ .name = "indirect, no entry",
		.indirect_accepted = true,
		.ring = { { IN_TABLE, 0, 0, INDIRECT, 0 } } },
	{ .name = "indirect, half an entry",
		.indirect_accepted = true,
		.ring = { { IN_TABLE, 0, 24, INDIRECT, 0 } },
		.table = { { IN_DATA, 0, 16, WRITE, 0 } } },
	{ .name = "indirect, loop",
		.indirect_accepted = true,
		.ring = { { IN_TABLE, 0, 48, INDIRECT, 0 } },
		.table = { { IN_DATA, 0, 16, NEXT | WRITE, 1 },
			{ IN_DATA, 16, 16, NEXT | WRITE, 0 } } },
	{ .name = "indirect, next out of the table",
		.indirect_accepted = true,
		.ring = { { IN_TABLE, 0, 16, INDIRECT, 0 } },
		.table = { { IN_DATA, 0, 16, NEXT | WRITE, 1 }, { IN_DATA, 16, 16, WRITE, 0 } } },
	{ .name = "indirect, table out of RAM",
		.indirect_accepted = true,
		.ring = { { FROM_RAM_END, MINUS(16), 32, INDIRECT, 0 } } },
	{ .name = "indirect, table of 4 GiB",
		.indirect_accepted = true,
		.ring = { { IN_TABLE, 0, 0xfffffff0, INDIRECT, 0 } },
		.table = { { IN_DATA, 0, 16, WRITE, 0 } } },
	{ .name = "indirect, table wraps",
		.indirect_accepted = true,
		.ring = { { NOWHERE, MINUS(16), 32, INDIRECT, 0 } } },
	{ .name = "indirect, table in its own BAR",
		.indirect_accepted = true,
		.ring = { { FROM_BAR, 0, 32, INDIRECT, 0 } } },
};

static uint16_t with_size(const struct victim *victim, uint16_t index)
{
	return index >= AT_SIZE && index < AT_SIZE + 8
		       ? (uint16_t)(index - AT_SIZE + victim->queue_size)
		       : index;
}

static void put_chain(struct victim *victim, const struct chain_row *chain)
{
	struct descriptor *table = (void *)(victim->buffers->data + TABLE);

	for (unsigned i = 0; i < ARRAY_SIZE(chain->ring); i++) {
		const struct chain_desc *desc = &chain->ring[i];

		set_desc(victim, i, resolve(victim, desc->place, desc->offset), desc->length,
			desc->flags, with_size(victim, desc->next));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(chain->table); i++) {
		const struct chain_desc *desc = &chain->table[i];

		table[i] = (struct descriptor){ resolve(victim, desc->place, desc->offset),
			desc->length, desc->flags, desc->next };
	}
}

/* Of how many bytes to write the device was told. */
static uint32_t room_of(const struct chain_desc *descs, unsigned count)
{
	uint32_t room = 0;

	for (unsigned i = 0; i < count; i++)
		room += (descs[i].flags & WRITE) != 0 ? descs[i].length : 0;
	return room;
}

static void finish(struct victim *victim, enum outcome outcome, uint16_t head, uint32_t room)
{
	/* It may wait for something to put there. */
	if (outcome == COMES_BACK && victim->kind->receives)
		outcome = EITHER;
	if (outcome == BREAKS) {
		expect_needs_reset(victim);
		if (victim->rings->used.idx != 0)
			fail_row("%s gave something back", victim->name);
	} else if (outcome == COMES_BACK) {
		if (!wait_used(victim, 1))
			fail_row("%s does not answer; status %x", victim->name,
				get(victim, STATUS, 1));
		uint32_t written = take_used(victim, head);

		if (written > room)
			fail_row("%s says that it wrote %u bytes to %u", victim->name,
				(uint64_t)written, (uint64_t)room);
		/* And it needs no reset: */
		good_request(victim);
	} else {
		wait_ticks(PM_TIMER_HZ / 100);
	}
	check_victim(victim);
}

static void run_chains(void)
{
	begin();
	struct victim *victim = chosen();

	for (unsigned i = 0; i < ARRAY_SIZE(chain_rows); i++) {
		const struct chain_row *chain = &chain_rows[i];

		row = chain->name;
		start_victim(victim, chain->indirect_accepted ? FEATURE_INDIRECT : 0);
		put_chain(victim, chain);
		offer(victim, with_size(victim, chain->head));
		announce(victim);
		finish(victim, chain->outcome, chain->head,
			room_of(chain->ring, ARRAY_SIZE(chain->ring)) +
				room_of(chain->table, ARRAY_SIZE(chain->table)));
	}
	end();
}

/*
 * Chains as long as the queue, and lengths that add up to more than 32 bits
 * hold; with 128 MiB, so that 64 descriptors can.
 */
static void run_long_chains(void)
{
	begin();
	struct victim *victim = chosen();

	row = "as long as the queue";
	start_victim(victim, 0);
	unsigned size = victim->queue_size;

	for (unsigned i = 0; i < size; i++)
		set_desc(victim, i, (uintptr_t)victim->buffers->data + i, 1,
			WRITE | (i + 1 < size ? NEXT : 0), (uint16_t)(i + 1));
	offer(victim, 0);
	announce(victim);
	finish(victim, COMES_BACK, 0, size);

	row = "as long as the queue, and back";
	start_victim(victim, 0);
	for (unsigned i = 0; i < size; i++)
		set_desc(victim, i, (uintptr_t)victim->buffers->data + i, 1, WRITE | NEXT,
			(uint16_t)((i + 1) % size));
	offer(victim, 0);
	announce(victim);
	finish(victim, BREAKS, 0, 0);

	row = "more than 4 GiB";
	start_victim(victim, 0);
	for (unsigned i = 0; i < size; i++)
		set_desc(victim, i, 0, (uint32_t)ram_end(), i + 1 < size ? NEXT : 0,
			(uint16_t)(i + 1));
	offer(victim, 0);
	announce(victim);
	finish(victim, BREAKS, 0, 0);

	row = "more than 4 GiB, but not in one direction";
	start_victim(victim, 0);
	/* 31 readable ones have less, and the writable ones would reach nothing of ours. */
	for (unsigned i = 0; i < 64; i++)
		set_desc(victim, i, 2 << 20, (uint32_t)ram_end() - (2 << 20),
			(i < 63 ? NEXT : 0) | (i < 31 ? 0 : WRITE), (uint16_t)(i + 1));
	offer(victim, 0);
	announce(victim);
	finish(victim, BREAKS, 0, 0);
	end();
}

/* ---- sizes -------------------------------------------------------------------------- */

static void run_sizes(void)
{
	enum { ONE_MORE = 1 }; /* than its most */
	static const uint16_t sizes[] = { 0, 3, 6, ONE_MORE, 512, 1024, 0x8000, 65535 };

	begin();
	struct victim *victim = chosen();

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		row = "before FEATURES_OK, enabled, and running";
		negotiate(victim, 0);
		put(victim, QUEUE_SELECT, 2, victim->queue);
		uint64_t size = get(victim, QUEUE_SIZE, 2);
		uint64_t other = sizes[i] == ONE_MORE ? size + 1 : sizes[i];

		put(victim, QUEUE_SIZE, 2, other);
		if (get(victim, QUEUE_SIZE, 2) != size)
			fail_row("%s takes a size of %u", victim->name, other);
		start_victim(victim, 0);
		put(victim, QUEUE_SIZE, 2, other);
		put(victim, QUEUE_SIZE, 2, 2);
		put(victim, QUEUE_ENABLE, 2, 0);
		put(victim, QUEUE_ENABLE, 2, 1);
		put(victim, QUEUE_DESC, 8, MINUS(16));
		put(victim, QUEUE_USED, 4, 0);
		put(victim, QUEUE_AVAIL + 4, 4, UINT32_MAX);
		if (get(victim, QUEUE_SIZE, 2) != size || get(victim, QUEUE_ENABLE, 2) != 1)
			fail_row("%s: a running queue changes", victim->name);
		for (unsigned n = 0; n < 300; n++)
			good_request(victim);
		check_victim(victim);
	}
	row = "the smallest";
	negotiate_victim(victim, 0);
	put(victim, QUEUE_SELECT, 2, victim->queue);
	put(victim, QUEUE_SIZE, 2, 4);
	clear_memory(victim);
	place_rings(victim);
	put(victim, STATUS, 1, RUNNING);
	victim->queue_size = 4;
	for (unsigned n = 0; n < 300; n++)
		good_request(victim);
	if (!is_all((const void *)&victim->rings->used.ring[4], 0, 64))
		fail_row("%s writes beyond its ring", victim->name);
	check_victim(victim);
	end();
}

/* ---- places of the rings --------------------------------------------------------------- */

static const struct place_row {
	const char *name;
	enum place place;
	uint64_t offset;
} place_rows[] = {
	{ "not aligned", IN_DATA, 1 },
	{ "at the end of 64 bits", NOWHERE, MINUS(16) },
	{ "over the end of 64 bits", NOWHERE, MINUS(64) },
	{ "last byte of RAM", FROM_RAM_END, MINUS(16) },
	{ "after RAM", FROM_RAM_END, 0 },
	{ "in the hole", NOWHERE, 0xd0000000 },
	{ "over the end of the hole", NOWHERE, 0xfffffff0 },
	{ "in config space", NOWHERE, 0xe0000000 },
	{ "in the LAPIC", NOWHERE, 0xfee00000 },
	{ "in its own BAR", FROM_BAR, 0 },
	{ "far up", NOWHERE, UINT64_C(1) << 52 },
};

/* Each ring at each place, the other two good. */
static void run_places(void)
{
	begin();
	struct victim *victim = chosen();

	for (unsigned i = 0; i < ARRAY_SIZE(place_rows); i++)
		for (unsigned bad = 0; bad < 3; bad++) {
			struct rings *rings = victim->rings;
			uint64_t gpas[3] = { (uintptr_t)rings->desc, (uintptr_t)&rings->avail,
				(uintptr_t)&rings->used };

			row = place_rows[i].name;
			negotiate_victim(victim, 0);
			clear_memory(victim);
			gpas[bad] = resolve(victim, place_rows[i].place, place_rows[i].offset);
			place_queue(victim, gpas[0], gpas[1], gpas[2]);
			put(victim, STATUS, 1, RUNNING);
			if ((get(victim, STATUS, 1) & NEEDS_RESET) == 0)
				fail_row("%s takes ring %u at %x", victim->name, (uint64_t)bad,
					gpas[bad]);
			kick(victim);
			check_victim(victim);
		}
	row = "all at one place";
	negotiate_victim(victim, 0);
	clear_memory(victim);
	memset(victim->buffers->data, 0, sizeof(victim->buffers->data));
	uint64_t gpa = ((uintptr_t)victim->buffers->data + 15) & ~UINT64_C(15);

	place_queue(victim, gpa, gpa, gpa);
	put(victim, STATUS, 1, RUNNING);
	for (unsigned i = 0; i < 100; i++) {
		*(volatile uint16_t *)at(gpa + 2) += 1;
		kick(victim);
	}
	check_victim(victim);
	end();
}

const struct test_case cases[] = {
	{ "sizes", run_sizes },
	{ "places", run_places },
	{ "chains", run_chains },
	{ "long-chains", run_long_chains },
	{ NULL, NULL },
};
