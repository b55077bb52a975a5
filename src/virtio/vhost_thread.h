/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The thread backend of the vhost contract: the device runs in this process,
 * one thread for each queue that was ever started.
 */
#pragma once

#include <pthread.h>

#include "memory/guest_memory.h"
#include "virtio/device.h"
#include "virtio/vhost.h"

/* Who makes the threads of queues, and takes their rights away. */
struct queue_threads {
	/* As thread_start(). NULL: that. */
	int (*start)(void *owner, pthread_t *ret_thread, void *(*function)(void *argument),
		void *argument);
	/*
	 * In the new thread of a device of this name, before it looks at anything of
	 * the guest's. 0, or -errno, logged: then the queue is not served. NULL: nothing.
	 */
	int (*enter)(void *owner, const char *device);
	void *owner;
};

/*
 * Takes ownership of `device` also when it fails. `memory` must outlive the
 * backend; without it (NULL) no ring starts. 0 or -errno. Free with (*ret_vhost)->ops->free().
 */
MUST_CHECK int vhost_thread_create(const struct device_ops *ops, struct device *device,
	const struct guest_memory *memory, struct vhost **ret_vhost);

/* Before the first ring starts. */
void vhost_thread_set_threads(struct vhost *vhost, const struct queue_threads *threads);
