// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-pci when the host or the back half fails, and what a driver can make
 * of that: starts that fail half-way, and the log.
 */
#include "unit/unit.h"

#include <fcntl.h>

#include "unit/virtio_machine.h"

#include "base/log_limit.h"
#include "unit/capture.h"
#include "virtio/device.h"

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

/* Its line of the log is not for the tests' output. */
static void start_quietly(const struct machine *machine)
{
	struct capture capture;

	capture_begin(&capture);
	start_device(machine, MACHINE_FEATURES);
	capture_end(&capture);
}

static unsigned open_fds(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* A guest that does nothing else must not fill the host's log. */
static void queues_that_cannot_start_write_few_lines(void **state)
{
	struct machine *machine = *state;
	struct capture capture;

	machine->vhost.fail_start = -EINVAL;
	capture_begin(&capture);
	for (unsigned i = 0; i < 100; i++)
		start_device(machine, MACHINE_FEATURES);
	capture_end(&capture);
	assert_in_range(capture_lines(&capture), 1, LOG_LIMIT_BURST + 1);
}

static void more_queues_than_there_is_room_for_are_refused(void **state)
{
	static const unsigned counts[] = { DEVICE_QUEUES_MAX + 1, 1000, UINT32_MAX };
	const struct machine *machine = *state;
	const struct virtio_pci_identity identity = { .name = "test", .queue_size = QUEUE_SIZE };
	struct fake_fabric owner = { 0 };
	const struct fabric fabric = { .ops = &fake_fabric_ops, .owner = &owner };
	struct virtio_pci *device = NULL;

	for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
		struct fake_vhost vhost;

		fake_vhost_init(&vhost, counts[i], MACHINE_FEATURES);
		assert_int_equal(
			virtio_pci_create(&identity, &vhost.vhost, machine->host, &fabric, &device),
			-EINVAL);
		assert_true(vhost.freed);
		assert_null(device);
	}
}

/* Fails a start, then lets one succeed: all is there, and nothing twice. */
static void check_second_start(struct machine *machine, unsigned fds)
{
	start_quietly(machine);
	assert_int_equal(get_status(machine), STATUS_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(fabric_count(machine->fabric.watches), 0);
	assert_int_equal(open_fds(), fds);
	machine->vhost.fail_error_fd = 0;
	machine->fabric.no_watches = false;
	start_device(machine, MACHINE_FEATURES);
	assert_int_equal(get_status(machine), STATUS_RUNNING);
	/* Errors arrive: the eventfd is watched and the back half has it. */
	assert_int_equal(eventfd_write(machine->vhost.error_fd, 1), 0);
	fabric_run(&machine->fabric);
	assert_int_equal(get_status(machine), STATUS_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void a_back_half_that_takes_no_error_eventfd_is_asked_again(void **state)
{
	struct machine *machine = *state;

	machine->vhost.fail_error_fd = -EPIPE;
	check_second_start(machine, open_fds());
}

static void a_loop_that_cannot_watch_is_asked_again(void **state)
{
	struct machine *machine = *state;

	machine->fabric.no_watches = true;
	check_second_start(machine, open_fds());
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_machine, free_machine)
	const struct CMUnitTest tests[] = {
		TEST(queues_that_cannot_start_write_few_lines),
		TEST(more_queues_than_there_is_room_for_are_refused),
		TEST(a_back_half_that_takes_no_error_eventfd_is_asked_again),
		TEST(a_loop_that_cannot_watch_is_asked_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
