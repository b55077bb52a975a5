// SPDX-License-Identifier: BSD-3-Clause
/*
 * Proofs of virtio/virtqueue.c, for queues of 1, 2 and 4 entries at any
 * position, with rings and memory of any content that changes at each load.
 *
 *  K4   init takes exactly the sizes and places that the header says
 *  K5   a refused init leaves the queue alone
 *  K6   no access outside of the rings, at any position (CBMC's own checks)
 *  K7   a head or next beyond its table is never fetched (CBMC's own checks)
 *  K8   a head in flight is never popped again
 *  K9   each buffer is not empty and wholly in one region of memory
 *  K10  there are at most iov_max and at most `size` buffers
 *  K11  the sums of lengths are those of the buffers, and below 2^32 together
 *  K12  more chains on offer than entries break the queue
 *  K13  push writes one entry and publish one idx, and nothing else
 *  K14  interrupts come exactly when the driver asks for them
 *  K15  a kick is asked for at the next entry, and what is there is seen
 *  K16  a walk takes at most `size` steps (the unwinding assertion)
 *  K17  no sum is more than what was walked
 *  K18  after an error the queue is as before, only broken
 *  K19  what the device may write comes last, and is what the driver says
 */
#include "model.h"

/* The guest writes whenever we have loaded something, or turn an address into a pointer. */
#define guest_memory_at(memory, gpa, size)      (guest_changes(), (guest_memory_at)(memory, gpa, size))
#define __atomic_load_n(address, order)         (guest_changes(), *(address))
#define __atomic_store_n(address, value, order) (*(address) = (value))
#define __atomic_thread_fence(order)            guest_changes()

enum { SIZE_MAX_PROVED = 4, IOV_MAX_PROVED = 4 };

static uint8_t desc_ring[SIZE_MAX_PROVED * 16];
static uint8_t avail_ring[6 + SIZE_MAX_PROVED * 2];
static uint8_t used_ring[6 + SIZE_MAX_PROVED * 8];
static uint8_t *rings[3]; /* objects of exactly the rings' sizes */
static uint16_t ring_size;
static bool guest_is_still;

static void guest_changes(void);

#include "virtio/virtqueue.c"

#undef guest_memory_at

static void guest_changes(void)
{
	if (guest_is_still)
		return;
	guest_changes_memory();
	__CPROVER_havoc_slice(rings[0], ring_size * 16u);
	__CPROVER_havoc_slice(rings[1], 6 + ring_size * 2u);
}

/* Any queue that virtqueue_init() and what follows can have made. */
static struct virtqueue any_queue(uint16_t size)
{
	struct virtqueue vq;

	rings[0] = desc_ring + sizeof(desc_ring) - size * 16u;
	rings[1] = avail_ring + sizeof(avail_ring) - (6 + size * 2u);
	rings[2] = used_ring + sizeof(used_ring) - (6 + size * 8u);
	ring_size = size;
	vq.memory = &model_memory;
	vq.desc = rings[0];
	vq.avail = rings[1];
	vq.used = rings[2];
	vq.size = size;
	vq.event_idx = nondet_bool();
	vq.indirect = nondet_bool();
	vq.broken = nondet_bool();
	vq.next_avail = nondet_u16();
	vq.next_used = nondet_u16();
	vq.published_used = nondet_u16();
	for (unsigned i = 0; i < VIRTQUEUE_SIZE_MAX / 64; i++)
		vq.in_flight[i] = i == 0 ? nondet_u64() & ((1u << size) - 1) : 0;
	guest_changes();
	return vq;
}

static bool same_queue(const struct virtqueue *a, const struct virtqueue *b)
{
	return a->memory == b->memory && a->desc == b->desc && a->avail == b->avail &&
	       a->used == b->used && a->size == b->size && a->event_idx == b->event_idx &&
	       a->indirect == b->indirect && a->next_avail == b->next_avail &&
	       a->next_used == b->next_used && a->published_used == b->published_used &&
	       a->in_flight[0] == b->in_flight[0];
}

/* Large enough for rings of more entries than there may be. */
static uint8_t large_region[40960];
static const struct guest_memory large_memory = {
	.fd = -1,
	.count = 1,
	.regions = { { .gpa = LOW_GPA, .size = sizeof(large_region), .hva = large_region } },
};

static bool in_large_region(const uint8_t *base, uint64_t size)
{
	return __CPROVER_same_object(base, large_region) && size <= sizeof(large_region) &&
	       (uint64_t)(base - large_region) <= sizeof(large_region) - size;
}

/* K4, K5. */
void prove_init(void)
{
	struct virtqueue vq = any_queue(4), before = vq;
	struct virtqueue_config config = {
		.size = nondet_u16(),
		.desc = nondet_u64(),
		.avail = nondet_u64(),
		.used = nondet_u64(),
		.event_idx = nondet_bool(),
		.indirect = nondet_bool(),
	};
	uint64_t size = config.size;
	uint16_t base = nondet_u16();
	int r = virtqueue_init(&vq, &large_memory, &config, base);
	bool size_good = size != 0 && size <= 1024 && (size & (size - 1)) == 0;
	bool places_good = config.desc % 16 == 0 && config.avail % 2 == 0 && config.used % 4 == 0 &&
			   (guest_memory_at)(&large_memory, config.desc, size * 16) != NULL &&
			   (guest_memory_at)(&large_memory, config.avail, 6 + size * 2) != NULL &&
			   (guest_memory_at)(&large_memory, config.used, 6 + size * 8) != NULL;

	PROVE("K4 exactly the good ones", (r == 0) == (size_good && places_good));
	if (r != 0) {
		PROVE("K5 its error", r == -EINVAL);
		PROVE("K5 left alone", same_queue(&vq, &before) && vq.broken == before.broken);
		return;
	}
	PROVE("K4 desc in memory", in_large_region(vq.desc, size * 16));
	PROVE("K4 avail in memory", in_large_region(vq.avail, 6 + size * 2));
	PROVE("K4 used in memory", in_large_region(vq.used, 6 + size * 8));
	PROVE("K4 fresh", !vq.broken && vq.in_flight[0] == 0 && vq.next_avail == base &&
				  vq.next_used == base && vq.published_used == base);
}

static void prove_chain(const struct virtqueue *vq, const struct virtqueue_chain *chain)
{
	uint64_t readable = 0, writable = 0;
	unsigned count = chain->readable + chain->writable;

	PROVE("K10 bounded by iov_max", count <= chain->iov_max);
	PROVE("K10 bounded by the queue", count <= vq->size);
	for (unsigned i = 0; i < IOV_MAX_PROVED && i < count; i++) {
		const struct iovec *buffer = &chain->iov[i];

		PROVE("K9 not empty", buffer->iov_len != 0);
		PROVE("K9 in memory", in_model_memory(buffer->iov_base, buffer->iov_len));
		if (i < chain->readable)
			readable += buffer->iov_len;
		else
			writable += buffer->iov_len;
	}
	PROVE("K11 readable bytes", readable == chain->readable_bytes);
	PROVE("K11 writable bytes", writable == chain->writable_bytes);
	PROVE("K17 not more than was walked", readable + writable <= UINT32_MAX);
}

/* K6 to K12, K16 to K18. */
static void prove_pop(uint16_t size)
{
	struct virtqueue vq = any_queue(size), before = vq;
	struct iovec iov[IOV_MAX_PROVED];
	struct virtqueue_chain chain = { .iov = iov, .iov_max = nondet_unsigned() };

	ASSUME(chain.iov_max <= IOV_MAX_PROVED);
	int r = virtqueue_pop(&vq, &chain);

	PROVE("pop gives 1, 0 or an error", r == 1 || r == 0 || r == -EBADMSG);
	if (r != 1) {
		PROVE("K18 as before", same_queue(&vq, &before));
		PROVE("K18 broken by an error only", vq.broken == (r < 0));
		return;
	}
	PROVE("a broken queue gives nothing", !before.broken);
	PROVE("the head is in the table", chain.head < size);
	PROVE("K8 was not in flight", (before.in_flight[0] >> chain.head & 1) == 0);
	PROVE("K8 is now", vq.in_flight[0] == (before.in_flight[0] | UINT64_C(1) << chain.head));
	PROVE("one was taken", vq.next_avail == (uint16_t)(before.next_avail + 1));
	vq.next_avail = before.next_avail;
	vq.in_flight[0] = before.in_flight[0];
	PROVE("nothing else changed", same_queue(&vq, &before) && !vq.broken);
	prove_chain(&vq, &chain);
}

void prove_pop_1(void)
{
	prove_pop(1);
}

void prove_pop_2(void)
{
	prove_pop(2);
}

void prove_pop_4(void)
{
	prove_pop(4);
}

/* K12, with a guest that keeps still so that we see the idx which was seen. */
void prove_available(void)
{
	struct virtqueue vq = any_queue(nondet_bool() ? 4 : 1);
	struct iovec iov[IOV_MAX_PROVED];
	struct virtqueue_chain chain = { .iov = iov, .iov_max = IOV_MAX_PROVED };

	guest_is_still = true;
	uint16_t idx = (uint16_t)(vq.avail[2] | vq.avail[3] << 8);
	uint16_t pending = (uint16_t)(idx - vq.next_avail);
	bool broken = vq.broken;
	int r = virtqueue_pop(&vq, &chain);

	PROVE("K12 too many", pending <= vq.size || r == -EBADMSG);
	PROVE("K12 none", (r == 0) == (pending == 0 && !broken));
}

/* K19, by the first descriptor of a chain in the table, with a guest that keeps still. */
void prove_directions(void)
{
	struct virtqueue vq = any_queue(2);
	struct iovec iov[IOV_MAX_PROVED];
	struct virtqueue_chain chain = { .iov = iov, .iov_max = IOV_MAX_PROVED };

	vq.indirect = false;
	guest_is_still = true;
	if (virtqueue_pop(&vq, &chain) != 1)
		return;
	struct descriptor first = fetch_descriptor(vq.desc, chain.head);
	bool alone = (first.flags & VRING_DESC_F_NEXT) == 0;
	bool writable = (first.flags & VRING_DESC_F_WRITE) != 0;

	PROVE("K19 nothing to read after it", !writable || chain.readable == 0);
	if (first.length != 0)
		PROVE("K19 one to read", writable || chain.readable != 0);
	if (alone)
		PROVE("K19 one alone", chain.writable == (writable && first.length != 0));
}

/* K13, K14. */
void prove_push_and_publish(void)
{
	struct virtqueue vq = any_queue(nondet_bool() ? 4 : 2), before = vq;
	uint8_t *used = vq.used;
	unsigned watched = nondet_unsigned(); /* any byte of the used ring */
	uint16_t head = nondet_u16();
	uint32_t written = nondet_u32();

	ASSUME(watched < 6 + vq.size * 8u && head < vq.size);
	__CPROVER_havoc_object(used_ring);
	uint8_t was = used[watched];
	unsigned slot = 4 + vq.next_used % vq.size * 8;

	virtqueue_push(&vq, head, written);
	PROVE("K13 only the entry",
		(watched >= slot && watched < slot + 8) || used[watched] == was);
	PROVE("K13 its head", used[slot] == (head & 0xff) && used[slot + 1] == 0 &&
				      used[slot + 2] == 0 && used[slot + 3] == 0);
	PROVE("K13 its length", *(uint32_t *)(used + slot + 4) == written);
	PROVE("K13 next", vq.next_used == (uint16_t)(before.next_used + 1));
	PROVE("K8 given back", vq.in_flight[0] == (before.in_flight[0] & ~(UINT64_C(1) << head)));
	was = used[watched];
	(void)virtqueue_publish(&vq);
	bool idx_byte = (watched == 2 || watched == 3) && vq.next_used != before.published_used;

	PROVE("K13 only the idx", idx_byte || used[watched] == was);
}

void prove_interrupts(void)
{
	struct virtqueue vq = any_queue(2), before = vq;

	guest_is_still = true;
	uint16_t flags = (uint16_t)(vq.avail[0] | vq.avail[1] << 8);
	uint16_t event = (uint16_t)(vq.avail[8] | vq.avail[9] << 8);
	uint16_t batch = (uint16_t)(vq.next_used - vq.published_used);
	/* How far the event is behind what the driver saw last: inside of the batch or not. */
	bool wanted =
		vq.event_idx ? (uint16_t)(event - before.published_used) < batch : (flags & 1) == 0;
	bool told = virtqueue_publish(&vq);

	PROVE("K14 exactly when asked", told == (batch != 0 && wanted));
	PROVE("K14 shown", vq.published_used == vq.next_used);
	PROVE("K14 in the ring", batch == 0 || (vq.used[2] | vq.used[3] << 8) == vq.next_used);
}

/* K15. */
void prove_kicks(void)
{
	struct virtqueue vq = any_queue(2), before = vq;

	guest_is_still = true;
	uint16_t idx = (uint16_t)(vq.avail[2] | vq.avail[3] << 8);
	bool more = virtqueue_enable_kicks(&vq);

	PROVE("K15 what is there is seen", more == (!vq.broken && idx != vq.next_avail));
	PROVE("K15 asked for", !vq.event_idx || (vq.used[20] | vq.used[21] << 8) == vq.next_avail);
	PROVE("K15 asked for by the flag", vq.event_idx || (vq.used[0] | vq.used[1]) == 0);
	PROVE("K15 no change", same_queue(&vq, &before) && vq.broken == before.broken);
}
