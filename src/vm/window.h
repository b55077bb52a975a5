/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtio/window.h on top of KVM: each mapping is a memory slot of its own, so
 * that it can be read-only, and slots are used again.
 *
 * The device that asks may be hostile: see window.h for what is checked. Made
 * and freed by the main thread; freed after the device and before the VM.
 */
#pragma once

#include "jail/sandbox.h"
#include "kvm/machine.h"
#include "virtio/window.h"
#include "vm/device_process.h"

/* What a device can show at a time. */
enum { VM_WINDOW_MAPPINGS_MAX = 1024 };

struct vm_window;

/* A window of `size` bytes at `gpa`, with memory slots from `first_slot` on. 0 or -ENOMEM. */
MUST_CHECK int vm_window_create(const struct kvm_machine *machine, unsigned first_slot,
	uint64_t gpa, uint64_t size, struct vm_window **ret_window);
/*
 * A device may have sent what takes long to close, such as a socket that lingers: a
 * thread that does not come back within a second is left alone, with the window (false).
 */
bool vm_window_free(struct vm_window *window);

/* No device is served any more; one that waits for an answer hears so. NULL is fine. */
void vm_window_hang_up(struct vm_window *window);

/* What the device gets; it lives as long as the window. */
const struct window *vm_window_get(const struct vm_window *window);

/*
 * Serves the device in another process, by a thread of its own: whoever waits
 * for that device, the control loop too, may wait for one that waits for this.
 * `socket`, the VMM's half of a window_channel, is the window's also if this
 * fails; the thread goes when its device has or by vm_window_hang_up(). `loss` is
 * told, by it, of a device that breaks the protocol, which was logged. 0 or
 * -errno, logged.
 */
MUST_CHECK int vm_window_serve(struct vm_window *window, int socket, const struct sandbox *sandbox,
	const struct device_loss *loss);
