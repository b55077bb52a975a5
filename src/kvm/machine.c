// SPDX-License-Identifier: BSD-3-Clause
/* The VM fd. Only the host's kernel answers here; it may refuse or be out of memory. */
#include "kvm/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "base/log.h"

/* From here on APIC ids need more than the 8 bits of the xAPIC (255 is broadcast). */
enum { XAPIC_VCPUS_MAX = 255 };

static int vm_ioctl(int fd, unsigned long request, void *argument, const char *name)
{
	int r = ioctl(fd, request, argument);

	if (r >= 0)
		return r;
	int error = errno;

	log_error("KVM refused %s: %s%s", name, strerror(error),
		error == ENOMEM ? "; the host is short of memory" : "");
	return -error;
}

/* A signal may interrupt KVM_CREATE_VM while it waits for the host's other tasks. */
static int create_vm(int kvm_fd)
{
	int fd;

	do {
		fd = ioctl(kvm_fd, KVM_CREATE_VM, 0UL);
	} while (fd < 0 && errno == EINTR);
	if (fd < 0) {
		int error = errno;

		log_error("KVM cannot make a VM: %s%s", strerror(error),
			error == EBUSY ? "; is another hypervisor using the processor?" : "");
		return -error;
	}
	return fd;
}

static int enable_wide_apic_ids(int fd)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X2APIC_API,
		.args = { KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK },
	};

	return vm_ioctl(fd, KVM_ENABLE_CAP, &cap, "KVM_CAP_X2APIC_API");
}

int kvm_machine_create(
	const struct kvm_host *host, uint64_t tss_gpa, struct kvm_machine *ret_machine)
{
	CLEANUP_FD int fd = create_vm(host->fd);

	if (fd < 0)
		return fd;
	int r = vm_ioctl(fd, KVM_SET_TSS_ADDR, (void *)tss_gpa, "KVM_SET_TSS_ADDR");

	if (r < 0)
		return r;
	ret_machine->fd = fd_steal(&fd);
	return 0;
}

int kvm_machine_add_interrupts(const struct kvm_machine *machine, unsigned vcpus)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	int r = 0;

	if (vcpus > XAPIC_VCPUS_MAX)
		r = enable_wide_apic_ids(machine->fd);
	/* The PIT attaches to the interrupt controllers, so it comes second. */
	if (r >= 0)
		r = vm_ioctl(machine->fd, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP");
	if (r >= 0)
		r = vm_ioctl(machine->fd, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2");
	return r < 0 ? r : 0;
}

void kvm_machine_close(struct kvm_machine *machine)
{
	fd_close(&machine->fd);
}

static struct kvm_userspace_memory_region memory_slot(
	unsigned slot, uint32_t flags, uint64_t gpa, uint64_t size, void *hva)
{
	return (struct kvm_userspace_memory_region){
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};
}

int kvm_machine_add_memory(
	const struct kvm_machine *machine, unsigned slot, uint64_t gpa, uint64_t size, void *hva)
{
	struct kvm_userspace_memory_region region = memory_slot(slot, 0, gpa, size, hva);

	if (ioctl(machine->fd, KVM_SET_USER_MEMORY_REGION, &region) == 0)
		return 0;
	int error = errno;

	/* In one piece it takes less than 8 TiB, and nowhere more than the processor can address.
	 */
	log_error("KVM refused %" PRIu64 " MiB of memory at 0x%" PRIx64 ": %s; %s", size / MIB, gpa,
		strerror(error),
		error == EINVAL ? "pass a smaller --mem" : "the host is short of memory");
	return -error;
}

int kvm_machine_add_readonly_memory(
	const struct kvm_machine *machine, unsigned slot, uint64_t gpa, uint64_t size, void *hva)
{
	struct kvm_userspace_memory_region region =
		memory_slot(slot, KVM_MEM_READONLY, gpa, size, hva);

	return ioctl(machine->fd, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : 0;
}

void kvm_machine_set_irq(const struct kvm_machine *machine, unsigned gsi, bool asserted)
{
	struct kvm_irq_level level = { .irq = gsi, .level = asserted };

	/* Fails only for a GSI without a route, and ours all have one. */
	(void)ioctl(machine->fd, KVM_IRQ_LINE, &level);
}
