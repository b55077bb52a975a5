/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Devices whose answers are known. Whatever a case does to one of them,
 * check_victim() resets it, and it must answer a good request as before; the
 * others are asked all the time, without a reset.
 *
 * A good request is a chain of three descriptors at head 0, whatever the kind
 * of device, so that a case can spoil or repeat it without knowing what it is.
 * It may be room for what the device has to say: then it is told to say something.
 */
#pragma once

#include "disk.h"
#include "virtio.h"
#include "vsock.h"

/* ---- good requests ------------------------------------------------------------------ */

struct kind {
	const char *name; /* for victim= */
	uint16_t pci_id;
	uint16_t queue;     /* that the cases break */
	uint16_t companion; /* another one that its answers need; the same: none */
	void (*put)(struct victim *victim);
	/* After it came back, with so many bytes written. May ask for more. */
	void (*check)(struct victim *victim, uint32_t written);
	bool receives; /* what is no room for anything does not come back */
	/* Makes the device want that room, if it can; NULL: nothing is needed. */
	void (*stir)(struct victim *victim);
};

enum { PIECES = 3 };

/* The data in three pieces, one behind the other. */
static inline void put_pieces(struct victim *victim, const uint32_t lengths[PIECES], uint16_t flags)
{
	uintptr_t data = (uintptr_t)victim->buffers->data;

	for (uint16_t i = 0; i < PIECES; i++) {
		set_desc(victim, i, data, lengths[i], flags | (i + 1 < PIECES ? NEXT : 0), i + 1);
		data += lengths[i];
	}
}

/* A sector of a disk. */

enum { GOOD_SECTOR = 7 };

static inline void put_read(struct victim *victim)
{
	memset(victim->buffers->data, GUARD, SECTOR * 2);
	set_header(victim, BLK_IN, GOOD_SECTOR);
	set_request(victim, SECTOR, true);
}

static inline void check_read(struct victim *victim, uint32_t written)
{
	const uint64_t *words = (const void *)victim->buffers->data;

	if (written != SECTOR + 1 || victim->buffers->status != S_OK)
		fail_row("a good read: %u bytes, status %u", (uint64_t)written,
			(uint64_t)victim->buffers->status);
	for (unsigned i = 0; i < SECTOR / 8; i++)
		if (words[i] != image_word(GOOD_SECTOR, i))
			fail_row("word %u of a good read is %x", (uint64_t)i, words[i]);
	if (!is_all(victim->buffers->data + SECTOR, GUARD, SECTOR))
		fail_row("a good read wrote behind its sector");
}

/* Random bytes. */

static inline void put_random(struct victim *victim)
{
	memset(victim->buffers->data, GUARD, 128);
	put_pieces(victim, (const uint32_t[PIECES]){ 16, 32, 16 }, WRITE);
}

static inline void check_random(struct victim *victim, uint32_t written)
{
	const uint8_t *data = victim->buffers->data;

	if (written != 64 || is_all(data, GUARD, 16) || is_all(data + 48, GUARD, 16) ||
		!is_all(data + 64, GUARD, 64))
		fail_row("good random bytes: %u", (uint64_t)written);
}

/* A frame to the network, where tests/kvm/test_hostile_virtio.py looks for it: a broadcast. */

static inline void put_frame(struct victim *victim)
{
	enum { HEADER_BYTES = 12, ADDRESSES_AND_TYPE = 14, TEXT = 34 };
	static const uint8_t frame[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88,
		0xb5, 'G', 'O', 'O', 'D' };
	uint8_t *data = victim->buffers->data;

	memset(data, 0, HEADER_BYTES + ADDRESSES_AND_TYPE + TEXT);
	memcpy(data + HEADER_BYTES, frame, sizeof(frame));
	put_pieces(victim, (const uint32_t[PIECES]){ HEADER_BYTES, ADDRESSES_AND_TYPE, TEXT }, 0);
}

static inline void check_unwritten(struct victim *victim, uint32_t written)
{
	(void)victim;
	if (written != 0)
		fail_row("%u bytes are said to be written", (uint64_t)written);
}

/* Room for a frame, which tests/kvm/test_hostile_virtio.py sends; others' may come before it. */

static inline void put_frame_room(struct victim *victim)
{
	memset(victim->buffers->data, 0, 64);
	put_pieces(victim, (const uint32_t[PIECES]){ 12, 14, 2000 }, WRITE);
}

static inline void check_received(struct victim *victim, uint32_t written)
{
	enum { TEXT = 12 + 14, MARK = 6 };

	while (written >= TEXT && !memory_equal(victim->buffers->data + TEXT, "MARKED", MARK)) {
		put_frame_room(victim);
		written = submit(victim, 0);
	}
	if (written < TEXT + MARK)
		fail_row("a frame of %u bytes", (uint64_t)written);
}

/* A packet that has no answer; then one that has: nobody listens there. */

enum { GOOD_PORT = 1000 };

static inline void put_packet(struct victim *victim, uint16_t op)
{
	const struct vsock_header header = make_header(op, GOOD_PORT, NOBODY);

	memcpy(victim->buffers->data, &header, sizeof(header));
	put_pieces(victim, (const uint32_t[PIECES]){ 16, 16, sizeof(header) - 32 }, 0);
}

static inline void put_reset(struct victim *victim)
{
	put_packet(victim, OP_RST);
}

static inline void put_packet_room(struct victim *victim)
{
	memset(victim->buffers->data, GUARD, 128);
	put_pieces(victim, (const uint32_t[PIECES]){ 16, 16, 32 }, WRITE);
}

static inline void check_refusal(struct victim *victim, uint32_t size)
{
	const struct vsock_header *header = (const void *)victim->buffers->data;

	if (size != sizeof(*header) || header->op != OP_RST || header->src_cid != HOST_CID ||
		header->dst_cid != GUEST_CID || header->src_port != NOBODY ||
		header->dst_port != GOOD_PORT)
		fail_row("%u bytes of kind %u to port %u refuse a connection", (uint64_t)size,
			(uint64_t)header->op, (uint64_t)header->dst_port);
}

static inline void check_reset(struct victim *victim, uint32_t written)
{
	struct victim *receive = victim->companion;

	check_unwritten(victim, written);
	put_packet_room(receive);
	offer(receive, 0);
	kick(receive);
	put_packet(victim, OP_REQUEST);
	check_unwritten(victim, submit(victim, 0));
	if (!wait_used(receive, 1))
		fail_row("a connection to nobody is not refused");
	check_refusal(receive, take_used(receive, 0));
}

/* Unless it still has the last one: a device that is broken takes no more. */
static inline void connect_to_nobody(struct victim *victim)
{
	struct victim *transmit = victim->companion;

	if (transmit->rings->used.idx != transmit->rings->avail.idx)
		return;
	put_packet(transmit, OP_REQUEST);
	offer(transmit, 0);
	kick(transmit);
}

/* Pages for the balloon, which come back as zeros, and are kept once they are back. */

enum { PAGE_SIZE = 4096 };

static uint8_t given_pages[PIECES * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

static inline void put_pages(struct victim *victim)
{
	uint32_t pfn = (uint32_t)((uintptr_t)given_pages / PAGE_SIZE);
	const uint32_t pfns[PIECES] = { pfn, pfn + 1, pfn + 2 };

	memset(given_pages, GUARD, sizeof(given_pages));
	memcpy(victim->buffers->data, pfns, sizeof(pfns));
	put_pieces(victim, (const uint32_t[PIECES]){ 4, 4, 4 }, 0);
}

static inline void check_pages(struct victim *victim, uint32_t written)
{
	struct victim *deflate = victim->companion;

	check_unwritten(victim, written);
	if (!is_all(given_pages, 0, sizeof(given_pages)))
		fail_row("pages are not given back");
	memset(given_pages, GUARD, sizeof(given_pages));
	memcpy(deflate->buffers->data, victim->buffers->data, PIECES * sizeof(uint32_t));
	put_pieces(deflate, (const uint32_t[PIECES]){ 4, 4, 4 }, 0);
	check_unwritten(deflate, submit(deflate, 0));
	if (!is_all(given_pages, GUARD, sizeof(given_pages)))
		fail_row("pages that are taken again change");
}

/* Memory of the wayland device's, which is there and empty, and its end. */

enum { NEW_MEMORY = 0x100, CLOSE_VFD = 0x101, MEMORY_IS_NEW = 0x1001, VFD_IS_CLOSED = 0x1000 };
enum { NEW_BYTES = 28, CLOSE_BYTES = 12, ANSWER_BYTES = 32, GOOD_VFD = 2 };

static inline void put_new_memory(struct victim *victim)
{
	const uint32_t command[] = { NEW_MEMORY, 0, GOOD_VFD, 3, 0, 0, PAGE_SIZE };

	memcpy(victim->buffers->data, command, NEW_BYTES);
	memset(victim->buffers->data + NEW_BYTES, GUARD, 2 * ANSWER_BYTES);
	put_pieces(victim, (const uint32_t[PIECES]){ 16, NEW_BYTES - 16, ANSWER_BYTES }, 0);
	victim->rings->desc[PIECES - 1].flags = WRITE;
}

static inline void close_memory(struct victim *victim)
{
	const uint32_t command[] = { CLOSE_VFD, 0, GOOD_VFD };
	uint8_t *data = victim->buffers->data;

	memcpy(data, command, CLOSE_BYTES);
	put_pieces(victim, (const uint32_t[PIECES]){ 8, CLOSE_BYTES - 8, 4 }, 0);
	victim->rings->desc[PIECES - 1].flags = WRITE;
	uint32_t written = submit(victim, 0);
	uint32_t answer = (uint32_t)load(data + CLOSE_BYTES, 4);

	if (written != 4 || answer != VFD_IS_CLOSED)
		fail_row("memory is closed by %u bytes, %x", (uint64_t)written, (uint64_t)answer);
}

static inline void check_new_memory(struct victim *victim, uint32_t written)
{
	const uint8_t *answer = victim->buffers->data + NEW_BYTES;
	uint64_t gpa = load(answer + 16, 8) * PAGE_SIZE;

	if (written != ANSWER_BYTES || load(answer, 4) != MEMORY_IS_NEW)
		fail_row("new memory: %u bytes, %x", (uint64_t)written, load(answer, 4));
	if (!is_all(answer + ANSWER_BYTES, GUARD, ANSWER_BYTES))
		fail_row("an answer goes on behind its end");
	if (!map_high(gpa))
		fail("too few page tables");
	if (read_at(gpa, 8) != 0)
		fail_row("new memory is %x", read_at(gpa, 8));
	write_at(gpa, 8, gpa);
	if (read_at(gpa, 8) != gpa)
		fail_row("new memory keeps nothing");
	close_memory(victim);
}

/* Room for the message that a compositor is gone, as each of the host's is at once. */

enum { NEW_CONNECTION = 0x104, HANGS_UP = 0x106, HANGUP_BYTES = 12, GOOD_CONNECTION = 3 };

static inline void put_message_room(struct victim *victim)
{
	memset(victim->buffers->data, GUARD, 128);
	put_pieces(victim, (const uint32_t[PIECES]){ 4, 4, 56 }, WRITE);
}

/* Whatever the answer, and if the last one still has none, not at all. */
static inline void tell_wl(struct victim *out, uint32_t type)
{
	const uint32_t command[] = { type, 0, GOOD_CONNECTION };

	if (out->rings->used.idx != out->rings->avail.idx)
		return;
	memcpy(out->buffers->data, command, sizeof(command));
	set_desc(out, 0, (uintptr_t)out->buffers->data, sizeof(command), NEXT, 1);
	set_desc(out, 1, (uintptr_t)out->buffers->data + 64, 64, WRITE, 0);
	offer(out, 0);
	kick(out);
	out->used_seen = out->rings->avail.idx - 1;
	(void)wait_used(out, 1);
}

static inline void connect_again(struct victim *victim)
{
	tell_wl(victim->companion, CLOSE_VFD);
	tell_wl(victim->companion, NEW_CONNECTION);
}

static inline void check_hangup(struct victim *victim, uint32_t written)
{
	const uint8_t *data = victim->buffers->data;

	if (written != HANGUP_BYTES || load(data, 4) != HANGS_UP ||
		load(data + 8, 4) != GOOD_CONNECTION)
		fail_row("%u bytes of message %x", (uint64_t)written, load(data, 4));
	if (!is_all(data + HANGUP_BYTES, GUARD, HANGUP_BYTES))
		fail_row("a message goes on behind its end");
	tell_wl(victim->companion, CLOSE_VFD);
}

/* Of those for one device the first is meant, unless victim= names another. */
static const struct kind kinds[] = {
	{ "blk", PCI_BLOCK, 0, 0, put_read, check_read, false, NULL },
	{ "rng", PCI_RNG, 0, 0, put_random, check_random, false, NULL },
	{ "net", PCI_NET, 1, 1, put_frame, check_unwritten, false, NULL },
	{ "net-rx", PCI_NET, 0, 0, put_frame_room, check_received, true, NULL },
	{ "vsock", PCI_VSOCK, 1, 0, put_reset, check_reset, false, NULL },
	{ "vsock-rx", PCI_VSOCK, 0, 1, put_packet_room, check_refusal, true, connect_to_nobody },
	{ "balloon", PCI_BALLOON, 0, 1, put_pages, check_pages, false, NULL },
	{ "wl", PCI_WL, 1, 1, put_new_memory, check_new_memory, false, NULL },
	{ "wl-in", PCI_WL, 0, 1, put_message_room, check_hangup, false, connect_again },
};

static inline const struct kind *kind_of(uint16_t pci_id)
{
	const struct kind *kind = NULL;
	char name[16] = "";

	(void)find_param(params, "victim=", name, sizeof(name));
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].pci_id == pci_id && (kind == NULL || text_equal(kinds[i].name, name)))
			kind = &kinds[i];
	return kind;
}

/* Has the device look at what was offered. */
static inline void announce(struct victim *victim)
{
	kick(victim);
	if (victim->kind->stir != NULL)
		victim->kind->stir(victim);
}

static inline void good_request(struct victim *victim)
{
	victim->kind->put(victim);
	offer(victim, 0);
	announce(victim);
	if (!wait_used(victim, 1))
		fail_row("%s does not answer; status %x", victim->name, get(victim, STATUS, 1));
	victim->kind->check(victim, take_used(victim, 0));
	check_guards(victim);
	if (victim->companion != NULL)
		check_guards(victim->companion);
}

/* ---- finding them ------------------------------------------------------------------- */

enum { COMPANIONS_MAX = 4 };

static inline void add_companion(struct victim *victim, uint16_t queue)
{
	static struct rings rings[COMPANIONS_MAX] __attribute__((aligned(4096)));
	static struct buffers buffers[COMPANIONS_MAX];
	static struct victim companions[COMPANIONS_MAX];
	static unsigned count;
	struct victim *companion = &companions[count];

	if (count == COMPANIONS_MAX)
		fail("too many devices of two queues");
	*companion = *victim;
	companion->rings = &rings[count];
	companion->buffers = &buffers[count];
	choose_queue(companion, queue);
	victim->companion = companion;
	count++;
}

static inline void add_victims(uint16_t pci_id)
{
	const struct kind *kind = kind_of(pci_id);
	unsigned first = victim_count;

	add_devices(pci_id);
	for (unsigned i = first; i < victim_count; i++) {
		victims[i].kind = kind;
		victims[i].name = kind->name;
		if (kind->companion != kind->queue)
			add_companion(&victims[i], kind->companion);
		choose_queue(&victims[i], kind->queue);
	}
}

static inline void find_victims(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kind_of(kinds[i].pci_id) == &kinds[i])
			add_victims(kinds[i].pci_id);
	if (victim_count < 2)
		fail("%u devices, which are too few", (uint64_t)victim_count);
}

/* The device that the parameter victim= names; the last of its kind. */
static inline struct victim *chosen(void)
{
	struct victim *victim = NULL;
	char name[16];

	if (!find_param(params, "victim=", name, sizeof(name)))
		fail("no victim= on the command line");
	for (unsigned i = 0; i < victim_count; i++)
		if (text_equal(victims[i].name, name))
			victim = &victims[i];
	if (victim == NULL)
		fail("there is no %s", name);
	return victim;
}

/* ---- the oracle --------------------------------------------------------------------- */

/* All but one go on as if nothing were. */
static inline void check_others(const struct victim *victim)
{
	for (unsigned i = 0; i < victim_count; i++) {
		if (&victims[i] == victim)
			continue;
		good_request(&victims[i]);
		if (get(&victims[i], STATUS, 1) != RUNNING)
			fail_row("the status of %s is %x", victims[i].name,
				get(&victims[i], STATUS, 1));
	}
}

/* After whatever was done to it: nothing beside its buffers changed, and a reset makes it good. */
static inline void check_victim(struct victim *victim)
{
	check_guards(victim);
	check_others(victim);
	start_victim(victim, 0);
	good_request(victim);
}

/* Finds and starts all; at rest once, since a first start makes what later ones keep. */
static inline void begin(void)
{
	find_victims();
	for (unsigned i = 0; i < victim_count; i++) {
		start_victim(&victims[i], 0);
		good_request(&victims[i]);
	}
	rest("begin");
	for (unsigned i = 0; i < victim_count; i++)
		start_victim(&victims[i], 0);
}

static inline void end(void)
{
	row = "end";
	for (unsigned i = 0; i < victim_count; i++)
		check_victim(&victims[i]);
	rest("end");
}
