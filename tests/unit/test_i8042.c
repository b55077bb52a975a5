// SPDX-License-Identifier: BSD-3-Clause
/*
 * i8042: only a pulse of the reset line does anything, and it does so once,
 * also in a storm from several vCPUs.
 */
#include "unit/unit.h"

#include <pthread.h>
#include <stdatomic.h>

#include "bus/i8042.h"

struct machine {
	atomic_uint resets;
	atomic_uint others;
	struct bus *bus;
	struct i8042 *i8042;
};

static void count_request(void *owner, enum power_request request)
{
	struct machine *machine = owner;

	atomic_fetch_add(request == POWER_RESET ? &machine->resets : &machine->others, 1);
}

static void machine_up(struct machine *machine)
{
	*machine = (struct machine){ 0 };
	assert_int_equal(
		i8042_create((struct power_sink){ count_request, machine }, &machine->i8042), 0);
	assert_int_equal(bus_create(&machine->bus), 0);
	assert_int_equal(
		bus_add(machine->bus, "data", 0x60, 1, &i8042_data_bus_ops, machine->i8042), 0);
	assert_int_equal(
		bus_add(machine->bus, "command", 0x64, 1, &i8042_command_bus_ops, machine->i8042),
		0);
}

static void machine_down(struct machine *machine)
{
	assert_int_equal(machine->others, 0);
	bus_free(machine->bus);
	i8042_free(machine->i8042);
}

static void out(struct machine *machine, uint64_t port, uint8_t value)
{
	bus_write(machine->bus, port, &value, 1);
}

static uint8_t in(struct machine *machine, uint64_t port)
{
	uint8_t value;

	bus_read(machine->bus, port, &value, 1);
	return value;
}

static void a_pulse_resets(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	out(&machine, 0x64, 0xfe);
	assert_int_equal(machine.resets, 1);
	out(&machine, 0x64, 0xfe);
	assert_int_equal(machine.resets, 1);
	machine_down(&machine);
}

static void the_output_port_resets(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	out(&machine, 0x60, 0xfe); /* no command before it: for the keyboard */
	out(&machine, 0x64, 0xd1);
	out(&machine, 0x60, 0xdf); /* A20, as old kernels do: reset line high */
	out(&machine, 0x60, 0x00); /* the command is used up */
	out(&machine, 0x64, 0xd1);
	out(&machine, 0x64, 0xaa); /* another command forgets it */
	out(&machine, 0x60, 0x00);
	assert_int_equal(machine.resets, 0);
	out(&machine, 0x64, 0xd1);
	out(&machine, 0x60, 0xfe);
	assert_int_equal(machine.resets, 1);
	machine_down(&machine);
}

static void other_commands_are_harmless(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	for (unsigned command = 0; command < 0x100; command++) {
		if (command >= 0xf0 && command % 2 == 0)
			continue; /* these pull the reset line */
		out(&machine, 0x64, (uint8_t)command);
		out(&machine, 0x60, 0xff);
		/* Empty and ready: kb_wait() and friends go on at once. */
		assert_int_equal(in(&machine, 0x64), 0);
		assert_int_equal(in(&machine, 0x60), 0);
	}
	assert_int_equal(machine.resets, 0);
	machine_down(&machine);
}

static void *storm(void *argument)
{
	for (unsigned i = 0; i < 100000; i++)
		out(argument, 0x64, 0xfe);
	return NULL;
}

static void a_storm_resets_once(void **state)
{
	pthread_t vcpus[4];
	struct machine machine;

	(void)state;
	machine_up(&machine);
	for (size_t i = 0; i < ARRAY_SIZE(vcpus); i++)
		assert_int_equal(pthread_create(&vcpus[i], NULL, storm, &machine), 0);
	for (size_t i = 0; i < ARRAY_SIZE(vcpus); i++)
		pthread_join(vcpus[i], NULL);
	assert_int_equal(machine.resets, 1);
	machine_down(&machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pulse_resets),
		cmocka_unit_test(the_output_port_resets),
		cmocka_unit_test(other_commands_are_harmless),
		cmocka_unit_test(a_storm_resets_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
