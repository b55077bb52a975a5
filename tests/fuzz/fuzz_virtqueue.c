// SPDX-License-Identifier: BSD-3-Clause
/*
 * A program of a driver and a device against virtqueue.c: the driver writes
 * descriptors, rings and anything else, the device pops, pushes, publishes and
 * starts anew. Besides what the sanitizers find it checks all that a device
 * trusts: buffers lie in guest memory and their sums are right, no head is
 * popped twice, an error changes nothing, and the used ring says what was
 * pushed.
 */
#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/virtqueue.h"

/* Side by side in the mapping, so that going from one into the other is no fault. */
#define LOW_SIZE  UINT64_C(8192)
#define HIGH_GPA  UINT64_C(0x100000)
#define HIGH_SIZE UINT64_C(8192)

enum { DESC = 0x0000, AVAIL = 0x0800, USED = 0x0c00, TABLE = 0x1000, DATA = 0x1800 };

enum op {
	OP_DESCRIPTOR, /* index, gpa, length, flags, next */
	OP_ENTRY,      /* the same in the indirect table */
	OP_OFFER,      /* head */
	OP_POP,
	OP_PUSH, /* which, length */
	OP_PUBLISH,
	OP_ENABLE_KICKS,
	OP_DISABLE_KICKS,
	OP_AVAIL_IDX,   /* 16 bits */
	OP_USED_EVENT,  /* 16 bits */
	OP_AVAIL_FLAGS, /* 8 bits */
	OP_WRITE,       /* 16 bits of where, 8 bits */
	OP_INIT,        /* size, features, base, places */
	OPS,
};

struct input {
	const uint8_t *data;
	size_t size;
};

struct session {
	struct virtqueue vq;
	bool up;
	uint16_t pushed; /* the next used idx, as the driver counts */
	unsigned flying;
	uint16_t heads[VIRTQUEUE_SIZE_MAX]; /* popped and not pushed */
};

static struct guest_memory *memory;
static uint8_t *ram;

static void require(bool holds)
{
	if (!holds)
		abort();
}

static uint8_t take(struct input *input)
{
	if (input->size == 0)
		return 0;
	input->size--;
	return *input->data++;
}

static uint16_t take16(struct input *input)
{
	uint8_t low = take(input);

	return (uint16_t)(low | take(input) << 8);
}

/* Addresses where things may go wrong, and 32 offsets from each. */
static uint64_t take_gpa(struct input *input)
{
	static const uint64_t bases[8] = { DATA, TABLE, LOW_SIZE - 16, LOW_SIZE, HIGH_GPA - 16,
		HIGH_GPA, HIGH_GPA + HIGH_SIZE - 16, UINT64_MAX - 15 };
	uint8_t byte = take(input);

	return bases[byte / 32] + byte % 32;
}

static uint32_t take_length(struct input *input)
{
	static const uint32_t lengths[8] = { 0, 16, 4096, LOW_SIZE, HIGH_GPA, 0x80000000,
		0xfffffff0, 0xffffffff };
	uint8_t byte = take(input);

	return byte < 128 ? byte : lengths[byte % 8];
}

static void put_descriptor(uint64_t at, struct input *input)
{
	struct vring_desc desc;
	uint64_t index = take(input) % 64;

	desc.addr = take_gpa(input);
	desc.len = take_length(input);
	desc.flags = take(input) % 8;
	desc.next = take(input);
	memcpy(ram + at + index * 16, &desc, sizeof(desc));
}

static void put16(uint64_t at, uint16_t value)
{
	memcpy(ram + at, &value, sizeof(value));
}

static uint16_t get16(uint64_t at)
{
	uint16_t value;

	memcpy(&value, ram + at, sizeof(value));
	return value;
}

static void init(struct session *session, struct input *input)
{
	uint8_t byte = take(input), places = take(input);
	uint16_t base = take16(input);
	const struct virtqueue_config config = {
		.size = byte % 16 < 7 ? (uint16_t)(1 << byte % 16) : (uint16_t)(byte % 16 * 256),
		.event_idx = byte & 0x10,
		.indirect = byte & 0x20,
		.desc = places & 1 ? take_gpa(input) : DESC,
		.avail = places & 2 ? take_gpa(input) : AVAIL,
		.used = places & 4 ? take_gpa(input) : USED,
	};
	struct virtqueue before = session->vq;
	int r = virtqueue_init(&session->vq, memory, &config, base);

	if (r < 0) {
		require(r == -EINVAL);
		require(memcmp(&before, &session->vq, sizeof(before)) == 0);
		return;
	}
	require((config.size & (config.size - 1)) == 0 && config.size != 0);
	require(config.desc % 16 == 0 && config.avail % 2 == 0 && config.used % 4 == 0);
	session->up = true;
	session->pushed = base;
	session->flying = 0;
}

static bool lies_in(const struct iovec *buffer, uint64_t start, uint64_t size)
{
	uint64_t offset = (uint64_t)((uint8_t *)buffer->iov_base - (ram + start));

	return offset < size && buffer->iov_len <= size - offset;
}

static void check_chain(const struct virtqueue *vq, const struct virtqueue_chain *chain)
{
	unsigned count = chain->readable + chain->writable;
	uint64_t sums[2] = { 0, 0 };

	require(count <= vq->size && count <= chain->iov_max && chain->head < vq->size);
	for (unsigned i = 0; i < count; i++) {
		const struct iovec *buffer = &chain->iov[i];

		require(buffer->iov_len != 0);
		require(lies_in(buffer, 0, LOW_SIZE) || lies_in(buffer, LOW_SIZE, HIGH_SIZE));
		sums[i >= chain->readable] += buffer->iov_len;
	}
	require(sums[0] == chain->readable_bytes && sums[1] == chain->writable_bytes);
	require(sums[0] + sums[1] <= UINT32_MAX);
}

/* The next chain as the specification has it, told by how many bytes of each kind it has. */
struct expected {
	bool good;
	bool indirect;
	unsigned steps;
	uint64_t bytes[2]; /* readable, writable */
};

static bool add_expected(struct expected *expected, const struct vring_desc *desc)
{
	bool writable = (desc->flags & VRING_DESC_F_WRITE) != 0;

	if (!writable && expected->bytes[1] != 0)
		return false;
	expected->bytes[writable] += desc->len;
	return desc->len == 0 || guest_memory_at(memory, desc->addr, desc->len) != NULL;
}

/* Where a chain goes on. */
struct place {
	const uint8_t *table;
	uint32_t entries;
	uint32_t index;
};

/* Into the table of an indirect descriptor, which ends the chain outside of it. */
static bool enter(struct expected *expected, const struct virtqueue *vq,
	const struct vring_desc *desc, struct place *place)
{
	bool allowed = vq->indirect && !expected->indirect;

	expected->indirect = true;
	place->table = guest_memory_at(memory, desc->addr, desc->len);
	place->entries = desc->len / 16;
	place->index = 0;
	return allowed && place->table != NULL && desc->len % 16 == 0 &&
	       (desc->flags & VRING_DESC_F_NEXT) == 0;
}

static bool follow(struct expected *expected, const struct virtqueue *vq, uint16_t head)
{
	struct place place = { vq->desc, vq->size, head };
	struct vring_desc desc;

	for (;;) {
		if (place.index >= place.entries || expected->steps == vq->size)
			return false;
		memcpy(&desc, place.table + (size_t)place.index * 16, sizeof(desc));
		if ((desc.flags & VRING_DESC_F_INDIRECT) != 0) {
			if (!enter(expected, vq, &desc, &place))
				return false;
			continue;
		}
		expected->steps++;
		if (!add_expected(expected, &desc))
			return false;
		if ((desc.flags & VRING_DESC_F_NEXT) == 0)
			return true;
		place.index = desc.next;
	}
}

static struct expected expect(const struct virtqueue *vq)
{
	struct expected expected = { 0 };
	uint16_t idx, head;

	memcpy(&idx, vq->avail + 2, sizeof(idx));
	memcpy(&head, vq->avail + 4 + vq->next_avail % vq->size * (size_t)2, sizeof(head));
	expected.good = !vq->broken && (uint16_t)(idx - vq->next_avail) <= vq->size &&
			follow(&expected, vq, head);
	return expected;
}

static void pop(struct session *session)
{
	const struct expected expected = expect(&session->vq);
	struct iovec iov[64];
	struct virtqueue_chain chain = { .iov = iov, .iov_max = 64 };
	struct virtqueue before = session->vq;
	int r = virtqueue_pop(&session->vq, &chain);

	if (r != 1) {
		require(r == 0 || r == -EBADMSG);
		require(!before.broken || r < 0);
		before.broken = r < 0;
		require(memcmp(&before, &session->vq, sizeof(before)) == 0);
		return;
	}
	check_chain(&session->vq, &chain);
	require(expected.good && expected.bytes[0] == chain.readable_bytes &&
		expected.bytes[1] == chain.writable_bytes);
	for (unsigned i = 0; i < session->flying; i++)
		require(session->heads[i] != chain.head);
	require(session->flying < session->vq.size);
	session->heads[session->flying++] = chain.head;
	/* What a device does with it: here the sanitizer looks. */
	for (unsigned i = 0; i < chain.writable; i++)
		memset(iov[chain.readable + i].iov_base, 0x5a, 1);
}

static void push(struct session *session, struct input *input)
{
	unsigned which = take(input);
	uint32_t written = take(input);

	if (session->flying == 0)
		return;
	which %= session->flying;
	uint16_t head = session->heads[which];
	const uint8_t *entry = session->vq.used + 4 + (session->pushed % session->vq.size) * 8;
	uint32_t said[2];

	session->heads[which] = session->heads[--session->flying];
	virtqueue_push(&session->vq, head, written);
	session->pushed++;
	memcpy(said, entry, sizeof(said));
	require(said[0] == head && said[1] == written);
}

static void publish(struct session *session)
{
	bool new = session->vq.published_used != session->pushed;
	bool told = virtqueue_publish(&session->vq);
	uint16_t idx;

	require(!told || new);
	memcpy(&idx, session->vq.used + 2, sizeof(idx));
	require(!new || idx == session->pushed);
	require(!virtqueue_publish(&session->vq));
}

static void run_device(struct session *session, struct input *input, enum op op)
{
	if (op == OP_POP)
		pop(session);
	if (op == OP_PUSH)
		push(session, input);
	if (op == OP_PUBLISH)
		publish(session);
	if (op == OP_ENABLE_KICKS)
		(void)!virtqueue_enable_kicks(&session->vq);
	if (op == OP_DISABLE_KICKS)
		virtqueue_disable_kicks(&session->vq);
}

static void run(struct session *session, struct input *input)
{
	enum op op = take(input) % OPS;
	uint16_t size = session->vq.size, idx = get16(AVAIL + 2);

	switch (op) {
	case OP_DESCRIPTOR:
		put_descriptor(DESC, input);
		break;
	case OP_ENTRY:
		put_descriptor(TABLE, input);
		break;
	case OP_OFFER:
		put16(AVAIL + 4 + idx % size * 2u, take(input));
		put16(AVAIL + 2, (uint16_t)(idx + 1));
		break;
	case OP_AVAIL_IDX:
		put16(AVAIL + 2, take16(input));
		break;
	case OP_USED_EVENT:
		put16(AVAIL + 4 + size * 2u, take16(input));
		break;
	case OP_AVAIL_FLAGS:
		put16(AVAIL, take(input));
		break;
	case OP_WRITE:
		idx = take16(input);
		ram[idx % (LOW_SIZE + HIGH_SIZE)] = take(input);
		break;
	case OP_INIT:
		init(session, input);
		break;
	default:
		run_device(session, input, op);
		break;
	}
}

static void make_memory(void)
{
	const struct guest_memory_range ranges[] = {
		{ 0, LOW_SIZE },
		{ HIGH_GPA, HIGH_SIZE },
	};

	require(guest_memory_create(ranges, ARRAY_SIZE(ranges), 0, &memory) == 0);
	ram = guest_memory_at(memory, 0, LOW_SIZE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct session session;
	struct input input = { data, size };

	if (memory == NULL)
		make_memory();
	memset(ram, 0, DATA);
	memset(&session.vq, 0, sizeof(session.vq));
	session.up = false;
	init(&session, &input);
	while (session.up && input.size > 0)
		run(&session, &input);
	return 0;
}
