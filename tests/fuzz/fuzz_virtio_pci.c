// SPDX-License-Identifier: BSD-3-Clause
/*
 * A program of a hostile driver against a virtio PCI function: config space by
 * ECAM, the BAR wherever it is, the whole window, doorbells, and a back half
 * that signals, breaks or refuses. The fake fabric and the fake back half end
 * the program when their contracts are broken; here the rest is checked: what
 * runs and is attached fits the status, identity cannot be changed, reads of
 * bad places give ones.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "unit/virtio_machine.h"

enum op {
	OP_CONFIG_WRITE, /* offset, size, value */
	OP_CONFIG_READ,
	OP_COMMON_WRITE, /* a register, value */
	OP_COMMON_READ,
	OP_BAR_WRITE, /* region, offset, size, value */
	OP_BAR_READ,
	OP_WINDOW, /* 24 bits of where, size */
	OP_SIGNAL, /* whose eventfd */
	OP_RUN,
	OP_RING,   /* a doorbell */
	OP_REFUSE, /* whether rings start from now on */
	OP_START,  /* a driver's whole way; a feature more or less */
	OP_QUEUE,  /* a good queue, and a vector */
	OP_MSIX,   /* enabled, masked */
	OP_VECTOR, /* a good table entry */
	OPS,
};

struct input {
	const uint8_t *data;
	size_t size;
};

static void require(bool holds)
{
	if (!holds)
		abort();
}

static uint8_t take(struct input *input)
{
	if (input->size == 0)
		return 0;
	input->size--;
	return *input->data++;
}

static unsigned take_size(struct input *input)
{
	return 1u << take(input) % 4;
}

/* Small numbers, all ones, or any. */
static uint64_t take_value(struct input *input)
{
	uint8_t kind = take(input);
	uint64_t value = 0;

	if (kind < 128)
		return kind;
	if (kind < 144)
		return UINT64_MAX - kind % 16;
	if (kind < 176)
		return MACHINE_WINDOW + kind % 32 * UINT64_C(0x4000);
	for (unsigned i = 0; i < 8u >> kind % 4; i++)
		value = value << 8 | take(input);
	return value;
}

static void access_config(struct machine *machine, struct input *input, bool write)
{
	unsigned offset = take(input), size = take_size(input);

	if (offset + size > PCI_CONFIG_SIZE && offset % 2 == 0)
		offset += 0xe00; /* nothing is there either */
	if (write)
		config_write(machine, offset, size, take_value(input));
	else
		(void)config_read(machine, offset, size);
}

static void access_common(struct machine *machine, struct input *input, bool write)
{
	static const uint8_t registers[][2] = { { 0, 4 }, { 4, 4 }, { 8, 4 }, { 12, 4 }, { 16, 2 },
		{ 18, 2 }, { 20, 1 }, { 21, 1 }, { 22, 2 }, { 24, 2 }, { 26, 2 }, { 28, 2 },
		{ 30, 2 }, { 32, 8 }, { 36, 4 }, { 40, 8 }, { 48, 8 }, { 52, 4 }, { 58, 2 } };
	const uint8_t *reg = registers[take(input) % ARRAY_SIZE(registers)];

	if (write)
		bar_write(machine, reg[0], reg[1], take_value(input));
	else
		(void)bar_read(machine, reg[0], reg[1]);
}

static void access_bar(struct machine *machine, struct input *input, bool write)
{
	unsigned region = take(input) % 9, at = take(input), size = take_size(input);
	/* Mostly the first bytes of a region, then the last of the one before, then any. */
	unsigned offset = region * 0x1000 + at;

	if (region != 0 && at >= 240)
		offset -= 248;
	else if (at >= 200)
		offset += (at - 200u) * 64;

	if (write)
		bar_write(machine, offset, size, take_value(input));
	else
		(void)bar_read(machine, offset, size);
}

static void access_window(struct machine *machine, struct input *input)
{
	unsigned offset = take(input) << 16;

	offset |= (unsigned)take(input) << 8;
	offset |= take(input);
	unsigned size = take_size(input);
	uint64_t value = UINT64_MAX;

	if (offset > MACHINE_WINDOW_SIZE - size)
		return;
	pci_window_bus_ops.read(machine->host, offset, (uint8_t *)&value, size);
	pci_window_bus_ops.write(machine->host, offset, (const uint8_t *)&value, size);
}

static void signal_something(struct machine *machine, uint8_t which)
{
	const struct vhost_ring *ring = &machine->vhost.rings[which % VHOST_QUEUES];
	int fd = which < 128   ? ring->call_fd
		 : which < 192 ? machine->vhost.error_fd
			       : ring->kick_fd;

	/* A back half has them from the first start. */
	if (machine->vhost.error_fd >= 0 && ring->kick_fd > 0)
		(void)eventfd_write(fd, 1);
}

static void run(struct machine *machine, struct input *input)
{
	enum op op = take(input) % OPS;

	switch (op) {
	case OP_CONFIG_WRITE:
	case OP_CONFIG_READ:
		access_config(machine, input, op == OP_CONFIG_WRITE);
		break;
	case OP_COMMON_WRITE:
	case OP_COMMON_READ:
		access_common(machine, input, op == OP_COMMON_WRITE);
		break;
	case OP_BAR_WRITE:
	case OP_BAR_READ:
		access_bar(machine, input, op == OP_BAR_WRITE);
		break;
	case OP_WINDOW:
		access_window(machine, input);
		break;
	case OP_SIGNAL:
		signal_something(machine, take(input));
		break;
	case OP_RUN:
		fabric_run(&machine->fabric);
		break;
	case OP_RING:
		(void)fabric_ring(&machine->fabric,
			bar_gpa(machine) + BAR_NOTIFY + take(input) % 4 * NOTIFY_STEP);
		break;
	case OP_REFUSE:
		machine->vhost.fail_start = take(input) % 2 ? -EINVAL : 0;
		break;
	case OP_START:
		start_device(machine, MACHINE_FEATURES ^ UINT64_C(1) << take(input) % 64);
		break;
	case OP_QUEUE:
		set_up_queue(machine, take(input) % 4);
		bar_write(machine, VIRTIO_PCI_COMMON_Q_MSIX, 2, take(input) % 6);
		break;
	case OP_MSIX:
		config_write(machine, msix_control(machine), 2, take(input) << 14);
		break;
	default:
		set_vector(machine, take(input) % 5, take(input) & 1);
		break;
	}
}

/* What must hold after each operation. */
static void check(const struct machine *machine)
{
	const uint8_t *config = machine->config;
	unsigned attached = fabric_count(machine->fabric.doorbells);

	require(pci_get32(config, PCI_VENDOR_ID) == 0x10421af4);
	require((pci_get16(config, PCI_STATUS) & PCI_STATUS_CAP_LIST) != 0);
	require(!machine->intx || (pci_get16(config, PCI_STATUS) & PCI_STATUS_INTERRUPT) != 0);
	require(attached == 0 || attached == VHOST_QUEUES);
}

/* A driver that resets finds a device as good as new. */
static void check_reset(struct machine *machine)
{
	machine->vhost.fail_start = 0;
	config_write(machine, PCI_BASE_ADDRESS_0, 8, MACHINE_WINDOW + MIB);
	config_write(machine, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	put_status(machine, 0);
	require(get_status(machine) == 0);
	require(fake_running(&machine->vhost) == 0 && !machine->intx);
	require(bar_read(machine, VIRTIO_PCI_COMMON_Q_MSIX, 2) == 0xffff);
	require(fabric_count(machine->fabric.doorbells) == 0);
	require(fabric_count(machine->fabric.interrupts) == 0);
	require(fabric_count(machine->fabric.watches) <= 1);
	start_device(machine, MACHINE_FEATURES);
	require(get_status(machine) == STATUS_RUNNING);
	require(fake_running(&machine->vhost) == VHOST_QUEUES);
	require(fabric_count(machine->fabric.doorbells) == VHOST_QUEUES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct machine machine;
	struct input input = { data, size };

	log_set_level(LOG_LEVEL_ERROR);
	require(machine_up(&machine, take(&input) % 2 ? VHOST_CONFIG_SIZE : 0) == 0);
	while (input.size > 0) {
		run(&machine, &input);
		check(&machine);
	}
	check_reset(&machine);
	machine_down(&machine);
	return 0;
}
