/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The thread backend of the vhost contract: the device runs in this process,
 * one thread a queue while the queue is started.
 */
#pragma once

#include "memory/guest_memory.h"
#include "virtio/device.h"
#include "virtio/vhost.h"

/*
 * Takes ownership of `device` also when it fails. `memory` must outlive the
 * backend; without it (NULL) no ring starts. 0 or -errno. Free with (*ret_vhost)->ops->free().
 */
MUST_CHECK int vhost_thread_create(const struct device_ops *ops, struct device *device,
	const struct guest_memory *memory, struct vhost **ret_vhost);

/* Other memory from now on, or none (NULL). All rings must be stopped. */
void vhost_thread_set_memory(struct vhost *vhost, const struct guest_memory *memory);
