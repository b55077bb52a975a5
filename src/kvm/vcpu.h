/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One vCPU: its fd, the shared struct kvm_run, and what an exit means.
 *
 * Made by one thread, before any runs. kvm_vcpu_run() is called only by the
 * thread that the vCPU belongs to; kvm_vcpu_interrupt() by any.
 *
 * Source: Documentation/virt/kvm/api.rst, section 5.
 */
#pragma once

#include "base/util.h"
#include "kvm/host.h"
#include "kvm/machine.h"

struct kvm_run;

struct kvm_vcpu {
	int fd;              /* owned; -1 when closed */
	unsigned index;      /* 0 is the bootstrap processor; also the APIC id */
	struct kvm_run *run; /* owned mapping, shared with the kernel */
	size_t run_size;
};

enum vcpu_exit_kind {
	VCPU_EXIT_INTERRUPTED,    /* a signal or kvm_vcpu_interrupt(): look around, run again */
	VCPU_EXIT_PORT,           /* I/O port access, `count` items of `size` bytes at `data` */
	VCPU_EXIT_MMIO,           /* memory access, one item */
	VCPU_EXIT_SHUTDOWN,       /* triple fault */
	VCPU_EXIT_INTERNAL_ERROR, /* KVM could not emulate what the guest did */
	VCPU_EXIT_FAIL_ENTRY,     /* the processor refused the guest's state */
	VCPU_EXIT_UNEXPECTED,     /* an exit that this machine never asks for */
	VCPU_EXIT_KINDS,
};

struct vcpu_exit {
	enum vcpu_exit_kind kind;
	/* PORT and MMIO */
	bool is_write;
	uint64_t address;
	uint8_t *data; /* in struct kvm_run; reads are answered by writing here */
	unsigned size; /* of one item: 1, 2, 4 or 8 */
	unsigned count;
	/* the others: KVM's own numbers, for the log */
	uint32_t reason;
	uint64_t detail;
};

/* 0 or -errno, logged. */
MUST_CHECK int kvm_vcpu_create(const struct kvm_host *host, const struct kvm_machine *machine,
	unsigned index, struct kvm_vcpu *ret_vcpu);
void kvm_vcpu_close(struct kvm_vcpu *vcpu);

/*
 * Runs the guest until it needs something. 0 and the exit, or -errno of
 * KVM_RUN itself (never -EINTR or -EAGAIN: those are VCPU_EXIT_INTERRUPTED).
 */
MUST_CHECK int kvm_vcpu_run(struct kvm_vcpu *vcpu, struct vcpu_exit *ret_exit);

/*
 * Makes the current or next kvm_vcpu_run() return. A thread that is inside
 * KVM_RUN must be sent a signal as well, after this.
 */
void kvm_vcpu_interrupt(struct kvm_vcpu *vcpu);
/* Takes that back, in the vCPU's own thread, before it looks whether it is to run. */
void kvm_vcpu_clear_interrupt(struct kvm_vcpu *vcpu);

/*
 * Tells the guest, if it uses kvmclock, that this vCPU did not run for a while,
 * so that its watchdogs do not take that for a hang. While it is out of
 * kvm_vcpu_run(). A guest without kvmclock is not told.
 */
void kvm_vcpu_tell_paused(const struct kvm_vcpu *vcpu);

/* Logs registers and what KVM said, after an exit that ends the VM. */
void kvm_vcpu_log_state(const struct kvm_vcpu *vcpu, const struct vcpu_exit *exit);
