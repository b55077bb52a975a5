/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A block device behind the vhost contract, on a temporary sparse file, and a
 * driver of our own for it: rings in guest memory, one indirect descriptor a
 * request. Included by one test program; failures are cmocka's.
 */
#pragma once

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "memory/guest_memory.h"
#include "virtio/block_engine.h"
#include "virtio/device.h"
#include "virtio/vhost_thread.h"

enum { QUEUE_SIZE = 256, QUEUES = 4, DATA_SIZE = 4096, DISK_SIZE = 4 << 20 };

#define BIT(n)   (UINT64_C(1) << (n))
#define RINGS    (BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC))
#define USUAL    (RINGS | BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE))
#define QUEUE_AT UINT64_C(0x10000)  /* where a queue's rings lie; one every QUEUE_AT */
#define SLOTS_AT UINT64_C(0x100000) /* where a queue's requests lie; one every 2 MiB */

struct slot {
	struct vring_desc table[3];
	struct virtio_blk_outhdr header;
	uint8_t status;
	uint8_t data[DATA_SIZE];
};

struct driver_queue {
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint64_t slots_gpa;
	int kick_fd;
	int call_fd;
	uint16_t seen; /* of the used ring */
};

struct rig {
	char path[80];
	struct guest_memory *memory;
	struct vhost *vhost;
	struct device *device;
	struct driver_queue queues[QUEUES];
	unsigned queue_count;
	int error_fd;
};

static inline struct slot *slot_at(struct rig *rig, unsigned queue, unsigned slot)
{
	struct slot *found = guest_memory_at(rig->memory,
		rig->queues[queue].slots_gpa + slot * sizeof(struct slot), sizeof(struct slot));

	if (found == NULL)
		abort();
	return found;
}

static inline void start_queue(struct rig *rig, unsigned index)
{
	struct driver_queue *queue = &rig->queues[index];
	uint64_t gpa = QUEUE_AT * (index + 1);
	struct vhost_ring ring = { .size = QUEUE_SIZE,
		.desc = gpa,
		.avail = gpa + 0x4000,
		.used = gpa + 0x8000,
		.kick_fd = queue->kick_fd,
		.call_fd = queue->call_fd };

	memset(guest_memory_at(rig->memory, gpa, QUEUE_AT), 0, QUEUE_AT);
	queue->desc = guest_memory_at(rig->memory, ring.desc, 16 * QUEUE_SIZE);
	queue->avail = guest_memory_at(rig->memory, ring.avail, 0x1000);
	queue->used = guest_memory_at(rig->memory, ring.used, 0x1000);
	queue->slots_gpa = SLOTS_AT + index * 2 * MIB;
	queue->seen = 0;
	assert_int_equal(rig->vhost->ops->set_vring(rig->vhost, index, &ring), 0);
	assert_int_equal(rig->vhost->ops->start_vring(rig->vhost, index), 0);
}

static inline uint16_t stop_queue(struct rig *rig, unsigned index)
{
	uint16_t base = 0;

	assert_int_equal(rig->vhost->ops->stop_vring(rig->vhost, index, &base), 0);
	return base;
}

static inline void start_all(struct rig *rig, uint64_t features)
{
	assert_int_equal(rig->vhost->ops->set_features(rig->vhost, features), 0);
	for (unsigned i = 0; i < rig->queue_count; i++)
		start_queue(rig, i);
}

static inline void stop_all(struct rig *rig)
{
	for (unsigned i = 0; i < rig->queue_count; i++)
		(void)stop_queue(rig, i);
}

/* A device on a sparse file, not started. */
static inline struct rig *new_rig(struct block_options options, const char *directory)
{
	const struct guest_memory_range range = { 0, 10 * MIB };
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	snprintf(rig->path, sizeof(rig->path), "%s/crosvm-block-XXXXXX", directory);
	CLEANUP_FD int fd = mkostemp(rig->path, O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, DISK_SIZE), 0);
	assert_int_equal(guest_memory_create(&range, 1, 0, &rig->memory), 0);
	options.path = rig->path;
	options.block_size = options.block_size != 0 ? options.block_size : 512;
	options.queues = options.queues != 0 ? options.queues : 1;
	strcpy(options.id, "the-disk");
	assert_int_equal(block_device_class.open(&options, &rig->device), 0);
	assert_int_equal(
		vhost_thread_create(block_device_class.ops, rig->device, rig->memory, &rig->vhost),
		0);
	rig->queue_count = rig->vhost->ops->queue_count(rig->vhost);
	assert_int_equal(rig->queue_count, options.queues);
	for (unsigned i = 0; i < rig->queue_count; i++) {
		rig->queues[i].kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		rig->queues[i].call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
	rig->error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(rig->vhost->ops->set_error_fd(rig->vhost, rig->error_fd), 0);
	return rig;
}

static inline void free_rig(struct rig *rig)
{
	rig->vhost->ops->free(rig->vhost);
	guest_memory_free(rig->memory);
	for (unsigned i = 0; i < rig->queue_count; i++) {
		close(rig->queues[i].kick_fd);
		close(rig->queues[i].call_fd);
	}
	close(rig->error_fd);
	assert_int_equal(unlink(rig->path), 0);
	free(rig);
}

/* One whose queues have their rings; where the host gives us none, the test is skipped. */
static inline struct rig *new_ring_rig(unsigned queues)
{
	struct rig *rig = new_rig((struct block_options){ .queues = queues }, "/tmp");

	block_device_class.ops->prepare(rig->device);
	if (rig->device->urings.rings[queues - 1] != NULL)
		return rig;
	free_rig(rig);
	skip();
	abort(); /* does not come here, which tools do not know */
}

/* Offers one request; its data is in the slot. The driver tells of it by kick(). */
static inline void offer(struct rig *rig, unsigned index, unsigned number, uint32_t type,
	uint64_t sector, uint32_t size)
{
	struct driver_queue *queue = &rig->queues[index];
	struct slot *slot = slot_at(rig, index, number);
	uint64_t gpa = queue->slots_gpa + number * sizeof(*slot);
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;

	slot->header = (struct virtio_blk_outhdr){ .type = type, .sector = sector };
	slot->status = 0xee;
	slot->table[0] = (struct vring_desc){ gpa + offsetof(struct slot, header),
		sizeof(slot->header), VRING_DESC_F_NEXT, 1 };
	slot->table[1] = (struct vring_desc){ gpa + offsetof(struct slot, data), size,
		(uint16_t)(VRING_DESC_F_NEXT | (in ? VRING_DESC_F_WRITE : 0)), 2 };
	slot->table[2] = (struct vring_desc){ gpa + offsetof(struct slot, status), 1,
		VRING_DESC_F_WRITE, 0 };
	queue->desc[number] =
		(struct vring_desc){ gpa, sizeof(slot->table), VRING_DESC_F_INDIRECT, 0 };
	uint16_t idx = queue->avail->idx;

	queue->avail->ring[idx % QUEUE_SIZE] = (uint16_t)number;
	__atomic_store_n(&queue->avail->idx, (uint16_t)(idx + 1), __ATOMIC_RELEASE);
}

static inline void kick(struct rig *rig, unsigned index)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	assert_int_equal(eventfd_write(rig->queues[index].kick_fd, 1), 0);
}

/* Waits for `count` more answers, by interrupts alone. */
static inline void wait_for(struct rig *rig, unsigned index, unsigned count)
{
	struct driver_queue *queue = &rig->queues[index];
	uint16_t goal = (uint16_t)(queue->seen + count);
	struct pollfd call = { .fd = queue->call_fd, .events = POLLIN };
	eventfd_t calls;

	while (__atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE) != goal) {
		if (poll(&call, 1, 20000) <= 0)
			fail_msg("%u answers, not %u", queue->used->idx, goal);
		(void)eventfd_read(queue->call_fd, &calls);
	}
	queue->seen = goal;
}

/* The last answer: the number of its request as its id, and how much was written. */
static inline struct vring_used_elem last_answer(const struct rig *rig, unsigned index)
{
	const struct driver_queue *queue = &rig->queues[index];

	return queue->used->ring[(uint16_t)(queue->seen - 1) % QUEUE_SIZE];
}

/* One request on queue 0 and its status. */
static inline uint8_t ask(struct rig *rig, uint32_t type, uint64_t sector, uint32_t size)
{
	offer(rig, 0, 0, type, sector, size);
	kick(rig, 0);
	wait_for(rig, 0, 1);
	return slot_at(rig, 0, 0)->status;
}

static inline uint8_t ask_segment(
	struct rig *rig, uint32_t type, uint64_t sector, uint32_t count, uint32_t flags)
{
	const struct virtio_blk_discard_write_zeroes segment = { sector, count, flags };

	memcpy(slot_at(rig, 0, 0)->data, &segment, sizeof(segment));
	return ask(rig, type, 0, sizeof(segment));
}

static inline uint8_t pattern(uint64_t offset)
{
	return (uint8_t)(offset * 7 + (offset >> 9) * 13 + 1);
}

static inline void fill(struct slot *slot, uint64_t offset, size_t size)
{
	for (size_t i = 0; i < size; i++)
		slot->data[i] = pattern(offset + i);
}

static inline void assert_filled(const uint8_t *data, uint64_t offset, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (data[i] != pattern(offset + i))
			fail_msg("byte 0x%lx is wrong", offset + i);
}

static inline void read_file(const struct rig *rig, void *data, size_t size, uint64_t offset)
{
	CLEANUP_FD int fd = open(rig->path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(fd_pread_full(fd, data, size, offset), 0);
}

static inline uint64_t allocated(const struct rig *rig)
{
	struct stat st;

	assert_int_equal(stat(rig->path, &st), 0);
	assert_int_equal(st.st_size, DISK_SIZE);
	return (uint64_t)st.st_blocks * 512;
}
