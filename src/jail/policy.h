/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which system calls a process may make: programs for the kernel's seccomp,
 * made from the texts in seccomp/ when crosvm is built and part of the binary,
 * so that nobody can put another file in their place.
 *
 * HACKING.md, "Write a policy", has the language of the texts; policy_compile.h
 * makes a policy of a file at run time.
 */
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include "base/util.h"

/*
 * What a policy calls OWN_PID is this number in its programs, which no process
 * has; who installs one puts the process's id in its place.
 */
#define JAIL_OWN_PID 0x4f776e50

struct jail_program {
	const struct sock_filter *instructions;
	unsigned short count;
};

struct jail_policy {
	const char *name;         /* of its file: "block_device" */
	unsigned syscalls;        /* how many it lets through, whole or in part */
	struct jail_program kill; /* ends the process at the first other system call */
	struct jail_program log;  /* lets it through and the kernel's log tell, for developers */
};

/* The embedded policy of that name; NULL: there is none. */
const struct jail_policy *jail_policy_find(const char *name);
/* All of them, for tests and listings. */
const struct jail_policy *jail_policy_all(size_t *ret_count);

/* The program, with room for all of it, for the process of that id. */
void jail_program_adapt(
	const struct jail_program *program, pid_t pid, struct sock_filter *ret_code);
