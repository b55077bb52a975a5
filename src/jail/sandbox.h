/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the main process gives up once it is made: it must reach KVM, terminal
 * and sockets, so it is in no jail, but it keeps its descriptors only, and each
 * of its threads the system calls of a policy. What runs in it afterwards reads
 * what guests, devices' processes and clients write.
 *
 *	r = sandbox_begin(&sandbox, wanted);       before the first thread
 *	r = sandbox_enter(&sandbox, "main_vcpu");  in each thread, when it needs no more
 *	r = sandbox_leave_files(&sandbox, ...);    main thread; later threads of it inherit it
 *	r = sandbox_finish(&sandbox);              main thread, once
 *
 * no_new_privs and empty capabilities hold for all threads made after
 * sandbox_begin(), a policy and the files for the calling thread and those
 * that it makes. The bounding set stays as it is: to empty it takes a system
 * call for each of 41 capabilities, and with no_new_privs it bounds nothing.
 *
 * A system call outside of a policy is not made: the process says which it was
 * and ends by SIGSYS.
 */
#pragma once

#include <sys/types.h>

#include "base/util.h"

/* Zeroed: off. Filled by sandbox_begin(), read by all threads. */
struct sandbox {
	bool on;
	bool log_violations; /* for developers: forbidden calls are logged and made */
	pid_t pid;
};

struct sandbox_wish {
	bool off; /* nothing is given up; all functions do nothing. So are builds with sanitizers */
	bool log_violations;
};

/* 0 or -errno, logged. */
MUST_CHECK int sandbox_begin(const struct sandbox_wish *wish, struct sandbox *ret_sandbox);

/* For the calling thread, by the name of an embedded policy. 0 or -errno, logged. */
MUST_CHECK int sandbox_enter(const struct sandbox *sandbox, const char *policy);

/*
 * From now on this thread opens, makes and changes no file by its path; it may
 * remove files from the directories that the `count` paths (NULL: none) lie in,
 * which is where our sockets are. By Landlock; without it, which is said at the
 * level debug, policies alone keep files closed. 0 or -errno, logged.
 */
MUST_CHECK int sandbox_leave_files(
	const struct sandbox *sandbox, const char *const *paths, size_t count);

/* The process tells nobody of its memory any more, and says by which call it died. */
MUST_CHECK int sandbox_finish(const struct sandbox *sandbox);
