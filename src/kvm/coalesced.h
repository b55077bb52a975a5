/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Coalesced port writes: KVM keeps writes to chosen ports in a ring, and the
 * guest goes on. Whoever handles the guest's next exit takes them first, so
 * that a device sees all accesses in their order; it is for registers whose
 * writing has no effect of its own until another register is accessed, or
 * whose effect can wait until somebody looks.
 *
 * A VM has one ring, which all its vCPUs fill and whose entries the kernel
 * writes: the port is one that was added, size and data are the guest's. One
 * thread takes at a time; the caller's lock sees to that.
 *
 * Source: Documentation/virt/kvm/api.rst, 4.116 KVM_(UN)REGISTER_COALESCED_MMIO.
 */
#pragma once

#include "kvm/vcpu.h"

struct kvm_coalesced_mmio_ring;

/* The VM's ring, in the mapping of this vCPU, which owns it; NULL where KVM (before Linux 4.20) has
 * none for ports. */
struct kvm_coalesced_mmio_ring *kvm_coalesced_ring(
	const struct kvm_host *host, const struct kvm_vcpu *vcpu);

/* Keeps writes to [port, port + size) from now on. 0 or -errno, not logged: without it they exit.
 */
MUST_CHECK int kvm_coalesced_add(const struct kvm_machine *machine, uint16_t port, unsigned size);

/* They exit again, from its return on; those that wait still do. 0 or -errno, not logged. */
MUST_CHECK int kvm_coalesced_remove(
	const struct kvm_machine *machine, uint16_t port, unsigned size);

/* How many writes wait. 0 tells any thread that all are done that its guest made so far. */
unsigned kvm_coalesced_count(const struct kvm_coalesced_mmio_ring *ring);
/* One of them, 0 is the oldest, as the exit that it would have been. */
void kvm_coalesced_get(
	struct kvm_coalesced_mmio_ring *ring, unsigned index, struct vcpu_exit *ret_exit);
/*
 * The oldest `count` are done. All at once: before Linux 6.11 KVM counts its room
 * wrongly when a ring of more than half its entries begins at a small index.
 */
void kvm_coalesced_done(struct kvm_coalesced_mmio_ring *ring, unsigned count);
