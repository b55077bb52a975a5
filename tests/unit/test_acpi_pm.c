// SPDX-License-Identifier: BSD-3-Clause
/*
 * acpi_pm: power off and reset, the power button with its level-triggered
 * interrupt, the timer, and accesses of every width at every offset.
 */
#include "unit/unit.h"

#include <string.h>
#include <time.h>

#include "bus/acpi_pm.h"

enum { BASE = 0x600, RESET = 0xcf9, POWER_BUTTON = 0x100 };

struct machine {
	unsigned offs, resets;
	bool sci;
	unsigned sci_changes;
	struct bus *bus;
	struct acpi_pm *pm;
};

static void count_request(void *owner, enum power_request request)
{
	struct machine *machine = owner;

	if (request == POWER_OFF)
		machine->offs++;
	else
		machine->resets++;
}

static void set_sci(void *owner, bool asserted)
{
	struct machine *machine = owner;

	assert_int_not_equal(machine->sci, asserted); /* only changes are told */
	machine->sci = asserted;
	machine->sci_changes++;
}

static void machine_up(struct machine *machine)
{
	*machine = (struct machine){ 0 };
	assert_int_equal(acpi_pm_create((struct irq_line){ set_sci, machine },
				 (struct power_sink){ count_request, machine }, &machine->pm),
		0);
	assert_int_equal(bus_create(&machine->bus), 0);
	assert_int_equal(
		bus_add(machine->bus, "pm", BASE, ACPI_PM_PORT_SIZE, &acpi_pm_bus_ops, machine->pm),
		0);
	assert_int_equal(
		bus_add(machine->bus, "reset", RESET, 1, &acpi_reset_bus_ops, machine->pm), 0);
}

static void machine_down(struct machine *machine)
{
	bus_free(machine->bus);
	acpi_pm_free(machine->pm);
}

static void out(struct machine *machine, uint64_t port, uint32_t value, unsigned size)
{
	uint8_t data[4];

	memcpy(data, &value, sizeof(data));
	bus_write(machine->bus, port, data, size);
}

static uint32_t in(struct machine *machine, uint64_t port, unsigned size)
{
	uint32_t value = 0;
	uint8_t data[4];

	bus_read(machine->bus, port, data, size);
	memcpy(&value, data, size);
	return value;
}

static void s5_powers_off_once(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	assert_int_equal(in(&machine, BASE + ACPI_PM_CONTROL, 2), 1); /* SCI_EN */
	for (unsigned type = 0; type < 8; type++) {
		out(&machine, BASE + ACPI_PM_CONTROL, type << 10, 2); /* without SLP_EN */
		if (type != 5)
			out(&machine, BASE + ACPI_PM_CONTROL, type << 10 | 1 << 13, 2);
	}
	assert_int_equal(machine.offs, 0);
	out(&machine, BASE + ACPI_PM_CONTROL, 5 << 10 | 1 << 13, 2);
	assert_int_equal(machine.offs, 1);
	out(&machine, BASE + ACPI_PM_CONTROL, 5 << 10 | 1 << 13, 2);
	out(&machine, RESET, 6, 1);
	assert_int_equal(machine.offs, 1);
	assert_int_equal(machine.resets, 0);
	assert_int_equal(in(&machine, BASE + ACPI_PM_CONTROL, 2), 1);
	machine_down(&machine);
}

static void s5_by_other_widths(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	out(&machine, BASE + ACPI_PM_CONTROL + 1, 5 << 2 | 1 << 5, 1);
	assert_int_equal(machine.offs, 1);
	machine_down(&machine);
	machine_up(&machine);
	out(&machine, BASE + ACPI_PM_CONTROL, 5 << 10 | 1 << 13, 4);
	assert_int_equal(machine.offs, 1);
	machine_down(&machine);
}

static void the_reset_register_wants_bit_2(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	for (unsigned value = 0; value < 0x100; value++)
		if ((value & 4) == 0)
			out(&machine, RESET, value, 1);
	out(&machine, RESET, 0x0606, 2); /* not a byte: nobody answers */
	assert_int_equal(in(&machine, RESET, 1), 0);
	assert_int_equal(machine.resets, 0);
	out(&machine, RESET, 6, 1);
	out(&machine, RESET, 6, 1);
	assert_int_equal(machine.resets, 1);
	machine_down(&machine);
}

static void the_button_raises_the_sci(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	acpi_pm_press_power_button(machine.pm);
	assert_false(machine.sci); /* not enabled yet */
	assert_int_equal(in(&machine, BASE, 2), POWER_BUTTON);
	out(&machine, BASE + 2, POWER_BUTTON, 2);
	assert_true(machine.sci);
	assert_int_equal(in(&machine, BASE + 2, 2), POWER_BUTTON);
	acpi_pm_press_power_button(machine.pm); /* again: still one */
	out(&machine, BASE, 0, 2);              /* writing 0 clears nothing */
	assert_true(machine.sci);
	out(&machine, BASE, POWER_BUTTON, 2);
	assert_false(machine.sci);
	assert_int_equal(in(&machine, BASE, 2), 0);
	acpi_pm_press_power_button(machine.pm);
	assert_true(machine.sci);
	assert_int_equal(machine.sci_changes, 3);
	out(&machine, BASE + 3, 0, 1); /* disabled by a byte */
	assert_false(machine.sci);
	machine_down(&machine);
}

static void status_and_enable_in_one_access(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	acpi_pm_press_power_button(machine.pm);
	out(&machine, BASE, POWER_BUTTON << 16, 4);
	assert_true(machine.sci);
	assert_int_equal(in(&machine, BASE, 4), POWER_BUTTON << 16 | POWER_BUTTON);
	out(&machine, BASE + 1, POWER_BUTTON >> 8, 1);
	assert_false(machine.sci);
	/* Only bits that there are can be enabled. */
	out(&machine, BASE, 0xffffffff, 4);
	assert_int_equal(in(&machine, BASE, 4), 0x07210000);
	machine_down(&machine);
}

static void the_timer_runs_at_its_frequency(void **state)
{
	static const struct timespec pause = { .tv_nsec = 50000000 };
	struct timespec before, after;
	struct machine machine;

	(void)state;
	machine_up(&machine);
	clock_gettime(CLOCK_MONOTONIC, &before);
	uint32_t start = in(&machine, BASE + ACPI_PM_TIMER, 4);

	nanosleep(&pause, NULL);
	uint32_t ticks = in(&machine, BASE + ACPI_PM_TIMER, 4) - start;

	clock_gettime(CLOCK_MONOTONIC, &after);
	double seconds = (double)(after.tv_sec - before.tv_sec) +
			 (double)(after.tv_nsec - before.tv_nsec) / 1e9;

	/* At least the pause, at most what passed outside. */
	assert_true(ticks >= 3579545 / 20 - 10);
	assert_true(ticks <= 3579545 * seconds + 10);
	/* Never backwards, and read-only. */
	for (unsigned i = 0; i < 10000; i++) {
		uint32_t now = in(&machine, BASE + ACPI_PM_TIMER, 4);

		out(&machine, BASE + ACPI_PM_TIMER, 0, 4);
		assert_true(now >= start);
		start = now;
	}
	machine_down(&machine);
}

static void every_access_is_harmless(void **state)
{
	static const uint32_t values[] = { 0, 0xffffffff, 0x5a5a5a5a, 0x00002000, 0x20002000 };
	struct machine machine;

	(void)state;
	machine_up(&machine);
	for (unsigned offset = 0; offset < ACPI_PM_PORT_SIZE + 4; offset++) {
		for (unsigned size = 1; size <= 4; size *= 2) {
			for (size_t i = 0; i < ARRAY_SIZE(values); i++)
				out(&machine, BASE + offset, values[i], size);
			in(&machine, BASE + offset, size);
		}
	}
	assert_int_equal(in(&machine, BASE + 12, 4), 0);
	assert_int_equal(in(&machine, BASE + 14, 4), 0xffffffff);
	machine_down(&machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(s5_powers_off_once),
		cmocka_unit_test(s5_by_other_widths),
		cmocka_unit_test(the_reset_register_wants_bit_2),
		cmocka_unit_test(the_button_raises_the_sci),
		cmocka_unit_test(status_and_enable_in_one_access),
		cmocka_unit_test(the_timer_runs_at_its_frequency),
		cmocka_unit_test(every_access_is_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
