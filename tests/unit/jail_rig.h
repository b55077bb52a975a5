/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Jailed processes to look at. A helper process, root or an ordinary user,
 * spawns the jailed one and waits; the test, often root, looks at both from
 * outside, and what the jailed one saw comes back in shared memory.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "jail/jail.h"

/* An ordinary user on every Debian; what jails of root become as well. */
enum { USER = 65534 };

struct rig_shared {
	int spawn_result;
	int ready_result;
	uint32_t missing;
	pid_t pid;
	siginfo_t how;
	volatile int ready;
	volatile int stop;     /* the helper ends the jailed process */
	volatile int seen[64]; /* what the jailed process saw, its own business */
};

struct rig {
	bool as_user;
	/* May be changed before rig_start(). */
	struct jail_config config;
	int (*main)(void *shared);
	void (*prepare)(void); /* in the helper, before it spawns */

	struct rig_shared *shared;
	pid_t helper;
	int log_fd;
	char log[4096]; /* what was written to stderr; valid after rig_finish() */
};

/* A filter that lets everything through: what holds then is not the filter's work. */
static const struct sock_filter rig_allow_all[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
static const struct jail_policy rig_open_policy = {
	.name = "open",
	.kill = { rig_allow_all, 1 },
	.log = { rig_allow_all, 1 },
};

/* The jailed process lives until the rig ends it. */
// cppcheck-suppress constParameter ; jail_spawn() gives its argument on as it is
static inline int rig_stay(void *shared)
{
	while (shared != NULL)
		(void)poll(NULL, 0, 1000);
	return 1;
}

static inline void rig_become_user(void)
{
	if (setgroups(0, NULL) < 0 || setresgid(USER, USER, USER) < 0 ||
		setresuid(USER, USER, USER) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0)
		abort();
}

static inline void rig_help(struct rig *rig)
{
	struct rig_shared *shared = rig->shared;
	struct jail_process process;

	if (rig->as_user && geteuid() == 0)
		rig_become_user();
	/* A test that fails leaves nothing behind. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || dup2(rig->log_fd, STDERR_FILENO) < 0)
		_exit(1);
	if (rig->prepare != NULL)
		rig->prepare();
	shared->spawn_result = jail_spawn(&rig->config, rig->main, shared, &process);
	if (shared->spawn_result == 0) {
		shared->pid = process.pid;
		shared->ready_result = jail_wait_ready(&process, 10000, &shared->missing);
	}
	shared->ready = 1;
	if (shared->spawn_result != 0)
		_exit(0);
	struct pollfd ended = { .fd = process.pidfd, .events = POLLIN };

	while (shared->stop == 0 && poll(&ended, 1, 2) == 0)
		;
	jail_end(&process, &shared->how);
	_exit(0);
}

static inline void rig_init(struct rig *rig, bool as_user)
{
	*rig = (struct rig){
		.as_user = as_user,
		.config = {
			.name = "test",
			.policy = &rig_open_policy,
			.limits = { .spare_fds = 16 },
		},
		.main = rig_stay,
	};
}

/* Returns when the jail is complete, or has failed. */
static inline void rig_start(struct rig *rig)
{
	rig->shared = mmap(NULL, sizeof(*rig->shared), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(rig->shared, MAP_FAILED);
	rig->log_fd = memfd_create("log", MFD_CLOEXEC);
	rig->helper = fork();
	assert_true(rig->helper >= 0);
	if (rig->helper == 0)
		rig_help(rig);
	for (int i = 0; i < 10000 && rig->shared->ready == 0; i++)
		(void)poll(NULL, 0, 1);
	assert_true(rig->shared->ready);
}

/* Ends the jailed process if it has not ended; everything is valid then but the process. */
static inline void rig_finish(struct rig *rig)
{
	int status;

	rig->shared->stop = 1;
	assert_int_equal(waitpid(rig->helper, &status, 0), rig->helper);
	ssize_t n = pread(rig->log_fd, rig->log, sizeof(rig->log) - 1, 0);

	rig->log[n > 0 ? n : 0] = '\0';
	close(rig->log_fd);
}

static inline void rig_free(struct rig *rig)
{
	munmap(rig->shared, sizeof(*rig->shared));
}

/* Waits for the jailed process to end by itself: si_status, or -signal. */
static inline int rig_result(struct rig *rig)
{
	siginfo_t helper;

	(void)waitid(P_PID, (id_t)rig->helper, &helper, WEXITED | WNOWAIT);
	rig_finish(rig);
	const siginfo_t *how = &rig->shared->how;

	return how->si_code == CLD_EXITED ? how->si_status : -how->si_status;
}

/* Starts, waits for the end, frees. The log stays. */
static inline int rig_run(struct rig *rig)
{
	rig_start(rig);
	if (rig->shared->spawn_result != 0) {
		fprintf(stderr, "jail_spawn: %s\n", strerror(-rig->shared->spawn_result));
		rig_finish(rig);
		rig_free(rig);
		return -1000;
	}
	int result = rig_result(rig);

	rig_free(rig);
	return result;
}

/* A file of /proc/PID, as far as it fits. False: not allowed to look. */
static inline bool rig_read_proc(pid_t pid, const char *name, char *text, size_t size)
{
	char path[128];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t done = 0;
	ssize_t n = 1;

	while (fd >= 0 && n > 0 && done < size - 1) {
		n = read(fd, text + done, size - 1 - done);
		done += n > 0 ? (size_t)n : 0;
	}
	text[done] = '\0';
	return fd >= 0 && n >= 0;
}

/* Whether the embedded policies end a process at a violation. */
#ifdef SANITIZED
static const bool rig_policies_kill = false;
#else
static const bool rig_policies_kill = true;
#endif

/* Why no jail can be made here, or NULL. */
static inline const char *rig_why_not(bool as_user)
{
#if defined(__SANITIZE_THREAD__)
	return "ThreadSanitizer's thread does not survive the clone()";
#endif
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		if (as_user && geteuid() == 0)
			rig_become_user();
		_exit(unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 && errno != EINVAL ? errno : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WEXITSTATUS(status) == 0 ? NULL : strerror(WEXITSTATUS(status));
}
