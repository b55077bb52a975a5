/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtio-block: a disk image as a block device.
 *
 * Without VIRTIO_BLK_F_FLUSH negotiated, and with the write cache turned off,
 * every write is durable before it completes. A flush completes after an
 * fdatasync that began after all writes that completed before it; after one
 * that failed, all flushes fail until the driver resets the device, because
 * the kernel tells of lost pages only once.
 *
 * Source: virtio 1.2, section 5.2.
 */
#pragma once

#include "virtio/block_image.h"
#include "virtio/device.h"

extern const struct device_ops block_device_ops;

/* Opens and locks the image. 0 or -errno, logged. Freed by block_device_ops.free. */
MUST_CHECK int block_open(const struct block_options *options, struct device **ret_device);
