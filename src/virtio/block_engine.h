/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the block device, shared by block.c (the device), and the two
 * engines: block_uring.c (io_uring, the usual one) and the synchronous one in
 * block.c. Nobody else includes it.
 */
#pragma once

#include <stdatomic.h>

#include "base/log_limit.h"
#include "virtio/block_image.h"
#include "virtio/block_overlay.h"
#include "virtio/block_request.h"
#include "virtio/device.h"
#include "virtio/uring.h"

/*
 * A ring has an entry for each request in flight, the polls and the call. More in flight make no
 * disk faster, and the kernel's ring larger: it is 16 KiB of each queue.
 */
enum { BLOCK_QUEUE_SIZE = 256, BLOCK_RING_ENTRIES = 128, BLOCK_IN_FLIGHT = BLOCK_RING_ENTRIES - 8 };

struct device {
	struct block_options options;
	struct block_image image;
	struct block_overlay overlay; /* of a snapshot; else its fd is -1 */
	struct block_geometry geometry;
	atomic_bool cache_is_settable;       /* not if it runs without FLUSH or CONFIG_WCE */
	atomic_bool wants_cache;             /* what a driver said last */
	atomic_bool writeback;               /* false: each write is durable when it completes */
	atomic_bool flush_failed;            /* until the next start */
	atomic_bool dirty;                   /* written since the last fdatasync began */
	atomic_bool told_slow;               /* that it has no ring: a guest resets it at will */
	struct log_limit complaints;         /* about the file, but the guest can repeat them */
	atomic_uint busy_here;               /* requests that threads of ours do */
	atomic_uint busy[DEVICE_QUEUES_MAX]; /* those that the kernel does, of each queue */
	struct urings urings;
};

/* The flags of a write at this moment. */
int block_write_flags(const struct device *device);
/* A flush's fdatasync is about to begin; then its result: 0 or -errno. */
void block_flush_begins(struct device *device);
void block_flush_done(struct device *device, struct block_request *request, int result);
/* A read or write ends by this -errno. */
void block_transfer_failed(struct device *device, struct block_request *request, int error);
/* The next two for disks of several files, and for what was written. */
int block_choose_piece(const struct device *device, struct block_request *request);
void block_written(struct device *device, const struct block_request *request, size_t done);

/*
 * Chooses the request's next piece, which lies in one file: that one. A file
 * with O_DIRECT gets what it takes, the rest goes through the page cache.
 */
static inline int block_next_piece(const struct device *device, struct block_request *request)
{
	request->piece_count = request->iov_count;
	return device->overlay.fd < 0 && device->image.direct_fd < 0
		       ? device->image.fd
		       : block_choose_piece(device, request);
}

/* Accounts for `done` bytes of that piece. True when bytes are left. */
static inline bool block_piece_done(
	struct device *device, struct block_request *request, size_t done)
{
	if (request->operation == BLOCK_WRITE)
		block_written(device, request, done);
	return block_request_advance(request, done);
}

/* Whether a flush has anything to do: what goes into an overlay shall not last. */
bool block_flush_is_due(const struct device *device);
/* Does the whole request, in this thread. */
void block_do_request(struct device *device, struct block_request *request);

extern const struct uring_kind block_uring_kind;
/*
 * Serves a queue with io_uring. -EOPNOTSUPP when this host has none for us, or
 * not any more: then no chain is in flight, and another engine may go on.
 */
MUST_CHECK int block_serve_uring(struct device_queue *queue);
