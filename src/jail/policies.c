// SPDX-License-Identifier: BSD-3-Clause
/*
 * The embedded policies. Their table is made by tools/compile-policies when
 * crosvm is built, and constant from then on; who enters one has a copy.
 */
#include <string.h>

#include "jail/policy.h"

#include "seccomp_policies.h"

const struct jail_policy *jail_policy_all(size_t *ret_count)
{
	*ret_count = ARRAY_SIZE(policies);
	return policies;
}

const struct jail_policy *jail_policy_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(policies); i++)
		if (strcmp(policies[i].name, name) == 0)
			return &policies[i];
	return NULL;
}

void jail_program_adapt(const struct jail_program *program, pid_t pid, struct sock_filter *ret_code)
{
	memcpy(ret_code, program->instructions, program->count * sizeof(ret_code[0]));
	for (unsigned i = 0; i < program->count; i++)
		if (BPF_CLASS(ret_code[i].code) == BPF_JMP && ret_code[i].k == JAIL_OWN_PID)
			ret_code[i].k = (uint32_t)pid;
}
