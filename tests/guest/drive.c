// SPDX-License-Identifier: BSD-3-Clause
/*
 * A driver that keeps to the rules: writes to a disk and reads back what it
 * wrote, with resets in between, until the host sends a byte. Or asks a network
 * for the Ethernet address of 192.0.2.1. For back ends of others, and for what
 * the host does to devices meanwhile.
 */
#include "victims.h"

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

/* ---- a network card -------------------------------------------------------------------- */

enum { RECEIVE, TRANSMIT, NET_QUEUES };
enum { FRAME_ROOM = 2048 };

/* ARP, RFC 826, behind the header of virtio-net. */
struct arp_frame {
	uint8_t header[12], to[6], from[6], type[2];
	uint8_t hardware[2], protocol[2], sizes[2], operation[2];
	uint8_t sender[6], sender_ip[4], target[6], target_ip[4];
};

static const struct arp_frame question = {
	.to = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
	.from = { 2, 0, 0, 0, 0, 2 },
	.type = { 0x08, 0x06 },
	.hardware = { 0, 1 },
	.protocol = { 0x08, 0 },
	.sizes = { 6, 4 },
	.operation = { 0, 1 },
	.sender = { 2, 0, 0, 0, 0, 2 },
	.sender_ip = { 192, 0, 2, 2 },
	.target_ip = { 192, 0, 2, 1 },
};

static bool is_answer(const struct arp_frame *frame)
{
	return memory_equal(frame->type, question.type, sizeof(frame->type)) &&
	       memory_equal(frame->operation, (const uint8_t[]){ 0, 2 }, 2) &&
	       memory_equal(frame->sender_ip, question.target_ip, sizeof(frame->sender_ip)) &&
	       memory_equal(frame->to, question.from, sizeof(frame->to));
}

/* Others' frames may come before it. */
static void ask_network(void)
{
	struct victim *receive = &victims[RECEIVE], *transmit = &victims[TRANSMIT];
	const struct arp_frame *frame = (const void *)receive->buffers->data;

	set_desc(receive, 0, (uintptr_t)receive->buffers->data, FRAME_ROOM, WRITE, 0);
	offer(receive, 0);
	kick(receive);
	memcpy(transmit->buffers->data, &question, sizeof(question));
	set_desc(transmit, 0, (uintptr_t)transmit->buffers->data, sizeof(question), 0, 0);
	if (submit(transmit, 0) != 0)
		fail_row("something is written to what is sent");
	for (bool answered = false; !answered;) {
		if (!wait_used(receive, 1))
			fail_row("no answer; status %x", get(receive, STATUS, 1));
		uint32_t written = take_used(receive, 0);

		answered = written >= sizeof(question) && is_answer(frame);
		if (!answered) {
			offer(receive, 0);
			kick(receive);
		}
	}
	check_guards(receive);
	check_guards(transmit);
}

static void run_arp(void)
{
	find_device(PCI_NET, (const uint16_t[NET_QUEUES]){ RECEIVE, TRANSMIT }, NET_QUEUES);
	row = "rounds";
	for (unsigned round = 0; round < 3; round++) {
		start_queues(victims, NET_QUEUES, 0);
		ask_network();
	}
}

const struct test_case cases[] = {
	{ "disk", run_disk },
	{ "arp", run_arp },
	{ NULL, NULL },
};
