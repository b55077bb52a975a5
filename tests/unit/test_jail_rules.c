// SPDX-License-Identifier: BSD-3-Clause
/*
 * Each rule of each policy, allowed and violated. The calls are made of the
 * rules' own tests: arguments that meet an alternative, and those that break one
 * of its tests by one, or by one bit. They are tried on a machine of ours for
 * both architectures, and on the kernel for the one that we run on.
 */
#include "unit/unit.h"

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <linux/audit.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/policy_machine.h"

/* ---- The policies ---- */

static const struct {
	const char *directory;
	enum policy_architecture architecture;
	uint32_t libseccomp, audit;
	unsigned policies; /* at least; fragments that others include are policies too */
} sets[] = {
	{ "seccomp/x86_64", POLICY_X86_64, SCMP_ARCH_X86_64, AUDIT_ARCH_X86_64, 20 },
	{ "seccomp/aarch64", POLICY_AARCH64, SCMP_ARCH_AARCH64, AUDIT_ARCH_AARCH64, 8 },
};

struct subject {
	const char *path;
	unsigned set;
	struct policy policy;
	struct jail_program program;
};

static void load(struct subject *subject, const char *path, unsigned set)
{
	struct policy_error error = { "" };
	struct sock_filter *code = NULL;

	*subject = (struct subject){ .path = path, .set = set };
	subject->policy.architecture = sets[set].architecture;
	int r = policy_parse_file(&subject->policy, path, &error);

	if (r == 0)
		r = policy_compile(
			&subject->policy, POLICY_KILL, &code, &subject->program.count, &error);
	if (r < 0 || code == NULL) {
		print_error("%s\n", error.text);
		abort(); /* which tools know to be the end */
	}
	subject->program.instructions = code;
}

static void unload(struct subject *subject)
{
	free((void *)subject->program.instructions);
	policy_free(&subject->policy);
}

static void for_each_policy(unsigned set, void (*check)(const struct subject *subject))
{
	char pattern[64];
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s/*.policy", sets[set].directory);
	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	assert_true(found.gl_pathc >= sets[set].policies);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		struct subject subject;

		load(&subject, found.gl_pathv[i], set);
		check(&subject);
		unload(&subject);
	}
	globfree(&found);
}

static int number_of(const struct subject *subject, const struct policy_rule *rule)
{
	return seccomp_syscall_resolve_name_arch(sets[subject->set].libseccomp, rule->syscall);
}

/* ---- Calls, made of rules ---- */

struct call {
	int number;
	uint64_t arguments[POLICY_ARGUMENTS];
	uint32_t action; /* that the rule says */
	uint32_t seen;   /* what the kernel does */
};

enum { CALLS_MAX = 1 << 16 };

/* Shared with the process whose calls the kernel decides on. */
static struct call *calls;
static unsigned call_count;

static void add_call(
	const struct subject *subject, const struct policy_rule *rule, const uint64_t *arguments)
{
	struct call *call = &calls[call_count++];

	assert_true(call_count <= CALLS_MAX);
	*call = (struct call){ .number = number_of(subject, rule) };
	memcpy(call->arguments, arguments, sizeof(call->arguments));
	call->action = expected_action(rule, arguments, SECCOMP_RET_KILL_PROCESS);
}

/* Values at which the answer of a test changes, or would, were one bit of it forgotten. */
enum { NEIGHBOURS = 3 + 64 };

static uint64_t neighbour(const struct policy_test *test, unsigned index)
{
	switch (index) {
	case 0:
		return test->value;
	case 1:
		return test->value + 1;
	case 2:
		return test->value - 1;
	default:
		return test->value ^ UINT64_C(1) << (index - 3);
	}
}

static bool meets(const struct policy_alternative *alternative, unsigned argument, uint64_t value)
{
	for (unsigned i = 0; i < alternative->count; i++)
		if (alternative->tests[i].argument == argument &&
			!test_holds(&alternative->tests[i], value))
			return false;
	return true;
}

/* Arguments that an alternative lets through. False: there are none among the neighbours. */
static bool satisfy(const struct policy_alternative *alternative, uint64_t *arguments)
{
	for (unsigned i = 0; i < alternative->count; i++) {
		unsigned argument = alternative->tests[i].argument;
		unsigned n = 0;

		while (n < NEIGHBOURS &&
			!meets(alternative, argument, neighbour(&alternative->tests[i], n)))
			n++;
		if (n == NEIGHBOURS)
			return false;
		arguments[argument] = neighbour(&alternative->tests[i], n);
	}
	return true;
}

/* How many of a test's neighbours, in otherwise good arguments, are refused. */
static unsigned add_neighbours(const struct subject *subject, const struct policy_rule *rule,
	const struct policy_test *test, const uint64_t *good)
{
	unsigned refused = 0;

	for (unsigned n = 0; n < NEIGHBOURS; n++) {
		uint64_t arguments[POLICY_ARGUMENTS];

		memcpy(arguments, good, sizeof(arguments));
		arguments[test->argument] = neighbour(test, n);
		add_call(subject, rule, arguments);
		refused += !rule_allows(rule, arguments);
	}
	return refused;
}

static void add_alternative(const struct subject *subject, const struct policy_rule *rule,
	const struct policy_alternative *alternative, const uint64_t *others)
{
	uint64_t arguments[POLICY_ARGUMENTS];

	memcpy(arguments, others, sizeof(arguments));
	if (!satisfy(alternative, arguments))
		fail_msg("%s:%u: nothing meets an alternative of %s", rule->file, rule->line,
			rule->syscall);
	add_call(subject, rule, arguments);
	assert_int_equal(calls[call_count - 1].action, SECCOMP_RET_ALLOW);
	for (unsigned i = 0; i < alternative->count; i++)
		if (add_neighbours(subject, rule, &alternative->tests[i], arguments) == 0)
			fail_msg("%s:%u: a test of %s refuses nothing", rule->file, rule->line,
				rule->syscall);
}

/* All of a policy's rules. What a rule does not look at is all zeros, and all ones. */
static void make_calls(const struct subject *subject)
{
	static const uint64_t others[][POLICY_ARGUMENTS] = {
		{ 0 },
		{ UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX },
	};

	call_count = 0;
	for (unsigned r = 0; r < subject->policy.rule_count; r++) {
		const struct policy_rule *rule = &subject->policy.rules[r];

		for (size_t o = 0; o < ARRAY_SIZE(others); o++) {
			add_call(subject, rule, others[o]);
			for (unsigned a = 0; a < rule->alternative_count; a++)
				add_alternative(subject, rule, &rule->alternatives[a], others[o]);
		}
	}
}

/* Calls without a rule. */
static void add_other_numbers(const struct subject *subject)
{
	static bool has_rule[1100];

	memset(has_rule, 0, sizeof(has_rule));
	for (unsigned r = 0; r < subject->policy.rule_count; r++)
		has_rule[number_of(subject, &subject->policy.rules[r])] = true;
	for (int number = 0; number < (int)ARRAY_SIZE(has_rule); number++)
		if (!has_rule[number])
			calls[call_count++] = (struct call){ .number = number,
				.action = SECCOMP_RET_KILL_PROCESS };
}

static void fail_call(const struct subject *subject, const struct call *call, uint32_t action)
{
	const uint64_t *a = call->arguments;

	fail_msg("%s: call %d (0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx64
		 ", 0x%" PRIx64 ", 0x%" PRIx64 "): 0x%x, not 0x%x",
		subject->path, call->number, a[0], a[1], a[2], a[3], a[4], a[5], action,
		call->action);
}

/* ---- On our machine ---- */

static void try_on_our_machine(const struct subject *subject)
{
	unsigned allowed = 0;

	make_calls(subject);
	add_other_numbers(subject);
	for (unsigned i = 0; i < call_count; i++) {
		struct seccomp_data data = { .nr = calls[i].number,
			.arch = sets[subject->set].audit };

		memcpy(data.args, calls[i].arguments, sizeof(calls[i].arguments));
		uint32_t action = run_program(&subject->program, &data);

		if (action != calls[i].action)
			fail_call(subject, &calls[i], action);
		allowed += action == SECCOMP_RET_ALLOW;
	}
	assert_true(allowed >= 8);
}

static void every_rule_allows_and_refuses(void **state)
{
	(void)state;
	for (unsigned set = 0; set < ARRAY_SIZE(sets); set++)
		for_each_policy(set, try_on_our_machine);
}

/* ---- On the kernel ---- */

/* Errors that stand for what must not happen here: no call is made, and nobody dies. */
enum { ALLOWED = 3001, KILLED = 3002 };

/*
 * The policy's program with other answers. Before it comes the one call that is
 * let through, so that the process can end: its exit_group() with this status.
 */
enum { LAST_STATUS = 0x5eed, PREFIX = 5 };

static unsigned make_harmless(const struct jail_program *program, struct sock_filter *ret_code)
{
	const struct sock_filter prefix[PREFIX] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, LAST_STATUS, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	memcpy(ret_code, prefix, sizeof(prefix));
	for (unsigned i = 0; i < program->count; i++) {
		struct sock_filter instruction = program->instructions[i];

		if (BPF_CLASS(instruction.code) == BPF_RET && instruction.k == SECCOMP_RET_ALLOW)
			instruction.k = SECCOMP_RET_ERRNO | ALLOWED;
		if (BPF_CLASS(instruction.code) == BPF_RET &&
			instruction.k == SECCOMP_RET_KILL_PROCESS)
			instruction.k = SECCOMP_RET_ERRNO | KILLED;
		ret_code[PREFIX + i] = instruction;
	}
	return PREFIX + program->count;
}

/* The sanitizers' libraries make calls of their own, which would have no effect here. */
#ifdef __clang__
#define UNWATCHED __attribute__((no_sanitize("address", "thread", "memory", "undefined", "bounds")))
#else
#define UNWATCHED __attribute__((no_sanitize("address", "thread", "undefined")))
#endif

UNWATCHED static long call_raw(long number, const uint64_t *arguments)
{
	// cppcheck-suppress constStatement ; a register, which it does not know
	register uint64_t a3 __asm__("r10") = arguments[3];
	// cppcheck-suppress constStatement ; a register, which it does not know
	register uint64_t a4 __asm__("r8") = arguments[4];
	// cppcheck-suppress constStatement ; a register, which it does not know
	register uint64_t a5 __asm__("r9") = arguments[5];
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(arguments[0]), "S"(arguments[1]), "d"(arguments[2]),
			 "r"(a3), "r"(a4), "r"(a5)
			 : "rcx", "r11", "memory");
	return result;
}

UNWATCHED static void make_all_calls(struct call *call, unsigned count)
{
	static const uint64_t last[POLICY_ARGUMENTS] = { LAST_STATUS };

	for (; count > 0; count--, call++)
		call->seen = (uint32_t)-call_raw(call->number, call->arguments);
	(void)call_raw(SYS_exit_group, last);
}

static void call_under_filter(const struct subject *subject)
{
	struct sock_filter code[BPF_MAXINSNS];
	struct sock_fprog filter = { (unsigned short)make_harmless(&subject->program, code), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
		_exit(1);
	make_all_calls(calls, call_count);
}

static void try_on_the_kernel(const struct subject *subject)
{
	int status = 0;

	make_calls(subject);
	assert_true(subject->program.count + PREFIX <= BPF_MAXINSNS);
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		call_under_filter(subject);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, W_EXITCODE(LAST_STATUS & 0xff, 0));
	for (unsigned i = 0; i < call_count; i++) {
		uint32_t seen = SECCOMP_RET_ERRNO | calls[i].seen;

		if (calls[i].seen == ALLOWED)
			seen = SECCOMP_RET_ALLOW;
		else if (calls[i].seen == KILLED)
			seen = SECCOMP_RET_KILL_PROCESS;
		if (seen != calls[i].action)
			fail_call(subject, &calls[i], seen);
	}
}

static void every_rule_does_so_in_the_kernel(void **state)
{
	(void)state;
	for_each_policy(POLICY_X86_64, try_on_the_kernel);
}

/* ---- What is part of the binary ---- */

static void check_embedded(
	const struct subject *subject, const struct jail_program *program, enum policy_mode mode)
{
	struct policy_error error;
	struct sock_filter *code = NULL;
	unsigned short count = 0;

	assert_int_equal(policy_compile(&subject->policy, mode, &code, &count, &error), 0);
	assert_int_equal(program->count, count);
	assert_memory_equal(program->instructions, code, count * sizeof(*code));
	free(code);
}

/* Instruction by instruction, so for every call there is. */
static void the_embedded_programs_are_those_of_the_texts(void **state)
{
	/* Sanitizers' builds only log. */
#ifdef SANITIZED
	const enum policy_mode kill_mode = POLICY_LOG;
#else
	const enum policy_mode kill_mode = POLICY_KILL;
#endif
	size_t count;
	const struct jail_policy *policies = jail_policy_all(&count);

	(void)state;
	for (size_t i = 0; i < count; i++) {
		struct subject subject;
		char path[128];

		snprintf(path, sizeof(path), "seccomp/x86_64/%s.policy", policies[i].name);
		load(&subject, path, POLICY_X86_64);
		check_embedded(&subject, &policies[i].kill, kill_mode);
		check_embedded(&subject, &policies[i].log, POLICY_LOG);
		unload(&subject);
	}
}

/* ---- Calls that are made for each request ---- */

/* What a thread calls again and again: the kernel must answer without running the program. */
static const struct {
	const char *policy, *calls;
} hot[] = {
	{ "block_device", "io_uring_enter preadv2 pwritev2 fdatasync poll write" },
	{ "net_device", "io_uring_enter readv writev recvfrom sendmsg preadv2 poll write" },
	{ "rng_device", "getrandom preadv2 poll write" },
	{ "vsock_device", "epoll_wait recvmsg sendmsg epoll_ctl preadv2 poll write" },
	{ "wl_device", "epoll_wait recvmsg sendmsg read preadv2 poll write" },
	{ "balloon_device", "preadv2 poll write" },
	{ "vhost_net_device", "poll write" },
	{ "vhost_vsock_device", "poll write" },
	{ "main_block", "io_uring_enter preadv2 pwritev2 fdatasync poll write" },
	{ "main_net", "io_uring_enter readv writev recvfrom sendmsg preadv2 poll write" },
	{ "main_rng", "getrandom preadv2 poll write" },
	{ "main_vsock", "epoll_wait recvmsg sendmsg epoll_ctl preadv2 poll write" },
	{ "main_wl", "epoll_wait recvmsg sendmsg read preadv2 poll write" },
	{ "main_balloon", "preadv2 poll write" },
	/* It holds for all of these threads, too. */
	{ "main_starter", "io_uring_enter pwritev2 fdatasync readv writev recvfrom sendmsg recvmsg "
			  "getrandom epoll_wait epoll_ctl preadv2 read poll write" },
	/* KVM_RUN is an ioctl, whose number is an argument: it cannot be one. */
	{ "main_vcpu", "write preadv2 futex" },
	{ "main_console", "ppoll read write sendto" },
	{ "main_control", "epoll_wait read recvmsg sendto" },
	{ "main_window", "recvmsg sendmsg" },
	{ "connector", "recvmsg connect sendmsg close" },
};

/* The kernel's own criterion (seccomp_is_const_allow()), in both of a policy's programs. */
static void check_hot(const struct jail_policy *policy, const char *name)
{
	const struct jail_program *const programs[] = { &policy->kill, &policy->log };
	const struct seccomp_data data = { .nr = seccomp_syscall_resolve_name(name),
		.arch = AUDIT_ARCH_X86_64 };

	for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
		bool looks = false;
		uint32_t action = run_and_look(programs[i], &data, &looks);

		if (action != SECCOMP_RET_ALLOW || looks)
			fail_msg("%s: %s: 0x%x%s", policy->name, name, action,
				looks ? ", by its arguments" : "");
	}
}

static void hot_calls_are_always_allowed(void **state)
{
	size_t count;

	(void)state;
	(void)jail_policy_all(&count);
	assert_int_equal(count, ARRAY_SIZE(hot)); /* a new one has hot calls, too */
	for (size_t i = 0; i < ARRAY_SIZE(hot); i++) {
		const struct jail_policy *policy = jail_policy_find(hot[i].policy);
		char names[256], *rest = NULL;

		assert_non_null(policy);
		snprintf(names, sizeof(names), "%s", hot[i].calls);
		for (char *name = strtok_r(names, " ", &rest); name != NULL;
			name = strtok_r(NULL, " ", &rest))
			check_hot(policy, name);
	}
}

static int map_calls(void **state)
{
	(void)state;
	calls = mmap(NULL, CALLS_MAX * sizeof(*calls), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return calls == MAP_FAILED ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_rule_allows_and_refuses),
		cmocka_unit_test(every_rule_does_so_in_the_kernel),
		cmocka_unit_test(the_embedded_programs_are_those_of_the_texts),
		cmocka_unit_test(hot_calls_are_always_allowed),
	};

	return cmocka_run_group_tests(tests, map_calls, NULL);
}
