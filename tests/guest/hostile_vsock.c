// SPDX-License-Identifier: BSD-3-Clause
/*
 * What no good driver does with vsock: packets from and to strangers, of no
 * known kind, longer than what is there, for no connection; credit that lies;
 * connections, resets and data without end. After each a good connection must
 * work: to port 7, where the host sends back what it gets. At port 8 nobody
 * reads, at port 9 nobody listens: tests/kvm/test_hostile_vsock.py.
 */
#include "virtio.h"
#include "vsock.h"

enum { RECEIVE, TRANSMIT, EVENT, QUEUES };
enum { CONFIG_CID = 0 };
enum { ECHO = 7, UNREAD = 8 };
enum { DATA = 16384, PARTS = 4, MANY = 65535, CONNECTIONS_MAX = 1024 };
enum { SHUTDOWN_SEND = 2, SHUTDOWN_BOTH = 3 };

static uint32_t next_port = 1000;
static uint32_t ignored_port; /* nothing may come for it */

/* ---- the device ------------------------------------------------------------------------ */

static void start_vsock(void)
{
	start_queues(victims, QUEUES, 0);
}

static void begin_vsock(void)
{
	find_device(PCI_VSOCK, (const uint16_t[QUEUES]){ RECEIVE, TRANSMIT, EVENT }, QUEUES);
	if (read_at(victims[0].config + CONFIG_CID, 8) != GUEST_CID)
		fail("another CID");
	start_vsock();
	rest("begin");
	start_vsock();
}

/* ---- packets --------------------------------------------------------------------------- */

/* `size` bytes in all; what follows the header is what is there. */
static void send_bytes(const struct vsock_header *header, uint32_t size)
{
	struct victim *victim = &victims[TRANSMIT];

	memcpy(victim->buffers->data, header, sizeof(*header));
	set_desc(victim, 0, (uintptr_t)victim->buffers->data, size, 0, 0);
	if (submit(victim, 0) != 0)
		fail_row("something is written to what is sent");
	check_guards(victim);
}

static void send_header(const struct vsock_header *header)
{
	send_bytes(header, sizeof(*header));
}

static void send_op(uint16_t op, uint32_t port, uint32_t host_port)
{
	const struct vsock_header header = make_header(op, port, host_port);

	send_header(&header);
}

static void send_text(uint32_t port, uint32_t host_port, uint32_t buf_alloc, const char *text)
{
	struct vsock_header header = make_header(OP_RW, port, host_port);

	header.buf_alloc = buf_alloc;
	while (text[header.len] != '\0') {
		victims[TRANSMIT].buffers->data[sizeof(header) + header.len] =
			(uint8_t)text[header.len];
		header.len++;
	}
	send_bytes(&header, (uint32_t)sizeof(header) + header.len);
}

/* The next packet of the host's, with its data behind it. */
static const struct vsock_header *receive(void)
{
	struct victim *victim = &victims[RECEIVE];
	const struct vsock_header *header = (const void *)victim->buffers->data;

	set_desc(victim, 0, (uintptr_t)victim->buffers->data, DATA, WRITE, 0);
	uint32_t written = submit(victim, 0);

	check_guards(victim);
	if (written < sizeof(*header) || written != sizeof(*header) + header->len)
		fail_row("a packet of %u bytes that says %u", (uint64_t)written,
			(uint64_t)header->len);
	if (header->src_cid != HOST_CID || header->dst_cid != GUEST_CID)
		fail_row("from %u to %u", header->src_cid, header->dst_cid);
	if (header->dst_port == ignored_port)
		fail_row("an answer of kind %u", (uint64_t)header->op);
	return header;
}

/* The next one of this connection, but for those about credit alone; it must be of that kind. */
static const struct vsock_header *expect(uint16_t op, uint32_t port)
{
	const struct vsock_header *header;

	do {
		header = receive();
	} while (header->dst_port != port || header->op == OP_CREDIT_UPDATE ||
		 header->op == OP_CREDIT_REQUEST);
	if (header->op != op)
		fail_row("an answer of kind %u, not %u", (uint64_t)header->op, (uint64_t)op);
	return header;
}

static void expect_text(uint32_t port, const char *text, uint32_t size)
{
	const struct vsock_header *header = expect(OP_RW, port);

	if (header->len != size || !memory_equal(header + 1, text, size))
		fail_row("%u other bytes", (uint64_t)header->len);
}

static uint32_t connect(uint32_t host_port)
{
	send_op(OP_REQUEST, next_port, host_port);
	expect(OP_RESPONSE, next_port);
	return next_port++;
}

/* What every good driver does, from the first packet to the last. */
static void talk(void)
{
	uint32_t port = connect(ECHO);
	struct vsock_header end = make_header(OP_SHUTDOWN, port, ECHO);

	send_text(port, ECHO, ROOM, "hello");
	expect_text(port, "hello", 5);
	end.flags = SHUTDOWN_BOTH;
	end.fwd_cnt = 5;
	send_header(&end);
	expect(OP_RST, port);
	if (get(&victims[0], STATUS, 1) != RUNNING)
		fail_row("the status is %x", get(&victims[0], STATUS, 1));
}

/* ---- lies ------------------------------------------------------------------------------ */

enum fate { IGNORED, REFUSED };

static const struct packet_row {
	const char *name;
	struct vsock_header header; /* the port is put in */
	uint32_t size;
	enum fate fate;
} packet_rows[] = {
	{ "from another guest",
		{ GUEST_CID + 1, HOST_CID, 0, ECHO, 0, STREAM, OP_REQUEST, 0, ROOM, 0 }, 44,
		IGNORED },
	{ "to another guest",
		{ GUEST_CID, GUEST_CID + 1, 0, ECHO, 0, STREAM, OP_REQUEST, 0, ROOM, 0 }, 44,
		IGNORED },
	{ "no kind", { GUEST_CID, HOST_CID, 0, ECHO, 0, STREAM, OP_INVALID, 0, ROOM, 0 }, 44,
		REFUSED },
	{ "an unknown kind", { GUEST_CID, HOST_CID, 0, ECHO, 0, STREAM, OP_UNKNOWN, 0, ROOM, 0 },
		44, REFUSED },
	{ "another type of socket", { GUEST_CID, HOST_CID, 0, ECHO, 0, 2, OP_REQUEST, 0, ROOM, 0 },
		44, REFUSED },
	{ "data without a connection",
		{ GUEST_CID, HOST_CID, 0, ECHO, 10, STREAM, OP_RW, 0, ROOM, 0 }, 54, REFUSED },
	{ "an answer to nothing",
		{ GUEST_CID, HOST_CID, 0, ECHO, 0, STREAM, OP_RESPONSE, 0, ROOM, 0 }, 44, REFUSED },
	{ "room for nothing",
		{ GUEST_CID, HOST_CID, 0, ECHO, 0, STREAM, OP_CREDIT_UPDATE, 0, ROOM, 0 }, 44,
		REFUSED },
	{ "the end of nothing",
		{ GUEST_CID, HOST_CID, 0, ECHO, 0, STREAM, OP_SHUTDOWN, SHUTDOWN_BOTH, ROOM, 0 },
		44, REFUSED },
	{ "a reset of nothing", { GUEST_CID, HOST_CID, 0, ECHO, 0, STREAM, OP_RST, 0, ROOM, 0 }, 44,
		IGNORED },
	{ "to a port of nobody",
		{ GUEST_CID, HOST_CID, 0, NOBODY, 0, STREAM, OP_REQUEST, 0, ROOM, 0 }, 44,
		REFUSED },
	{ "half a header", { GUEST_CID, HOST_CID, 0, ECHO, 0, STREAM, OP_REQUEST, 0, ROOM, 0 }, 43,
		IGNORED },
	{ "no header", { GUEST_CID, HOST_CID, 0, ECHO, 0, STREAM, OP_REQUEST, 0, ROOM, 0 }, 0,
		IGNORED },
};

static void run_packets(void)
{
	begin_vsock();
	for (unsigned i = 0; i < ARRAY_SIZE(packet_rows); i++) {
		struct vsock_header header = packet_rows[i].header;

		row = packet_rows[i].name;
		header.src_port = next_port++;
		send_bytes(&header, packet_rows[i].size);
		if (packet_rows[i].fate == REFUSED)
			expect(OP_RST, header.src_port);
		else
			ignored_port = header.src_port;
		talk();
	}
	rest("end");
}

/* On a connection that is good until then, each of these ends it. */
static const struct {
	const char *name;
	uint16_t op;
	uint32_t len, size, fwd_cnt;
} connection_rows[] = {
	{ "more data than there is", OP_RW, 11, 54, 0 },
	{ "4 GiB of data", OP_RW, UINT32_MAX, 54, 0 },
	{ "took what it never got", OP_CREDIT_UPDATE, 0, 44, 1 },
	{ "took 2 GiB", OP_CREDIT_UPDATE, 0, 44, 0x80000000 },
	{ "connects again", OP_REQUEST, 0, 44, 0 },
	{ "answers what it asked", OP_RESPONSE, 0, 44, 0 },
	{ "no kind", OP_INVALID, 0, 44, 0 },
	{ "an unknown kind", OP_UNKNOWN, 0, 44, 0 },
};

static void run_connections(void)
{
	begin_vsock();
	for (unsigned i = 0; i < ARRAY_SIZE(connection_rows); i++) {
		row = connection_rows[i].name;
		struct vsock_header header =
			make_header(connection_rows[i].op, connect(ECHO), ECHO);

		header.len = connection_rows[i].len;
		header.fwd_cnt = connection_rows[i].fwd_cnt;
		send_bytes(&header, connection_rows[i].size);
		expect(OP_RST, header.src_port);
		talk();
	}
	rest("end");
}

/*
 * Room for nothing, then for 2 bytes, then for less than it has, then for all there can be. A
 * packet that was overtaken says that the guest took less, and nothing of its room counts.
 */
static void run_credit(void)
{
	begin_vsock();
	row = "room";
	uint32_t port = next_port++;
	struct vsock_header header = make_header(OP_REQUEST, port, ECHO);

	header.buf_alloc = 0;
	send_header(&header);
	expect(OP_RESPONSE, port);
	send_text(port, ECHO, 0, "hello");
	talk();
	header.op = OP_CREDIT_UPDATE;
	header.buf_alloc = 2;
	send_header(&header);
	expect_text(port, "he", 2);
	header.buf_alloc = 1;
	send_header(&header);
	talk();
	header.buf_alloc = UINT32_MAX;
	header.fwd_cnt = 2;
	send_header(&header);
	expect_text(port, "llo", 3);
	row = "an older word";
	send_text(port, ECHO, 0, "again");
	expect_text(port, "again", 5);
	rest("end");
}

/* ---- without end ----------------------------------------------------------------------- */

/* As many bytes as the header says, all from one buffer. */
static void send_parts(const struct vsock_header *header)
{
	struct victim *victim = &victims[TRANSMIT];
	uint32_t left = header->len;

	memcpy(victim->buffers->data, header, sizeof(*header));
	set_desc(victim, 0, (uintptr_t)victim->buffers->data, sizeof(*header), NEXT, 1);
	for (uint16_t i = 1; left > 0; i++) {
		uint32_t part = left < DATA ? left : DATA;

		left -= part;
		set_desc(victim, i, (uintptr_t)victim->buffers->data, part, left > 0 ? NEXT : 0,
			i + 1);
	}
	if (submit(victim, 0) != 0)
		fail_row("something is written to what is sent");
}

/* To where nobody reads, all that the host has room for. */
static void fill(uint32_t port)
{
	struct vsock_header header = make_header(OP_RW, port, UNREAD);
	uint32_t sent = 0, credit;

	do {
		const struct vsock_header *update;

		send_op(OP_CREDIT_REQUEST, port, UNREAD);
		do {
			update = receive();
		} while (update->dst_port != port);
		if (update->op != OP_CREDIT_UPDATE)
			fail_row("an answer of kind %u", (uint64_t)update->op);
		credit = update->buf_alloc - (sent - update->fwd_cnt);
		header.len = credit < PARTS * DATA ? credit : PARTS * DATA;
		if (header.len > 0)
			send_parts(&header);
		sent += header.len;
	} while (credit > 0);
}

static void run_connects(void)
{
	static uint32_t ports[CONNECTIONS_MAX];
	unsigned accepted = 0;

	begin_vsock();
	row = "to nobody";
	for (unsigned i = 0; i < MANY; i += every()) {
		send_op(OP_REQUEST, next_port, NOBODY);
		expect(OP_RST, next_port++);
	}
	talk();
	row = "to somebody";
	for (unsigned i = 0; i < 2 * CONNECTIONS_MAX; i++) {
		const struct vsock_header *header;

		send_op(OP_REQUEST, next_port, UNREAD);
		do {
			header = receive();
		} while (header->dst_port != next_port);
		if (header->op == OP_RESPONSE && accepted < CONNECTIONS_MAX)
			ports[accepted++] = next_port;
		else if (header->op != OP_RST)
			fail_row("connection %u has an answer of kind %u", (uint64_t)i,
				(uint64_t)header->op);
		next_port++;
	}
	if (accepted == 0)
		fail_row("none");
	row = "all windows full";
	for (unsigned i = 0; i < accepted; i++)
		fill(ports[i]);
	print("%u full\n", (uint64_t)accepted);
	wait_for_host();
	start_vsock(); /* a new driver has none of them */
	talk();
	rest("end");
}

static void run_resets(void)
{
	begin_vsock();
	row = "of nothing";
	for (unsigned i = 0; i < MANY; i += every())
		send_op(OP_RST, next_port++, ECHO);
	talk();
	row = "of connections";
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		send_op(OP_RST, connect(ECHO), ECHO);
	talk();
	rest("end");
}

/* The host reads nothing and the guest ignores credit: 1 GiB by the same 16 KiB. */
static void run_unread(void)
{
	enum { BYTES = PARTS * DATA - DATA / 2, PACKETS = (1 << 30) / BYTES + 1 };
	enum { BEFORE_END = 64 };

	begin_vsock();
	row = "unread";
	struct vsock_header header = make_header(OP_RW, connect(UNREAD), UNREAD);

	header.len = BYTES;
	for (unsigned i = 0; i < PACKETS / every(); i++) {
		send_parts(&header);
		/* Once it knows of the reset, each packet is one for no connection. */
		if (i >= BEFORE_END)
			expect(OP_RST, header.src_port);
	}
	talk();
	rest("end");
}

/* ---- good, but strange ----------------------------------------------------------------- */

/* The guest has said all it has to say; the host's answer still arrives. */
static void run_half_close(void)
{
	begin_vsock();
	row = "half closed";
	uint32_t port = connect(ECHO);
	struct vsock_header header = make_header(OP_SHUTDOWN, port, ECHO);

	send_text(port, ECHO, 0, "hello"); /* for which there is room later */
	header.flags = SHUTDOWN_SEND;
	header.buf_alloc = 0;
	send_header(&header);
	talk();
	header.op = OP_CREDIT_UPDATE;
	header.buf_alloc = ROOM;
	send_header(&header);
	expect_text(port, "hello", 5);
	expect(OP_SHUTDOWN, port);
	send_op(OP_RST, port, ECHO);
	row = "data after the end";
	header = make_header(OP_SHUTDOWN, connect(UNREAD), UNREAD);
	header.flags = SHUTDOWN_SEND;
	send_header(&header);
	send_text(header.src_port, UNREAD, ROOM, "hello");
	expect(OP_RST, header.src_port);
	talk();
	rest("end");
}

static void run_queues(void)
{
	begin_vsock();
	row = "no queue for events";
	start_queues(victims, EVENT, 0);
	talk();
	row = "a header in 44 pieces";
	start_vsock();
	struct victim *victim = &victims[TRANSMIT];
	uint32_t port = next_port++;
	struct vsock_header header = make_header(OP_REQUEST, port, ECHO);

	memcpy(victim->buffers->data, &header, sizeof(header));
	for (uint16_t i = 0; i < sizeof(header); i++)
		set_desc(victim, i, (uintptr_t)victim->buffers->data + i, 1,
			i + 1u < sizeof(header) ? NEXT : 0, i + 1);
	if (submit(victim, 0) != 0)
		fail_row("something is written to what is sent");
	expect(OP_RESPONSE, port);
	row = "a buffer in 45 pieces";
	send_text(port, ECHO, ROOM, "h");
	victim = &victims[RECEIVE];
	const struct vsock_header *got = (const void *)victim->buffers->data;

	do { /* what it says of credit comes first, or not */
		for (uint16_t i = 0; i <= sizeof(header); i++)
			set_desc(victim, i, (uintptr_t)victim->buffers->data + i, 1,
				WRITE | (i < sizeof(header) ? NEXT : 0), i + 1);
		uint32_t written = submit(victim, 0);

		if (written != sizeof(header) + got->len)
			fail_row("%u bytes are written", (uint64_t)written);
		check_guards(victim);
	} while (got->op == OP_CREDIT_UPDATE);
	if (got->op != OP_RW || got->len != 1 || victim->buffers->data[sizeof(header)] != 'h')
		fail_row("another packet, of kind %u", (uint64_t)got->op);
	row = "room for a header alone";
	send_op(OP_REQUEST, next_port, NOBODY); /* so that there is something to receive */
	set_desc(victim, 0, (uintptr_t)victim->buffers->data, sizeof(header), WRITE, 0);
	offer(victim, 0);
	kick(victim);
	expect_needs_reset(victim);
	start_vsock();
	talk();
	rest("end");
}

const struct test_case cases[] = {
	{ "packets", run_packets },
	{ "connections", run_connections },
	{ "credit", run_credit },
	{ "connects", run_connects },
	{ "resets", run_resets },
	{ "unread", run_unread },
	{ "half-close", run_half_close },
	{ "queues", run_queues },
	{ NULL, NULL },
};
