// SPDX-License-Identifier: BSD-3-Clause
/*
 * crosvm: the table of subcommands, and what is said to someone who names
 * none of them. The arguments may be anything.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "cli/commands.h"
#include "vm/exit_status.h"

static int command_help(int argc, char **argv);
static int command_version(int argc, char **argv);

static const struct command {
	const char *name;
	const char *summary;
	int (*run)(int argc, char **argv);
	const struct option_set
		*options; /* for `crosvm help NAME`; NULL: the summary says it all */
} commands[] = {
	{ "run", "start a virtual machine", command_run, &run_options },
	{ "stop", "end VMs in good order", command_verb, &stop_options },
	{ "powerbtn", "press the power button of VMs", command_verb, &powerbtn_options },
	{ "suspend", "hold VMs", command_verb, &suspend_options },
	{ "resume", "let suspended VMs run on", command_verb, &resume_options },
	{ "balloon", "make guests give up memory, or take it back", command_verb,
		&balloon_options },
	{ "balloon_stats", "say how guests use their memory", command_verb,
		&balloon_stats_options },
	{ "disk", "make a disk of VMs bigger or smaller", command_verb, &disk_options },
	{ "status", "say how VMs are", command_verb, &status_options },
	{ "events", "print what happens to a VM", command_verb, &events_options },
	{ "device", "run a device alone, for another VMM", command_device, &device_options },
	{ "help", "explain a command: crosvm help run", command_help, NULL },
	{ "version", "print the version, or those of VMs", command_version, &version_options },
};

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static void print_usage(FILE *stream)
{
	fputs("usage: crosvm COMMAND [ARGUMENTS]\n"
	      "A virtual machine monitor for Linux/KVM.\n\ncommands:\n",
		stream);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(stream, "  %-10s %s\n", commands[i].name, commands[i].summary);
	fputs("\nTo boot a kernel: crosvm run KERNEL ('crosvm help run' lists the options).\n"
	      "The manual is crosvm(1).\n",
		stream);
}

static int unknown_command(const char *name)
{
	log_error("unknown command '%s'; 'crosvm help' lists the commands", name);
	return STATUS_USAGE;
}

static int command_help(int argc, char **argv)
{
	if (argc < 2) {
		print_usage(stdout);
		return STATUS_OK;
	}
	const struct command *command = find_command(argv[1]);

	if (command == NULL)
		return unknown_command(argv[1]);
	if (command->options != NULL)
		options_print_help(command->options, stdout);
	else
		printf("crosvm %s: %s\n", command->name, command->summary);
	return STATUS_OK;
}

static int command_version(int argc, char **argv)
{
	/* --version, whatever follows, is for us alone. */
	if (argc > 1 && argv[0][0] != '-')
		return command_verb(argc, argv);
	puts("crosvm " CROSVM_VERSION);
	return STATUS_OK;
}

int main(int argc, char **argv)
{
	int r = fd_fill_standard();

	if (r < 0) {
		log_error("cannot open /dev/null for stdin, stdout or stderr: %s", strerror(-r));
		return STATUS_HOST;
	}
	if (argc < 2) {
		print_usage(stderr);
		return STATUS_USAGE;
	}
	const char *name = argv[1];

	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
		name = "help";
	if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
		name = "version";
	const struct command *command = find_command(name);

	if (command == NULL)
		return unknown_command(name);
	int status = command->run(argc - 1, argv + 1);

	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	log_error("cannot write to stdout: %s", strerror(errno));
	return status == STATUS_OK ? STATUS_HOST : status;
}
