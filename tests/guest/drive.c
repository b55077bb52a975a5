// SPDX-License-Identifier: BSD-3-Clause
/*
 * A driver that keeps to the rules: writes to a disk and reads back what it
 * wrote, with resets in between, until the host sends a byte. For back ends of
 * others, and for what the host does to devices meanwhile.
 */
#include "virtio.h"

enum { FIRST_SECTOR = 64, PLACES = 16, SECTORS = 32, ROUNDS_A_RESET = 50 };

static void transfer(struct victim *victim, uint32_t type, uint64_t sector, uint32_t length)
{
	set_header(victim, type, sector);
	set_request(victim, length, type == BLK_IN);
	uint32_t written = submit(victim, 0);
	uint32_t expected = type == BLK_IN ? length + 1 : 1;

	if (victim->buffers->status != S_OK || written != expected)
		fail_row("request %u at sector %u: status %u, %u bytes written", (uint64_t)type,
			sector, (uint64_t)victim->buffers->status, (uint64_t)written);
}

static void fill(struct victim *victim, uint64_t round)
{
	uint64_t *words = (void *)victim->buffers->data;

	for (unsigned i = 0; i < SECTORS * SECTOR / 8; i++)
		words[i] = image_word(round, i);
}

static void check(const struct victim *victim, uint64_t round)
{
	const uint64_t *words = (const void *)victim->buffers->data;

	for (unsigned i = 0; i < SECTORS * SECTOR / 8; i++)
		if (words[i] != image_word(round, i))
			fail_row("word %u of round %u is %x", (uint64_t)i, round, words[i]);
}

static void write_and_read(struct victim *victim, uint64_t round)
{
	uint64_t sector = FIRST_SECTOR + round % PLACES * SECTORS;

	fill(victim, round);
	transfer(victim, BLK_OUT, sector, SECTORS * SECTOR);
	if (round % ROUNDS_A_RESET == 0)
		start_victim(victim, 0);
	memset(victim->buffers->data, GUARD, SECTORS * SECTOR);
	transfer(victim, BLK_IN, sector, SECTORS * SECTOR);
	check(victim, round);
	check_guards(victim);
}

static bool is_told_to_end(void)
{
	if ((in8(COM1 + UART_LSR) & UART_LSR_READY) == 0)
		return false;
	in8(COM1);
	return true;
}

static void run_disk(void)
{
	uint64_t round = 0;

	begin();
	struct victim *victim = chosen();

	row = "rounds";
	print("driving\n");
	for (bool told = false; !told || round < 2 * ROUNDS_A_RESET; told |= is_told_to_end()) {
		write_and_read(victim, round++);
		if (round % ROUNDS_A_RESET == 0)
			print("%u rounds\n", round);
	}
	transfer(victim, BLK_FLUSH, 0, 0);
	end();
}

const struct test_case cases[] = {
	{ "disk", run_disk },
	{ NULL, NULL },
};
