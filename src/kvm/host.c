// SPDX-License-Identifier: BSD-3-Clause
/*
 * Finds out whether this host's KVM will do. The host may be anything: no
 * KVM, no permission, an old kernel.
 */
#include "kvm/host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "base/log.h"

static void explain_open_failure(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		log_error("cannot open /dev/kvm: %s; add yourself to its group "
			  "('sudo usermod -aG kvm $USER', then log in again) or, where it has "
			  "none, 'sudo setfacl -m u:$USER:rw /dev/kvm'",
			strerror(error));
		break;
	case ENOENT:
	case ENODEV:
	case ENXIO:
		log_error("cannot open /dev/kvm: %s; this machine has no KVM: turn on "
			  "virtualization in its firmware (or nested virtualization on its host) "
			  "and load kvm_intel or kvm_amd",
			strerror(error));
		break;
	default:
		log_error("cannot open /dev/kvm: %s", strerror(error));
	}
}

/*
 * KVM_CAP_SYNC_REGS (on x86 since Linux 4.17) is the youngest thing that we
 * cannot do without; irqchip, PIT, irqfd, ioeventfd, the TSC deadline timer and
 * immediate_exit are older, so it stands for them, and for /dev/kvm being KVM.
 */
static int check_required(int fd)
{
	const int needed = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	int r = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS);

	if (r < 0) {
		log_error("/dev/kvm does not answer as KVM: %s; check what '/dev/kvm' is",
			strerror(errno));
		return -ENODEV;
	}
	if ((r & needed) == needed)
		return 0;
	log_error("this host's KVM lacks KVM_CAP_SYNC_REGS; it needs Linux 4.17 or later");
	return -EOPNOTSUPP;
}

int kvm_host_open(struct kvm_host *ret_host)
{
	CLEANUP_FD int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		int error = errno;

		explain_open_failure(error);
		return -error;
	}
	int r = check_required(fd);

	if (r < 0)
		return r;
	int run_size = ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (run_size < 4096) {
		log_error("this host's KVM gives a senseless size of struct kvm_run, %d", run_size);
		return -ENODEV;
	}
	*ret_host = (struct kvm_host){ .fd = fd_steal(&fd), .run_size = (size_t)run_size };
	return 0;
}

unsigned kvm_host_max_vcpus(const struct kvm_host *host)
{
	int max = ioctl(host->fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);

	return max > 0 ? (unsigned)max : 1;
}

void kvm_host_close(struct kvm_host *host)
{
	fd_close(&host->fd);
}
