// SPDX-License-Identifier: BSD-3-Clause
/*
 * The registers of the bootstrap processor at the kernel's entry. The entry
 * was checked by the loader; the tables that the registers point to are
 * written by boot.c.
 */
#include <linux/kvm.h>

#include "x86_64/boot.h"
#include "x86_64/cpu.h"
#include "x86_64/layout.h"

#define CR0_PE   (1u << 0)
#define CR0_ET   (1u << 4)
#define CR0_PG   (1u << 31)
#define CR4_PAE  (1u << 5)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
/* IA32_APIC_BASE of a bootstrap processor after reset: enabled, at the usual place. */
#define APIC_BASE_RESET (LAYOUT_LAPIC | 1u << 11 | 1u << 8)

/* What a segment register holds, straight from its descriptor's meaning. */
static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool long_mode)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.g = 1,
		.l = long_mode,
		.db = !long_mode,
	};
}

static void set_segments(struct kvm_sregs *sregs, bool long_mode)
{
	struct kvm_segment data = flat_segment(BOOT_DATA_SELECTOR, 3, false);

	sregs->cs = flat_segment(BOOT_CODE_SELECTOR, 11, long_mode);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
	sregs->tr = (struct kvm_segment){
		.limit = 0x67, .selector = BOOT_TSS_SELECTOR, .type = 11, .present = 1
	};
	sregs->gdt.base = LAYOUT_GDT;
	sregs->gdt.limit = BOOT_GDT_SIZE - 1;
	sregs->idt.base = 0;
	sregs->idt.limit = 0;
}

static void set_mode(struct kvm_sregs *sregs, bool long_mode)
{
	sregs->cr0 = CR0_PE | CR0_ET;
	sregs->cr4 = 0;
	sregs->efer = 0;
	if (!long_mode)
		return;
	sregs->cr0 |= CR0_PG;
	sregs->cr3 = LAYOUT_PML4;
	sregs->cr4 = CR4_PAE;
	sregs->efer = EFER_LME | EFER_LMA;
}

void cpu_set_entry(const struct kvm_vcpu *vcpu, const struct kernel_image *image)
{
	bool long_mode = image->entry_kind == KERNEL_ENTRY_LONG_MODE;
	struct kvm_sync_regs *state = &vcpu->run->s.regs;

	state->regs = (struct kvm_regs){
		.rip = image->entry,
		.rflags = 2,
		.rsi = long_mode ? LAYOUT_ZERO_PAGE : 0,
		.rbx = long_mode ? 0 : LAYOUT_PVH_INFO,
		.rsp = LAYOUT_STACK,
		.rbp = LAYOUT_STACK,
	};
	/* All of it, so that nothing has to be read back first. */
	state->sregs = (struct kvm_sregs){ .apic_base = APIC_BASE_RESET };
	set_segments(&state->sregs, long_mode);
	set_mode(&state->sregs, long_mode);
	/* KVM_RUN takes it from there. */
	vcpu->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
}
