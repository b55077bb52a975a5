/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A process that holds nothing but the descriptors it was given and may make
 * only the system calls of its policy, for one device. What runs in it is taken
 * for hostile from its first message on; the jail is what keeps it there.
 *
 * It needs no root, no directory on the host and no set-up, writes nothing to
 * disk, and leaves nothing behind: the process is the first of its own pid
 * namespace, so it has no children to leave, and the kernel ends it with the
 * thread that made it. stages.c has all steps in their order.
 *
 *	const int fds[] = { socket, image.fd };
 *	const struct jail_config config = {
 *		.name = "block",
 *		.policy = jail_policy_find("block_device"),
 *		.keep_fds = fds,
 *		.keep_fd_count = ARRAY_SIZE(fds),
 *		.limits = { .spare_fds = 16, .threads = 1 + queues },
 *	};
 *	struct jail_process process;
 *	int r = jail_spawn(&config, serve_device, device, &process);  // for each device
 *	...
 *	r = jail_wait_ready(&process, 5000, &missing);                // once there is time
 *	...                                                           // pidfd: readable when it
 *ended jail_end(&process, &how);                                     // kills, reaps, closes
 *
 * Descriptors 0 to 2 must be open in the caller, on /dev/null if on nothing else.
 */
#pragma once

#include <signal.h>
#include <sys/types.h>

#include "base/util.h"
#include "jail/policy.h"

enum {
	JAIL_FDS_MAX = 64,
	JAIL_EXIT_STATUS = 125, /* of a process that died on its way into the jail */
};

struct jail_limits {
	unsigned spare_fds; /* descriptors that it may open or receive later, besides those kept */
	unsigned threads;   /* in all; held from Linux 5.14 on. 0: as in the caller, for all here */
	uint64_t
		memory; /* bytes of its own that it may add; shared ones, a guest's, do not count */
	uint64_t file_size; /* how long it may make a file, the one behind stderr included */
};

struct jail_config {
	const char *name; /* of the device, for messages; `ps` shows "crosvm-NAME" */
	const struct jail_policy *policy;
	/*
	 * What stays open, under the same numbers, besides stderr for the log, and
	 * stdin and stdout on /dev/null. Above 2. All become O_CLOEXEC.
	 */
	const int *keep_fds;
	size_t keep_fd_count;
	struct jail_limits limits;
	/*
	 * A directory, with what is mounted below it, that becomes the root instead of
	 * an empty one: read-only, nosuid, nodev, noexec. NULL: none. Relative to the
	 * caller's working directory. To reach what is there, root's process becomes
	 * the owner of the directory, and not nobody.
	 */
	const char *root;
	/*
	 * Go on where the host refuses a step, and say so in jail_wait_ready(). Never
	 * without no_new_privs, the closed descriptors, the seccomp filter, and the
	 * end with the parent.
	 */
	bool best_effort;
	/* For developers: calls outside of the policy are logged by the kernel, and made. */
	bool log_violations;
};

/* Who the process is in its user namespace: only its parent may map other ids than its own. */
struct jail_identity {
	uid_t uid;
	gid_t gid;
	uint32_t by_parent; /* true: it has; else the process maps these, which are its own. No
			       padding is sent */
};

/* One process, of whoever spawned it. Single-threaded use. */
struct jail_process {
	pid_t pid;
	int pidfd;     /* readable when it has ended */
	int status_fd; /* of jail_release() and jail_wait_ready() */
	struct jail_identity mapped;
	bool released;
};

/* What a best-effort jail may lack. */
enum jail_missing {
	JAIL_LACKS_USER_NAMESPACE = 1 << 0,
	JAIL_LACKS_PID_NAMESPACE = 1 << 1,
	JAIL_LACKS_MOUNT_NAMESPACE = 1 << 2,
	JAIL_LACKS_NET_NAMESPACE = 1 << 3,
	JAIL_LACKS_IPC_NAMESPACE = 1 << 4,
	JAIL_LACKS_UTS_NAMESPACE = 1 << 5,
	JAIL_LACKS_CGROUP_NAMESPACE = 1 << 6,
	JAIL_LACKS_ROOT = 1 << 7,     /* it sees the host's files by name; it cannot open them */
	JAIL_LACKS_IDENTITY = 1 << 8, /* it has the caller's user and groups */
	JAIL_LACKS_SESSION = 1 << 9,  /* it is in the caller's session */
	JAIL_LACKS_LIMITS = 1 << 10,  /* not all resource limits hold */
	JAIL_LACKS_SECUREBITS =
		1 << 11, /* capabilities could come back by execve(), which is refused */
	JAIL_LACKS_CAPABILITIES = 1 << 12,
};

/*
 * Makes the process, which once it is released enters the jail by itself while the
 * caller goes on, runs `main` and exits with what that returns. To be called by a process with
 * one thread, which lives as long as the jailed one shall: the kernel ends the
 * latter with the calling thread. The caller must be dumpable still.
 *
 * 0 or -errno; a message says why and what to do. -EINVAL for a wrong config.
 * What fails in the process itself is told there, on stderr, and ends it.
 * System calls of the caller: 9; 15 as root, since then the process becomes the
 * user nobody. A root that may not change ids stays itself, as other users do.
 */
MUST_CHECK int jail_spawn(const struct jail_config *config, int (*main)(void *argument),
	void *argument, struct jail_process *ret_process);

/*
 * Lets the process begin: what it does takes processor time, and nobody else may have
 * that to spare before. It holds all that the caller had when it was made, but does nothing
 * and hears nobody. More than once is fine; jail_wait_ready() does it too.
 */
void jail_release(struct jail_process *process);

/*
 * Waits until the jail is complete and `main` about to run; once for each
 * process. ret_missing gets the enum jail_missing bits of a best-effort jail,
 * else 0. -ESRCH: it died, and said why; -ETIMEDOUT.
 */
MUST_CHECK int jail_wait_ready(struct jail_process *process, int timeout_ms, uint32_t *ret_missing);

/* "user namespace, empty root": what the bits stand for. Always terminated. */
void jail_describe_missing(uint32_t missing, char *text, size_t size);

/*
 * Kills the process if it has not ended, reaps it and closes the descriptors.
 * ret_how gets what waitid() says (si_code, si_status); may be NULL.
 */
void jail_end(struct jail_process *process, siginfo_t *ret_how);
