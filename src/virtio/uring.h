/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The io_urings of a device, one for each queue, each restricted to the few
 * operations that the device needs. The kernel may refuse: an old one, one that
 * is told not to, a container's filter. Then a queue does without.
 *
 * A ring is made by the thread that serves its queue, for that one alone, which
 * is faster; or long before it for a jail that forbids to make any, and then it
 * passes from one thread to the next, who must leave it with nothing in flight.
 */
#pragma once

#include <stdint.h>

#include "virtio/device.h"

struct io_uring;

struct uring_kind {
	unsigned entries;
	uint8_t sqe_flags; /* IOSQE_ that are allowed */
	uint8_t operation_count;
	const uint8_t *operations; /* IORING_OP_ that are allowed */
};

struct urings {
	/*
	 * Made by urings_prepare() and used again at each start; NULL where a
	 * queue's thread makes its own, or, after it, has none.
	 */
	struct io_uring *rings[DEVICE_QUEUES_MAX];
	bool prepared; /* no ring can be made any more */
	/* Of a queue's thread, for it alone; NULL after it tried: this host has none. */
	struct io_uring *thread_rings[DEVICE_QUEUES_MAX];
	bool thread_ring_tried[DEVICE_QUEUES_MAX];
};

/* Makes the rings of queues [0, count), as far as the host gives us any. */
void urings_prepare(struct urings *urings, const struct uring_kind *kind, unsigned count);
/* Makes the ring of the queue whose thread calls, unless the above has been there. */
void urings_prepare_thread(struct urings *urings, const struct uring_kind *kind, unsigned index);
/* Adds the descriptors of prepared rings; how many. */
unsigned urings_fds(const struct urings *urings, int *ret_fds);
void urings_free(struct urings *urings);

/*
 * The ring of the queue that this thread serves; made now if nobody did.
 * NULL when this host gives us none.
 */
struct io_uring *urings_open(struct urings *urings, const struct uring_kind *kind, unsigned index);
/* Whether no other thread has had it or will have it. */
static inline bool urings_is_own(
	const struct urings *urings, const struct io_uring *ring, unsigned index)
{
	return ring == urings->thread_rings[index];
}
/* The thread is done with it. One for others is closed only if it is dead, and not replaced. */
void urings_close(struct urings *urings, unsigned index, bool dead);
