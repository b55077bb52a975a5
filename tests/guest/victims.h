/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Devices whose answers are known. Whatever a case does to one of them,
 * check_victim() resets it, and it must answer a good request as before; the
 * others are asked all the time, without a reset.
 *
 * A good request is a chain of three descriptors at head 0, whatever the kind
 * of device, so that a case can spoil or repeat it without knowing what it is.
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

static inline void check_refusal(struct victim *victim, uint32_t written)
{
	struct victim *receive = victim->companion;
	const struct vsock_header *header = (const void *)receive->buffers->data;

	check_unwritten(victim, written);
	set_desc(receive, 0, (uintptr_t)header, 2 * sizeof(*header), WRITE, 0);
	offer(receive, 0);
	kick(receive);
	put_packet(victim, OP_REQUEST);
	check_unwritten(victim, submit(victim, 0));
	if (!wait_used(receive, 1))
		fail_row("a connection to nobody is not refused");
	uint32_t size = take_used(receive, 0);

	if (size != sizeof(*header) || header->op != OP_RST || header->src_cid != HOST_CID ||
		header->dst_cid != GUEST_CID || header->src_port != NOBODY ||
		header->dst_port != GOOD_PORT)
		fail_row("%u bytes of kind %u to port %u refuse a connection", (uint64_t)size,
			(uint64_t)header->op, (uint64_t)header->dst_port);
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

static const struct kind kinds[] = {
	{ "blk", PCI_BLOCK, 0, 0, put_read, check_read },
	{ "rng", PCI_RNG, 0, 0, put_random, check_random },
	{ "net", PCI_NET, 1, 1, put_frame, check_unwritten },
	{ "vsock", PCI_VSOCK, 1, 0, put_reset, check_refusal },
	{ "balloon", PCI_BALLOON, 0, 1, put_pages, check_pages },
	{ "wl", PCI_WL, 1, 1, put_new_memory, check_new_memory },
};

static inline const struct kind *find_kind(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		if (text_equal(kinds[i].name, name))
			return &kinds[i];
	fail("there is no kind %s", name);
}

static inline void good_request(struct victim *victim)
{
	victim->kind->put(victim);
	victim->kind->check(victim, submit(victim, 0));
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

static inline void add_victims(const struct kind *kind)
{
	unsigned first = victim_count;

	add_devices(kind->pci_id);
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
		add_victims(&kinds[i]);
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
