// SPDX-License-Identifier: BSD-3-Clause
/* A table of sysctls, and what they say when they forbid namespaces. */
#include "jail/advice.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/advice.h"
#include "base/fd.h"

/* Those of the other namespaces cannot be seen from a new user namespace, which has its own. */
static const struct {
	const char *path;
	long forbids; /* the value that does */
	const char *advice;
} knobs[] = {
	{ "kernel/unprivileged_userns_clone", 0,
		"the host forbids user namespaces: sysctl kernel.unprivileged_userns_clone=1" },
	{ "kernel/apparmor_restrict_unprivileged_userns", 1,
		"AppArmor restricts user namespaces: give crosvm a profile with 'userns,', or "
		"sysctl kernel.apparmor_restrict_unprivileged_userns=0" },
	{ "user/max_user_namespaces", 0,
		"the host allows no user namespaces: sysctl user.max_user_namespaces=10000" },
	{ "user/max_pid_namespaces", 0,
		"the host allows no pid namespaces: sysctl user.max_pid_namespaces=10000" },
};

/* -1: no such knob here. */
static long read_knob(const char *proc_sys, const char *path)
{
	char name[256], text[32];
	char *end;

	snprintf(name, sizeof(name), "%s/%s", proc_sys, path);
	CLEANUP_FD int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : fd_pread_most(fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return -1;
	text[n] = '\0';
	long value = strtol(text, &end, 10);

	return end == text ? -1 : value;
}

const char *jail_advice(const char *proc_sys, int error)
{
	const char *limit = advice_limit(error);

	if (limit != NULL)
		return limit;
	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++)
		if (read_knob(proc_sys, knobs[i].path) == knobs[i].forbids)
			return knobs[i].advice;
	switch (error) {
	case ENOSPC:
	case EUSERS:
		return "a limit of the host's is reached: raise the sysctls user.max_*_namespaces";
	case EINVAL:
	case ENOSYS:
		return "the host's kernel is built without these namespaces";
	default:
		return "a container, its seccomp filter or a security module of the host forbids "
		       "it: allow it there";
	}
}
