// SPDX-License-Identifier: BSD-3-Clause
/*
 * The main process's sandbox. All that is used here is our own: embedded
 * policies, and paths of the user, before anything untrusted was read.
 */
#include "jail/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/fd.h"
#include "base/log.h"
#include "jail/policy.h"

/* The C library has it behind a feature test of the kernel's headers. */
#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1
#endif

#define HINT "; --disable-sandbox runs the VM without"

static int refused(const char *what)
{
	int error = errno;
	const char *limit = advice_limit(error);

	if (limit != NULL)
		log_error("sandbox: cannot %s: %s; %s", what, strerror(error), limit);
	else
		log_error("sandbox: cannot %s: %s" HINT, what, strerror(error));
	return -error;
}

int sandbox_begin(const struct sandbox_wish *wish, struct sandbox *ret_sandbox)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	/* Sanitizers make system calls of their own, and look into the process at its end. */
#ifdef SANITIZED
	const bool off = true;
#else
	const bool off = wish->off;
#endif

	if (off) {
		*ret_sandbox = (struct sandbox){ .on = false };
		return 0;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return refused("set no_new_privs");
	/* Ambient ones go with the permitted. */
	if (syscall(SYS_capset, &header, none) < 0)
		return refused("drop all capabilities");
	*ret_sandbox = (struct sandbox){
		.on = true,
		.log_violations = wish->log_violations,
		.pid = getpid(),
	};
	return 0;
}

/* ---- system calls ---- */

/* On the stack, because a new thread's first malloc() costs system calls. */
enum { INSTRUCTIONS_MAX = 256 };
/* What a program begins with: calls by other conventions. They kill here too. */
enum { CONVENTION_INSTRUCTIONS = 6 };

/*
 * A copy of the program in which a forbidden call is told to report_violation()
 * instead of ending the process without a word. For a process in a jail its
 * parent has the word.
 */
static void adapt(const struct sandbox *sandbox, const struct jail_program *program,
	struct sock_filter *ret_code)
{
	jail_program_adapt(program, sandbox->pid, ret_code);
	for (unsigned i = CONVENTION_INSTRUCTIONS; i < program->count; i++) {
		struct sock_filter *instruction = &ret_code[i];

		if (BPF_CLASS(instruction->code) == BPF_RET &&
			instruction->k == SECCOMP_RET_KILL_PROCESS)
			instruction->k = SECCOMP_RET_TRAP;
	}
}

int sandbox_enter(const struct sandbox *sandbox, const char *name)
{
	struct sock_filter code[INSTRUCTIONS_MAX];

	if (!sandbox->on)
		return 0;
	const struct jail_policy *policy = jail_policy_find(name);
	const struct jail_program *program = policy == NULL            ? NULL
					     : sandbox->log_violations ? &policy->log
								       : &policy->kill;

	if (program == NULL || program->count > INSTRUCTIONS_MAX) {
		log_error("sandbox: no policy '%s'; this is an error of crosvm's", name);
		return -EINVAL;
	}
	adapt(sandbox, program, code);
	struct sock_fprog filter = { .len = program->count, .filter = code };

	/* SPEC_ALLOW: no code of a second party runs in this process. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter) <
		0)
		return refused("install a seccomp filter");
	return 0;
}

static struct sigaction next_action;

/*
 * No lock, no memory: the call may have been made with any lock held. Whoever
 * handled this signal before restores the terminal.
 */
static void report_violation(int signal_number, siginfo_t *info, void *context)
{
	(void)context;
	if (info->si_code == SYS_SECCOMP)
		log_error("the sandbox forbids system call %d, which thread %d made; please report "
			  "it" HINT,
			info->si_syscall, gettid());
	(void)sigaction(signal_number, &next_action, NULL);
	raise(signal_number);
}

int sandbox_finish(const struct sandbox *sandbox)
{
	const struct sigaction action = {
		.sa_sigaction = report_violation,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};

	if (!sandbox->on)
		return 0;
	if (sigaction(SIGSYS, &action, &next_action) < 0)
		return refused("handle SIGSYS");
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		return refused("become non-dumpable");
	return 0;
}

/* ---- files ---- */

/* Of Landlock's interface, what newer kernels have than our headers. */
struct ruleset {
	uint64_t files;
	uint64_t network;
	uint64_t scopes;
};

/*
 * All that a version of the interface can handle: files always; binding and
 * connecting TCP sockets; abstract unix sockets. Not signals: vCPU threads,
 * which are in no domain, must get ours, and kernels before 6.15 refuse them.
 */
static const struct {
	struct ruleset handled;
	size_t size;
} interfaces[] = {
	{ { .files = 0x1fff }, 8 },
	{ { .files = 0x3fff }, 8 },
	{ { .files = 0x7fff }, 8 },
	{ { .files = 0x7fff, .network = 3 }, 16 },
	{ { .files = 0xffff, .network = 3 }, 16 },
	{ { .files = 0xffff, .network = 3, .scopes = 1 }, 24 },
};

static int allow_removal(int ruleset_fd, const char *path)
{
	char copy[PATH_MAX];

	if (strlen(path) >= sizeof(copy))
		return -ENAMETOOLONG;
	memcpy(copy, path, strlen(path) + 1);
	CLEANUP_FD int directory = open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC);
	const struct landlock_path_beneath_attr rule = {
		.allowed_access = LANDLOCK_ACCESS_FS_REMOVE_FILE,
		.parent_fd = directory,
	};

	if (directory < 0 || syscall(SYS_landlock_add_rule, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH,
				     &rule, 0) < 0)
		return -errno;
	return 0;
}

int sandbox_leave_files(const struct sandbox *sandbox, const char *const *paths, size_t count)
{
	if (!sandbox->on)
		return 0;
	long version =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	if (version < 1) {
		log_debug("sandbox: this kernel has no Landlock: %s", strerror(errno));
		return 0;
	}
	size_t newest = min_u64((uint64_t)version, ARRAY_SIZE(interfaces)) - 1;
	CLEANUP_FD int fd = (int)syscall(SYS_landlock_create_ruleset, &interfaces[newest].handled,
		interfaces[newest].size, 0);

	if (fd < 0)
		return refused("make a Landlock ruleset");
	for (size_t i = 0; i < count; i++) {
		int r = paths[i] != NULL ? allow_removal(fd, paths[i]) : 0;

		/* Then the socket is not removed at the end, and the next start does it. */
		if (r < 0)
			log_warn("sandbox: '%s' will be left behind: %s", paths[i], strerror(-r));
	}
	if (syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return refused("enter a Landlock domain");
	return 0;
}
