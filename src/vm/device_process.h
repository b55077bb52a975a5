/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device in a jailed process of its own: made before the machine exists,
 * reached by vhost-user over a socket pair, and hostile once a guest talks to
 * it. Main thread.
 */
#pragma once

#include "jail/jail.h"
#include "memory/guest_memory.h"
#include "virtio/device.h"
#include "virtio/vhost.h"
#include "vm/config.h"

struct device_process {
	struct jail_process jail; /* pid 0: there is none */
	int socket;               /* owned until it is behind the contract; -1 */
};

/*
 * Jails a process around an open device. `device` stays the caller's, whose
 * copies of its descriptors keep nothing from ending. While the caller has one
 * thread. 0 or -errno, logged.
 */
MUST_CHECK int device_process_start(const struct vm_config *config, const struct device_ops *ops,
	struct device *device, struct device_process *ret_process);

/*
 * Waits until the jail is complete and greets the device. 0 or -errno, logged;
 * the back half is freed before device_process_end().
 */
MUST_CHECK int device_process_connect(struct device_process *process, const struct device_ops *ops,
	const struct guest_memory *memory, struct vhost **ret_vhost);

/* Logs how the process ended, if it has. */
void device_process_report(const struct device_process *process, const char *name);

/* Ends it, and leaves none. A process that was never started is fine. */
void device_process_end(struct device_process *process);
