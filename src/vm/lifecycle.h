/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a VM ends: the first reason that anybody gives, and an eventfd that
 * wakes the control loop. lifecycle_end() may be called from every thread, any
 * number of times; later reasons are ignored.
 */
#pragma once

#include "base/util.h"
#include "vm/exit_status.h"

enum vm_end {
	VM_RUNNING,
	VM_END_POWER_OFF,    /* the guest asked for ACPI S5 */
	VM_END_REBOOT,       /* the guest asked for a reset */
	VM_END_PANIC,        /* the guest's kernel panicked, and then reset */
	VM_END_TRIPLE_FAULT, /* a vCPU shut down */
	VM_END_STOPPED,      /* a signal or the console's escape asked for it */
	VM_END_KVM_ERROR,    /* KVM gave up on a vCPU */
	VM_END_HOST,         /* the host refused what the VM needs */
	VM_END_DEVICE,       /* the process of a device is lost */
	VM_ENDS,
};

struct lifecycle {
	_Atomic unsigned end; /* enum vm_end */
	_Atomic int eventfd;  /* readable once it has ended; owned; -1 until somebody waits */
};

/* Who waits needs it, once; also when the end came before. Borrowed. 0 or -errno. */
MUST_CHECK int lifecycle_open_fd(struct lifecycle *lifecycle, int *ret_fd);
void lifecycle_destroy(struct lifecycle *lifecycle);

void lifecycle_end(struct lifecycle *lifecycle, enum vm_end end);
enum vm_end lifecycle_get(struct lifecycle *lifecycle);

/* The exit status that belongs to an end, and the line that is logged for it. */
enum exit_status vm_end_status(enum vm_end end);
const char *vm_end_text(enum vm_end end);
/* The event of the control socket that tells it; NULL: none. And whether an event is one of those.
 */
const char *vm_end_event(enum vm_end end);
bool vm_end_has_event(const char *name);
