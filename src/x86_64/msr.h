/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The model-specific registers that firmware sets and a kernel expects: fast
 * string operations on, all memory write-back by default. All others stay as
 * the processor resets them.
 */
#pragma once

#include "kvm/vcpu.h"

/* 0 or -errno, logged. Main thread, before the vCPU runs. */
MUST_CHECK int msr_set_boot_state(const struct kvm_vcpu *vcpu);
