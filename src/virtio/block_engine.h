/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the block device, shared by block.c (the device), and the two
 * engines: block_uring.c (io_uring, the usual one) and the synchronous one in
 * block.c. Nobody else includes it.
 */
#pragma once

#include <stdatomic.h>

#include "virtio/block_image.h"
#include "virtio/block_request.h"
#include "virtio/device.h"

struct device {
	struct block_options options;
	struct block_image image;
	struct block_geometry geometry;
	atomic_bool cache_is_settable; /* both FLUSH and CONFIG_WCE were negotiated */
	atomic_bool writeback;         /* false: each write is durable when it completes */
	atomic_bool flush_failed;      /* until the next start */
};

/* The flags of a write at this moment. */
int block_write_flags(const struct device *device);
/* The result of a flush's fdatasync: 0 or -errno. */
void block_flush_done(struct device *device, struct block_request *request, int result);
/* Discards or zeroes the request's segments, in this thread. */
void block_do_segments(const struct device *device, struct block_request *request);

/* Serves a queue with io_uring. -EOPNOTSUPP when this host has none for us. */
MUST_CHECK int block_serve_uring(struct device_queue *queue);
