/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The cable of one network queue: frames to and from a tap or the stream to
 * passt, as many at a time as there are. With io_uring they are one system
 * call, else one each; either way nothing is in flight afterwards, and
 * nothing waits, but in net_cable_wait().
 *
 * A tap's frame is a virtio_net_hdr of 12 bytes and the bytes of the frame,
 * straight from and to the guest's buffers. One thread uses a cable.
 */
#pragma once

#include <liburing.h>

#include "virtio/device.h"

enum { NET_CABLE_FRAMES_MAX = 32 };

struct net_frame {
	struct iovec *iov; /* transmit: [0] is the header's */
	unsigned iov_count;
	uint32_t size;  /* transmit: bytes behind the header */
	ssize_t result; /* bytes, or -errno; -EAGAIN: not now */
};

struct net_cable {
	struct device_queue *queue;
	struct io_uring *ring; /* the device's; NULL: without */
};

/* Never fails: there is always a way without io_uring. */
void net_cable_open(struct net_cable *cable, struct device_queue *queue);
void net_cable_close(struct net_cable *cable);

/*
 * Fills the frames with what has arrived. ret_order holds the indices of the
 * frames that are not -EAGAIN, in the order of their arrival. How many, or
 * -errno: the ring has failed and may still hold buffers, so the queue is over.
 */
MUST_CHECK int net_cable_receive(
	struct net_cable *cable, struct net_frame *frames, unsigned count, uint8_t *ret_order);

/* Sends the frames in their order. 0, or -errno as above. */
MUST_CHECK int net_cable_send(struct net_cable *cable, struct net_frame *frames, unsigned count);

/* What the stream kept of its last frame leaves although no other follows. What to wait for. */
short net_cable_flush(struct net_cable *cable);

/* A tap that was deleted stays so, and passt that ended; the guest sees a line without traffic. */
void net_cable_failed(const struct device_queue *queue, int error);

/*
 * Waits for the stop, and for a kick or the network if wanted. 1: go on, 0: stop,
 * -ETIME: nothing came, or -errno.
 */
MUST_CHECK int net_cable_wait(
	const struct device_queue *queue, bool kick, short events, int timeout_ms);
/* Whether to stop, without waiting. 1: go on, 0: stop, or -errno. */
MUST_CHECK int net_cable_look(const struct device_queue *queue);
