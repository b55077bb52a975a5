// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-pci while the VM is suspended: every ring that runs is stopped and
 * goes on where it was, the driver sees nothing of it, and failures are told.
 */
#include "unit/unit.h"

#include "unit/virtio_machine.h"

#include "unit/capture.h"

static int make_machine(void **state)
{
	static struct machine machine;

	*state = &machine;
	return machine_up(&machine, VHOST_CONFIG_SIZE);
}

static int free_machine(void **state)
{
	struct machine *machine = *state;

	machine_down(machine);
	return !machine->vhost.freed;
}

static void count_failure(void *owner)
{
	++*(unsigned *)owner;
}

static void rings_go_on_where_they_were(void **state)
{
	struct machine *machine = *state;
	struct fake_vhost *vhost = &machine->vhost;

	start_device(machine, MACHINE_FEATURES);
	for (unsigned round = 1; round <= 3; round++) {
		struct vhost_ring before = vhost->rings[1];

		vhost->base = (uint16_t)(7000 * round);
		assert_int_equal(virtio_pci_suspend(machine->device), 0);
		assert_int_equal(fake_running(vhost), 0);
		assert_int_equal(virtio_pci_suspend(machine->device), 0); /* once is enough */
		assert_int_equal(vhost->stops, VHOST_QUEUES * round);
		virtio_pci_resume(machine->device);
		assert_int_equal(fake_running(vhost), VHOST_QUEUES);
		virtio_pci_resume(machine->device);
		assert_int_equal(vhost->starts, VHOST_QUEUES * (round + 1));
		before.base = vhost->base;
		assert_memory_equal(&vhost->rings[1], &before, sizeof(before));
	}
	assert_int_equal(get_status(machine), STATUS_RUNNING);
	/* After a reset they begin at the beginning. */
	start_device(machine, MACHINE_FEATURES);
	for (unsigned i = 0; i < VHOST_QUEUES; i++)
		assert_int_equal(vhost->rings[i].base, 0);
}

static void only_running_rings_are_held(void **state)
{
	struct machine *machine = *state;

	assert_int_equal(virtio_pci_suspend(machine->device), 0);
	virtio_pci_resume(machine->device);
	negotiate(machine, MACHINE_FEATURES);
	set_up_queue(machine, 1);
	put_status(machine, STATUS_RUNNING);
	assert_int_equal(virtio_pci_suspend(machine->device), 0);
	assert_int_equal(machine->vhost.stops, 1);
	virtio_pci_resume(machine->device);
	assert_int_equal(machine->vhost.starts, 2);
	assert_false(machine->vhost.running[0]);
	assert_true(machine->vhost.running[1]);
}

static void kicks_wait(void **state)
{
	struct machine *machine = *state;
	eventfd_t kicks;

	start_device(machine, MACHINE_FEATURES);
	assert_int_equal(virtio_pci_suspend(machine->device), 0);
	assert_int_equal(eventfd_write(machine->vhost.rings[2].kick_fd, 3), 0);
	virtio_pci_resume(machine->device);
	assert_int_equal(eventfd_read(machine->vhost.rings[2].kick_fd, &kicks), 0);
	assert_int_equal(kicks, 3);
}

/* The fake ends the program when a stopped ring is stopped. */
static void a_reset_while_held_forgets_the_hold(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES);
	assert_int_equal(virtio_pci_suspend(machine->device), 0);
	put_status(machine, 0);
	virtio_pci_resume(machine->device);
	assert_int_equal(fake_running(&machine->vhost), 0);
	start_device(machine, MACHINE_FEATURES);
	assert_int_equal(fake_running(&machine->vhost), VHOST_QUEUES);
}

static void a_ring_that_cannot_be_held_is_an_error(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES);
	machine->vhost.fail_stop = -EIO;
	assert_int_equal(virtio_pci_suspend(machine->device), -EIO);
	machine->vhost.fail_stop = 0;
	virtio_pci_resume(machine->device);
	assert_int_equal(fake_running(&machine->vhost), VHOST_QUEUES);
	assert_int_equal(machine->vhost.starts, VHOST_QUEUES);
	assert_int_equal(get_status(machine), STATUS_RUNNING);
}

static void a_ring_that_cannot_go_on_is_a_failure(void **state)
{
	struct machine *machine = *state;
	struct capture capture;
	unsigned failures = 0;

	virtio_pci_on_failure(machine->device, count_failure, &failures);
	start_device(machine, MACHINE_FEATURES);
	assert_int_equal(virtio_pci_suspend(machine->device), 0);
	machine->vhost.fail_start = -ENOMEM;
	capture_begin(&capture);
	virtio_pci_resume(machine->device);
	capture_end(&capture);
	assert_int_equal(capture_lines(&capture), 1);
	assert_non_null(strstr(capture.text, "waits for a reset"));
	assert_int_equal(failures, 1);
	assert_int_equal(get_status(machine), STATUS_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
	machine->vhost.fail_start = 0;
	start_device(machine, MACHINE_FEATURES);
	assert_int_equal(fake_running(&machine->vhost), VHOST_QUEUES);
	assert_int_equal(get_status(machine), STATUS_RUNNING);
	assert_int_equal(failures, 1);
}

/* uio_pci_generic does it when a driver in user space has died. */
static void without_bus_mastering_no_ring_runs(void **state)
{
	struct machine *machine = *state;
	const struct fake_vhost *vhost = &machine->vhost;
	const uint16_t memory = PCI_COMMAND_MEMORY, master = memory | PCI_COMMAND_MASTER;

	/* Never set: some drivers do without. */
	start_device(machine, MACHINE_FEATURES);
	config_write(machine, PCI_COMMAND, 2, memory);
	assert_int_equal(fake_running(vhost), VHOST_QUEUES);
	config_write(machine, PCI_COMMAND, 2, master);
	assert_int_equal(vhost->starts, VHOST_QUEUES);
	config_write(machine, PCI_COMMAND, 2, memory);
	assert_int_equal(fake_running(vhost), 0);
	/* A suspension in between changes nothing of it. */
	assert_int_equal(virtio_pci_suspend(machine->device), 0);
	virtio_pci_resume(machine->device);
	assert_int_equal(fake_running(vhost), 0);
	/* The next driver sets it first: the rings are still those of the one before. */
	config_write(machine, PCI_COMMAND, 2, master);
	assert_int_equal(fake_running(vhost), 0);
	assert_int_equal(get_status(machine), STATUS_RUNNING);
	start_device(machine, MACHINE_FEATURES);
	assert_int_equal(fake_running(vhost), VHOST_QUEUES);
}

/* It has no rings yet that could be held, and a suspension lets go of those that it has later. */
static void to_clear_bus_mastering_before_the_start_bars_nothing(void **state)
{
	struct machine *machine = *state;
	const uint16_t memory = PCI_COMMAND_MEMORY;

	config_write(machine, PCI_COMMAND, 2, memory | PCI_COMMAND_MASTER);
	config_write(machine, PCI_COMMAND, 2, memory);
	start_device(machine, MACHINE_FEATURES);
	assert_int_equal(fake_running(&machine->vhost), VHOST_QUEUES);
	assert_int_equal(virtio_pci_suspend(machine->device), 0);
	virtio_pci_resume(machine->device);
	assert_int_equal(fake_running(&machine->vhost), VHOST_QUEUES);
}

static void a_ring_that_cannot_be_barred_is_a_failure(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES);
	config_write(machine, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	machine->vhost.fail_stop = -EIO;
	config_write(machine, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(get_status(machine), STATUS_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
	machine->vhost.fail_stop = 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_machine, free_machine)
	const struct CMUnitTest tests[] = {
		TEST(rings_go_on_where_they_were),
		TEST(only_running_rings_are_held),
		TEST(kicks_wait),
		TEST(a_reset_while_held_forgets_the_hold),
		TEST(a_ring_that_cannot_be_held_is_an_error),
		TEST(a_ring_that_cannot_go_on_is_a_failure),
		TEST(without_bus_mastering_no_ring_runs),
		TEST(to_clear_bus_mastering_before_the_start_bars_nothing),
		TEST(a_ring_that_cannot_be_barred_is_a_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
