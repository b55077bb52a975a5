// SPDX-License-Identifier: BSD-3-Clause
/*
 * How a virtio function's queues are joined with the guest: MSI-X with every
 * kind of mask, pending bits, bad vectors and widths; INTx; doorbells that
 * follow the BAR. The fake fabric ends the program when something is attached
 * twice or detached without having been attached.
 */
#include "unit/unit.h"

#include "unit/virtio_machine.h"

#include "unit/capture.h"
#include "virtio/msix.h"

enum { CONFIG_VECTOR = VHOST_QUEUES, VECTORS = VHOST_QUEUES + 1, GSI = FABRIC_FIRST_GSI };

static int make_machine(void **state)
{
	static struct machine machine;

	*state = &machine;
	return machine_up(&machine, 0);
}

static int free_machine(void **state)
{
	machine_down(*state);
	return 0;
}

static void set_queue_vector(const struct machine *machine, unsigned queue, unsigned vector)
{
	select_queue(machine, queue);
	bar_write(machine, VIRTIO_PCI_COMMON_Q_MSIX, 2, vector);
}

static uint64_t get_queue_vector(const struct machine *machine, unsigned queue)
{
	select_queue(machine, queue);
	return bar_read(machine, VIRTIO_PCI_COMMON_Q_MSIX, 2);
}

/* A driver with a vector for each queue and one for the configuration, all unmasked. */
static void start_with_msix(const struct machine *machine)
{
	enable_msix(machine, false);
	for (unsigned vector = 0; vector < VECTORS; vector++)
		set_vector(machine, vector, false);
	negotiate(machine, MACHINE_FEATURES | FEATURE(VIRTIO_F_RING_RESET));
	for (unsigned queue = 0; queue < VHOST_QUEUES; queue++) {
		set_queue_vector(machine, queue, queue);
		set_up_queue(machine, queue);
	}
	bar_write(machine, VIRTIO_PCI_COMMON_MSIX, 2, CONFIG_VECTOR);
	put_status(machine, STATUS_RUNNING);
}

/* The device asks for an interrupt of a queue; how many messages came of it. */
static unsigned call(struct machine *machine, unsigned queue)
{
	unsigned before = 0, after = 0;

	for (unsigned i = 0; i < FABRIC_GSIS; i++)
		before += machine->fabric.sent[i];
	assert_int_equal(eventfd_write(machine->vhost.rings[queue].call_fd, 1), 0);
	fabric_run(&machine->fabric);
	for (unsigned i = 0; i < FABRIC_GSIS; i++)
		after += machine->fabric.sent[i];
	return after - before;
}

static void each_queue_sends_its_message(void **state)
{
	struct machine *machine = *state;

	start_with_msix(machine);
	for (unsigned queue = 0; queue < VHOST_QUEUES; queue++) {
		assert_int_equal(call(machine, queue), 1);
		assert_int_equal(machine->fabric.sent[GSI + queue], 1);
		assert_int_equal(machine->fabric.committed[GSI + queue].address,
			0xfee00000 + queue * 0x1000);
		assert_int_equal(machine->fabric.committed[GSI + queue].data, 0x40 + queue);
	}
	assert_int_equal(fabric_count(machine->fabric.interrupts), VECTORS);
	assert_int_equal(machine->intx_changes, 0);
	/* A queue that breaks is a configuration change. */
	assert_int_equal(eventfd_write(machine->vhost.error_fd, 1), 0);
	fabric_run(&machine->fabric);
	fabric_run(&machine->fabric);
	assert_int_equal(machine->fabric.sent[GSI + CONFIG_VECTOR], 1);
}

static void queues_may_share_a_vector(void **state)
{
	struct machine *machine = *state;

	start_with_msix(machine);
	for (unsigned queue = 0; queue < VHOST_QUEUES; queue++)
		set_queue_vector(machine, queue, 1);
	for (unsigned queue = 0; queue < VHOST_QUEUES; queue++)
		assert_int_equal(call(machine, queue), 1);
	assert_int_equal(machine->fabric.sent[GSI + 1], VHOST_QUEUES);
}

static void no_vector_sends_nothing(void **state)
{
	struct machine *machine = *state;

	start_with_msix(machine);
	set_queue_vector(machine, 0, MSIX_NO_VECTOR);
	assert_int_equal(call(machine, 0), 0);
	assert_int_equal(machine->intx_changes, 0);
	assert_int_equal(bar_read(machine, BAR_PENDING, 8), 0);
	set_queue_vector(machine, 0, 2); /* what waits comes now */
	fabric_run(&machine->fabric);
	assert_int_equal(machine->fabric.sent[GSI + 2], 1);
}

static void vectors_out_of_range_are_refused(void **state)
{
	struct machine *machine = *state;

	start_with_msix(machine);
	for (unsigned vector = 0; vector <= UINT16_MAX; vector++) {
		uint64_t expected = vector < VECTORS ? vector : MSIX_NO_VECTOR;

		set_queue_vector(machine, 1, vector);
		assert_int_equal(get_queue_vector(machine, 1), expected);
	}
	bar_write(machine, VIRTIO_PCI_COMMON_MSIX, 2, 0xfffe);
	assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_MSIX, 2), MSIX_NO_VECTOR);
	assert_int_equal(call(machine, 1), 0);
	/* Of a queue that there is not. */
	set_queue_vector(machine, VHOST_QUEUES, 0);
	set_queue_vector(machine, 0xffff, 0);
	assert_int_equal(get_queue_vector(machine, 0), 0);
}

static void a_masked_vector_waits(void **state)
{
	struct machine *machine = *state;

	start_with_msix(machine);
	bar_write(machine, BAR_TABLE + 16 + 12, 4, 1);
	assert_int_equal(call(machine, 1), 0);
	assert_int_equal(bar_read(machine, BAR_PENDING, 8), 2);
	assert_int_equal(bar_read(machine, BAR_PENDING, 4), 2);
	assert_int_equal(bar_read(machine, BAR_PENDING + 4, 4), 0);
	assert_int_equal(call(machine, 0), 1); /* another one does not */
	bar_write(machine, BAR_TABLE + 16 + 12, 4, 0);
	assert_int_equal(bar_read(machine, BAR_PENDING, 8), 0);
	fabric_run(&machine->fabric);
	assert_int_equal(machine->fabric.sent[GSI + 1], 1); /* once, as often as it was asked */
}

static void the_function_mask_holds_all(void **state)
{
	struct machine *machine = *state;

	start_with_msix(machine);
	enable_msix(machine, true);
	assert_int_equal(fabric_count(machine->fabric.interrupts), 0);
	for (unsigned queue = 0; queue < VHOST_QUEUES; queue++)
		assert_int_equal(call(machine, queue), 0);
	assert_int_equal(bar_read(machine, BAR_PENDING, 8), 7);
	enable_msix(machine, false);
	fabric_run(&machine->fabric);
	for (unsigned queue = 0; queue < VHOST_QUEUES; queue++)
		assert_int_equal(machine->fabric.sent[GSI + queue], 1);
}

/* Linux masks, changes address and data by single words, and unmasks: one commit. */
static void a_message_changes_while_it_is_masked(void **state)
{
	struct machine *machine = *state;
	const unsigned entry = BAR_TABLE + 2 * 16;

	start_with_msix(machine);
	unsigned commits = machine->fabric.commits;

	bar_write(machine, entry + 12, 4, 1);
	bar_write(machine, entry, 4, 0xfee01000);
	bar_write(machine, entry + 4, 4, 0x12);
	bar_write(machine, entry + 8, 4, 0x99);
	assert_int_equal(machine->fabric.commits, commits);
	bar_write(machine, entry + 12, 4, 0);
	assert_int_equal(machine->fabric.commits, commits + 1);
	assert_int_equal(machine->fabric.committed[GSI + 2].address, UINT64_C(0x12fee01000));
	assert_int_equal(machine->fabric.committed[GSI + 2].data, 0x99);
	assert_int_equal(call(machine, 2), 1);
	/* Masking alone changes no message. */
	bar_write(machine, entry + 12, 4, 1);
	bar_write(machine, entry + 12, 4, 0);
	assert_int_equal(machine->fabric.commits, commits + 1);
}

/* KVM takes any address for a LAPIC's. What has happened meanwhile is told when the address is one.
 */
static void a_message_to_memory_interrupts_nobody(void **state)
{
	struct machine *machine = *state;
	const unsigned entry = BAR_TABLE + 2 * 16;

	start_with_msix(machine);
	bar_write(machine, entry, 4, 0x1000);
	assert_int_equal(call(machine, 2), 0);
	assert_int_equal(call(machine, 1), 1);
	bar_write(machine, entry, 4, 0xfed00000);
	assert_int_equal(call(machine, 2), 0);
	bar_write(machine, entry, 4, 0xfee02000);
	assert_int_equal(call(machine, 2), 1);
}

static void messages_written_before_the_start_count(void **state)
{
	struct machine *machine = *state;

	for (unsigned vector = 0; vector < VECTORS; vector++)
		set_vector(machine, vector, false);
	assert_int_equal(machine->fabric.commits, 0);
	negotiate(machine, MACHINE_FEATURES);
	set_queue_vector(machine, 0, 3);
	set_up_queue(machine, 0);
	put_status(machine, STATUS_RUNNING);
	assert_int_equal(machine->fabric.commits, 0); /* not enabled yet */
	enable_msix(machine, false);
	assert_int_equal(machine->fabric.commits, 1);
	assert_int_equal(call(machine, 0), 1);
	assert_int_equal(machine->fabric.sent[GSI + 3], 1);
}

static void the_table_has_bounds_and_widths(void **state)
{
	struct machine *machine = *state;

	for (unsigned vector = 0; vector < VECTORS; vector++) {
		assert_int_equal(
			bar_read(machine, BAR_TABLE + vector * 16 + 12, 4), 1); /* masked */
		set_vector(machine, vector, true);
	}
	for (unsigned size = 1; size <= 8; size *= 2)
		for (unsigned offset = 0; offset + size <= 0x1000; offset++) {
			bool good = size >= 4 && offset % size == 0 && offset < VECTORS * 16;
			uint64_t before = bar_read(machine, BAR_TABLE + offset, size);

			if (good) {
				assert_int_not_equal(before, UINT64_MAX >> (64 - size * 8));
				continue;
			}
			assert_int_equal(before, UINT64_MAX >> (64 - size * 8));
			bar_write(machine, BAR_TABLE + offset, size, 0);
			bar_write(machine, BAR_TABLE + offset, size, UINT64_MAX);
		}
	for (unsigned vector = 0; vector < VECTORS; vector++) {
		assert_int_equal(bar_read(machine, BAR_TABLE + vector * 16, 8),
			0xfee00000 + vector * 0x1000);
		assert_int_equal(bar_read(machine, BAR_TABLE + vector * 16 + 8, 8),
			UINT64_C(1) << 32 | (0x40 + vector));
	}
}

static void the_pending_bits_are_read_only(void **state)
{
	struct machine *machine = *state;

	for (unsigned size = 1; size <= 8; size *= 2)
		for (unsigned offset = 0; offset + size <= 0x1000; offset++) {
			bool good = size >= 4 && offset % size == 0 && offset < 8;

			bar_write(machine, BAR_PENDING + offset, size, UINT64_MAX);
			assert_int_equal(bar_read(machine, BAR_PENDING + offset, size),
				good ? 0 : UINT64_MAX >> (64 - size * 8));
		}
}

static void reserved_bits_of_control_read_as_0(void **state)
{
	struct machine *machine = *state;

	bar_write(machine, BAR_TABLE + 12, 4, UINT32_MAX);
	assert_int_equal(bar_read(machine, BAR_TABLE + 12, 4), 1);
	bar_write(machine, BAR_TABLE + 8, 8, UINT64_MAX - 1);
	assert_int_equal(bar_read(machine, BAR_TABLE + 8, 8), 0x1fffffffe);
}

static void masks_may_storm(void **state)
{
	struct machine *machine = *state;
	unsigned sent = 0;

	start_with_msix(machine);
	for (unsigned i = 0; i < 5000; i++) {
		enable_msix(machine, i % 3 == 0);
		set_vector(machine, i % VECTORS, i % 2);
		bar_write(machine, BAR_TABLE + i % VECTORS * 16, 8,
			i % 5 == 0 ? UINT64_MAX : 0xfee00000 + i % 7 * UINT64_C(0x1000));
		set_queue_vector(machine, i % VHOST_QUEUES, i % 11);
		config_write(machine, msix_control(machine), 2, i % 13 ? 0x8000 : 0);
		sent += call(machine, i % VHOST_QUEUES);
	}
	assert_true(sent > 0);
	put_status(machine, 0);
	assert_int_equal(fabric_count(machine->fabric.interrupts), 0);
}

static void a_reset_detaches_everything(void **state)
{
	struct machine *machine = *state;

	start_with_msix(machine);
	assert_int_equal(fabric_count(machine->fabric.doorbells), VHOST_QUEUES);
	put_status(machine, 0);
	assert_int_equal(fabric_count(machine->fabric.interrupts), 0);
	assert_int_equal(fabric_count(machine->fabric.doorbells), 0);
}

static bool kicked(const struct machine *machine, unsigned queue)
{
	eventfd_t count;

	return eventfd_read(machine->vhost.rings[queue].kick_fd, &count) == 0;
}

/* What was signalled to a device that is reset is not for the next driver. */
static void signals_do_not_outlive_a_reset(void **state)
{
	struct machine *machine = *state;

	start_with_msix(machine);
	enable_msix(machine, true);
	assert_int_equal(call(machine, 0), 0);
	assert_int_equal(eventfd_write(machine->vhost.error_fd, 1), 0);
	fabric_run(&machine->fabric); /* and a configuration change waits as well */
	assert_int_equal(eventfd_write(machine->vhost.rings[0].kick_fd, 1), 0);
	start_with_msix(machine);
	fabric_run(&machine->fabric);
	for (unsigned i = 0; i < FABRIC_GSIS; i++)
		assert_int_equal(machine->fabric.sent[i], 0);
	assert_false(kicked(machine, 0));
}

/* ---- INTx ---- */

static void without_msix_a_line_is_pulled(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES);
	assert_int_equal(call(machine, 1), 0);
	assert_true(machine->intx);
	assert_int_equal(call(machine, 2), 0); /* still */
	assert_int_equal(machine->intx_changes, 1);
	assert_int_equal(bar_read(machine, BAR_ISR, 1), 1);
	assert_false(machine->intx); /* reading lets go */
	assert_int_equal(bar_read(machine, BAR_ISR, 1), 0);
	assert_int_equal(eventfd_write(machine->vhost.error_fd, 1), 0);
	fabric_run(&machine->fabric);
	fabric_run(&machine->fabric);
	assert_true(machine->intx);
	assert_int_equal(bar_read(machine, BAR_ISR, 4), 2); /* configuration; at any width */
	assert_false(machine->intx);
}

static void msix_takes_over_from_the_line(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES);
	(void)call(machine, 0);
	assert_true(machine->intx);
	enable_msix(machine, false);
	assert_false(machine->intx);
	set_vector(machine, 0, false);
	set_queue_vector(machine, 0, 0);
	assert_int_equal(call(machine, 0), 1);
	assert_int_equal(machine->intx_changes, 2);
	config_write(machine, msix_control(machine), 2, 0);
	assert_int_equal(call(machine, 0), 0);
	assert_true(machine->intx);
}

static void a_reset_lets_go_of_the_line(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES);
	(void)call(machine, 0);
	assert_true(machine->intx);
	put_status(machine, 0);
	assert_false(machine->intx);
	assert_int_equal(fabric_count(machine->fabric.watches), 1); /* the error eventfd stays */
	assert_int_equal(bar_read(machine, BAR_ISR, 1), 0);
}

/* uio_pci_generic needs both bits to share a line. */
static void a_driver_can_disable_the_line(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES);
	(void)call(machine, 0);
	assert_int_equal(
		config_read(machine, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
	config_write(machine, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE);
	assert_false(machine->intx);
	/* The wish is still there. */
	assert_int_equal(
		config_read(machine, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
	config_write(machine, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_true(machine->intx);
	assert_int_equal(bar_read(machine, BAR_ISR, 1), 1);
	assert_int_equal(config_read(machine, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
}

static bool is_shown_pending(const struct machine *machine)
{
	return (config_read(machine, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT) != 0;
}

/* virtio 1.2, 4.1.4.5.1: the bit comes with MSI-X, too, but not the line, nor its status bit. */
static void a_configuration_change_sets_isr_with_msix(void **state)
{
	struct machine *machine = *state;

	start_with_msix(machine);
	assert_int_equal(eventfd_write(machine->vhost.error_fd, 1), 0);
	fabric_run(&machine->fabric);
	assert_int_equal(get_status(machine), STATUS_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_false(machine->intx);
	assert_false(is_shown_pending(machine));
	assert_int_equal(bar_read(machine, BAR_ISR, 1), 2);
	assert_int_equal(bar_read(machine, BAR_ISR, 1), 0);
	/* Queues set no bit. */
	(void)call(machine, 0);
	assert_int_equal(bar_read(machine, BAR_ISR, 1), 0);
}

static void msix_hides_what_is_pending_and_gives_it_back(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES);
	(void)call(machine, 0);
	assert_true(is_shown_pending(machine));
	enable_msix(machine, false);
	assert_false(machine->intx);
	assert_false(is_shown_pending(machine));
	config_write(machine, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE);
	config_write(machine, msix_control(machine), 2, 0);
	assert_false(machine->intx);
	assert_true(is_shown_pending(machine));
	config_write(machine, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_true(machine->intx);
	assert_int_equal(bar_read(machine, BAR_ISR, 1), 1);
	assert_false(machine->intx);
}

static void a_failed_start_pulls_the_line_once(void **state)
{
	struct machine *machine = *state;
	struct capture capture;

	machine->vhost.fail_start = -EINVAL;
	capture_begin(&capture);
	start_device(machine, MACHINE_FEATURES);
	capture_end(&capture);
	fabric_run(&machine->fabric);
	assert_true(machine->intx);
	assert_int_equal(bar_read(machine, BAR_ISR, 1), 2);
	fabric_run(&machine->fabric);
	assert_false(machine->intx);
	assert_int_equal(machine->intx_changes, 2);
}

/* ---- doorbells ---- */

static void doorbells_are_where_the_bar_is(void **state)
{
	struct machine *machine = *state;
	const uint64_t elsewhere = MACHINE_WINDOW + 8 * MIB;

	start_device(machine, MACHINE_FEATURES);
	for (unsigned queue = 0; queue < VHOST_QUEUES; queue++) {
		select_queue(machine, queue);
		uint64_t at = bar_read(machine, VIRTIO_PCI_COMMON_Q_NOFF, 2) * NOTIFY_STEP;

		assert_true(fabric_ring(&machine->fabric, bar_gpa(machine) + BAR_NOTIFY + at));
		for (unsigned i = 0; i < VHOST_QUEUES; i++)
			assert_int_equal(kicked(machine, i), i == queue);
	}
	config_write(machine, PCI_BASE_ADDRESS_0, 8, elsewhere);
	assert_true(fabric_ring(&machine->fabric, elsewhere + BAR_NOTIFY));
	assert_int_equal(fabric_count(machine->fabric.doorbells), VHOST_QUEUES);
	config_write(machine, PCI_COMMAND, 2, 0);
	assert_int_equal(fabric_count(machine->fabric.doorbells), 0);
	config_write(machine, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(fabric_count(machine->fabric.doorbells), VHOST_QUEUES);
}

static void kicks_work_without_doorbells(void **state)
{
	struct machine *machine = *state;

	machine->fabric.no_doorbells = true;
	start_device(machine, MACHINE_FEATURES);
	bar_write(machine, BAR_NOTIFY + 1 * NOTIFY_STEP, 2, 1);
	assert_false(kicked(machine, 0));
	assert_true(kicked(machine, 1));
	bar_write(machine, BAR_NOTIFY + VHOST_QUEUES * NOTIFY_STEP, 2, 3);
	bar_write(machine, BAR_NOTIFY + 0xffc, 4, 0xffff);
	for (unsigned queue = 0; queue < VHOST_QUEUES; queue++)
		assert_false(kicked(machine, queue));
}

static void nothing_is_attached_before_driver_ok(void **state)
{
	struct machine *machine = *state;

	enable_msix(machine, false);
	negotiate(machine, MACHINE_FEATURES);
	for (unsigned queue = 0; queue < VHOST_QUEUES; queue++) {
		set_vector(machine, queue, false);
		set_queue_vector(machine, queue, queue);
		set_up_queue(machine, queue);
		bar_write(machine, BAR_NOTIFY + queue * NOTIFY_STEP, 2, queue);
	}
	assert_int_equal(fabric_count(machine->fabric.interrupts), 0);
	assert_int_equal(fabric_count(machine->fabric.doorbells), 0);
	assert_int_equal(fabric_count(machine->fabric.watches), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_machine, free_machine)
	const struct CMUnitTest tests[] = {
		TEST(each_queue_sends_its_message),
		TEST(queues_may_share_a_vector),
		TEST(no_vector_sends_nothing),
		TEST(vectors_out_of_range_are_refused),
		TEST(a_masked_vector_waits),
		TEST(the_function_mask_holds_all),
		TEST(a_message_changes_while_it_is_masked),
		TEST(a_message_to_memory_interrupts_nobody),
		TEST(messages_written_before_the_start_count),
		TEST(the_table_has_bounds_and_widths),
		TEST(the_pending_bits_are_read_only),
		TEST(reserved_bits_of_control_read_as_0),
		TEST(masks_may_storm),
		TEST(a_reset_detaches_everything),
		TEST(signals_do_not_outlive_a_reset),
		TEST(without_msix_a_line_is_pulled),
		TEST(msix_takes_over_from_the_line),
		TEST(a_reset_lets_go_of_the_line),
		TEST(a_driver_can_disable_the_line),
		TEST(a_configuration_change_sets_isr_with_msix),
		TEST(msix_hides_what_is_pending_and_gives_it_back),
		TEST(a_failed_start_pulls_the_line_once),
		TEST(doorbells_are_where_the_bar_is),
		TEST(kicks_work_without_doorbells),
		TEST(nothing_is_attached_before_driver_ok),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
