// SPDX-License-Identifier: BSD-3-Clause
/*
 * Prints seccomp policies as a C header, for src/jail/policies.c.
 *
 *     compile-policies [--log-only] DIRECTORY NAME...      of DIRECTORY/NAME.policy
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

int main(int argc, char **argv)
{
	bool log_only = argc > 1 && strcmp(argv[1], "--log-only") == 0;
	char **arguments = argv + 1 + log_only;
	unsigned syscalls[POLICIES_MAX];
	enum policy_architecture architecture;
	int count = argc - 2 - log_only;

	if (count < 1 || count > POLICIES_MAX) {
		fprintf(stderr, "usage: compile-policies [--log-only] DIRECTORY NAME...\n");
		return 2;
	}
	if (policy_architecture_find(basename(arguments[0]), &architecture) < 0) {
		fprintf(stderr, "%s: not the name of an architecture\n", arguments[0]);
		return 2;
	}
	printf("/* Made by tools/compile-policies from %s. */\n#pragma once\n", arguments[0]);
	for (int i = 0; i < count; i++)
		if (!print_programs(
			    arguments[0], arguments[i + 1], architecture, log_only, &syscalls[i]))
			return 1;
	printf("static const struct jail_policy policies[] = {\n");
	for (int i = 0; i < count; i++) {
		const char *name = arguments[i + 1];

		printf("\t{ \"%s\", %u, { %s_kill, ARRAY_SIZE(%s_kill) }, "
		       "{ %s_log, ARRAY_SIZE(%s_log) } },\n",
			name, syscalls[i], name, name, name, name);
	}
	printf("};\n");
	return ferror(stdout) || fflush(stdout) != 0;
}
