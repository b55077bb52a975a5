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

/* So few rules are looked at one after the other. */
enum { LEAF_RULES = 4 };
/* As far as a conditional jump goes, with one to spare for an instruction in between. */
enum { JUMP_MAX = 254 };

/*
 * A program is written from its end to its beginning, since its jumps only lead
 * forward: where one goes is known when it is written. An instruction's place is
 * how many there are from it to the end, itself included; 0 is none.
 */
struct assembler {
	struct sock_filter code[BPF_MAXINSNS]; /* the last `count` */
	unsigned count;
	bool overflow;
};

/* The newest instruction and those behind it. */
static struct sock_filter *newest(struct assembler *a)
{
	return &a->code[ARRAY_SIZE(a->code) - a->count];
}

static unsigned emit(struct assembler *a, unsigned code, uint32_t k, unsigned jt, unsigned jf)
{
	if (a->count == ARRAY_SIZE(a->code)) {
		a->overflow = true;
		return a->count;
	}
	a->count++;
	*newest(a) = (struct sock_filter){ (uint16_t)code, (uint8_t)jt, (uint8_t)jf, k };
	return a->count;
}

static unsigned emit_load(struct assembler *a, size_t offset)
{
	return emit(a, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

/* One for all jumps to it that are near enough: each costs the kernel time to translate. */
static unsigned emit_return(struct assembler *a, uint32_t action)
{
	const struct sock_filter *at = newest(a);

	for (unsigned i = 0; i < a->count && i <= JUMP_MAX; i++)
		if (at[i].code == (BPF_RET | BPF_K) && at[i].k == action)
			return a->count - i;
	return emit(a, BPF_RET | BPF_K, action, 0, 0);
}

/* Or a way to it that is. */
static unsigned near(struct assembler *a, unsigned place)
{
	const struct sock_filter *target = &a->code[ARRAY_SIZE(a->code) - place];

	if (a->count - place <= JUMP_MAX)
		return place;
	if (BPF_CLASS(target->code) == BPF_RET)
		return emit_return(a, target->k);
	return emit(a, BPF_JMP | BPF_JA, a->count - place, 0, 0);
}

static unsigned emit_jump(
	struct assembler *a, unsigned operation, uint32_t k, unsigned yes, unsigned no)
{
	yes = near(a, yes);
	no = near(a, no);
	return emit(a, BPF_JMP | operation | BPF_K, k, a->count - yes, a->count - no);
}

/*
 * How a 64-bit test is made of two of 32 bits. `high` decides on the high half, where it can;
 * what is left depends on the low.
 */
enum target { NEXT, PASS, FAIL };

static const struct {
	struct {
		unsigned operation; /* 0: none */
		enum target yes, no;
	} high[2], low;
	bool inverted; /* the bits that are not in the value are looked for */
} operations[POLICY_OPERATORS] = {
	[POLICY_EQUAL] = { { { BPF_JEQ, NEXT, FAIL } }, { BPF_JEQ, PASS, FAIL }, false },
	[POLICY_NOT_EQUAL] = { { { BPF_JEQ, NEXT, PASS } }, { BPF_JEQ, FAIL, PASS }, false },
	[POLICY_LESS] = { { { BPF_JGT, FAIL, NEXT }, { BPF_JEQ, NEXT, PASS } },
		{ BPF_JGE, FAIL, PASS }, false },
	[POLICY_LESS_EQUAL] = { { { BPF_JGT, FAIL, NEXT }, { BPF_JEQ, NEXT, PASS } },
		{ BPF_JGT, FAIL, PASS }, false },
	[POLICY_GREATER] = { { { BPF_JGT, PASS, NEXT }, { BPF_JEQ, NEXT, FAIL } },
		{ BPF_JGT, PASS, FAIL }, false },
	[POLICY_GREATER_EQUAL] = { { { BPF_JGT, PASS, NEXT }, { BPF_JEQ, NEXT, FAIL } },
		{ BPF_JGE, PASS, FAIL }, false },
	[POLICY_BITS_ANY] = { { { BPF_JSET, PASS, NEXT } }, { BPF_JSET, PASS, FAIL }, false },
	[POLICY_BITS_WITHIN] = { { { BPF_JSET, FAIL, NEXT } }, { BPF_JSET, FAIL, PASS }, true },
};

/* Where a test goes on. */
static unsigned place_of(enum target target, unsigned next, unsigned pass, unsigned fail)
{
	return target == PASS ? pass : target == FAIL ? fail : next;
}

static unsigned emit_test(
	struct assembler *a, const struct policy_test *test, unsigned pass, unsigned fail)
{
	size_t offset = offsetof(struct seccomp_data, args) + test->argument * sizeof(uint64_t);
	uint64_t value = operations[test->operation].inverted ? ~test->value : test->value;

	emit_jump(a, operations[test->operation].low.operation, (uint32_t)value,
		place_of(operations[test->operation].low.yes, 0, pass, fail),
		place_of(operations[test->operation].low.no, 0, pass, fail));
	/* Little-endian: the low half comes first. */
	unsigned next = emit_load(a, offset);

	for (unsigned i = 2; i-- > 0;)
		if (operations[test->operation].high[i].operation != 0)
			next = emit_jump(a, operations[test->operation].high[i].operation,
				(uint32_t)(value >> 32),
				place_of(operations[test->operation].high[i].yes, next, pass, fail),
				place_of(operations[test->operation].high[i].no, next, pass, fail));
	return emit_load(a, offset + sizeof(uint32_t));
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
	return rule->alternative_count > 1;
}

/* Such a list: the argument is loaded once. */
static unsigned emit_list(
	struct assembler *a, const struct policy_rule *rule, unsigned pass, unsigned fail)
{
	size_t offset = offsetof(struct seccomp_data, args) +
			rule->alternatives[0].tests[0].argument * sizeof(uint64_t);
	unsigned next = fail;

	for (unsigned i = rule->alternative_count; i-- > 0;)
		next = emit_jump(
			a, BPF_JEQ, (uint32_t)rule->alternatives[i].tests[0].value, pass, next);
	next = emit_load(a, offset);
	emit_jump(a, BPF_JEQ, 0, next, fail);
	return emit_load(a, offset + sizeof(uint32_t));
}

static unsigned emit_alternatives(
	struct assembler *a, const struct policy_rule *rule, unsigned pass, unsigned fail)
{
	unsigned next = fail;

	for (unsigned i = rule->alternative_count; i-- > 0;) {
		const struct policy_alternative *alternative = &rule->alternatives[i];
		unsigned otherwise = next;

		next = pass;
		for (unsigned t = alternative->count; t-- > 0;)
			next = emit_test(a, &alternative->tests[t], next, otherwise);
	}
	return next;
}

/* What is done with a call whose number is the rule's. */
static unsigned emit_rule(
	struct assembler *a, const struct policy_rule *rule, uint32_t default_action)
{
	unsigned pass = emit_return(a, SECCOMP_RET_ALLOW);
	unsigned fail = emit_return(a, rule->otherwise == POLICY_DEFAULT
					       ? default_action
					       : SECCOMP_RET_ERRNO | (uint32_t)rule->otherwise);

	if (rule->alternative_count == 0)
		return rule->always ? pass : fail;
	return is_list(rule) ? emit_list(a, rule, pass, fail)
			     : emit_alternatives(a, rule, pass, fail);
}

/* A rule and the number of its system call. */
struct numbered {
	unsigned number;
	const struct policy_rule *rule;
	unsigned place; /* of what looks for it, and for those behind it */
};

static int compare_numbers(const void *a, const void *b)
{
	unsigned x = ((const struct numbered *)a)->number;
	unsigned y = ((const struct numbered *)b)->number;

	return (x > y) - (x < y);
}

/* One after the other. */
static unsigned emit_leaf(
	struct assembler *a, const struct numbered *rules, unsigned count, uint32_t default_action)
{
	unsigned next = emit_return(a, default_action);

	while (count-- > 0) {
		unsigned place = emit_rule(a, rules[count].rule, default_action);

		next = emit_jump(a, BPF_JEQ, rules[count].number, place, next);
	}
	return next;
}

/* Leaves, and then what chooses between each two of them, and between each two of those. */
static void emit_search(
	struct assembler *a, struct numbered *rules, unsigned count, uint32_t default_action)
{
	if (count == 0)
		emit_return(a, default_action);
	for (unsigned first = 0; first < count; first += LEAF_RULES)
		rules[first].place = emit_leaf(a, rules + first,
			(unsigned)min_u64(LEAF_RULES, count - first), default_action);
	for (unsigned half = LEAF_RULES; half < count; half *= 2)
		for (unsigned first = 0; first + half < count; first += 2 * half) {
			const struct numbered *right = &rules[first + half];

			rules[first].place = emit_jump(
				a, BPF_JGE, right->number, right->place, rules[first].place);
		}
}

/* The convention first: the same numbers mean other calls in others. What it says is its own. */
static void emit_convention(struct assembler *a, const struct architecture *architecture)
{
	if (architecture->has_x32) {
		emit(a, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
		emit(a, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
	}
	emit_load(a, offsetof(struct seccomp_data, nr));
	emit(a, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
	emit(a, BPF_JMP | BPF_JEQ | BPF_K, architecture->audit, 1, 0);
	emit_load(a, offsetof(struct seccomp_data, arch));
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
		emit_search(a, rules, policy->rule_count, default_action);
		emit_convention(a, &architectures[policy->architecture]);
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
	struct assembler *a, struct sock_filter **ret_instructions, unsigned short *ret_count)
{
	struct sock_filter *copy = malloc(a->count * sizeof(*copy));

	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, newest(a), a->count * sizeof(*copy));
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
