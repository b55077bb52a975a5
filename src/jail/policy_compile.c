// SPDX-License-Identifier: BSD-3-Clause
/*
 * Rules to instructions. Rules come from the parser, which has checked their
 * form. The compiler is our own, and libseccomp only knows the numbers of the
 * system calls: its 2.5.4 makes programs of rules with several alternatives that
 * kill calls which an alternative allows, and can neither test an argument twice
 * nor say `return` of what several alternatives leave. The tests compare
 * programs with their rules, for random ones too.
 *
 * A program: the checks of the convention; rules with tests, each skipped whole
 * when the number is not its own; rules without tests; the default. In this
 * order, since the kernel has an answer to the calls that are always allowed
 * without running anything (Linux 5.11). It is linear, for the same reason.
 */
#include "jail/policy_compile.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* x32 calls have this bit in their numbers, and the same architecture. */
enum { X32_BIT = 0x40000000 };

/* Targets of jumps that are not known yet; an alternative is shorter than these. */
enum { PASS = 254, FAIL = 255 };

struct assembler {
	struct sock_filter code[BPF_MAXINSNS];
	unsigned count;
	bool overflow;
};

static void emit(struct assembler *a, unsigned code, uint32_t k, unsigned jt, unsigned jf)
{
	if (a->count == ARRAY_SIZE(a->code)) {
		a->overflow = true;
		return;
	}
	a->code[a->count++] = (struct sock_filter){ (uint16_t)code, (uint8_t)jt, (uint8_t)jf, k };
}

static void emit_load(struct assembler *a, size_t offset)
{
	emit(a, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void emit_return(struct assembler *a, uint32_t action)
{
	emit(a, BPF_RET | BPF_K, action, 0, 0);
}

static void emit_jump(struct assembler *a, unsigned operation, uint32_t k, unsigned jt, unsigned jf)
{
	emit(a, BPF_JMP | operation | BPF_K, k, jt, jf);
}

/* Puts the distance to here into the jumps since `first` that go to `target`. */
static void resolve(struct assembler *a, unsigned first, unsigned target)
{
	for (unsigned i = first; i < a->count; i++) {
		struct sock_filter *instruction = &a->code[i];

		if (BPF_CLASS(instruction->code) != BPF_JMP)
			continue;
		if (instruction->jt == target)
			instruction->jt = (uint8_t)(a->count - i - 1);
		if (instruction->jf == target)
			instruction->jf = (uint8_t)(a->count - i - 1);
	}
}

/*
 * How a 64-bit test is made of two of 32 bits. `high` is followed, where the high
 * half decides, by jumps to PASS or FAIL; what falls through depends on the low.
 */
static const struct {
	struct {
		unsigned operation; /* 0: none */
		unsigned jt, jf;
	} high[2], low;
	bool inverted; /* the bits that are not in the value are looked for */
} operations[POLICY_OPERATORS] = {
	[POLICY_EQUAL] = { { { BPF_JEQ, 0, FAIL } }, { BPF_JEQ, 0, FAIL }, false },
	[POLICY_NOT_EQUAL] = { { { BPF_JEQ, 0, PASS } }, { BPF_JEQ, FAIL, 0 }, false },
	[POLICY_LESS] = { { { BPF_JGT, FAIL, 0 }, { BPF_JEQ, 0, PASS } }, { BPF_JGE, FAIL, 0 },
		false },
	[POLICY_LESS_EQUAL] = { { { BPF_JGT, FAIL, 0 }, { BPF_JEQ, 0, PASS } },
		{ BPF_JGT, FAIL, 0 }, false },
	[POLICY_GREATER] = { { { BPF_JGT, PASS, 0 }, { BPF_JEQ, 0, FAIL } }, { BPF_JGT, 0, FAIL },
		false },
	[POLICY_GREATER_EQUAL] = { { { BPF_JGT, PASS, 0 }, { BPF_JEQ, 0, FAIL } },
		{ BPF_JGE, 0, FAIL }, false },
	[POLICY_BITS_ANY] = { { { BPF_JSET, PASS, 0 } }, { BPF_JSET, 0, FAIL }, false },
	[POLICY_BITS_WITHIN] = { { { BPF_JSET, FAIL, 0 } }, { BPF_JSET, FAIL, 0 }, true },
};

static void emit_test(struct assembler *a, const struct policy_test *test)
{
	size_t offset = offsetof(struct seccomp_data, args) + test->argument * sizeof(uint64_t);
	uint64_t value = operations[test->operation].inverted ? ~test->value : test->value;
	unsigned first = a->count;

	/* Little-endian: the low half comes first. */
	emit_load(a, offset + sizeof(uint32_t));
	for (unsigned i = 0; i < 2 && operations[test->operation].high[i].operation != 0; i++)
		emit_jump(a, operations[test->operation].high[i].operation, (uint32_t)(value >> 32),
			operations[test->operation].high[i].jt,
			operations[test->operation].high[i].jf);
	emit_load(a, offset);
	emit_jump(a, operations[test->operation].low.operation, (uint32_t)value,
		operations[test->operation].low.jt, operations[test->operation].low.jf);
	resolve(a, first, PASS);
}

static void emit_rule(struct assembler *a, const struct policy_rule *rule, unsigned number,
	uint32_t default_action)
{
	uint32_t otherwise = rule->otherwise == POLICY_DEFAULT
				     ? default_action
				     : SECCOMP_RET_ERRNO | (uint32_t)rule->otherwise;

	/* To the rule, or over it: that may be farther than 255. */
	emit_jump(a, BPF_JEQ, number, 1, 0);
	emit(a, BPF_JMP | BPF_JA, 0, 0, 0);
	unsigned first = a->count;

	for (unsigned i = 0; i < rule->alternative_count; i++) {
		const struct policy_alternative *alternative = &rule->alternatives[i];
		unsigned begin = a->count;

		for (unsigned t = 0; t < alternative->count; t++)
			emit_test(a, &alternative->tests[t]);
		emit_return(a, SECCOMP_RET_ALLOW);
		resolve(a, begin, FAIL);
	}
	emit_return(a, rule->always ? SECCOMP_RET_ALLOW : otherwise);
	a->code[first - 1].k = a->count - first;
}

/* The convention first: the same numbers mean other calls in others. */
static void emit_convention(struct assembler *a)
{
	emit_load(a, offsetof(struct seccomp_data, arch));
	emit_jump(a, BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0);
	emit_return(a, SECCOMP_RET_KILL_PROCESS);
	emit_load(a, offsetof(struct seccomp_data, nr));
	emit_jump(a, BPF_JGE, X32_BIT, 0, 1);
	emit_return(a, SECCOMP_RET_KILL_PROCESS);
}

static int find_number(
	const struct policy_rule *rule, unsigned *ret_number, struct policy_error *error)
{
	int number = seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, rule->syscall);

	if (number < 0) { /* libseccomp has negative numbers for calls of other architectures */
		policy_error_set(error, rule->file, rule->line, "x86_64 has no system call '%s'",
			rule->syscall);
		return -EINVAL;
	}
	*ret_number = (unsigned)number;
	return 0;
}

static int assemble(struct assembler *a, const struct policy *policy, uint32_t default_action,
	struct policy_error *error)
{
	emit_convention(a);
	for (int tested = 1; tested >= 0; tested--) {
		for (unsigned i = 0; i < policy->rule_count; i++) {
			const struct policy_rule *rule = &policy->rules[i];
			unsigned number;

			if ((rule->alternative_count != 0) != (tested == 1))
				continue;
			int r = find_number(rule, &number, error);

			if (r < 0)
				return r;
			emit_rule(a, rule, number, default_action);
			if (a->overflow) {
				policy_error_set(error, rule->file, rule->line,
					"the policy has more than %d instructions", BPF_MAXINSNS);
				return -E2BIG;
			}
		}
	}
	emit_return(a, default_action);
	return 0;
}

static int copy_program(
	const struct assembler *a, struct sock_filter **ret_instructions, unsigned short *ret_count)
{
	struct sock_filter *copy = malloc(a->count * sizeof(*copy));

	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, a->code, a->count * sizeof(*copy));
	*ret_instructions = copy;
	*ret_count = (unsigned short)a->count;
	return 0;
}

int policy_compile(const struct policy *policy, enum policy_mode mode,
	struct sock_filter **ret_instructions, unsigned short *ret_count,
	struct policy_error *ret_error)
{
	uint32_t default_action = mode == POLICY_LOG ? SECCOMP_RET_LOG : SECCOMP_RET_KILL_PROCESS;
	struct assembler *a = calloc(1, sizeof(*a));
	int r = -ENOMEM;

	if (a != NULL)
		r = assemble(a, policy, default_action, ret_error);
	if (r == 0)
		r = copy_program(a, ret_instructions, ret_count);
	if (r == -ENOMEM)
		policy_error_set(ret_error, "policy", 0, "out of memory");
	free(a);
	return r;
}

static unsigned count_allowed(const struct policy *policy)
{
	unsigned allowed = 0;

	for (unsigned i = 0; i < policy->rule_count; i++)
		allowed += policy->rules[i].always || policy->rules[i].alternative_count != 0;
	return allowed;
}

static int compile_both(
	const struct policy *rules, struct jail_policy *policy, struct policy_error *ret_error)
{
	struct {
		enum policy_mode mode;
		struct jail_program *program;
	} programs[] = { { POLICY_KILL, &policy->kill }, { POLICY_LOG, &policy->log } };
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(programs); i++) {
		struct sock_filter *instructions;

		r = policy_compile(rules, programs[i].mode, &instructions,
			&programs[i].program->count, ret_error);
		if (r == 0)
			programs[i].program->instructions = instructions;
	}
	policy->syscalls = count_allowed(rules);
	return r;
}

int policy_load(const char *directory, const char *name, struct jail_policy **ret_policy,
	struct policy_error *ret_error)
{
	struct jail_policy *policy = calloc(1, sizeof(*policy));
	struct policy rules = { 0 };
	char *path = NULL;
	int r = -ENOMEM;

	if (policy != NULL && asprintf(&path, "%s/%s.policy", directory, name) >= 0)
		r = policy_parse_file(&rules, path, ret_error);
	else
		policy_error_set(ret_error, name, 0, "out of memory");
	if (r == 0)
		r = compile_both(&rules, policy, ret_error);
	if (r == 0) {
		policy->name = strdup(name);
		r = policy->name == NULL ? -ENOMEM : 0;
	}
	policy_free(&rules);
	free(path);
	if (r < 0) {
		policy_unload(policy);
		return r;
	}
	*ret_policy = policy;
	return 0;
}

void policy_unload(struct jail_policy *policy)
{
	if (policy == NULL)
		return;
	free((void *)policy->name);
	free((void *)policy->kill.instructions);
	free((void *)policy->log.instructions);
	free(policy);
}
