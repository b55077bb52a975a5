// SPDX-License-Identifier: BSD-3-Clause
/*
 * The policies of the devices, on the real kernel and inside of a whole jail:
 * what a device does must work, and what a compromised one would try ends it,
 * or is refused.
 */
#include "unit/unit.h"

#include <liburing.h>
#include <linux/falloc.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/log.h"
#include "base/thread.h"
#include "unit/jail_rig.h"

enum { SOCKET, FILE_FD, RING, KEPT };

/* What a device process holds; fixed before it is spawned. */
static int kept[KEPT];
static int their_socket;
static struct io_uring ring;

static void require(void)
{
	const char *why = rig_why_not(true);

	if (why != NULL) {
		print_message("skipped: no jail can be made: %s\n", why);
		skip();
	}
}

static void require_killing(void)
{
	require();
	if (!rig_policies_kill) {
		print_message("skipped: policies only log in a sanitizer's build\n");
		skip();
	}
}

static int open_kept(void **state)
{
	const struct io_uring_restriction rules[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP },
		{ .opcode = IORING_RESTRICTION_REGISTER_OP,
			.register_op = IORING_REGISTER_ENABLE_RINGS },
	};
	int pair[2];

	(void)state;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	their_socket = pair[1];
	kept[SOCKET] = pair[0];
	kept[FILE_FD] = memfd_create("disk", MFD_CLOEXEC);
	kept[RING] = -1;
	if (ftruncate(kept[FILE_FD], 1 << 20) < 0)
		return -1;
	/* Where the host has no io_uring, that part is left out. */
	if (io_uring_queue_init(4, &ring, IORING_SETUP_R_DISABLED) == 0 &&
		io_uring_register_restrictions(&ring, (void *)(uintptr_t)rules, 2) == 0 &&
		io_uring_enable_rings(&ring) == 0)
		kept[RING] = ring.ring_fd;
	return 0;
}

static void init(struct rig *rig, const char *policy, int (*main)(void *shared))
{
	rig_init(rig, true);
	rig->config.policy = jail_policy_find(policy);
	assert_non_null(rig->config.policy);
	rig->config.keep_fds = kept;
	rig->config.keep_fd_count = kept[RING] < 0 ? KEPT - 1 : KEPT;
	rig->config.limits = (struct jail_limits){ .spare_fds = 16, .threads = 16 };
	rig->main = main;
}

/* ---- What works. Each says its line on the way out, so that a failure names the place. */

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			log_error("line %d: %s", __LINE__, strerror(errno));                       \
			return 1;                                                                  \
		}                                                                                  \
	} while (0)

struct worker {
	int kick_fd, call_fd;
	pthread_mutex_t lock;
	unsigned kicks;
};

static void *serve(void *argument)
{
	struct worker *worker = argument;
	struct pollfd kick = { worker->kick_fd, POLLIN, 0 };
	eventfd_t kicks = 0;

	while (poll(&kick, 1, -1) > 0) {
		(void)eventfd_read(worker->kick_fd, &kicks);
		void *much = malloc(300000); /* by mmap(), in a second arena of malloc() */
		void *more = realloc(much, 900000);

		free(more);
		pthread_mutex_lock(&worker->lock);
		worker->kicks += (unsigned)kicks;
		pthread_mutex_unlock(&worker->lock);
		(void)eventfd_write(worker->call_fd, 1);
	}
	return NULL;
}

/* They are there until the process ends, like a device's. */
static int run_threads(void)
{
	/* Several threads wake up for one kick, and one finds it. */
	static struct worker worker = { .lock = PTHREAD_MUTEX_INITIALIZER };
	pthread_t threads[3];
	eventfd_t calls;

	worker.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	worker.call_fd = eventfd(0, EFD_CLOEXEC);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		CHECK(thread_start(&threads[i], serve, &worker) == 0);
	CHECK(eventfd_write(worker.kick_fd, 1) == 0 && eventfd_read(worker.call_fd, &calls) == 0);
	return 0;
}

// NOLINTNEXTLINE(readability-non-const-parameter): recvmsg() writes there
static ssize_t transfer(bool out, char *text, size_t size, int *fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct iovec iov = { text, size };
	struct msghdr message = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control.space) };

	if (out) {
		memcpy(CMSG_DATA(&control.header), fd, sizeof(*fd));
		return sendmsg(kept[SOCKET], &message, MSG_NOSIGNAL);
	}
	ssize_t n = recvmsg(kept[SOCKET], &message, MSG_CMSG_CLOEXEC);

	memcpy(fd, CMSG_DATA(&control.header), sizeof(*fd));
	return n;
}

/* The main process sends memory, it is mapped, an eventfd goes back. */
static int speak_vhost_user(void)
{
	char byte;
	struct stat st;
	int fd = -1, event = eventfd(0, EFD_CLOEXEC);

	CHECK(transfer(false, &byte, 1, &fd) == 1 && byte == 'm');
	CHECK(fstat(fd, &st) == 0 && st.st_size == 65536);
	char *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK(memory != MAP_FAILED && memory[100] == 'x');
	memory[101] = 'y';
	CHECK(munmap(memory, 65536) == 0 && close(fd) == 0);
	byte = 'e';
	CHECK(transfer(true, &byte, 1, &event) == 1);
	return close(event);
}

static int use_io_uring(void)
{
	struct io_uring_cqe *cqe;

	if (kept[RING] < 0)
		return 0;
	io_uring_prep_nop(io_uring_get_sqe(&ring));
	CHECK(io_uring_submit_and_wait(&ring, 1) == 1);
	CHECK(io_uring_peek_cqe(&ring, &cqe) == 0 && cqe->res == 0);
	io_uring_cqe_seen(&ring, cqe);
	/* The ring's own restrictions stand behind the filter. */
	io_uring_prep_openat(io_uring_get_sqe(&ring), AT_FDCWD, "/x", O_RDONLY, 0);
	(void)io_uring_submit_and_wait(&ring, 1);
	CHECK(io_uring_peek_cqe(&ring, &cqe) == 0 && cqe->res == -EACCES);
	return 0;
}

static int use_disk(void)
{
	char text[] = "data", back[sizeof(text)];
	struct iovec out = { text, sizeof(text) }, in = { back, sizeof(back) };
	int fd = kept[FILE_FD];

	CHECK(pwritev2(fd, &out, 1, 8192, RWF_DSYNC) == sizeof(text));
	CHECK(preadv2(fd, &in, 1, 8192, 0) == sizeof(text) && strcmp(back, "data") == 0);
	CHECK(pwritev(fd, &out, 1, 4096) == sizeof(text) && pwrite(fd, text, 1, 0) == 1);
	CHECK(fdatasync(fd) == 0);
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 4096) == 0);
	CHECK(preadv2(fd, &in, 1, 8192, 0) == sizeof(text) && back[0] == '\0');
	/* Not every file system can, but it must be allowed. */
	CHECK(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0 ||
		errno == EOPNOTSUPP);
	return use_io_uring();
}

static int work(void)
{
	int r = run_threads();

	if (r == 0)
		r = speak_vhost_user();
	/* The kernel's own, at SIGCONT; with nothing to restart it says so. */
	CHECK(syscall(SYS_restart_syscall) < 0 && errno == EINTR);
	log_info("it works");
	return r;
}

static int work_as_block(void *shared)
{
	(void)shared;
	return work() || use_disk();
}

static int work_as_rng(void *shared)
{
	char bytes[64];

	(void)shared;
	CHECK(getrandom(bytes, sizeof(bytes), 0) == sizeof(bytes));
	return work();
}

/* The main process's half of speak_vhost_user(). */
static void send_memory(int memory)
{
	char byte = 'm';
	int saved = kept[SOCKET];

	assert_int_equal(pwrite(memory, "x", 1, 100), 1);
	kept[SOCKET] = their_socket;
	assert_int_equal(transfer(true, &byte, 1, &memory), 1);
	kept[SOCKET] = saved;
}

static void check_work(const char *policy, int (*main)(void *))
{
	char byte;
	struct rig rig;
	int memory = memfd_create("memory", MFD_CLOEXEC);

	assert_int_equal(ftruncate(memory, 65536), 0);
	send_memory(memory);
	init(&rig, policy, main);
	int result = rig_run(&rig);

	if (result != 0)
		print_error("%s", rig.log);
	assert_int_equal(result, 0);
	assert_string_equal(rig.log, "crosvm: it works\n");
	assert_int_equal(pread(memory, &byte, 1, 101), 1);
	assert_int_equal(byte, 'y');
	assert_int_equal(read(their_socket, &byte, 1), 1);
	assert_int_equal(byte, 'e');
	close(memory);
}

static void a_block_device_works(void **state)
{
	(void)state;
	require();
	check_work("block_device", work_as_block);
}

static void a_random_number_generator_works(void **state)
{
	(void)state;
	require();
	check_work("rng_device", work_as_rng);
}

static int abort_main(void *shared)
{
	(void)shared;
	abort();
}

/* The first process of a pid namespace ignores its own SIGABRT; abort() knows another way. */
static void abort_ends_it_and_does_not_look_like_a_violation(void **state)
{
	struct rig rig;

	(void)state;
	require_killing();
	init(&rig, "rng_device", abort_main);
	int result = rig_run(&rig);

	assert_true(result == -SIGABRT || result == -SIGSEGV);
}

static int free_what_is_no_block(void *shared)
{
	void (*volatile release)(void *) = free; /* the C library shall notice it, and no tool */
	char room[64] __attribute__((aligned(16))) = { 0 };

	(void)shared;
	release(room + 32);
	return 0;
}

/* What glibc found, and not that it may not say so. */
static void the_c_library_s_last_words_are_heard(void **state)
{
	struct rig rig;

	(void)state;
	require_killing();
	init(&rig, "rng_device", free_what_is_no_block);
	int result = rig_run(&rig);

	assert_true(result == -SIGABRT || result == -SIGSEGV);
	assert_non_null(strstr(rig.log, "free(): "));
}

/* ---- What does not work. */

enum { DIES = 0 };

static const struct act {
	const char *name;
	long number;
	long arguments[6];
	int error;          /* what it gets, or DIES by SIGSYS */
	const char *but[2]; /* policies that allow it */
} acts[] = {
	{ "open", SYS_open, { (long)"/etc/passwd" }, ENOENT },
	{ "openat", SYS_openat, { AT_FDCWD, (long)"..", O_RDONLY }, ENOENT },
	{ "openat2", SYS_openat2, { AT_FDCWD, (long)"/" }, DIES },
	{ "creat", SYS_creat, { (long)"/x" }, DIES },
	{ "socket", SYS_socket, { AF_UNIX, SOCK_STREAM, 0 }, DIES },
	{ "a socket of the network", SYS_socket,
		{ AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0 }, DIES },
	{ "a socket of another kind", SYS_socket,
		{ AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0 }, DIES },
	{ "connect", SYS_connect, { 3, 0, 0 }, DIES, { "connector" } },
	{ "socketpair", SYS_socketpair, { AF_UNIX, SOCK_STREAM, 0, 0 }, DIES },
	{ "fork", SYS_fork, { 0 }, DIES },
	{ "vfork", SYS_vfork, { 0 }, DIES },
	{ "clone a process", SYS_clone, { SIGCHLD }, DIES },
	{ "clone a namespace", SYS_clone, { CLONE_NEWUSER | SIGCHLD }, DIES },
	{ "clone with one flag more", SYS_clone, { 0x3d0f00 | CLONE_UNTRACED }, DIES },
	{ "clone with high bits", SYS_clone, { 0x3d0f00 | 1L << 32 }, DIES },
	{ "clone3", SYS_clone3, { 0, 0 }, ENOSYS },
	{ "execve", SYS_execve, { (long)"/bin/sh" }, DIES },
	{ "execveat", SYS_execveat, { 0 }, DIES },
	{ "ptrace", SYS_ptrace, { 0 }, DIES },
	{ "kill", SYS_kill, { -1, SIGKILL }, DIES },
	{ "tgkill", SYS_tgkill, { 1, 1, SIGKILL }, DIES },
	{ "tgkill of another", SYS_tgkill, { 2, 2, SIGABRT }, DIES },
	{ "pidfd_open", SYS_pidfd_open, { 1, 0 }, DIES },
	{ "pidfd_getfd", SYS_pidfd_getfd, { 0 }, DIES },
	{ "process_vm_readv", SYS_process_vm_readv, { 0 }, DIES },
	{ "mount", SYS_mount, { 0 }, DIES },
	{ "unshare", SYS_unshare, { CLONE_NEWUSER }, DIES },
	{ "setns", SYS_setns, { 0 }, DIES },
	{ "chdir", SYS_chdir, { (long)".." }, DIES },
	{ "chroot", SYS_chroot, { (long)"/" }, DIES },
	{ "mknod", SYS_mknod, { (long)"/x" }, DIES },
	{ "io_uring_setup", SYS_io_uring_setup, { 1, 0 }, DIES },
	{ "io_uring_register buffers", SYS_io_uring_register, { 0, 0 }, DIES },
	{ "io_uring_register again", SYS_io_uring_register, { 0, 12 /* ENABLE_RINGS */ }, DIES,
		{ "block_device", "net_device" } },
	{ "name", SYS_prctl, { PR_SET_NAME, (long)"other" }, DIES },
	{ "mmap rwx", SYS_mmap, { 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, 0x22, -1, 0 },
		DIES },
	{ "mmap x", SYS_mmap, { 0, 4096, PROT_EXEC, 0x22, -1, 0 }, DIES },
	{ "mmap shared and anonymous", SYS_mmap, { 0, 4096, PROT_READ | PROT_WRITE, 0x21, -1, 0 },
		DIES },
	{ "mmap that grows down", SYS_mmap, { 0, 4096, PROT_READ | PROT_WRITE, 0x122, -1, 0 },
		DIES },
	{ "mmap of a file that grows down", SYS_mmap,
		{ 0, 4096, PROT_READ | PROT_WRITE, 0x102, 3, 0 }, DIES },
	{ "mprotect x", SYS_mprotect, { 0, 4096, PROT_READ | PROT_EXEC }, DIES },
	{ "mprotect to read", SYS_mprotect, { 0, 4096, PROT_READ }, DIES },
	{ "mprotect to nothing", SYS_mprotect, { 0, 4096, PROT_NONE }, DIES },
	{ "mprotect of a stack", SYS_mprotect, { 0, 4096, PROT_READ | PROT_WRITE | PROT_GROWSDOWN },
		DIES },
	{ "pkey_mprotect", SYS_pkey_mprotect, { 0, 4096, PROT_EXEC, -1 }, DIES },
	{ "shmat", SYS_shmat, { 0 }, DIES },
	{ "personality", SYS_personality, { 0x0400000 /* READ_IMPLIES_EXEC */ }, DIES },
	{ "madvise remove", SYS_madvise, { 0, 0, MADV_REMOVE }, DIES, { "balloon_device" } },
	{ "bpf", SYS_bpf, { 0 }, DIES },
	{ "keyctl", SYS_keyctl, { 0 }, DIES },
	{ "add_key", SYS_add_key, { 0 }, DIES },
	{ "userfaultfd", SYS_userfaultfd, { 0 }, DIES },
	{ "perf_event_open", SYS_perf_event_open, { 0 }, DIES },
	{ "memfd_create", SYS_memfd_create, { (long)"", 0 }, DIES },
	{ "setuid", SYS_setuid, { 0 }, DIES },
	{ "capset", SYS_capset, { 0 }, DIES },
	{ "dumpable", SYS_prctl, { PR_SET_DUMPABLE, 1 }, DIES },
	{ "securebits", SYS_prctl, { PR_SET_SECUREBITS, 0 }, DIES },
	{ "seccomp", SYS_seccomp, { 1, 0, 0 }, DIES },
	{ "ftruncate", SYS_ftruncate, { 0, 0 }, DIES, { "block_device", "wl_device" } },
	{ "ioctl", SYS_ioctl, { 2, 0x5412 /* TIOCSTI */, (long)"x" }, DIES },
	{ "fcntl to block", SYS_fcntl, { 0, F_SETFL, 0 }, DIES },
	{ "sendto an address", SYS_sendto, { 0, 0, 0, 0, 1 }, DIES },
	{ "stat", SYS_stat, { (long)"/" }, DIES },
	{ "newfstatat by name", SYS_newfstatat, { AT_FDCWD, (long)"/", 0, 0 }, DIES },
	{ "setrlimit", SYS_prlimit64, { 0 }, DIES },
	{ "rt_sigaction", SYS_rt_sigaction, { SIGSYS, 0, 0, 8 }, DIES },
	{ "a number that is none", 1000, { 0 }, DIES },
	{ "x32 read", 0x40000000, { 0 }, DIES },
};

static const struct act *act;

static int do_act(void *argument)
{
	struct rig_shared *shared = argument;
	const long *a = act->arguments;
	long r = syscall(act->number, a[0], a[1], a[2], a[3], a[4], a[5]);

	shared->seen[0] = r < 0 ? errno : -1;
	return 0;
}

static void check_act(const char *policy)
{
	struct rig rig;

	init(&rig, policy, do_act);
	rig_start(&rig);
	int result = rig_result(&rig), seen = rig.shared->seen[0];
	/* The connector's policy refuses nothing by an error. */
	bool dies = act->error == DIES || strcmp(policy, "connector") == 0;
	bool as_said = dies ? result == -SIGSYS : result == 0 && seen == act->error;

	if (!as_said) {
		print_error("%s, %s: ended with %d, got '%s'\n%s", policy, act->name, result,
			seen < 0 ? "done" : strerror(seen), rig.log);
		fail();
	}
	rig_free(&rig);
}

/* Those of the main process's threads are test_sandbox.c's. */
static bool is_of_a_jail(const struct jail_policy *policy)
{
	return strncmp(policy->name, "main_", strlen("main_")) != 0;
}

static bool is_allowed(const struct act *which, const char *policy)
{
	for (size_t i = 0; i < ARRAY_SIZE(which->but) && which->but[i] != NULL; i++)
		if (strcmp(which->but[i], policy) == 0)
			return true;
	return false;
}

static void forbidden_acts_end_it(void **state)
{
	(void)state;
	size_t count, jails = 0;
	const struct jail_policy *policies = jail_policy_all(&count);

	require_killing();
	for (size_t p = 0; p < count; p++) {
		if (!is_of_a_jail(&policies[p]))
			continue;
		jails++;
		for (size_t i = 0; i < ARRAY_SIZE(acts); i++) {
			act = &acts[i];
			if (!is_allowed(act, policies[p].name))
				check_act(policies[p].name);
		}
	}
	assert_true(jails >= 7);
}

static void *do_act_in_thread(void *shared)
{
	(void)do_act(shared);
	return NULL;
}

static int do_act_in_a_thread(void *shared)
{
	pthread_t thread;

	if (thread_start(&thread, do_act_in_thread, shared) < 0)
		return 1;
	return pthread_join(thread, NULL);
}

/* KILL_PROCESS and not KILL_THREAD, which would leave half a device. */
static void one_thread_s_act_ends_the_process(void **state)
{
	struct rig rig;

	(void)state;
	require_killing();
	act = &acts[4]; /* socket */
	init(&rig, "rng_device", do_act_in_a_thread);
	assert_int_equal(rig_run(&rig), -SIGSYS);
}

static int call_as_32_bit(void *shared)
{
	long number = 20; /* getpid of i386, writev of x86_64 */

	(void)shared;
	__asm__ volatile("int $0x80" : "+a"(number) : : "memory", "r8", "r9", "r10", "r11");
	return 0;
}

static void calls_of_32_bit_end_it(void **state)
{
	struct rig rig;

	(void)state;
	require_killing();
	init(&rig, "rng_device", call_as_32_bit);
	int result = rig_run(&rig);

	/* A kernel without 32-bit calls makes it a fault. */
	assert_true(result == -SIGSYS || result == -SIGSEGV);
}

static void a_logging_jail_goes_on(void **state)
{
	static const struct act harmless = { "getppid", SYS_getppid, { 0 }, DIES };
	struct rig rig;

	(void)state;
	require_killing();
	act = &harmless;
	for (int log = 0; log < 2; log++) {
		init(&rig, "rng_device", do_act);
		rig.config.log_violations = log == 1;
		rig_start(&rig);
		assert_int_equal(rig_result(&rig), log == 1 ? 0 : -SIGSYS);
		assert_int_equal(rig.shared->seen[0], log == 1 ? -1 : 0);
		rig_free(&rig);
	}
}

static void policies_are_small(void **state)
{
	static const struct {
		const char *name;
		unsigned at_most;
	} sizes[] = { { "vhost_net_device", 60 }, { "vhost_vsock_device", 60 },
		{ "balloon_device", 45 }, { "rng_device", 45 }, { "block_device", 60 },
		{ "net_device", 60 }, { "wl_device", 60 }, { "vsock_device", 60 },
		{ "connector", 10 }, { "main_vcpu", 40 }, { "main_control", 60 },
		{ "main_console", 40 }, { "main_starter", 70 }, { "main_rng", 40 },
		{ "main_balloon", 40 }, { "main_block", 45 }, { "main_net", 45 },
		{ "main_vsock", 50 }, { "main_wl", 50 }, { "main_window", 40 } };
	size_t count;
	const struct jail_policy *policies = jail_policy_all(&count);

	(void)state;
	assert_int_equal(count, ARRAY_SIZE(sizes));
	assert_null(jail_policy_find("common_device"));
	assert_null(jail_policy_find(""));
	for (size_t i = 0; i < count; i++)
		assert_ptr_equal(jail_policy_find(policies[i].name), &policies[i]);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		const struct jail_policy *policy = jail_policy_find(sizes[i].name);

		assert_non_null(policy);
		assert_in_range(policy->syscalls, 8, sizes[i].at_most);
		assert_in_range(policy->kill.count, 8, 256); /* sandbox.c has no more room */
		assert_in_range(policy->log.count, 8, 256);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_block_device_works),
		cmocka_unit_test(a_random_number_generator_works),
		cmocka_unit_test(abort_ends_it_and_does_not_look_like_a_violation),
		cmocka_unit_test(the_c_library_s_last_words_are_heard),
		cmocka_unit_test(forbidden_acts_end_it),
		cmocka_unit_test(one_thread_s_act_ends_the_process),
		cmocka_unit_test(calls_of_32_bit_end_it),
		cmocka_unit_test(a_logging_jail_goes_on),
		cmocka_unit_test(policies_are_small),
	};

	return cmocka_run_group_tests(tests, open_kept, NULL);
}
