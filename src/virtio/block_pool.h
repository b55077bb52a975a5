/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The requests that a block queue can have in flight, each with room for the
 * buffers of its chain: one mapping, of which is touched only what is used. No
 * request is allocated while the queue runs. One thread's.
 */
#pragma once

#include <errno.h>
#include <sys/mman.h>

#include "virtio/block_engine.h"

/* The request is the slot's beginning. */
struct block_slot {
	struct block_request request;
	struct iovec buffers[];
};

struct block_pool {
	unsigned count;
	unsigned free_count;
	struct block_request **free_requests; /* the last one is the next to be taken */
	size_t slot_size;
	size_t memory_size; /* of the mapping: all slots, then the free list */
	uint8_t *memory;
};

static inline struct block_request *block_pool_at(const struct block_pool *pool, unsigned index)
{
	return (void *)(pool->memory + index * pool->slot_size);
}

/* `buffers` for each of `count` requests. 0 or -ENOMEM. */
static inline int block_pool_create(struct block_pool *pool, unsigned count, size_t buffers)
{
	size_t slot_size = sizeof(struct block_slot) + buffers * sizeof(struct iovec);
	size_t slots_size = count * slot_size;
	size_t memory_size = slots_size + count * sizeof(struct block_request *);
	uint8_t *memory = mmap(NULL, memory_size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return -ENOMEM;
	*pool = (struct block_pool){
		.count = count,
		.free_count = count,
		.free_requests = (void *)(memory + slots_size),
		.slot_size = slot_size,
		.memory_size = memory_size,
		.memory = memory,
	};
	/* The first ones on top, so that a queue that is never full touches few pages. */
	for (unsigned i = 0; i < count; i++)
		pool->free_requests[i] = block_pool_at(pool, count - 1 - i);
	return 0;
}

static inline void block_pool_destroy(struct block_pool *pool)
{
	munmap(pool->memory, pool->memory_size);
}

/* The request that block_pool_take() takes, or NULL: all are in flight. */
static inline struct block_request *block_pool_next(const struct block_pool *pool)
{
	return pool->free_count == 0 ? NULL : pool->free_requests[pool->free_count - 1];
}

static inline struct iovec *block_pool_buffers(struct block_request *request)
{
	return ((struct block_slot *)request)->buffers;
}

static inline void block_pool_take(struct block_pool *pool)
{
	pool->free_count--;
}

static inline void block_pool_give(struct block_pool *pool, struct block_request *request)
{
	pool->free_requests[pool->free_count++] = request;
}
