/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The virtio devices of a VM: which there are, and the PCI bus they sit on.
 *
 * Opened and freed by the main thread, attached by that of vCPU 0 before it
 * runs; between devices_open() and devices_attach() nothing of the machine
 * exists yet, so that what needs the user's rights comes first.
 */
#pragma once

#include <sys/types.h>

#include "base/evloop.h"
#include "jail/sandbox.h"
#include "memory/guest_memory.h"
#include "vm/config.h"
#include "vm/lifecycle.h"
#include "vm/platform.h"

struct devices;

/*
 * Opens what the devices need of the host. Sandbox and lifecycle are borrowed;
 * the latter is told when a device's process is lost. 0 or -errno, logged.
 */
MUST_CHECK int devices_open(const struct vm_config *config, const struct sandbox *sandbox,
	struct lifecycle *lifecycle, struct devices **ret_devices);

/* Makes the PCI bus with the devices on it, on the platform's buses. 0 or -errno, logged. */
MUST_CHECK int devices_attach(struct devices *devices, const struct kvm_machine *machine,
	const struct guest_memory *memory, struct platform *platform, struct evloop *loop,
	uint64_t pci_window_gpa);

/*
 * Once the guest runs: serves the window of a device in another process, lets devices of
 * this process start, which wait for it until then, or waits for the jails of the others, whose end
 * is noticed from now on. Main thread. 0 or -errno, logged.
 */
MUST_CHECK int devices_start(struct devices *devices);

/*
 * The VM ends, perhaps before devices_start(): no vCPU waits for that any longer.
 * Before the vCPUs are stopped. Main thread. NULL is fine.
 */
void devices_give_up(struct devices *devices);

enum { DEVICE_SOCKETS_MAX = 16 };
/* Paths of sockets that the devices remove when they go. How many. */
size_t devices_socket_paths(
	const struct devices *devices, const char *ret_paths[DEVICE_SOCKETS_MAX]);

/* How long devices_suspend() waits for the host's disks. */
enum { DEVICES_REST_MS = 2000 };

/*
 * Holds the devices: what was in flight is done when it returns. While the
 * vCPUs are held. -EBUSY when a disk of the host is too slow, -errno when a
 * device cannot be held; then all go on.
 */
MUST_CHECK int devices_suspend(struct devices *devices);
void devices_resume(struct devices *devices);

/* For people: a device's place among all, in the order of PCI. */
struct device_info {
	const char *name;
	pid_t pid; /* of its process; 0: it is in ours */
};
unsigned devices_count(const struct devices *devices);
struct device_info devices_info(const struct devices *devices, unsigned index);

/* The front half of a device, counted from 0 among those of its class; NULL: there are not so many.
 */
struct virtio_pci *devices_find(
	const struct devices *devices, const struct device_class *class, uint64_t index);

/* Signals the eventfd (borrowed) when a device fails. Before the vCPUs. */
void devices_watch_failures(struct devices *devices, int eventfd);
/* A device that failed since it was last taken. False: none. */
MUST_CHECK bool devices_take_failure(struct devices *devices, unsigned *ret_index);

/* After VM_END_DEVICE: logs how the processes that are gone have ended. */
void devices_report_lost(struct devices *devices);

/* After the vCPUs have stopped: all that was in flight is done when it returns. */
void devices_free(struct devices *devices);
