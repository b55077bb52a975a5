// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-pci: what a driver finds, the registers at every offset and width,
 * the status machine, and how queues start, stop and fail. Interrupts and
 * doorbells are in test_msix.c.
 */
#include "unit/unit.h"

#include <fcntl.h>

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

/* ---- what a driver finds ---- */

struct region {
	uint8_t type;
	uint32_t offset;
	uint32_t length;
};

static void check_region(const struct machine *machine, unsigned at, const struct region *region)
{
	assert_int_equal(config_read(machine, at + VIRTIO_PCI_CAP_CFG_TYPE, 1), region->type);
	assert_int_equal(config_read(machine, at + VIRTIO_PCI_CAP_BAR, 1), 0);
	assert_int_equal(config_read(machine, at + VIRTIO_PCI_CAP_OFFSET, 4), region->offset);
	assert_int_equal(config_read(machine, at + VIRTIO_PCI_CAP_LENGTH, 4), region->length);
	bool more =
		region->type == VIRTIO_PCI_CAP_NOTIFY_CFG || region->type == VIRTIO_PCI_CAP_PCI_CFG;

	assert_int_equal(config_read(machine, at + VIRTIO_PCI_CAP_LEN, 1), more ? 20 : 16);
	assert_int_equal(at % 4, 0);
}

static void check_capabilities(
	const struct machine *machine, const struct region *regions, unsigned count)
{
	unsigned at = (unsigned)config_read(machine, PCI_CAPABILITY_LIST, 1);

	assert_int_equal(
		config_read(machine, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST, PCI_STATUS_CAP_LIST);
	assert_int_equal(config_read(machine, at, 1), PCI_CAP_ID_MSIX);
	assert_int_equal(config_read(machine, at + PCI_MSIX_FLAGS, 2), VHOST_QUEUES);
	assert_int_equal(config_read(machine, at + PCI_MSIX_TABLE, 4), BAR_TABLE);
	assert_int_equal(config_read(machine, at + PCI_MSIX_PBA, 4), BAR_PENDING);
	for (unsigned i = 0; i < count; i++) {
		at = (unsigned)config_read(machine, at + 1, 1);
		assert_int_equal(config_read(machine, at, 1), PCI_CAP_ID_VNDR);
		check_region(machine, at, &regions[i]);
	}
	assert_int_equal(config_read(machine, at + 1, 1), 0);
}

static void capabilities_name_the_regions(void **state)
{
	static const struct region regions[] = {
		{ VIRTIO_PCI_CAP_COMMON_CFG, 0, 60 },
		{ VIRTIO_PCI_CAP_ISR_CFG, BAR_ISR, 1 },
		{ VIRTIO_PCI_CAP_DEVICE_CFG, BAR_DEVICE, VHOST_CONFIG_SIZE },
		{ VIRTIO_PCI_CAP_NOTIFY_CFG, BAR_NOTIFY, VHOST_QUEUES * NOTIFY_STEP },
		{ VIRTIO_PCI_CAP_PCI_CFG, 0, 0 },
	};
	const struct machine *machine = *state;

	assert_int_equal(config_read(machine, PCI_VENDOR_ID, 4), 0x10421af4);
	assert_true(config_read(machine, PCI_REVISION_ID, 1) >= 1);
	assert_int_equal(config_read(machine, PCI_CLASS_DEVICE, 2), 0x0180);
	assert_int_equal(config_read(machine, PCI_INTERRUPT_PIN, 1), 1);
	check_capabilities(machine, regions, ARRAY_SIZE(regions));
}

static void no_config_has_no_capability(void **state)
{
	static const struct region regions[] = {
		{ VIRTIO_PCI_CAP_COMMON_CFG, 0, 60 },
		{ VIRTIO_PCI_CAP_ISR_CFG, BAR_ISR, 1 },
		{ VIRTIO_PCI_CAP_NOTIFY_CFG, BAR_NOTIFY, VHOST_QUEUES * NOTIFY_STEP },
		{ VIRTIO_PCI_CAP_PCI_CFG, 0, 0 },
	};
	struct machine machine;

	(void)state;
	assert_int_equal(machine_up(&machine, 0), 0);
	check_capabilities(&machine, regions, ARRAY_SIZE(regions));
	machine_down(&machine);
}

/* ---- registers ---- */

static const struct {
	uint16_t offset;
	uint16_t width;
} registers[] = {
	{ 0, 4 }, { 4, 4 }, { 8, 4 }, { 12, 4 },    /* features */
	{ 16, 2 }, { 18, 2 }, { 20, 1 }, { 21, 1 }, /* vector, queues, status, generation */
	{ 22, 2 }, { 24, 2 }, { 26, 2 }, { 28, 2 }, { 30, 2 }, /* queue select to notify offset */
	{ 32, 8 }, { 40, 8 }, { 48, 8 }, { 58, 2 },            /* rings, queue reset */
};

static bool is_register(unsigned offset, unsigned size)
{
	for (unsigned i = 0; i < ARRAY_SIZE(registers); i++) {
		if (offset == registers[i].offset && size == registers[i].width)
			return true;
		if (registers[i].width == 8 && size == 4 && offset - registers[i].offset < 8 &&
			offset % 4 == 0)
			return true;
	}
	return false;
}

/* Everything that a driver can read of the selected queue and the device. */
static void read_all(const struct machine *machine, uint64_t values[ARRAY_SIZE(registers)])
{
	for (unsigned i = 0; i < ARRAY_SIZE(registers); i++)
		values[i] = bar_read(machine, registers[i].offset, registers[i].width);
}

static void only_registers_of_that_width_answer(void **state)
{
	uint64_t before[ARRAY_SIZE(registers)], after[ARRAY_SIZE(registers)];
	const struct machine *machine = *state;

	select_queue(machine, 1);
	bar_write(machine, VIRTIO_PCI_COMMON_Q_DESCLO, 8, 0x0123456789abcdef);
	read_all(machine, before);
	for (unsigned size = 1; size <= 8; size *= 2)
		for (unsigned offset = 0; offset + size <= 0x1000; offset++) {
			if (is_register(offset, size))
				continue;
			uint64_t ones = UINT64_MAX >> (64 - size * 8);

			assert_int_equal(bar_read(machine, offset, size), ones);
			bar_write(machine, offset, size, 0);
			bar_write(machine, offset, size, UINT64_MAX);
		}
	read_all(machine, after);
	assert_memory_equal(after, before, sizeof(before));
	assert_int_equal(bar_read(machine, 32, 4), 0x89abcdef);
	assert_int_equal(bar_read(machine, 36, 4), 0x01234567);
}

static void some_registers_are_read_only(void **state)
{
	static const unsigned read_only[][2] = { { 4, 4 }, { 18, 2 }, { 21, 1 }, { 30, 2 } };
	const struct machine *machine = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(read_only); i++) {
		uint64_t before = bar_read(machine, read_only[i][0], read_only[i][1]);

		bar_write(machine, read_only[i][0], read_only[i][1], ~before);
		assert_int_equal(bar_read(machine, read_only[i][0], read_only[i][1]), before);
	}
	assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_NUMQ, 2), VHOST_QUEUES);
}

/* Accesses everywhere in the BAR, over the edges of its regions and at its end, do no harm. */
static void the_whole_bar_can_be_accessed(void **state)
{
	const struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES);
	for (unsigned size = 1; size <= 8; size *= 2)
		for (unsigned offset = 0x1000; offset + size <= BAR_BYTES; offset++) {
			(void)bar_read(machine, offset, size);
			bar_write(machine, offset, size, UINT64_MAX);
			bar_write(machine, offset, size, offset);
		}
	assert_int_equal(bar_read(machine, BAR_ISR - 4, 8), UINT64_MAX);
	assert_int_equal(bar_read(machine, BAR_ISR - 1, 2), UINT16_MAX);
	assert_int_equal(bar_read(machine, BAR_DEVICE - 2, 4), UINT32_MAX); /* from the ISR's */
	assert_int_equal(bar_read(machine, 0x6000, 4), UINT32_MAX);
	assert_int_equal(get_status(machine), STATUS_RUNNING);
}

static void queues_out_of_range_read_as_nothing(void **state)
{
	const struct machine *machine = *state;
	const unsigned queues[] = { VHOST_QUEUES, 16, 17, 0x7fff, 0x8000, 0xffff };

	for (unsigned i = 0; i < ARRAY_SIZE(queues); i++) {
		select_queue(machine, queues[i]);
		assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_SELECT, 2), queues[i]);
		for (unsigned offset = 24; offset < 60; offset += 2)
			bar_write(machine, offset, 2, 1);
		bar_write(machine, VIRTIO_PCI_COMMON_Q_DESCLO, 8, 0x1000);
		assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
		assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
		assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
		assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0);
		assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_AVAILLO, 8), 0);
		assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_USEDLO, 8), 0);
		assert_int_equal(bar_read(machine, QUEUE_RESET_REGISTER, 2), 0);
	}
}

static void queue_sizes_are_powers_of_two_up_to_the_limit(void **state)
{
	const struct machine *machine = *state;
	uint64_t size = QUEUE_SIZE;

	select_queue(machine, 2);
	for (unsigned wish = 0; wish <= UINT16_MAX; wish++) {
		bar_write(machine, VIRTIO_PCI_COMMON_Q_SIZE, 2, wish);
		if (wish != 0 && wish <= QUEUE_SIZE && (wish & (wish - 1)) == 0)
			size = wish;
		assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_SIZE, 2), size);
	}
}

static void device_config_has_bounds(void **state)
{
	struct machine *machine = *state;

	for (unsigned size = 1; size <= 8; size *= 2)
		for (unsigned offset = 0; offset < 0x1000 - size; offset++) {
			uint64_t value = bar_read(machine, BAR_DEVICE + offset, size);

			if (offset + size <= VHOST_CONFIG_SIZE)
				assert_memory_equal(&value, machine->vhost.config + offset, size);
			else
				assert_int_equal(value, UINT64_MAX >> (64 - size * 8));
		}
	bar_write(machine, BAR_DEVICE + 8, 2, 0x1234);
	assert_int_equal(bar_read(machine, BAR_DEVICE + 8, 2), 0x1234);
	bar_write(machine, BAR_DEVICE + 9, 2, 0x5678); /* half outside: nothing */
	assert_int_equal(bar_read(machine, BAR_DEVICE + 8, 2), 0x1234);
}

/* ---- features and status ---- */

static void features_are_offered_in_halves(void **state)
{
	const struct machine *machine = *state;

	assert_int_equal(get_offered(machine), MACHINE_FEATURES | FEATURE(VIRTIO_F_RING_RESET));
	for (unsigned select = 2; select != 0; select *= 2) {
		bar_write(machine, VIRTIO_PCI_COMMON_DFSELECT, 4, select);
		assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_DF, 4), 0);
		bar_write(machine, VIRTIO_PCI_COMMON_GFSELECT, 4, select);
		bar_write(machine, VIRTIO_PCI_COMMON_GF, 4, UINT32_MAX);
		assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_GF, 4), 0);
	}
}

static void bad_features_are_refused(void **state)
{
	const struct machine *machine = *state;
	const uint64_t offered = get_offered(machine);

	for (unsigned bit = 0; bit < 64; bit++) {
		uint64_t features = FEATURE(VIRTIO_F_VERSION_1) | FEATURE(bit);
		bool good = (features & ~offered) == 0;

		negotiate(machine, features);
		assert_int_equal(get_status(machine), good ? STATUS_FEATURES : STATUS_READY);
	}
	negotiate(machine, offered & ~FEATURE(VIRTIO_F_VERSION_1));
	assert_int_equal(get_status(machine), STATUS_READY);
	negotiate(machine, 0);
	assert_int_equal(get_status(machine), STATUS_READY);
	/* And can be corrected without a reset. */
	accept(machine, offered);
	put_status(machine, STATUS_FEATURES);
	assert_int_equal(get_status(machine), STATUS_FEATURES);
}

static void features_are_fixed_by_features_ok(void **state)
{
	struct machine *machine = *state;

	negotiate(machine, FEATURE(VIRTIO_F_VERSION_1));
	accept(machine, UINT64_MAX);
	put_status(machine, STATUS_RUNNING);
	assert_int_equal(get_status(machine), STATUS_RUNNING);
	assert_int_equal(machine->vhost.features, FEATURE(VIRTIO_F_VERSION_1));
	put_status(machine, 0);
	bar_write(machine, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_GF, 4), 0);
}

/* What the specification lets a driver do from `before`; features are good. */
static uint8_t expected_status(uint8_t before, uint8_t wish)
{
	uint8_t now = before;

	if (wish == 0)
		return 0;
	if ((before & ~wish) != 0)
		return before;
	now |= wish & (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_FAILED);
	if ((now & VIRTIO_CONFIG_S_ACKNOWLEDGE) != 0)
		now |= wish & VIRTIO_CONFIG_S_DRIVER;
	if ((now & VIRTIO_CONFIG_S_DRIVER) != 0)
		now |= wish & VIRTIO_CONFIG_S_FEATURES_OK;
	if ((now & VIRTIO_CONFIG_S_FEATURES_OK) != 0)
		now |= wish & VIRTIO_CONFIG_S_DRIVER_OK;
	return now;
}

static void any_status_in_any_state(void **state)
{
	struct machine *machine = *state;

	for (unsigned first = 1; first < 256; first++) /* 0 would forget the features */
		for (unsigned second = 0; second < 256; second++) {
			uint8_t before = expected_status(0, (uint8_t)first);

			put_status(machine, 0);
			accept(machine, FEATURE(VIRTIO_F_VERSION_1));
			put_status(machine, (uint8_t)first);
			assert_int_equal(get_status(machine), before);
			put_status(machine, (uint8_t)second);
			assert_int_equal(
				get_status(machine), expected_status(before, (uint8_t)second));
		}
}

/* ---- queues ---- */

static void a_driver_starts_its_queues(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES | FEATURE(VIRTIO_F_RING_RESET));
	assert_int_equal(get_status(machine), STATUS_RUNNING);
	/* The back half knows nothing of what is the transport's. */
	assert_int_equal(machine->vhost.features, MACHINE_FEATURES);
	for (unsigned queue = 0; queue < VHOST_QUEUES; queue++) {
		const struct vhost_ring *ring = &machine->vhost.rings[queue];

		assert_true(machine->vhost.running[queue]);
		assert_int_equal(ring->size, 16);
		assert_int_equal(ring->base, 0);
		assert_int_equal(ring->desc, 0x10000 * (queue + 1));
		assert_int_equal(ring->avail, 0x100001000 + 0x10000 * queue + 0x10000);
		assert_int_equal(ring->used, 0x10000 * (queue + 1) + 0x2000);
	}
	put_status(machine, STATUS_RUNNING); /* once more: nothing */
	assert_int_equal(machine->vhost.starts, VHOST_QUEUES);
}

static void no_queue_is_enabled_before_features_ok(void **state)
{
	struct machine *machine = *state;

	put_status(machine, STATUS_READY);
	set_up_queue(machine, 0);
	assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	accept(machine, MACHINE_FEATURES);
	put_status(machine, STATUS_RUNNING);
	assert_int_equal(get_status(machine), STATUS_RUNNING);
	assert_int_equal(machine->vhost.starts, 0);
}

static void queues_may_be_left_out(void **state)
{
	struct machine *machine = *state;

	negotiate(machine, MACHINE_FEATURES);
	set_up_queue(machine, 1);
	put_status(machine, STATUS_RUNNING);
	assert_int_equal(get_status(machine), STATUS_RUNNING);
	assert_int_equal(fake_running(&machine->vhost), 1);
	assert_true(machine->vhost.running[1]);
	/* A kick for one that is not there reaches nobody. */
	for (unsigned offset = 0; offset < 0x1000; offset += 2)
		bar_write(machine, BAR_NOTIFY + offset, 2, 0);
}

/* Neither size nor rings nor enable move once a queue is enabled, and after DRIVER_OK none. */
static void an_enabled_queue_is_frozen(void **state)
{
	uint64_t before[ARRAY_SIZE(registers)], after[ARRAY_SIZE(registers)];
	struct machine *machine = *state;

	negotiate(machine, MACHINE_FEATURES);
	set_up_queue(machine, 0);
	for (unsigned round = 0; round < 2; round++) {
		select_queue(machine, 0);
		read_all(machine, before);
		bar_write(machine, VIRTIO_PCI_COMMON_Q_SIZE, 2, 32);
		bar_write(machine, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
		bar_write(machine, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
		bar_write(machine, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0xffff);
		for (unsigned offset = 32; offset < 56; offset += 4)
			bar_write(machine, offset, 4, 0xdead0000);
		bar_write(machine, QUEUE_RESET_REGISTER, 2, 1); /* not negotiated */
		read_all(machine, after);
		assert_memory_equal(after, before, sizeof(before));
		put_status(machine, STATUS_RUNNING);
	}
	/* One that was not enabled in time stays out. */
	set_up_queue(machine, 1);
	assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	assert_int_equal(machine->vhost.starts, 1);
	assert_int_equal(machine->vhost.rings[0].size, 16);
}

static void a_queue_can_be_reset_alone(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES | FEATURE(VIRTIO_F_RING_RESET));
	select_queue(machine, 1);
	bar_write(machine, QUEUE_RESET_REGISTER, 2, 0);
	assert_int_equal(machine->vhost.stops, 0);
	bar_write(machine, QUEUE_RESET_REGISTER, 2, 1);
	assert_int_equal(bar_read(machine, QUEUE_RESET_REGISTER, 2), 0);
	assert_int_equal(machine->vhost.stops, 1);
	assert_false(machine->vhost.running[1]);
	assert_true(machine->vhost.running[0]);
	assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_SIZE, 2), QUEUE_SIZE);
	assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0);
	bar_write(machine, QUEUE_RESET_REGISTER, 2, 1); /* of a stopped one: nothing */
	assert_int_equal(machine->vhost.stops, 1);
	set_up_queue(machine, 1);
	assert_true(machine->vhost.running[1]);
	assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	assert_int_equal(get_status(machine), STATUS_RUNNING);
}

static void queue_reset_needs_a_running_device(void **state)
{
	struct machine *machine = *state;

	negotiate(machine, MACHINE_FEATURES | FEATURE(VIRTIO_F_RING_RESET));
	set_up_queue(machine, 0);
	bar_write(machine, QUEUE_RESET_REGISTER, 2, 1);
	assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	assert_int_equal(machine->vhost.stops, 0);
}

static void a_reset_stops_and_forgets_everything(void **state)
{
	uint64_t fresh[ARRAY_SIZE(registers)], after[ARRAY_SIZE(registers)];
	struct machine *machine = *state;

	read_all(machine, fresh);
	for (unsigned round = 0; round < 3; round++) {
		start_device(machine, MACHINE_FEATURES);
		bar_write(machine, VIRTIO_PCI_COMMON_MSIX, 2, 0);
		bar_write(machine, VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
		unsigned resets = machine->vhost.resets;

		put_status(machine, 0);
		assert_int_equal(fake_running(&machine->vhost), 0);
		assert_int_equal(machine->vhost.resets, resets + 1);
		read_all(machine, after);
		assert_memory_equal(after, fresh, sizeof(fresh));
		for (unsigned queue = 1; queue < VHOST_QUEUES; queue++) {
			select_queue(machine, queue);
			assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
			assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
		}
		put_status(machine, 0);
	}
}

static void a_queue_that_cannot_start_needs_a_reset(void **state)
{
	struct machine *machine = *state;
	struct capture capture;

	machine->vhost.fail_start = -EINVAL;
	capture_begin(&capture);
	start_device(machine, MACHINE_FEATURES);
	capture_end(&capture);
	assert_int_equal(get_status(machine), STATUS_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(capture_lines(&capture), 1);
	/* It stays, whatever is written. */
	put_status(machine, STATUS_RUNNING);
	assert_int_equal(get_status(machine), STATUS_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
	machine->vhost.fail_start = 0;
	start_device(machine, MACHINE_FEATURES);
	assert_int_equal(get_status(machine), STATUS_RUNNING);
	assert_int_equal(fake_running(&machine->vhost), VHOST_QUEUES);
}

static void a_restarted_queue_that_fails_needs_a_reset(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES | FEATURE(VIRTIO_F_RING_RESET));
	select_queue(machine, 2);
	bar_write(machine, QUEUE_RESET_REGISTER, 2, 1);
	machine->vhost.fail_start = -EINVAL;
	set_up_queue(machine, 2);
	assert_int_equal(get_status(machine), STATUS_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(fake_running(&machine->vhost), VHOST_QUEUES - 1);
	/* Its reset does not stop what does not run. */
	bar_write(machine, QUEUE_RESET_REGISTER, 2, 1);
	put_status(machine, 0);
	assert_int_equal(fake_running(&machine->vhost), 0);
}

static void a_broken_queue_needs_a_reset(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES);
	assert_int_equal(eventfd_write(machine->vhost.error_fd, 1), 0);
	fabric_run(&machine->fabric);
	assert_int_equal(get_status(machine), STATUS_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
	start_device(machine, MACHINE_FEATURES);
	fabric_run(&machine->fabric);
	assert_int_equal(get_status(machine), STATUS_RUNNING);
	/* One that comes as the driver resets is the old one's. */
	assert_int_equal(eventfd_write(machine->vhost.error_fd, 1), 0);
	start_device(machine, MACHINE_FEATURES);
	fabric_run(&machine->fabric);
	assert_int_equal(get_status(machine), STATUS_RUNNING);
}

static void a_back_half_that_is_gone_needs_a_reset(void **state)
{
	struct machine *machine = *state;
	int event_fd = eventfd(1, EFD_CLOEXEC);

	machine->vhost.event_fd = event_fd;
	start_device(machine, MACHINE_FEATURES);
	fabric_run(&machine->fabric);
	assert_int_equal(get_status(machine), STATUS_RUNNING); /* a false alarm */
	machine->vhost.gone = true;
	fabric_run(&machine->fabric);
	assert_int_equal(get_status(machine), STATUS_RUNNING | VIRTIO_CONFIG_S_NEEDS_RESET);
	/* Nobody looks at the descriptor any more, which stays readable. */
	assert_null(fabric_find(machine->fabric.watches, event_fd));
	put_status(machine, 0);
	fabric_run(&machine->fabric);
	assert_int_equal(get_status(machine), 0);
	close(event_fd);
}

/* A process that has the eventfds too may do this. */
static void eventfds_that_were_made_blocking_block_nobody(void **state)
{
	struct machine *machine = *state;

	start_device(machine, MACHINE_FEATURES);
	for (unsigned i = 0; i < VHOST_QUEUES; i++) {
		assert_int_equal(fcntl(machine->vhost.rings[i].kick_fd, F_SETFL, O_RDWR), 0);
		assert_int_equal(fcntl(machine->vhost.rings[i].call_fd, F_SETFL, O_RDWR), 0);
	}
	assert_int_equal(fcntl(machine->vhost.error_fd, F_SETFL, O_RDWR), 0);
	start_device(machine, MACHINE_FEATURES); /* a hang is killed by the runner */
	assert_int_equal(get_status(machine), STATUS_RUNNING);
}

/* ---- the PCI configuration access capability ---- */

enum { CFG_BAR = 4, CFG_OFFSET = 8, CFG_LENGTH = 12, CFG_DATA = 16 };

static unsigned pci_cfg(const struct machine *machine)
{
	unsigned at = (unsigned)config_read(machine, PCI_CAPABILITY_LIST, 1);

	while (config_read(machine, at + 1, 1) != 0)
		at = (unsigned)config_read(machine, at + 1, 1);
	return at; /* the last one */
}

static void aim(const struct machine *machine, uint8_t bar, uint32_t offset, uint32_t length)
{
	unsigned at = pci_cfg(machine);

	config_write(machine, at + CFG_BAR, 1, bar);
	config_write(machine, at + CFG_OFFSET, 4, offset);
	config_write(machine, at + CFG_LENGTH, 4, length);
}

static void registers_can_be_reached_through_config_space(void **state)
{
	const struct machine *machine = *state;
	unsigned data = pci_cfg(machine) + CFG_DATA;

	assert_false(machine->fabric.config_reads_trap);
	aim(machine, 0, VIRTIO_PCI_COMMON_STATUS, 1);
	assert_true(machine->fabric.config_reads_trap);
	config_write(machine, data, 1, STATUS_READY);
	assert_int_equal(get_status(machine), STATUS_READY);
	assert_int_equal(config_read(machine, data, 1), STATUS_READY);
	aim(machine, 0, VIRTIO_PCI_COMMON_NUMQ, 2);
	assert_int_equal(config_read(machine, data, 2), VHOST_QUEUES);
	aim(machine, 0, VIRTIO_PCI_COMMON_GFSELECT, 4);
	config_write(machine, data, 4, 0x12345678);
	assert_int_equal(config_read(machine, data, 4), 0x12345678);
	assert_int_equal(bar_read(machine, VIRTIO_PCI_COMMON_GFSELECT, 4), 0x12345678);
	/* Where the BAR answers nowhere, this way is still open. */
	config_write(machine, PCI_COMMAND, 2, 0);
	config_write(machine, data, 4, 1);
	assert_int_equal(config_read(machine, data, 4), 1);
}

static void lies_about_the_target_reach_nothing(void **state)
{
	static const uint32_t offsets[] = { 0, 1, 2, 20, 0xffe, 0xfff, 0x1000, 0x3ffe, 0x4000,
		0x5004, 0x7fff, 0x8000, 0xfffff000, 0xfffffffc, 0xffffffff };
	static const uint32_t lengths[] = { 0, 1, 2, 3, 4, 5, 8, 16, 0x80000000, 0xffffffff };
	struct machine *machine = *state;
	unsigned data = pci_cfg(machine) + CFG_DATA;
	uint8_t behind[256];
	const uint8_t *config = machine->config;

	memcpy(behind, config + data + 4, sizeof(behind));
	bar_write(machine, BAR_TABLE, 8, UINT64_MAX);
	aim(machine, 0, BAR_TABLE, 8);
	(void)config_read(machine, data, 4);
	assert_memory_equal(config + data + 4, behind, sizeof(behind));
	for (unsigned bar = 0; bar < 256; bar += 51)
		for (unsigned o = 0; o < ARRAY_SIZE(offsets); o++)
			for (unsigned l = 0; l < ARRAY_SIZE(lengths); l++) {
				aim(machine, (uint8_t)bar, offsets[o], lengths[l]);
				config_write(machine, data, 4, UINT32_MAX);
				(void)config_read(machine, data, 4);
				config_write(machine, data + 3, 1, 0);
				(void)config_read(machine, data - 4, 8);
			}
	assert_memory_equal(config + data + 4, behind, sizeof(behind));
	aim(machine, 0, VIRTIO_PCI_COMMON_STATUS, 1);
	config_write(machine, data, 1, 0);
	assert_int_equal(get_status(machine), 0);
	aim(machine, 1, VIRTIO_PCI_COMMON_STATUS, 1);
	config_write(machine, data, 1, STATUS_READY);
	aim(machine, 0, VIRTIO_PCI_COMMON_STATUS, 3);
	config_write(machine, data, 1, STATUS_READY);
	assert_int_equal(get_status(machine), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_machine, free_machine)
	const struct CMUnitTest tests[] = {
		TEST(capabilities_name_the_regions),
		cmocka_unit_test(no_config_has_no_capability),
		TEST(only_registers_of_that_width_answer),
		TEST(some_registers_are_read_only),
		TEST(the_whole_bar_can_be_accessed),
		TEST(queues_out_of_range_read_as_nothing),
		TEST(queue_sizes_are_powers_of_two_up_to_the_limit),
		TEST(device_config_has_bounds),
		TEST(features_are_offered_in_halves),
		TEST(bad_features_are_refused),
		TEST(features_are_fixed_by_features_ok),
		TEST(any_status_in_any_state),
		TEST(a_driver_starts_its_queues),
		TEST(no_queue_is_enabled_before_features_ok),
		TEST(queues_may_be_left_out),
		TEST(an_enabled_queue_is_frozen),
		TEST(a_queue_can_be_reset_alone),
		TEST(queue_reset_needs_a_running_device),
		TEST(a_reset_stops_and_forgets_everything),
		TEST(a_queue_that_cannot_start_needs_a_reset),
		TEST(a_restarted_queue_that_fails_needs_a_reset),
		TEST(a_broken_queue_needs_a_reset),
		TEST(a_back_half_that_is_gone_needs_a_reset),
		TEST(eventfds_that_were_made_blocking_block_nobody),
		TEST(registers_can_be_reached_through_config_space),
		TEST(lies_about_the_target_reach_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
