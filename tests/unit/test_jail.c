// SPDX-License-Identifier: BSD-3-Clause
/*
 * jail: what a jailed process is, seen from outside, for root's and for an
 * ordinary user's. The filter lets everything through in most tests here, so
 * that what holds is the work of the other stages.
 */
#include "unit/unit.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/thread.h"
#include "unit/count_entries.h"
#include "unit/jail_rig.h"

static const bool AS_ROOT = false, AS_USER = true;

/* Skips, with a reason, where no jail can be made or looked at. */
static bool can_run(bool as_user)
{
	if (!as_user && geteuid() != 0) {
		print_message("skipped: only root can test root's jails\n");
		return false;
	}
	const char *why = rig_why_not(as_user);

	if (why != NULL)
		print_message("skipped: no jail can be made: %s\n", why);
	return why == NULL;
}

static bool can_look(void)
{
	if (geteuid() != 0)
		print_message("skipped: only root can look at a process that is not dumpable\n");
	return geteuid() == 0;
}

#define SKIP_UNLESS(condition)                                                                     \
	do {                                                                                       \
		if (!(condition))                                                                  \
			skip();                                                                    \
	} while (0)

static void start(struct rig *rig, void **state)
{
	bool as_user = *(const bool *)*state;

	SKIP_UNLESS(can_run(as_user) && can_look());
	rig_init(rig, as_user);
}

static void start_complete(struct rig *rig)
{
	rig_start(rig);
	assert_int_equal(rig->shared->spawn_result, 0);
	assert_int_equal(rig->shared->ready_result, 0);
	assert_int_equal(rig->shared->missing, 0);
}

static void end(struct rig *rig)
{
	rig_finish(rig);
	assert_int_equal(rig->shared->how.si_code, CLD_KILLED);
	assert_int_equal(rig->shared->how.si_status, SIGKILL);
	assert_string_equal(rig->log, "");
	rig_free(rig);
}

static void namespace_of(pid_t pid, const char *name, char *text, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, name);
	ssize_t n = readlink(path, text, size - 1);

	assert_true(n > 0);
	text[n] = '\0';
}

static void every_namespace_is_its_own(void **state)
{
	static const char *const names[] = { "user", "pid", "mnt", "net", "ipc", "uts", "cgroup" };
	struct rig a, b;

	start(&a, state);
	start(&b, state);
	start_complete(&a);
	start_complete(&b);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char ours[64], one[64], other[64];

		namespace_of(getpid(), names[i], ours, sizeof(ours));
		namespace_of(a.shared->pid, names[i], one, sizeof(one));
		namespace_of(b.shared->pid, names[i], other, sizeof(other));
		assert_string_not_equal(ours, one);
		assert_string_not_equal(ours, other);
		assert_string_not_equal(one, other);
	}
	end(&a);
	end(&b);
}

static void assert_line(const char *text, const char *line)
{
	const char *found = strstr(text, line);
	size_t length = strlen(line);

	if (found == NULL || found[length] != '\n') {
		print_error("no line '%s' in:\n%s\n", line, text);
		fail();
	}
}

static void assert_status(const char *status)
{
	static const char *const lines[] = {
		"CapInh:\t0000000000000000",
		"CapPrm:\t0000000000000000",
		"CapEff:\t0000000000000000",
		"CapBnd:\t0000000000000000",
		"CapAmb:\t0000000000000000",
		"NoNewPrivs:\t1",
		"Seccomp:\t2",
		"Uid:\t65534\t65534\t65534\t65534",
		"Gid:\t65534\t65534\t65534\t65534",
		"Groups:\t ",
		"Umask:\t0077",
	};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		assert_line(status, lines[i]);
}

static void *stay_thread(void *argument)
{
	(void)rig_stay(argument);
	return NULL;
}

static int stay_with_threads(void *argument)
{
	pthread_t threads[3];

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		if (thread_start(&threads[i], stay_thread, argument) < 0)
			return 1;
	((struct rig_shared *)argument)->seen[0] = 1;
	return rig_stay(argument);
}

static void wait_for(const volatile int *value)
{
	for (int i = 0; i < 10000 && *value == 0; i++)
		(void)poll(NULL, 0, 1);
	assert_int_equal(*value, 1);
}

/* An ordinary user cannot; its groups were dropped with its change of user. */
static void join_groups(void)
{
	static const gid_t groups[] = { 4, 5 };

	if (geteuid() == 0 && setgroups(ARRAY_SIZE(groups), groups) < 0)
		abort();
}

static void no_thread_has_a_privilege(void **state)
{
	char path[64], status[8192];
	unsigned threads = 0;
	struct rig rig;

	start(&rig, state);
	rig.main = stay_with_threads;
	rig.config.policy = jail_policy_find("rng_device");
	rig.prepare = join_groups;
	start_complete(&rig);
	wait_for(&rig.shared->seen[0]);
	snprintf(path, sizeof(path), "/proc/%d/task", rig.shared->pid);
	DIR *tasks = opendir(path);

	assert_non_null(tasks);
	for (struct dirent *task = readdir(tasks); task != NULL; task = readdir(tasks)) {
		if (task->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "task/%.20s/status", task->d_name);
		assert_true(rig_read_proc(rig.shared->pid, path, status, sizeof(status)));
		assert_status(status);
		threads++;
	}
	closedir(tasks);
	assert_int_equal(threads, 4);
	assert_true(rig_read_proc(rig.shared->pid, "status", status, sizeof(status)));
	assert_line(status, "Name:\tcrosvm-test");
	assert_non_null(strstr(strstr(status, "NSpid:"), "\t1\n"));
	end(&rig);
}

static void the_ids_are_one_user_and_one_group(void **state)
{
	char text[256];
	struct rig rig;

	start(&rig, state);
	start_complete(&rig);
	assert_true(rig_read_proc(rig.shared->pid, "uid_map", text, sizeof(text)));
	assert_string_equal(text, "     65534      65534          1\n");
	assert_true(rig_read_proc(rig.shared->pid, "gid_map", text, sizeof(text)));
	assert_string_equal(text, "     65534      65534          1\n");
	assert_true(rig_read_proc(rig.shared->pid, "setgroups", text, sizeof(text)));
	/* Root's must be able to drop its groups, which nobody with "deny" can. */
	assert_string_equal(text, rig.as_user ? "deny\n" : "allow\n");
	end(&rig);
}

static void it_goes_first_when_memory_runs_out(void **state)
{
	char ours[32], its[32];
	struct rig rig;

	start(&rig, state);
	start_complete(&rig);
	assert_true(rig_read_proc(getpid(), "oom_score_adj", ours, sizeof(ours)));
	assert_true(rig_read_proc(rig.shared->pid, "oom_score_adj", its, sizeof(its)));
	long expected = strtol(ours, NULL, 10) + 200;

	assert_int_equal(strtol(its, NULL, 10), expected < 1000 ? expected : 1000);
	end(&rig);
}

static void the_root_is_empty_and_read_only(void **state)
{
	char path[64], text[4096];
	struct rig rig;

	start(&rig, state);
	start_complete(&rig);
	snprintf(path, sizeof(path), "/proc/%d/root/", rig.shared->pid);
	assert_int_equal(count_entries(path), 2); /* . and .. */
	assert_int_equal(openat(AT_FDCWD, path, O_TMPFILE | O_RDWR, 0600), -1);
	assert_int_equal(errno, EROFS);
	snprintf(path, sizeof(path), "/proc/%d/cwd/", rig.shared->pid);
	assert_int_equal(count_entries(path), 2);
	assert_true(rig_read_proc(rig.shared->pid, "mountinfo", text, sizeof(text)));
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1); /* one line */
	assert_non_null(strstr(text, " / / ro,nosuid,nodev,noexec,"));
	end(&rig);
}

static void the_network_is_empty(void **state)
{
	char text[4096];
	unsigned lines = 0;
	struct rig rig;

	start(&rig, state);
	start_complete(&rig);
	assert_true(rig_read_proc(rig.shared->pid, "net/dev", text, sizeof(text)));
	for (const char *c = text; *c != '\0'; c++)
		lines += *c == '\n';
	assert_int_equal(lines, 3); /* two of heading, and lo */
	assert_non_null(strstr(text, " lo:"));
	assert_true(rig_read_proc(rig.shared->pid, "net/fib_trie", text, sizeof(text)));
	assert_string_equal(text, ""); /* lo is down: no address, no route */
	end(&rig);
}

static int open_files[200];

static void open_many_files(void)
{
	umask(0);
	for (size_t i = 0; i < ARRAY_SIZE(open_files); i++) {
		open_files[i] =
			open("/dev/zero", O_RDWR); // NOLINT(android-cloexec-open): as inherited
		if (open_files[i] < 0)
			abort();
	}
	for (int fd = STDIN_FILENO; fd <= STDOUT_FILENO; fd++)
		if (dup2(open_files[0], fd) < 0)
			abort();
}

static void open_many_files_and_close_stdin(void)
{
	open_many_files();
	close(STDIN_FILENO);
}

static void assert_descriptor(pid_t pid, int fd, int like)
{
	char path[64], text[256];
	struct stat theirs, ours;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	assert_int_equal(stat(path, &theirs), 0);
	assert_int_equal(fstat(like, &ours), 0);
	assert_int_equal(theirs.st_dev, ours.st_dev);
	assert_int_equal(theirs.st_ino, ours.st_ino);
	snprintf(path, sizeof(path), "fdinfo/%d", fd);
	assert_true(rig_read_proc(pid, path, text, sizeof(text)));
	unsigned long flags = strtoul(strstr(text, "flags:") + 6, NULL, 8);

	assert_int_equal(flags & O_CLOEXEC, O_CLOEXEC);
}

static void check_descriptors(void **state, void (*prepare)(void))
{
	char path[64];
	int keep[] = { eventfd(0, 0), open("/dev/full", O_RDONLY | O_CLOEXEC) };
	int high = fcntl(keep[0], F_DUPFD, 300);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	const int list[] = { high, keep[1], keep[0] };
	struct rig rig;

	start(&rig, state);
	rig.prepare = prepare;
	rig.config.keep_fds = list;
	rig.config.keep_fd_count = ARRAY_SIZE(list);
	start_complete(&rig);
	snprintf(path, sizeof(path), "/proc/%d/fd", rig.shared->pid);
	/* Its end of the way to the parent is closed right after the report. */
	for (int i = 0; i < 20000 && count_entries(path) > 2 + 3 + ARRAY_SIZE(list); i++)
		(void)poll(NULL, 0, 1);
	assert_int_equal(count_entries(path), 2 + 3 + ARRAY_SIZE(list));
	assert_descriptor(rig.shared->pid, 0, null);
	assert_descriptor(rig.shared->pid, 1, null);
	assert_descriptor(rig.shared->pid, 2, rig.log_fd);
	assert_descriptor(rig.shared->pid, keep[0], keep[0]);
	assert_descriptor(rig.shared->pid, keep[1], keep[1]);
	assert_descriptor(rig.shared->pid, high, keep[0]);
	end(&rig);
	close(null);
	close(high);
	close(keep[0]);
	close(keep[1]);
}

static void the_descriptors_are_those_of_the_list(void **state)
{
	check_descriptors(state, NULL);
}

static void inherited_descriptors_are_closed(void **state)
{
	check_descriptors(state, open_many_files);
}

static void a_closed_stdin_changes_nothing(void **state)
{
	check_descriptors(state, open_many_files_and_close_stdin);
}

/* Soft and hard, which are the same. */
static unsigned long limit_of(const char *text, const char *name)
{
	const char *found = strstr(text, name);
	char *next, *last;

	assert_non_null(found);
	unsigned long soft = strtoul(found + strlen(name), &next, 10);
	unsigned long hard = strtoul(next, &last, 10);

	assert_ptr_not_equal(next, last);
	assert_int_equal(soft, hard);
	return soft;
}

static void assert_limit(const char *text, const char *name, unsigned long value)
{
	assert_int_equal(limit_of(text, name), value);
}

static void the_limits_hold(void **state)
{
	char text[4096];
	struct rig rig;

	start(&rig, state);
	int high = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 300);

	rig.config.keep_fds = &high;
	rig.config.keep_fd_count = 1;
	rig.config.limits = (struct jail_limits){
		.spare_fds = 5, .threads = 3, .memory = 1 << 30, .file_size = 12345
	};
	start_complete(&rig);
	assert_true(rig_read_proc(rig.shared->pid, "limits", text, sizeof(text)));
	close(high);
	assert_limit(text, "Max open files", 300 + 1 + 5);
	assert_limit(text, "Max core file size", 0);
	assert_limit(text, "Max msgqueue size", 0);
	assert_limit(text, "Max processes", 3);
	/* And what it was born with; sanitizers' shadows are that, too. */
	assert_in_range(limit_of(text, "Max data size"), (1 << 30) + 4096,
		(1 << 30) + (rig_policies_kill ? 16 * MIB : UINT64_C(1) << 47));
	assert_limit(text, "Max stack size", 8 * MIB);
	assert_limit(text, "Max file size", 12345);
	end(&rig);
}

/* Files and threads until there is no more. */
static int use_all(void *argument)
{
	struct rig_shared *shared = argument;
	pthread_t thread;

	struct rlimit files;

	while (eventfd(0, EFD_CLOEXEC) >= 0)
		shared->seen[0]++;
	shared->seen[1] = errno;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0)
		shared->seen[3] = (int)files.rlim_cur;
	while (thread_start(&thread, stay_thread, shared) == 0)
		shared->seen[2]++;
	return 0;
}

static void files_and_threads_run_out(void **state)
{
	struct rig rig;

	start(&rig, state);
	rig.main = use_all;
	rig.config.limits = (struct jail_limits){ .spare_fds = 7, .threads = 4 };
	rig_start(&rig);
	assert_int_equal(rig_result(&rig), 0);
	assert_int_equal(rig.shared->seen[0], rig.shared->seen[3] - 3);
	assert_int_equal(rig.shared->seen[1], EMFILE);
	assert_int_equal(rig.shared->seen[2], 3);
	rig_free(&rig);
}

enum { PIECE = 1 << 20, PIECES = 64 };

static void *map(size_t size, int protection, int flags, int fd)
{
	void *mapping = mmap(NULL, size, protection, flags, fd, 0);

	// cppcheck-suppress memleak ; the process ends soon
	return mapping == MAP_FAILED ? NULL : mapping;
}

/* Memory of its own until there is no more, and then memory that is shared. */
static int use_all_memory(void *argument)
{
	const int writable = PROT_READ | PROT_WRITE, own = MAP_PRIVATE | MAP_ANONYMOUS;
	struct rig_shared *shared = argument;
	int fd = memfd_create("guest", MFD_CLOEXEC);
	char *heap_end = sbrk(0);

	while (shared->seen[0] < 2 * PIECES && map(PIECE, writable, own, -1) != NULL)
		shared->seen[0]++;
	shared->seen[1] = errno;
	/* Reserved only: it counts when it becomes writable. */
	void *later = map(PIECE, PROT_NONE, own, -1);

	shared->seen[2] = mprotect(later, PIECE, writable) < 0 ? errno : 0;
	shared->seen[3] = brk(heap_end + PIECE) < 0 ? errno : 0;
	if (ftruncate(fd, (off_t)4 * PIECES * PIECE) < 0)
		return 1;
	shared->seen[4] = map((size_t)4 * PIECES * PIECE, writable, MAP_SHARED, fd) != NULL;
	return 0;
}

static void memory_runs_out(void **state)
{
	struct rig rig;

	start(&rig, state);
	rig.main = use_all_memory;
	rig.config.limits = (struct jail_limits){ .spare_fds = 7, .memory = PIECES * PIECE };
	rig_start(&rig);
	assert_int_equal(rig_result(&rig), 0);
	assert_in_range(rig.shared->seen[0], PIECES - 1, PIECES);
	for (unsigned i = 1; i <= 3; i++)
		assert_int_equal(rig.shared->seen[i], ENOMEM);
	assert_true(rig.shared->seen[4]);
	rig_free(&rig);
}

static void nobody_can_look_into_it(void **state)
{
	char path[64], text[8192];
	struct stat st;
	struct rig rig;

	start(&rig, state);
	start_complete(&rig);
	/* Files of a dumpable process are its user's. */
	snprintf(path, sizeof(path), "/proc/%d/environ", rig.shared->pid);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_uid, 0);
	assert_true(rig_read_proc(rig.shared->pid, "environ", text, sizeof(text)));
	assert_string_equal(text, ""); /* nothing but zeroes */
	end(&rig);
}

static void it_has_a_session_of_its_own(void **state)
{
	char text[4096];
	struct rig rig;

	start(&rig, state);
	start_complete(&rig);
	assert_true(rig_read_proc(rig.shared->pid, "stat", text, sizeof(text)));
	/* ") S PPID PGRP SESSION" */
	char *next = strrchr(text, ')') + 3;
	pid_t parent = (pid_t)strtol(next, &next, 10);
	pid_t group = (pid_t)strtol(next, &next, 10);
	pid_t session = (pid_t)strtol(next, &next, 10);

	assert_int_equal(parent, rig.helper);
	assert_int_equal(group, rig.shared->pid);
	assert_int_equal(session, rig.shared->pid);
	end(&rig);
}

static bool is_alive(pid_t pid)
{
	char text[4096];

	if (kill(pid, 0) < 0 || !rig_read_proc(pid, "stat", text, sizeof(text)))
		return false;
	const char *state = strrchr(text, ')');

	return state != NULL && state[2] != 'Z' && state[2] != 'X';
}

static void a_stopped_one_ends_with_its_parent(void **state)
{
	struct rig rig;

	start(&rig, state);
	rig.main = stay_with_threads;
	start_complete(&rig);
	wait_for(&rig.shared->seen[0]);
	assert_int_equal(kill(rig.shared->pid, SIGSTOP), 0);
	assert_true(is_alive(rig.shared->pid));
	assert_int_equal(kill(rig.helper, SIGKILL), 0);
	for (int i = 0; i < 20000 && is_alive(rig.shared->pid); i++)
		(void)poll(NULL, 0, 1);
	assert_false(is_alive(rig.shared->pid));
	rig_finish(&rig);
	rig_free(&rig);
}

static int return_42(void *argument)
{
	(void)argument;
	return 42;
}

/* A sanitizer would make an exit of it. */
#ifndef SANITIZED
static union {
	volatile int value;
	char page[4096];
} guarded __attribute__((aligned(4096)));

static int crash(void *argument)
{
	(void)argument;
	if (mprotect(&guarded, 4096, PROT_NONE) == 0)
		guarded.value = 1;
	return 0;
}
#endif

static void its_end_is_told(void **state)
{
	struct rig rig;

	start(&rig, state);
	rig.main = return_42;
	assert_int_equal(rig_run(&rig), 42);
#ifndef SANITIZED
	start(&rig, state);
	rig.main = crash;
	assert_int_equal(rig_run(&rig), -SIGSEGV);
#endif
}

/* What a process does that has all system calls and nothing to use them on. */
static const struct {
	const char *name;
	long number;
	long arguments[5];
	int error;
} vain_acts[] = {
	{ "open", SYS_open, { (long)"/etc/passwd", O_RDONLY }, ENOENT },
	{ "open upwards", SYS_openat, { AT_FDCWD, (long)"../../etc/passwd", O_RDONLY }, ENOENT },
	{ "create", SYS_open, { (long)"/x", O_CREAT | O_RDWR, 0600 }, EROFS },
	{ "mkdir", SYS_mkdir, { (long)"/x", 0700 }, EROFS },
	{ "mknod", SYS_mknod, { (long)"/x", S_IFCHR | 0600, 0x101 }, EROFS },
	{ "remount", SYS_mount, { (long)"none", (long)"/", (long)"tmpfs", 0, 0 }, EPERM },
	{ "chroot", SYS_chroot, { (long)"/" }, EPERM },
	{ "kill the parent", SYS_kill, { 2, SIGKILL }, ESRCH },
	{ "kill all", SYS_kill, { -1, SIGKILL }, ESRCH },
	{ "ptrace", SYS_ptrace, { 16 /* PTRACE_ATTACH */, 2 }, ESRCH },
	{ "setuid", SYS_setuid, { 0 }, EINVAL },
	{ "setgid", SYS_setgid, { 0 }, EINVAL },
	{ "setgroups", SYS_setgroups, { 0, 0 }, EPERM },
	{ "sethostname", SYS_sethostname, { (long)"x", 1 }, EPERM },
	{ "unshare a net", SYS_unshare, { CLONE_NEWNET }, EPERM },
	{ "a raw socket", SYS_socket, { 2 /* AF_INET */, 3 /* SOCK_RAW */, 1 }, EPERM },
	{ "securebits", SYS_prctl, { PR_SET_SECUREBITS, 0 }, EPERM },
	{ "ambient", SYS_prctl, { PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0 }, EPERM },
	{ "reboot", SYS_reboot, { 0xfee1dead, 672274793, 0x1234567 }, EPERM },
	{ "execve", SYS_execve, { (long)"/bin/sh", 0, 0 }, ENOENT },
};

static int act_in_vain(void *argument)
{
	struct rig_shared *shared = argument;

	for (size_t i = 0; i < ARRAY_SIZE(vain_acts); i++) {
		const long *a = vain_acts[i].arguments;
		long r = syscall(vain_acts[i].number, a[0], a[1], a[2], a[3], a[4]);

		shared->seen[i] = r < 0 ? errno : -1;
	}
	const struct rlimit more = { 100000, 100000 };

	shared->seen[63] = setrlimit(RLIMIT_NOFILE, &more) < 0 ? errno : -1;
	shared->seen[62] = prctl(PR_GET_SECUREBITS);
	return 0;
}

static void without_the_filter_nothing_is_in_reach(void **state)
{
	struct rig rig;

	start(&rig, state);
	rig.main = act_in_vain;
	rig_start(&rig);
	assert_int_equal(rig_result(&rig), 0);
	for (size_t i = 0; i < ARRAY_SIZE(vain_acts); i++) {
		int seen = rig.shared->seen[i];

		if (seen != vain_acts[i].error) {
			print_error(
				"%s: %s\n", vain_acts[i].name, seen < 0 ? "done" : strerror(seen));
			fail();
		}
	}
	assert_int_equal(rig.shared->seen[63], EPERM);
	assert_int_equal(rig.shared->seen[62], 0xef); /* all, and all locked but KEEP_CAPS */
	rig_free(&rig);
}

#define BOTH(function)                                                                             \
	{ #function " (root)", function, NULL, NULL, (void *)(uintptr_t)&AS_ROOT },                \
	{                                                                                          \
#function " (user)", function, NULL, NULL, (void *)(uintptr_t)&AS_USER             \
	}

static int exit_with_7(void *shared)
{
	(void)shared;
	return 7;
}

/* How it ended by itself; closes the rest. */
static int exit_status_of(struct jail_process *process)
{
	siginfo_t how = { 0 };

	assert_int_equal(waitid(P_PIDFD, (id_t)process->pidfd, &how, WEXITED | WNOWAIT), 0);
	jail_end(process, NULL);
	assert_int_equal(how.si_code, CLD_EXITED);
	return how.si_status;
}

static void nothing_begins_before_its_release(void **state)
{
	const struct jail_config config = { .name = "test", .policy = &rig_open_policy };
	struct jail_process kept, dropped;
	char ours[64], its[64];
	uint32_t missing;

	(void)state;
	SKIP_UNLESS(can_run(AS_ROOT) && can_look());
	assert_int_equal(jail_spawn(&config, exit_with_7, NULL, &kept), 0);
	assert_int_equal(jail_spawn(&config, exit_with_7, NULL, &dropped), 0);
	namespace_of(getpid(), "net", ours, sizeof(ours));
	namespace_of(dropped.pid, "net", its, sizeof(its));
	assert_string_equal(its, ours);
	fd_close(&dropped.status_fd); /* as if we had been killed */
	assert_int_equal(exit_status_of(&dropped), JAIL_EXIT_STATUS);
	jail_release(&kept);
	jail_release(&kept);
	assert_int_equal(jail_wait_ready(&kept, 10000, &missing), 0);
	assert_int_equal(exit_status_of(&kept), 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(every_namespace_is_its_own),
		BOTH(no_thread_has_a_privilege),
		BOTH(the_ids_are_one_user_and_one_group),
		BOTH(it_goes_first_when_memory_runs_out),
		BOTH(the_root_is_empty_and_read_only),
		BOTH(the_network_is_empty),
		BOTH(the_descriptors_are_those_of_the_list),
		BOTH(inherited_descriptors_are_closed),
		BOTH(a_closed_stdin_changes_nothing),
		BOTH(the_limits_hold),
		BOTH(files_and_threads_run_out),
		BOTH(memory_runs_out),
		BOTH(nobody_can_look_into_it),
		BOTH(it_has_a_session_of_its_own),
		BOTH(a_stopped_one_ends_with_its_parent),
		BOTH(its_end_is_told),
		cmocka_unit_test(nothing_begins_before_its_release),
		BOTH(without_the_filter_nothing_is_in_reach),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
