/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The split virtqueue, device side: the only place where a descriptor is
 * looked at.
 *
 * How it works. Driver and device share three arrays in guest memory:
 *
 *   descriptor table   desc[size]: {gpa, length, flags, next}, chained by next
 *   available ring     idx and ring[size]: heads of the chains the driver offers
 *   used ring          idx and ring[size]: heads that the device gives back, with
 *                      how many bytes it wrote
 *
 * idx of a ring only grows, modulo 65536; entry i lies at i % size. The driver
 * writes entries first and idx last (release), the device reads idx first
 * (acquire), and the other way round for the used ring. So:
 *
 *   while ((r = virtqueue_pop(vq, &chain)) == 1) {
 *           ... read and write the buffers of chain.iov ...
 *           virtqueue_push(vq, chain.head, bytes_written);
 *   }
 *   if (virtqueue_publish(vq))
 *           ... signal the call eventfd ...
 *
 * What a driver may do wrong and what comes of it: anything that is not a
 * chain by the specification makes virtqueue_pop() return -EBADMSG, and from
 * then on always: the queue is broken until it is initialised again (the
 * transport shows DEVICE_NEEDS_RESET). Each descriptor is fetched once and the
 * copy is checked, so a driver that changes it later changes nothing. A walk
 * takes at most `size` descriptors.
 *
 * One thread uses a queue; nothing here locks.
 * Source: virtio 1.2, section 2.7.
 */
#pragma once

#include <sys/uio.h>

#include "base/util.h"
#include "memory/guest_memory.h"

enum { VIRTQUEUE_SIZE_MAX = 1024 };

/* Where the driver put the rings (gpas), and what was negotiated. */
struct virtqueue_config {
	uint16_t size; /* a power of two, VIRTQUEUE_SIZE_MAX at most */
	uint64_t desc;
	uint64_t avail;
	uint64_t used;
	bool event_idx; /* VIRTIO_F_EVENT_IDX */
	bool indirect;  /* VIRTIO_F_INDIRECT_DESC */
};

/* Embedded in its user; the fields belong to virtqueue.c. */
struct virtqueue {
	const struct guest_memory *memory;
	uint8_t *desc;
	uint8_t *avail;
	uint8_t *used;
	uint16_t size;
	bool event_idx;
	bool indirect;
	bool broken;
	uint16_t next_avail;     /* the next entry of the available ring to take */
	uint16_t next_used;      /* entries written to the used ring */
	uint16_t published_used; /* the used idx that the driver sees */
	uint64_t in_flight[VIRTQUEUE_SIZE_MAX / 64]; /* bit h: head h is popped and not pushed */
};

/* One request: what the device may read, then what it may write. */
struct virtqueue_chain {
	/* Set by the caller: room for the buffers. A chain of more descriptors breaks the queue. */
	struct iovec *iov;
	unsigned iov_max;
	/* Set by virtqueue_pop(). Buffers of length 0 are left out. */
	uint16_t head;
	unsigned readable; /* iov[0, readable) */
	unsigned writable; /* iov[readable, readable + writable) */
	uint32_t readable_bytes;
	uint32_t writable_bytes;
};

/*
 * Starts a queue at ring position `base` (0 after a reset). 0, or -EINVAL when
 * the size is bad or a ring is not aligned or not wholly in guest memory.
 */
MUST_CHECK int virtqueue_init(struct virtqueue *vq, const struct guest_memory *memory,
	const struct virtqueue_config *config, uint16_t base);

/*
 * Takes the next chain. 1 with the chain, 0 when the driver offers none, or
 * -EBADMSG when the queue is broken; then nothing was taken.
 */
MUST_CHECK int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain);

/* Gives a popped chain back, after `written` bytes were written to its buffers. */
void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t written);

/* Takes the newest pop back, as if it had not been; several in their reverse order. */
void virtqueue_unpop(struct virtqueue *vq, uint16_t head);

/*
 * Shows the driver all chains pushed since the last time, in one store. True
 * when it wants to be told by an interrupt.
 */
MUST_CHECK bool virtqueue_publish(struct virtqueue *vq);

/*
 * Asks the driver for a kick when it offers more, and looks once more: true
 * when there is something already, so that the caller goes on popping instead
 * of waiting. Without a call to it, kicks may be left out by a driver.
 */
MUST_CHECK bool virtqueue_enable_kicks(struct virtqueue *vq);

/* Whether there is something to pop, or an error to find. Looks, and asks for nothing. */
MUST_CHECK bool virtqueue_has_more(const struct virtqueue *vq);

/* Tells the driver that kicks are not needed for now: the device looks by itself. */
void virtqueue_disable_kicks(struct virtqueue *vq);

/*
 * Whether all that the driver has offered was given back. For a ring that
 * somebody else serves: it looks at the two idx only, which both may move.
 */
MUST_CHECK bool virtqueue_is_settled(const struct virtqueue *vq);

/* Where to go on after a stop: the base of the next virtqueue_init(). */
uint16_t virtqueue_base(const struct virtqueue *vq);
