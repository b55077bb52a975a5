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

/*
 * KVM_CAP_IMMEDIATE_EXIT (Linux 4.13) is the youngest thing that we cannot do
 * without; irqchip, PIT, irqfd and ioeventfd are older, so it stands for them.
 */
static const struct {
	int capability;
	const char *name;
	const char *since;
} required[] = {
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT", "4.13" },
	{ KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP", "2.6.24" },
};

static void explain_open_failure(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		log_error("cannot open /dev/kvm: %s; add yourself to its group "
			  "('sudo usermod -aG kvm $USER', then log in again)",
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

static int check_version(int fd)
{
	int version = ioctl(fd, KVM_GET_API_VERSION, 0);

	if (version == KVM_API_VERSION)
		return 0;
	log_error("/dev/kvm does not answer as KVM (API version %d, not %d); "
		  "check what '/dev/kvm' is",
		version, KVM_API_VERSION);
	return -ENODEV;
}

static int check_required(int fd)
{
	for (size_t i = 0; i < ARRAY_SIZE(required); i++) {
		if (ioctl(fd, KVM_CHECK_EXTENSION, required[i].capability) > 0)
			continue;
		log_error("this host's KVM lacks %s; it needs Linux %s or later with KVM "
			  "for x86_64",
			required[i].name, required[i].since);
		return -EOPNOTSUPP;
	}
	return 0;
}

int kvm_host_open(struct kvm_host *ret_host)
{
	CLEANUP_FD int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		int error = errno;

		explain_open_failure(error);
		return -error;
	}
	int r = check_version(fd);

	if (r == 0)
		r = check_required(fd);
	if (r < 0)
		return r;
	int run_size = ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	int max_vcpus = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);

	if (run_size < 4096 || max_vcpus < 1) {
		log_error("this host's KVM gives senseless limits (struct kvm_run %d bytes, "
			  "%d vCPUs)",
			run_size, max_vcpus);
		return -ENODEV;
	}
	*ret_host = (struct kvm_host){
		.max_vcpus = (unsigned)max_vcpus,
		.run_size = (size_t)run_size,
		.tsc_deadline = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0,
	};
	ret_host->fd = fd_steal(&fd);
	return 0;
}

void kvm_host_close(struct kvm_host *host)
{
	fd_close(&host->fd);
}
