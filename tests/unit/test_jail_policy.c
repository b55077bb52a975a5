// SPDX-License-Identifier: BSD-3-Clause
/*
 * jail/policy_*: what a policy's text says and what the kernel then does, and
 * that every error in a text is told with its line. The filters are tried on
 * the real kernel, random ones on a small machine for their programs; those
 * that are part of the binary are test_jail_rules.c's.
 */
#include "unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "jail/policy_compile.h"
#include "unit/policy_machine.h"

/* ---- What the text says */

static void a_text_becomes_rules(void **state)
{
	static const char text[] =
		"# comment\n"
		"\n"
		"  read: 1 # reason\r\n"
		"clone3 : return ENOSYS\n"
		"mmap: arg2 in PROT_READ|PROT_WRITE && arg3 == 0x22||arg0>=~5;return 7\n"
		"exit: 1";
	struct policy policy = { 0 };
	struct policy_error error = { "" };

	(void)state;
	assert_int_equal(policy_parse_text(&policy, "d/t.policy", text, &error), 0);
	assert_int_equal(policy.rule_count, 4);
	assert_string_equal(policy.rules[0].syscall, "read");
	assert_true(policy.rules[0].always);
	assert_int_equal(policy.rules[0].line, 3);
	assert_string_equal(policy.rules[0].file, "d/t.policy");
	assert_int_equal(policy.rules[0].otherwise, POLICY_DEFAULT);
	assert_int_equal(policy.rules[1].otherwise, ENOSYS);
	assert_false(policy.rules[1].always);

	const struct policy_rule *mmap_rule = &policy.rules[2];

	assert_int_equal(mmap_rule->alternative_count, 2);
	assert_int_equal(mmap_rule->alternatives[0].count, 2);
	assert_int_equal(mmap_rule->alternatives[0].tests[0].argument, 2);
	assert_int_equal(mmap_rule->alternatives[0].tests[0].operation, POLICY_BITS_WITHIN);
	assert_int_equal(mmap_rule->alternatives[0].tests[0].value, 3);
	assert_int_equal(mmap_rule->alternatives[0].tests[1].argument, 3);
	assert_int_equal(mmap_rule->alternatives[0].tests[1].operation, POLICY_EQUAL);
	assert_int_equal(mmap_rule->alternatives[0].tests[1].value, 0x22);
	assert_int_equal(mmap_rule->alternatives[1].count, 1);
	assert_int_equal(mmap_rule->alternatives[1].tests[0].argument, 0);
	assert_int_equal(mmap_rule->alternatives[1].tests[0].operation, POLICY_GREATER_EQUAL);
	assert_true(mmap_rule->alternatives[1].tests[0].value == ~UINT64_C(5));
	assert_int_equal(mmap_rule->otherwise, 7);
	policy_free(&policy);
	assert_int_equal(policy.rule_count, 0);
}

static const struct {
	const char *text;
	const char *said; /* after "t.policy:" */
} errors[] = {
	{ "read", "1: ':' is expected after 'read'" },
	{ "\n\nread write: 1", "3: ':' is expected after 'read'" },
	{ ": 1", "1: the name of a system call is expected" },
	{ "-read: 1", "1: the name of a system call is expected" },
	{ "a_name_that_is_longer_than_any_system_call: 1",
		"1: the name of a system call is expected" },
	{ "read:", "1: arg0 to arg5, 1 or return is expected" },
	{ "read: 0", "1: arg0 to arg5, 1 or return is expected" },
	{ "read: allow", "1: arg0 to arg5, 1 or return is expected" },
	{ "read: arg6 == 1", "1: arg0 to arg5, 1 or return is expected" },
	{ "read: arg10 == 1", "1: arg0 to arg5, 1 or return is expected" },
	{ "read: arg0 = 1", "1: one of == != < <= > >= & in is expected at '= 1'" },
	{ "read: arg0", "1: one of == != < <= > >= & in is expected at ''" },
	{ "read: arg0 && arg1 == 1", "1: one of == != < <= > >= & in is expected at '&& " },
	{ "read: arg0 == ", "1: a number or the name of one is expected at ''" },
	{ "read: arg0 == PROT_NOTHING", "1: 'PROT_NOTHING' is not a number, nor the name" },
	{ "read: arg0 == 12x", "1: '12x' is not a number" },
	{ "read: arg0 == 0x10000000000000000", "1: '0x10000000000000000' is not a number" },
	{ "read: arg0 == 1|", "1: a number or the name of one is expected at ''" },
	{ "read: arg0 == 1 &&", "1: arg0 to arg5, 1 or return is expected" },
	{ "read: arg0 == 1 ||", "1: arg0 to arg5, 1 or return is expected" },
	{ "read: arg0 < 1 && arg0 < 2 && arg0 < 3 && arg0 < 4 && arg0 < 5 && arg0 < 6 && arg0 < 7 "
	  "&& arg0 < 8 && arg0 < 9",
		"1: more than 8 tests" },
	{ "read: 1 1", "1: '1' is not understood" },
	{ "read: 12", "1: '2' is not understood" },
	{ "read: arg0 == 1 2", "1: '2' is not understood" },
	{ "read: arg0 == 1;", "1: return is expected after ';'" },
	{ "read: arg0 == 1; 1", "1: return is expected after ';'" },
	{ "read: return", "1: arg0 to arg5, 1 or return is expected" },
	{ "read: return EWHAT", "1: 'EWHAT' is no error" },
	{ "read: return 4096", "1: '4096' is no error" },
	{ "read: return -1", "1: an error is expected after return" },
	{ "read: return ENOSYS now", "1: 'now' is not understood" },
	{ "read: 1\nwrite: 1\nread: 1", "3: read has a rule already, t.policy:1" },
	{ "@denylist", "1: '@denylist' is not understood; there are @include and @frequency" },
	{ "@frequencyx y", "1: '@frequencyx y' is not understood" },
	{ "@includex y", "1: '@includex y' is not understood" },
	{ "@frequency", "1: a file is expected after @frequency" },
	{ "@frequency \t # x", "1: a file is expected after @frequency" },
	{ "read: 1\n@frequency a b", "2: 'b' is not understood" },
	{ "@include", "1: a file is expected after @include" },
	{ "@include /nowhere/x.policy", "1: cannot read '/nowhere/x.policy': No such" },
	{ "read: arg0 == \\\n 1", "1: a number or the name of one is expected at '\\'" },
};

static void every_error_names_its_line(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		struct policy policy = { 0 };
		struct policy_error error = { "" };
		char expected[256];
		int r = policy_parse_text(&policy, "t.policy", errors[i].text, &error);

		snprintf(expected, sizeof(expected), "t.policy:%s", errors[i].said);
		if (r >= 0 || strncmp(error.text, expected, strlen(expected)) != 0) {
			print_error("'%s' gives %d, %s\n", errors[i].text, r, error.text);
			fail();
		}
		policy_free(&policy);
	}
}

/* minijail's hint says nothing of what is allowed, so its file need not be there. */
static void frequencies_change_nothing(void **state)
{
	struct policy policy = { 0 };
	struct policy_error error = { "" };

	(void)state;
	assert_int_equal(policy_parse_text(&policy, "t",
				 "@frequency ./none.frequency # hot first\n"
				 "read: 1\n\t@frequency\t/none  \n@frequency none",
				 &error),
		0);
	assert_int_equal(policy.rule_count, 1);
	assert_int_equal(policy.rules[0].line, 2);
	policy_free(&policy);
}

static void a_line_too_long_is_an_error(void **state)
{
	char text[2000];
	struct policy policy = { 0 };
	struct policy_error error = { "" };

	(void)state;
	memset(text, ' ', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(policy_parse_text(&policy, "t", text, &error), -EINVAL);
	assert_string_equal(error.text, "t:1: the line is longer than 1023 bytes");
	policy_free(&policy);
}

/* ---- Files */

struct directory {
	char path[32];
};

static void make_directory(struct directory *directory)
{
	strcpy(directory->path, "/tmp/policy-XXXXXX");
	assert_non_null(mkdtemp(directory->path));
}

static void put(const struct directory *directory, const char *name, const char *text, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/%s", directory->path, name);
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(fd_write_full(fd, text, size), 0);
}

static void remove_directory(const struct directory *directory)
{
	static const char *const names[] = { "a.policy", "b.policy", "sub/c.policy", "sub", "" };
	char path[64];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", directory->path, names[i]);
		(void)remove(path);
	}
}

/* What loading a.policy says, without the directory's name. */
static const char *load_error(const struct directory *directory, int expected)
{
	static struct policy_error error;
	struct jail_policy *untouched = (void *)(uintptr_t)1, *policy = untouched;

	error.text[0] = '\0';
	assert_int_equal(
		policy_load(directory->path, "a", POLICY_X86_64, &policy, &error), expected);
	assert_ptr_equal(policy, untouched);
	assert_int_equal(strncmp(error.text, directory->path, strlen(directory->path)), 0);
	return error.text + strlen(directory->path) + 1;
}

static void files_include_files_beside_them(void **state)
{
	static const char a[] = "@include b.policy\nread: 1\n", b[] = "@include sub/c.policy\n",
			  c[] = "exit: 1\nmmap: arg0 == 1\nopen: return 1";
	struct directory directory;
	struct policy_error error = { "" };
	struct jail_policy *policy = NULL;
	char path[64];

	(void)state;
	make_directory(&directory);
	snprintf(path, sizeof(path), "%s/sub", directory.path);
	assert_int_equal(mkdir(path, 0700), 0);
	put(&directory, "a.policy", a, strlen(a));
	put(&directory, "b.policy", b, strlen(b));
	put(&directory, "sub/c.policy", c, strlen(c));
	assert_int_equal(policy_load(directory.path, "a", POLICY_X86_64, &policy, &error), 0);
	assert_string_equal(policy->name, "a");
	assert_int_equal(policy->syscalls, 3); /* what is only refused does not count */
	assert_in_range(policy->kill.count, 8, 100);
	assert_int_equal(policy->kill.count, policy->log.count);
	policy_unload(policy);

	put(&directory, "sub/c.policy", "\nx: 1", 5);
	assert_string_equal(
		load_error(&directory, -EINVAL), "sub/c.policy:2: x86_64 has no system call 'x'");
	put(&directory, "sub/c.policy", "read: 1", 7);
	assert_non_null(
		strstr(load_error(&directory, -EEXIST), "a.policy:2: read has a rule already, "));
	remove_directory(&directory);
}

static void wrong_files_are_errors(void **state)
{
	static const char circle[] = "# around\n@include a.policy\n";
	static char large[(64 << 10) + 1];
	struct directory directory;

	(void)state;
	make_directory(&directory);
	assert_string_equal(
		load_error(&directory, -ENOENT) + strlen("a.policy: cannot read '"
							 "/tmp/policy-XXXXXX/a.policy': "),
		"No such file or directory");
	put(&directory, "a.policy", circle, strlen(circle));
	assert_non_null(strstr(load_error(&directory, -ELOOP), "a.policy:2: cannot read "));
	put(&directory, "a.policy", "read: 1\n\0write: 1\n", 18);
	assert_non_null(strstr(load_error(&directory, -EILSEQ), "a.policy: cannot read "));
	memset(large, '\n', sizeof(large));
	put(&directory, "a.policy", large, sizeof(large));
	assert_non_null(strstr(load_error(&directory, -EFBIG), "File too large"));
	remove_directory(&directory);
}

/* ---- What the kernel does */

enum outcome { ALLOWED = 0, KILLED = -1 }; /* or an errno that no call gives by itself */

enum { MARK = 999 };

/* Its arguments are harmless: there is no process that they could be for. */
#define CALL "process_vm_readv"

static const struct {
	const char *rule;
	uint64_t arguments[6];
	int outcome;
} decisions[] = {
	{ "1", { 0 }, ALLOWED },
	{ "return 999", { 0 }, MARK },
	{ "arg1 == 5", { 0, 5 }, ALLOWED },
	{ "arg1 == 5", { 0, 4 }, KILLED },
	{ "arg1 == 5", { 5, 0 }, KILLED },
	{ "arg1 == 5", { 0, 5 | UINT64_C(1) << 32 }, KILLED },
	{ "arg1 == 0x500000005", { 0, 0x500000005 }, ALLOWED },
	{ "arg1 == 0x500000005", { 0, 5 }, KILLED },
	{ "arg5 != 5", { 0, 0, 0, 0, 0, 5 }, KILLED },
	{ "arg5 != 5", { 0, 0, 0, 0, 0, 6 }, ALLOWED },
	{ "arg5 != 5", { 0, 0, 0, 0, 0, 5 | UINT64_C(1) << 32 }, ALLOWED },
	{ "arg2 < 10", { 0, 0, 9 }, ALLOWED },
	{ "arg2 < 10", { 0, 0, 10 }, KILLED },
	{ "arg2 < 10", { 0, 0, UINT64_MAX }, KILLED },
	{ "arg2 < 0x200000001", { 0, 0, 0x200000000 }, ALLOWED },
	{ "arg2 < 0x200000001", { 0, 0, 0x1ffffffff }, ALLOWED },
	{ "arg2 < 0x200000001", { 0, 0, 0x200000001 }, KILLED },
	{ "arg2 <= 10", { 0, 0, 10 }, ALLOWED },
	{ "arg2 <= 10", { 0, 0, 11 }, KILLED },
	{ "arg2 > 10", { 0, 0, 11 }, ALLOWED },
	{ "arg2 > 10", { 0, 0, 10 }, KILLED },
	{ "arg2 > 10", { 0, 0, UINT64_C(1) << 32 }, ALLOWED },
	{ "arg2 >= 10", { 0, 0, 10 }, ALLOWED },
	{ "arg2 >= 10", { 0, 0, 9 }, KILLED },
	{ "arg3 & 4", { 0, 0, 0, 4 }, ALLOWED },
	{ "arg3 & 4", { 0, 0, 0, 7 }, ALLOWED },
	{ "arg3 & 4", { 0, 0, 0, 3 }, KILLED },
	{ "arg3 & 0x100000000", { 0, 0, 0, 0x100000000 }, ALLOWED },
	{ "arg3 & 0x100000000", { 0, 0, 0, 0xffffffff }, KILLED },
	{ "arg3 in 5", { 0, 0, 0, 0 }, ALLOWED },
	{ "arg3 in 5", { 0, 0, 0, 5 }, ALLOWED },
	{ "arg3 in 5", { 0, 0, 0, 4 }, ALLOWED },
	{ "arg3 in 5", { 0, 0, 0, 2 }, KILLED },
	{ "arg3 in 5", { 0, 0, 0, UINT64_C(1) << 32 }, KILLED },
	{ "arg3 in ~PROT_EXEC", { 0, 0, 0, 3 }, ALLOWED },
	{ "arg3 in ~PROT_EXEC", { 0, 0, 0, 7 }, KILLED },
	{ "arg1 == 1 && arg2 == 2", { 0, 1, 2 }, ALLOWED },
	{ "arg1 == 1 && arg2 == 2", { 0, 1, 3 }, KILLED },
	{ "arg1 == 1 && arg2 == 2", { 0, 3, 2 }, KILLED },
	{ "arg1 == 1 || arg1 == 2 && arg3 == 3", { 0, 1 }, ALLOWED },
	{ "arg1 == 1 || arg1 == 2 && arg3 == 3", { 0, 2 }, KILLED },
	{ "arg1 == 1 || arg1 == 2 && arg3 == 3", { 0, 2, 0, 3 }, ALLOWED },
	{ "arg1 == 1 || arg2 == 2", { 0, 0, 2 }, ALLOWED },
	{ "arg1 == 1 || arg2 == 2", { 0, 1, 0 }, ALLOWED },
	{ "arg1 == 1 || arg2 == 2", { 0, 2, 1 }, KILLED },
	{ "arg1 == 1 || arg1 == 1", { 0, 1 }, ALLOWED },
	/* The opposite of each, in `; return`. */
	{ "arg1 == 5; return 999", { 0, 5 }, ALLOWED },
	{ "arg1 == 5; return 999", { 0, 6 }, MARK },
	{ "arg1 != 5; return 999", { 0, 6 }, ALLOWED },
	{ "arg1 != 5; return 999", { 0, 5 }, MARK },
	{ "arg1 < 5; return 999", { 0, 4 }, ALLOWED },
	{ "arg1 < 5; return 999", { 0, 5 }, MARK },
	{ "arg1 <= 5; return 999", { 0, 5 }, ALLOWED },
	{ "arg1 <= 5; return 999", { 0, 6 }, MARK },
	{ "arg1 > 5; return 999", { 0, 6 }, ALLOWED },
	{ "arg1 > 5; return 999", { 0, 5 }, MARK },
	{ "arg1 >= 5; return 999", { 0, 5 }, ALLOWED },
	{ "arg1 >= 5; return 999", { 0, 4 }, MARK },
	{ "arg1 & 4; return 999", { 0, 6 }, ALLOWED },
	{ "arg1 & 4; return 999", { 0, 3 }, MARK },
	{ "arg1 in 6; return 999", { 0, 4 }, ALLOWED },
	{ "arg1 in 6; return 999", { 0, 1 }, MARK },
	{ "arg1 in 6; return 999", { 0, UINT64_C(1) << 63 }, MARK },
	{ "arg1 == 1 && arg2 == 2; return 999", { 0, 1, 2 }, ALLOWED },
	{ "arg1 == 1 && arg2 == 2; return 999", { 0, 1, 3 }, MARK },
	{ "arg1 == 1 && arg2 == 2; return 999", { 0, 3, 2 }, MARK },
	{ "arg1 == 1 || arg2 == 2; return 999", { 0, 3, 2 }, ALLOWED },
	{ "arg1 == 1 || arg2 == 2; return 999", { 0, 1, 3 }, ALLOWED },
	{ "arg1 == 1 || arg2 == 2; return 999", { 0, 3, 3 }, MARK },
	{ "arg1 == 1 || arg1 == 2; return 999", { 0, 2 }, ALLOWED },
	{ "arg1 == 1 || arg1 == 2; return 999", { 0, 3 }, MARK },
	{ "arg1 > 1 && arg1 < 4", { 0, 3 }, ALLOWED },
	{ "arg1 > 1 && arg1 < 4", { 0, 4 }, KILLED },
	{ "arg1 & 6", { 0, 2 }, ALLOWED },
	{ "arg1 & 6", { 0, 9 }, KILLED },
};

static void parse(struct policy *policy, const char *text)
{
	struct policy_error error = { "" };

	*policy = (struct policy){ 0 };
	if (policy_parse_text(policy, "t", text, &error) < 0) {
		print_error("%s\n%s\n", text, error.text);
		fail();
	}
}

static void compile(const char *text, struct sock_fprog *program)
{
	struct policy policy;
	struct policy_error error = { "" };

	parse(&policy, text);
	if (policy_compile(&policy, POLICY_KILL, &program->filter, &program->len, &error) < 0) {
		print_error("%s\n%s\n", text, error.text);
		fail();
	}
	policy_free(&policy);
}

/* In a child: the call under the filter, and only raw calls after that. */
static void call_filtered(const struct sock_fprog *program, const uint64_t *a)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program) < 0)
		_exit(3);
	long r = syscall(SYS_process_vm_readv, a[0], a[1], a[2], a[3], a[4], a[5]);

	syscall(SYS_exit_group, r < 0 && errno == MARK ? 1 : 0);
}

static int decide(const struct sock_fprog *program, const uint64_t *arguments)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		call_filtered(program, arguments);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
		return KILLED;
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
	return WEXITSTATUS(status) == 1 ? MARK : ALLOWED;
}

static void the_kernel_decides_as_the_rule_says(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(decisions); i++) {
		char text[256];
		struct sock_fprog program;

		snprintf(text, sizeof(text), CALL ": %s\nexit_group: 1\n", decisions[i].rule);
		compile(text, &program);
		int outcome = decide(&program, decisions[i].arguments);

		if (outcome != decisions[i].outcome) {
			print_error("decision %zu, '%s': %d\n", i, decisions[i].rule, outcome);
			fail();
		}
		free(program.filter);
	}
}

static void what_cannot_be_compiled_is_an_error(void **state)
{
	static const struct {
		const char *text, *said;
	} cases[] = {
		{ "read: 1\nraed: 1\n", "t:2: x86_64 has no system call 'raed'" },
		{ "socketcall: 1", "t:1: x86_64 has no system call 'socketcall'" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct policy policy;
		struct policy_error error = { "" };
		struct sock_filter *filter = NULL;
		unsigned short count = 7;

		parse(&policy, cases[i].text);
		assert_int_equal(
			policy_compile(&policy, POLICY_KILL, &filter, &count, &error), -EINVAL);
		if (strncmp(error.text, cases[i].said, strlen(cases[i].said)) != 0) {
			print_error("%s\n", error.text);
			fail();
		}
		assert_null(filter);
		assert_int_equal(count, 7);
		policy_free(&policy);
	}
}

/* ---- The policies in the binary */

static const struct policy_rule *rule_for(const struct policy *policy, int number)
{
	for (unsigned i = 0; i < policy->rule_count; i++)
		if (seccomp_syscall_resolve_name(policy->rules[i].syscall) == number)
			return &policy->rules[i];
	return NULL;
}

/* The same text under another architecture's numbers, and only that one's calls. */
static void programs_are_of_one_architecture(void **state)
{
	enum { AARCH64_READ = 63, AARCH64_MMAP = 222 };
	static const struct {
		int number;
		uint32_t arch;
		uint64_t argument;
		uint32_t action;
	} calls[] = {
		{ AARCH64_READ, AUDIT_ARCH_AARCH64, 0, SECCOMP_RET_ALLOW },
		{ AARCH64_MMAP, AUDIT_ARCH_AARCH64, 3, SECCOMP_RET_ALLOW },
		{ AARCH64_MMAP, AUDIT_ARCH_AARCH64, 4, SECCOMP_RET_KILL_PROCESS },
		{ SYS_read, AUDIT_ARCH_AARCH64, 0, SECCOMP_RET_KILL_PROCESS },
		{ AARCH64_READ, AUDIT_ARCH_X86_64, 0, SECCOMP_RET_KILL_PROCESS },
		{ SYS_read, AUDIT_ARCH_X86_64, 0, SECCOMP_RET_KILL_PROCESS },
		{ AARCH64_READ, AUDIT_ARCH_ARM, 0, SECCOMP_RET_KILL_PROCESS },
	};
	struct policy policy;
	struct policy_error error = { "" };
	struct sock_filter *filter = NULL;
	struct jail_program program;

	(void)state;
	parse(&policy, "read: 1\nmmap: arg2 in 3\n");
	policy.architecture = POLICY_AARCH64;
	assert_int_equal(policy_compile(&policy, POLICY_KILL, &filter, &program.count, &error), 0);
	program.instructions = filter;
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		const struct seccomp_data data = {
			.nr = calls[i].number,
			.arch = calls[i].arch,
			.args = { 0, 0, calls[i].argument },
		};

		assert_int_equal(run_program(&program, &data), calls[i].action);
	}
	free(filter);
	policy_free(&policy);
	parse(&policy, "read: 1\nopen: return ENOENT\n");
	policy.architecture = POLICY_AARCH64;
	assert_int_equal(
		policy_compile(&policy, POLICY_KILL, &filter, &program.count, &error), -EINVAL);
	assert_string_equal(error.text, "t:2: aarch64 has no system call 'open'");
	policy_free(&policy);
}

/* A rule of up to three alternatives, with values that are near each other. */
static void make_rule(struct policy_rule *rule, const char *name, unsigned *seed)
{
	*rule = (struct policy_rule){ .file = strdup("random"), .otherwise = POLICY_DEFAULT };
	snprintf(rule->syscall, sizeof(rule->syscall), "%s", name);
	rule->alternative_count = 1 + draw_below(seed, 3);
	rule->alternatives = calloc(rule->alternative_count, sizeof(rule->alternatives[0]));
	if (draw_below(seed, 2) == 0)
		rule->otherwise = MARK;
	for (unsigned a = 0; a < rule->alternative_count; a++) {
		struct policy_alternative *alternative = &rule->alternatives[a];

		do {
			struct policy_test *test = &alternative->tests[alternative->count++];

			test->argument = draw_below(seed, 3);
			test->operation = draw_below(seed, POLICY_OPERATORS);
			test->value = draw_below(seed, 4) + ((uint64_t)draw_below(seed, 2) << 32);
		} while (alternative->count < POLICY_TESTS_MAX && draw_below(seed, 2) == 0);
	}
}

static unsigned check_rule(const struct policy *policy, const struct jail_program *program)
{
	const struct policy_rule *rule = rule_for(policy, SYS_process_vm_readv);
	unsigned allowed = 0;

	for (unsigned n = 0; n < 8 * 8 * 8; n++) {
		struct seccomp_data data = { .nr = SYS_process_vm_readv,
			.arch = AUDIT_ARCH_X86_64 };
		uint64_t arguments[POLICY_ARGUMENTS] = { 0 };

		for (unsigned i = 0; i < 3; i++)
			arguments[i] = (n >> 3 * i & 3) + ((uint64_t)(n >> (3 * i + 2) & 1) << 32);
		memcpy(data.args, arguments, sizeof(arguments));
		uint32_t expected = expected_action(rule, arguments, SECCOMP_RET_KILL_PROCESS);

		assert_int_equal(run_program(program, &data), expected);
		allowed += expected == SECCOMP_RET_ALLOW;
	}
	return allowed;
}

static void random_rules_mean_what_they_say(void **state)
{
	unsigned seed = 1, allowed = 0;

	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		struct policy policy = { .rules = calloc(1, sizeof(struct policy_rule)),
			.rule_count = 1 };
		struct policy_error error;
		struct sock_filter *filter;
		struct jail_program program;

		make_rule(policy.rules, CALL, &seed);
		assert_int_equal(
			policy_compile(&policy, POLICY_KILL, &filter, &program.count, &error), 0);
		program.instructions = filter;
		allowed += check_rule(&policy, &program);
		free(filter);
		policy_free(&policy);
	}
	assert_in_range(allowed, 100000, 1000000);
}

/* As an ioctl's, in any order; more than a jump goes over. */
static void make_list(struct policy_rule *rule, unsigned *seed)
{
	rule->otherwise = draw_below(seed, 2) == 0 ? MARK : POLICY_DEFAULT;
	rule->alternative_count = 2 + draw_below(seed, 300);
	rule->alternatives = calloc(rule->alternative_count, sizeof(rule->alternatives[0]));
	for (unsigned i = 0; i < rule->alternative_count; i++)
		rule->alternatives[i] = (struct policy_alternative){
			.count = 1,
			.tests = { { .operation = POLICY_EQUAL, .value = i * 7 % 512 } },
		};
}

/* Rules of every kind for one call in `share`, but always one for CALL and the end. */
static void make_policy(struct policy *policy, unsigned share, unsigned *seed)
{
	*policy = (struct policy){ .rules = calloc(512, sizeof(policy->rules[0])) };
	for (int number = 0; number < 462; number++) {
		struct policy_rule *rule = &policy->rules[policy->rule_count];
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, number);
		bool needed = number == SYS_exit_group || number == SYS_process_vm_readv;
		unsigned kind = draw_below(seed, 8);

		if (name != NULL && (needed || draw_below(seed, share) == 0)) {
			make_rule(rule, name, seed);
			policy->rule_count++;
		}
		free(name);
		if (rule->file == NULL || number == SYS_process_vm_readv || (!needed && kind < 4))
			continue;
		free(rule->alternatives);
		rule->alternatives = NULL;
		rule->alternative_count = 0;
		rule->always = needed || kind < 6;
		if (kind == 7 && !needed)
			make_list(rule, seed);
	}
}

/* For calls that have a rule and those that have none. */
static void check_policy(
	const struct policy *policy, const struct jail_program *program, unsigned *seed)
{
	for (int number = 0; number < 600; number++) {
		const struct policy_rule *rule = rule_for(policy, number);

		for (unsigned i = 0; i < 20; i++) {
			uint64_t arguments[POLICY_ARGUMENTS] = { 0 };
			struct seccomp_data data = { .nr = number, .arch = AUDIT_ARCH_X86_64 };

			for (unsigned a = 0; a < 3; a++)
				arguments[a] = draw_below(seed, i % 2 == 0 ? 4 : 520) +
					       ((uint64_t)(draw_below(seed, 4) == 0) << 32);
			memcpy(data.args, arguments, sizeof(arguments));
			uint32_t expected = rule == NULL ? SECCOMP_RET_KILL_PROCESS
							 : expected_action(rule, arguments,
								   SECCOMP_RET_KILL_PROCESS);

			assert_int_equal(run_program(program, &data), expected);
		}
	}
}

/* And the kernel takes the program. */
static void check_with_kernel(const struct policy *policy, struct sock_fprog program)
{
	static const uint64_t arguments[POLICY_ARGUMENTS] = { 1, 2, 3 };
	uint32_t expected = expected_action(
		rule_for(policy, SYS_process_vm_readv), arguments, SECCOMP_RET_KILL_PROCESS);
	int outcome = decide(&program, arguments);

	assert_int_equal(outcome, expected == SECCOMP_RET_ALLOW          ? ALLOWED
				  : expected == SECCOMP_RET_KILL_PROCESS ? KILLED
									 : MARK);
}

/* From programs of a few instructions to such as no jump leads over. */
static void random_policies_mean_what_they_say(void **state)
{
	unsigned seed = 1, longest = 0;

	(void)state;
	for (unsigned i = 0; i < 60; i++) {
		struct policy policy;
		struct policy_error error;
		struct sock_filter *filter;
		struct jail_program program;

		make_policy(&policy, 4 + 400 / (i + 1), &seed);
		assert_int_equal(
			policy_compile(&policy, POLICY_KILL, &filter, &program.count, &error), 0);
		program.instructions = filter;
		check_policy(&policy, &program, &seed);
		check_with_kernel(&policy, (struct sock_fprog){ program.count, filter });
		longest = program.count > longest ? program.count : longest;
		free(filter);
		policy_free(&policy);
	}
	assert_in_range(longest, 1000, BPF_MAXINSNS);
}

/* The same numbers mean other calls there, so nothing is let through. */
static void other_conventions_are_killed(void **state)
{
	static const uint32_t others[] = { AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64, 0 };
	size_t count;
	const struct jail_policy *policies = jail_policy_all(&count);

	(void)state;
	for (size_t i = 0; i < count; i++) {
		for (int number = 0; number < 600; number++) {
			struct seccomp_data data = { .nr = number };

			for (size_t o = 0; o < ARRAY_SIZE(others); o++) {
				data.arch = others[o];
				assert_int_equal(run_program(&policies[i].kill, &data),
					SECCOMP_RET_KILL_PROCESS);
				assert_int_equal(run_program(&policies[i].log, &data),
					SECCOMP_RET_KILL_PROCESS);
			}
			data = (struct seccomp_data){ .nr = number | 0x40000000,
				.arch = AUDIT_ARCH_X86_64 };
			assert_int_equal(
				run_program(&policies[i].kill, &data), SECCOMP_RET_KILL_PROCESS);
			assert_int_equal(
				run_program(&policies[i].log, &data), SECCOMP_RET_KILL_PROCESS);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_text_becomes_rules),
		cmocka_unit_test(every_error_names_its_line),
		cmocka_unit_test(frequencies_change_nothing),
		cmocka_unit_test(a_line_too_long_is_an_error),
		cmocka_unit_test(files_include_files_beside_them),
		cmocka_unit_test(wrong_files_are_errors),
		cmocka_unit_test(the_kernel_decides_as_the_rule_says),
		cmocka_unit_test(what_cannot_be_compiled_is_an_error),
		cmocka_unit_test(programs_are_of_one_architecture),
		cmocka_unit_test(random_rules_mean_what_they_say),
		cmocka_unit_test(random_policies_mean_what_they_say),
		cmocka_unit_test(other_conventions_are_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
