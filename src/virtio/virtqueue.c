// SPDX-License-Identifier: BSD-3-Clause
/*
 * The split virtqueue. Everything in the rings and the descriptors is the
 * guest's, and other vCPUs change it while we look: each value is loaded once,
 * by a volatile or atomic load that the compiler may not repeat, and only the
 * copy is checked and used.
 */
#include "virtio/virtqueue.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little-endian");

enum { DESC_SIZE = 16, RING_HEADER = 4, USED_ENTRY_SIZE = 8 };
/* Offsets in both rings. */
enum { RING_FLAGS = 0, RING_IDX = 2 };

/* Indirect tables need no alignment, so loads are by a type that promises none. */
struct unaligned_u64 {
	uint64_t value;
} __attribute__((packed, may_alias));

/* A descriptor, copied. */
struct descriptor {
	uint64_t gpa;
	uint32_t length;
	uint16_t flags;
	uint16_t next;
};

/* Where a walk is, and what it has found: all in registers. */
struct walk {
	const uint8_t *table; /* the queue's own, or an indirect one */
	size_t entries;
	size_t index;
	bool may_enter;     /* an indirect table */
	uint16_t direction; /* 0: buffers to read; VRING_DESC_F_WRITE: now those to write */
	struct iovec *next; /* room for one more buffer, unless it is `end` */
	struct iovec *end;
	uint64_t bytes; /* of all buffers: too many to wrap are not in a walk */
};

static uint16_t load_u16(const uint8_t *at, int order)
{
	const uint16_t *word = (const uint16_t *)(const void *)at;

	return order == __ATOMIC_ACQUIRE ? __atomic_load_n(word, __ATOMIC_ACQUIRE)
					 : __atomic_load_n(word, __ATOMIC_RELAXED);
}

static void store_u16(uint8_t *at, uint16_t value, int order)
{
	uint16_t *word = (uint16_t *)(void *)at;

	if (order == __ATOMIC_RELEASE)
		__atomic_store_n(word, value, __ATOMIC_RELEASE);
	else
		__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static struct descriptor fetch_descriptor(const uint8_t *table, size_t index)
{
	const volatile struct unaligned_u64 *words =
		(const volatile void *)(table + index * DESC_SIZE);
	uint64_t low = words[0].value;
	uint64_t high = words[1].value;

	return (struct descriptor){
		.gpa = low,
		.length = (uint32_t)high,
		.flags = (uint16_t)(high >> 32),
		.next = (uint16_t)(high >> 48),
	};
}

static uint8_t *map_ring(
	const struct guest_memory *memory, uint64_t gpa, uint64_t size, uint64_t alignment)
{
	return gpa % alignment == 0 ? guest_memory_at(memory, gpa, size) : NULL;
}

int virtqueue_init(struct virtqueue *vq, const struct guest_memory *memory,
	const struct virtqueue_config *config, uint16_t base)
{
	uint32_t size = config->size;

	if (size == 0 || size > VIRTQUEUE_SIZE_MAX || (size & (size - 1)) != 0)
		return -EINVAL;
	/* Each ring ends with the event index, whether negotiated or not. */
	uint8_t *desc = map_ring(memory, config->desc, size * DESC_SIZE, 16);
	uint8_t *avail = map_ring(memory, config->avail, RING_HEADER + size * 2 + 2, 2);
	uint8_t *used = map_ring(memory, config->used, RING_HEADER + size * USED_ENTRY_SIZE + 2, 4);

	if (desc == NULL || avail == NULL || used == NULL)
		return -EINVAL;
	*vq = (struct virtqueue){
		.memory = memory,
		.desc = desc,
		.avail = avail,
		.used = used,
		.size = config->size,
		.event_idx = config->event_idx,
		.indirect = config->indirect,
		.next_avail = base,
		.next_used = base,
		.published_used = base,
	};
	return 0;
}

/* In the bitmap's word `head / 64`. */
static uint64_t flight_bit(uint16_t head)
{
	return UINT64_C(1) << (head % 64);
}

/* Enters the table that an indirect descriptor names. */
static inline int enter_indirect(
	const struct guest_memory *memory, struct descriptor desc, struct walk *walk)
{
	if (!walk->may_enter || (desc.flags & VRING_DESC_F_NEXT) != 0)
		return -EBADMSG;
	if (desc.length % DESC_SIZE != 0)
		return -EBADMSG;
	walk->table = guest_memory_at(memory, desc.gpa, desc.length);
	if (walk->table == NULL)
		return -EBADMSG;
	walk->entries = desc.length / DESC_SIZE;
	walk->index = 0;
	walk->may_enter = false;
	return 0;
}

/* The buffers so far are those that the device may read. */
static inline void end_readable(const struct walk *walk, struct virtqueue_chain *chain)
{
	chain->readable = (unsigned)(walk->next - chain->iov);
	chain->readable_bytes = (uint32_t)walk->bytes;
}

/* Adds one buffer to the chain. An empty one is left out, and takes its place from the others. */
static inline int add_buffer(const struct guest_memory *memory, struct descriptor desc,
	struct walk *walk, struct virtqueue_chain *chain)
{
	if (((desc.flags ^ walk->direction) & VRING_DESC_F_WRITE) != 0) {
		if (walk->direction != 0)
			return -EBADMSG;
		walk->direction = VRING_DESC_F_WRITE;
		end_readable(walk, chain);
	}
	void *hva = guest_memory_at(memory, desc.gpa, desc.length);

	if (walk->next == walk->end)
		return -EBADMSG;
	if (hva == NULL) {
		walk->end--;
		return desc.length == 0 ? 0 : -EBADMSG;
	}
	*walk->next++ = (struct iovec){ .iov_base = hva, .iov_len = desc.length };
	walk->bytes += desc.length;
	return 0;
}

/* The rest are those that it may write. All together have less than 2^32 bytes. */
static inline int end_chain(const struct walk *walk, struct virtqueue_chain *chain)
{
	if (walk->bytes > UINT32_MAX)
		return -EBADMSG;
	if (walk->direction == 0)
		end_readable(walk, chain);
	chain->writable = (unsigned)(walk->next - chain->iov) - chain->readable;
	chain->writable_bytes = (uint32_t)walk->bytes - chain->readable_bytes;
	return 0;
}

/* Follows a chain from its head. That each descriptor takes a place is what ends a loop. */
static int walk_chain(const struct virtqueue *vq, uint16_t head, struct virtqueue_chain *chain)
{
	struct walk walk = {
		.table = vq->desc,
		.entries = vq->size,
		.index = head,
		.may_enter = vq->indirect,
		.next = chain->iov,
		.end = chain->iov + min_u64(chain->iov_max, vq->size),
	};

	while (walk.index < walk.entries) {
		struct descriptor desc = fetch_descriptor(walk.table, walk.index);
		int r;

		if ((desc.flags & VRING_DESC_F_INDIRECT) != 0) {
			r = enter_indirect(vq->memory, desc, &walk);
			if (r < 0)
				return r;
			continue;
		}
		r = add_buffer(vq->memory, desc, &walk, chain);
		if (r < 0)
			return r;
		if ((desc.flags & VRING_DESC_F_NEXT) == 0)
			return end_chain(&walk, chain);
		walk.index = desc.next;
	}
	return -EBADMSG;
}

/* How many chains the driver says that it offers: no more than the ring holds, if it is honest. */
static uint16_t offered(const struct virtqueue *vq)
{
	return (uint16_t)(load_u16(vq->avail + RING_IDX, __ATOMIC_ACQUIRE) - vq->next_avail);
}

int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	if (vq->broken)
		return -EBADMSG;
	uint16_t pending = offered(vq);

	if (pending == 0)
		return 0;
	uint32_t slot = vq->next_avail & (vq->size - 1u);
	uint16_t head = load_u16(vq->avail + RING_HEADER + slot * 2, __ATOMIC_RELAXED);
	/* Any head has a bit. That this one is in the table is what a walk looks at first. */
	uint64_t *in_flight = &vq->in_flight[head % VIRTQUEUE_SIZE_MAX / 64];
	uint64_t bit = flight_bit(head);

	if (pending > vq->size || (*in_flight & bit) != 0 || walk_chain(vq, head, chain) < 0) {
		vq->broken = true;
		return -EBADMSG;
	}
	*in_flight |= bit;
	vq->next_avail++;
	chain->head = head;
	return 1;
}

void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t written)
{
	uint32_t slot = vq->next_used & (vq->size - 1u);
	uint32_t *entry = (uint32_t *)(void *)(vq->used + RING_HEADER + slot * USED_ENTRY_SIZE);

	vq->in_flight[head / 64] &= ~flight_bit(head);
	__atomic_store_n(&entry[0], head, __ATOMIC_RELAXED);
	__atomic_store_n(&entry[1], written, __ATOMIC_RELAXED);
	vq->next_used++;
}

void virtqueue_unpop(struct virtqueue *vq, uint16_t head)
{
	vq->in_flight[head / 64] &= ~flight_bit(head);
	vq->next_avail--;
}

bool virtqueue_publish(struct virtqueue *vq)
{
	uint16_t before = vq->published_used;

	if (vq->next_used == before)
		return false;
	store_u16(vq->used + RING_IDX, vq->next_used, __ATOMIC_RELEASE);
	vq->published_used = vq->next_used;
	/* The driver writes its wish, then looks at our idx; we write idx, then look at its wish.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!vq->event_idx)
		return (load_u16(vq->avail + RING_FLAGS, __ATOMIC_RELAXED) &
			       VRING_AVAIL_F_NO_INTERRUPT) == 0;
	uint16_t used_event = load_u16(vq->avail + RING_HEADER + vq->size * 2u, __ATOMIC_RELAXED);

	return vring_need_event(used_event, vq->next_used, before) != 0;
}

bool virtqueue_has_more(const struct virtqueue *vq)
{
	return !vq->broken && offered(vq) != 0;
}

bool virtqueue_enable_kicks(struct virtqueue *vq)
{
	if (vq->event_idx)
		store_u16(vq->used + RING_HEADER + vq->size * (uint32_t)USED_ENTRY_SIZE,
			vq->next_avail, __ATOMIC_RELAXED);
	else
		store_u16(vq->used + RING_FLAGS, 0, __ATOMIC_RELAXED);
	/* The same handshake as in publish, for the other ring. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return virtqueue_has_more(vq);
}

void virtqueue_disable_kicks(struct virtqueue *vq)
{
	/* With event indices, an avail_event that is not moved says the same. */
	if (!vq->event_idx)
		store_u16(vq->used + RING_FLAGS, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}

bool virtqueue_is_settled(const struct virtqueue *vq)
{
	return load_u16(vq->used + RING_IDX, __ATOMIC_ACQUIRE) ==
	       load_u16(vq->avail + RING_IDX, __ATOMIC_ACQUIRE);
}

uint16_t virtqueue_base(const struct virtqueue *vq)
{
	return vq->next_avail;
}
