/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The subcommands, one file each, but those that speak to a VM's control
 * socket, which are one file with a table. Each parses its own arguments and returns
 * crosvm's exit status; with argv[0] being the subcommand's own name.
 */
#pragma once

#include <stdio.h>

#include "base/util.h"
#include "cli/options.h"

int command_run(int argc, char **argv);
extern const struct option_set run_options;

/* Whichever verb argv[0] names: one of those whose options follow. */
int command_verb(int argc, char **argv);
extern const struct option_set disk_options;
extern const struct option_set events_options;
extern const struct option_set powerbtn_options;
extern const struct option_set resume_options;
extern const struct option_set status_options;
extern const struct option_set balloon_options;
extern const struct option_set balloon_stats_options;
extern const struct option_set stop_options;
extern const struct option_set suspend_options;
extern const struct option_set version_options;
int command_device(int argc, char **argv);
extern const struct option_set device_options;
