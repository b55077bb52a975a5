// SPDX-License-Identifier: BSD-3-Clause
/*
 * The main process's sandbox: what it lets a thread do and what ends the
 * process. Each case is a process of its own. Nobody lies here but the cases.
 */
#include "unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/thread.h"
#include "jail/policy.h"
#include "jail/sandbox.h"

enum { GOOD = 7 };

struct outcome {
	int status;
	char said[1024];
};

static void *do_nothing(void *argument)
{
	return argument;
}

/* A process that runs `act` in the sandbox with that policy; NULL: with none. */
static struct outcome run_in_sandbox(
	const struct sandbox_wish *wish, const char *policy, int (*act)(const struct sandbox *))
{
	struct outcome outcome = { 0 };
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	pid_t pid = fork();

	if (pid == 0) {
		struct sandbox sandbox;
		pthread_t first;

		/* cmocka catches it, and the first thread makes the C library ready for others. */
		signal(SIGSYS, SIG_DFL);
		if (thread_start(&first, do_nothing, NULL) == 0)
			pthread_join(first, NULL);
		dup2(ends[1], STDERR_FILENO);
		if (sandbox_begin(wish, &sandbox) < 0 || sandbox_finish(&sandbox) < 0)
			_exit(1);
		if (policy != NULL && sandbox_enter(&sandbox, policy) < 0)
			_exit(2);
		_exit(act(&sandbox));
	}
	close(ends[1]);
	assert_int_equal(waitpid(pid, &outcome.status, 0), pid);
	assert_true(read(ends[0], outcome.said, sizeof(outcome.said) - 1) >= 0);
	close(ends[0]);
	return outcome;
}

static const struct sandbox_wish on = { .off = false };

static int has_no_rights(const struct sandbox *sandbox)
{
	char text[4096];
	CLEANUP_FD int fd = open("/proc/thread-self/status", O_RDONLY);
	static const char *const wanted[] = { "CapInh:\t0000000000000000",
		"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
		"CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t0" };
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	(void)sandbox;
	if (n < 0 || prctl(PR_GET_DUMPABLE) != 0)
		// cppcheck-suppress resourceLeak ; CLEANUP_FD closes it
		return 1;
	text[n] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		if (strstr(text, wanted[i]) == NULL)
			return 2;
	return GOOD;
}

static void it_has_no_capabilities(void **state)
{
	(void)state;
	struct outcome outcome = run_in_sandbox(&on, NULL, has_no_rights);

	assert_int_equal(outcome.status, W_EXITCODE(GOOD, 0));
}

static int keep_all(const struct sandbox *sandbox)
{
	if (sandbox->on || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 0 ||
		sandbox_enter(sandbox, "main_rng") < 0)
		return 1;
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	// cppcheck-suppress resourceLeak ; CLEANUP_FD closes it
	return fd < 0 ? 2 : GOOD;
}

static void off_is_off(void **state)
{
	(void)state;
	const struct sandbox_wish off = { .off = true };
	struct outcome outcome = run_in_sandbox(&off, "main_rng", keep_all);

	assert_int_equal(outcome.status, W_EXITCODE(GOOD, 0));
}

/* ---- forbidden ---- */

#define ACT(name, call)                                                                            \
	static int name(const struct sandbox *sandbox)                                             \
	{                                                                                          \
		(void)sandbox;                                                                     \
		(void)!(call);                                                                     \
		return GOOD;                                                                       \
	}

ACT(make_socket, syscall(SYS_socket, AF_INET, SOCK_STREAM, 0))
ACT(make_process, syscall(SYS_clone, (unsigned long)SIGCHLD, 0, 0, 0, 0))
ACT(run_program, syscall(SYS_execve, "/bin/true", NULL, NULL))
ACT(make_code, syscall(SYS_mmap, NULL, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
ACT(kill_other, syscall(SYS_kill, 1, SIGKILL))
ACT(signal_other, syscall(SYS_tgkill, 1, 1, SIGABRT))
ACT(trace_other, syscall(SYS_ptrace, 16, 1, 0, 0))
ACT(make_ring, syscall(SYS_io_uring_setup, 8, NULL))
ACT(become_root, syscall(SYS_setuid, 0))
ACT(be_dumpable, syscall(SYS_prctl, PR_SET_DUMPABLE, 1))
ACT(make_vm, syscall(SYS_ioctl, 0, 0xae01, 0))
ACT(push_input, syscall(SYS_ioctl, 0, 0x5412, "x"))

static const char starter[] = "main_starter";

/* Calls a check with the name of each policy that a thread of the main process has. */
static void for_each_policy(void (*check)(const char *policy))
{
	size_t count, ours = 0;
	const struct jail_policy *policies = jail_policy_all(&count);

	for (size_t i = 0; i < count; i++) {
		if (strncmp(policies[i].name, "main_", strlen("main_")) != 0)
			continue;
		check(policies[i].name);
		ours++;
	}
	assert_true(ours >= 11);
}

static void check_that_acts_end_it(const char *policy)
{
	static const struct {
		int (*act)(const struct sandbox *sandbox);
		long number;
		const char *but; /* the policy that allows it */
	} acts[] = {
		{ make_socket, SYS_socket },
		{ make_process, SYS_clone },
		{ run_program, SYS_execve },
		{ make_code, SYS_mmap },
		{ kill_other, SYS_kill },
		{ signal_other, SYS_tgkill },
		{ trace_other, SYS_ptrace },
		{ make_ring, SYS_io_uring_setup, starter },
		{ become_root, SYS_setuid },
		{ be_dumpable, SYS_prctl },
		{ make_vm, SYS_ioctl },
		{ push_input, SYS_ioctl },
	};
	for (size_t i = 0; i < ARRAY_SIZE(acts); i++) {
		char number[32];

		if (acts[i].but != NULL && strcmp(acts[i].but, policy) == 0)
			continue;
		struct outcome outcome = run_in_sandbox(&on, policy, acts[i].act);

		snprintf(number, sizeof(number), "system call %ld,", acts[i].number);
		if (!WIFSIGNALED(outcome.status) || WTERMSIG(outcome.status) != SIGSYS ||
			strstr(outcome.said, number) == NULL)
			fail_msg("%s: call %ld: status 0x%x, '%s'", policy, acts[i].number,
				outcome.status, outcome.said);
	}
}

/* Each by each thread of the main process. The first that may is a policy that is too wide. */
static void forbidden_calls_end_it(void **state)
{
	(void)state;
	for_each_policy(check_that_acts_end_it);
}

static int crash(const struct sandbox *sandbox)
{
	(void)sandbox;
	abort();
}

static void a_crash_looks_like_one(void **state)
{
	(void)state;
	struct outcome outcome = run_in_sandbox(&on, "main_vcpu", crash);

	assert_true(WIFSIGNALED(outcome.status));
	assert_int_equal(WTERMSIG(outcome.status), SIGABRT);
	assert_string_equal(outcome.said, "");
}

/* 0, or the errno. */
static int try_open(const char *path, int flags)
{
	CLEANUP_FD int fd = open(path, flags);

	// cppcheck-suppress resourceLeak ; CLEANUP_FD closes it
	return fd < 0 ? errno : 0;
}

static int open_a_file(const struct sandbox *sandbox)
{
	(void)sandbox;
	return try_open("/proc/self/status", O_RDONLY) == ENOENT ? GOOD : 1;
}

static void files_are_not_there(void **state)
{
	(void)state;
	struct outcome outcome = run_in_sandbox(&on, "main_vcpu", open_a_file);

	assert_int_equal(outcome.status, W_EXITCODE(GOOD, 0));
}

static int act_and_go_on(const struct sandbox *sandbox)
{
	return make_socket(sandbox);
}

static void a_logging_sandbox_goes_on(void **state)
{
	(void)state;
	const struct sandbox_wish wish = { .log_violations = true };
	struct outcome outcome = run_in_sandbox(&wish, "main_vcpu", act_and_go_on);

	assert_int_equal(outcome.status, W_EXITCODE(GOOD, 0));
}

static int enter_unknown(const struct sandbox *sandbox)
{
	return sandbox_enter(sandbox, "main_none") == -EINVAL ? GOOD : 1;
}

static void an_unknown_policy_is_an_error(void **state)
{
	(void)state;
	struct outcome outcome = run_in_sandbox(&on, NULL, enter_unknown);

	assert_int_equal(outcome.status, W_EXITCODE(GOOD, 0));
	assert_non_null(strstr(outcome.said, "main_none"));
}

/* ---- threads ---- */

static void *enter_more(void *argument)
{
	return sandbox_enter(argument, "main_block") == 0 ? argument : NULL;
}

/* The starter makes threads, which take a policy of their own on top. */
static int make_threads(const struct sandbox *sandbox)
{
	pthread_t thread;
	void *result;

	if (thread_start(&thread, enter_more, (void *)(uintptr_t)sandbox) < 0)
		return 1;
	pthread_join(thread, &result);
	return result == sandbox ? GOOD : 2;
}

static void the_starter_makes_threads(void **state)
{
	(void)state;
	struct outcome outcome = run_in_sandbox(&on, "main_starter", make_threads);

	assert_int_equal(outcome.status, W_EXITCODE(GOOD, 0));
}

static int make_a_thread(const struct sandbox *sandbox)
{
	pthread_t thread;

	(void)sandbox;
	return thread_start(&thread, do_nothing, NULL) == 0 ? GOOD : 1;
}

static void check_that_it_makes_no_thread(const char *policy)
{
	if (strcmp(policy, starter) == 0)
		return;
	struct outcome outcome = run_in_sandbox(&on, policy, make_a_thread);

	if (!WIFSIGNALED(outcome.status) || WTERMSIG(outcome.status) != SIGSYS)
		fail_msg("%s: status 0x%x", policy, outcome.status);
}

static void others_do_not(void **state)
{
	(void)state;
	for_each_policy(check_that_it_makes_no_thread);
}

/* ---- files ---- */

static char directory[] = "/tmp/test_sandbox.XXXXXX"; // NOLINT: filled by mkdtemp()

static void path_in(char path[64], const char *name)
{
	snprintf(path, 64, "%s/%s", directory, name);
}

static void make_file(const char *name)
{
	char path[64];

	path_in(path, name);
	assert_int_equal(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
}

/* What is in the directory of a socket can be removed; nothing else can be done to any file. */
static int work_with_files(const struct sandbox *sandbox)
{
	char ours[64], other[64];

	path_in(ours, "ours");
	path_in(other, "below/other");
	const char *const paths[] = { NULL, ours };

	if (sandbox_leave_files(sandbox, paths, ARRAY_SIZE(paths)) < 0)
		return 1;
	if (try_open(ours, O_RDONLY) != EACCES)
		return 2;
	if (try_open(other, O_WRONLY) == 0 || try_open("/etc/passwd", O_RDONLY) == 0)
		return 3;
	if (mkdir("/tmp/test_sandbox.made", 0700) == 0 || rename(ours, other) == 0)
		return 4;
	return unlink(ours) == 0 && access(directory, F_OK) == 0 ? GOOD : 5;
}

static void files_are_closed(void **state)
{
	char path[64];

	(void)state;
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < 1) {
		print_message("skipped: this kernel has no Landlock\n");
		skip();
	}
	assert_non_null(mkdtemp(directory));
	path_in(path, "below");
	assert_int_equal(mkdir(path, 0700), 0);
	make_file("ours");
	make_file("below/other");
	struct outcome outcome = run_in_sandbox(&on, NULL, work_with_files);

	path_in(path, "below/other");
	assert_int_equal(unlink(path), 0);
	path_in(path, "below");
	assert_int_equal(rmdir(path), 0);
	path_in(path, "ours");
	(void)unlink(path);
	assert_int_equal(rmdir(directory), 0);
	assert_int_equal(outcome.status, W_EXITCODE(GOOD, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(off_is_off),
		cmocka_unit_test(it_has_no_capabilities),
		cmocka_unit_test(forbidden_calls_end_it),
		cmocka_unit_test(a_crash_looks_like_one),
		cmocka_unit_test(files_are_not_there),
		cmocka_unit_test(a_logging_sandbox_goes_on),
		cmocka_unit_test(an_unknown_policy_is_an_error),
		cmocka_unit_test(the_starter_makes_threads),
		cmocka_unit_test(others_do_not),
		cmocka_unit_test(files_are_closed),
	};
#ifdef SANITIZED
	const size_t count = 1; /* the sandbox is off in such builds */
#else
	const size_t count = ARRAY_SIZE(tests);
#endif

	return _cmocka_run_group_tests("tests", tests, count, NULL, NULL);
}
