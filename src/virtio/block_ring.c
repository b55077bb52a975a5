// SPDX-License-Identifier: BSD-3-Clause
/*
 * Makes the io_urings of the block engine, each restricted to the few
 * operations that the engine needs. The kernel may refuse: an old one, one that
 * is told not to, a container's filter.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "virtio/block_engine.h"

static const uint8_t allowed_operations[] = {
	IORING_OP_READV,
	IORING_OP_WRITEV,
	IORING_OP_FSYNC,
	IORING_OP_POLL_ADD,
	IORING_OP_POLL_REMOVE,
	IORING_OP_WRITE,
};

static int restrict_ring(struct io_uring *ring)
{
	struct io_uring_restriction rules[ARRAY_SIZE(allowed_operations) + 2] = { 0 };

	for (unsigned i = 0; i < ARRAY_SIZE(allowed_operations); i++) {
		rules[i].opcode = IORING_RESTRICTION_SQE_OP;
		rules[i].sqe_op = allowed_operations[i];
	}
	rules[ARRAY_SIZE(allowed_operations)].opcode = IORING_RESTRICTION_REGISTER_OP;
	rules[ARRAY_SIZE(allowed_operations)].register_op = IORING_REGISTER_ENABLE_RINGS;
	rules[ARRAY_SIZE(allowed_operations) + 1].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	rules[ARRAY_SIZE(allowed_operations) + 1].sqe_flags = IOSQE_CQE_SKIP_SUCCESS;
	int r = io_uring_register_restrictions(ring, rules, ARRAY_SIZE(rules));

	return r < 0 ? r : io_uring_enable_rings(ring);
}

/*
 * The newest way first: Linux 6.1 does completions only when we wait for them,
 * for one thread alone, which is the one that enables the ring.
 */
int block_ring_create(struct io_uring *ring, unsigned entries, bool one_thread)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	int r = -ENOSYS;

	for (unsigned i = one_thread ? 0 : 1; r < 0 && i < ARRAY_SIZE(flags); i++) {
		r = io_uring_queue_init(entries, ring, flags[i] | IORING_SETUP_R_DISABLED);
		if (r < 0)
			continue;
		r = restrict_ring(ring);
		if (r < 0)
			io_uring_queue_exit(ring);
	}
	return r < 0 ? -EOPNOTSUPP : 0;
}

void block_prepare_rings(struct device *device, unsigned entries)
{
	for (unsigned i = 0; i < device->options.queues; i++) {
		struct io_uring *ring = calloc(1, sizeof(*ring));

		if (ring == NULL || block_ring_create(ring, entries, false) < 0) {
			free(ring);
			return; /* those without are served without */
		}
		device->rings[i] = ring;
	}
}

static void free_ring(struct io_uring **ring)
{
	if (*ring != NULL)
		io_uring_queue_exit(*ring);
	free(*ring);
	*ring = NULL;
}

void block_prepare_thread_ring(struct device_queue *queue)
{
	struct device *device = queue->device;

	if (device->prepared || device->options.sync_engine)
		return;
	block_free_thread_ring(device, queue->index);
	struct io_uring *ring = calloc(1, sizeof(*ring));

	if (ring != NULL && block_ring_create(ring, BLOCK_RING_ENTRIES, true) < 0) {
		free(ring);
		ring = NULL;
	}
	device->thread_rings[queue->index] = ring;
	device->thread_ring_tried[queue->index] = true;
}

void block_free_thread_ring(struct device *device, unsigned index)
{
	free_ring(&device->thread_rings[index]);
	device->thread_ring_tried[index] = false;
}

int block_ring_fd(const struct device *device, unsigned index)
{
	return device->rings[index]->ring_fd;
}

void block_free_ring(struct device *device, unsigned index)
{
	free_ring(&device->rings[index]);
}
