// SPDX-License-Identifier: BSD-3-Clause
/*
 * jail: what happens when the host refuses a stage. A seccomp filter plays the
 * host: it lets one system call of the spawning process and its child fail.
 * Strict jails die and say where, best-effort jails go on and tell what they
 * lack, and no jail goes on without its last lines of defence.
 */
#include "unit/unit.h"

#include <linux/capability.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "jail/advice.h"
#include "jail/stages.h"
#include "unit/capture.h"
#include "unit/jail_rig.h"

enum { ANY = -1 };
enum {
	LACKS_ALL_BUT_USER_AND_PID = JAIL_LACKS_MOUNT_NAMESPACE | JAIL_LACKS_NET_NAMESPACE |
				     JAIL_LACKS_IPC_NAMESPACE | JAIL_LACKS_UTS_NAMESPACE |
				     JAIL_LACKS_CGROUP_NAMESPACE | JAIL_LACKS_ROOT
};

static const struct refusal {
	int syscall;
	long first; /* argument; for clone and unshare a bit of it; ANY */
	int error;
	const char *said;      /* on stderr by a strict jail */
	uint32_t missing;      /* from a best-effort one; 0: it dies as well */
	uint32_t missing_user; /* as well, for an ordinary user */
} refusals[] = {
	{ SYS_clone, CLONE_NEWUSER, EPERM,
		"cannot make a process with user and pid namespace: Operation not permitted; ",
		JAIL_LACKS_USER_NAMESPACE,
		/* Without a user namespace an ordinary user can do nothing of all this. */
		JAIL_LACKS_PID_NAMESPACE | LACKS_ALL_BUT_USER_AND_PID | JAIL_LACKS_SECUREBITS },
	{ SYS_unshare, CLONE_NEWNET, ENOSPC,
		"stage namespaces: cannot make a net namespace: No space left on device; a limit "
		"of the host's is reached: raise the sysctls user.max_*_namespaces\n",
		JAIL_LACKS_NET_NAMESPACE, 0 },
	{ SYS_unshare, CLONE_NEWNS, EINVAL,
		"stage namespaces: cannot make a mount namespace: Invalid argument; the host's "
		"kernel is built without",
		JAIL_LACKS_MOUNT_NAMESPACE | JAIL_LACKS_ROOT, 0 },
	{ SYS_unshare, ANY, EPERM, "stage namespaces: cannot make a mount namespace: ",
		LACKS_ALL_BUT_USER_AND_PID, 0 },
	{ SYS_dup2, ANY, EMFILE, "stage stdio: cannot put /dev/null ", 0, 0 },
	{ SYS_mount, ANY, EACCES, "stage root: cannot make mounts private: Permission denied; ",
		JAIL_LACKS_ROOT, 0 },
	{ SYS_pivot_root, ANY, EINVAL, "stage root: cannot pivot_root: ", JAIL_LACKS_ROOT, 0 },
	{ SYS_umount2, ANY, EPERM, "stage root: cannot detach the host's root: ", JAIL_LACKS_ROOT,
		0 },
	{ SYS_prctl, PR_SET_SECUREBITS, EPERM,
		"stage securebits: cannot lock the securebits: ", JAIL_LACKS_SECUREBITS, 0 },
	{ SYS_prctl, PR_CAP_AMBIENT, EPERM, "stage securebits: cannot clear the ambient ",
		JAIL_LACKS_SECUREBITS, 0 },
	{ SYS_prctl, PR_CAPBSET_DROP, EPERM,
		"stage securebits: cannot empty the bounding set: ", JAIL_LACKS_SECUREBITS, 0 },
	{ SYS_setresgid, ANY, EPERM,
		"stage identity: cannot change the group: ", JAIL_LACKS_IDENTITY, 0 },
	{ SYS_setresuid, ANY, EPERM,
		"stage identity: cannot change the user: ", JAIL_LACKS_IDENTITY, 0 },
	{ SYS_prctl, PR_SET_PDEATHSIG, EPERM,
		"stage lifeline: cannot ask for the end with the parent: ", 0, 0 },
	{ SYS_setsid, ANY, EPERM, "stage session: cannot leave the session: ", JAIL_LACKS_SESSION,
		0 },
	{ SYS_close_range, ANY, ENOSYS,
		"stage descriptors: cannot close the other descriptors: Function not implemented; "
		"Linux 5.9, ",
		0, 0 },
	{ SYS_prlimit64, ANY, EPERM, "stage limits: cannot look at the limits: ", JAIL_LACKS_LIMITS,
		0 },
	{ SYS_capset, ANY, EPERM,
		"stage capabilities: cannot drop all capabilities: ", JAIL_LACKS_CAPABILITIES, 0 },
	{ SYS_prctl, PR_SET_NO_NEW_PRIVS, EINVAL, "stage privileges: cannot set no_new_privs: ", 0,
		0 },
	{ SYS_prctl, PR_SET_DUMPABLE, EPERM, "stage privileges: cannot become non-dumpable: ", 0,
		0 },
	{ SYS_prctl, PR_SET_NAME, EPERM, "stage privileges: cannot take a name: ", 0, 0 },
	{ SYS_seccomp, ANY, ENOSYS,
		"stage seccomp: cannot install the seccomp filter: Function not implemented; a "
		"kernel with CONFIG_SECCOMP_FILTER is needed\n",
		0, 0 },
};

static const struct refusal *current;

/* In the helper: from here on its children and itself are refused the current call. */
static void refuse(void)
{
	bool is_bit = current->syscall == SYS_clone || current->syscall == SYS_unshare;
	unsigned short compare = is_bit ? BPF_JSET : BPF_JEQ;
	uint8_t straight = current->first == ANY ? 2 : 0; /* to the refusal */
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)current->syscall, straight, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP((unsigned short)(BPF_JMP | compare | BPF_K), (uint32_t)current->first, 0,
			1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)current->error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { ARRAY_SIZE(filter), filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		abort();
}

static int return_42(void *argument)
{
	(void)argument;
	return 42;
}

static const bool no = false, yes = true;

static void require(bool as_user)
{
	const char *why = rig_why_not(as_user);

	if (why != NULL || (!as_user && geteuid() != 0)) {
		print_message(
			"skipped: %s\n", why != NULL ? why : "only root can test root's jails");
		skip();
	}
}

static void start_refused(struct rig *rig, bool as_user, bool best_effort)
{
	rig_init(rig, as_user);
	rig->config.best_effort = best_effort;
	rig->main = return_42;
	rig->prepare = refuse;
	rig_start(rig);
}

static void fail_at(const struct rig *rig, const char *what)
{
	print_error("syscall %d, first argument %ld: %s\n%s", current->syscall, current->first,
		what, rig->log);
	fail();
}

static void check_strict(bool as_user)
{
	struct rig rig;

	start_refused(&rig, as_user, false);
	int result = rig_result(&rig);
	char expected[512];

	snprintf(expected, sizeof(expected), "crosvm: jail of test: %s", current->said);
	if (strncmp(rig.log, expected, strlen(expected)) != 0)
		fail_at(&rig, "said something else");
	if (strchr(rig.log, '\n') != rig.log + strlen(rig.log) - 1)
		fail_at(&rig, "did not say one line");
	if (current->syscall == SYS_clone) {
		assert_int_equal(rig.shared->spawn_result, -current->error);
	} else {
		assert_int_equal(rig.shared->spawn_result, 0);
		assert_int_equal(rig.shared->ready_result, -ESRCH);
		assert_int_equal(result, JAIL_EXIT_STATUS);
	}
	rig_free(&rig);
}

static void a_refused_stage_ends_a_strict_jail(void **state)
{
	bool as_user = *(const bool *)*state;

	require(as_user);
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		current = &refusals[i];
		check_strict(as_user);
	}
}

static void check_best_effort(bool as_user)
{
	uint32_t missing = current->missing | (as_user ? current->missing_user : 0);
	struct rig rig;

	start_refused(&rig, as_user, true);
	int result = rig_result(&rig);

	assert_int_equal(rig.shared->spawn_result, 0);
	if (missing == 0) {
		if (rig.shared->ready_result != -ESRCH || result != JAIL_EXIT_STATUS ||
			strstr(rig.log, current->said) == NULL)
			fail_at(&rig, "went on without");
	} else {
		if (rig.shared->ready_result != 0 || result != 42 || rig.log[0] != '\0')
			fail_at(&rig, "did not go on");
		if (rig.shared->missing != missing)
			fail_at(&rig, "told something else to be missing");
	}
	rig_free(&rig);
}

static void a_best_effort_jail_tells_what_it_lacks(void **state)
{
	bool as_user = *(const bool *)*state;

	require(as_user);
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		current = &refusals[i];
		check_best_effort(as_user);
	}
}

/* What is never given up holds in the poorest jail as well. */
static void the_poorest_jail_has_its_last_defences(void **state)
{
	bool as_user = *(const bool *)*state;
	char text[4096];
	struct rig rig;

	require(as_user);
	if (geteuid() != 0) {
		print_message("skipped: only root can look at a process that is not dumpable\n");
		skip();
	}
	current = &refusals[0];
	rig_init(&rig, as_user);
	rig.config.best_effort = true;
	rig.config.policy = jail_policy_find("rng_device");
	rig.prepare = refuse;
	rig_start(&rig);
	assert_int_equal(rig.shared->ready_result, 0);
	assert_true(rig_read_proc(rig.shared->pid, "status", text, sizeof(text)));
	assert_non_null(strstr(text, "\nNoNewPrivs:\t1\n"));
	assert_non_null(strstr(text, "\nSeccomp:\t2\n"));
	assert_non_null(strstr(text, "\nUid:\t65534\t65534\t65534\t65534\n"));
	assert_non_null(strstr(text, "\nCapEff:\t0000000000000000\n"));
	assert_non_null(strstr(text, "\nCapPrm:\t0000000000000000\n"));
	assert_false(rig_read_proc(rig.shared->pid, "fd/3", text, sizeof(text)));
	rig_finish(&rig);
	rig_free(&rig);
}

static pid_t spawner;

static void refuse_and_remember(void)
{
	spawner = getpid();
	refuse();
}

static int abort_itself(void *argument)
{
	(void)argument;
	abort();
}

static int abort_the_spawner(void *argument)
{
	(void)argument;
	return (int)syscall(SYS_tgkill, spawner, spawner, SIGABRT);
}

/* In the pid namespace of all, as the user of others: by abort()'s signal it reaches itself. */
static void the_poorest_jail_reaches_no_other_process(void **state)
{
	struct rig rig;

	(void)state;
	require(true);
	if (!rig_policies_kill)
		skip();
	current = &refusals[0];
	for (int itself = 0; itself < 2; itself++) {
		rig_init(&rig, true);
		rig.config.best_effort = true;
		rig.config.policy = jail_policy_find("rng_device");
		rig.prepare = refuse_and_remember;
		rig.main = itself ? abort_itself : abort_the_spawner;
		assert_int_equal(rig_run(&rig), itself ? -SIGABRT : -SIGSYS);
	}
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || fd_write_full(fd, text, strlen(text)) < 0)
		abort();
	close(fd);
}

/* A host of our own, in which the limit is none. */
static void forbid_user_namespaces(void)
{
	char map[64];

	snprintf(map, sizeof(map), "0 %u 1", geteuid());
	if (unshare(CLONE_NEWUSER) < 0)
		abort();
	write_text("/proc/self/setgroups", "deny");
	write_text("/proc/self/uid_map", map);
	write_text("/proc/self/gid_map", map);
	write_text("/proc/sys/user/max_user_namespaces", "0");
}

static void a_host_without_user_namespaces_is_told_its_knob(void **state)
{
	bool as_user = *(const bool *)*state;
	struct rig rig;

	require(as_user);
	rig_init(&rig, as_user);
	rig.prepare = forbid_user_namespaces;
	rig_start(&rig);
	rig_finish(&rig);
	assert_int_equal(rig.shared->spawn_result, -ENOSPC);
	assert_string_equal(rig.log,
		"crosvm: jail of test: cannot make a process with user and pid namespace: No space "
		"left on device; the host allows no user namespaces: sysctl "
		"user.max_user_namespaces=10000\n");
	rig_free(&rig);
}

/* In a container whose root is an ordinary user there is no nobody to become. */
static void be_root_of_a_container(void)
{
	char map[64];

	snprintf(map, sizeof(map), "0 %u 1", geteuid());
	if (unshare(CLONE_NEWUSER) < 0)
		abort();
	write_text("/proc/self/setgroups", "deny");
	write_text("/proc/self/uid_map", map);
	write_text("/proc/self/gid_map", map);
}

static void root_of_a_small_container_stays_itself(void **state)
{
	bool as_user = *(const bool *)*state;
	struct rig rig;

	require(as_user);
	rig_init(&rig, as_user);
	rig.prepare = be_root_of_a_container;
	rig.main = return_42;
	rig_start(&rig);
	int result = rig_result(&rig);

	/* Its groups cannot be dropped there, which "deny" says. */
	print_message("%s", rig.log);
	assert_int_equal(rig.shared->ready_result, 0);
	assert_int_equal(result, 42);
	rig_free(&rig);
}

static const unsigned *dropped; /* ends with 0 */

static void drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, data) < 0)
		abort();
	for (const unsigned *capability = dropped; *capability != 0; capability++) {
		data[*capability / 32].permitted &= ~(1U << *capability % 32);
		data[*capability / 32].effective &= ~(1U << *capability % 32);
		data[*capability / 32].inheritable &= ~(1U << *capability % 32);
	}
	if (syscall(SYS_capset, &header, data) < 0)
		abort();
}

static uint32_t start_with_less(
	const unsigned *capabilities, const char *root, bool best_effort, int *ret_result)
{
	struct rig rig;

	dropped = capabilities;
	rig_init(&rig, false);
	rig.config.best_effort = best_effort;
	rig.config.root = root;
	rig.prepare = drop_capabilities;
	rig.main = return_42;
	rig_start(&rig);
	assert_int_equal(rig.shared->spawn_result, 0);
	*ret_result = rig_result(&rig);
	uint32_t missing = rig.shared->missing;

	rig_free(&rig);
	return missing;
}

/* Also where the directory that it shall see is its own. */
static void root_that_may_not_change_ids_stays_itself(void **state)
{
	static const unsigned sets[][3] = { { CAP_SETGID }, { CAP_SETUID },
		{ CAP_SETUID, CAP_SETGID } };
	static const char *const roots[] = { NULL, "/usr" };
	int result;

	(void)state;
	require(false);
	for (size_t i = 0; i < 2 * ARRAY_SIZE(sets); i++) {
		assert_int_equal(start_with_less(sets[i / 2], roots[i % 2], false, &result), 0);
		assert_int_equal(result, 42);
	}
}

/* Of root the kernel asks more than of others: without CAP_SETFCAP, Linux 5.12 maps it nowhere. */
static void root_that_may_nothing_has_a_best_effort_jail(void **state)
{
	static const unsigned set[] = { CAP_SETUID, CAP_SETGID, CAP_SETFCAP, 0 };
	int result;

	(void)state;
	require(false);
	uint32_t missing = start_with_less(set, NULL, true, &result);

	assert_int_equal(result, 42);
	assert_true(missing == JAIL_LACKS_IDENTITY || missing == 0);
	(void)start_with_less(set, NULL, false, &result);
	assert_int_equal(result, missing == 0 ? 42 : JAIL_EXIT_STATUS);
}

static void advice_follows_the_host(void **state)
{
	static const struct {
		const char *path, *value;
		int error;
		const char *said;
	} hosts[] = {
		{ "kernel/unprivileged_userns_clone", "0\n", EPERM,
			"sysctl kernel.unprivileged_userns_clone=1" },
		{ "kernel/unprivileged_userns_clone", "1\n", EPERM, "a container" },
		{ "kernel/apparmor_restrict_unprivileged_userns", "1\n", EACCES, "AppArmor" },
		{ "kernel/apparmor_restrict_unprivileged_userns", "0\n", EACCES, "a container" },
		{ "user/max_user_namespaces", "0\n", ENOSPC, "user.max_user_namespaces=" },
		{ "user/max_pid_namespaces", "0\n", ENOSPC, "user.max_pid_namespaces=" },
		{ "user/max_user_namespaces", "7\n", ENOSPC, "a limit" },
		{ "user/max_user_namespaces", "what\n", EINVAL, "the host's kernel" },
		{ "user/max_user_namespaces", "", ENOSYS, "the host's kernel" },
	};
	char directory[] = "/tmp/jail-XXXXXX", path[128];

	(void)state;
	assert_non_null(mkdtemp(directory));
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		snprintf(path, sizeof(path), "%s/%.6s", directory, hosts[i].path);
		path[strcspn(path + sizeof(directory), "/") + sizeof(directory)] = '\0';
		assert_int_equal(mkdir(path, 0700), 0);
		char file[128];

		snprintf(file, sizeof(file), "%s/%s", directory, hosts[i].path);
		write_text(file, hosts[i].value);
		if (strstr(jail_advice(directory, hosts[i].error), hosts[i].said) == NULL) {
			print_error("%s=%s: %s\n", hosts[i].path, hosts[i].value,
				jail_advice(directory, hosts[i].error));
			fail();
		}
		unlink(file);
		rmdir(path);
	}
	rmdir(directory);
}

static int enter_with_a_dead_parent(void *pidfd)
{
	const struct jail_config config = { .name = "test", .policy = &rig_open_policy };
	int channel[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, channel) < 0)
		return 1;
	const struct jail_birth birth = {
		.uid = geteuid(),
		.gid = getegid(),
		.mapped = { .uid = geteuid(), .gid = getegid() },
		.parent_pidfd = *(int *)pidfd,
		.status_fd = channel[0],
	};

	jail_enter(&config, &birth);
	return 0;
}

/* Between its birth and its wish to end with its parent a process may have lost it. */
static void a_parent_that_is_gone_is_noticed(void **state)
{
	int status;

	(void)state;
	require(true);
	pid_t parent = fork();

	if (parent == 0)
		_exit(0);
	int pidfd = (int)syscall(SYS_pidfd_open, parent, 0);

	assert_true(pidfd >= 0);
	assert_int_equal(waitpid(parent, &status, 0), parent);
	int log = memfd_create("log", MFD_CLOEXEC);
	pid_t pid = fork();

	if (pid == 0) {
		if (geteuid() == 0)
			rig_become_user();
		dup2(log, STDERR_FILENO);
		/* As jail_spawn() would have it; the pid namespace does not matter here. */
		if (unshare(CLONE_NEWUSER) < 0)
			_exit(1);
		_exit(enter_with_a_dead_parent(&pidfd));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	char text[512] = "";

	(void)!pread(log, text, sizeof(text) - 1, 0);
	assert_non_null(strstr(text, "stage lifeline: cannot find the parent: "));
	assert_int_equal(WEXITSTATUS(status), JAIL_EXIT_STATUS);
	close(log);
	close(pidfd);
}

static void wrong_descriptions_are_refused(void **state)
{
	static const int stdio[] = { 2 };
	static const int many[JAIL_FDS_MAX + 1] = { 3 };
	const struct jail_config wrong[] = {
		{ .name = "test" },
		{ .name = "test",
			.policy = &rig_open_policy,
			.keep_fds = stdio,
			.keep_fd_count = 1 },
		{ .name = "test",
			.policy = &rig_open_policy,
			.keep_fds = many,
			.keep_fd_count = ARRAY_SIZE(many) },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct jail_process process = { .pid = 1, .pidfd = 2, .status_fd = 3 };
		struct capture capture;

		capture_begin(&capture);
		int r = jail_spawn(&wrong[i], return_42, NULL, &process);

		capture_end(&capture);
		assert_int_equal(r, -EINVAL);
		assert_non_null(strstr(capture.text, "cannot use its description"));
		assert_int_equal(process.pid, 1);
	}
}

static void a_closed_descriptor_in_the_list_ends_it(void **state)
{
	static const int closed[] = { 999 };
	struct rig rig;

	(void)state;
	require(true);
	rig_init(&rig, true);
	rig.config.keep_fds = closed;
	rig.config.keep_fd_count = 1;
	rig_start(&rig);
	assert_int_equal(rig_result(&rig), JAIL_EXIT_STATUS);
	assert_non_null(strstr(rig.log, "stage descriptors: cannot find a descriptor that shall be "
					"kept: Bad file descriptor; "));
	rig_free(&rig);
}

static void waiting_ends_in_time(void **state)
{
	int pair[2];
	uint32_t missing = 7;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	struct jail_process process = { .pidfd = -1, .status_fd = pair[0] };

	assert_int_equal(jail_wait_ready(&process, 20, &missing), -ETIMEDOUT);
	close(pair[1]);
	assert_int_equal(jail_wait_ready(&process, 20, &missing), -ESRCH);
	assert_int_equal(missing, 7);
	assert_int_equal(process.status_fd, -1);
	jail_end(&process, NULL);
}

static void what_is_missing_has_names(void **state)
{
	char text[512], small[8];

	(void)state;
	jail_describe_missing(0, text, sizeof(text));
	assert_string_equal(text, "");
	jail_describe_missing(JAIL_LACKS_USER_NAMESPACE | JAIL_LACKS_ROOT, text, sizeof(text));
	assert_string_equal(text, "user namespace, empty root");
	jail_describe_missing(~0U, text, sizeof(text));
	for (unsigned bit = 0; bit < 13; bit++) {
		jail_describe_missing(1U << bit, text, sizeof(text));
		assert_true(strlen(text) > 0);
	}
	jail_describe_missing(~0U, small, sizeof(small));
	assert_string_equal(small, "user na");
}

#define BOTH(function)                                                                             \
	{ #function " (root)", function, NULL, NULL, (void *)(uintptr_t)&no },                     \
	{                                                                                          \
#function " (user)", function, NULL, NULL, (void *)(uintptr_t)&yes                 \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(a_refused_stage_ends_a_strict_jail),
		BOTH(a_best_effort_jail_tells_what_it_lacks),
		BOTH(the_poorest_jail_has_its_last_defences),
		cmocka_unit_test(the_poorest_jail_reaches_no_other_process),
		BOTH(a_host_without_user_namespaces_is_told_its_knob),
		BOTH(root_of_a_small_container_stays_itself),
		cmocka_unit_test(root_that_may_not_change_ids_stays_itself),
		cmocka_unit_test(root_that_may_nothing_has_a_best_effort_jail),
		cmocka_unit_test(advice_follows_the_host),
		cmocka_unit_test(a_parent_that_is_gone_is_noticed),
		cmocka_unit_test(wrong_descriptions_are_refused),
		cmocka_unit_test(a_closed_descriptor_in_the_list_ends_it),
		cmocka_unit_test(waiting_ends_in_time),
		cmocka_unit_test(what_is_missing_has_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
