/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a virtual machine, from the user's request to the exit status.
 * The request is the user's and was parsed; what it names may still be anything.
 */
#pragma once

#include "vm/config.h"
#include "vm/exit_status.h"

/*
 * Runs a VM until it ends, in the calling thread and those that it starts.
 * Everything it made is gone when it returns. Errors are logged.
 */
enum exit_status vm_run(const struct vm_config *config);
