/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Command line options from const tables: one row an option, one function that
 * takes its value. The same row feeds the parser and the help text.
 *
 * Grammar: --name, --name=value, --name value, -n, -nVALUE, -n VALUE, in any
 * order among the positional arguments; "--" ends the options. Values are not
 * copied: they live as long as argv.
 */
#pragma once

#include <stdio.h>

#include "base/util.h"

struct option {
	const char *name;  /* long name without dashes */
	char letter;       /* short name, or 0 */
	const char *value; /* what the value is called in the help; NULL: a flag */
	const char *help;
	bool repeatable;
	/* Takes the value (NULL for a flag). 0, or -EINVAL after logging why. */
	int (*apply)(void *target, const char *value);
};

struct option_set {
	const char *command;    /* "crosvm run" */
	const char *positional; /* "KERNEL" */
	const char *summary;    /* one line for the help */
	const struct option *options;
	size_t count; /* 64 at most */
	int (*apply_positional)(void *target, const char *value);
};

/* Returned when --help was met; nothing after it was looked at. */
enum { OPTIONS_HELP = 1 };

/*
 * Parses argv[1..argc) into `target`. 0, OPTIONS_HELP, or -EINVAL after logging
 * what is wrong with which argument.
 */
MUST_CHECK int options_parse(const struct option_set *set, int argc, char **argv, void *target);

void options_print_help(const struct option_set *set, FILE *stream);

/* --log-level, for the tables of commands that have it: the apply function. */
int option_apply_log_level(void *target, const char *value);
