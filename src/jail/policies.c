// SPDX-License-Identifier: BSD-3-Clause
/*
 * The embedded policies. Their table is made by tools/compile-policies when
 * crosvm is built, and constant from then on.
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
