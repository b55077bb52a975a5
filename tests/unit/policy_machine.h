/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a policy's rules say of a call, read from the rules; and a machine that
 * runs their programs, as the kernel does. The two share nothing.
 */
#pragma once

#include <linux/seccomp.h>
#include <string.h>

#include "jail/policy_compile.h"

/* *ret_looks becomes true when the program looks at more than the call's number and convention. */
static inline uint32_t run_and_look(
	const struct jail_program *program, const struct seccomp_data *data, bool *ret_looks)
{
	uint32_t a = 0, word;

	for (unsigned at = 0; at < program->count; at++) {
		const struct sock_filter *i = &program->instructions[at];

		switch (i->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			assert_true(i->k <= sizeof(*data) - sizeof(word));
			*ret_looks |= i->k >= offsetof(struct seccomp_data, instruction_pointer);
			memcpy(&word, (const char *)data + i->k, sizeof(word));
			a = word;
			break;
		case BPF_JMP | BPF_JSET | BPF_K:
			at += (a & i->k) != 0 ? i->jt : i->jf;
			break;
		case BPF_JMP | BPF_JA:
			at += i->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
			at += a == i->k ? i->jt : i->jf;
			break;
		case BPF_JMP | BPF_JGT | BPF_K:
			at += a > i->k ? i->jt : i->jf;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			at += a >= i->k ? i->jt : i->jf;
			break;
		case BPF_RET | BPF_K:
			return i->k;
		default:
			print_error("instruction 0x%x\n", i->code);
			fail();
		}
	}
	fail();
	return 0;
}

static inline uint32_t run_program(
	const struct jail_program *program, const struct seccomp_data *data)
{
	bool looks = false;

	return run_and_look(program, data, &looks);
}

static inline bool test_holds(const struct policy_test *test, uint64_t value)
{
	switch (test->operation) {
	case POLICY_EQUAL:
		return value == test->value;
	case POLICY_NOT_EQUAL:
		return value != test->value;
	case POLICY_LESS:
		return value < test->value;
	case POLICY_LESS_EQUAL:
		return value <= test->value;
	case POLICY_GREATER:
		return value > test->value;
	case POLICY_GREATER_EQUAL:
		return value >= test->value;
	case POLICY_BITS_ANY:
		return (value & test->value) != 0;
	case POLICY_BITS_WITHIN:
		return (value & ~test->value) == 0;
	case POLICY_OPERATORS:
		break;
	}
	fail();
	return false;
}

static inline bool rule_allows(const struct policy_rule *rule, const uint64_t *arguments)
{
	bool allows = rule->always;

	for (unsigned a = 0; a < rule->alternative_count; a++) {
		const struct policy_alternative *alternative = &rule->alternatives[a];
		bool holds = true;

		for (unsigned i = 0; i < alternative->count; i++) {
			const struct policy_test *test = &alternative->tests[i];

			holds = holds && test_holds(test, arguments[test->argument]);
		}
		allows = allows || holds;
	}
	return allows;
}

static inline uint32_t expected_action(
	const struct policy_rule *rule, const uint64_t *arguments, uint32_t other)
{
	if (rule == NULL)
		return other;
	if (rule_allows(rule, arguments))
		return SECCOMP_RET_ALLOW;
	return rule->otherwise == POLICY_DEFAULT ? other
						 : SECCOMP_RET_ERRNO | (uint32_t)rule->otherwise;
}
