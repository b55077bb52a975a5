/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One virtio PCI function between a fake fabric and a fake back half, with
 * accesses as a vCPU makes them: through ECAM and the window.
 */
#pragma once

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "bus/pci_host.h"
#include "unit/fake_fabric.h"
#include "unit/fake_vhost.h"
#include "virtio/pci.h"

#define MACHINE_WINDOW      UINT64_C(0x4000000000)
#define MACHINE_WINDOW_SIZE (16 * MIB)
#define FEATURE(bit)        (UINT64_C(1) << (bit))

/* The layout that the capabilities tell, which test_virtio_pci.c checks. */
enum {
	BAR_ISR = 0x1000,
	BAR_DEVICE = 0x2000,
	BAR_NOTIFY = 0x3000,
	BAR_TABLE = 0x4000,
	BAR_PENDING = 0x5000,
	BAR_BYTES = 0x8000,
	NOTIFY_STEP = 4,
	QUEUE_SIZE = 256,
};
/* <linux/virtio_pci.h> of Debian 12 does not have it. */
enum { QUEUE_RESET_REGISTER = 0x3a };
#ifndef VIRTIO_F_RING_RESET
#define VIRTIO_F_RING_RESET 40
#endif

enum { STATUS_READY = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER };
enum { STATUS_FEATURES = STATUS_READY | VIRTIO_CONFIG_S_FEATURES_OK };
enum { STATUS_RUNNING = STATUS_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK };

#define MACHINE_FEATURES                                                                           \
	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(5) | FEATURE(33))

struct machine {
	struct pci_host *host;
	struct fake_fabric fabric;
	struct fake_vhost vhost;
	struct virtio_pci *device;
	unsigned devfn;
	const uint8_t *config; /* what the guest reads without an exit */
	bool intx;
	unsigned intx_changes;
};

static inline void machine_set_intx(void *owner, bool asserted)
{
	struct machine *machine = owner;

	fabric_require(machine->intx != asserted, "INTx is told twice");
	machine->intx = asserted;
	machine->intx_changes++;
}

static inline uint64_t config_read(const struct machine *machine, unsigned offset, unsigned size)
{
	uint64_t value = UINT64_MAX;

	pci_ecam_bus_ops.read(
		machine->host, machine->devfn * UINT64_C(4096) + offset, (uint8_t *)&value, size);
	return size == 8 ? value : value & ((UINT64_C(1) << size * 8) - 1);
}

static inline void config_write(
	const struct machine *machine, unsigned offset, unsigned size, uint64_t value)
{
	pci_ecam_bus_ops.write(machine->host, machine->devfn * UINT64_C(4096) + offset,
		(const uint8_t *)&value, size);
}

static inline int machine_up(struct machine *machine, uint32_t config_size)
{
	const struct virtio_pci_identity identity = {
		.name = "test",
		.virtio_id = 2,
		.pci_class = 0x0180,
		.queue_size = QUEUE_SIZE,
		.config_size = config_size,
	};
	const struct fabric fabric = { .ops = &fake_fabric_ops, .owner = &machine->fabric };
	uint64_t ecam_size;

	*machine = (struct machine){ 0 };
	int r = pci_host_create(MACHINE_WINDOW, MACHINE_WINDOW_SIZE, 1, &machine->host);

	if (r < 0)
		return r;
	fake_vhost_init(&machine->vhost, VHOST_QUEUES, MACHINE_FEATURES);
	r = virtio_pci_create(
		&identity, &machine->vhost.vhost, machine->host, &fabric, &machine->device);
	if (r < 0)
		return r;
	machine->devfn = virtio_pci_devfn(machine->device);
	machine->config = pci_host_ecam(machine->host, &ecam_size) +
			  (size_t)machine->devfn * PCI_ECAM_FUNCTION_SIZE;
	virtio_pci_set_intx(machine->device, (struct irq_line){ machine_set_intx, machine });
	config_write(machine, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	return 0;
}

static inline void machine_down(struct machine *machine)
{
	virtio_pci_free(machine->device);
	pci_host_free(machine->host);
}

/* Where the guest believes the BAR to be. */
static inline uint64_t bar_gpa(const struct machine *machine)
{
	uint64_t gpa = pci_get32(machine->config, PCI_BASE_ADDRESS_0) & ~UINT32_C(0xf);

	return gpa | (uint64_t)pci_get32(machine->config, PCI_BASE_ADDRESS_1) << 32;
}

/* All ones where nothing answers, as on the bus. */
static inline uint64_t bar_read(const struct machine *machine, uint64_t offset, unsigned size)
{
	uint64_t value = UINT64_MAX;
	uint64_t gpa = bar_gpa(machine) + offset;

	if (gpa >= MACHINE_WINDOW && gpa - MACHINE_WINDOW <= MACHINE_WINDOW_SIZE - size)
		pci_window_bus_ops.read(
			machine->host, gpa - MACHINE_WINDOW, (uint8_t *)&value, size);
	return size == 8 ? value : value & ((UINT64_C(1) << size * 8) - 1);
}

static inline void bar_write(
	const struct machine *machine, uint64_t offset, unsigned size, uint64_t value)
{
	uint64_t gpa = bar_gpa(machine) + offset;

	if (gpa >= MACHINE_WINDOW && gpa - MACHINE_WINDOW <= MACHINE_WINDOW_SIZE - size)
		pci_window_bus_ops.write(
			machine->host, gpa - MACHINE_WINDOW, (const uint8_t *)&value, size);
}

static inline uint8_t get_status(const struct machine *machine)
{
	return (uint8_t)bar_read(machine, VIRTIO_PCI_COMMON_STATUS, 1);
}

static inline void put_status(const struct machine *machine, uint8_t status)
{
	bar_write(machine, VIRTIO_PCI_COMMON_STATUS, 1, status);
}

static inline uint64_t get_offered(const struct machine *machine)
{
	bar_write(machine, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	uint64_t high = bar_read(machine, VIRTIO_PCI_COMMON_DF, 4);

	bar_write(machine, VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
	return high << 32 | bar_read(machine, VIRTIO_PCI_COMMON_DF, 4);
}

static inline void accept(const struct machine *machine, uint64_t features)
{
	for (unsigned half = 0; half < 2; half++) {
		bar_write(machine, VIRTIO_PCI_COMMON_GFSELECT, 4, half);
		bar_write(machine, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(features >> half * 32));
	}
}

/* What a driver does up to FEATURES_OK. */
static inline void negotiate(const struct machine *machine, uint64_t features)
{
	put_status(machine, 0);
	put_status(machine, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	put_status(machine, STATUS_READY);
	accept(machine, features);
	put_status(machine, STATUS_FEATURES);
}

static inline void select_queue(const struct machine *machine, unsigned queue)
{
	bar_write(machine, VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
}

static inline void set_up_queue(const struct machine *machine, unsigned queue)
{
	select_queue(machine, queue);
	bar_write(machine, VIRTIO_PCI_COMMON_Q_SIZE, 2, 16);
	bar_write(machine, VIRTIO_PCI_COMMON_Q_DESCLO, 8, 0x10000 * (queue + 1));
	bar_write(machine, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, 0x10000 * (queue + 1) + 0x1000);
	bar_write(machine, VIRTIO_PCI_COMMON_Q_AVAILHI, 4, 1);
	bar_write(machine, VIRTIO_PCI_COMMON_Q_USEDLO, 8, 0x10000 * (queue + 1) + 0x2000);
	bar_write(machine, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

/* A driver's whole way to DRIVER_OK, with all queues. */
static inline void start_device(const struct machine *machine, uint64_t features)
{
	negotiate(machine, features);
	for (unsigned queue = 0; queue < VHOST_QUEUES; queue++)
		set_up_queue(machine, queue);
	put_status(machine, STATUS_RUNNING);
}

/* The place of the MSI-X capability's control word. */
static inline unsigned msix_control(const struct machine *machine)
{
	unsigned at = (unsigned)config_read(machine, PCI_CAPABILITY_LIST, 1);

	while (at != 0 && config_read(machine, at, 1) != PCI_CAP_ID_MSIX)
		at = (unsigned)config_read(machine, at + 1, 1);
	return at + PCI_MSIX_FLAGS;
}

static inline void enable_msix(const struct machine *machine, bool function_mask)
{
	config_write(machine, msix_control(machine), 2,
		PCI_MSIX_FLAGS_ENABLE | (function_mask ? PCI_MSIX_FLAGS_MASKALL : 0));
}

static inline void set_vector(const struct machine *machine, unsigned vector, bool masked)
{
	bar_write(machine, BAR_TABLE + vector * 16, 8, 0xfee00000 + vector * 0x1000);
	bar_write(machine, BAR_TABLE + vector * 16 + 8, 4, 0x40 + vector);
	bar_write(machine, BAR_TABLE + vector * 16 + 12, 4, masked);
}
