// SPDX-License-Identifier: BSD-3-Clause
/*
 * What no good driver asks of a network card: frames that are none, offloads
 * that lie or were not accepted, buffers without room, commands that do not
 * exist, a receive queue that nobody serves under a flood, frames without end
 * while a disk is read. Frames marked BAD must never come out of the tap, those
 * marked GOOD must, which tests/kvm/test_hostile_net.py looks at; it sends marked
 * frames when we say so.
 * And what a good driver asks, of a program in passt's place that is slow.
 */
#include "victims.h"

enum { RECEIVE, TRANSMIT, CONTROL, QUEUES };
enum {
	HEADER = 12,
	ETHERNET = 14,
	MARKED = HEADER + ETHERNET + 32,
	FLOOD = 64,
	ETHERTYPE = 0x88b5
};
enum { F_CSUM = 1 << 0, F_HOST_TSO4 = 1 << 11, F_CTRL_VQ = 1 << 17, F_MQ = 1 << 22 };
enum { NEEDS_CSUM = 1, GSO_NONE = 0, GSO_TCPV4 = 1, GSO_UDP = 3, GSO_TCPV6 = 4, GSO_UDP_L4 = 5 };
enum { CONFIG_PAIRS = 8, PAIRS = 2, ACK_OK = 0, ACK_ERROR = 1 };

struct net_header {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};

/* ---- the device ------------------------------------------------------------------------ */

static void start_net(uint64_t features)
{
	start_queues(victims, (features & F_CTRL_VQ) != 0 ? QUEUES : CONTROL, features);
}

static void begin_net(uint64_t features)
{
	/* The control queue comes behind all pairs, of which there are two. */
	find_device(PCI_NET, (const uint16_t[QUEUES]){ 0, 1, 2 * PAIRS }, QUEUES);
	if (read_at(victims[0].config + CONFIG_PAIRS, 2) != PAIRS)
		fail("no two pairs");
	start_net(features);
	rest("begin");
	start_net(features);
}

/* ---- frames ---------------------------------------------------------------------------- */

/* A broadcast of an experimental type. */
static void set_frame(const struct net_header *header, const char *mark)
{
	uint8_t *data = victims[TRANSMIT].buffers->data;
	static const uint8_t ethernet[ETHERNET] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0,
		0, 1, ETHERTYPE >> 8, ETHERTYPE & 0xff };

	memset(data, 0, MARKED);
	memcpy(data, header, HEADER);
	memcpy(data + HEADER, ethernet, ETHERNET);
	for (unsigned i = 0; mark[i] != '\0'; i++)
		data[HEADER + ETHERNET + i] = (uint8_t)mark[i];
}

/* As many bytes, by descriptors of the same buffer again and again. */
static void send(uint32_t size)
{
	struct victim *victim = &victims[TRANSMIT];
	uint32_t part_max = sizeof(victim->buffers->data);
	uint16_t i = 0;

	while (size > part_max) {
		set_desc(victim, i, (uintptr_t)victim->buffers->data, part_max, NEXT, i + 1);
		size -= part_max;
		i++;
	}
	set_desc(victim, i, (uintptr_t)victim->buffers->data, size, 0, 0);
	uint32_t written = submit(victim, 0);

	if (written != 0)
		fail_row("%u bytes are said to be written", (uint64_t)written);
	check_guards(victim);
}

static void send_good(void)
{
	static unsigned count;
	char mark[] = "GOOD a";

	mark[5] = (char)('a' + count++);
	set_frame(&(struct net_header){ 0 }, mark);
	send(MARKED);
	if (get(&victims[0], STATUS, 1) != RUNNING)
		fail_row("the status is %x", get(&victims[0], STATUS, 1));
}

/* ---- to the network -------------------------------------------------------------------- */

static void run_tx_sizes(void)
{
	static const uint32_t sizes[] = { 0, 1, 9, 11, 12, 13, 25, 65566, 65562 + 16384 };
	struct victim *victim = &victims[TRANSMIT];

	begin_net(0);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		row = "sizes";
		set_frame(&(struct net_header){ 0 }, "BAD");
		send(sizes[i]);
		send_good();
	}
	row = "4 GiB in one";
	set_desc(victim, 0, (uintptr_t)victim->buffers->data, UINT32_MAX, 0, 0);
	offer(victim, 0);
	kick(victim);
	expect_needs_reset(victim);
	start_net(0);
	send_good();
	row = "4 GiB in pieces";
	set_repeated(victim, 128, 16 << 20, 32 << 20, 0);
	offer(victim, 0);
	kick(victim);
	expect_needs_reset(victim);
	start_net(0);
	send_good();
	rest("end");
}

static const struct offload_row {
	const char *name;
	uint64_t features;
	struct net_header header;
} offload_rows[] = {
	{ "headers longer than the frame", F_CSUM | F_HOST_TSO4,
		{ NEEDS_CSUM, GSO_TCPV4, 60000, 1000, 34, 16, 0 } },
	{ "segments of nothing", F_CSUM | F_HOST_TSO4,
		{ NEEDS_CSUM, GSO_TCPV4, 54, 0, 34, 16, 0 } },
	{ "a sum from behind the frame", F_CSUM, { NEEDS_CSUM, GSO_NONE, 0, 0, 60000, 16, 0 } },
	{ "a sum to behind the frame", F_CSUM, { NEEDS_CSUM, GSO_NONE, 0, 0, 14, 60000, 0 } },
	{ "an unknown kind", F_CSUM | F_HOST_TSO4, { NEEDS_CSUM, 0x7f, 54, 1000, 34, 16, 0 } },
	{ "UDP fragments", F_CSUM | F_HOST_TSO4, { NEEDS_CSUM, GSO_UDP, 42, 8, 34, 6, 0 } },
	{ "TSO of IPv6, not accepted", F_CSUM | F_HOST_TSO4,
		{ NEEDS_CSUM, GSO_TCPV6, 14, 8, 14, 16, 0 } },
	{ "USO, not accepted", F_CSUM | F_HOST_TSO4, { NEEDS_CSUM, GSO_UDP_L4, 14, 8, 14, 6, 0 } },
	{ "TSO, not accepted", F_CSUM, { NEEDS_CSUM, GSO_TCPV4, 14, 8, 14, 16, 0 } },
	{ "a sum, not accepted", 0, { NEEDS_CSUM, GSO_NONE, 0, 0, 14, 16, 0 } },
};

static void run_tx_offloads(void)
{
	begin_net(0);
	for (unsigned i = 0; i < ARRAY_SIZE(offload_rows); i++) {
		row = offload_rows[i].name;
		start_net(offload_rows[i].features);
		set_frame(&offload_rows[i].header, "BAD");
		send(MARKED);
		send_good();
	}
	rest("end");
}

/* ---- from the network ------------------------------------------------------------------ */

/* Takes frames until there is a marked one, which the host sends now and then. */
static void receive_marked(const char *prompt)
{
	struct victim *victim = &victims[RECEIVE];
	const uint8_t *frame = victim->buffers->data + HEADER;

	print("%s\n", prompt);
	do {
		memset(victim->buffers->data, 0, 64);
		set_desc(victim, 0, (uintptr_t)victim->buffers->data, 2048, WRITE, 0);
		uint32_t written = submit(victim, 0);

		if (written < HEADER + ETHERNET || written > 2048)
			fail_row("a frame of %u bytes", (uint64_t)written);
		check_guards(victim);
	} while (!memory_equal(frame + ETHERNET, "MARKED", 6));
	print("received\n");
}

static void run_rx_buffers(void)
{
	static const struct {
		const char *name;
		uint32_t length;
		uint16_t flags;
	} rows[] = {
		{ "1 byte", 1, WRITE },
		{ "no byte", 0, WRITE },
		{ "half a header", HEADER - 1, WRITE },
		{ "what is readable", 2048, 0 },
	};
	struct victim *victim = &victims[RECEIVE];

	begin_net(0);
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		row = rows[i].name;
		start_net(0);
		set_desc(victim, 0, (uintptr_t)victim->buffers->data, rows[i].length, rows[i].flags,
			0);
		offer(victim, 0);
		kick(victim);
		expect_needs_reset(victim);
		check_guards(victim);
	}
	row = "good again";
	start_net(0);
	receive_marked("send");
	send_good();
	rest("end");
}

/* The host fills the tap while there are no buffers; transmission goes on. */
static void run_rx_stalled(void)
{
	begin_net(0);
	row = "stalled";
	print("flood\n");
	wait_for_host();
	send_good();
	row = "resumed";
	receive_marked("send");
	send_good();
	rest("end");
}

/* ---- the control queue ----------------------------------------------------------------- */

static const struct command_row {
	const char *name;
	uint32_t length;
	uint8_t command[12];
	uint8_t ack;
} command_rows[] = {
	{ "nothing", 0, { 0 }, ACK_ERROR },
	{ "half a header", 1, { 4 }, ACK_ERROR },
	{ "class 255", 4, { 255, 0, 1, 0 }, ACK_ERROR },
	{ "command 255", 4, { 4, 255, 1, 0 }, ACK_ERROR },
	{ "no number of pairs", 2, { 4, 0 }, ACK_ERROR },
	{ "half a number of pairs", 3, { 4, 0, 1 }, ACK_ERROR },
	{ "no pairs", 4, { 4, 0, 0, 0 }, ACK_ERROR },
	{ "a pair too many", 4, { 4, 0, 3, 0 }, ACK_ERROR },
	{ "65535 pairs", 4, { 4, 0, 255, 255 }, ACK_ERROR },
	{ "16 KiB behind a good command", 16384, { 4, 0, 1, 0 }, ACK_ERROR },
	{ "2^32 - 1 addresses", 6, { 1, 0, 255, 255, 255, 255 }, ACK_ERROR },
	{ "receive side scaling", 4, { 4, 1, 1, 0 }, ACK_ERROR },
	{ "offloads, not accepted", 10, { 5, 0, 255, 255, 255, 255, 255, 255, 255, 255 },
		ACK_ERROR },
	{ "two pairs", 4, { 4, 0, 2, 0 }, ACK_OK },
	{ "one pair", 4, { 4, 0, 1, 0 }, ACK_OK },
};

static void run_control(void)
{
	struct victim *victim = &victims[CONTROL];
	struct buffers *buffers = victim->buffers;

	begin_net(F_CTRL_VQ | F_MQ);
	for (unsigned i = 0; i < ARRAY_SIZE(command_rows); i++) {
		const struct command_row *command = &command_rows[i];

		row = command->name;
		buffers->status = 0xee;
		memcpy(buffers->data, command->command, sizeof(command->command));
		set_desc(victim, 0, (uintptr_t)buffers->data, command->length, NEXT, 1);
		set_desc(victim, 1, (uintptr_t)&buffers->status, 1, WRITE, 0);
		if (submit(victim, 0) != 1 || buffers->status != command->ack)
			fail_row("the answer is %u", (uint64_t)buffers->status);
		check_guards(victim);
		row = "no room for an answer";
		set_desc(victim, 0, (uintptr_t)buffers->data, 4, 0, 0);
		if (submit(victim, 0) != 0)
			fail_row("something is written");
		send_good();
	}
	rest("end");
}

/* As many buffers as the ring has place for. */
static void offer_all(struct victim *victim, uint32_t length, uint16_t flags)
{
	for (uint16_t i = 0; i < victim->queue_size; i++) {
		set_desc(victim, i, (uintptr_t)victim->buffers->data, length, flags, 0);
		offer(victim, i);
	}
	kick(victim);
}

/* With a third queue that is what the driver's features make of it. */
static void start_with(uint16_t third, uint64_t features)
{
	victim_count = 0;
	find_device(PCI_NET, (const uint16_t[QUEUES]){ 0, 1, third }, QUEUES);
	try_queues(victims, QUEUES, features);
}

static void change_roles(void)
{
	struct victim *third = &victims[CONTROL];

	row = "behind all pairs, of which the driver knows one";
	start_with(2 * PAIRS, 0);
	expect_needs_reset(third);
	row = "the control queue of one pair";
	start_with(2, F_CTRL_VQ);
	set_desc(third, 0, (uintptr_t)&third->buffers->status, 1, WRITE, 0);
	if (submit(third, 0) != 1 || third->buffers->status != ACK_ERROR)
		fail_row("the answer is %u", (uint64_t)third->buffers->status);
	row = "the same queue, which receives for the second pair";
	start_with(2, F_CTRL_VQ | F_MQ);
	offer_all(third, 2048, WRITE);
}

static void run_roles(void)
{
	change_roles();
	rest("begin");
	change_roles();
	send_good();
	rest("end");
}

/* ---- a flood --------------------------------------------------------------------------- */

/* Sends again all that was sent. How many frames. */
static unsigned resend(struct victim *victim)
{
	unsigned count = (uint16_t)(victim->rings->used.idx - victim->used_seen);

	for (unsigned i = 0; i < count; i++) {
		uint32_t head = victim->rings->used.ring[victim->used_seen % victim->queue_size].id;

		if (head >= victim->queue_size || take_used(victim, head) != 0)
			fail_row("a frame comes back as head %u", (uint64_t)head);
		offer(victim, (uint16_t)head);
	}
	if (count != 0)
		kick(victim);
	return count;
}

/* The disk and the entropy device; seldom, so that their threads rest when the host looks. */
static unsigned ask_others(void)
{
	static uint32_t last;

	if (in32(PORT_PM_TIMER) - last < PM_TIMER_HZ / 20)
		return 0;
	for (unsigned i = CONTROL; i < victim_count; i++)
		good_request(&victims[i]);
	last = in32(PORT_PM_TIMER);
	return 1;
}

/*
 * Until the host says 'x'; at another byte it is told what was done since the last. By 'a'
 * the other devices are let alone, or no longer.
 */
static void flood(struct victim *victim)
{
	unsigned frames = 0, reads = 0;
	uint8_t byte = 0;
	bool alone = false;

	offer_all(&victims[RECEIVE], 2048, WRITE);
	offer_all(victim, HEADER + FLOOD, 0);
	while (byte != 'x') {
		frames += resend(victim);
		reads += alone ? 0 : ask_others();
		if ((in8(COM1 + UART_LSR) & UART_LSR_READY) == 0)
			continue;
		byte = in8(COM1);
		alone ^= byte == 'a';
		print("%u frames, %u reads\n", (uint64_t)frames, (uint64_t)reads);
		frames = reads = 0;
	}
	check_guards(victim);
}

static void start_all(void)
{
	start_net(0);
	for (unsigned i = CONTROL; i < victim_count; i++)
		start_victim(&victims[i], 0);
}

static void run_tx_flood(void)
{
	find_device(PCI_NET, (const uint16_t[]){ RECEIVE, TRANSMIT }, CONTROL);
	add_victims(PCI_BLOCK);
	add_victims(PCI_RNG);
	if (victim_count != CONTROL + 2)
		fail("no disk");
	start_all();
	rest("begin");
	start_all();
	row = "flood";
	set_frame(&(struct net_header){ 0 }, "FLOOD");
	flood(&victims[TRANSMIT]);
	rest("end");
}

/* To a program of the host that reads slowly: most frames go in parts. One pair, as it has. */
static void run_tx_slow(void)
{
	enum { FRAMES = 64, SIZE = HEADER + 65000 };

	find_device(PCI_NET, (const uint16_t[]){ RECEIVE, TRANSMIT }, CONTROL);
	start_net(0);
	rest("begin");
	start_net(0);
	row = "slow";
	for (unsigned i = 0; i < FRAMES; i++) {
		set_frame(&(struct net_header){ 0 }, "LARGE");
		send(SIZE);
	}
	print("sent\n");
	wait_for_host();
	rest("end");
}

const struct test_case cases[] = {
	{ "tx-sizes", run_tx_sizes },
	{ "tx-slow", run_tx_slow },
	{ "tx-flood", run_tx_flood },
	{ "tx-offloads", run_tx_offloads },
	{ "rx-buffers", run_rx_buffers },
	{ "rx-stalled", run_rx_stalled },
	{ "control", run_control },
	{ "roles", run_roles },
	{ NULL, NULL },
};
