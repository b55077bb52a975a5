// SPDX-License-Identifier: BSD-3-Clause
/*
 * Parses block requests. The header and the segments are copied out of guest
 * memory once, the copies are checked, and only they are used.
 */
#include "virtio/block_request.h"

#include <string.h>

#include "virtio/block_image.h"

static void undo_cut(struct block_request *request)
{
	if (request->cut != 0)
		request->iov[request->piece_count - 1].iov_len += request->cut;
	request->cut = 0;
}

void block_request_skip(struct block_request *request, size_t size)
{
	undo_cut(request);
	while (size > 0) {
		size_t n = min_u64(size, request->iov->iov_len);

		request->iov->iov_base = (uint8_t *)request->iov->iov_base + n;
		request->iov->iov_len -= n;
		size -= n;
		if (request->iov->iov_len == 0) {
			request->iov++;
			request->iov_count--;
		}
	}
}

/* Copies from the front of buffers that have as much. */
static COLD void gather(const struct iovec *iov, void *to, size_t size)
{
	uint8_t *out = to;

	for (; size > 0; iov++) {
		size_t n = min_u64(size, iov->iov_len);

		memcpy(out, iov->iov_base, n);
		out += n;
		size -= n;
	}
}

static inline bool copy_header(struct block_request *request, const struct virtqueue_chain *chain)
{
	const size_t size = sizeof(request->header);

	if (chain->readable_bytes < size)
		return false;
	if (chain->iov->iov_len >= size)
		memcpy(&request->header, chain->iov->iov_base, size);
	else
		gather(chain->iov, &request->header, size);
	return true;
}

/* The last writable byte of a chain is the status; the buffers before it are data. */
static inline bool split_writable(
	struct block_request *request, const struct virtqueue_chain *chain)
{
	struct iovec *data = chain->iov + chain->readable;
	unsigned count = chain->writable;

	if (count == 0)
		return false;
	struct iovec *last = &data[count - 1];
	size_t length = last->iov_len - 1;

	last->iov_len = length;
	request->status_byte = (uint8_t *)last->iov_base + length;
	request->room = chain->writable_bytes - 1;
	request->iov = data;
	request->iov_count = length != 0 ? count : count - 1;
	return true;
}

/* The data are the readable buffers behind the header. How many bytes. */
static uint64_t turn_to_readable(struct block_request *request, const struct virtqueue_chain *chain)
{
	request->iov = chain->iov;
	request->iov_count = chain->readable;
	block_request_skip(request, sizeof(request->header));
	return chain->readable_bytes - sizeof(request->header);
}

static inline bool in_disk(const struct block_geometry *geometry, uint64_t sector, uint64_t length,
	uint64_t *ret_offset)
{
	if (sector > geometry->size / SECTOR_SIZE)
		return false;
	uint64_t offset = sector * SECTOR_SIZE;

	*ret_offset = offset;
	return ((offset | length) & (geometry->block_size - 1)) == 0 &&
	       length <= geometry->size - offset;
}

static inline void parse_transfer(struct block_request *request, enum block_operation operation,
	uint64_t length, const struct block_geometry *geometry)
{
	request->length = length;
	if (!in_disk(geometry, request->header.sector, length, &request->offset))
		return;
	request->operation = length != 0 ? operation : BLOCK_DONE;
	request->status = VIRTIO_BLK_S_OK;
}

static void parse_id(struct block_request *request, const struct block_geometry *geometry)
{
	char id[BLOCK_ID_SIZE] = { 0 };
	size_t done = 0;

	memcpy(id, geometry->id, strnlen(geometry->id, sizeof(id)));
	for (unsigned i = 0; done < sizeof(id) && i < request->iov_count; i++) {
		size_t n = min_u64(sizeof(id) - done, request->iov[i].iov_len);

		memcpy(request->iov[i].iov_base, id + done, n);
		done += n;
	}
	request->written = (uint32_t)done;
	request->status = VIRTIO_BLK_S_OK;
}

/* One segment of a discard or write-zeroes request; its status when it is bad. */
static uint8_t parse_segment(const struct virtio_blk_discard_write_zeroes *raw, bool discard,
	const struct block_geometry *geometry, struct block_segment *ret_segment)
{
	uint32_t allowed = discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

	if ((raw->flags & ~allowed) != 0)
		return VIRTIO_BLK_S_UNSUPP;
	if (raw->num_sectors > BLOCK_SEGMENT_SECTORS_MAX)
		return VIRTIO_BLK_S_IOERR;
	ret_segment->length = (uint64_t)raw->num_sectors * SECTOR_SIZE;
	ret_segment->unmap = raw->flags != 0;
	return in_disk(geometry, raw->sector, ret_segment->length, &ret_segment->offset)
		       ? VIRTIO_BLK_S_OK
		       : VIRTIO_BLK_S_IOERR;
}

static void parse_segments(struct block_request *request, enum block_operation operation,
	uint64_t length, const struct block_geometry *geometry)
{
	struct virtio_blk_discard_write_zeroes raw;

	if (!geometry->discard && operation == BLOCK_DISCARD) {
		request->status = VIRTIO_BLK_S_UNSUPP;
		return;
	}
	if (length == 0 || length % sizeof(raw) != 0 || length / sizeof(raw) > BLOCK_SEGMENTS_MAX)
		return;
	for (; length > 0; length -= sizeof(raw)) {
		struct block_segment *segment = &request->segments[request->segment_count++];

		gather(request->iov, &raw, sizeof(raw));
		block_request_skip(request, sizeof(raw));
		request->status =
			parse_segment(&raw, operation == BLOCK_DISCARD, geometry, segment);
		if (request->status != VIRTIO_BLK_S_OK)
			return;
	}
	request->operation = operation;
}

/* What is neither a read nor a write. */
static COLD void parse_rest(struct block_request *request, const struct virtqueue_chain *chain,
	const struct block_geometry *geometry)
{
	bool discard = request->header.type == VIRTIO_BLK_T_DISCARD;

	switch (request->header.type) {
	case VIRTIO_BLK_T_FLUSH:
		request->operation = BLOCK_FLUSH;
		request->status = VIRTIO_BLK_S_OK;
		break;
	case VIRTIO_BLK_T_GET_ID:
		parse_id(request, geometry);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		if (!geometry->read_only)
			parse_segments(request, discard ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES,
				turn_to_readable(request, chain), geometry);
		break;
	default:
		request->status = VIRTIO_BLK_S_UNSUPP;
	}
}

void block_request_parse(struct block_request *request, const struct virtqueue_chain *chain,
	const struct block_geometry *geometry)
{
	/* Until something better is known, it is an error without an operation. */
	request->operation = BLOCK_DONE;
	request->status = VIRTIO_BLK_S_IOERR;
	request->buffered = false;
	request->head = chain->head;
	request->written = request->room = 0;
	request->status_byte = NULL;
	request->cut = request->segment_count = 0;
	if (!split_writable(request, chain) || !copy_header(request, chain))
		return;
	if (request->header.type == VIRTIO_BLK_T_IN)
		parse_transfer(request, BLOCK_READ, request->room, geometry);
	else if (request->header.type != VIRTIO_BLK_T_OUT)
		parse_rest(request, chain, geometry);
	else if (!geometry->read_only)
		parse_transfer(request, BLOCK_WRITE, turn_to_readable(request, chain), geometry);
}

void block_request_cut(struct block_request *request, uint64_t length)
{
	unsigned count = 0;

	undo_cut(request);
	request->piece_count = request->iov_count;
	if (length >= request->length)
		return;
	while (request->iov[count].iov_len < length)
		length -= request->iov[count++].iov_len;
	request->cut = request->iov[count].iov_len - length;
	request->iov[count].iov_len = length;
	request->piece_count = count + 1;
}

bool block_request_is_aligned(
	const struct block_request *request, unsigned memory_align, unsigned offset_align)
{
	uint64_t bases = 0;
	uint64_t lengths = request->offset;

	for (unsigned i = 0; i < request->piece_count; i++) {
		bases |= (uintptr_t)request->iov[i].iov_base;
		lengths |= request->iov[i].iov_len;
	}
	return (bases & (memory_align - 1)) == 0 && (lengths & (offset_align - 1)) == 0;
}
