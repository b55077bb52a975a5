/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The subcommands, one file each. Each parses its own arguments and returns
 * crosvm's exit status; with argv[0] being the subcommand's own name.
 */
#pragma once

#include <stdio.h>

#include "base/util.h"
#include "cli/options.h"

int command_run(int argc, char **argv);
extern const struct option_set run_options;
int command_device(int argc, char **argv);
extern const struct option_set device_options;
