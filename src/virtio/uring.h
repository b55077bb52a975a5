/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The io_urings of a device, one for each queue, each restricted to the few
 * operations that the device needs. The kernel may refuse: an old one, one that
 * is told not to, a container's filter. Then a queue does without.
 *
 * A ring does its work for one thread alone, that of its queue, which is faster
 * (Linux 6.1). It is made by that thread; or long before it for a jail that forbids
 * to make any, and then the thread only enables it. Who serves the queue leaves it
 * with nothing in flight, for the next time.
 */
#pragma once

#include <stdint.h>

#include "virtio/device.h"

struct io_uring;

/* Threads that the kernel makes in a jailed device's process for I/O that would wait; of all
 * rings. */
enum { URING_WORKERS = 64 };

struct uring_kind {
	unsigned entries;
	uint8_t sqe_flags; /* IOSQE_ that are allowed */
	uint8_t operation_count;
	const uint8_t *operations; /* IORING_OP_ that are allowed */
};

struct urings {
	struct io_uring *rings[DEVICE_QUEUES_MAX]; /* NULL: not made yet, or none is to be had */
	bool tried[DEVICE_QUEUES_MAX];             /* made, or in vain: it is not made again */
	bool enabled[DEVICE_QUEUES_MAX];           /* by its thread */
};

/*
 * Makes the rings of queues [0, count), as far as the host gives us any. For a jail: none
 * takes the workers of another, of which there are URING_WORKERS.
 */
void urings_prepare(struct urings *urings, const struct uring_kind *kind, unsigned count);
/* Adds the descriptors of rings; how many. */
unsigned urings_fds(const struct urings *urings, int *ret_fds);
void urings_free(struct urings *urings);

/*
 * The ring of the queue that this thread serves; made now if nobody did.
 * NULL when this host gives us none.
 */
struct io_uring *urings_open(struct urings *urings, const struct uring_kind *kind, unsigned index);
/* One that takes nothing any more. It is not replaced. */
void urings_give_up(struct urings *urings, unsigned index);
