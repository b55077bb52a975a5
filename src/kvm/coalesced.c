// SPDX-License-Identifier: BSD-3-Clause
/* The ring is the kernel's; what was written, and how wide, is the guest's. */
#include "kvm/coalesced.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

enum { PAGE_SIZE = 4096 }; /* for the macro of KVM's header */
#define RING_ENTRIES ((uint32_t)KVM_COALESCED_MMIO_MAX)

/* The kernel maps it behind struct kvm_run and the data of ports. */
struct kvm_coalesced_mmio_ring *kvm_coalesced_ring(
	const struct kvm_host *host, const struct kvm_vcpu *vcpu)
{
	if (ioctl(host->fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_PIO) <= 0 ||
		vcpu->run_size < (KVM_COALESCED_MMIO_PAGE_OFFSET + 1) * PAGE_SIZE)
		return NULL;
	return (void *)((uint8_t *)vcpu->run + KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE_SIZE);
}

static int change_zone(
	const struct kvm_machine *machine, unsigned long request, uint16_t port, unsigned size)
{
	struct kvm_coalesced_mmio_zone zone = { .addr = port, .size = size, .pio = 1 };

	return ioctl(machine->fd, request, &zone) < 0 ? -errno : 0;
}

int kvm_coalesced_add(const struct kvm_machine *machine, uint16_t port, unsigned size)
{
	return change_zone(machine, KVM_REGISTER_COALESCED_MMIO, port, size);
}

int kvm_coalesced_remove(const struct kvm_machine *machine, uint16_t port, unsigned size)
{
	return change_zone(machine, KVM_UNREGISTER_COALESCED_MMIO, port, size);
}

unsigned kvm_coalesced_count(const struct kvm_coalesced_mmio_ring *ring)
{
	uint32_t last = __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE);
	uint32_t first = __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE);

	return (last + RING_ENTRIES - first) % RING_ENTRIES;
}

void kvm_coalesced_get(
	struct kvm_coalesced_mmio_ring *ring, unsigned index, struct vcpu_exit *ret_exit)
{
	struct kvm_coalesced_mmio *entry =
		&ring->coalesced_mmio[(ring->first + index) % RING_ENTRIES];

	*ret_exit = (struct vcpu_exit){
		.kind = VCPU_EXIT_PORT,
		.is_write = true,
		.address = entry->phys_addr,
		.data = entry->data,
		.size = entry->len,
		.count = 1,
	};
}

void kvm_coalesced_done(struct kvm_coalesced_mmio_ring *ring, unsigned count)
{
	__atomic_store_n(&ring->first, (ring->first + count) % RING_ENTRIES, __ATOMIC_RELEASE);
}
