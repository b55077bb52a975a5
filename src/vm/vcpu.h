/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The vCPU threads: each runs one vCPU, brings its exits to the buses, and
 * reports to the lifecycle when the guest is at its end.
 *
 * All functions are for the main thread.
 */
#pragma once

#include "jail/sandbox.h"
#include "kvm/machine.h"
#include "kvm/vcpu.h"
#include "memory/guest_memory.h"
#include "vm/lifecycle.h"
#include "vm/platform.h"
#include "x86_64/cpu.h"

struct vcpu_set;

/*
 * Creates `count` vCPUs with their CPUID and MSRs. Logged errors. The set keeps
 * pointers to platform and lifecycle.
 */
MUST_CHECK int vcpu_set_create(const struct kvm_host *host, const struct kvm_machine *machine,
	unsigned count, struct platform *platform, struct lifecycle *lifecycle,
	struct vcpu_set **ret_set);

/* Puts vCPU 0 at the kernel's entry. */
MUST_CHECK int vcpu_set_entry(struct vcpu_set *set, const struct kernel_image *image);

/*
 * Starts the threads: each enters the sandbox (borrowed) and runs the guest. One
 * that cannot ends the VM.
 */
MUST_CHECK int vcpu_set_start(struct vcpu_set *set, const struct sandbox *sandbox);

/*
 * Gets every vCPU out of the guest and holds it there, with all accesses that
 * the guest began done. -ETIMEDOUT when one does not come within the time; then
 * all run on. Returns at once when they are held already.
 */
MUST_CHECK int vcpu_set_pause(struct vcpu_set *set, unsigned timeout_ms);
/* Lets them run on; their clocks went on, and the guest is told of the pause. */
void vcpu_set_resume(struct vcpu_set *set);

unsigned vcpu_set_count(const struct vcpu_set *set);
/* Exits of this kind so far, of all vCPUs. */
uint64_t vcpu_set_exits(const struct vcpu_set *set, enum vcpu_exit_kind kind);

/* Stops the threads that were started and waits for them. */
void vcpu_set_stop(struct vcpu_set *set);
void vcpu_set_free(struct vcpu_set *set);
