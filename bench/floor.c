// SPDX-License-Identifier: BSD-3-Clause
/*
 * The least that a program must do to run a guest that prints one byte: a VM
 * with interrupt controllers, timer, one memory slot and one vCPU. How long it
 * takes is the floor under the start-up time of any VMM on this host, and what
 * bench/start compares with. Nobody lies here: the guest is ours.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MEMORY_SIZE = 128 << 20, COM1 = 0x3f8, TSS_GPA = 0xfffbd000 };

/* Real mode: mov dx, 0x3f8; mov al, 'M'; out dx, al; hlt */
static const uint8_t guest_code[] = { 0xba, 0xf8, 0x03, 0xb0, 'M', 0xee, 0xf4 };

/* Tells in the exit status which step failed. */
static void check(int step, int result)
{
	if (result < 0)
		_exit(step);
}

static void add_memory(int vm)
{
	void *memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct kvm_userspace_memory_region region = {
		.memory_size = MEMORY_SIZE,
		.userspace_addr = (uintptr_t)memory,
	};

	if (memory == MAP_FAILED)
		_exit(6);
	memcpy(memory, guest_code, sizeof(guest_code));
	check(7, ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region));
}

/*
 * The memory slot comes before the interrupt controllers: each of these
 * devices starts an SRCU grace period, which a later change of the slots has
 * to wait for: 6 ms on a host with HZ=250 (seen with Linux 6.18).
 */
static int create_vm(int kvm)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);

	check(2, vm);
	check(3, ioctl(vm, KVM_SET_TSS_ADDR, TSS_GPA));
	add_memory(vm);
	check(4, ioctl(vm, KVM_CREATE_IRQCHIP, 0));
	check(5, ioctl(vm, KVM_CREATE_PIT2, &pit));
	return vm;
}

static void set_entry(int vcpu)
{
	struct kvm_regs regs = { .rflags = 2 };
	struct kvm_sregs sregs;

	check(8, ioctl(vcpu, KVM_GET_SREGS, &sregs));
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	check(9, ioctl(vcpu, KVM_SET_SREGS, &sregs));
	check(10, ioctl(vcpu, KVM_SET_REGS, &regs));
}

/*
 * With the argument "cpuid": what a guest needs that is to be a kernel. Asking
 * KVM for the leaves is cheap on hardware, but dear on a host that is itself a
 * guest, where each CPUID instruction is an exit: 0.3 ms was seen.
 */
static void set_cpuid(int kvm, int vcpu)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head.nent = 256 };

	check(17, ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid));
	check(18, ioctl(vcpu, KVM_SET_CPUID2, &cpuid));
}

int main(int argc, char **argv)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	check(1, kvm);
	int vm = create_vm(kvm);
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);

	check(11, vcpu);
	int run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	check(12, run_size);
	struct kvm_run *run =
		mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);

	if (run == MAP_FAILED)
		_exit(13);
	if (argc > 1 && strcmp(argv[1], "cpuid") == 0)
		set_cpuid(kvm, vcpu);
	set_entry(vcpu);
	check(14, ioctl(vcpu, KVM_RUN, 0));
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != COM1)
		_exit(15);
	check(16, (int)write(STDOUT_FILENO, (char *)run + run->io.data_offset, 1));
	return 0;
}
