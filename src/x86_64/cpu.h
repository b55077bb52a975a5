/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the guest's processors are: CPUID, the MSRs that firmware would have
 * set, and the registers that the bootstrap processor starts with. The others
 * wait for INIT and SIPI as KVM made them; LAPICs too stay as KVM resets them,
 * which is the "virtual wire mode" that the boot protocols want.
 *
 * One thread at a time, before the vCPUs run. Errors are logged here.
 * Sources: Intel SDM volume 3 chapter 10 and CPUID, AMD APM volume 3 appendix E,
 * the kernel's Documentation/arch/x86/boot.rst, Xen's pvh.pandoc.
 */
#pragma once

#include "kvm/host.h"
#include "kvm/vcpu.h"
#include "x86_64/kernel_image.h"

/* CPUID as KVM can do it, with the topology of `vcpus` cores in one package. */
struct cpu_model;

MUST_CHECK int cpu_model_create(
	const struct kvm_host *host, unsigned vcpus, struct cpu_model **ret_model);
void cpu_model_free(struct cpu_model *model);

/* Gives a vCPU its CPUID (with its own APIC id) and its MSRs. */
MUST_CHECK int cpu_model_apply(struct cpu_model *model, const struct kvm_vcpu *vcpu);

/*
 * Puts the bootstrap processor at the kernel's entry; boot data is in memory by then. Takes
 * effect when the vCPU first runs, which fails with -EINVAL if KVM refuses the state.
 */
void cpu_set_entry(const struct kvm_vcpu *vcpu, const struct kernel_image *image);
