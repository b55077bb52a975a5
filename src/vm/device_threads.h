/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Makes the queue threads of devices in the main process. A thread inherits the
 * seccomp policy of the one that makes it, and the driver's DRIVER_OK is a vCPU's
 * business, whose policy lacks what devices need. So a thread that does nothing
 * else, and has seen no guest, makes them; each takes its device's policy
 * before it serves.
 */
#pragma once

#include "jail/sandbox.h"
#include "virtio/vhost_thread.h"
#include "vm/lifecycle.h"

struct device_threads;

/* Both are borrowed; a thread without its sandbox ends the VM. 0 or -ENOMEM. */
MUST_CHECK int device_threads_create(const struct sandbox *sandbox, struct lifecycle *lifecycle,
	struct device_threads **ret_threads);

/* For vhost_thread_create(). Its threads may be asked for from any thread, before the start too. */
struct queue_threads device_threads_get(struct device_threads *threads);

/* Starts the thread; requests wait for it. When it fails, they fail. 0 or -errno, logged. */
MUST_CHECK int device_threads_start(struct device_threads *threads);

/*
 * The end comes, perhaps before the start: then requests fail, those that wait already too. Without
 * effect once it has started. By who would start it.
 */
void device_threads_give_up(struct device_threads *threads);

/* After the last device. NULL is fine. */
void device_threads_free(struct device_threads *threads);
