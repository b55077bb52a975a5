/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One block request: from a descriptor chain to a checked operation, and from
 * its result to the status byte.
 *
 * Everything that a driver can say wrong is decided here; what comes out is an
 * operation on a range that lies in the disk. Pure functions on the chain and
 * the geometry, in the queue's thread. Source: virtio 1.2, section 5.2.6.
 */
#pragma once

#include <linux/virtio_blk.h>

#include "virtio/virtqueue.h"

/* Of one discard or write-zeroes request: segments, and sectors of each. */
enum { BLOCK_SEGMENTS_MAX = 32, BLOCK_SEGMENT_SECTORS_MAX = 1 << 21 };

enum block_operation {
	BLOCK_DONE,  /* nothing to do but to tell `status` */
	BLOCK_READ,  /* into iov */
	BLOCK_WRITE, /* from iov */
	BLOCK_FLUSH,
	BLOCK_DISCARD,      /* segments */
	BLOCK_WRITE_ZEROES, /* segments */
};

/* What the driver may ask for. */
struct block_geometry {
	uint64_t size;       /* bytes */
	unsigned block_size; /* bytes */
	bool read_only;
	bool discard; /* offered, so are the segment requests */
	const char *id;
};

struct block_segment {
	uint64_t offset; /* bytes */
	uint64_t length;
	bool unmap; /* write zeroes: may deallocate */
};

struct block_request {
	enum block_operation operation;
	uint8_t status; /* VIRTIO_BLK_S_*: what to tell so far */
	bool buffered;  /* O_DIRECT refused it */
	uint16_t head;
	uint32_t written;     /* bytes in the chain's writable buffers, without the status */
	uint32_t room;        /* bytes of those buffers, without the status */
	uint8_t *status_byte; /* in guest memory; NULL: the chain has no room for it */
	struct virtio_blk_outhdr header; /* the driver's, copied */
	/* Left to transfer, of a read or write: where, into which buffers of the chain, bytes. */
	uint64_t offset;
	struct iovec *iov;
	unsigned iov_count;
	unsigned piece_count; /* of iov: the piece that block_request_cut() chose */
	uint64_t length;
	size_t cut;     /* what block_request_cut() took off the piece's last buffer */
	bool in_kernel; /* the engine's: only the kernel may end it */
	unsigned segment_count;
	struct block_segment segments[BLOCK_SEGMENTS_MAX];
};

/* Reads a popped chain; the request uses the chain's iov until it is finished. */
void block_request_parse(struct block_request *request, const struct virtqueue_chain *chain,
	const struct block_geometry *geometry);

/*
 * Chooses the first `length` bytes of what is left, or all if that is less, as
 * the next piece: the first piece_count of iov. It may be chosen anew.
 */
void block_request_cut(struct block_request *request, uint64_t length);

/* Whether the piece can go past the page cache. Both are powers of two. */
bool block_request_is_aligned(
	const struct block_request *request, unsigned memory_align, unsigned offset_align);

/* Takes `size` bytes, which there are, off the front of iov. */
void block_request_skip(struct block_request *request, size_t size);

/*
 * Accounts for `done` transferred bytes of the piece. True when bytes are left, and then
 * iov and offset are those.
 */
static inline bool block_request_advance(struct block_request *request, size_t done)
{
	request->offset += done;
	request->length -= done;
	if (request->operation == BLOCK_READ)
		request->written += (uint32_t)done;
	if (request->length == 0)
		return false;
	block_request_skip(request, done);
	return true;
}

/*
 * Writes the status byte; returns the used length. That counts from the first
 * writable byte, so the status is in it only after all data.
 */
static inline uint32_t block_request_finish(const struct block_request *request)
{
	if (request->status_byte == NULL)
		return 0;
	*request->status_byte = request->status;
	return request->written + (request->written == request->room);
}
