// SPDX-License-Identifier: BSD-3-Clause
/*
 * Rules to instructions. Rules come from the parser, which has checked their
 * form. The compiler is our own, and libseccomp only knows the numbers of the
 * system calls: its 2.5.4 makes programs of rules with several alternatives that
 * kill calls which an alternative allows, and can neither test an argument twice
 * nor say `return` of what several alternatives leave. The tests compare
 * programs with their rules, for random ones too.
 *
 * A program: the checks of the convention, then a binary search for the number's
 * rule. The kernel keeps an answer to the calls that are always allowed
 * (Linux 5.11), which it finds by running the program for each number there is
 * when it is installed; so a search, whose every step is cheap, makes that fast.
 */
#include "jail/policy_compile.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Little-endian, all of them: see emit_test(). */
static const struct architecture {
	const char *name;
	uint32_t libseccomp;
	uint32_t audit;
	bool has_x32;
} architectures[POLICY_ARCHITECTURES] = {
	[POLICY_X86_64] = { "x86_64", SCMP_ARCH_X86_64, AUDIT_ARCH_X86_64, true },
	[POLICY_AARCH64] = { "aarch64", SCMP_ARCH_AARCH64, AUDIT_ARCH_AARCH64, false },
};

/* x32 calls have this bit in their numbers, and the same architecture. */
enum { X32_BIT = 0x40000000 };

/* Targets of jumps that are not known yet; an alternative is shorter than these. */
enum { PASS = 254, FAIL = 255 };
/* So few rules are looked at one after the other. */
enum { LEAF_RULES = 3, LIST_MAX = 200 };

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

/* Whether all alternatives compare the same argument with one small number each: an ioctl's. */
static bool is_list(const struct policy_rule *rule)
{
	for (unsigned i = 0; i < rule->alternative_count; i++) {
		const struct policy_alternative *alternative = &rule->alternatives[i];

		if (alternative->count != 1 || alternative->tests[0].operation != POLICY_EQUAL ||
			alternative->tests[0].value > UINT32_MAX ||
			alternative->tests[0].argument != rule->alternatives[0].tests[0].argument)
			return false;
	}
	/* One jump, 255 at most, leads from each to the end. */
	return rule->alternative_count > 1 && rule->alternative_count < LIST_MAX;
}

/* Such a list: the argument is loaded once. */
static void emit_list(struct assembler *a, const struct policy_rule *rule, uint32_t otherwise)
{
	size_t offset = offsetof(struct seccomp_data, args) +
			rule->alternatives[0].tests[0].argument * sizeof(uint64_t);
	unsigned first = a->count;

	emit_load(a, offset + sizeof(uint32_t));
	emit_jump(a, BPF_JEQ, 0, 0, FAIL);
	emit_load(a, offset);
	for (unsigned i = 0; i < rule->alternative_count; i++)
		emit_jump(a, BPF_JEQ, (uint32_t)rule->alternatives[i].tests[0].value, PASS, 0);
	resolve(a, first, FAIL);
	emit_return(a, otherwise);
	resolve(a, first, PASS);
	emit_return(a, SECCOMP_RET_ALLOW);
}

static void emit_alternatives(
	struct assembler *a, const struct policy_rule *rule, uint32_t otherwise)
{
	for (unsigned i = 0; i < rule->alternative_count; i++) {
		const struct policy_alternative *alternative = &rule->alternatives[i];
		unsigned begin = a->count;

		for (unsigned t = 0; t < alternative->count; t++)
			emit_test(a, &alternative->tests[t]);
		emit_return(a, SECCOMP_RET_ALLOW);
		resolve(a, begin, FAIL);
	}
	emit_return(a, otherwise);
}

static void emit_rule(struct assembler *a, const struct policy_rule *rule, unsigned number,
	uint32_t default_action)
{
	uint32_t otherwise = rule->otherwise == POLICY_DEFAULT
				     ? default_action
				     : SECCOMP_RET_ERRNO | (uint32_t)rule->otherwise;

	if (rule->alternative_count == 0) {
		emit_jump(a, BPF_JEQ, number, 0, 1);
		emit_return(a, rule->always ? SECCOMP_RET_ALLOW : otherwise);
		return;
	}
	/* To the rule, or over it: that may be farther than 255. */
	emit_jump(a, BPF_JEQ, number, 1, 0);
	emit(a, BPF_JMP | BPF_JA, 0, 0, 0);
	unsigned first = a->count;

	if (is_list(rule))
		emit_list(a, rule, otherwise);
	else
		emit_alternatives(a, rule, otherwise);
	a->code[first - 1].k = a->count - first;
}

/* A rule and the number of its system call. */
struct numbered {
	unsigned number;
	const struct policy_rule *rule;
};

static int compare_numbers(const void *a, const void *b)
{
	unsigned x = ((const struct numbered *)a)->number;
	unsigned y = ((const struct numbered *)b)->number;

	return (x > y) - (x < y);
}

/* Halves until few are left, from the last piece to the first, so that no recursion is needed. */
static void emit_search(
	struct assembler *a, const struct numbered *rules, unsigned count, uint32_t default_action)
{
	struct piece {
		unsigned first, count;
		unsigned jump; /* the instruction that leads here; 0: the one before */
	} pieces[32] = { { 0, count, 0 } };

	for (unsigned depth = 1; depth > 0 && !a->overflow;) {
		const struct piece piece = pieces[--depth];
		unsigned first = piece.first, n = piece.count;

		if (piece.jump != 0)
			a->code[piece.jump].k = a->count - piece.jump - 1;
		if (n > LEAF_RULES) {
			unsigned half = n / 2;

			emit_jump(a, BPF_JGE, rules[first + half].number, 0, 1);
			pieces[depth++] = (struct piece){ first + half, n - half, a->count };
			emit(a, BPF_JMP | BPF_JA, 0, 0, 0);
			pieces[depth++] = (struct piece){ first, half, 0 };
			continue;
		}
		for (unsigned i = 0; i < n; i++)
			emit_rule(
				a, rules[first + i].rule, rules[first + i].number, default_action);
		emit_return(a, default_action);
	}
}

/* The convention first: the same numbers mean other calls in others. */
static void emit_convention(struct assembler *a, const struct architecture *architecture)
{
	emit_load(a, offsetof(struct seccomp_data, arch));
	emit_jump(a, BPF_JEQ, architecture->audit, 1, 0);
	emit_return(a, SECCOMP_RET_KILL_PROCESS);
	emit_load(a, offsetof(struct seccomp_data, nr));
	if (!architecture->has_x32)
		return;
	emit_jump(a, BPF_JGE, X32_BIT, 0, 1);
	emit_return(a, SECCOMP_RET_KILL_PROCESS);
}

static int find_number(const struct architecture *architecture, const struct policy_rule *rule,
	unsigned *ret_number, struct policy_error *error)
{
	int number = seccomp_syscall_resolve_name_arch(architecture->libseccomp, rule->syscall);

	if (number < 0) { /* libseccomp has negative numbers for calls of other architectures */
		policy_error_set(error, rule->file, rule->line, "%s has no system call '%s'",
			architecture->name, rule->syscall);
		return -EINVAL;
	}
	*ret_number = (unsigned)number;
	return 0;
}

static int number_rules(
	const struct policy *policy, struct numbered *ret_rules, struct policy_error *error)
{
	for (unsigned i = 0; i < policy->rule_count; i++) {
		int r = find_number(&architectures[policy->architecture], &policy->rules[i],
			&ret_rules[i].number, error);

		if (r < 0)
			return r;
		ret_rules[i].rule = &policy->rules[i];
	}
	qsort(ret_rules, policy->rule_count, sizeof(ret_rules[0]), compare_numbers);
	return 0;
}

static int assemble(struct assembler *a, const struct policy *policy, uint32_t default_action,
	struct policy_error *error)
{
	struct numbered *rules = calloc(policy->rule_count + 1, sizeof(*rules));
	int r = rules != NULL ? number_rules(policy, rules, error) : -ENOMEM;

	if (r == 0) {
		emit_convention(a, &architectures[policy->architecture]);
		emit_search(a, rules, policy->rule_count, default_action);
	}
	free(rules);
	if (r == 0 && a->overflow) {
		policy_error_set(error, policy->rules[0].file, policy->rules[0].line,
			"the policy has more than %d instructions", BPF_MAXINSNS);
		r = -E2BIG;
	}
	return r;
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

/* Sanitizers make system calls of their own, which no policy has. */
#ifdef SANITIZED
#define KILL_MODE POLICY_LOG
#else
#define KILL_MODE POLICY_KILL
#endif

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
	} programs[] = { { KILL_MODE, &policy->kill }, { POLICY_LOG, &policy->log } };
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

int policy_architecture_find(const char *name, enum policy_architecture *ret_architecture)
{
	for (unsigned i = 0; i < POLICY_ARCHITECTURES; i++)
		if (strcmp(architectures[i].name, name) == 0) {
			*ret_architecture = i;
			return 0;
		}
	return -ENOENT;
}

int policy_load(const char *directory, const char *name, enum policy_architecture architecture,
	struct jail_policy **ret_policy, struct policy_error *ret_error)
{
	struct jail_policy *policy = calloc(1, sizeof(*policy));
	struct policy rules = { .architecture = architecture };
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
