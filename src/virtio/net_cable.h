/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The cable of one queue pair: frames to and from a tap or the stream to
 * passt, as many at a time as there are. With io_uring those of both ways are
 * one system call, else one each; either way nothing is in flight afterwards,
 * and nothing waits.
 *
 * A tap's frame is a virtio_net_hdr of 12 bytes and the bytes of the frame,
 * straight from and to the guest's buffers. One thread uses a cable.
 */
#pragma once

#include <liburing.h>

#include "virtio/device.h"

/* The second of those that arrive. */
enum { NET_CABLE_FRAMES_MAX = 32, NET_CABLE_IN_MAX = NET_CABLE_FRAMES_MAX - 1 };

struct net_frame {
	struct iovec *iov; /* to the network: [0] is the header's */
	unsigned iov_count;
	uint32_t size;  /* to the network: bytes behind the header */
	ssize_t result; /* bytes, or -errno; -EAGAIN: not now */
};

struct net_batch {
	struct net_frame *frames;
	unsigned count;
	/* Those that are not -EAGAIN, in the order in which they came or went. */
	unsigned done;
	uint8_t order[NET_CABLE_FRAMES_MAX];
};

struct net_cable {
	struct device_queue *queue; /* whose ring it has; one of the pair */
	struct io_uring *ring;      /* the device's; NULL: without */
};

/* Never fails: there is always a way without io_uring. */
void net_cable_open(struct net_cable *cable, struct device_queue *queue);

/*
 * Sends what is in `out` in its order, then fills `in` with what has arrived; either may
 * be empty. 0, or -errno: the ring has failed and may still hold buffers, so the queues are over.
 */
MUST_CHECK int net_cable_move(struct net_cable *cable, struct net_batch *out, struct net_batch *in);

/* What to wait for. */
int net_cable_fd(const struct device_queue *queue);

/* What the stream kept of its last frame leaves although no other follows. What to wait for. */
short net_cable_flush(const struct device_queue *queue);

/*
 * Whether after this error, as a positive number, nothing more moves: a tap that was deleted
 * stays so, and passt that ended, which is said once, since the guest may only wonder; a queue
 * that the driver gave up may be taken again, see net_pair_wake().
 */
bool net_cable_is_gone(const struct device_queue *queue, int error);
