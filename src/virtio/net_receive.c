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

#include "virtio/net_cable.h"
#include "virtio/net_queue.h"

enum {
	PLAIN_MTU = 1500,
	BATCH = 64,     /* frames between two looks at the stop */
	SPARSE_MS = 10, /* how long we wait for a driver that offers little to offer more */
	SPARE = 2,      /* frames that a batch has room for beyond those of the last */
	GIVEN = UINT32_MAX,
};

struct chain {
	uint16_t head;
	uint16_t position; /* in the available ring */
	uint16_t iov_count;
	uint32_t bytes; /* GIVEN: it was filled and is the driver's */
};

/* The chains that a frame may fill. */
struct deal {
	unsigned first;
	unsigned count;
	uint32_t bytes;
};

struct receiver {
	struct device_queue *queue;
	struct net_cable cable;
	bool mergeable;
	uint32_t wanted; /* room for the largest frame that should come */
	unsigned depth;  /* frames to ask for at once */
	unsigned unpublished;
	/* Held, in the order in which they were offered. */
	uint32_t capacity;
	unsigned count;
	unsigned iov_count;
	struct chain chains[NET_QUEUE_SIZE];
	struct iovec iov[2 * NET_QUEUE_SIZE]; /* of all chains, one after the other */
	/* The batch. */
	unsigned frame_count;
	struct net_frame frames[NET_CABLE_FRAMES_MAX];
	struct deal deals[NET_CABLE_FRAMES_MAX];
	/* The frames' buffers, and behind each a byte of ours that only a frame without room
	 * reaches. */
	struct iovec vectors[2 * NET_QUEUE_SIZE + NET_CABLE_FRAMES_MAX];
	uint8_t overflow;
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

static void publish(struct receiver *receiver)
{
	receiver->unpublished = 0;
	if (virtqueue_publish(&receiver->queue->vq))
		(void)eventfd_write(receiver->queue->call_fd, 1);
}

/* ---- buffers ---- */

/* Takes one chain of buffers to write to. As virtqueue_pop(). */
static int hold_chain(struct receiver *receiver)
{
	struct virtqueue_chain chain = {
		.iov = receiver->iov + receiver->iov_count,
		.iov_max = receiver->queue->size,
	};
	int r = virtqueue_pop(&receiver->queue->vq, &chain);

	if (r <= 0)
		return r;
	/* The header must fit in the first; to read from there is nothing for us. */
	if (chain.writable_bytes < NET_HEADER_SIZE || chain.readable != 0)
		return -EBADMSG;
	receiver->chains[receiver->count++] = (struct chain){
		.head = chain.head,
		.position = net_last_position(&receiver->queue->vq),
		.iov_count = (uint16_t)chain.writable,
		.bytes = chain.writable_bytes,
	};
	receiver->iov_count += chain.writable;
	receiver->capacity += chain.writable_bytes;
	return 1;
}

/* Whether there is not yet room for so many frames. Without mergeable buffers one gets a chain,
 * whatever that holds. */
static bool wants_chains(const struct receiver *receiver, unsigned frames)
{
	bool full = receiver->mergeable ? receiver->capacity / receiver->wanted >= frames
					: receiver->count >= frames;

	return !full && receiver->count < NET_QUEUE_SIZE &&
	       receiver->iov_count + receiver->queue->size <= ARRAY_SIZE(receiver->iov);
}

/* Holds enough chains for a frame. 1, 0 to stop, or -errno. */
static int hold_chains_of_one(struct receiver *receiver)
{
	while (wants_chains(receiver, 1)) {
		int r = hold_chain(receiver);

		if (r < 0)
			return r;
		if (r > 0 || virtqueue_enable_kicks(&receiver->queue->vq))
			continue;
		publish(receiver);
		r = net_cable_wait(receiver->queue, true, 0, receiver->count > 0 ? SPARSE_MS : -1);
		if (r == -ETIME)
			return 1; /* this driver offers no more */
		if (r <= 0)
			return r;
	}
	virtqueue_disable_kicks(&receiver->queue->vq);
	return 1;
}

/* The same, and as many for others as are there and of use. */
static int hold_chains(struct receiver *receiver)
{
	int r = hold_chains_of_one(receiver);
	int more = 1;

	while (r == 1 && more == 1 && wants_chains(receiver, receiver->depth))
		more = hold_chain(receiver);
	return more < 0 ? more : r;
}

/* Deals the chains that are held to frames; the first gets some in any case. */
static void deal(struct receiver *receiver)
{
	const struct iovec *iov = receiver->iov;
	struct iovec *vector = receiver->vectors;
	unsigned chain = 0;

	receiver->frame_count = 0;
	while (chain < receiver->count && receiver->frame_count < receiver->depth) {
		struct net_frame frame = { .iov = vector };
		struct deal chains = { .first = chain };

		do {
			unsigned count = receiver->chains[chain].iov_count;

			memcpy(vector, iov, count * sizeof(*iov));
			vector += count;
			iov += count;
			chains.bytes += receiver->chains[chain++].bytes;
		} while (receiver->mergeable && chains.bytes < receiver->wanted &&
			 chain < receiver->count);
		if (receiver->mergeable && chains.bytes < receiver->wanted && chains.first > 0)
			return;
		chains.count = chain - chains.first;
		/* A tap cuts what does not fit and does not tell. */
		*vector++ = (struct iovec){ &receiver->overflow, 1 };
		frame.iov_count = (unsigned)(vector - frame.iov);
		receiver->deals[receiver->frame_count] = chains;
		receiver->frames[receiver->frame_count++] = frame;
	}
}

/* Forgets the chains that were given away; the others stay in their order. */
static void compact(struct receiver *receiver)
{
	const struct iovec *from = receiver->iov;
	struct iovec *to = receiver->iov;
	unsigned kept = 0;

	for (unsigned i = 0; i < receiver->count; i++) {
		struct chain chain = receiver->chains[i];

		if (chain.bytes != GIVEN) {
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
	virtqueue_push(&receiver->queue->vq, chain->head, written);
	receiver->capacity -= chain->bytes;
	chain->bytes = GIVEN;
}

/*
 * What is held and was not filled, the driver has still offered; but the ring
 * can be left at one place only, so those that were overtaken go back empty.
 */
static void give_back(struct receiver *receiver)
{
	struct virtqueue *vq = &receiver->queue->vq;

	while (receiver->count > 0 &&
		receiver->chains[receiver->count - 1].position == net_last_position(vq))
		virtqueue_unpop(vq, receiver->chains[--receiver->count].head);
	for (unsigned i = 0; i < receiver->count; i++)
		give(receiver, &receiver->chains[i], 0);
	publish(receiver);
}

/* ---- frames ---- */

/* Whether the driver knows what this frame's header means. */
static bool accepts_frame(const struct receiver *receiver, const struct net_frame *frame)
{
	struct virtio_net_hdr header;

	net_load(frame->iov, &header, sizeof(header));
	uint8_t flags = header.flags;

	if (!net_header_fits_guest(receiver->queue->device->features, &header))
		return false;
	if (header.flags != flags)
		net_store(frame->iov, offsetof(struct virtio_net_hdr, flags), &header.flags,
			sizeof(header.flags));
	return true;
}

static void deliver(struct receiver *receiver, const struct net_frame *frame, struct chain *chains)
{
	uint16_t used = 0;

	for (uint32_t left = (uint32_t)frame->result; left > 0; used++) {
		uint32_t bytes = (uint32_t)min_u64(left, chains[used].bytes);

		give(receiver, &chains[used], bytes);
		left -= bytes;
	}
	/* Before publish, so that the driver sees it with the frame. */
	net_store(frame->iov, offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers), &used,
		sizeof(used));
	receiver->unpublished++;
}

/* What became of a frame: 0, or -errno when there will never be another. */
static int take_frame(struct receiver *receiver, unsigned index)
{
	const struct net_frame *frame = &receiver->frames[index];
	const struct deal *chains = &receiver->deals[index];

	if (frame->result < 0)
		return frame->result == -EMSGSIZE ? 0 : (int)frame->result;
	if (frame->result >= NET_FRAME_MIN && frame->result <= chains->bytes &&
		accepts_frame(receiver, frame))
		deliver(receiver, frame, receiver->chains + chains->first);
	return 0;
}

/*
 * Moves what has arrived. 1: all of it, or there was none and we waited; 0:
 * stop; or -errno.
 */
static int receive_frames(struct receiver *receiver)
{
	struct device_queue *queue = receiver->queue;
	uint8_t order[NET_CABLE_FRAMES_MAX];
	int failure = 0;

	deal(receiver);
	int done =
		net_cable_receive(&receiver->cable, receiver->frames, receiver->frame_count, order);

	if (done < 0)
		return done;
	for (int i = 0; i < done; i++) {
		int r = take_frame(receiver, order[i]);

		failure = r < 0 ? r : failure;
	}
	compact(receiver);
	bool all = (unsigned)done == receiver->frame_count;

	receiver->depth = (unsigned)min_u64(
		all ? 2 * receiver->depth : (unsigned)done + SPARE, NET_CABLE_FRAMES_MAX);
	if (all && failure == 0)
		return 1;
	publish(receiver);
	if (failure == 0)
		return net_cable_wait(queue, false, POLLIN, -1);
	net_cable_failed(queue, -failure);
	return net_cable_wait(queue, false, 0, -1);
}

int net_serve_receive(struct device_queue *queue)
{
	struct receiver receiver = {
		.queue = queue,
		.mergeable = net_has(queue->device, VIRTIO_NET_F_MRG_RXBUF),
		.wanted = largest_frame(queue->device),
		.depth = 1,
	};
	int r = 1;

	net_cable_open(&receiver.cable, queue);
	while (r == 1) {
		r = hold_chains(&receiver);
		if (r == 1)
			r = receive_frames(&receiver);
		if (r == 1 && receiver.unpublished >= BATCH) {
			publish(&receiver);
			r = net_cable_look(queue);
		}
	}
	net_cable_close(&receiver.cable);
	give_back(&receiver);
	return r;
}
