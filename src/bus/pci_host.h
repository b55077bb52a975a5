/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The PCI host: bus 0 with 256 functions, config space by ECAM, memory BARs in
 * one window. Slot 0 is empty, there is nothing to be asked about the host itself.
 * Up to 31 devices get a slot each; more share slots, eight functions in each, so
 * that a guest finds them in the order in which they were added.
 *
 * Config space is a piece of memory that the guest reads without an exit (a
 * read-only memslot, where KVM can): pci_host_ecam() gives it to the vm
 * module. Writes come over the bus and change only the bits that a device
 * declared writable.
 *
 * Devices are added by one thread before the guest runs, with their BARs
 * already placed, as firmware would do, and turned off. Accesses come from vCPU threads.
 * Source: PCI Local Bus 3.0 chapter 6, PCI Express 3.0 section 7.2.2 (ECAM).
 */
#pragma once

#include "base/util.h"
#include "bus/bus.h"

enum {
	PCI_SLOTS = 32,
	PCI_FUNCTIONS = 256,   /* 8 in each slot */
	PCI_CONFIG_SIZE = 256, /* no extended config space */
	PCI_ECAM_FUNCTION_SIZE = 4096,
	PCI_ECAM_SIZE = PCI_FUNCTIONS * PCI_ECAM_FUNCTION_SIZE,
	PCI_BARS = 6,
};

struct pci_host;

/* What a device does; all run in vCPU threads, and the device locks itself. */
struct pci_device_ops {
	/* An access to the memory behind a BAR; rules as in struct bus_ops. */
	void (*bar_read)(void *owner, unsigned bar, uint64_t offset, uint8_t *data, unsigned size);
	void (*bar_write)(
		void *owner, unsigned bar, uint64_t offset, const uint8_t *data, unsigned size);
	/*
	 * Registers in [offset, offset + size) were written and device->config holds the
	 * new values, which the device may change. Serialised by the host.
	 */
	void (*config_written)(void *owner, unsigned offset, unsigned size);
	/*
	 * The guest reads registers, and the device may bring them up to date first.
	 * Runs only where reads exit: with a read-only memslot the guest reads by itself.
	 */
	void (*config_read)(void *owner, unsigned offset, unsigned size);
	/* The BAR answers at `gpa` from now on; 0: nowhere. Serialised with config_written. */
	void (*bar_moved)(void *owner, unsigned bar, uint64_t gpa);
};

/* Embedded in its owner. The owner fills the first three and `bar_sizes` before adding it. */
struct pci_device {
	const struct pci_device_ops *ops;
	void *owner;
	uint8_t writable[PCI_CONFIG_SIZE]; /* bits of config space that the guest may change */
	uint64_t bar_sizes[PCI_BARS];      /* of 64-bit memory BARs, so at 0, 2, 4; powers of two */
	/* Set by the host. */
	uint8_t *config;             /* PCI_CONFIG_SIZE bytes that the guest sees */
	uint64_t bar_gpas[PCI_BARS]; /* where each BAR answers now; 0: nowhere */
};

/*
 * A host with a window of `window_size` bytes at `window_gpa` for the
 * BARs. `devices` of them will be added: if they need it, they share slots, in
 * their order. 0 or -errno.
 */
MUST_CHECK int pci_host_create(
	uint64_t window_gpa, uint64_t window_size, unsigned devices, struct pci_host **ret_host);
void pci_host_free(struct pci_host *host);

/*
 * Puts a device on the bus and places its BARs in the window. The owner then
 * fills device->config (IDs, class, capabilities; the BARs are the host's).
 * Tells slot * 8 + function. -ENOSPC without a free function or room in the window.
 */
MUST_CHECK int pci_host_add(struct pci_host *host, struct pci_device *device, unsigned *ret_devfn);

/* Answer for ECAM (PCI_ECAM_SIZE bytes) and for the window. */
extern const struct bus_ops pci_ecam_bus_ops;
extern const struct bus_ops pci_window_bus_ops;

/*
 * Config space from function 0 up to the last one in use: page aligned memory
 * that the guest may read by itself. Function 0 reads as ones there, others without a device as 0.
 * No device: no bytes.
 */
uint8_t *pci_host_ecam(struct pci_host *host, uint64_t *ret_size);

/* Little-endian config registers, for owners. */
static inline void pci_set16(uint8_t *config, unsigned offset, uint16_t value)
{
	config[offset] = (uint8_t)value;
	config[offset + 1] = (uint8_t)(value >> 8);
}

static inline void pci_set32(uint8_t *config, unsigned offset, uint32_t value)
{
	pci_set16(config, offset, (uint16_t)value);
	pci_set16(config, offset + 2, (uint16_t)(value >> 16));
}

static inline uint16_t pci_get16(const uint8_t *config, unsigned offset)
{
	return (uint16_t)(config[offset] | config[offset + 1] << 8);
}

static inline uint32_t pci_get32(const uint8_t *config, unsigned offset)
{
	return pci_get16(config, offset) | (uint32_t)pci_get16(config, offset + 2) << 16;
}
