// SPDX-License-Identifier: BSD-3-Clause
/*
 * Address lookup for ports and MMIO. Address, size and data come from the
 * guest; the size is one that KVM hands out (1 to 8).
 */
#include "bus/bus.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { BUS_RANGES_MAX = 64 };

struct bus_range {
	uint64_t base;
	uint64_t size;
	const struct bus_ops *ops;
	void *device;
	const char *name;
	_Atomic uint64_t accesses;
};

struct bus {
	size_t count;
	struct bus_range ranges[BUS_RANGES_MAX]; /* ascending, no overlap */
	_Atomic uint64_t unclaimed;
};

int bus_create(struct bus **ret_bus)
{
	struct bus *bus = calloc(1, sizeof(*bus));

	if (bus == NULL)
		return -ENOMEM;
	*ret_bus = bus;
	return 0;
}

void bus_free(struct bus *bus)
{
	free(bus);
}

int bus_add(struct bus *bus, const char *name, uint64_t base, uint64_t size,
	const struct bus_ops *ops, void *device)
{
	uint64_t last;
	size_t place = 0;

	if (size == 0 || __builtin_add_overflow(base, size - 1, &last))
		return -EINVAL;
	if (bus->count == BUS_RANGES_MAX)
		return -ENOSPC;
	while (place < bus->count && bus->ranges[place].base < base)
		place++;
	if (place < bus->count && bus->ranges[place].base <= last)
		return -EEXIST;
	if (place > 0 && base - bus->ranges[place - 1].base < bus->ranges[place - 1].size)
		return -EEXIST;
	memmove(&bus->ranges[place + 1], &bus->ranges[place],
		(bus->count - place) * sizeof(bus->ranges[0]));
	bus->ranges[place] = (struct bus_range){
		.base = base,
		.size = size,
		.ops = ops,
		.device = device,
		.name = name,
	};
	bus->count++;
	return 0;
}

/* The range that holds the whole access, or NULL. */
static struct bus_range *bus_find(struct bus *bus, uint64_t address, unsigned size)
{
	size_t low = 0;
	size_t high = bus->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (bus->ranges[middle].base <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0)
		return NULL;
	struct bus_range *range = &bus->ranges[low - 1];
	uint64_t offset = address - range->base;

	if (offset >= range->size || size > range->size - offset)
		return NULL;
	return range;
}

/* Statistics only: an increment that is lost to a race does no harm. */
static void count_access(_Atomic uint64_t *counter)
{
	uint64_t n = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, n + 1, memory_order_relaxed);
}

void bus_read(struct bus *bus, uint64_t address, uint8_t *data, unsigned size)
{
	struct bus_range *range = bus_find(bus, address, size);

	memset(data, 0xff, size);
	if (range == NULL) {
		count_access(&bus->unclaimed);
		return;
	}
	count_access(&range->accesses);
	unsigned step = range->ops->byte_registers ? 1 : size;

	for (unsigned i = 0; i < size; i += step)
		range->ops->read(range->device, address - range->base + i, data + i, step);
}

void bus_write(struct bus *bus, uint64_t address, const uint8_t *data, unsigned size)
{
	struct bus_range *range = bus_find(bus, address, size);

	if (range == NULL) {
		count_access(&bus->unclaimed);
		return;
	}
	count_access(&range->accesses);
	unsigned step = range->ops->byte_registers ? 1 : size;

	for (unsigned i = 0; i < size; i += step)
		range->ops->write(range->device, address - range->base + i, data + i, step);
}

void bus_log_statistics(const struct bus *bus, const char *bus_name)
{
	if (!log_enabled(LOG_LEVEL_DEBUG))
		return;
	for (size_t i = 0; i < bus->count; i++)
		log_debug("%s %s at 0x%" PRIx64 ": %" PRIu64 " accesses", bus_name,
			bus->ranges[i].name, bus->ranges[i].base, bus->ranges[i].accesses);
	log_debug("%s unclaimed: %" PRIu64 " accesses", bus_name, bus->unclaimed);
}
