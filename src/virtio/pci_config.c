// SPDX-License-Identifier: BSD-3-Clause
/*
 * What a driver finds in a virtio function's config space, and the regions of
 * its BAR. Offsets and sizes are the guest's; the PCI configuration access
 * capability lets it aim at the BAR through config space.
 */
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <string.h>
#include <sys/eventfd.h>

#include "virtio/pci_regs.h"

enum { VENDOR_VIRTIO = 0x1af4, DEVICE_MODERN_BASE = 0x1040, REVISION_MODERN = 1 };

/* Where the capabilities lie in config space, in their order. */
enum {
	CAP_MSIX = 0x40,
	CAP_COMMON = 0x50,
	CAP_ISR = 0x60,
	CAP_DEVICE = 0x70,
	CAP_NOTIFY = 0x80,
	CAP_PCI_CFG = 0x98,
};

static void fill_capability(struct virtio_pci *device, unsigned at, unsigned next, uint8_t type,
	uint32_t offset, uint32_t length)
{
	uint8_t *config = device->pci.config;
	unsigned size =
		sizeof(struct virtio_pci_cap) +
		(type == VIRTIO_PCI_CAP_NOTIFY_CFG || type == VIRTIO_PCI_CAP_PCI_CFG ? 4 : 0);

	config[at + VIRTIO_PCI_CAP_VNDR] = PCI_CAP_ID_VNDR;
	config[at + VIRTIO_PCI_CAP_NEXT] = (uint8_t)next;
	config[at + VIRTIO_PCI_CAP_LEN] = (uint8_t)size;
	config[at + VIRTIO_PCI_CAP_CFG_TYPE] = type;
	config[at + VIRTIO_PCI_CAP_BAR] = 0;
	pci_set32(config, at + VIRTIO_PCI_CAP_OFFSET, offset);
	pci_set32(config, at + VIRTIO_PCI_CAP_LENGTH, length);
}

static void fill_msix_capability(struct virtio_pci *device)
{
	uint8_t *config = device->pci.config;

	config[CAP_MSIX] = PCI_CAP_ID_MSIX;
	config[CAP_MSIX + PCI_CAP_LIST_NEXT] = CAP_COMMON;
	pci_set16(config, CAP_MSIX + PCI_MSIX_FLAGS, (uint16_t)(device->msix.vectors - 1));
	pci_set32(config, CAP_MSIX + PCI_MSIX_TABLE, REGION_MSIX_TABLE);
	pci_set32(config, CAP_MSIX + PCI_MSIX_PBA, REGION_MSIX_PENDING);
	pci_set16(device->pci.writable, CAP_MSIX + PCI_MSIX_FLAGS,
		PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
}

static void fill_capabilities(struct virtio_pci *device)
{
	uint8_t *writable = device->pci.writable + CAP_PCI_CFG;
	uint32_t config_size = device->identity.config_size;

	fill_msix_capability(device);
	fill_capability(
		device, CAP_COMMON, CAP_ISR, VIRTIO_PCI_CAP_COMMON_CFG, REGION_COMMON, COMMON_SIZE);
	/* A device without configuration has no capability for it, not an empty one. */
	fill_capability(device, CAP_ISR, config_size != 0 ? CAP_DEVICE : CAP_NOTIFY,
		VIRTIO_PCI_CAP_ISR_CFG, REGION_ISR, 1);
	if (config_size != 0)
		fill_capability(device, CAP_DEVICE, CAP_NOTIFY, VIRTIO_PCI_CAP_DEVICE_CFG,
			REGION_DEVICE, config_size);
	fill_capability(device, CAP_NOTIFY, CAP_PCI_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG, REGION_NOTIFY,
		device->queue_count * NOTIFY_STRIDE);
	pci_set32(device->pci.config, CAP_NOTIFY + VIRTIO_PCI_NOTIFY_CAP_MULT, NOTIFY_STRIDE);
	fill_capability(device, CAP_PCI_CFG, 0, VIRTIO_PCI_CAP_PCI_CFG, 0, 0);
	writable[VIRTIO_PCI_CAP_BAR] = 0xff;
	memset(writable + VIRTIO_PCI_CAP_OFFSET, 0xff, 12); /* offset, length, data */
}

void virtio_pci_fill_config(struct virtio_pci *device)
{
	uint8_t *config = device->pci.config;

	pci_set16(config, PCI_VENDOR_ID, VENDOR_VIRTIO);
	pci_set16(
		config, PCI_DEVICE_ID, (uint16_t)(DEVICE_MODERN_BASE + device->identity.virtio_id));
	pci_set16(config, PCI_STATUS, PCI_STATUS_CAP_LIST);
	config[PCI_REVISION_ID] = REVISION_MODERN;
	pci_set16(config, PCI_CLASS_DEVICE, device->identity.pci_class);
	pci_set16(config, PCI_SUBSYSTEM_VENDOR_ID, VENDOR_VIRTIO);
	pci_set16(config, PCI_SUBSYSTEM_ID, (uint16_t)device->identity.virtio_id);
	config[PCI_CAPABILITY_LIST] = CAP_MSIX;
	config[PCI_INTERRUPT_PIN] = 1; /* INTA */
	fill_capabilities(device);
}

static void isr_read(struct virtio_pci *device, uint64_t offset, uint8_t *data, unsigned size)
{
	memset(data, 0, size);
	if (offset == 0)
		data[0] = virtio_pci_take_isr(device);
}

static void device_read(struct virtio_pci *device, uint64_t offset, uint8_t *data, unsigned size)
{
	/* Out of bounds reads as ones, which the bus has filled in. Behind it is the VMM's part. */
	if (is_within(offset, size, device->identity.config_size))
		(void)!device->vhost->ops->get_config(device->vhost, (uint32_t)offset, data, size);
}

static void device_write(
	struct virtio_pci *device, uint64_t offset, const uint8_t *data, unsigned size)
{
	if (is_within(offset, size, device->identity.config_size))
		(void)!device->vhost->ops->set_config(device->vhost, (uint32_t)offset, data, size);
}

/* Comes here only where no ioeventfd took the write. */
static void notify_write(
	struct virtio_pci *device, uint64_t offset, const uint8_t *data, unsigned size)
{
	uint64_t index = offset / NOTIFY_STRIDE;

	(void)data;
	(void)size;
	if (index < device->queue_count && device->queues[index].running)
		(void)eventfd_write(device->queues[index].kick_fd, 1);
}

static void pending_read(struct virtio_pci *device, uint64_t offset, uint8_t *data, unsigned size)
{
	msix_pending_read(&device->msix, offset, data, size);
}

static void table_read(struct virtio_pci *device, uint64_t offset, uint8_t *data, unsigned size)
{
	msix_table_read(&device->msix, offset, data, size);
}

static void table_write(
	struct virtio_pci *device, uint64_t offset, const uint8_t *data, unsigned size)
{
	msix_table_write(&device->msix, offset, data, size);
}

/* One row for each REGION_SIZE bytes of the BAR. */
static const struct {
	void (*read)(struct virtio_pci *device, uint64_t offset, uint8_t *data, unsigned size);
	void (*write)(
		struct virtio_pci *device, uint64_t offset, const uint8_t *data, unsigned size);
} regions[BAR_SIZE / REGION_SIZE] = {
	[REGION_COMMON / REGION_SIZE] = { virtio_pci_common_read, virtio_pci_common_write },
	[REGION_ISR / REGION_SIZE] = { isr_read, NULL },
	[REGION_DEVICE / REGION_SIZE] = { device_read, device_write },
	[REGION_NOTIFY / REGION_SIZE] = { NULL, notify_write },
	[REGION_MSIX_TABLE / REGION_SIZE] = { table_read, table_write },
	[REGION_MSIX_PENDING / REGION_SIZE] = { pending_read, NULL },
};

static bool in_one_region(uint64_t offset, unsigned size)
{
	return offset < BAR_SIZE && size <= REGION_SIZE - offset % REGION_SIZE;
}

static void bar_read(void *owner, unsigned bar, uint64_t offset, uint8_t *data, unsigned size)
{
	struct virtio_pci *device = owner;

	(void)bar;
	if (!in_one_region(offset, size) || regions[offset / REGION_SIZE].read == NULL)
		return;
	pthread_mutex_lock(&device->lock);
	regions[offset / REGION_SIZE].read(device, offset % REGION_SIZE, data, size);
	pthread_mutex_unlock(&device->lock);
}

static void bar_write(
	void *owner, unsigned bar, uint64_t offset, const uint8_t *data, unsigned size)
{
	struct virtio_pci *device = owner;

	(void)bar;
	if (!in_one_region(offset, size) || regions[offset / REGION_SIZE].write == NULL)
		return;
	pthread_mutex_lock(&device->lock);
	regions[offset / REGION_SIZE].write(device, offset % REGION_SIZE, data, size);
	pthread_mutex_unlock(&device->lock);
}

static bool touches(unsigned offset, unsigned size, unsigned first, unsigned count)
{
	return offset < first + count && first < offset + size;
}

/* What the PCI configuration access capability aims at now. False: nothing. */
static bool pci_cfg_target(
	const struct virtio_pci *device, uint32_t *ret_offset, unsigned *ret_size)
{
	const uint8_t *cap = device->pci.config + CAP_PCI_CFG;
	uint32_t offset = pci_get32(cap, VIRTIO_PCI_CAP_OFFSET);
	uint32_t length = pci_get32(cap, VIRTIO_PCI_CAP_LENGTH);

	if (cap[VIRTIO_PCI_CAP_BAR] != 0 || (length != 1 && length != 2 && length != 4) ||
		offset % length != 0)
		return false;
	*ret_offset = offset;
	*ret_size = length;
	return true;
}

enum { PCI_CFG_DATA = sizeof(struct virtio_pci_cap) };

static void config_written(void *owner, unsigned offset, unsigned size)
{
	struct virtio_pci *device = owner;
	const uint8_t *config = device->pci.config;
	uint32_t target;
	unsigned target_size;

	if (touches(offset, size, PCI_COMMAND, 2)) {
		uint16_t command = pci_get16(config, PCI_COMMAND);

		pthread_mutex_lock(&device->lock);
		device->intx_disabled = (command & PCI_COMMAND_INTX_DISABLE) != 0;
		virtio_pci_update_line(device);
		virtio_pci_set_master(device, (command & PCI_COMMAND_MASTER) != 0);
		pthread_mutex_unlock(&device->lock);
	}
	if (touches(offset, size, CAP_MSIX + PCI_MSIX_FLAGS, 2)) {
		uint16_t flags = pci_get16(config, CAP_MSIX + PCI_MSIX_FLAGS);

		pthread_mutex_lock(&device->lock);
		device->msix.enabled = (flags & PCI_MSIX_FLAGS_ENABLE) != 0;
		device->msix.function_mask = (flags & PCI_MSIX_FLAGS_MASKALL) != 0;
		virtio_pci_update_notifications(device);
		pthread_mutex_unlock(&device->lock);
	}
	if (touches(offset, size, CAP_PCI_CFG, PCI_CFG_DATA + 4))
		device->fabric.ops->trap_config_reads(device->fabric.owner);
	if (touches(offset, size, CAP_PCI_CFG + PCI_CFG_DATA, 4) &&
		pci_cfg_target(device, &target, &target_size))
		bar_write(device, 0, target, config + CAP_PCI_CFG + PCI_CFG_DATA, target_size);
}

static void config_read(void *owner, unsigned offset, unsigned size)
{
	struct virtio_pci *device = owner;
	uint8_t *data = device->pci.config + CAP_PCI_CFG + PCI_CFG_DATA;
	uint32_t target;
	unsigned target_size;

	if (!touches(offset, size, CAP_PCI_CFG + PCI_CFG_DATA, 4) ||
		!pci_cfg_target(device, &target, &target_size))
		return;
	memset(data, 0xff, 4);
	bar_read(device, 0, target, data, target_size);
}

static void bar_moved(void *owner, unsigned bar, uint64_t gpa)
{
	struct virtio_pci *device = owner;

	(void)bar;
	pthread_mutex_lock(&device->lock);
	device->bar_gpa = gpa;
	virtio_pci_update_notifications(device);
	pthread_mutex_unlock(&device->lock);
}

const struct pci_device_ops virtio_pci_device_ops = {
	.bar_read = bar_read,
	.bar_write = bar_write,
	.config_written = config_written,
	.config_read = config_read,
	.bar_moved = bar_moved,
};
