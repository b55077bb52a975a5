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
	return io_uring_register_restrictions(ring, rules, count);
}

/*
 * Those for files, and one for all else. By itself the kernel gives each thread up to four a
 * processor; those that the jail's limit keeps it from making cost I/O errors. Linux 5.15, and
 * older ones stay as they are; before 6.4 it counts them for each NUMA node.
 */
static void limit_workers(struct io_uring *ring, unsigned workers)
{
	unsigned limits[] = { workers - 1, 1 };

	(void)io_uring_register_iowq_max_workers(ring, limits);
}

/*
 * The newest way first: Linux 6.1 does completions only when we wait for them,
 * for one thread alone, which is the one that enables the ring. It is told in
 * the ring's memory (TASKRUN) that there are some.
 */
static int create_ring(struct io_uring *ring, const struct uring_kind *kind, unsigned workers)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		0,
	};
	int r = -ENOSYS;

	for (unsigned i = 0; r < 0 && i < ARRAY_SIZE(flags); i++) {
		r = io_uring_queue_init(kind->entries, ring, flags[i] | IORING_SETUP_R_DISABLED);
		if (r < 0)
			continue;
		if (workers != 0)
			limit_workers(ring, workers);
		/* Linux 5.13, with which multishot polls came: there is no bit for them. */
		r = (ring->features & IORING_FEAT_RSRC_TAGS) != 0 ? restrict_ring(ring, kind)
								  : -EOPNOTSUPP;
		if (r < 0)
			io_uring_queue_exit(ring);
	}
	return r < 0 ? -EOPNOTSUPP : 0;
}

/* Its thread's share of workers; 0: as many as the kernel likes. */
static void make(
	struct urings *urings, const struct uring_kind *kind, unsigned index, unsigned workers)
{
	struct io_uring *ring = calloc(1, sizeof(*ring));

	if (ring != NULL && create_ring(ring, kind, workers) < 0) {
		free(ring);
		ring = NULL;
	}
	urings->rings[index] = ring;
	urings->tried[index] = true;
}

/* One alone has nobody to share with: that it gets no more is no error while it has some. */
void urings_prepare(struct urings *urings, const struct uring_kind *kind, unsigned count)
{
	unsigned workers = count > 1 ? URING_WORKERS / count : 0;

	for (unsigned i = 0; i < count && i < DEVICE_QUEUES_MAX; i++)
		make(urings, kind, i, workers);
}

unsigned urings_fds(const struct urings *urings, int *ret_fds)
{
	unsigned count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(urings->rings); i++)
		if (urings->rings[i] != NULL)
			ret_fds[count++] = urings->rings[i]->ring_fd;
	return count;
}

void urings_give_up(struct urings *urings, unsigned index)
{
	struct io_uring *ring = urings->rings[index];

	if (ring != NULL)
		io_uring_queue_exit(ring);
	free(ring);
	urings->rings[index] = NULL;
}

void urings_free(struct urings *urings)
{
	for (unsigned i = 0; i < ARRAY_SIZE(urings->rings); i++)
		urings_give_up(urings, i);
}

struct io_uring *urings_open(struct urings *urings, const struct uring_kind *kind, unsigned index)
{
	if (!urings->tried[index])
		make(urings, kind, index, 0);
	if (urings->rings[index] != NULL && !urings->enabled[index]) {
		urings->enabled[index] = io_uring_enable_rings(urings->rings[index]) == 0;
		if (!urings->enabled[index])
			urings_give_up(urings, index);
	}
	return urings->rings[index];
}
