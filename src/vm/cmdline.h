/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel's command line: only what this machine needs, then what the user
 * wrote, so that the user's word counts.
 */
#pragma once

#include "vm/config.h"

/*
 * Makes the command line into `ret_line` (`size` bytes with the NUL). It takes
 * `max` bytes at most, what the kernel accepts. -E2BIG when it is too long,
 * -EINVAL for control characters in the user's part; both are logged.
 */
MUST_CHECK int cmdline_make(
	const struct vm_config *config, uint64_t max, char *ret_line, size_t size);
