/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device that another program serves: a vhost-user back end that somebody has
 * started, on a unix socket (--vhost-user), or that a device of ours has started
 * (device_ops.take_back_end). It is neither ours nor jailed by us,
 * gets all guest memory, and is as hostile as a device process of ours
 * (virtio/vhost_user_frontend.h). Main thread.
 */
#pragma once

#include "memory/guest_memory.h"
#include "virtio/device.h"
#include "virtio/vhost.h"
#include "vm/device_process.h"

struct foreign_device {
	const struct foreign_kind *kind;
	char *name; /* owned; for messages: "block at /run/disk.sock"; NULL: there is none */
	int socket; /* owned until it is behind the contract; -1 */
};

/* Whether a back end for devices of this class can be driven. */
bool foreign_device_is_known(const struct device_class *class);

/*
 * Connects, without waiting for the other side; the class must be known. 0, or -errno after saying
 * what is wrong with the socket and what to do.
 */
MUST_CHECK int foreign_device_open(
	const struct device_class *class, const char *path, struct foreign_device *ret_device);

/* The same for a socket, which it owns then, also when it fails. 0 or -ENOMEM. */
MUST_CHECK int foreign_device_adopt(
	const struct device_class *class, int socket, struct foreign_device *ret_device);

/*
 * Greets the back end, which has the time of vhost_user_frontend.h for it. The
 * device outlives the result; `loss` is copied. `own`, the device of ours that started it, or NULL,
 * has the configuration space that it lacks. 0 or -errno, logged.
 */
MUST_CHECK int foreign_device_greet(struct foreign_device *device, struct device *own,
	const struct guest_memory *memory, const struct device_loss *loss,
	struct vhost **ret_vhost);

/* One that was never opened is fine, too. */
void foreign_device_close(struct foreign_device *device);
