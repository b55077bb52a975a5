// SPDX-License-Identifier: BSD-3-Clause
// Can KVM run Linux here? Times a loop of privileged code in a tiny VM: where the processor has no
// virtualization, KVM may still be there but interprets such code, thousands of times slower.
// Prints nanoseconds per instruction, or why there is no answer (exit status 1).

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MEMORY = 0x1000, ENTRY = 0x100, LOOPS = 50000, INSTRUCTIONS = 2 * LOOPS };

static const uint8_t code[] = {
	0xb9, LOOPS & 255, LOOPS >> 8 & 255, 0, 0, // mov ecx, LOOPS
	0x49,                                      // dec ecx
	0x75, 0xfd,                                // jnz -3
	0xf4,                                      // hlt
};

static int fail(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	return 1;
}

// Flat 32-bit protected mode, ring 0: no tables needed.
static int set_registers(int vcpu)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = ENTRY, .rflags = 2 };
	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return -1;
	struct kvm_segment data = { .limit = 0xffffffff,
		.selector = 16,
		.type = 3,
		.present = 1,
		.db = 1,
		.s = 1,
		.g = 1 };
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cs = data;
	sregs.cs.selector = 8;
	sregs.cs.type = 11;
	sregs.cr0 |= 1;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs))
		return -1;
	return ioctl(vcpu, KVM_SET_REGS, &regs);
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int measure(int kvm)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return fail("KVM_CREATE_VM");
	uint8_t *memory =
		mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return fail("mmap");
	memcpy(memory + ENTRY, code, sizeof code);
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY,
		.userspace_addr = (uintptr_t)memory };
	ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL); // some Intel processors want it
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
		return fail("KVM_SET_USER_MEMORY_REGION");
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		return fail("KVM_CREATE_VCPU");
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_run *run = MAP_FAILED;
	if (size > 0)
		run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		return fail("KVM_GET_VCPU_MMAP_SIZE");
	double ns = 1e9;
	// The fastest of three: the first one also pays for page tables and, in an emulator,
	// translation.
	for (int i = 0; i < 3; i++) {
		if (set_registers(vcpu))
			return fail("KVM_SET_SREGS");
		double begin = seconds();
		if (ioctl(vcpu, KVM_RUN, 0))
			return fail("KVM_RUN");
		double now = (seconds() - begin) * 1e9 / INSTRUCTIONS;
		if (run->exit_reason != KVM_EXIT_HLT) {
			printf("KVM_RUN: exit reason %u\n", run->exit_reason);
			return 1;
		}
		if (now < ns)
			ns = now;
	}
	printf("%.2f\n", ns);
	return 0;
}

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		return fail("/dev/kvm");
	int status = measure(kvm);
	close(kvm);
	return status;
}
