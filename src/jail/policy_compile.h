/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Makes programs for the kernel of a policy's rules: at build
 * time for the policies that are part of the binary, at run time for a user's
 * own files. Both before anything untrusted runs; a process that is to be
 * jailed never parses.
 *
 * Every program first ends the process if the call is not made by its architecture's
 * 64-bit convention (32-bit and x32 calls have other numbers for the same things).
 */
#pragma once

#include "jail/policy.h"
#include "jail/policy_parse.h"

/* "x86_64", "aarch64". -ENOENT: another. */
MUST_CHECK int policy_architecture_find(
	const char *name, enum policy_architecture *ret_architecture);

enum policy_mode {
	POLICY_KILL, /* a call without a rule ends the process, SECCOMP_RET_KILL_PROCESS */
	POLICY_LOG,  /* it is let through, and the kernel's log tells: SECCOMP_RET_LOG */
};

/*
 * The program is the caller's to free. -EINVAL for a rule of a system call that
 * the architecture does not have, -E2BIG; ret_error says which. -ENOMEM.
 */
MUST_CHECK int policy_compile(const struct policy *policy, enum policy_mode mode,
	struct sock_filter **ret_instructions, unsigned short *ret_count,
	struct policy_error *ret_error);

/*
 * A jail_policy of the file NAME.policy in a directory, for
 * --seccomp-policy-dir; errors as above and those of policy_parse_file(). It is
 * the caller's, to be freed when no process is to be jailed by it any more.
 */
MUST_CHECK int policy_load(const char *directory, const char *name,
	enum policy_architecture architecture, struct jail_policy **ret_policy,
	struct policy_error *ret_error);
void policy_unload(struct jail_policy *policy);
