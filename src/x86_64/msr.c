// SPDX-License-Identifier: BSD-3-Clause
/* The MSRs of a processor that firmware has handed over. Only KVM answers here. */
#include "x86_64/msr.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"

/* Intel SDM volume 4, table 2-2. */
#define MSR_MISC_ENABLE              0x1a0
#define MSR_MISC_ENABLE_FAST_STRING  (1u << 0)
#define MSR_MISC_ENABLE_NO_BTS       (1u << 11)
#define MSR_MTRR_DEF_TYPE            0x2ff
#define MSR_MTRR_DEF_TYPE_ENABLE     (1u << 11)
#define MSR_MTRR_DEF_TYPE_WRITE_BACK 6u

int msr_set_boot_state(const struct kvm_vcpu *vcpu)
{
	static const struct kvm_msr_entry entries[] = {
		/* KVM has no branch trace store, and what it said of that is overwritten here. */
		{ .index = MSR_MISC_ENABLE,
			.data = MSR_MISC_ENABLE_FAST_STRING | MSR_MISC_ENABLE_NO_BTS },
		{ .index = MSR_MTRR_DEF_TYPE,
			.data = MSR_MTRR_DEF_TYPE_ENABLE | MSR_MTRR_DEF_TYPE_WRITE_BACK },
	};
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entries[ARRAY_SIZE(entries)];
	} msrs = { .header.nmsrs = ARRAY_SIZE(entries) };

	memcpy(msrs.entries, entries, sizeof(entries));
	int done = ioctl(vcpu->fd, KVM_SET_MSRS, &msrs);

	if (done == (int)ARRAY_SIZE(entries))
		return 0;
	int error = done < 0 ? errno : EINVAL;

	log_error("KVM refused MSR 0x%x of vCPU %u: %s", entries[done < 0 ? 0 : done].index,
		vcpu->index, strerror(error));
	return -error;
}
