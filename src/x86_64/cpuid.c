// SPDX-License-Identifier: BSD-3-Clause
/*
 * CPUID: what KVM supports on this host, with the few leaves that describe one
 * machine rather than a processor put right: APIC ids, topology, cache sharing.
 * The topology is one package of single-threaded cores. Nobody lies here but
 * possibly the host's KVM; a leaf that it lacks is left out.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "x86_64/cpu.h"
#include "x86_64/msr.h"

enum { CPUID_ENTRIES_MAX = 256 };

/* Leaf 1 */
#define CPUID_1_ECX_TSC_DEADLINE (1u << 24)
#define CPUID_1_ECX_HYPERVISOR   (1u << 31)
#define CPUID_1_EDX_HTT          (1u << 28)
/* KVM's leaf 0x40000001: APIC ids of 15 bits in MSI messages */
#define KVM_FEATURE_EXT_DEST_ID (1u << 15)
#define KVM_LEAF_FEATURES       0x40000001u

struct cpu_model {
	unsigned vcpus;
	unsigned id_bits; /* enough APIC id bits for every vCPU */
	struct kvm_cpuid2 *cpuid;
};

static unsigned bits_for(unsigned count)
{
	return count <= 1 ? 0 : 32 - (unsigned)__builtin_clz(count - 1);
}

/* Replaces the bits [low, low + width) of a register, saturating. */
static void set_field(uint32_t *reg, unsigned low, unsigned width, uint32_t value)
{
	uint32_t max = (UINT32_C(1) << width) - 1;

	*reg = (*reg & ~(max << low)) | ((value > max ? max : value) << low);
}

static void patch_features(
	struct kvm_cpuid_entry2 *leaf, const struct cpu_model *model, unsigned apic_id)
{
	/* KVM leaves the deadline timer to us: its in-kernel LAPIC always has it. */
	leaf->ecx |= CPUID_1_ECX_HYPERVISOR | CPUID_1_ECX_TSC_DEADLINE;
	set_field(&leaf->ebx, 24, 8, apic_id);
	set_field(&leaf->ebx, 16, 8, UINT32_C(1) << model->id_bits);
	if (model->vcpus > 1)
		leaf->edx |= CPUID_1_EDX_HTT;
	else
		leaf->edx &= ~CPUID_1_EDX_HTT;
}

/* Leaf 4 (Intel) and 0x8000001d (AMD): the last level is shared, the others are a core's own. */
static void patch_cache(
	struct kvm_cpuid_entry2 *leaf, const struct cpu_model *model, unsigned apic_id)
{
	(void)apic_id;
	unsigned level = (leaf->eax >> 5) & 7;
	uint32_t ids = (UINT32_C(1) << model->id_bits) - 1;

	set_field(&leaf->eax, 14, 12, level >= 3 ? ids : 0);
	if (leaf->function == 4 && (leaf->eax & 0x1f) != 0)
		set_field(&leaf->eax, 26, 6, ids);
}

/* The energy-performance bias cannot be set from a guest. */
static void patch_power(
	struct kvm_cpuid_entry2 *leaf, const struct cpu_model *model, unsigned apic_id)
{
	(void)model;
	(void)apic_id;
	leaf->ecx &= ~(1u << 3);
}

static void patch_amd_cores(
	struct kvm_cpuid_entry2 *leaf, const struct cpu_model *model, unsigned apic_id)
{
	(void)apic_id;
	set_field(&leaf->ecx, 0, 8, model->vcpus - 1);
	set_field(&leaf->ecx, 12, 4, model->id_bits);
}

static void patch_amd_ids(
	struct kvm_cpuid_entry2 *leaf, const struct cpu_model *model, unsigned apic_id)
{
	(void)model;
	leaf->eax = apic_id;
	leaf->ebx = apic_id & 0xff; /* core id; one thread in each */
	leaf->ecx = 0;              /* node 0 of 1 */
}

static void patch_kvm_features(
	struct kvm_cpuid_entry2 *leaf, const struct cpu_model *model, unsigned apic_id)
{
	(void)apic_id;
	if (model->vcpus > 255)
		leaf->eax |= KVM_FEATURE_EXT_DEST_ID;
}

/* Leaf 0xb and 0x1f: level 0 is the thread, level 1 the package. */
static void patch_topology(
	struct kvm_cpuid_entry2 *leaf, const struct cpu_model *model, unsigned apic_id)
{
	leaf->edx = apic_id;
	leaf->eax = leaf->index == 1 ? model->id_bits : 0;
	leaf->ebx = leaf->index == 1 ? model->vcpus : leaf->index == 0;
	leaf->ecx = leaf->index | (leaf->index < 2 ? (leaf->index + 1) << 8 : 0);
}

static const struct {
	uint32_t function;
	void (*patch)(struct kvm_cpuid_entry2 *, const struct cpu_model *, unsigned apic_id);
} patches[] = {
	{ 0x1, patch_features },
	{ 0x4, patch_cache },
	{ 0x6, patch_power },
	{ 0xb, patch_topology },
	{ 0x1f, patch_topology },
	{ KVM_LEAF_FEATURES, patch_kvm_features },
	{ 0x80000008, patch_amd_cores },
	{ 0x8000001d, patch_cache },
	{ 0x8000001e, patch_amd_ids },
};

/*
 * KVM describes the host's topology leaves, or nothing. Ours are made anew:
 * three subleaves each, the last one ends the list.
 */
static void rebuild_topology_leaves(struct kvm_cpuid2 *cpuid)
{
	unsigned kept = 0;
	uint32_t basic_max = 0;

	for (unsigned i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *leaf = &cpuid->entries[i];

		if (leaf->function == 0)
			basic_max = leaf->eax;
		if (leaf->function != 0xb && leaf->function != 0x1f)
			cpuid->entries[kept++] = *leaf;
	}
	for (unsigned n = 0; n < 2; n++) {
		uint32_t function = n == 0 ? 0xb : 0x1f;

		for (unsigned index = 0; function <= basic_max && index < 3; index++)
			cpuid->entries[kept++] = (struct kvm_cpuid_entry2){
				.function = function,
				.index = index,
				.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			};
	}
	cpuid->nent = kept;
}

int cpu_model_create(const struct kvm_host *host, unsigned vcpus, struct cpu_model **ret_model)
{
	struct cpu_model *model = calloc(1, sizeof(*model));
	/* Room for the six topology leaves beyond what KVM may fill. */
	struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + (CPUID_ENTRIES_MAX + 6) * sizeof(cpuid->entries[0]));

	if (model == NULL || cpuid == NULL) {
		free(model);
		free(cpuid);
		return -ENOMEM;
	}
	cpuid->nent = CPUID_ENTRIES_MAX;
	*model = (struct cpu_model){
		.vcpus = vcpus,
		.id_bits = bits_for(vcpus),
		.cpuid = cpuid,
	};
	if (ioctl(host->fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
		int error = errno;

		log_error("KVM does not tell its CPUID: %s", strerror(error));
		cpu_model_free(model);
		return -error;
	}
	rebuild_topology_leaves(cpuid);
	*ret_model = model;
	return 0;
}

void cpu_model_free(struct cpu_model *model)
{
	if (model == NULL)
		return;
	free(model->cpuid);
	free(model);
}

static void patch_leaf(
	struct kvm_cpuid_entry2 *leaf, const struct cpu_model *model, unsigned apic_id)
{
	for (size_t i = 0; i < ARRAY_SIZE(patches); i++)
		if (patches[i].function == leaf->function)
			patches[i].patch(leaf, model, apic_id);
}

int cpu_model_apply(struct cpu_model *model, const struct kvm_vcpu *vcpu)
{
	/* Each field that depends on the vCPU is written anew, so one copy serves all. */
	for (unsigned i = 0; i < model->cpuid->nent; i++)
		patch_leaf(&model->cpuid->entries[i], model, vcpu->index);
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, model->cpuid) < 0) {
		int error = errno;

		log_error("KVM refused the CPUID of vCPU %u: %s", vcpu->index, strerror(error));
		return -error;
	}
	return msr_set_boot_state(vcpu);
}
