/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The text of a seccomp policy, in minijail's language, as rules. No system
 * call is known here by its number, so the same parser serves every
 * architecture; policy_compile.h makes a program of the rules.
 *
 *   # a comment
 *   @include common_device.policy        beside the file that says it
 *   @frequency read.frequency            taken and not used, the file not read
 *   read: 1                              always allowed
 *   clone3: return ENOSYS                never, but the caller only gets an error
 *   mmap: arg2 in PROT_READ|PROT_WRITE   allowed with such arguments
 *   fcntl: arg1 == F_GETFD || arg1 == F_SETFD && arg2 == 1; return EPERM
 *
 * Tests: == != < <= > >= on unsigned 64-bit values, & (one of these bits is
 * set) and `in` (no other bits than these are set). && binds tighter than ||. After `;`
 * stands what happens to a call that no alternative lets through; without it,
 * it is treated like a call without a rule. minijail's lines that go on after a
 * backslash, and its other @directives, are not there. Its @frequency is a hint
 * of which calls to look for first; our programs look for all in a few steps.
 *
 * The text is the work of who built crosvm or of the user who names a
 * directory of policies, both trusted. It may be wrong in any way all the
 * same: every error is reported with file and line.
 */
#pragma once

#include "base/util.h"

enum {
	POLICY_ARGUMENTS = 6,
	POLICY_TESTS_MAX = 8,
	POLICY_NAME_MAX = 32,
	POLICY_DEFAULT = -1, /* for policy_rule.otherwise: as for a call without a rule */
};

enum policy_operator {
	POLICY_EQUAL,
	POLICY_NOT_EQUAL,
	POLICY_LESS,
	POLICY_LESS_EQUAL,
	POLICY_GREATER,
	POLICY_GREATER_EQUAL,
	POLICY_BITS_ANY,
	POLICY_BITS_WITHIN,
	POLICY_OPERATORS,
};

struct policy_test {
	unsigned argument;
	enum policy_operator operation;
	uint64_t value;
};

/* All tests of one alternative hold at the same time. */
struct policy_alternative {
	unsigned count;
	struct policy_test tests[POLICY_TESTS_MAX];
};

struct policy_rule {
	char syscall[POLICY_NAME_MAX];
	char *file; /* where it stands, for messages */
	unsigned line;
	bool always;   /* allowed whatever the arguments: no alternatives */
	int otherwise; /* POLICY_DEFAULT, or the errno that the caller gets */
	struct policy_alternative *alternatives;
	unsigned alternative_count;
};

/* Whose numbers the calls get. The parser does not look at it. */
enum policy_architecture { POLICY_X86_64, POLICY_AARCH64, POLICY_ARCHITECTURES };

struct policy {
	enum policy_architecture architecture;
	struct policy_rule *rules;
	unsigned rule_count;
};

struct policy_error {
	char text[256]; /* "FILE:LINE: what is wrong", without a newline */
};

/*
 * Adds the rules of a file to a policy. -EINVAL for an error in a text, -EEXIST
 * for a second rule for a system call, -ENOMEM, else -errno of reading;
 * ret_error says it all. The policy is to be freed after failures too.
 */
MUST_CHECK int policy_parse_file(
	struct policy *policy, const char *path, struct policy_error *ret_error);
/* The same for a text; `path` is for messages and for @include. */
MUST_CHECK int policy_parse_text(
	struct policy *policy, const char *path, const char *text, struct policy_error *ret_error);
void policy_free(struct policy *policy);

/* Fills an error. */
void policy_error_set(struct policy_error *error, const char *file, unsigned line,
	const char *format, ...) PRINTF_LIKE(4, 5);
