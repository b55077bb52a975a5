/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a device tells the VM that the guest ended it. Called from a vCPU thread,
 * possibly from several at once and many times; the first one counts.
 */
#pragma once

#include "base/util.h"

enum power_request {
	POWER_OFF,   /* ACPI S5 */
	POWER_RESET, /* i8042 or ACPI reset register */
};

struct power_sink {
	void (*request)(void *owner, enum power_request request);
	void *owner;
};
