/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A bus: which device answers at which address. The machine has two, one for
 * I/O ports and one for MMIO; vCPU threads bring every access that KVM does
 * not answer itself.
 *
 * Built by one thread before the first vCPU runs and not changed after,
 * so lookups take no lock. A device is called by several vCPU threads at once
 * and locks itself.
 */
#pragma once

#include "base/util.h"

/*
 * What a device does with an access. `offset` counts from the start of the
 * range it was added with; `size` is 1, 2, 4 or 8, and the access lies wholly
 * inside the range. Neither may fail: a bad access reads as all ones and
 * writes nothing.
 */
struct bus_ops {
	void (*read)(void *device, uint64_t offset, uint8_t *data, unsigned size);
	void (*write)(void *device, uint64_t offset, const uint8_t *data, unsigned size);
	/*
	 * The registers are bytes: the bus splits wider accesses, low address
	 * first, as the ISA bus does, and the device sees only size 1.
	 */
	bool byte_registers;
};

struct bus;

MUST_CHECK int bus_create(struct bus **ret_bus);
void bus_free(struct bus *bus);

/*
 * Adds a device at [base, base + size). The bus keeps `name` and `device` but
 * owns neither. -EINVAL for an empty or wrapping range, -EEXIST when it
 * overlaps another, -ENOSPC when the bus is full.
 */
MUST_CHECK int bus_add(struct bus *bus, const char *name, uint64_t base, uint64_t size,
	const struct bus_ops *ops, void *device);

/*
 * One access of the guest. Where no device answers, reads give all ones and
 * writes are lost, as on an empty bus.
 */
void bus_read(struct bus *bus, uint64_t address, uint8_t *data, unsigned size);
void bus_write(struct bus *bus, uint64_t address, const uint8_t *data, unsigned size);

/* Logs, at debug level, how often each device and the empty bus were accessed. */
void bus_log_statistics(const struct bus *bus, const char *bus_name);
