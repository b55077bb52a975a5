// SPDX-License-Identifier: BSD-3-Clause
/*
 * The VMM's side of a device's configuration space: the driver is told of what
 * changes in its part, and never sees what lies behind that.
 */
#include "unit/unit.h"

#include <pthread.h>

#include "unit/virtio_machine.h"

enum { DRIVERS_PART = 4 };

static int make_machine(void **state)
{
	static struct machine machine;

	*state = &machine;
	return machine_up(&machine, DRIVERS_PART);
}

static int free_machine(void **state)
{
	machine_down(*state);
	return 0;
}

static uint8_t generation(const struct machine *machine)
{
	return (uint8_t)bar_read(machine, VIRTIO_PCI_COMMON_CFGGENERATION, 1);
}

static int change(const struct machine *machine, uint32_t offset, uint16_t value)
{
	return virtio_pci_change_config(machine->device, offset, &value, sizeof(value));
}

static void the_driver_is_told(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES);
	uint8_t before = generation(machine);

	fabric_run(&machine->fabric);
	assert_false(machine->intx);
	assert_int_equal(change(machine, 2, 0x1234), 0);
	fabric_run(&machine->fabric);
	assert_true(machine->intx);
	assert_int_equal(bar_read(machine, BAR_ISR, 1), 2); /* the configuration's bit alone */
	assert_int_equal(bar_read(machine, BAR_DEVICE + 2, 2), 0x1234);
	assert_int_not_equal(generation(machine), before);
}

static void a_driver_that_is_not_there_is_not_told(void **state)
{
	struct machine *machine = *state;

	assert_int_equal(change(machine, 0, 0x1234), 0);
	start_device(machine, MACHINE_FEATURES);
	fabric_run(&machine->fabric);
	assert_false(machine->intx);
	assert_int_equal(bar_read(machine, BAR_DEVICE, 2), 0x1234);
}

static void the_vmms_part_is_its_own(void **state)
{
	struct machine *machine = *state;
	uint16_t value;

	start_device(machine, MACHINE_FEATURES);
	uint8_t before = generation(machine);

	assert_int_equal(change(machine, DRIVERS_PART, 0x1234), 0);
	fabric_run(&machine->fabric);
	assert_false(machine->intx);
	assert_int_equal(generation(machine), before);
	assert_int_equal(
		virtio_pci_read_config(machine->device, DRIVERS_PART, &value, sizeof(value)), 0);
	assert_int_equal(value, 0x1234);
	for (unsigned offset = DRIVERS_PART - 1; offset < VHOST_CONFIG_SIZE; offset++) {
		assert_int_equal(bar_read(machine, BAR_DEVICE + offset, 2), UINT16_MAX);
		bar_write(machine, BAR_DEVICE + offset, 2, 0);
	}
	assert_int_equal(
		virtio_pci_read_config(machine->device, DRIVERS_PART, &value, sizeof(value)), 0);
	assert_int_equal(value, 0x1234);
}

static void a_refusal_changes_nothing(void **state)
{
	struct machine *machine = *state;
	struct vhost_ops without = fake_vhost_ops;
	uint8_t byte;

	start_device(machine, MACHINE_FEATURES);
	uint8_t before = generation(machine);

	assert_int_equal(change(machine, VHOST_CONFIG_SIZE - 1, 1), -EINVAL);
	assert_int_equal(change(machine, UINT32_MAX, 1), -EINVAL);
	assert_int_equal(
		virtio_pci_read_config(machine->device, VHOST_CONFIG_SIZE, &byte, 1), -EINVAL);
	without.change_config = NULL;
	machine->vhost.vhost.ops = &without;
	assert_int_equal(change(machine, 0, 1), -EOPNOTSUPP);
	machine->vhost.vhost.ops = &fake_vhost_ops;
	fabric_run(&machine->fabric);
	assert_false(machine->intx);
	assert_int_equal(generation(machine), before);
}

static void *write_registers(void *argument)
{
	const struct machine *machine = argument;

	for (uint64_t i = 0; i < 1000; i++)
		bar_write(machine, VIRTIO_PCI_COMMON_Q_DESCLO, 8, i << 32 | i);
	return NULL;
}

/* ThreadSanitizer sees what has no lock. */
static void two_vcpus_write_at_once(void **state)
{
	struct machine *machine = *state;
	pthread_t other;

	assert_int_equal(pthread_create(&other, NULL, write_registers, machine), 0);
	write_registers(machine);
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t value = bar_read(machine, VIRTIO_PCI_COMMON_Q_DESCLO, 8);

		assert_int_equal(value >> 32, (uint32_t)value);
	}
	pthread_join(other, NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_machine, free_machine)
	const struct CMUnitTest tests[] = {
		TEST(the_driver_is_told),
		TEST(a_driver_that_is_not_there_is_not_told),
		TEST(the_vmms_part_is_its_own),
		TEST(a_refusal_changes_nothing),
		TEST(two_vcpus_write_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
