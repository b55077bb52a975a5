// SPDX-License-Identifier: BSD-3-Clause
/*
 * From the network to the guest: buffers that the driver offers are dealt to
 * frames before these are there, so that they arrive where they belong. Rings
 * and buffer sizes are the guest's; what comes is the network's.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "virtio/net_queue.h"

enum {
	PLAIN_MTU = 1500,
	BATCH = 64,     /* frames that the driver hears of at once, if there are more */
	SPARSE_MS = 10, /* how long we wait for a driver that offers little to offer more */
	SPARE = 2,      /* frames that a batch has room for beyond those of the last */
	/* Small frames in a row after which each is dealt room for a small one only. */
	SMALL_RUN = 128,
	SMALL = NET_HEADER_SIZE + NET_ETHERNET_HEADER + NET_VLAN_TAG + PLAIN_MTU,
};

struct chain {
	uint16_t head;
	uint16_t position; /* in the available ring */
	uint16_t iov_count;
	bool given; /* it was filled and is the driver's */
	uint32_t bytes;
};

#define ENDS_SIZE (NET_CABLE_IN_MAX * (size_t)NET_FRAME_MAX)

/* The chains that a frame may fill. */
struct deal {
	unsigned first;
	unsigned count;
	uint64_t bytes;
	uint64_t frame_max; /* with its end, if that is kept */
};

struct receiver {
	struct net_side side; /* first */
	bool mergeable;
	uint32_t wanted; /* room for the largest frame that should come */
	unsigned depth;  /* frames to ask for at once */
	/*
	 * Where large frames may come and small ones do, most of the room for a large
	 * one would be dealt in vain. What is larger than expected has its end here, in a
	 * place for each frame of the batch, and is copied: once in a run.
	 */
	unsigned small_run;
	uint8_t *ends; /* NET_FRAME_MAX bytes for each, touched when used; NULL: all may be large */
	unsigned unpublished;
	/*
	 * The room with which nobody waits for the driver to offer more: `wanted`, or if it
	 * offered no more in time, as one whose whole ring is less, what there was then.
	 */
	uint64_t enough;
	uint64_t patience_ns; /* when the time is over; 0: it has not begun */
	/* Held, in the order in which they were offered. */
	uint64_t capacity;
	unsigned count;
	unsigned iov_count;
	struct chain chains[NET_QUEUE_SIZE];
	struct iovec iov[2 * NET_QUEUE_SIZE]; /* of all chains, one after the other */
	/* The batch. */
	struct net_frame frames[NET_CABLE_IN_MAX];
	struct deal deals[NET_CABLE_IN_MAX];
	/* The frames' buffers, and behind each a byte of ours that only a frame without room
	 * reaches. */
	struct iovec vectors[2 * NET_QUEUE_SIZE + NET_CABLE_IN_MAX];
	uint8_t overflow;
	/* Those that no frame was dealt, the first of them and its buffers. */
	unsigned spare;
	const struct iovec *spare_iov;
	int failure; /* -errno of the ring, found while a frame was given; or 0 */
};

static uint32_t largest_frame(const struct device *device)
{
	static const unsigned large[] = { VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
		VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6 };
	uint32_t mtu = device->options.mtu != 0 ? device->options.mtu : PLAIN_MTU;

	for (size_t i = 0; i < ARRAY_SIZE(large); i++)
		if (net_has(device, large[i]))
			return NET_FRAME_MAX;
	return NET_HEADER_SIZE + NET_ETHERNET_HEADER + NET_VLAN_TAG + mtu;
}

static struct receiver *from_side(struct net_side *side)
{
	return (struct receiver *)side;
}

static void publish(struct receiver *receiver)
{
	struct device_queue *queue = receiver->side.queue;

	receiver->unpublished = 0;
	if (virtqueue_publish(&queue->vq))
		(void)eventfd_write(queue->call_fd, 1);
}

/* ---- buffers ---- */

/* Takes one chain of buffers to write to. As virtqueue_pop(). */
static int hold_chain(struct receiver *receiver)
{
	struct device_queue *queue = receiver->side.queue;
	struct virtqueue_chain chain = {
		.iov = receiver->iov + receiver->iov_count,
		.iov_max = queue->size,
	};
	int r = virtqueue_pop(&queue->vq, &chain);

	if (r <= 0)
		return r;
	/* The header must fit in the first; to read from there is nothing for us. */
	if (chain.writable_bytes < NET_HEADER_SIZE || chain.readable != 0)
		return -EBADMSG;
	receiver->chains[receiver->count++] = (struct chain){
		.head = chain.head,
		.position = net_last_position(&queue->vq),
		.iov_count = (uint16_t)chain.writable,
		.bytes = chain.writable_bytes,
	};
	receiver->iov_count += chain.writable;
	receiver->capacity += chain.writable_bytes;
	return 1;
}

/* For one more chain. */
static bool has_place(const struct receiver *receiver)
{
	return receiver->count < NET_QUEUE_SIZE &&
	       receiver->iov_count + receiver->side.queue->size <= ARRAY_SIZE(receiver->iov);
}

/* How much of the room a frame is dealt. */
static uint32_t dealt_room(const struct receiver *receiver)
{
	return receiver->ends != NULL ? SMALL : receiver->wanted;
}

/* Whether there is not yet room for so many frames, the last of which may be large. Without
 * mergeable buffers one gets a chain, whatever that holds. */
static bool wants_chains(const struct receiver *receiver, unsigned frames)
{
	uint64_t room = receiver->wanted + (frames - 1) * (uint64_t)dealt_room(receiver);
	bool full = receiver->mergeable ? receiver->capacity >= room : receiver->count >= frames;

	return !full && has_place(receiver);
}

/* Whether a driver that offers some room, but not enough, may offer more soon. */
static bool is_awaited(struct receiver *receiver)
{
	uint64_t now = clock_monotonic_ns();

	if (receiver->patience_ns == 0)
		receiver->patience_ns = now + SPARSE_MS * NS_PER_MS;
	if (receiver->capacity < receiver->enough && now < receiver->patience_ns)
		return true;
	receiver->enough = min_u64(receiver->enough, receiver->capacity);
	receiver->patience_ns = 0;
	return false;
}

/* Holds enough chains for a frame, and as many for others as are there and of use. 1; 0: the
 * driver offers too little, or -errno. */
static int hold_chains(struct receiver *receiver)
{
	int r = 1;

	while (r == 1 && wants_chains(receiver, 1))
		r = hold_chain(receiver);
	if (r <= 0)
		return r < 0 ? r : receiver->count > 0 && !is_awaited(receiver);
	receiver->enough = receiver->wanted;
	receiver->patience_ns = 0;
	while (r == 1 && wants_chains(receiver, receiver->depth))
		r = hold_chain(receiver);
	return r < 0 ? r : 1;
}

/* What a frame's buffers end with. A tap cuts what does not fit and does not tell. */
static struct iovec end_of_buffers(struct receiver *receiver, struct deal *deal)
{
	deal->frame_max = max_u64(deal->bytes, receiver->ends != NULL ? receiver->wanted : 0);
	if (deal->frame_max == deal->bytes)
		return (struct iovec){ &receiver->overflow, 1 };
	return (struct iovec){
		receiver->ends + receiver->side.batch.count * (size_t)NET_FRAME_MAX,
		deal->frame_max - deal->bytes + 1,
	};
}

/* Deals the chains that are held to frames; the first gets some in any case, and each of the
 * others only if it might be a large one. */
static void deal_chains(struct receiver *receiver)
{
	const uint32_t room = receiver->mergeable ? dealt_room(receiver) : 0;
	struct net_batch *batch = &receiver->side.batch;
	const struct iovec *iov = receiver->iov;
	struct iovec *vector = receiver->vectors;
	uint64_t left = receiver->capacity;
	unsigned chain = 0;

	while (chain < receiver->count && batch->count < receiver->depth) {
		struct net_frame frame = { .iov = vector };
		struct deal chains = { .first = chain };

		if (receiver->mergeable && left < receiver->wanted && chain > 0)
			break;
		do {
			unsigned count = receiver->chains[chain].iov_count;

			memcpy(vector, iov, count * sizeof(*iov));
			vector += count;
			iov += count;
			chains.bytes += receiver->chains[chain++].bytes;
		} while (chains.bytes < room && chain < receiver->count);
		left -= chains.bytes;
		chains.count = chain - chains.first;
		*vector++ = end_of_buffers(receiver, &chains);
		frame.iov_count = (unsigned)(vector - frame.iov);
		receiver->deals[batch->count] = chains;
		receiver->frames[batch->count++] = frame;
	}
	receiver->spare = chain;
	receiver->spare_iov = iov;
}

/* Forgets the chains that were given away; the others stay in their order. */
static void compact(struct receiver *receiver)
{
	const struct iovec *from = receiver->iov;
	struct iovec *to = receiver->iov;
	unsigned kept = 0;

	for (unsigned i = 0; i < receiver->count; i++) {
		struct chain chain = receiver->chains[i];

		if (!chain.given) {
			memmove(to, from, chain.iov_count * sizeof(*to));
			to += chain.iov_count;
			receiver->chains[kept++] = chain;
		}
		from += chain.iov_count;
	}
	receiver->count = kept;
	receiver->iov_count = (unsigned)(to - receiver->iov);
}

static void give(struct receiver *receiver, struct chain *chain, uint32_t written)
{
	virtqueue_push(&receiver->side.queue->vq, chain->head, written);
	receiver->capacity -= chain->bytes;
	chain->given = true;
}

/* ---- frames ---- */

/* Whether the driver knows what this frame's header means. */
static bool accepts_frame(const struct receiver *receiver, const struct net_frame *frame)
{
	struct virtio_net_hdr header;

	net_load(frame->iov, 0, &header, sizeof(header));
	uint8_t flags = header.flags;

	if (!net_header_fits_guest(receiver->side.queue->device->features, &header))
		return false;
	if (header.flags != flags)
		net_store(frame->iov, offsetof(struct virtio_net_hdr, flags), &header.flags,
			sizeof(header.flags));
	return true;
}

/* Gives chains away that hold so many bytes. How many. */
static uint16_t give_filled(struct receiver *receiver, unsigned first, uint64_t left)
{
	uint16_t used = 0;

	for (; left > 0; used++) {
		struct chain *chain = &receiver->chains[first + used];
		uint32_t bytes = (uint32_t)min_u64(left, chain->bytes);

		give(receiver, chain, bytes);
		left -= bytes;
	}
	return used;
}

/* For an end: those at hold have room for one, and several frames of a batch may have one. */
static bool hold_another(struct receiver *receiver)
{
	int r = has_place(receiver) ? hold_chain(receiver) : 0;

	if (r < 0)
		receiver->failure = r;
	return r == 1;
}

/* Copies a frame's end into chains that no frame was dealt. False: there are too few. */
static bool store_end(struct receiver *receiver, unsigned index, uint64_t size)
{
	uint64_t room = 0;

	for (unsigned i = receiver->spare; room < size; i++) {
		if (i == receiver->count && !hold_another(receiver))
			return false;
		room += receiver->chains[i].bytes;
	}
	net_store(receiver->spare_iov, 0, receiver->ends + index * (size_t)NET_FRAME_MAX, size);
	return true;
}

static uint16_t give_end(struct receiver *receiver, uint64_t size)
{
	uint16_t used = give_filled(receiver, receiver->spare, size);

	for (unsigned i = 0; i < used; i++)
		receiver->spare_iov += receiver->chains[receiver->spare++].iov_count;
	return used;
}

/* False: it does not fit and is lost. */
static bool deliver(struct receiver *receiver, unsigned index)
{
	const struct net_frame *frame = &receiver->frames[index];
	const struct deal *deal = &receiver->deals[index];
	uint64_t size = (uint64_t)frame->result;
	uint64_t end = size - min_u64(size, deal->bytes);

	receiver->small_run = size > SMALL ? 0 : receiver->small_run + 1;
	if (end > 0 && !store_end(receiver, index, end))
		return false;
	uint16_t used = give_filled(receiver, deal->first, size - end);

	used = (uint16_t)(used + give_end(receiver, end));
	/* Before publish, so that the driver sees it with the frame. */
	net_store(frame->iov, offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers), &used,
		sizeof(used));
	receiver->unpublished++;
	receiver->side.work += (unsigned)(size / NET_WORK_BYTES);
	return true;
}

/* What became of a frame: 0, or -errno when the next one cannot be had at once. */
static int take_frame(struct receiver *receiver, unsigned index)
{
	const struct net_frame *frame = &receiver->frames[index];

	if (frame->result < 0 && frame->result != -EMSGSIZE)
		return (int)frame->result;
	bool fits =
		frame->result >= 0 && (uint64_t)frame->result <= receiver->deals[index].frame_max;

	if (fits && frame->result >= NET_FRAME_MIN && accepts_frame(receiver, frame))
		fits = deliver(receiver, index);
	/* The next one may have more room, if there is time. */
	if (!fits)
		receiver->enough = receiver->wanted;
	return 0;
}

/* ---- a turn ---- */

static void forget_ends(struct receiver *receiver)
{
	if (receiver->ends != NULL)
		(void)munmap(receiver->ends, ENDS_SIZE);
	receiver->ends = NULL;
}

/* From what came lately: what is expected to come. Without memory all may be large. */
static void expect(struct receiver *receiver)
{
	bool is_small = receiver->small_run >= SMALL_RUN;

	if (is_small == (receiver->ends != NULL) || receiver->wanted <= SMALL ||
		!receiver->mergeable)
		return;
	forget_ends(receiver);
	if (!is_small)
		return;
	void *ends = mmap(NULL, ENDS_SIZE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (ends != MAP_FAILED)
		receiver->ends = ends;
	else
		receiver->small_run = 0;
}

static int collect(struct net_side *side)
{
	struct receiver *receiver = from_side(side);

	expect(receiver);
	int r = receiver->failure < 0 ? receiver->failure : hold_chains(receiver);

	side->work = 0;
	side->batch.frames = receiver->frames;
	side->batch.count = 0;
	if (r == 1)
		deal_chains(receiver);
	return r < 0 ? r : 0;
}

/* The cable has no frame, or none that can be had. */
static void await_network(struct net_side *side, int failure)
{
	if (failure == 0)
		side->events = POLLIN;
	else if (!net_cable_is_gone(side->queue, -failure))
		side->timeout_ms = NET_PAUSE_MS;
}

static void settle(struct net_side *side)
{
	struct receiver *receiver = from_side(side);
	const struct net_batch *batch = &side->batch;
	bool all = batch->done == batch->count;
	int failure = 0;

	for (unsigned i = 0; i < batch->done; i++) {
		int r = take_frame(receiver, batch->order[i]);

		failure = r < 0 ? r : failure;
	}
	/* Also those that are dropped: who sends nothing else shall not hold up a stop. */
	side->work += batch->done;
	compact(receiver);
	side->events = 0;
	side->timeout_ms = -1;
	side->wants_kick = batch->count == 0;
	side->more = batch->count > 0 && all && failure == 0;
	if (side->wants_kick)
		side->timeout_ms = receiver->count > 0 ? SPARSE_MS : -1;
	else if (!side->more)
		await_network(side, failure);
	if (batch->count > 0)
		receiver->depth = (unsigned)min_u64(all               ? 2 * receiver->depth
						    : batch->done > 0 ? batch->done + SPARE
								      : 1,
			NET_CABLE_IN_MAX);
	if (!side->more || receiver->unpublished >= BATCH)
		publish(receiver);
}

/*
 * What is held and was not filled, the driver has still offered; but the ring
 * can be left at one place only, so those that were overtaken go back empty.
 */
static void leave(struct net_side *side)
{
	struct receiver *receiver = from_side(side);
	struct virtqueue *vq = &side->queue->vq;

	while (receiver->count > 0 &&
		receiver->chains[receiver->count - 1].position == net_last_position(vq))
		virtqueue_unpop(vq, receiver->chains[--receiver->count].head);
	for (unsigned i = 0; i < receiver->count; i++)
		give(receiver, &receiver->chains[i], 0);
	publish(receiver);
	forget_ends(receiver);
}

int net_serve_receive(struct device_queue *queue)
{
	static const struct net_side_ops ops = { collect, settle, leave };
	struct receiver receiver = {
		.side = { .ops = &ops, .queue = queue, .timeout_ms = -1 },
		.mergeable = net_has(queue->device, VIRTIO_NET_F_MRG_RXBUF),
		.wanted = largest_frame(queue->device),
		.depth = 1,
		.enough = largest_frame(queue->device),
	};

	return net_pair_serve(&receiver.side);
}
