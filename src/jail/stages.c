// SPDX-License-Identifier: BSD-3-Clause
/*
 * The stages of the jail. Whatever a stage gives up, later ones cannot get back,
 * so their order is what they still need: /proc for the maps and /dev/null go
 * before the empty root, capabilities after all that needs them, the seccomp
 * filter last.
 *
 * No stage looks at anything that a guest or a device has written.
 */
#include "jail/stages.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/decimal.h"
#include "base/fd.h"
#include "base/log.h"
#include "jail/advice.h"

/* Above what the caller has, in the units of /proc/PID/oom_score_adj. */
enum { OOM_SCORE_MORE = 200, OOM_SCORE_MAX = 1000 };

struct entry {
	const struct jail_config *config;
	const struct jail_birth *birth;
	uid_t uid;
	gid_t gid;
	uint32_t missing;
	uint64_t memory;   /* bytes of its own that it has from its parent */
	const char *doing; /* what the stage was about when it failed */
};

/* The -errno of a call that returns -1, after noting what it was for. */
static int failed(struct entry *entry, const char *doing)
{
	entry->doing = doing;
	return -errno;
}

static bool lacks(const struct entry *entry, enum jail_missing missing)
{
	return (entry->missing & missing) != 0;
}

/*
 * The parent's handlers know nothing of this process; a closed socket is an error, no death. By
 * the kernel's own call, since the C library hides two signals, which our parent's may ignore.
 */
static int reset_signals(struct entry *entry)
{
	const struct sigaction action = { .sa_handler = SIG_IGN };
	static const uint64_t standard[4]; /* SIG_DFL, no flags, no restorer, no mask */
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		(void)syscall(SYS_rt_sigaction, number, standard, NULL, sizeof(standard[0]));
	sigemptyset(&none);
	if (sigaction(SIGPIPE, &action, NULL) < 0 || sigaction(SIGXFSZ, &action, NULL) < 0 ||
		sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		return failed(entry, "reset signals");
	return 0;
}

/*
 * The others are made here and not by the parent's clone(): they are the slow
 * part, and several devices make theirs at the same time.
 */
static int enter_namespaces(struct entry *entry)
{
	static const struct {
		int flag;
		uint32_t missing;
		const char *doing;
	} namespaces[] = {
		{ CLONE_NEWNS, JAIL_LACKS_MOUNT_NAMESPACE, "make a mount namespace" },
		{ CLONE_NEWNET, JAIL_LACKS_NET_NAMESPACE, "make a net namespace" },
		{ CLONE_NEWIPC, JAIL_LACKS_IPC_NAMESPACE, "make an ipc namespace" },
		{ CLONE_NEWUTS, JAIL_LACKS_UTS_NAMESPACE, "make a uts namespace" },
		{ CLONE_NEWCGROUP, JAIL_LACKS_CGROUP_NAMESPACE, "make a cgroup namespace" },
	};
	int all = 0;

	for (size_t i = 0; i < ARRAY_SIZE(namespaces); i++)
		all |= namespaces[i].flag;
	if (unshare(all) == 0)
		return 0;
	/* One by one, to say which it is. */
	for (size_t i = 0; i < ARRAY_SIZE(namespaces); i++) {
		if (unshare(namespaces[i].flag) == 0)
			continue;
		if (!entry->config->best_effort)
			return failed(entry, namespaces[i].doing);
		entry->missing |= namespaces[i].missing;
	}
	return 0;
}

int jail_write_map(const char *path, unsigned id)
{
	char line[2 * DECIMAL_SIZE + sizeof("1\n")];
	char *at = decimal_put(line, id);

	*at++ = ' ';
	memcpy(decimal_put(at, id), " 1\n", sizeof(" 1\n"));
	return fd_write_text(path, 0, line);
}

/* Our one user and group keep their numbers; there are no others in here. */
static int map_own_ids(struct entry *entry)
{
	int r = fd_write_text("/proc/self/setgroups", 0, "deny");

	entry->doing = "write /proc/self/setgroups";
	if (r == 0) {
		r = jail_write_map("/proc/self/gid_map", entry->gid);
		entry->doing = "write /proc/self/gid_map";
	}
	if (r == 0) {
		r = jail_write_map("/proc/self/uid_map", entry->uid);
		entry->doing = "write /proc/self/uid_map";
	}
	return r;
}

static int enter_maps(struct entry *entry)
{
	if (lacks(entry, JAIL_LACKS_USER_NAMESPACE))
		return 0;
	entry->uid = entry->birth->mapped.uid;
	entry->gid = entry->birth->mapped.gid;
	return entry->birth->mapped.by_parent != 0 ? 0 : map_own_ids(entry);
}

/* Should memory run out, a device goes before the main process, which then ends the VM in order. */
static int enter_oom_score(struct entry *entry)
{
	static const char path[] = "/proc/self/oom_score_adj";
	char text[DECIMAL_SIZE];
	const char *at = text;
	int64_t score;
	int r = fd_read_text(path, text, sizeof(text));

	entry->doing = "change /proc/self/oom_score_adj";
	if (r < 0)
		return r;
	if (!decimal_take(&at, &score))
		return -EINVAL;
	score += OOM_SCORE_MORE;
	decimal_put(text, score < OOM_SCORE_MAX ? score : OOM_SCORE_MAX);
	return fd_write_text(path, 0, text);
}

/* Of numbers with one character between them, the last of `count`. */
static bool take_nth(const char *text, unsigned count, int64_t *ret_number)
{
	bool is_there = decimal_take(&text, ret_number);

	for (unsigned i = 1; is_there && i < count; i++)
		is_there = *text++ != '\0' && decimal_take(&text, ret_number);
	return is_there;
}

/* In /proc/PID/statm: size, resident, shared, text, a zero, and data with the stack. In pages. */
enum { STATM_DATA = 6 };

/* What the limit of its memory is added to. */
static int enter_size(struct entry *entry)
{
	char text[128];
	int64_t pages;

	if (entry->config->limits.memory == 0)
		return 0;
	int r = fd_read_text("/proc/self/statm", text, sizeof(text));

	entry->doing = "read /proc/self/statm";
	if (r < 0)
		return r;
	if (!take_nth(text, STATM_DATA, &pages))
		return -EINVAL;
	entry->memory = (uint64_t)pages * (uint64_t)getpagesize();
	return 0;
}

/* stderr stays, since the log goes there. One that was closed must not become something else. */
static int enter_stdio(struct entry *entry)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return failed(entry, "open /dev/null");
	if (dup2(fd, STDIN_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0)
		return failed(entry, "put /dev/null in the place of stdin and stdout");
	if (fcntl(STDERR_FILENO, F_GETFD) < 0 && dup2(fd, STDERR_FILENO) < 0)
		return failed(entry, "put /dev/null in the place of stderr");
	if (fd > STDERR_FILENO)
		close(fd);
	return 0;
}

/* At /proc. All below comes along with a directory, as another user's mounts cannot be taken off.
 */
static int mount_root(struct entry *entry)
{
	struct mount_attr attributes = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
			    MOUNT_ATTR_NOEXEC,
	};

	if (entry->config->root == NULL) {
		if (mount("none", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
			    "mode=555,nr_inodes=1,size=4k") < 0)
			return failed(entry, "mount an empty root");
		return 0;
	}
	if (mount(entry->config->root, "/proc", NULL, MS_BIND | MS_REC, NULL) < 0)
		return failed(entry, "mount its directory as root");
	if (syscall(SYS_mount_setattr, AT_FDCWD, "/proc", AT_RECURSIVE, &attributes,
		    sizeof(attributes)) < 0)
		return failed(entry, "make its root read-only");
	return 0;
}

/*
 * An empty file system that was never writable becomes the root, and the host's
 * are let go. /proc is where it is mounted meanwhile, as the one directory that
 * must have been there for the maps. pivot_root(2) tells of the two dots.
 */
static int enter_root(struct entry *entry)
{
	if (lacks(entry, JAIL_LACKS_MOUNT_NAMESPACE)) {
		entry->doing = "change the root without a mount namespace";
		return -EPERM;
	}
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return failed(entry, "make mounts private");
	int r = mount_root(entry);

	if (r < 0)
		return r;
	if (chdir("/proc") < 0)
		return failed(entry, "go to the empty root");
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return failed(entry, "pivot_root");
	if (umount2(".", MNT_DETACH) < 0)
		return failed(entry, "detach the host's root");
	if (chdir("/") < 0)
		return failed(entry, "go to the new root");
	return 0;
}

/* Nothing that this process could ever execute would get a capability. */
static int lock_capabilities(struct entry *entry)
{
	const unsigned long locked = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
				     SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
				     SECBIT_NO_CAP_AMBIENT_RAISE |
				     SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return failed(entry, "clear the ambient capabilities");
	if (prctl(PR_SET_SECUREBITS, locked) < 0)
		return failed(entry, "lock the securebits");
	/* The kernel may know more than its headers told us. */
	for (unsigned long capability = 0; capability < 64; capability++) {
		if (prctl(PR_CAPBSET_DROP, capability) == 0)
			continue;
		if (errno == EINVAL && capability > 0)
			break;
		return failed(entry, "empty the bounding set");
	}
	return 0;
}

/*
 * The kernel lets an ordinary user, a small container's root and one without the
 * right to among them, drop no groups. There is no file here for them to open.
 */
static int enter_identity(struct entry *entry)
{
	const struct jail_birth *birth = entry->birth;
	bool may = lacks(entry, JAIL_LACKS_USER_NAMESPACE) || birth->mapped.by_parent != 0;
	bool changes = birth->by_root && may && entry->uid == birth->uid;

	if (setgroups(0, NULL) < 0 && changes)
		return failed(entry, "drop the groups");
	if (setresgid(entry->gid, entry->gid, entry->gid) < 0)
		return failed(entry, "change the group");
	if (setresuid(entry->uid, entry->uid, entry->uid) < 0)
		return failed(entry, "change the user");
	return 0;
}

/*
 * To end with the parent. A change of ids would have undone it. getppid() tells
 * nothing in a pid namespace, so the pidfd tells whether the parent ended before.
 */
static int enter_lifeline(struct entry *entry)
{
	struct pollfd parent = { .fd = entry->birth->parent_pidfd, .events = POLLIN };

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return failed(entry, "ask for the end with the parent");
	int n = poll(&parent, 1, 0);

	if (n < 0)
		return failed(entry, "look for the parent");
	if (n > 0) {
		entry->doing = "find the parent";
		return -ESRCH;
	}
	return 0;
}

/* What the kernel takes as a thread's name, the end of the string included. */
enum { NAME_SIZE = 16 };

static void write_name(const struct entry *entry, char ret_name[NAME_SIZE])
{
	static const char prefix[] = "crosvm-";

	memcpy(ret_name, prefix, sizeof(prefix));
	strncat(ret_name, entry->config->name, NAME_SIZE - sizeof(prefix));
}

/* What `ps` shows of it: "crosvm-block", and after that what it came from. */
static void show_name(const struct entry *entry)
{
	size_t room = strlen(program_invocation_name);
	char name[NAME_SIZE];

	write_name(entry, name);
	strncpy(program_invocation_name, name, room); /* and zeroes behind it */
}

/*
 * No terminal, and no secrets of the environment: a compromised device can read all its memory.
 * Only of GLIBC_TUNABLES, which the C library copies for itself, a copy stays.
 */
static int enter_session(struct entry *entry)
{
	show_name(entry);
	for (char **variable = environ; variable != NULL && *variable != NULL; variable++)
		explicit_bzero(*variable, strlen(*variable));
	environ = NULL;
	umask(077);
	if (setsid() < 0)
		return failed(entry, "leave the session");
	return 0;
}

/* Keeps them sorted. They are few, and the C library's sort wants a page of stack and its own code.
 */
static void insert_fd(int *fds, unsigned count, int fd)
{
	for (; count > 0 && fds[count - 1] > fd; count--)
		fds[count] = fds[count - 1];
	fds[count] = fd;
}

/* All that stays, sorted: the config's list, stdio, and the way to the parent. */
static unsigned list_fds(const struct entry *entry, int *fds)
{
	unsigned count = 0;

	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		insert_fd(fds, count++, fd);
	insert_fd(fds, count++, entry->birth->status_fd);
	for (size_t i = 0; i < entry->config->keep_fd_count; i++)
		insert_fd(fds, count++, entry->config->keep_fds[i]);
	return count;
}

enum { LISTED_MAX = JAIL_FDS_MAX + 4 };

static int close_between(unsigned first, unsigned last)
{
	return first > last ? 0 : (int)syscall(SYS_close_range, first, last, 0);
}

static int enter_descriptors(struct entry *entry)
{
	int fds[LISTED_MAX];
	unsigned count = list_fds(entry, fds);
	unsigned next = 0;

	for (unsigned i = 0; i < count; i++) {
		if (fcntl(fds[i], F_SETFD, FD_CLOEXEC) < 0)
			return failed(entry, "find a descriptor that shall be kept");
		if ((unsigned)fds[i] > next && close_between(next, (unsigned)fds[i] - 1) < 0)
			return failed(entry, "close the other descriptors");
		next = (unsigned)fds[i] + 1;
	}
	if (close_between(next, ~0U) < 0)
		return failed(entry, "close the other descriptors");
	return 0;
}

/* What a process has anyway, where nobody changed it. */
enum { STACK_MAX = 8 << 20 };

/* Before Linux 5.14 the processes of a user were counted over all namespaces. */
static bool counts_threads(const struct entry *entry)
{
	struct utsname host;
	int64_t major, minor;

	if (lacks(entry, JAIL_LACKS_USER_NAMESPACE) || uname(&host) < 0 ||
		!take_nth(host.release, 1, &major) || !take_nth(host.release, 2, &minor))
		return false;
	return major > 5 || (major == 5 && minor >= 14);
}

static int enter_limits(struct entry *entry)
{
	const struct jail_limits *limits = &entry->config->limits;
	int fds[LISTED_MAX];
	unsigned count = list_fds(entry, fds);
	const struct {
		__rlimit_resource_t resource;
		uint64_t limit;
		bool wanted;
	} table[] = {
		{ RLIMIT_CORE, 0, true },
		{ RLIMIT_MSGQUEUE, 0, true },
		/* The limit is of numbers, and the kept ones may lie high. */
		{ RLIMIT_NOFILE, (uint64_t)fds[count - 1] + 1 + limits->spare_fds, true },
		{ RLIMIT_NPROC, limits->threads, limits->threads != 0 && counts_threads(entry) },
		/* Not RLIMIT_AS: all of guest memory is mapped twice while a driver starts anew. */
		{ RLIMIT_DATA, entry->memory + limits->memory, limits->memory != 0 },
		/* The first thread's, which the one before does not count, and which may have none.
		 */
		{ RLIMIT_STACK, STACK_MAX, limits->memory != 0 },
		{ RLIMIT_FSIZE, limits->file_size, limits->file_size != 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct rlimit old;

		if (!table[i].wanted)
			continue;
		if (getrlimit(table[i].resource, &old) < 0)
			return failed(entry, "look at the limits");
		/* What the caller must not have, it cannot give. */
		rlim_t value = (rlim_t)min_u64(table[i].limit, old.rlim_max);
		const struct rlimit limit = { value, value };

		if (setrlimit(table[i].resource, &limit) < 0)
			return failed(entry, "set the limits");
	}
	return 0;
}

static int drop_capabilities(struct entry *entry)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (syscall(SYS_capset, &header, none) < 0)
		return failed(entry, "drop all capabilities");
	return 0;
}

static int enter_privileges(struct entry *entry)
{
	char name[NAME_SIZE];

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return failed(entry, "set no_new_privs");
	/* No process of the same user may look into this one. */
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		return failed(entry, "become non-dumpable");
	write_name(entry, name);
	if (prctl(PR_SET_NAME, name) < 0)
		return failed(entry, "take a name");
	return 0;
}

/*
 * SPEC_ALLOW: the kernels before 5.16 would else turn speculation off in here. It
 * protects from code of others in this process, and there is none.
 */
static int enter_seccomp(struct entry *entry)
{
	const struct jail_policy *policy = entry->config->policy;
	const struct jail_program *program =
		entry->config->log_violations ? &policy->log : &policy->kill;
	struct sock_filter *code = calloc(program->count, sizeof(*code));
	struct sock_fprog filter = { .len = program->count, .filter = code };
	int r = 0;

	if (code == NULL)
		return failed(entry, "copy the seccomp filter");
	/* Its id is that in its own namespace; without one, that of the host. */
	jail_program_adapt(program, getpid(), code);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter) <
		0)
		r = failed(entry, "install the seccomp filter");
	free(code);
	return r;
}

enum help { NO_HELP, NAMESPACES_HELP, CLOSE_HELP, SECCOMP_HELP };

static const struct stage {
	const char *name;
	int (*enter)(struct entry *entry);
	uint32_t missing; /* when it fails in a best-effort jail; 0: never without it */
	enum help help;
} stages[] = {
	{ "signals", reset_signals, 0, NO_HELP },
	{ "namespaces", enter_namespaces, 0, NAMESPACES_HELP },
	{ "maps", enter_maps, JAIL_LACKS_IDENTITY, NAMESPACES_HELP },
	{ "oom score", enter_oom_score, JAIL_LACKS_LIMITS, NO_HELP },
	{ "size", enter_size, JAIL_LACKS_LIMITS, NO_HELP },
	{ "stdio", enter_stdio, 0, NO_HELP },
	{ "root", enter_root, JAIL_LACKS_ROOT, NAMESPACES_HELP },
	{ "securebits", lock_capabilities, JAIL_LACKS_SECUREBITS, NAMESPACES_HELP },
	{ "identity", enter_identity, JAIL_LACKS_IDENTITY, NAMESPACES_HELP },
	{ "lifeline", enter_lifeline, 0, NO_HELP },
	{ "session", enter_session, JAIL_LACKS_SESSION, NO_HELP },
	{ "descriptors", enter_descriptors, 0, CLOSE_HELP },
	{ "limits", enter_limits, JAIL_LACKS_LIMITS, NO_HELP },
	{ "capabilities", drop_capabilities, JAIL_LACKS_CAPABILITIES, NO_HELP },
	{ "privileges", enter_privileges, 0, NO_HELP },
	{ "seccomp", enter_seccomp, 0, SECCOMP_HELP },
};

static const char *find_help(enum help help, int error)
{
	switch (help) {
	case NAMESPACES_HELP:
		return jail_advice("/proc/sys", error);
	case CLOSE_HELP:
		return error == ENOSYS || error == EPERM
			       ? "Linux 5.9, and a container that allows close_range, are needed"
			       : "this is an error of crosvm's";
	case SECCOMP_HELP:
		return "a kernel with CONFIG_SECCOMP_FILTER is needed";
	case NO_HELP:
		break;
	}
	return "nothing known does this, please report it";
}

static _Noreturn void die(const struct entry *entry, const struct stage *stage, int error)
{
	log_error("jail of %s: stage %s: cannot %s: %s; %s", entry->config->name, stage->name,
		entry->doing, strerror(error), find_help(stage->help, error));
	_exit(JAIL_EXIT_STATUS);
}

void jail_enter(const struct jail_config *config, const struct jail_birth *birth)
{
	struct entry entry = {
		.config = config,
		.birth = birth,
		.uid = birth->uid,
		.gid = birth->gid,
		.missing = birth->missing,
	};

	for (size_t i = 0; i < ARRAY_SIZE(stages); i++) {
		int r = stages[i].enter(&entry);

		if (r < 0 && (!config->best_effort || stages[i].missing == 0))
			die(&entry, &stages[i], -r);
		if (r < 0)
			entry.missing |= stages[i].missing;
	}
	const struct jail_report report = { .missing = entry.missing };

	/* A parent that is gone has no use for it. */
	(void)!write(birth->status_fd, &report, sizeof(report));
	close(birth->status_fd);
}
