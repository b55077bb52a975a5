// SPDX-License-Identifier: BSD-3-Clause
/*
 * Prints seccomp policies as a C header, for src/jail/policies.c.
 *
 *     compile-policies [--log-only] DIRECTORY NAME...      of DIRECTORY/NAME.policy
 *     compile-policies --rules DIRECTORY NAME...           for tools/audit-policies
 *
 * The directory's own name is that of the architecture.
 *
 * With --log-only no program kills: for builds whose code makes system calls
 * that nobody wrote, as sanitizers do.
 *
 * Runs on the machine that builds crosvm. An error in a policy ends the build,
 * with its file and line.
 */
#include <stdio.h>
#include <string.h>

#include "jail/policy_compile.h"

enum { POLICIES_MAX = 64 };

static void print_program(const char *name, const char *mode, const struct jail_program *program)
{
	printf("static const struct sock_filter %s_%s[] = {\n", name, mode);
	for (unsigned i = 0; i < program->count; i++) {
		const struct sock_filter *instruction = &program->instructions[i];

		printf("\t{ 0x%02x, %u, %u, 0x%08x },\n", instruction->code, instruction->jt,
			instruction->jf, instruction->k);
	}
	printf("};\n");
}

/* Prints the programs of one policy. False, after a message, when it is wrong. */
static bool print_programs(const char *directory, const char *name,
	enum policy_architecture architecture, bool log_only, unsigned *ret_syscalls)
{
	struct policy_error error = { "" };
	struct jail_policy *policy;

	if (policy_load(directory, name, architecture, &policy, &error) < 0) {
		fprintf(stderr, "%s\n", error.text);
		return false;
	}
	*ret_syscalls = policy->syscalls;
	print_program(name, "kill", log_only ? &policy->log : &policy->kill);
	print_program(name, "log", &policy->log);
	policy_unload(policy);
	return true;
}

static bool print_header(const char *directory, enum policy_architecture architecture, char **names,
	int count, bool log_only)
{
	unsigned syscalls[POLICIES_MAX];

	printf("/* Made by tools/compile-policies from %s. */\n#pragma once\n", directory);
	for (int i = 0; i < count; i++)
		if (!print_programs(directory, names[i], architecture, log_only, &syscalls[i]))
			return false;
	printf("static const struct jail_policy policies[] = {\n");
	for (int i = 0; i < count; i++)
		printf("\t{ \"%s\", %u, { %s_kill, ARRAY_SIZE(%s_kill) }, "
		       "{ %s_log, ARRAY_SIZE(%s_log) } },\n",
			names[i], syscalls[i], names[i], names[i], names[i], names[i]);
	printf("};\n");
	return true;
}

static void print_alternative(const struct policy_alternative *alternative)
{
	static const char *const operators[POLICY_OPERATORS] = { "==", "!=", "<", "<=", ">",
		">=", "&", "in" };

	for (unsigned i = 0; i < alternative->count; i++)
		printf("%sarg%u %s 0x%llx", i == 0 ? "" : " && ", alternative->tests[i].argument,
			operators[alternative->tests[i].operation],
			(unsigned long long)alternative->tests[i].value);
}

/* A line for each way to an answer: policy, file, line, system call, and when. */
static void print_rule(const char *name, const struct policy_rule *rule)
{
	bool refuses = rule->otherwise != POLICY_DEFAULT;

	for (unsigned i = 0; i < rule->alternative_count; i++) {
		printf("%s\t%s\t%u\t%s\t", name, rule->file, rule->line, rule->syscall);
		print_alternative(&rule->alternatives[i]);
		printf("\n");
	}
	if (rule->always || refuses)
		printf("%s\t%s\t%u\t%s\t%s\n", name, rule->file, rule->line, rule->syscall,
			rule->always ? "1" : "return");
}

static bool print_rules(const char *directory, char **names, int count)
{
	for (int i = 0; i < count; i++) {
		struct policy policy = { 0 };
		struct policy_error error = { "" };
		char path[4096];

		snprintf(path, sizeof(path), "%s/%s.policy", directory, names[i]);
		int r = policy_parse_file(&policy, path, &error);

		for (unsigned k = 0; r == 0 && k < policy.rule_count; k++)
			print_rule(names[i], &policy.rules[k]);
		policy_free(&policy);
		if (r < 0) {
			fprintf(stderr, "%s\n", error.text);
			return false;
		}
	}
	return true;
}

int main(int argc, char **argv)
{
	bool log_only = argc > 1 && strcmp(argv[1], "--log-only") == 0;
	bool rules = argc > 1 && strcmp(argv[1], "--rules") == 0;
	char **arguments = argv + 1 + (log_only || rules);
	int count = (int)(argv + argc - arguments) - 1;
	enum policy_architecture architecture;

	if (count < 1 || count > POLICIES_MAX) {
		fprintf(stderr,
			"usage: compile-policies [--log-only | --rules] DIRECTORY NAME...\n");
		return 2;
	}
	if (policy_architecture_find(basename(arguments[0]), &architecture) < 0) {
		fprintf(stderr, "%s: not the name of an architecture\n", arguments[0]);
		return 2;
	}
	bool done =
		rules ? print_rules(arguments[0], arguments + 1, count)
		      : print_header(arguments[0], architecture, arguments + 1, count, log_only);

	return !done || ferror(stdout) || fflush(stdout) != 0;
}
