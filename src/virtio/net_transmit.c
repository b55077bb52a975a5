// SPDX-License-Identifier: BSD-3-Clause
/*
 * From the guest to the network: frames go out of the driver's buffers, behind
 * a copy of their header that was checked. Rings, headers and sizes are the
 * guest's, and all frames together are without end.
 */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "virtio/net_queue.h"

/* What is sent at one turn, roughly: the last frame may go beyond. */
#define BATCH_BYTES (1 * MIB)

struct sender {
	struct net_side side; /* first */
	bool more;            /* the driver may offer some */
	/* Popped and not pushed, in the order of their pops. */
	unsigned count;
	unsigned iov_count;
	struct {
		uint16_t head;
		uint16_t position; /* in the available ring */
	} chains[NET_CABLE_FRAMES_MAX];
	struct net_frame frames[NET_CABLE_FRAMES_MAX];
	struct virtio_net_hdr_mrg_rxbuf headers[NET_CABLE_FRAMES_MAX];
	struct iovec iov[4 * NET_QUEUE_SIZE];
};

static struct sender *from_side(struct net_side *side)
{
	return (struct sender *)side;
}

static void publish(struct sender *sender)
{
	struct device_queue *queue = sender->side.queue;

	if (virtqueue_publish(&queue->vq))
		(void)eventfd_write(queue->call_fd, 1);
}

/* Makes a frame of a chain whose buffers are iov[1..]; iov[0] is ours. False: it is none. */
static bool make_frame(struct sender *sender, const struct virtqueue_chain *chain)
{
	struct virtio_net_hdr_mrg_rxbuf *header = &sender->headers[sender->count];
	struct iovec *iov = chain->iov - 1;

	if (chain->readable_bytes < NET_FRAME_MIN || chain->readable_bytes > NET_FRAME_MAX)
		return false;
	net_take_header(chain->iov, header);
	header->hdr.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header->num_buffers = 0;
	iov[0] = (struct iovec){ header, sizeof(*header) };
	sender->frames[sender->count] = (struct net_frame){
		.iov = iov,
		.iov_count = chain->readable + 1,
		.size = chain->readable_bytes - (uint32_t)sizeof(*header),
	};
	return net_header_is_good(sender->side.queue->device->features, &header->hdr);
}

/* Takes what the driver offers. 1: there may be more, 0: none, or -errno. */
static int take_frames(struct sender *sender)
{
	struct device_queue *queue = sender->side.queue;
	uint64_t bytes = 0;

	for (unsigned n = 0; n < queue->size; n++) {
		struct virtqueue_chain chain = {
			.iov = sender->iov + sender->iov_count + 1,
			.iov_max = queue->size,
		};

		if (sender->count == NET_CABLE_FRAMES_MAX || bytes >= BATCH_BYTES ||
			sender->iov_count + 1 + queue->size > ARRAY_SIZE(sender->iov))
			return 1;
		int r = virtqueue_pop(&queue->vq, &chain);

		if (r != 1)
			return r;
		sender->side.work++;
		if (!make_frame(sender, &chain)) {
			virtqueue_push(&queue->vq, chain.head, 0);
			continue;
		}
		sender->chains[sender->count].head = chain.head;
		sender->chains[sender->count++].position = net_last_position(&queue->vq);
		sender->iov_count += 1 + chain.readable;
		bytes += chain.readable_bytes;
		sender->side.work += chain.readable_bytes / NET_WORK_BYTES;
	}
	return 1;
}

/* Nothing new before all of the last turn has left. */
static int collect(struct net_side *side)
{
	struct sender *sender = from_side(side);
	int r = 1;

	side->work = 0;
	if (sender->count == 0) {
		sender->iov_count = 0;
		r = take_frames(sender);
	}
	sender->more = r == 1;
	side->batch.frames = sender->frames;
	side->batch.count = sender->count;
	return r < 0 ? r : 0;
}

/* Gives away what was sent, or will never be; the rest stays in its order. True: all is lost. */
static bool finish(struct sender *sender)
{
	unsigned kept = 0, failed = 0;

	for (unsigned i = 0; i < sender->count; i++) {
		ssize_t result = sender->frames[i].result;

		if (result == -EAGAIN) {
			sender->frames[kept] = sender->frames[i];
			sender->chains[kept++] = sender->chains[i];
			continue;
		}
		/* A header that the kernel does not take, or a tap that is down, is no failure. */
		if (result < 0) {
			(void)net_cable_is_gone(sender->side.queue, (int)-result);
			failed++;
		}
		virtqueue_push(&sender->side.queue->vq, sender->chains[i].head, 0);
	}
	bool lost = failed > 0 && failed == sender->count;

	sender->count = kept;
	return lost;
}

static void settle(struct net_side *side)
{
	struct sender *sender = from_side(side);

	/* A driver that sends on with no network must not cost a CPU to throw that away. */
	bool lost = finish(sender);

	publish(sender);
	bool is_full = sender->count > 0;

	side->more = !is_full && !lost && sender->more;
	side->wants_kick = !is_full && !lost && !sender->more;
	side->timeout_ms = lost ? NET_PAUSE_MS : -1;
	side->events = 0;
	if (is_full)
		side->events = POLLOUT;
	else if (!side->more)
		side->events = net_cable_flush(side->queue);
}

/* What was not sent, the driver still offers, but for frames that later ones have overtaken. */
static void leave(struct net_side *side)
{
	struct sender *sender = from_side(side);
	struct virtqueue *vq = &side->queue->vq;

	while (sender->count > 0 &&
		sender->chains[sender->count - 1].position == net_last_position(vq))
		virtqueue_unpop(vq, sender->chains[--sender->count].head);
	while (sender->count > 0)
		virtqueue_push(vq, sender->chains[--sender->count].head, 0);
	publish(sender);
}

int net_serve_transmit(struct device_queue *queue)
{
	static const struct net_side_ops ops = { collect, settle, leave };
	struct sender sender = { .side = { .ops = &ops, .queue = queue, .timeout_ms = -1 } };

	return net_pair_serve(&sender.side);
}
