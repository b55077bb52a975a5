/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver's side of a split virtqueue, for tests of the device's side: guest
 * memory in two regions with a hole between them, a queue's rings in it, and
 * functions that put into them what a driver would, or should not.
 */
#pragma once

#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "memory/guest_memory.h"
#include "virtio/virtqueue.h"

/* The regions lie side by side in the mapping: what crosses the hole's edge is not caught by a
 * fault. */
#define LOW_GPA   UINT64_C(0)
#define LOW_SIZE  (512 * KIB)
#define HIGH_GPA  (4 * MIB)
#define HIGH_SIZE (512 * KIB)
#define HIGH_END  (HIGH_GPA + HIGH_SIZE)

/* Where driver_init() puts the rings, and the first byte after them. */
enum { DRIVER_DESC = 0x1000, DRIVER_AVAIL = 0x8000, DRIVER_USED = 0xa000, DRIVER_DATA = 0x10000 };

struct driver {
	struct guest_memory *memory;
	uint16_t size;
	struct vring_desc *desc;
	uint16_t *avail; /* flags, idx, ring[size], used_event */
	uint8_t *used;   /* flags, idx, {id, length}[size], avail_event */
};

static inline struct guest_memory *driver_memory(void)
{
	const struct guest_memory_range ranges[] = {
		{ LOW_GPA, LOW_SIZE },
		{ HIGH_GPA, HIGH_SIZE },
	};
	struct guest_memory *memory;

	if (guest_memory_create(ranges, ARRAY_SIZE(ranges), GUEST_MEMORY_SHARED, &memory) != 0)
		abort();
	return memory;
}

/* For cmocka: a test's state is the guest's memory. */
static inline int driver_make_memory(void **state)
{
	*state = driver_memory();
	return 0;
}

static inline int driver_free_memory(void **state)
{
	guest_memory_free(*state);
	return 0;
}

/* A queue of `size` where the driver has its rings. */
static inline struct virtqueue_config driver_config(uint16_t size)
{
	return (struct virtqueue_config){
		.size = size,
		.desc = DRIVER_DESC,
		.avail = DRIVER_AVAIL,
		.used = DRIVER_USED,
		.indirect = true,
	};
}

/* Of memory that the test made, so that it is there. */
static inline void *driver_at(const struct guest_memory *memory, uint64_t gpa, uint64_t size)
{
	void *place = guest_memory_at(memory, gpa, size);

	if (place == NULL)
		abort();
	return place;
}

/* A queue whose rings are empty and lie at the usual places. */
static inline void driver_init(struct driver *driver, struct guest_memory *memory, uint16_t size)
{
	*driver = (struct driver){
		.memory = memory,
		.size = size,
		.desc = driver_at(memory, DRIVER_DESC, size * UINT64_C(16)),
		.avail = driver_at(memory, DRIVER_AVAIL, 6 + size * UINT64_C(2)),
		.used = driver_at(memory, DRIVER_USED, 6 + size * UINT64_C(8)),
	};
	memset(driver->desc, 0, size * sizeof(driver->desc[0]));
	memset(driver->avail, 0, 6 + size * sizeof(driver->avail[0]));
	memset(driver->used, 0, 6 + size * sizeof(uint64_t));
}

static inline void driver_put(struct driver *driver, unsigned index, uint64_t gpa, uint32_t length,
	uint16_t flags, uint16_t next)
{
	driver->desc[index] = (struct vring_desc){ gpa, length, flags, next };
}

static inline uint16_t driver_avail_idx(const struct driver *driver)
{
	return __atomic_load_n(&driver->avail[1], __ATOMIC_RELAXED);
}

static inline void driver_set_avail_idx(struct driver *driver, uint16_t idx)
{
	__atomic_store_n(&driver->avail[1], idx, __ATOMIC_RELEASE);
}

/* Makes a chain available without telling. */
static inline void driver_offer(struct driver *driver, uint16_t head)
{
	uint16_t idx = driver_avail_idx(driver);

	__atomic_store_n(&driver->avail[2 + idx % driver->size], head, __ATOMIC_RELAXED);
	driver_set_avail_idx(driver, (uint16_t)(idx + 1));
}

static inline uint16_t driver_used_idx(const struct driver *driver)
{
	return __atomic_load_n(
		(const uint16_t *)(const void *)(driver->used + 2), __ATOMIC_ACQUIRE);
}

static inline uint16_t driver_used_flags(const struct driver *driver)
{
	return __atomic_load_n((const uint16_t *)(const void *)driver->used, __ATOMIC_RELAXED);
}

static inline uint32_t driver_used_id(const struct driver *driver, uint16_t idx)
{
	const uint8_t *entry = driver->used + 4 + idx % driver->size * UINT64_C(8);

	return __atomic_load_n((const uint32_t *)(const void *)entry, __ATOMIC_RELAXED);
}

static inline uint32_t driver_used_length(const struct driver *driver, uint16_t idx)
{
	const uint8_t *entry = driver->used + 8 + idx % driver->size * UINT64_C(8);

	return __atomic_load_n((const uint32_t *)(const void *)entry, __ATOMIC_RELAXED);
}

/* The idx at whose passing the driver wants an interrupt. */
static inline void driver_set_used_event(struct driver *driver, uint16_t event)
{
	__atomic_store_n(&driver->avail[2 + driver->size], event, __ATOMIC_RELAXED);
}

/* The idx at whose passing the device wants a kick. */
static inline uint16_t driver_avail_event(const struct driver *driver)
{
	const uint8_t *event = driver->used + 4 + driver->size * UINT64_C(8);

	return __atomic_load_n((const uint16_t *)(const void *)event, __ATOMIC_RELAXED);
}
