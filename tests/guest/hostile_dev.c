// SPDX-License-Identifier: BSD-3-Clause
/*
 * Requests that no good driver makes, to block and entropy devices: sectors out
 * of range, sizes that are none, headers in pieces, no status byte, writes to a
 * read-only disk, far too much at once. The images are compared afterwards by
 * tests/kvm/test_hostile_virtio.py: only WRITTEN_SECTOR of a writable disk may
 * have changed.
 */
#include "victims.h"

enum { WRITTEN_SECTOR = 3, WRITTEN_BYTE = 0xa5, DATA_MAX = sizeof(((struct buffers *)0)->data) };
enum { FEATURE_READ_ONLY = 1 << 5 };
enum { ANY_STATUS = 0xff };
#define ANY UINT32_MAX

static uint64_t capacity(const struct victim *victim)
{
	return read_at(victim->config, 8);
}

static bool is_read_only(const struct victim *victim)
{
	return (get_offered(victim) & FEATURE_READ_ONLY) != 0;
}

/* ---- one header, one buffer, one status byte ----------------------------------------- */

static const struct request_row {
	const char *name;
	uint32_t type;
	bool from_capacity; /* the sector counts from the end of the disk */
	uint64_t sector;
	uint32_t length;
	bool device_writes;
	uint8_t status;
	uint32_t used; /* ANY: not looked at */
} request_rows[] = {
	{ "read sector 2^64 - 1", BLK_IN, false, UINT64_MAX, 512, true, S_IOERR, 0 },
	{ "read sector 2^55", BLK_IN, false, UINT64_C(1) << 55, 512, true, S_IOERR, 0 },
	{ "read sector 2^55 + 7", BLK_IN, false, (UINT64_C(1) << 55) + 7, 512, true, S_IOERR, 0 },
	{ "read the last sector", BLK_IN, true, -1, 512, true, S_OK, 513 },
	{ "read after the end", BLK_IN, true, 0, 512, true, S_IOERR, 0 },
	{ "read over the end", BLK_IN, true, -1, 1024, true, S_IOERR, 0 },
	{ "read nothing", BLK_IN, false, 0, 0, true, S_OK, 1 },
	{ "read nothing at the end", BLK_IN, true, 0, 0, true, S_OK, 1 },
	{ "read nothing after the end", BLK_IN, true, 1, 0, true, S_IOERR, 1 },
	{ "read 1 byte", BLK_IN, false, 0, 1, true, S_IOERR, 0 },
	{ "read 511 bytes", BLK_IN, false, 0, 511, true, S_IOERR, 0 },
	{ "read 513 bytes", BLK_IN, false, 0, 513, true, S_IOERR, 0 },
	{ "read into what is readable", BLK_IN, false, 0, 512, false, ANY_STATUS, ANY },
	{ "write sector 2^64 - 1", BLK_OUT, false, UINT64_MAX, 512, false, S_IOERR, 1 },
	{ "write sector 2^55", BLK_OUT, false, UINT64_C(1) << 55, 512, false, S_IOERR, 1 },
	{ "write after the end", BLK_OUT, true, 0, 512, false, S_IOERR, 1 },
	{ "write over the end", BLK_OUT, true, -1, 1024, false, S_IOERR, 1 },
	{ "write 1 byte", BLK_OUT, false, 0, 1, false, S_IOERR, 1 },
	{ "write 511 bytes", BLK_OUT, false, 0, 511, false, S_IOERR, 1 },
	{ "write 513 bytes", BLK_OUT, false, 0, 513, false, S_IOERR, 1 },
	{ "write from what is writable", BLK_OUT, false, 5, 512, true, ANY_STATUS, ANY },
	{ "a SCSI command", 2, false, 0, 512, true, S_UNSUPP, 0 },
	{ "a SCSI command out", 3, false, 0, 512, false, S_UNSUPP, 1 },
	{ "type 5", 5, false, 0, 512, true, S_UNSUPP, 0 },
	{ "type 2^31", 0x80000000, false, 0, 512, true, S_UNSUPP, 0 },
	{ "type 2^31 + 1", 0x80000001, false, 0, 512, false, S_UNSUPP, 1 },
	{ "type 2^32 - 1", UINT32_MAX, false, 0, 512, false, S_UNSUPP, 1 },
	{ "secure erase", 14, false, 0, 16, false, S_UNSUPP, 1 },
	{ "flush", BLK_FLUSH, false, 0, 0, false, S_OK, 1 },
	{ "flush with data", BLK_FLUSH, false, UINT64_MAX, 512, false, S_OK, 1 },
	{ "flush with room", BLK_FLUSH, false, 0, 512, true, S_OK, 0 },
	{ "id into 1 byte", BLK_GET_ID, false, 0, 1, true, S_OK, 2 },
	{ "id into 20 bytes", BLK_GET_ID, false, UINT64_MAX, 20, true, S_OK, 21 },
	{ "id into 4096 bytes", BLK_GET_ID, false, 0, 4096, true, S_OK, 20 },
	{ "id into nothing", BLK_GET_ID, false, 0, 0, true, S_OK, 1 },
	{ "id into what is readable", BLK_GET_ID, false, 0, 20, false, ANY_STATUS, ANY },
};

/* A device says what it wrote, in the used ring and in the status byte, and no more. */
static void check_answer(
	const struct victim *victim, uint32_t written, uint8_t status, uint32_t used)
{
	uint8_t said = victim->buffers->status;

	if (said > S_UNSUPP || (status != ANY_STATUS && said != status))
		fail_row("%s: status %u", victim->name, (uint64_t)said);
	if (used != ANY && written != used)
		fail_row("%s: %u bytes are said to be written", victim->name, (uint64_t)written);
	check_guards(victim);
}

static bool changes_disk(uint32_t type)
{
	return type == BLK_OUT || type == BLK_DISCARD || type == BLK_ZEROES;
}

static void run_request(struct victim *victim, const struct request_row *request)
{
	bool refused = changes_disk(request->type) && is_read_only(victim);
	uint64_t base = request->from_capacity ? capacity(victim) : 0;

	row = request->name;
	memset(victim->buffers->data, GUARD, DATA_MAX);
	set_header(victim, request->type, base + request->sector);
	set_request(victim, request->length, request->device_writes);
	uint32_t written = submit(victim, 0);

	check_answer(victim, written, refused ? S_IOERR : request->status,
		refused ? !request->device_writes : request->used);
	if (!is_all(victim->buffers->data + request->length, GUARD, 2048))
		fail_row("%s wrote behind the buffer", victim->name);
	if (victim->buffers->status != S_OK && request->device_writes &&
		!is_all(victim->buffers->data, GUARD, request->length))
		fail_row("%s wrote data for a request that failed", victim->name);
	good_request(victim);
}

/* All requests to each disk, without a reset in between: a bad request is no broken ring. */
static void run_requests(void)
{
	begin();
	for (unsigned i = 0; i < victim_count; i++)
		for (unsigned r = 0; victims[i].pci_id == PCI_BLOCK && r < ARRAY_SIZE(request_rows);
			r++) {
			run_request(&victims[i], &request_rows[r]);
			check_others(&victims[i]);
		}
	end();
}

/* ---- segments: discard and write zeroes --------------------------------------------- */

struct segment {
	uint64_t sector;
	uint32_t sectors, flags;
};

static const struct segment_row {
	const char *name;
	uint32_t type;
	unsigned count;
	uint32_t length;     /* if not that of so many segments */
	struct segment last; /* the others are of no sectors, which is good */
	uint8_t status;
} segment_rows[] = {
	{ "discard nothing", BLK_DISCARD, 0, 0, { 0 }, S_IOERR },
	{ "discard by half a segment", BLK_DISCARD, 1, 8, { 0 }, S_IOERR },
	{ "discard by one and a half", BLK_DISCARD, 2, 24, { 0 }, S_IOERR },
	{ "discard 1000 segments", BLK_DISCARD, 1000, 0, { 0 }, S_IOERR },
	{ "discard 2^32 - 1", BLK_DISCARD, 1, 0, { 0, UINT32_MAX, 0 }, S_IOERR },
	{ "discard after the end", BLK_DISCARD, 1, 0, { 1 << 20, 8, 0 }, S_IOERR },
	{ "discard sector 2^55", BLK_DISCARD, 1, 0, { UINT64_C(1) << 55, 8, 0 }, S_IOERR },
	{ "discard at 2^64 - 1", BLK_DISCARD, 1, 0, { UINT64_MAX, 2, 0 }, S_IOERR },
	{ "discard with a flag", BLK_DISCARD, 1, 0, { 8, 8, 2 }, S_UNSUPP },
	{ "discard with unmap", BLK_DISCARD, 1, 0, { 8, 8, 1 }, S_UNSUPP },
	{ "discard, all flags", BLK_DISCARD, 1, 0, { 8, 8, UINT32_MAX }, S_UNSUPP },
	{ "discard, the second bad", BLK_DISCARD, 2, 0, { UINT64_MAX, 8, 0 }, S_IOERR },
	{ "zeroes for nothing", BLK_ZEROES, 0, 0, { 0 }, S_IOERR },
	{ "zeroes by 15 bytes", BLK_ZEROES, 1, 15, { 0 }, S_IOERR },
	{ "zeroes by 1000 segments", BLK_ZEROES, 1000, 0, { 0 }, S_IOERR },
	{ "zeroes for 2^32 - 1", BLK_ZEROES, 1, 0, { 0, UINT32_MAX, 0 }, S_IOERR },
	{ "zeroes over the end", BLK_ZEROES, 1, 0, { 4090, 16, 0 }, S_IOERR },
	{ "zeroes at 2^64 - 1", BLK_ZEROES, 1, 0, { UINT64_MAX, 2, 1 }, S_IOERR },
	{ "zeroes with a flag", BLK_ZEROES, 1, 0, { 8, 8, 2 }, S_UNSUPP },
	{ "zeroes, all flags", BLK_ZEROES, 1, 0, { 8, 8, UINT32_MAX }, S_UNSUPP },
	{ "zeroes, the second bad", BLK_ZEROES, 2, 0, { 1 << 20, 8, 0 }, S_IOERR },
	{ "zeroes for no sectors", BLK_ZEROES, 1, 0, { 8, 0, 0 }, S_OK },
};

static void run_segment(struct victim *victim, const struct segment_row *test)
{
	struct segment *segments = (void *)victim->buffers->data;
	uint32_t length = test->length != 0 ? test->length : test->count * sizeof(*segments);

	row = test->name;
	memset(victim->buffers->data, 0, DATA_MAX);
	for (unsigned i = 0; i < test->count; i++)
		segments[i] = (struct segment){ 8, 0, 0 };
	if (test->count != 0)
		segments[test->count - 1] = test->last;
	set_header(victim, test->type, 0);
	set_request(victim, length, false);
	uint32_t written = submit(victim, 0);
	uint8_t status = is_read_only(victim) ? S_IOERR : test->status;

	check_answer(victim, written, status, 1);
	good_request(victim);
}

static void run_segments(void)
{
	begin();
	for (unsigned i = 0; i < victim_count; i++)
		for (unsigned r = 0; victims[i].pci_id == PCI_BLOCK && r < ARRAY_SIZE(segment_rows);
			r++)
			run_segment(&victims[i], &segment_rows[r]);
	end();
}

/* ---- layouts of a chain ---------------------------------------------------------------- */

/* Each byte of the header, and the data, in a descriptor of its own. */
static void submit_in_pieces(struct victim *victim)
{
	struct buffers *buffers = victim->buffers;
	uint16_t i = 0;

	for (; i < 16; i++)
		set_desc(victim, i, (uintptr_t)buffers->header + i, 1, NEXT, i + 1);
	for (; i < 32; i++)
		set_desc(victim, i, (uintptr_t)buffers->data + (i - 16) * 32, 32, NEXT | WRITE,
			i + 1);
	set_desc(victim, i, (uintptr_t)&buffers->status, 1, WRITE, 0);
}

static void expect(struct victim *victim, uint8_t status, uint32_t used)
{
	check_answer(victim, submit(victim, 0), status, used);
	good_request(victim);
}

static void run_layouts_of(struct victim *victim)
{
	struct buffers *buffers = victim->buffers;
	uintptr_t data = (uintptr_t)buffers->data;

	row = "in pieces";
	set_header(victim, BLK_IN, GOOD_SECTOR);
	submit_in_pieces(victim);
	expect(victim, S_OK, SECTOR + 1);

	row = "status behind the data";
	set_header(victim, BLK_IN, GOOD_SECTOR);
	set_desc(victim, 0, (uintptr_t)buffers->header, 16, NEXT, 1);
	set_desc(victim, 1, data, SECTOR + 1, WRITE, 0);
	uint32_t written = submit(victim, 0);

	if (written != SECTOR + 1 || buffers->data[SECTOR] != S_OK || buffers->status != 0xee)
		fail_row("%s: %u bytes, status %u", victim->name, (uint64_t)written,
			(uint64_t)buffers->data[SECTOR]);

	row = "header too short";
	set_header(victim, BLK_IN, GOOD_SECTOR);
	set_desc(victim, 0, (uintptr_t)buffers->header, 15, NEXT, 1);
	set_desc(victim, 1, (uintptr_t)&buffers->status, 1, WRITE, 0);
	expect(victim, S_IOERR, 1);

	row = "no header";
	set_header(victim, BLK_IN, GOOD_SECTOR);
	set_desc(victim, 0, (uintptr_t)&buffers->status, 1, WRITE, 0);
	expect(victim, S_IOERR, 1);

	row = "no status byte";
	set_header(victim, BLK_OUT, 5);
	set_desc(victim, 0, (uintptr_t)buffers->header, 16, NEXT, 1);
	set_desc(victim, 1, data, SECTOR, 0, 0);
	if (submit(victim, 0) != 0 || buffers->status != 0xee)
		fail_row("%s wrote a status", victim->name);

	row = "status in what is readable";
	set_header(victim, BLK_FLUSH, 0);
	set_desc(victim, 0, (uintptr_t)buffers->header, 16, NEXT, 1);
	set_desc(victim, 1, (uintptr_t)&buffers->status, 1, 0, 0);
	if (submit(victim, 0) != 0 || buffers->status != 0xee)
		fail_row("%s wrote a status", victim->name);

	row = "header and data in one";
	set_header(victim, BLK_OUT, WRITTEN_SECTOR);
	memcpy(buffers->data, buffers->header, 16);
	memset(buffers->data + 16, WRITTEN_BYTE, SECTOR);
	set_desc(victim, 0, data, 16 + SECTOR, NEXT, 1);
	set_desc(victim, 1, (uintptr_t)&buffers->status, 1, WRITE, 0);
	if (is_read_only(victim))
		expect(victim, S_IOERR, 1);
	else
		expect(victim, S_OK, 1);
}

static void run_layouts(void)
{
	begin();
	for (unsigned i = 0; i < victim_count; i++)
		if (victims[i].pci_id == PCI_BLOCK) {
			run_layouts_of(&victims[i]);
			check_victim(&victims[i]);
		}
	end();
}

/* ---- with requests in flight ------------------------------------------------------------ */

/* As many reads as the ring holds, all into the same sector's buffer. */
static void fill_ring(struct victim *victim, uint16_t count)
{
	set_header(victim, BLK_IN, GOOD_SECTOR);
	for (uint16_t i = 0; i < count; i++) {
		uint16_t d = i * 2;

		set_desc(victim, d, (uintptr_t)victim->buffers->header, 16, NEXT, d + 1);
		set_desc(victim, d + 1, (uintptr_t)victim->buffers->data, SECTOR + 1, WRITE, 0);
		offer(victim, d);
	}
	kick(victim);
}

/* After a reset the device writes nowhere any more: the memory is the driver's again. */
static void run_reset_in_flight(void)
{
	begin();
	for (unsigned i = 0; i < victim_count; i++) {
		struct victim *victim = &victims[i];

		if (victim->pci_id != PCI_BLOCK)
			continue;
		for (unsigned round = 0; round < 100; round += every()) {
			row = "reset";
			start_victim(victim, 0);
			fill_ring(victim, 128);
			for (unsigned spin = 0; spin < round * 100; spin++)
				__asm__ volatile("pause");
			reset(victim);
			clear_memory(victim);
			if (round % 20 == 0)
				wait_ticks(PM_TIMER_HZ / 100);
			if (!is_all(victim->buffers->data, GUARD, DATA_MAX) ||
				victim->rings->used.idx != 0)
				fail_row("%s writes after its reset", victim->name);
			check_guards(victim);
		}
		check_victim(victim);
	}
	end();
}

/* ---- two drivers of one ring -------------------------------------------------------------- */

enum { PAIRS = 10 };

static struct drivers_request {
	uint8_t data[SECTOR];
	uint8_t header[16];
	uint8_t status;
} both[2 * PAIRS];

/* The requests of one driver are at even descriptors, those of the other at odd ones. */
static void set_interleaved(struct victim *victim, bool crossed)
{
	for (uint16_t i = 0; i < 2 * PAIRS; i++) {
		struct drivers_request *request = &both[i];
		const uint32_t header[4] = { BLK_IN, 0, i, 0 };
		uint16_t first = i / 2 * 6 + i % 2;

		memcpy(request->header, header, sizeof(header));
		memset(request->data, GUARD, SECTOR);
		request->status = 0xee;
		set_desc(victim, first, (uintptr_t)request->header, 16, NEXT,
			first + (crossed && i % 2 == 0 ? 3 : 2));
		set_desc(victim, first + 2, (uintptr_t)request->data, SECTOR, NEXT | WRITE,
			first + 4);
		set_desc(victim, first + 4, (uintptr_t)&request->status, 1, WRITE, 0);
		offer(victim, first);
	}
	kick(victim);
	if (!wait_used(victim, 2 * PAIRS))
		fail_row("%s does not answer", victim->name);
	victim->used_seen += 2 * PAIRS;
}

static void check_interleaved(const struct victim *victim)
{
	for (unsigned i = 0; i < 2 * PAIRS; i++) {
		uint64_t words[SECTOR / 8];

		memcpy(words, both[i].data, SECTOR);
		if (both[i].status != S_OK || words[0] != image_word(i, 0) ||
			words[SECTOR / 8 - 1] != image_word(i, SECTOR / 8 - 1))
			fail_row("%s: request %u: status %u", victim->name, (uint64_t)i,
				(uint64_t)both[i].status);
	}
}

/* Sectors 0 to 19, of which WRITTEN_SECTOR is as it was: nobody writes in this case. */
static void run_two_drivers(void)
{
	begin();
	for (unsigned i = 0; i < victim_count; i++) {
		struct victim *victim = &victims[i];

		if (victim->pci_id != PCI_BLOCK)
			continue;
		row = "in turn";
		for (unsigned round = 0; round < 50; round++) {
			set_interleaved(victim, false);
			check_interleaved(victim);
		}
		row = "one in the other's buffers";
		set_interleaved(victim, true);
		check_guards(victim);
		for (unsigned n = 1; n < 2 * PAIRS; n += 2)
			if (both[n].status != S_OK || !is_all(both[n - 1].data, GUARD, SECTOR))
				fail_row("%s: request %u", victim->name, (uint64_t)n);
		check_victim(victim);
	}
	end();
}

/* ---- entropy --------------------------------------------------------------------------- */

enum { CAP = 64 << 10, MUCH = 1 << 20 };
/* Of the 128 MiB that this needs. */
enum { BIG = 0x2000000, BIG_SIZE = 64 << 20, BIG_PARTS = 64 };
static uint8_t much[MUCH + 4096] __attribute__((aligned(4096)));

static void expect_random(struct victim *victim, uint32_t length)
{
	uint32_t written = submit(victim, 0);

	if (written != length)
		fail_row("%u bytes came", (uint64_t)written);
	check_guards(victim);
}

static void run_rng(void)
{
	begin();
	struct victim *victim = &victims[victim_count - 1];

	if (victim->pci_id != PCI_RNG)
		fail("the last device is not rng");
	row = "a MiB";
	memset(much, GUARD, sizeof(much));
	set_desc(victim, 0, (uintptr_t)much, MUCH, WRITE, 0);
	expect_random(victim, CAP);
	if (is_all(much + CAP - 16, GUARD, 16) || !is_all(much + CAP, GUARD, sizeof(much) - CAP))
		fail_row("not the first 64 KiB are written");

	row = "nearly 4 GiB to read";
	set_repeated(victim, 60, 0x200000, 48 << 20, 0);
	expect_random(victim, 0);

	/* The same 64 MiB often, of which the first 64 KiB are written. */
	row = "4 GiB to write, but for a byte";
	set_repeated(victim, BIG_PARTS, BIG, BIG_SIZE, WRITE);
	victim->rings->desc[BIG_PARTS - 1].length = BIG_SIZE - 1;
	memset(at(BIG + CAP), GUARD, 4096);
	expect_random(victim, CAP);
	if (!is_all(at(BIG + CAP), GUARD, 4096))
		fail_row("more than 64 KiB are written");

	row = "4 GiB to write at once";
	set_desc(victim, 0, BIG, UINT32_MAX, WRITE, 0);
	offer(victim, 0);
	kick(victim);
	expect_needs_reset(victim);
	start_victim(victim, 0);

	row = "60 MiB";
	memset(much, GUARD, sizeof(much));
	set_repeated(victim, 60, (uintptr_t)much, MUCH, WRITE);
	expect_random(victim, CAP);
	if (!is_all(much + CAP, GUARD, sizeof(much) - CAP))
		fail_row("more than 64 KiB are written");

	row = "nothing and something";
	set_desc(victim, 0, (uintptr_t)much, 0, NEXT | WRITE, 1);
	set_desc(victim, 1, 0, 0, NEXT | WRITE, 2);
	set_desc(victim, 2, (uintptr_t)victim->buffers->data, 3, WRITE, 0);
	expect_random(victim, 3);
	check_victim(victim);
	end();
}

/* The ring always full, of the most there is to ask for: the disks and the end do not wait. */
static void run_flood(void)
{
	uint64_t answers = 0, floods = 0;

	begin();
	struct victim *victim = &victims[victim_count - 1];
	uint32_t seconds = (uint32_t)find_number(params, "seconds=", 1);
	uint32_t begun = in32(PORT_PM_TIMER);

	row = "flood";
	for (uint16_t i = 0; i < victim->queue_size; i++)
		set_desc(victim, i, (uintptr_t)much, MUCH, WRITE, 0);
	while (in32(PORT_PM_TIMER) - begun < seconds * PM_TIMER_HZ) {
		uint16_t idx = victim->rings->used.idx;

		for (; (uint16_t)(victim->rings->avail.idx - idx) < victim->queue_size; floods++)
			offer(victim, victim->rings->avail.idx % victim->queue_size);
		kick(victim);
		good_request(&victims[0]);
		answers++;
	}
	print("%u good requests beside %u\n", answers, floods);
	if (floods < victim->queue_size * 2u || answers < 20)
		fail_row("too few");
	check_victim(victim);
	end();
}

const struct test_case cases[] = {
	{ "requests", run_requests },
	{ "segments", run_segments },
	{ "layouts", run_layouts },
	{ "reset-in-flight", run_reset_in_flight },
	{ "two-drivers", run_two_drivers },
	{ "rng", run_rng },
	{ "flood", run_flood },
	{ NULL, NULL },
};
