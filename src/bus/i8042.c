// SPDX-License-Identifier: BSD-3-Clause
/*
 * Accepts every command and answers none. The guest may write anything, and
 * from all vCPUs at once in a storm.
 */
#include "bus/i8042.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
	COMMAND_WRITE_OUTPUT_PORT = 0xd1,
	/* 0xf0 to 0xff pulse the output lines whose bit is 0; line 0 is reset. */
	COMMAND_PULSE = 0xf0,
	OUTPUT_NOT_RESET = 1 << 0,
};

struct i8042 {
	struct power_sink power;
	atomic_bool reset_requested;
	atomic_bool output_port_next; /* the next data byte is for the output port */
};

static void pulse_reset(struct i8042 *i8042)
{
	/* The load keeps a storm of resets from fighting over the cache line. */
	if (atomic_load_explicit(&i8042->reset_requested, memory_order_relaxed) ||
		atomic_exchange(&i8042->reset_requested, true))
		return;
	i8042->power.request(i8042->power.owner, POWER_RESET);
}

/* Both the status register and the buffer behind it: empty, ready. */
static void read_nothing(void *device, uint64_t offset, uint8_t *data, unsigned size)
{
	(void)device;
	(void)offset;
	(void)size;
	*data = 0;
}

static void write_command(void *device, uint64_t offset, const uint8_t *data, unsigned size)
{
	struct i8042 *i8042 = device;

	(void)offset;
	(void)size;
	atomic_store(&i8042->output_port_next, *data == COMMAND_WRITE_OUTPUT_PORT);
	if ((*data & (COMMAND_PULSE | OUTPUT_NOT_RESET)) == COMMAND_PULSE)
		pulse_reset(i8042);
}

static void write_data(void *device, uint64_t offset, const uint8_t *data, unsigned size)
{
	struct i8042 *i8042 = device;

	(void)offset;
	(void)size;
	if (atomic_exchange(&i8042->output_port_next, false) && (*data & OUTPUT_NOT_RESET) == 0)
		pulse_reset(i8042);
}

const struct bus_ops i8042_data_bus_ops = {
	.read = read_nothing,
	.write = write_data,
	.byte_registers = true,
};

const struct bus_ops i8042_command_bus_ops = {
	.read = read_nothing,
	.write = write_command,
	.byte_registers = true,
};

int i8042_create(struct power_sink power, struct i8042 **ret_i8042)
{
	struct i8042 *i8042 = calloc(1, sizeof(*i8042));

	if (i8042 == NULL)
		return -ENOMEM;
	i8042->power = power;
	*ret_i8042 = i8042;
	return 0;
}

void i8042_free(struct i8042 *i8042)
{
	free(i8042);
}
