// SPDX-License-Identifier: BSD-3-Clause
/*
 * The common configuration registers (virtio 1.2, section 4.1.4.3) as a table:
 * offset, width, what a read gives, what a write does. Every value is the
 * driver's. A register takes accesses of its own width only; the 64-bit ones
 * take their halves too.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <string.h>

#include "virtio/pci_regs.h"

static bool features_are_fixed(const struct virtio_pci *device)
{
	return (device->status & VIRTIO_CONFIG_S_FEATURES_OK) != 0;
}

/* The selected queue, or NULL when there is none of that number. */
static struct pci_queue *selected(struct virtio_pci *device)
{
	return device->queue_select < device->queue_count ? &device->queues[device->queue_select]
							  : NULL;
}

/* The selected queue if its place and size may still change. */
static struct pci_queue *configurable(struct virtio_pci *device)
{
	struct pci_queue *queue = selected(device);

	return queue != NULL && !queue->enabled ? queue : NULL;
}

static uint64_t get_offered_select(struct virtio_pci *device)
{
	return device->offered_select;
}

static void set_offered_select(struct virtio_pci *device, uint64_t value)
{
	device->offered_select = (uint32_t)value;
}

static uint64_t get_offered(struct virtio_pci *device)
{
	return device->offered_select < 2 ? device->offered >> (device->offered_select * 32) : 0;
}

static uint64_t get_accepted_select(struct virtio_pci *device)
{
	return device->accepted_select;
}

static void set_accepted_select(struct virtio_pci *device, uint64_t value)
{
	device->accepted_select = (uint32_t)value;
}

static uint64_t get_accepted(struct virtio_pci *device)
{
	return device->accepted_select < 2 ? device->accepted >> (device->accepted_select * 32) : 0;
}

static void set_accepted(struct virtio_pci *device, uint64_t value)
{
	unsigned shift = device->accepted_select * 32;

	if (device->accepted_select < 2 && !features_are_fixed(device))
		device->accepted = (device->accepted & ~(UINT64_C(0xffffffff) << shift)) |
				   (value & 0xffffffff) << shift;
}

static uint64_t get_config_vector(struct virtio_pci *device)
{
	return device->msix.sources[device->queue_count].vector;
}

static void set_config_vector(struct virtio_pci *device, uint64_t value)
{
	(void)msix_set_vector(&device->msix, device->queue_count, (uint16_t)value);
}

static uint64_t get_queue_count(struct virtio_pci *device)
{
	return device->queue_count;
}

static uint64_t get_status(struct virtio_pci *device)
{
	return device->status;
}

static void set_status(struct virtio_pci *device, uint64_t value)
{
	virtio_pci_set_status(device, (uint8_t)value);
}

static uint64_t get_generation(struct virtio_pci *device)
{
	return device->generation;
}

static uint64_t get_queue_select(struct virtio_pci *device)
{
	return device->queue_select;
}

static void set_queue_select(struct virtio_pci *device, uint64_t value)
{
	device->queue_select = (uint16_t)value;
}

static uint64_t get_queue_size(struct virtio_pci *device)
{
	const struct pci_queue *queue = selected(device);

	return queue != NULL ? queue->size : 0;
}

static void set_queue_size(struct virtio_pci *device, uint64_t value)
{
	struct pci_queue *queue = configurable(device);

	/* A size that is too large or no power of two is refused by leaving the old one. */
	if (queue != NULL && value != 0 && value <= device->identity.queue_size &&
		(value & (value - 1)) == 0)
		queue->size = (uint16_t)value;
}

static uint64_t get_queue_vector(struct virtio_pci *device)
{
	return selected(device) != NULL ? device->msix.sources[device->queue_select].vector
					: MSIX_NO_VECTOR;
}

static void set_queue_vector(struct virtio_pci *device, uint64_t value)
{
	if (selected(device) != NULL)
		(void)msix_set_vector(&device->msix, device->queue_select, (uint16_t)value);
}

static uint64_t get_queue_enable(struct virtio_pci *device)
{
	const struct pci_queue *queue = selected(device);

	return queue != NULL && queue->enabled;
}

/* After DRIVER_OK a queue can only come back after its own reset. */
static void set_queue_enable(struct virtio_pci *device, uint64_t value)
{
	struct pci_queue *queue = configurable(device);

	if (queue == NULL || value != 1 || !features_are_fixed(device))
		return;
	if (!virtio_pci_is_running(device))
		queue->enabled = true;
	else if ((device->accepted >> VIRTIO_F_RING_RESET) & 1)
		virtio_pci_restart_queue(device, device->queue_select);
}

static uint64_t get_notify_offset(struct virtio_pci *device)
{
	return selected(device) != NULL ? device->queue_select : 0;
}

static uint64_t get_queue_desc(struct virtio_pci *device)
{
	const struct pci_queue *queue = selected(device);

	return queue != NULL ? queue->desc : 0;
}

static void set_queue_desc(struct virtio_pci *device, uint64_t value)
{
	struct pci_queue *queue = configurable(device);

	if (queue != NULL)
		queue->desc = value;
}

static uint64_t get_queue_avail(struct virtio_pci *device)
{
	const struct pci_queue *queue = selected(device);

	return queue != NULL ? queue->avail : 0;
}

static void set_queue_avail(struct virtio_pci *device, uint64_t value)
{
	struct pci_queue *queue = configurable(device);

	if (queue != NULL)
		queue->avail = value;
}

static uint64_t get_queue_used(struct virtio_pci *device)
{
	const struct pci_queue *queue = selected(device);

	return queue != NULL ? queue->used : 0;
}

static void set_queue_used(struct virtio_pci *device, uint64_t value)
{
	struct pci_queue *queue = configurable(device);

	if (queue != NULL)
		queue->used = value;
}

/* A queue is reset before the write returns, so a driver never sees a 1 here. */
static uint64_t get_queue_reset(struct virtio_pci *device)
{
	(void)device;
	return 0;
}

static void set_queue_reset(struct virtio_pci *device, uint64_t value)
{
	struct pci_queue *queue = selected(device);

	if (value == 1 && queue != NULL && queue->enabled && virtio_pci_is_running(device) &&
		((device->accepted >> VIRTIO_F_RING_RESET) & 1) != 0)
		virtio_pci_reset_queue(device, device->queue_select);
}

static const struct {
	uint16_t offset;
	uint16_t width;
	uint64_t (*get)(struct virtio_pci *device);
	void (*set)(struct virtio_pci *device, uint64_t value); /* NULL: read only */
} registers[] = {
	{ VIRTIO_PCI_COMMON_DFSELECT, 4, get_offered_select, set_offered_select },
	{ VIRTIO_PCI_COMMON_DF, 4, get_offered, NULL },
	{ VIRTIO_PCI_COMMON_GFSELECT, 4, get_accepted_select, set_accepted_select },
	{ VIRTIO_PCI_COMMON_GF, 4, get_accepted, set_accepted },
	{ VIRTIO_PCI_COMMON_MSIX, 2, get_config_vector, set_config_vector },
	{ VIRTIO_PCI_COMMON_NUMQ, 2, get_queue_count, NULL },
	{ VIRTIO_PCI_COMMON_STATUS, 1, get_status, set_status },
	{ VIRTIO_PCI_COMMON_CFGGENERATION, 1, get_generation, NULL },
	{ VIRTIO_PCI_COMMON_Q_SELECT, 2, get_queue_select, set_queue_select },
	{ VIRTIO_PCI_COMMON_Q_SIZE, 2, get_queue_size, set_queue_size },
	{ VIRTIO_PCI_COMMON_Q_MSIX, 2, get_queue_vector, set_queue_vector },
	{ VIRTIO_PCI_COMMON_Q_ENABLE, 2, get_queue_enable, set_queue_enable },
	{ VIRTIO_PCI_COMMON_Q_NOFF, 2, get_notify_offset, NULL },
	{ VIRTIO_PCI_COMMON_Q_DESCLO, 8, get_queue_desc, set_queue_desc },
	{ VIRTIO_PCI_COMMON_Q_AVAILLO, 8, get_queue_avail, set_queue_avail },
	{ VIRTIO_PCI_COMMON_Q_USEDLO, 8, get_queue_used, set_queue_used },
	{ COMMON_QUEUE_RESET, 2, get_queue_reset, set_queue_reset },
};

/* The row of a register that takes this access, or -1. */
static int find_register(uint64_t offset, unsigned size)
{
	for (unsigned i = 0; i < ARRAY_SIZE(registers); i++) {
		if (registers[i].offset == offset && registers[i].width == size)
			return (int)i;
		if (registers[i].width == 8 && size == 4 &&
			(offset == registers[i].offset || offset == registers[i].offset + 4u))
			return (int)i;
	}
	return -1;
}

void virtio_pci_common_read(
	struct virtio_pci *device, uint64_t offset, uint8_t *data, unsigned size)
{
	int row = find_register(offset, size);

	if (row < 0)
		return;
	uint64_t value = registers[row].get(device) >> (offset - registers[row].offset) * 8;

	memcpy(data, &value, size);
}

void virtio_pci_common_write(
	struct virtio_pci *device, uint64_t offset, const uint8_t *data, unsigned size)
{
	int row = find_register(offset, size);
	uint64_t value = 0;

	if (row < 0 || registers[row].set == NULL)
		return;
	if (size < registers[row].width) /* a half of a 64-bit register */
		value = registers[row].get(device);
	memcpy((uint8_t *)&value + (offset - registers[row].offset), data, size);
	registers[row].set(device, value);
}
