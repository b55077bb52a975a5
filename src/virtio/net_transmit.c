// SPDX-License-Identifier: BSD-3-Clause
/*
 * From the guest to the network: frames go out of the driver's buffers, behind
 * a copy of their header that was checked. Rings, headers and sizes are the
 * guest's, and all frames together are without end.
 */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "virtio/net_cable.h"
#include "virtio/net_queue.h"

/* What is sent between two looks at the stop, roughly: the last frame may go beyond. */
#define BATCH_BYTES (1 * MIB)

struct sender {
	struct device_queue *queue;
	struct net_cable cable;
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

static void publish(struct sender *sender)
{
	if (virtqueue_publish(&sender->queue->vq))
		(void)eventfd_write(sender->queue->call_fd, 1);
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
	return net_header_is_good(sender->queue->device->features, &header->hdr);
}

/* Takes what the driver offers. 1: there may be more, 0: none, or -errno. */
static int collect(struct sender *sender)
{
	struct device_queue *queue = sender->queue;
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
		if (!make_frame(sender, &chain)) {
			virtqueue_push(&queue->vq, chain.head, 0);
			continue;
		}
		sender->chains[sender->count].head = chain.head;
		sender->chains[sender->count++].position = net_last_position(&queue->vq);
		sender->iov_count += 1 + chain.readable;
		bytes += chain.readable_bytes;
	}
	return 1;
}

/* Gives away what was sent, or will never be; the rest stays in its order. */
static void finish(struct sender *sender)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < sender->count; i++) {
		ssize_t result = sender->frames[i].result;

		if (result == -EAGAIN) {
			sender->frames[kept] = sender->frames[i];
			sender->chains[kept++] = sender->chains[i];
			continue;
		}
		/* A header that the kernel does not take, or a tap that is down, is no failure. */
		if (result == -EBADFD || result == -EPIPE)
			net_cable_failed(sender->queue, (int)-result);
		virtqueue_push(&sender->queue->vq, sender->chains[i].head, 0);
	}
	sender->count = kept;
}

/* Sends all that was collected. 1, 0: stop, or -errno. */
static int send_all(struct sender *sender)
{
	int r = 1;

	while (r == 1 && sender->count > 0) {
		r = net_cable_send(&sender->cable, sender->frames, sender->count);
		if (r < 0)
			return r;
		finish(sender);
		publish(sender);
		r = sender->count > 0 ? net_cable_wait(sender->queue, false, POLLOUT, -1) : 1;
	}
	sender->iov_count = 0;
	return r;
}

/* What was not sent, the driver still offers, but for frames that later ones have overtaken. */
static void give_back(struct sender *sender)
{
	struct virtqueue *vq = &sender->queue->vq;

	while (sender->count > 0 &&
		sender->chains[sender->count - 1].position == net_last_position(vq))
		virtqueue_unpop(vq, sender->chains[--sender->count].head);
	while (sender->count > 0)
		virtqueue_push(vq, sender->chains[--sender->count].head, 0);
	publish(sender);
}

int net_serve_transmit(struct device_queue *queue)
{
	struct sender sender = { .queue = queue };
	int r = 1;

	net_cable_open(&sender.cable, queue);
	while (r == 1) {
		int more = collect(&sender);

		r = send_all(&sender);
		publish(&sender);
		if (r == 1 && more < 0)
			r = more;
		else if (r == 1 && (more == 1 || virtqueue_enable_kicks(&queue->vq)))
			r = net_cable_look(queue);
		else if (r == 1)
			r = net_cable_wait(queue, true, net_cable_flush(&sender.cable), -1);
	}
	net_cable_close(&sender.cable);
	give_back(&sender);
	return r;
}
