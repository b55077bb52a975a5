// SPDX-License-Identifier: BSD-3-Clause
/* Reads policies line by line. A line is one rule, one directive, a comment, or nothing. */
#include "jail/policy_parse.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "jail/policy_constants.h"

enum {
	INCLUDES_MAX = 8, /* deep: more is a circle */
	LINE_MAX_BYTES = 1024,
	FILE_MAX_BYTES = 64 << 10,
};

/* Where the parser stands. */
struct cursor {
	struct policy *policy;
	const char *file;
	unsigned line;
	unsigned depth;
	const char *at; /* the rest of the line */
	struct policy_error *error;
};

static int parse_file(struct policy *policy, const char *path, const char *by, unsigned line,
	unsigned depth, struct policy_error *error);

void policy_error_set(
	struct policy_error *error, const char *file, unsigned line, const char *format, ...)
{
	va_list args;
	int prefix =
		line == 0 ? snprintf(error->text, sizeof(error->text), "%.128s: ", file)
			  : snprintf(error->text, sizeof(error->text), "%.128s:%u: ", file, line);

	va_start(args, format);
	vsnprintf(error->text + prefix, sizeof(error->text) - (size_t)prefix, format, args);
	va_end(args);
}

#define fail(cursor, ...)                                                                          \
	(policy_error_set((cursor)->error, (cursor)->file, (cursor)->line, __VA_ARGS__), -EINVAL)

static void skip_blanks(struct cursor *cursor)
{
	cursor->at += strspn(cursor->at, " \t");
}

/* Takes the given characters if they come next. */
static bool take(struct cursor *cursor, const char *token)
{
	skip_blanks(cursor);
	size_t length = strlen(token);

	if (strncmp(cursor->at, token, length) != 0)
		return false;
	cursor->at += length;
	return true;
}

/* A name or a number: letters, digits, underscores. Its length; 0: there is none. */
static size_t take_word(struct cursor *cursor, char *word, size_t size)
{
	skip_blanks(cursor);
	size_t length = 0;

	while (isalnum((unsigned char)cursor->at[length]) || cursor->at[length] == '_')
		length++;
	if (length >= size)
		return 0;
	memcpy(word, cursor->at, length);
	word[length] = '\0';
	cursor->at += length;
	return length;
}

static int parse_number(const char *word, uint64_t *ret_value)
{
	char *end;

	errno = 0;
	unsigned long long value = strtoull(word, &end, 0);

	if (errno != 0 || *end != '\0')
		return -EINVAL;
	*ret_value = value;
	return 0;
}

/* NAME, 12, 0x1f, or ~ and one of these. */
static int parse_term(struct cursor *cursor, uint64_t *ret_value)
{
	char word[64];
	bool inverted = take(cursor, "~");
	uint64_t value = 0;

	if (take_word(cursor, word, sizeof(word)) == 0)
		return fail(
			cursor, "a number or the name of one is expected at '%.20s'", cursor->at);
	int r = isdigit((unsigned char)word[0]) ? parse_number(word, &value)
						: policy_constant_find(word, &value);

	if (r < 0)
		return fail(cursor, "'%s' is not a number, nor the name of one that is known here",
			word);
	*ret_value = inverted ? ~value : value;
	return 0;
}

/* Terms with | between them. */
static int parse_value(struct cursor *cursor, uint64_t *ret_value)
{
	uint64_t value = 0, term = 0;

	for (;;) {
		int r = parse_term(cursor, &term);

		if (r < 0)
			return r;
		value |= term;
		/* || is the next alternative. */
		skip_blanks(cursor);
		if (strncmp(cursor->at, "||", 2) == 0 || !take(cursor, "|"))
			break;
	}
	*ret_value = value;
	return 0;
}

static int parse_operator(struct cursor *cursor, enum policy_operator *ret_operation)
{
	/* The longer ones first. */
	static const struct {
		const char *token;
		enum policy_operator operation;
	} operators[] = {
		{ "==", POLICY_EQUAL },
		{ "!=", POLICY_NOT_EQUAL },
		{ "<=", POLICY_LESS_EQUAL },
		{ ">=", POLICY_GREATER_EQUAL },
		{ "<", POLICY_LESS },
		{ ">", POLICY_GREATER },
		{ "in ", POLICY_BITS_WITHIN },
	};

	for (size_t i = 0; i < ARRAY_SIZE(operators); i++) {
		if (take(cursor, operators[i].token)) {
			*ret_operation = operators[i].operation;
			return 0;
		}
	}
	if (strncmp(cursor->at, "&&", 2) != 0 && take(cursor, "&")) {
		*ret_operation = POLICY_BITS_ANY;
		return 0;
	}
	return fail(cursor, "one of == != < <= > >= & in is expected at '%.20s'", cursor->at);
}

/* arg2 == VALUE */
static int parse_test(struct cursor *cursor, struct policy_alternative *alternative)
{
	char word[16];
	struct policy_test test = { 0 };

	if (take_word(cursor, word, sizeof(word)) != 4 || strncmp(word, "arg", 3) != 0 ||
		word[3] < '0' || word[3] >= '0' + POLICY_ARGUMENTS)
		return fail(cursor, "arg0 to arg5, 1 or return is expected");
	test.argument = (unsigned)(word[3] - '0');
	int r = parse_operator(cursor, &test.operation);

	if (r == 0)
		r = parse_value(cursor, &test.value);
	if (r < 0)
		return r;
	if (alternative->count == ARRAY_SIZE(alternative->tests))
		return fail(cursor, "more than %d tests in one alternative", POLICY_TESTS_MAX);
	alternative->tests[alternative->count++] = test;
	return 0;
}

/* Tests with && between them, as one more alternative of the rule. */
static int parse_alternative(struct cursor *cursor, struct policy_rule *rule)
{
	struct policy_alternative alternative = { 0 };

	do {
		int r = parse_test(cursor, &alternative);

		if (r < 0)
			return r;
	} while (take(cursor, "&&"));
	struct policy_alternative *alternatives =
		realloc(rule->alternatives, (rule->alternative_count + 1) * sizeof(alternative));

	if (alternatives == NULL)
		return -ENOMEM;
	rule->alternatives = alternatives;
	rule->alternatives[rule->alternative_count++] = alternative;
	return 0;
}

/* What stands after "return". */
static int parse_errno(struct cursor *cursor, int *ret_errno)
{
	char word[32];
	uint64_t value;
	int number = 0;

	if (take_word(cursor, word, sizeof(word)) == 0)
		return fail(cursor, "an error is expected after return");
	if (policy_errno_find(word, &number) < 0) {
		/* More than 4095 is no error number for the kernel. */
		if (!isdigit((unsigned char)word[0]) || parse_number(word, &value) < 0 ||
			value > 4095)
			return fail(cursor, "'%s' is no error that is known here", word);
		number = (int)value;
	}
	*ret_errno = number;
	return 0;
}

static bool take_return(struct cursor *cursor)
{
	return take(cursor, "return ") || take(cursor, "return\t");
}

/* What stands after the colon. */
static int parse_expression(struct cursor *cursor, struct policy_rule *rule)
{
	if (take_return(cursor))
		return parse_errno(cursor, &rule->otherwise);
	if (take(cursor, "1")) {
		rule->always = true;
		return 0;
	}
	do {
		int r = parse_alternative(cursor, rule);

		if (r < 0)
			return r;
	} while (take(cursor, "||"));
	if (!take(cursor, ";"))
		return 0;
	if (!take_return(cursor))
		return fail(cursor, "return is expected after ';'");
	return parse_errno(cursor, &rule->otherwise);
}

static void free_rule(struct policy_rule *rule)
{
	free(rule->file);
	free(rule->alternatives);
}

static int check_unique(struct cursor *cursor, const struct policy_rule *rule)
{
	for (unsigned i = 0; i < cursor->policy->rule_count; i++) {
		const struct policy_rule *other = &cursor->policy->rules[i];

		if (strcmp(other->syscall, rule->syscall) == 0) {
			(void)fail(cursor, "%s has a rule already, %.80s:%u", rule->syscall,
				other->file, other->line);
			return -EEXIST;
		}
	}
	return 0;
}

/* The policy owns the rule afterwards. */
static int add_rule(struct policy *policy, const struct policy_rule *rule)
{
	struct policy_rule *rules =
		realloc(policy->rules, (policy->rule_count + 1) * sizeof(*rule));

	if (rules == NULL)
		return -ENOMEM;
	policy->rules = rules;
	policy->rules[policy->rule_count++] = *rule;
	return 0;
}

/* NAME: EXPRESSION */
static int parse_rule(struct cursor *cursor)
{
	struct policy_rule rule = { .line = cursor->line, .otherwise = POLICY_DEFAULT };

	if (take_word(cursor, rule.syscall, sizeof(rule.syscall)) == 0)
		return fail(cursor, "the name of a system call is expected");
	if (!take(cursor, ":"))
		return fail(cursor, "':' is expected after '%s'", rule.syscall);
	int r = check_unique(cursor, &rule);

	if (r == 0)
		r = parse_expression(cursor, &rule);
	skip_blanks(cursor);
	if (r == 0 && *cursor->at != '\0')
		r = fail(cursor, "'%.20s' is not understood", cursor->at);
	if (r == 0) {
		rule.file = strdup(cursor->file);
		r = rule.file == NULL ? -ENOMEM : add_rule(cursor->policy, &rule);
	}
	if (r < 0)
		free_rule(&rule);
	return r;
}

// NOLINTBEGIN(misc-no-recursion): files include files, INCLUDES_MAX deep

/* @include FILE, which lies beside the file that says it if it has no path from the root. */
static int parse_include(struct cursor *cursor)
{
	char path[4096];
	const char *slash = strrchr(cursor->file, '/');
	int directory = slash == NULL ? 0 : (int)(slash + 1 - cursor->file);

	skip_blanks(cursor);
	if (*cursor->at == '\0')
		return fail(cursor, "a file is expected after @include");
	if (*cursor->at == '/')
		directory = 0;
	int length = snprintf(path, sizeof(path), "%.*s%s", directory, cursor->file, cursor->at);

	if (length >= (int)sizeof(path))
		return fail(cursor, "the name of the file is too long");
	return parse_file(
		cursor->policy, path, cursor->file, cursor->line, cursor->depth + 1, cursor->error);
}

/* @frequency FILE: how often calls are made, which a binary search need not know. */
static int parse_frequency(struct cursor *cursor)
{
	skip_blanks(cursor);
	size_t length = strcspn(cursor->at, " \t");

	if (length == 0)
		return fail(cursor, "a file is expected after @frequency");
	cursor->at += length;
	skip_blanks(cursor);
	return *cursor->at == '\0' ? 0 : fail(cursor, "'%.20s' is not understood", cursor->at);
}

/* Takes "@include" or the like if it comes next, and a blank or the line's end behind it. */
static bool take_directive(struct cursor *cursor, const char *directive)
{
	size_t length = strlen(directive);

	return strncmp(cursor->at, directive, length) == 0 &&
	       strchr(" \t", cursor->at[length]) != NULL && take(cursor, directive);
}

static int parse_line(struct cursor *cursor, char *line)
{
	line[strcspn(line, "#\r")] = '\0';
	for (size_t length = strlen(line); length > 0 && strchr(" \t", line[length - 1]) != NULL;)
		line[--length] = '\0';
	cursor->at = line;
	skip_blanks(cursor);
	if (*cursor->at == '\0')
		return 0;
	if (take_directive(cursor, "@include"))
		return parse_include(cursor);
	if (take_directive(cursor, "@frequency"))
		return parse_frequency(cursor);
	if (*cursor->at == '@')
		return fail(cursor, "'%.20s' is not understood; there are @include and @frequency",
			cursor->at);
	return parse_rule(cursor);
}

static int parse_lines(struct cursor *cursor, const char *text)
{
	char line[LINE_MAX_BYTES];
	int r = 0;

	while (r == 0 && *text != '\0') {
		size_t length = strcspn(text, "\n");

		cursor->line++;
		if (length >= sizeof(line))
			return fail(cursor, "the line is longer than %zu bytes", sizeof(line) - 1);
		memcpy(line, text, length);
		line[length] = '\0';
		r = parse_line(cursor, line);
		cursor->at = "";
		text += length + (text[length] == '\n');
	}
	if (r == -ENOMEM)
		policy_error_set(cursor->error, cursor->file, cursor->line, "out of memory");
	return r;
}

/* The whole file, terminated; the caller's to free. */
static int read_text(const char *path, char **ret_text)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	int error = errno;
	char *text = calloc(1, FILE_MAX_BYTES + 1);
	ssize_t size = -ENOMEM;

	if (text != NULL)
		size = fd < 0 ? -error : fd_pread_most(fd, text, FILE_MAX_BYTES + 1, 0);
	int r = size < 0 ? (int)size : size > FILE_MAX_BYTES ? -EFBIG : 0;

	/* What is behind a zero byte would be lost silently. */
	if (r == 0 && strlen(text) != (size_t)size)
		r = -EILSEQ;
	if (r < 0) {
		free(text);
		return r;
	}
	*ret_text = text;
	return 0;
}

/* `by` and `line` say who wants the file, for the message when it cannot be read. */
static int parse_file(struct policy *policy, const char *path, const char *by, unsigned line,
	unsigned depth, struct policy_error *error)
{
	struct cursor cursor = { .policy = policy, .file = path, .depth = depth, .error = error };
	char *text = NULL;
	int r = depth > INCLUDES_MAX ? -ELOOP : read_text(path, &text);

	if (r < 0)
		policy_error_set(error, by, line, "cannot read '%.80s': %s", path, strerror(-r));
	else
		r = parse_lines(&cursor, text);
	free(text);
	return r;
}

// NOLINTEND(misc-no-recursion)

int policy_parse_file(struct policy *policy, const char *path, struct policy_error *ret_error)
{
	return parse_file(policy, path, path, 0, 0, ret_error);
}

int policy_parse_text(
	struct policy *policy, const char *path, const char *text, struct policy_error *ret_error)
{
	struct cursor cursor = { .policy = policy, .file = path, .error = ret_error };

	return parse_lines(&cursor, text);
}

void policy_free(struct policy *policy)
{
	for (unsigned i = 0; i < policy->rule_count; i++)
		free_rule(&policy->rules[i]);
	free(policy->rules);
	*policy = (struct policy){ 0 };
}
