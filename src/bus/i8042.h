/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The reset line of an i8042 keyboard controller, which is all that guests
 * without a keyboard use it for. Its buffers are always empty, so nothing that
 * waits for them waits long, and there is no keyboard and no mouse.
 *
 * vCPU threads bring the accesses; its state is one atomic each.
 */
#pragma once

#include "base/util.h"
#include "bus/bus.h"
#include "bus/power.h"

struct i8042;

/*
 * The guest's first pulse of the reset line requests POWER_RESET from `power`,
 * which is copied; later ones do nothing. 0 or -ENOMEM.
 */
MUST_CHECK int i8042_create(struct power_sink power, struct i8042 **ret_i8042);
void i8042_free(struct i8042 *i8042);

/* For two bus ranges of one port each; the device is the struct i8042. */
extern const struct bus_ops i8042_data_bus_ops;
extern const struct bus_ops i8042_command_bus_ops;
