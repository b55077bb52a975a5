// SPDX-License-Identifier: BSD-3-Clause
/*
 * Makes and keeps the io_urings of devices. What is submitted to them is
 * their user's; the restrictions hold even when that one is taken over.
 */
#include "virtio/uring.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

enum { OPERATIONS_MAX = 8, OTHER_RULES = 2 };

static int restrict_ring(struct io_uring *ring, const struct uring_kind *kind)
{
	struct io_uring_restriction rules[OPERATIONS_MAX + OTHER_RULES] = { 0 };
	unsigned count = 0;

	while (count < kind->operation_count && count < OPERATIONS_MAX) {
		rules[count].opcode = IORING_RESTRICTION_SQE_OP;
		rules[count].sqe_op = kind->operations[count];
		count++;
	}
	rules[count].opcode = IORING_RESTRICTION_REGISTER_OP;
	rules[count++].register_op = IORING_REGISTER_ENABLE_RINGS;
	rules[count].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	rules[count++].sqe_flags = kind->sqe_flags;
	int r = io_uring_register_restrictions(ring, rules, count);

	return r < 0 ? r : io_uring_enable_rings(ring);
}

/*
 * The newest way first: Linux 6.1 does completions only when we wait for them,
 * for one thread alone, which is the one that enables the ring.
 */
static int create_ring(struct io_uring *ring, const struct uring_kind *kind, bool one_thread)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	int r = -ENOSYS;

	for (unsigned i = one_thread ? 0 : 1; r < 0 && i < ARRAY_SIZE(flags); i++) {
		r = io_uring_queue_init(kind->entries, ring, flags[i] | IORING_SETUP_R_DISABLED);
		if (r < 0)
			continue;
		r = restrict_ring(ring, kind);
		if (r < 0)
			io_uring_queue_exit(ring);
	}
	return r < 0 ? -EOPNOTSUPP : 0;
}

static void free_ring(struct io_uring **ring)
{
	if (*ring != NULL)
		io_uring_queue_exit(*ring);
	free(*ring);
	*ring = NULL;
}

void urings_prepare(struct urings *urings, const struct uring_kind *kind, unsigned count)
{
	urings->prepared = true;
	for (unsigned i = 0; i < count && i < DEVICE_QUEUES_MAX; i++) {
		struct io_uring *ring = calloc(1, sizeof(*ring));

		if (ring == NULL || create_ring(ring, kind, false) < 0) {
			free(ring);
			return; /* those without are served without */
		}
		urings->rings[i] = ring;
	}
}

void urings_prepare_thread(struct urings *urings, const struct uring_kind *kind, unsigned index)
{
	if (urings->prepared)
		return;
	struct io_uring *ring = calloc(1, sizeof(*ring));

	if (ring != NULL && create_ring(ring, kind, true) < 0) {
		free(ring);
		ring = NULL;
	}
	free_ring(&urings->thread_rings[index]);
	urings->thread_rings[index] = ring;
	urings->thread_ring_tried[index] = true;
}

unsigned urings_fds(const struct urings *urings, int *ret_fds)
{
	unsigned count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(urings->rings); i++)
		if (urings->rings[i] != NULL)
			ret_fds[count++] = urings->rings[i]->ring_fd;
	return count;
}

void urings_free(struct urings *urings)
{
	for (unsigned i = 0; i < ARRAY_SIZE(urings->rings); i++) {
		free_ring(&urings->rings[i]);
		free_ring(&urings->thread_rings[i]);
	}
}

struct io_uring *urings_open(struct urings *urings, const struct uring_kind *kind, unsigned index)
{
	if (urings->rings[index] != NULL)
		return urings->rings[index];
	if (!urings->thread_ring_tried[index])
		urings_prepare_thread(urings, kind, index);
	return urings->thread_rings[index];
}

void urings_close(struct urings *urings, unsigned index, bool dead)
{
	free_ring(&urings->thread_rings[index]);
	urings->thread_ring_tried[index] = false;
	if (dead)
		free_ring(&urings->rings[index]);
}
