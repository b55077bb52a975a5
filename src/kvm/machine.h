/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A KVM virtual machine: the VM fd with its in-kernel interrupt controllers
 * (LAPIC, IOAPIC, PIC) and PIT. Made by one thread; the interrupt
 * functions may be called from any thread.
 *
 * Source: Documentation/virt/kvm/api.rst. Errors are logged here.
 */
#pragma once

#include "base/util.h"
#include "kvm/host.h"

struct kvm_machine {
	int fd; /* owned; -1 when closed */
};

/*
 * Creates the VM. `tss_gpa` is the start of three free pages below 4 GiB that
 * KVM uses on Intel processors.
 */
MUST_CHECK int kvm_machine_create(
	const struct kvm_host *host, uint64_t tss_gpa, struct kvm_machine *ret_machine);
void kvm_machine_close(struct kvm_machine *machine);

/* Makes `size` bytes at `hva` the guest's memory at `gpa`. The mapping must outlive the VM. */
MUST_CHECK int kvm_machine_add_memory(
	const struct kvm_machine *machine, unsigned slot, uint64_t gpa, uint64_t size, void *hva);

/*
 * The same for memory that the guest may only read; its writes are MMIO exits.
 * Not logged: -errno where KVM cannot do it. Size 0 takes the slot away again.
 */
MUST_CHECK int kvm_machine_add_readonly_memory(
	const struct kvm_machine *machine, unsigned slot, uint64_t gpa, uint64_t size, void *hva);

/*
 * Adds the interrupt controllers and the PIT, for `vcpus` vCPUs. After the
 * memory, because the memory slots would wait (for milliseconds on some hosts)
 * until the kernel is done with the buses that this changes; before the vCPUs.
 */
MUST_CHECK int kvm_machine_add_interrupts(const struct kvm_machine *machine, unsigned vcpus);

/* Sets the level of an interrupt line (GSI) of the PIC and IOAPIC. */
void kvm_machine_set_irq(const struct kvm_machine *machine, unsigned gsi, bool asserted);
