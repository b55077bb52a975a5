// SPDX-License-Identifier: BSD-3-Clause
/*
 * Virtqueues by a driver whose rings are good, and whose use of them is not:
 * indices that jump, heads offered twice, kicks without end, rings that another
 * vCPU changes meanwhile. Parameter victim= says whose; the oracle is that of
 * hostile_vq.c.
 */
#include "victims.h"

/* ---- indices of the rings ----------------------------------------------------------- */

static void run_avail_idx(void)
{
	static const struct {
		const char *name;
		int add; /* to the queue's size */
		uint16_t idx;
	} jumps[] = {
		{ "size + 1", 1, 0 },
		{ "size + 2", 2, 0 },
		{ "-1", 0, 65535 },
		{ "32768", 0, 32768 },
		{ "twice the size", 0, 512 },
	};

	begin();
	struct victim *victim = chosen();

	for (unsigned i = 0; i < ARRAY_SIZE(jumps); i++) {
		row = jumps[i].name;
		start_victim(victim, 0);
		victim->rings->avail.idx = jumps[i].add != 0
						   ? (uint16_t)(victim->queue_size + jumps[i].add)
						   : jumps[i].idx;
		announce(victim);
		expect_needs_reset(victim);
		check_victim(victim);
	}
	row = "a step back";
	start_victim(victim, 0);
	good_request(victim);
	good_request(victim);
	victim->rings->avail.idx = 1;
	announce(victim);
	expect_needs_reset(victim);
	check_victim(victim);
	end();
}

/* How many of a full ring came back: less than all when the device needs a reset. */
static unsigned take_all(struct victim *victim)
{
	unsigned taken = 0;

	do {
		announce(victim);
		if (!wait_used(victim, 1))
			break;
		take_used(victim, 0);
	} while (++taken < victim->queue_size);
	return taken;
}

/* One head several times, before it came back: one after the other, or a broken queue. */
static void run_same_head(void)
{
	begin();
	struct victim *victim = chosen();

	row = "all of the ring";
	for (unsigned round = 0; round < 20; round++) {
		start_victim(victim, 0);
		victim->kind->put(victim);
		for (unsigned i = 0; i < victim->queue_size; i++)
			offer(victim, 0);
		if (take_all(victim) < victim->queue_size)
			expect_needs_reset(victim);
		check_victim(victim);
	}
	end();
}

/* What the device reads only to spare an interrupt, and what it only writes. */
static void run_garbage(void)
{
	static const uint64_t features[] = { 0, FEATURE_EVENT_IDX };

	begin();
	struct victim *victim = chosen();

	row = "flags and events";
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		start_victim(victim, features[i]);
		for (unsigned value = 0; value < 65536; value += 127) {
			victim->rings->avail.flags = (uint16_t)value;
			victim->rings->avail.ring[victim->queue_size] = (uint16_t)(value * 31);
			victim->rings->used.flags = (uint16_t)~value;
			good_request(victim);
		}
		check_victim(victim);
	}
	end();
}

enum { BATCH = 16, HEADERS = BATCH * SECTOR, STATUSES = HEADERS + BATCH * 16 };

/* Request `slot` of a batch: three descriptors that read a sector, or get random bytes. */
static void put_slot(struct victim *victim, unsigned slot, uint32_t sector)
{
	uint8_t *data = victim->buffers->data;
	uint32_t header[4] = { BLK_IN, 0, sector, 0 };
	uint16_t head = (uint16_t)(slot * 3);
	bool is_block = victim->pci_id == PCI_BLOCK;

	memcpy(data + HEADERS + slot * 16, header, sizeof(header));
	memset(data + slot * SECTOR, GUARD, SECTOR);
	data[STATUSES + slot] = 0xee;
	set_desc(victim, head, (uintptr_t)data + HEADERS + slot * 16, 16, NEXT, head + 1);
	set_desc(victim, head + 1, (uintptr_t)data + slot * SECTOR, SECTOR,
		WRITE | (is_block ? NEXT : 0), head + 2);
	set_desc(victim, head + 2, (uintptr_t)data + STATUSES + slot, 1, WRITE, 0);
	offer(victim, is_block ? head : head + 1);
}

static void check_slot(const struct victim *victim, unsigned slot, uint32_t sector)
{
	const uint64_t *words = (const void *)(victim->buffers->data + slot * SECTOR);
	bool good = victim->pci_id == PCI_RNG
			    ? !is_all((const void *)(words + 60), GUARD, 32)
			    : words[0] == image_word(sector, 0) &&
				      words[63] == image_word(sector, 63) &&
				      victim->buffers->data[STATUSES + slot] == S_OK;

	if (!good)
		fail_row("%s: sector %u is %x", victim->name, (uint64_t)sector, words[0]);
}

/* In any order; each head comes back once. */
static void take_batch(struct victim *victim)
{
	uint64_t back = 0;

	for (unsigned i = 0; i < BATCH; i++) {
		unsigned slot = victim->used_seen++ % victim->queue_size;

		back |= UINT64_C(1) << victim->rings->used.ring[slot].id;
		if (victim->rings->used.ring[slot].length < SECTOR)
			fail_row("%s wrote %u bytes", victim->name,
				(uint64_t)victim->rings->used.ring[slot].length);
	}
	for (unsigned i = 0; i < BATCH; i++)
		if ((back >> (i * 3) & 3) == 0)
			fail_row("%s: heads %x came back", victim->name, back);
}

static void wrap_by_batches(struct victim *victim, uint64_t requests)
{
	for (uint64_t done = 0; done < requests; done += BATCH) {
		for (unsigned slot = 0; slot < BATCH; slot++)
			put_slot(victim, slot, (uint32_t)((done + slot) % 4000 + 8));
		kick(victim);
		if (!wait_used(victim, BATCH))
			fail_row("%s stops after %u requests", victim->name, done);
		take_batch(victim);
		for (unsigned slot = 0; slot < BATCH; slot++)
			check_slot(victim, slot, (uint32_t)((done + slot) % 4000 + 8));
		check_guards(victim);
	}
}

/* Those that make several of one good request count all. */
static void wrap_one_by_one(struct victim *victim, uint64_t requests)
{
	uint16_t before = 0;

	for (uint64_t done = 0; done < requests; done += (uint16_t)(victim->used_seen - before)) {
		before = victim->used_seen;
		good_request(victim);
	}
}

/* Over the end of the 16 bits of idx; each answer is looked at. */
static void run_wrap(void)
{
	uint64_t requests = find_number(params, "count=", 70000);

	begin();
	struct victim *victim = chosen();

	row = "good requests";
	start_victim(victim, 0);
	if (victim->pci_id == PCI_BLOCK || victim->pci_id == PCI_RNG)
		wrap_by_batches(victim, requests);
	else
		wrap_one_by_one(victim, requests);
	check_victim(victim);
	end();
}

/* ---- kicks and resets -------------------------------------------------------------- */

static void run_kicks(void)
{
	begin();
	struct victim *victim = chosen();

	row = "no queue";
	for (uint64_t offset = 0; offset < 4096; offset += 2 * every()) {
		reset(victim);
		write_at(victim->notify + offset, 2, offset);
	}
	row = "every place and width";
	start_victim(victim, 0);
	for (unsigned size = 1; size <= 8; size *= 2)
		for (uint64_t offset = 0; offset + size <= 64; offset++)
			write_at(victim->notify + offset, size, UINT64_MAX);
	good_request(victim);
	row = "ten thousand for nothing";
	for (unsigned i = 0; i < 10000; i++)
		kick(victim);
	good_request(victim);
	check_victim(victim);
	end();
}

/* Breaks its ring for ever, as fast as it can: the log must not grow with it. */
static void run_storm(void)
{
	begin();
	struct victim *victim = chosen();

	row = "broken rings";
	for (unsigned i = 0; i < 100; i += every()) {
		start_victim(victim, 0);
		offer(victim, 65535);
		announce(victim);
		expect_needs_reset(victim);
	}
	row = "bad places";
	for (unsigned i = 0; i < 100; i += every()) {
		negotiate_victim(victim, 0);
		place_queue(victim, UINT64_MAX - 15, 1, 1);
		put(victim, STATUS, 1, RUNNING);
	}
	check_victim(victim);
	end();
}

/* As many of the same good request as the ring has room for. */
static void fill_ring(struct victim *victim)
{
	volatile struct descriptor *desc = victim->rings->desc;

	victim->kind->put(victim);
	for (uint16_t head = 0; head + PIECES <= victim->queue_size; head += PIECES) {
		for (unsigned i = 0; i < PIECES; i++) {
			desc[head + i] = desc[i];
			desc[head + i].next = head + i + 1;
		}
		offer(victim, head);
	}
	announce(victim);
}

/* After a reset the device writes nowhere any more, and takes no page: all is the driver's again.
 */
static void run_reset(void)
{
	begin();
	struct victim *victim = chosen();

	row = "with a full ring";
	for (unsigned round = 0; round < 100; round += every()) {
		start_victim(victim, 0);
		fill_ring(victim);
		for (unsigned spin = 0; spin < round * 100; spin++)
			__asm__ volatile("pause");
		reset(victim);
		clear_memory(victim);
		memset(given_pages, GUARD, sizeof(given_pages));
		if (round % 20 == 0)
			wait_ticks(PM_TIMER_HZ / 100);
		if (victim->rings->used.idx != 0 ||
			!is_all(victim->buffers->data, GUARD, sizeof(victim->buffers->data)) ||
			!is_all(given_pages, GUARD, sizeof(given_pages)))
			fail_row("%s goes on after its reset", victim->name);
		check_guards(victim);
	}
	check_victim(victim);
	end();
}

/* ---- against a second vCPU ----------------------------------------------------------- */

enum { SHARED = 0x10000, STOP = 0xff00, SHARED_DESC = 0x10000, SHARED_AVAIL = 0x12000 };

/* The rings in the first MiB, where the other vCPU can write them. */
static void start_shared(struct victim *victim)
{
	negotiate_victim(victim, 0);
	clear_memory(victim);
	memset(at(SHARED), 0, 0x4000);
	place_queue(victim, SHARED_DESC, SHARED_AVAIL, (uintptr_t)&victim->rings->used);
	put(victim, STATUS, 1, RUNNING);
}

static void submit_shared(struct victim *victim, uint16_t times)
{
	volatile struct descriptor *desc = at(SHARED_DESC);
	volatile uint16_t *avail = at(SHARED_AVAIL);

	victim->kind->put(victim);
	for (unsigned i = 0; i < PIECES; i++)
		desc[i] = victim->rings->desc[i];
	for (uint16_t i = 0; i < times; i++) {
		avail[2 + avail[1] % victim->queue_size] = 0;
		avail[1]++;
		announce(victim);
		for (unsigned spin = 0; spin < 200; spin++)
			__asm__ volatile("pause");
	}
}

/* Submits while the others run `code`, then stops them. */
static void race(const uint8_t *code, size_t size)
{
	unsigned resets = 0;

	begin();
	struct victim *victim = chosen();
	uint32_t seconds = (uint32_t)find_number(params, "seconds=", 1);
	uint32_t begun = in32(PORT_PM_TIMER);

	row = "race";
	*(volatile uint8_t *)at(SHARED + STOP) = 0;
	start_shared(victim);
	start_others(code, size);
	while (in32(PORT_PM_TIMER) - begun < seconds * PM_TIMER_HZ) {
		submit_shared(victim, 8);
		check_guards(victim);
		if ((get(victim, STATUS, 1) & NEEDS_RESET) == 0)
			continue;
		resets++;
		check_others(victim);
		start_shared(victim);
	}
	*(volatile uint8_t *)at(SHARED + STOP) = 1;
	wait_ticks(PM_TIMER_HZ / 20);
	print("broke %u times\n", (uint64_t)resets);
	if (resets == 0)
		fail_row("the other vCPU does nothing");
	check_victim(victim);
	end();
}

/* Lengths, addresses, flags and next of descriptors turn bad and good. */
static void run_flip(void)
{
	static const uint8_t flip[] = {
		0xb8, 0x00, 0x10,                                     /* mov ax, 0x1000 */
		0x8e, 0xd8,                                           /* mov ds, ax */
		0x66, 0x81, 0x36, 0x18, 0x00, 0x00, 0x00, 0x00, 0x80, /* 1: xor [24], 1 << 31 */
		0x66, 0x81, 0x36, 0x14, 0x00, 0x00, 0xff, 0x00, 0x00, /* xor [20], 0xff00 */
		0x81, 0x36, 0x1e, 0x00, 0xff, 0xff,                   /* xor word [30], 0xffff */
		0x81, 0x36, 0x0c, 0x00, 0x04, 0x00,                   /* xor word [12], 4 */
		0x80, 0x3e, 0x00, 0xff, 0x00,                         /* cmp byte [STOP], 0 */
		0x74, 0xdb,                                           /* je 1b */
		0xfa, 0xf4,                                           /* cli; hlt */
	};

	race(flip, sizeof(flip));
}

/* The available ring's idx moves by itself, further than there are chains. */
static void run_moving_idx(void)
{
	static const uint8_t move[] = {
		0xb8, 0x00, 0x10,             /* mov ax, 0x1000 */
		0x8e, 0xd8,                   /* mov ds, ax */
		0xff, 0x06, 0x02, 0x20,       /* 1: inc word [0x2002] */
		0x80, 0x3e, 0x00, 0xff, 0x00, /* cmp byte [STOP], 0 */
		0x74, 0xf5,                   /* je 1b */
		0xfa, 0xf4,                   /* cli; hlt */
	};

	race(move, sizeof(move));
}

const struct test_case cases[] = {
	{ "avail-idx", run_avail_idx },
	{ "same-head", run_same_head },
	{ "garbage", run_garbage },
	{ "wrap", run_wrap },
	{ "kicks", run_kicks },
	{ "storm", run_storm },
	{ "reset", run_reset },
	{ "flip", run_flip },
	{ "moving-idx", run_moving_idx },
	{ NULL, NULL },
};
