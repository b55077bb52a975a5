/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The names that a policy may use for numbers, with the values that the
 * kernel's headers give them. A name that is missing is one line more in the
 * table. Constant, so nobody can lie to it.
 */
#pragma once

#include "base/util.h"

/* -ENOENT: no such name. */
MUST_CHECK int policy_constant_find(const char *name, uint64_t *ret_value);
/* As above, but only the names of error numbers: "ENOSYS". */
MUST_CHECK int policy_errno_find(const char *name, int *ret_errno);
