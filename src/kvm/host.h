/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * /dev/kvm: what the host can do. Opened once by the main thread; everything
 * that can be wrong with a host's KVM is found here, before a VM exists, and
 * logged as one line with its cause and cure.
 *
 * Source: the kernel's Documentation/virt/kvm/api.rst, section 4.
 */
#pragma once

#include "base/util.h"

struct kvm_host {
	int fd;          /* owned; -1 when closed */
	size_t run_size; /* bytes to map of each vCPU's struct kvm_run */
};

/* 0 or -errno, logged. Close with kvm_host_close(). */
MUST_CHECK int kvm_host_open(struct kvm_host *ret_host);
/* The most vCPUs that one VM may have. */
unsigned kvm_host_max_vcpus(const struct kvm_host *host);
void kvm_host_close(struct kvm_host *host);
