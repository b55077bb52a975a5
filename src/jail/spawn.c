// SPDX-License-Identifier: BSD-3-Clause
/*
 * The parent's side of the jail. One clone() makes process, user and pid
 * namespace and pidfd; all else is the new process's own work. clone() and not
 * clone3(), which can do no more here and which containers answer with ENOSYS.
 *
 * The process is trusted until it has reported; what it says later comes by
 * other ways and is not read here.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "jail/advice.h"
#include "jail/jail.h"
#include "jail/stages.h"

/* Whom root's processes become: nobody, on every distribution. */
enum { NOBODY = 65534 };

static const struct {
	uint32_t bit;
	const char *name;
} missing_names[] = {
	{ JAIL_LACKS_USER_NAMESPACE, "user namespace" },
	{ JAIL_LACKS_PID_NAMESPACE, "pid namespace" },
	{ JAIL_LACKS_MOUNT_NAMESPACE, "mount namespace" },
	{ JAIL_LACKS_NET_NAMESPACE, "net namespace" },
	{ JAIL_LACKS_IPC_NAMESPACE, "ipc namespace" },
	{ JAIL_LACKS_UTS_NAMESPACE, "uts namespace" },
	{ JAIL_LACKS_CGROUP_NAMESPACE, "cgroup namespace" },
	{ JAIL_LACKS_ROOT, "empty root" },
	{ JAIL_LACKS_IDENTITY, "own user" },
	{ JAIL_LACKS_SESSION, "own session" },
	{ JAIL_LACKS_LIMITS, "resource limits" },
	{ JAIL_LACKS_SECUREBITS, "locked securebits" },
	{ JAIL_LACKS_CAPABILITIES, "empty capabilities" },
};

void jail_describe_missing(uint32_t missing, char *text, size_t size)
{
	size_t length = 0;

	text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(missing_names) && length < size; i++)
		if ((missing & missing_names[i].bit) != 0)
			length += (size_t)snprintf(text + length, size - length, "%s%s",
				length == 0 ? "" : ", ", missing_names[i].name);
}

static int check_config(const struct jail_config *config)
{
	if (config->policy == NULL || config->keep_fd_count > JAIL_FDS_MAX)
		return -EINVAL;
	for (size_t i = 0; i < config->keep_fd_count; i++)
		if (config->keep_fds[i] <= STDERR_FILENO)
			return -EINVAL;
	return 0;
}

/* Above stdio, which the new process changes. */
static int make_channel(int *ret_ours, int *ret_theirs)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	CLEANUP_FD int ours = pair[0];
	CLEANUP_FD int theirs = pair[1];
	int r = fd_lift(&ours);

	if (r == 0)
		r = fd_lift(&theirs);
	if (r < 0)
		return r;
	*ret_ours = fd_steal(&ours);
	*ret_theirs = fd_steal(&theirs);
	return 0;
}

static int open_self(int *ret_pidfd)
{
	CLEANUP_FD int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (fd < 0)
		return -errno;
	int r = fd_lift(&fd);

	if (r == 0)
		*ret_pidfd = fd_steal(&fd);
	return r;
}

/*
 * fork() with namespaces and a pidfd. As glibc's fork() does, the kernel writes
 * the new id where the C library keeps that of its first thread; where the
 * kernel does not tell the place, only error-checking mutexes miss it.
 */
static pid_t clone_process(unsigned long namespaces, int *ret_pidfd)
{
	unsigned long flags = namespaces | CLONE_PIDFD | SIGCHLD;
	void *tid_place = NULL;

	if (prctl(PR_GET_TID_ADDRESS, &tid_place) == 0 && tid_place != NULL)
		flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
	return (pid_t)syscall(SYS_clone, flags, NULL, ret_pidfd, tid_place, 0UL);
}

/* With all namespaces, or with those that the host allows when that is good enough. */
static pid_t clone_with_namespaces(bool best_effort, struct jail_birth *birth, int *ret_pidfd)
{
	static const struct {
		unsigned long namespaces;
		uint32_t missing;
	} attempts[] = {
		{ CLONE_NEWUSER | CLONE_NEWPID, 0 },
		{ CLONE_NEWUSER, JAIL_LACKS_PID_NAMESPACE },
		{ CLONE_NEWPID, JAIL_LACKS_USER_NAMESPACE },
		{ 0, JAIL_LACKS_USER_NAMESPACE | JAIL_LACKS_PID_NAMESPACE },
	};
	pid_t pid = -1;

	for (size_t i = 0; pid < 0 && i < (best_effort ? ARRAY_SIZE(attempts) : 1); i++) {
		birth->missing = attempts[i].missing;
		pid = clone_process(attempts[i].namespaces, ret_pidfd);
	}
	return pid;
}

static int write_map(pid_t pid, const char *name, unsigned id)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return jail_write_map(path, id);
}

/* A container may have no nobody; its root, which is no root of the host's, must do then. */
static int map_one(
	pid_t pid, const char *name, unsigned wanted, unsigned (*own)(void), unsigned *ret_id)
{
	*ret_id = wanted;
	int r = write_map(pid, name, wanted);

	if (r == -EPERM || r == -EINVAL) {
		*ret_id = own();
		r = write_map(pid, name, *ret_id);
	}
	return r;
}

/*
 * Only a process of the namespace above may map other ids than its own. A root
 * without CAP_SETUID or CAP_SETGID is as any user: its process does what theirs do.
 */
static int map_ids(pid_t pid, const struct jail_birth *birth, struct jail_identity *ret_mapped)
{
	struct jail_identity mapped = { .by_parent = true };
	int r = map_one(pid, "gid_map", birth->gid, getegid, &mapped.gid);

	if (r == 0)
		r = map_one(pid, "uid_map", birth->uid, geteuid, &mapped.uid);
	if (r == -EPERM)
		mapped = (struct jail_identity){ .uid = geteuid(), .gid = getegid() };
	else if (r < 0)
		return r;
	*ret_mapped = mapped;
	return 0;
}

static int fill_birth(const struct jail_config *config, struct jail_birth *birth)
{
	struct stat owner = { .st_uid = NOBODY, .st_gid = NOBODY };

	birth->by_root = geteuid() == 0;
	if (!birth->by_root)
		owner = (struct stat){ .st_uid = geteuid(), .st_gid = getegid() };
	else if (config->root != NULL && stat(config->root, &owner) < 0)
		return -errno;
	birth->uid = owner.st_uid;
	birth->gid = owner.st_gid;
	return 0;
}

/*
 * The new process. It waits to be let go; should the parent be killed meanwhile,
 * nobody holds the other end: of two such processes the younger has that of the
 * elder, and goes first.
 */
static _Noreturn void live(const struct jail_config *config, struct jail_birth *birth,
	int (*main)(void *argument), void *argument)
{
	ssize_t size;

	do {
		size = recv(birth->status_fd, &birth->mapped, sizeof(birth->mapped), 0);
	} while (size < 0 && errno == EINTR);
	if (size != sizeof(birth->mapped))
		_exit(JAIL_EXIT_STATUS);
	jail_enter(config, birth);
	_exit(main(argument));
}

static int refused(const struct jail_config *config, const char *what, int error, const char *help)
{
	log_error("jail of %s: cannot %s: %s; %s", config->name, what, strerror(error), help);
	return -error;
}

int jail_spawn(const struct jail_config *config, int (*main)(void *argument), void *argument,
	struct jail_process *ret_process)
{
	struct jail_birth birth = { 0 };
	CLEANUP_FD int channel = -1;
	CLEANUP_FD int theirs = -1;
	CLEANUP_FD int self = -1;
	struct jail_process process = { .pidfd = -1, .status_fd = -1 };
	int r = check_config(config);

	if (r < 0)
		return refused(config, "use its description", -r, "this is an error of crosvm's");
	r = make_channel(&channel, &theirs);
	if (r == 0)
		r = open_self(&self);
	if (r < 0)
		return refused(config, "prepare it", -r, "are there too many open files?");
	r = fill_birth(config, &birth);
	if (r < 0)
		return refused(config, "look at its directory", -r, "is it there?");
	birth.parent_pidfd = self;
	birth.status_fd = theirs;
	process.pid = clone_with_namespaces(config->best_effort, &birth, &process.pidfd);
	if (process.pid < 0) {
		int error = errno;

		return refused(config, "make a process with user and pid namespace", error,
			jail_advice("/proc/sys", error));
	}
	if (process.pid == 0) {
		/* Else it would wait for a parent that was killed in the meantime, for ever. */
		fd_close(&channel);
		live(config, &birth, main, argument);
	}
	process.mapped = (struct jail_identity){ .uid = birth.uid, .gid = birth.gid };
	if (birth.by_root && (birth.missing & JAIL_LACKS_USER_NAMESPACE) == 0) {
		r = map_ids(process.pid, &birth, &process.mapped);
		if (r < 0) {
			jail_end(&process, NULL);
			return refused(config, "map its ids", -r, jail_advice("/proc/sys", -r));
		}
	}
	process.status_fd = fd_steal(&channel);
	*ret_process = process;
	return 0;
}

void jail_release(struct jail_process *process)
{
	/* One that has died is found when it is waited for. */
	if (!process->released)
		(void)!send(process->status_fd, &process->mapped, sizeof(process->mapped),
			MSG_NOSIGNAL);
	process->released = true;
}

int jail_wait_ready(struct jail_process *process, int timeout_ms, uint32_t *ret_missing)
{
	struct pollfd status = { .fd = process->status_fd, .events = POLLIN };
	struct jail_report report;
	int n;

	jail_release(process);
	do {
		n = poll(&status, 1, timeout_ms);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n == 0 ? -ETIMEDOUT : -errno;
	ssize_t size = recv(process->status_fd, &report, sizeof(report), MSG_DONTWAIT);

	fd_close(&process->status_fd);
	if (size != sizeof(report))
		return -ESRCH;
	*ret_missing = report.missing;
	return 0;
}

void jail_end(struct jail_process *process, siginfo_t *ret_how)
{
	siginfo_t how = { 0 };

	if (process->pidfd >= 0) {
		(void)syscall(SYS_pidfd_send_signal, process->pidfd, SIGKILL, NULL, 0);
		while (waitid(P_PIDFD, (id_t)process->pidfd, &how, WEXITED) < 0 && errno == EINTR)
			;
	}
	fd_close(&process->pidfd);
	fd_close(&process->status_fd);
	if (ret_how != NULL)
		*ret_how = how;
}
