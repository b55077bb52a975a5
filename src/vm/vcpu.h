/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The vCPU threads: each runs one vCPU, brings its exits to the buses, and
 * reports to the lifecycle when the guest is at its end.
 *
 * All functions are for the main thread, but as said. Errors are logged.
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

/* A set of `count` vCPUs that do not exist yet. The set keeps a pointer to the lifecycle. */
MUST_CHECK int vcpu_set_create(
	unsigned count, struct lifecycle *lifecycle, struct vcpu_set **ret_set);

/*
 * Starts the thread of vCPU 0. It calls make_machine(owner), which ends with all
 * vCPUs ready to run, then enters the sandbox (borrowed) and runs the guest; or
 * ends, if the machine cannot be made. A vCPU without its sandbox ends the VM.
 */
MUST_CHECK int vcpu_set_start_first(struct vcpu_set *set, const struct sandbox *sandbox,
	int (*make_machine)(void *owner), void *owner);
/*
 * Waits until the guest runs, or the machine could not be made, whose result it
 * returns; then starts the threads of the other vCPUs.
 */
MUST_CHECK int vcpu_set_start_others(struct vcpu_set *set);

/*
 * For make_machine(), in the thread of vCPU 0: the vCPUs, whose exits go to the
 * platform (a pointer to it is kept), their CPUID and MSRs, the kernel's entry.
 */
MUST_CHECK int vcpu_set_add_vcpus(struct vcpu_set *set, const struct kvm_host *host,
	const struct kvm_machine *machine, struct platform *platform);
MUST_CHECK int vcpu_set_model(struct vcpu_set *set, struct cpu_model *model);
void vcpu_set_entry(struct vcpu_set *set, const struct kernel_image *image);

/*
 * Lets KVM keep writes to the platform's quiet ports until the guest's next exit, of
 * whichever vCPU; saves exits, changes nothing else. While they run. False: the host cannot.
 */
bool vcpu_set_coalesce(
	struct vcpu_set *set, const struct kvm_host *host, const struct kvm_machine *machine);
/* Brings the writes that KVM has kept so far to the platform, without an exit. Any thread. */
void vcpu_set_take_writes(struct vcpu_set *set);

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

/* Stops the threads that were started and waits for them; for make_machine() to return, too. */
void vcpu_set_stop(struct vcpu_set *set);
void vcpu_set_free(struct vcpu_set *set);
