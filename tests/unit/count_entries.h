/* SPDX-License-Identifier: BSD-3-Clause */
/* How many entries a directory has, for tests that look for what is left. */
#pragma once

#include "unit/unit.h"

#include <dirent.h>

static inline unsigned count_entries(const char *path)
{
	DIR *directory = opendir(path);
	unsigned count = 0;

	assert_non_null(directory);
	while (readdir(directory) != NULL)
		count++;
	closedir(directory);
	return count;
}

/* The descriptors of this process, and always as many more. */
static inline unsigned count_fds(void)
{
	return count_entries("/proc/self/fd");
}
