/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The back half of a device without a device, for tests and fuzzing: remembers
 * what the front half told it. Whoever breaks the contract of virtio/vhost.h
 * (starts a running ring, changes features while one runs) ends the program.
 */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/vhost.h"

enum { VHOST_QUEUES = 3, VHOST_CONFIG_SIZE = 10 };

struct fake_vhost {
	struct vhost vhost; /* first */
	uint64_t offered;
	uint64_t features;
	unsigned queues;
	uint8_t config[VHOST_CONFIG_SIZE];
	struct vhost_ring rings[VHOST_QUEUES];
	bool placed[VHOST_QUEUES];
	bool running[VHOST_QUEUES];
	unsigned starts, stops, resets;
	int fail_start;    /* what start_vring gives */
	int fail_stop;     /* what stop_vring gives, and the ring runs on */
	int fail_error_fd; /* what set_error_fd gives */
	uint16_t base;     /* where a ring stops */
	int error_fd;
	int event_fd; /* borrowed; -1: none */
	bool gone;
	bool freed;
};

static inline void vhost_require(bool holds, const char *what)
{
	if (holds)
		return;
	(void)fprintf(stderr, "vhost: %s\n", what);
	abort();
}

static inline unsigned fake_running(const struct fake_vhost *vhost)
{
	unsigned count = 0;

	for (unsigned i = 0; i < VHOST_QUEUES; i++)
		count += vhost->running[i];
	return count;
}

static inline int fake_get_features(struct vhost *vhost, uint64_t *ret_features)
{
	*ret_features = ((struct fake_vhost *)vhost)->offered;
	return 0;
}

static inline int fake_set_features(struct vhost *vhost, uint64_t features)
{
	struct fake_vhost *fake = (struct fake_vhost *)vhost;

	vhost_require((features & ~fake->offered) == 0, "features that were not offered");
	vhost_require(fake_running(fake) == 0, "features change while a ring runs");
	fake->features = features;
	return 0;
}

static inline unsigned fake_queue_count(struct vhost *vhost)
{
	return ((struct fake_vhost *)vhost)->queues;
}

static inline bool fake_in_config(uint32_t offset, uint32_t size)
{
	return offset <= VHOST_CONFIG_SIZE && size <= VHOST_CONFIG_SIZE - offset;
}

static inline int fake_get_config(
	struct vhost *vhost, uint32_t offset, uint8_t *data, uint32_t size)
{
	if (!fake_in_config(offset, size))
		return -EINVAL;
	memcpy(data, ((struct fake_vhost *)vhost)->config + offset, size);
	return 0;
}

static inline int fake_set_config(
	struct vhost *vhost, uint32_t offset, const uint8_t *data, uint32_t size)
{
	if (!fake_in_config(offset, size))
		return -EINVAL;
	memcpy(((struct fake_vhost *)vhost)->config + offset, data, size);
	return 0;
}

static inline int fake_change_config(
	struct vhost *vhost, uint32_t offset, const uint8_t *data, uint32_t size)
{
	return fake_set_config(vhost, offset, data, size);
}

static inline int fake_set_vring(struct vhost *vhost, unsigned index, const struct vhost_ring *ring)
{
	struct fake_vhost *fake = (struct fake_vhost *)vhost;

	vhost_require(index < fake->queues && !fake->running[index], "a running ring is moved");
	vhost_require(ring->kick_fd >= 0 && ring->call_fd >= 0, "a ring without eventfds");
	fake->rings[index] = *ring;
	fake->placed[index] = true;
	return 0;
}

static inline int fake_start_vring(struct vhost *vhost, unsigned index)
{
	struct fake_vhost *fake = (struct fake_vhost *)vhost;

	vhost_require(index < fake->queues && !fake->running[index], "a running ring is started");
	vhost_require(fake->placed[index], "a ring without a place is started");
	if (fake->fail_start != 0)
		return fake->fail_start;
	fake->running[index] = true;
	fake->starts++;
	return 0;
}

static inline int fake_stop_vring(struct vhost *vhost, unsigned index, uint16_t *ret_base)
{
	struct fake_vhost *fake = (struct fake_vhost *)vhost;

	vhost_require(index < fake->queues && fake->running[index], "a stopped ring is stopped");
	if (fake->fail_stop != 0)
		return fake->fail_stop;
	fake->running[index] = fake->placed[index] = false;
	fake->stops++;
	*ret_base = fake->base;
	return 0;
}

static inline int fake_set_error_fd(struct vhost *vhost, int error_fd)
{
	struct fake_vhost *fake = (struct fake_vhost *)vhost;

	if (fake->fail_error_fd == 0)
		fake->error_fd = error_fd;
	return fake->fail_error_fd;
}

static inline int fake_reset(struct vhost *vhost)
{
	struct fake_vhost *fake = (struct fake_vhost *)vhost;

	vhost_require(fake_running(fake) == 0, "a reset while a ring runs");
	fake->features = 0;
	fake->resets++;
	return 0;
}

static inline int fake_event_fd(const struct vhost *vhost)
{
	return ((const struct fake_vhost *)vhost)->event_fd;
}

static inline int fake_handle_event(struct vhost *vhost)
{
	return ((struct fake_vhost *)vhost)->gone ? -ENOTCONN : 0;
}

static inline void fake_free(struct vhost *vhost)
{
	((struct fake_vhost *)vhost)->freed = true;
}

static const struct vhost_ops fake_vhost_ops = {
	.get_features = fake_get_features,
	.set_features = fake_set_features,
	.queue_count = fake_queue_count,
	.get_config = fake_get_config,
	.set_config = fake_set_config,
	.change_config = fake_change_config,
	.set_vring = fake_set_vring,
	.start_vring = fake_start_vring,
	.stop_vring = fake_stop_vring,
	.set_error_fd = fake_set_error_fd,
	.reset = fake_reset,
	.event_fd = fake_event_fd,
	.handle_event = fake_handle_event,
	.free = fake_free,
};

static inline void fake_vhost_init(struct fake_vhost *fake, unsigned queues, uint64_t offered)
{
	*fake = (struct fake_vhost){
		.vhost.ops = &fake_vhost_ops,
		.offered = offered,
		.queues = queues,
		.error_fd = -1,
		.event_fd = -1,
	};
	for (unsigned i = 0; i < VHOST_CONFIG_SIZE; i++)
		fake->config[i] = (uint8_t)(0xc0 + i);
}
