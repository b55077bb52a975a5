/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device for tests of what runs devices: it copies each chain's readable
 * buffer into its writable one, has a configuration space that can be written,
 * and counts what is done to it. Included by one test program.
 */
#pragma once

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "virtio/device.h"

enum { QUEUES = 2, SIZE = 8, CONFIG_SIZE = 6, CONTROL_SIZE = 4, DATA_SIZE = 16 };

struct device {
	atomic_uint starts, stops, frees;
	atomic_uint served; /* chains */
	int start_error;
	uint64_t features;
	uint8_t config[CONFIG_SIZE + CONTROL_SIZE];
};

static inline unsigned copier_queues(const struct device *device)
{
	(void)device;
	return QUEUES;
}

static inline uint64_t copier_features(const struct device *device)
{
	(void)device;
	return 0x30;
}

static inline void copier_config_read(
	struct device *device, uint32_t offset, uint8_t *data, uint32_t size)
{
	memcpy(data, device->config + offset, size);
}

static inline void copier_config_write(
	struct device *device, uint32_t offset, const uint8_t *data, uint32_t size)
{
	memcpy(device->config + offset, data, size);
}

static inline int copier_config_change(
	struct device *device, uint32_t offset, const uint8_t *data, uint32_t size)
{
	memcpy(device->config + offset, data, size);
	return data[0] == 0xff ? -EINVAL : 0;
}

static inline int copier_start(struct device *device, uint64_t features)
{
	device->starts++;
	device->features = features;
	return device->start_error;
}

static inline uint32_t copy(struct device *device, const struct virtqueue_chain *chain)
{
	size_t size = 0;

	device->served++;
	if (chain->readable == 1 && chain->writable == 1) {
		size = min_u64(chain->iov[0].iov_len, chain->iov[1].iov_len);
		memcpy(chain->iov[1].iov_base, chain->iov[0].iov_base, size);
	}
	return (uint32_t)size;
}

static inline int copier_serve(struct device_queue *queue)
{
	return device_serve_chains(queue, copy);
}

static inline void copier_stop(struct device *device)
{
	device->stops++;
}

static inline void copier_free(struct device *device)
{
	device->frees++;
}

static const struct device_ops copier_ops = {
	.name = "copier",
	.queue_size = SIZE,
	.config_size = CONFIG_SIZE,
	.control_size = CONTROL_SIZE,
	.queue_count = copier_queues,
	.features = copier_features,
	.config_read = copier_config_read,
	.config_write = copier_config_write,
	.config_change = copier_config_change,
	.start = copier_start,
	.serve = copier_serve,
	.stop = copier_stop,
	.free = copier_free,
};
