// SPDX-License-Identifier: BSD-3-Clause
/*
 * KVM_RUN and the decoding of exits. The kernel writes struct kvm_run; ports,
 * addresses and data in it are the guest's.
 */
#include "kvm/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "base/fd.h"
#include "base/log.h"

int kvm_vcpu_create(const struct kvm_host *host, const struct kvm_machine *machine, unsigned index,
	struct kvm_vcpu *ret_vcpu)
{
	CLEANUP_FD int fd = ioctl(machine->fd, KVM_CREATE_VCPU, (unsigned long)index);
	void *run = MAP_FAILED;

	if (fd >= 0)
		run = mmap(NULL, host->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (run == MAP_FAILED) {
		int error = errno;

		log_error("KVM cannot make vCPU %u: %s%s", index, strerror(error),
			error == ENOMEM   ? "; pass fewer --cpus"
			: error == EMFILE ? "; raise the limit on open files, 'ulimit -n', or pass "
					    "fewer --cpus"
					  : "");
		return -error;
	}
	*ret_vcpu = (struct kvm_vcpu){
		.index = index,
		.run = run,
		.run_size = host->run_size,
	};
	ret_vcpu->fd = fd_steal(&fd);
	return 0;
}

void kvm_vcpu_close(struct kvm_vcpu *vcpu)
{
	if (vcpu->run != NULL)
		munmap(vcpu->run, vcpu->run_size);
	vcpu->run = NULL;
	fd_close(&vcpu->fd);
}

static void decode_port(struct kvm_run *run, struct vcpu_exit *exit)
{
	exit->kind = VCPU_EXIT_PORT;
	exit->is_write = run->io.direction == KVM_EXIT_IO_OUT;
	exit->address = run->io.port;
	exit->data = (uint8_t *)run + run->io.data_offset;
	exit->size = run->io.size;
	exit->count = run->io.count;
}

static void decode_mmio(struct kvm_run *run, struct vcpu_exit *exit)
{
	exit->kind = VCPU_EXIT_MMIO;
	exit->is_write = run->mmio.is_write;
	exit->address = run->mmio.phys_addr;
	exit->data = run->mmio.data;
	exit->size = run->mmio.len;
	exit->count = 1;
}

static void decode_exit(struct kvm_run *run, struct vcpu_exit *exit)
{
	*exit = (struct vcpu_exit){ .kind = VCPU_EXIT_UNEXPECTED, .reason = run->exit_reason };
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		decode_port(run, exit);
		break;
	case KVM_EXIT_MMIO:
		decode_mmio(run, exit);
		break;
	case KVM_EXIT_INTR:
		exit->kind = VCPU_EXIT_INTERRUPTED;
		break;
	case KVM_EXIT_SHUTDOWN:
		exit->kind = VCPU_EXIT_SHUTDOWN;
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		exit->kind = VCPU_EXIT_INTERNAL_ERROR;
		exit->detail = run->internal.suberror;
		break;
	case KVM_EXIT_FAIL_ENTRY:
		exit->kind = VCPU_EXIT_FAIL_ENTRY;
		exit->detail = run->fail_entry.hardware_entry_failure_reason;
		break;
	case KVM_EXIT_UNKNOWN:
		exit->detail = run->hw.hardware_exit_reason;
		break;
	default:
		break;
	}
}

int kvm_vcpu_run(struct kvm_vcpu *vcpu, struct vcpu_exit *ret_exit)
{
	if (ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
		decode_exit(vcpu->run, ret_exit);
		return 0;
	}
	if (errno != EINTR && errno != EAGAIN)
		return -errno;
	*ret_exit = (struct vcpu_exit){ .kind = VCPU_EXIT_INTERRUPTED };
	return 0;
}

void kvm_vcpu_interrupt(struct kvm_vcpu *vcpu)
{
	__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

void kvm_vcpu_clear_interrupt(struct kvm_vcpu *vcpu)
{
	__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
}

void kvm_vcpu_tell_paused(const struct kvm_vcpu *vcpu)
{
	(void)ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
}

static void log_registers(const struct kvm_vcpu *vcpu)
{
	struct kvm_regs r;
	struct kvm_sregs s;

	if (ioctl(vcpu->fd, KVM_GET_REGS, &r) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &s) < 0)
		return;
	log_error("vCPU %u: rip %016llx rsp %016llx rflags %08llx cs %04x cpl %u", vcpu->index,
		r.rip, r.rsp, r.rflags, s.cs.selector, s.ss.dpl);
	log_error("vCPU %u: rax %016llx rbx %016llx rcx %016llx rdx %016llx", vcpu->index, r.rax,
		r.rbx, r.rcx, r.rdx);
	log_error("vCPU %u: rsi %016llx rdi %016llx rbp %016llx r8  %016llx", vcpu->index, r.rsi,
		r.rdi, r.rbp, r.r8);
	log_error("vCPU %u: cr0 %08llx cr2 %016llx cr3 %016llx cr4 %08llx efer %08llx", vcpu->index,
		s.cr0, s.cr2, s.cr3, s.cr4, s.efer);
}

/* What KVM recorded of an instruction that it could not emulate (suberror 1). */
static void log_internal_data(const struct kvm_vcpu *vcpu)
{
	uint32_t count = vcpu->run->internal.ndata;

	for (uint32_t i = 0; i < count && i < ARRAY_SIZE(vcpu->run->internal.data); i++)
		log_error("vCPU %u: KVM's data[%u] %016llx", vcpu->index, i,
			vcpu->run->internal.data[i]);
}

void kvm_vcpu_log_state(const struct kvm_vcpu *vcpu, const struct vcpu_exit *exit)
{
	log_error("vCPU %u: exit reason %u, detail 0x%" PRIx64, vcpu->index, exit->reason,
		exit->detail);
	if (exit->kind == VCPU_EXIT_INTERNAL_ERROR)
		log_internal_data(vcpu);
	log_registers(vcpu);
}
