// SPDX-License-Identifier: BSD-3-Clause
/* Two tables of errors. The host may say any of them, for reasons of its own. */
#include "base/advice.h"

#include <errno.h>

struct advice {
	int error;
	const char *text;
};

static const struct advice opening[] = {
	{ EACCES, "this user may not: pass a copy, or ask its owner" },
	{ EROFS, "its file system is read-only" },
	{ EISDIR, "it is a directory, pass a file in it" },
	{ EIO, "see the host's kernel log" },
};

static const struct advice limits[] = {
	{ EMFILE, "raise the limit on open files, 'ulimit -n'" },
	{ ENFILE, "the host has too many open files: raise the sysctl fs.file-max" },
	{ EAGAIN, "raise the limit on processes, 'ulimit -u' or pids.max of the cgroup" },
	{ ENOMEM, "the host is short of memory, or 'ulimit -d' or 'ulimit -v' is too low" },
};

static const char *find(const struct advice *rows, size_t count, int error)
{
	for (size_t i = 0; i < count; i++)
		if (rows[i].error == error)
			return rows[i].text;
	return NULL;
}

const char *advice_limit(int error)
{
	return find(limits, ARRAY_SIZE(limits), error);
}

const char *advice_open(int error)
{
	const char *text = find(opening, ARRAY_SIZE(opening), error);

	if (text == NULL)
		text = advice_limit(error);
	return text != NULL ? text : "check the path";
}
