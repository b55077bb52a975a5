// SPDX-License-Identifier: BSD-3-Clause
/*
 * What no good driver tells a balloon: pages that are none, twice the same,
 * numbers in pieces, statistics without end, buffers that are no pages. A page
 * that is ours to give must come back as zeros all the while.
 */
#include "virtio.h"

enum { INFLATE, STATS, REPORTING, QUEUES };
enum { F_STATS = 1 << 1, F_REPORTING = 1 << 5, FEATURES = F_STATS | F_REPORTING };
enum { CONFIG_TARGET = 0, CONFIG_ACTUAL = 4 };
enum { PAGE = 4096, MUCH = 1 << 20, PIECES = 60 };

static uint8_t given[PAGE] __attribute__((aligned(PAGE)));
static uint8_t neighbour[PAGE] __attribute__((aligned(PAGE)));
static uint8_t much[MUCH] __attribute__((aligned(PAGE)));

static void begin_balloon(void)
{
	find_device(PCI_BALLOON, (const uint16_t[QUEUES]){ 0, 2, 3 }, QUEUES);
	start_queues(victims, QUEUES, FEATURES);
	memset(neighbour, GUARD, PAGE);
	rest("begin");
	start_queues(victims, QUEUES, FEATURES);
}

static void check_balloon(const struct victim *victim)
{
	check_guards(victim);
	if (get(&victims[0], STATUS, 1) != RUNNING)
		fail_row("the status is %x", get(&victims[0], STATUS, 1));
	if (!is_all(neighbour, GUARD, PAGE))
		fail_row("a page is gone that nobody named");
}

static void end_balloon(void)
{
	for (unsigned i = 0; i < QUEUES; i++)
		check_balloon(&victims[i]);
	rest("end");
}

/* Nothing is ever written by a balloon. */
static void submit_unwritten(struct victim *victim)
{
	uint32_t written = submit(victim, 0);

	if (written != 0)
		fail_row("%u bytes are said to be written", (uint64_t)written);
	check_balloon(victim);
}

/* ---- pages by number ------------------------------------------------------------------- */

static void inflate_good(void)
{
	struct victim *victim = &victims[INFLATE];
	uint32_t pfn = (uint32_t)((uintptr_t)given / PAGE);

	memset(given, GUARD, PAGE);
	memcpy(victim->buffers->data, &pfn, sizeof(pfn));
	set_desc(victim, 0, (uintptr_t)victim->buffers->data, sizeof(pfn), 0, 0);
	submit_unwritten(victim);
	if (!is_all(given, 0, PAGE))
		fail_row("a page is not given back");
}

static const struct inflate_row {
	const char *name;
	uint32_t length;
	uint16_t flags;
	uint32_t pfns[4];
} inflate_rows[] = {
	{ "page 2^32 - 1", 4, 0, { UINT32_MAX } },
	{ "the last two", 8, 0, { UINT32_MAX - 1, UINT32_MAX } },
	{ "downwards", 8, 0, { UINT32_MAX, UINT32_MAX - 1 } },
	{ "round the end", 8, 0, { UINT32_MAX, 0xd0000 } },
	{ "in the hole", 4, 0, { 0xd0000 } },
	{ "ECAM", 16, 0, { 0xe0000, 0xe0001, 0xe0002, 0xe0003 } },
	{ "4 GiB", 4, 0, { 0x100000 } },
	{ "the same twice", 8, 0, { 0xd0000, 0xd0000 } },
	{ "3 bytes", 3, 0, { 0 } },
	{ "a number and a half", 6, 0, { UINT32_MAX, 0 } },
	{ "no bytes", 0, 0, { 0 } },
	{ "to be written", 16, WRITE, { 0 } },
};

static void run_inflate(void)
{
	struct victim *victim = &victims[INFLATE];

	begin_balloon();
	for (unsigned r = 0; r < ARRAY_SIZE(inflate_rows); r++) {
		const struct inflate_row *test = &inflate_rows[r];

		row = test->name;
		memcpy(victim->buffers->data, test->pfns, sizeof(test->pfns));
		set_desc(victim, 0, (uintptr_t)victim->buffers->data, test->length, test->flags, 0);
		submit_unwritten(victim);
		inflate_good();
	}
	row = "60 MiB of numbers";
	memset(much, 0xff, MUCH);
	set_repeated(victim, PIECES, (uintptr_t)much, MUCH, 0);
	submit_unwritten(victim);
	inflate_good();
	row = "the same page, again and again";
	for (unsigned i = 0; i < 1000; i++)
		inflate_good();
	end_balloon();
}

/* ---- free pages as buffers ------------------------------------------------------------- */

static void report(const void *gpa, uint32_t length, uint16_t flags)
{
	struct victim *victim = &victims[REPORTING];

	set_desc(victim, 0, (uintptr_t)gpa, length, flags, 0);
	submit_unwritten(victim);
}

static void report_good(void)
{
	memset(given, GUARD, PAGE);
	report(given, PAGE, WRITE);
	if (!is_all(given, 0, PAGE))
		fail_row("a page is not given back");
}

static void run_reporting(void)
{
	begin_balloon();
	memset(given, GUARD, PAGE);
	row = "a byte";
	report(given, 1, WRITE);
	row = "all but a byte";
	report(given + 1, PAGE - 1, WRITE);
	row = "no bytes";
	report(given, 0, WRITE);
	row = "to be read";
	report(given, PAGE, 0);
	if (!is_all(given, GUARD, PAGE))
		fail_row("less than a page is given back");
	row = "a page and parts of its neighbours";
	memset(much, GUARD, 3 * PAGE);
	report(much + PAGE - 8, PAGE + 16, WRITE);
	if (!is_all(much, GUARD, PAGE) || !is_all(much + PAGE, 0, PAGE) ||
		!is_all(much + 2 * PAGE, GUARD, PAGE))
		fail_row("not the whole page alone is given back");
	row = "60 times the same MiB";
	set_repeated(&victims[REPORTING], PIECES, (uintptr_t)much, MUCH, WRITE);
	submit_unwritten(&victims[REPORTING]);
	report_good();
	end_balloon();
}

/* ---- statistics ------------------------------------------------------------------------ */

/* The device keeps the newest buffer and gives back the one before. */
static void run_stats(void)
{
	static const uint32_t lengths[] = { 10, 0, 1, 3, 9, 11, 640, 650, 16384, 10 };
	struct victim *victim = &victims[STATS];

	begin_balloon();
	row = "lengths";
	memset(victim->buffers->data, 0xff, sizeof(victim->buffers->data)); /* unknown tags */
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint16_t head = i % 2;

		set_desc(victim, head, (uintptr_t)victim->buffers->data, lengths[i], 0, 0);
		offer(victim, head);
		kick(victim);
		if (i == 0)
			continue;
		if (!wait_used(victim, 1) || take_used(victim, 1 - head) != 0)
			fail_row("length %u", (uint64_t)lengths[i]);
		check_balloon(victim);
	}
	row = "60 MiB";
	memset(much, 0, MUCH);
	set_repeated(victim, PIECES, (uintptr_t)much, MUCH, 0);
	offer(victim, 0);
	kick(victim);
	if (!wait_used(victim, 1))
		fail_row("no answer");
	(void)take_used(victim, 1);
	inflate_good();
	end_balloon();
}

/* ---- configuration --------------------------------------------------------------------- */

static void run_config(void)
{
	begin_balloon();
	uint64_t config = victims[0].config;

	row = "actual";
	write_at(config + CONFIG_ACTUAL, 4, UINT32_MAX);
	if (read_at(config + CONFIG_ACTUAL, 4) != UINT32_MAX)
		fail_row("is %x", read_at(config + CONFIG_ACTUAL, 4));
	row = "target";
	write_at(config + CONFIG_TARGET, 4, UINT32_MAX);
	if (read_at(config + CONFIG_TARGET, 4) != 0)
		fail_row("is the driver's to write");
	row = "behind the end";
	for (unsigned offset = 8; offset < 256; offset++) {
		write_at(config + offset, 1, 0xff);
		(void)read_at(config + offset, 1);
	}
	write_at(config + CONFIG_ACTUAL, 4, 0);
	inflate_good();
	end_balloon();
}

const struct test_case cases[] = {
	{ "inflate", run_inflate },
	{ "reporting", run_reporting },
	{ "stats", run_stats },
	{ "config", run_config },
	{ NULL, NULL },
};
