// SPDX-License-Identifier: BSD-3-Clause
/*
 * Parses block requests. The header and the segments are copied out of guest
 * memory once, the copies are checked, and only they are used.
 */
#include "virtio/block_request.h"

#include <string.h>

#include "virtio/block_image.h"

/* Copies from the front of a list of buffers and moves it on. False when it is too short. */
static bool take_bytes(struct iovec **iov, unsigned *count, void *to, size_t size)
{
	uint8_t *out = to;

	while (size > 0 && *count > 0) {
		size_t n = min_u64(size, (*iov)->iov_len);

		memcpy(out, (*iov)->iov_base, n);
		out += n;
		size -= n;
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
		if ((*iov)->iov_len == 0) {
			(*iov)++;
			(*count)--;
		}
	}
	return size == 0;
}

static uint64_t total_length(const struct iovec *iov, unsigned count)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < count; i++)
		total += iov[i].iov_len;
	return total;
}

/* The last writable byte of a chain is the status; the buffers before it are data. */
static void take_status(struct block_request *request, struct iovec *writable, unsigned *count,
	uint32_t writable_bytes)
{
	if (*count == 0)
		return;
	struct iovec *last = &writable[*count - 1];

	last->iov_len--;
	request->status_byte = (uint8_t *)last->iov_base + last->iov_len;
	request->room = writable_bytes - 1;
	if (last->iov_len == 0)
		(*count)--;
}

static bool in_disk(const struct block_geometry *geometry, uint64_t sector, uint64_t length,
	uint64_t *ret_offset)
{
	if (sector > geometry->size / SECTOR_SIZE)
		return false;
	*ret_offset = sector * SECTOR_SIZE;
	return *ret_offset % geometry->block_size == 0 && length % geometry->block_size == 0 &&
	       length <= geometry->size - *ret_offset;
}

static void parse_transfer(struct block_request *request, enum block_operation operation,
	uint64_t sector, struct iovec *data, unsigned count, uint64_t length,
	const struct block_geometry *geometry)
{
	request->length = length;
	if (!in_disk(geometry, sector, request->length, &request->offset))
		return;
	request->iov = data;
	request->iov_count = count;
	request->operation = request->length != 0 ? operation : BLOCK_DONE;
	request->status = VIRTIO_BLK_S_OK;
}

static void parse_id(struct block_request *request, struct iovec *data, unsigned count,
	const struct block_geometry *geometry)
{
	char id[BLOCK_ID_SIZE] = { 0 };
	size_t done = 0;

	memcpy(id, geometry->id, strnlen(geometry->id, sizeof(id)));
	for (unsigned i = 0; done < sizeof(id) && i < count; i++) {
		size_t n = min_u64(sizeof(id) - done, data[i].iov_len);

		memcpy(data[i].iov_base, id + done, n);
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
	struct iovec *data, unsigned count, const struct block_geometry *geometry)
{
	struct virtio_blk_discard_write_zeroes raw;
	uint64_t length = total_length(data, count);

	if (!geometry->discard && operation == BLOCK_DISCARD) {
		request->status = VIRTIO_BLK_S_UNSUPP;
		return;
	}
	if (length == 0 || length % sizeof(raw) != 0 || length / sizeof(raw) > BLOCK_SEGMENTS_MAX)
		return;
	while (take_bytes(&data, &count, &raw, sizeof(raw))) {
		struct block_segment *segment = &request->segments[request->segment_count++];

		request->status =
			parse_segment(&raw, operation == BLOCK_DISCARD, geometry, segment);
		if (request->status != VIRTIO_BLK_S_OK)
			return;
	}
	request->operation = operation;
}

void block_request_parse(struct block_request *request, const struct virtqueue_chain *chain,
	const struct block_geometry *geometry)
{
	struct iovec *readable = chain->iov;
	struct iovec *writable = chain->iov + chain->readable;
	unsigned readable_count = chain->readable;
	unsigned writable_count = chain->writable;
	struct virtio_blk_outhdr header;

	/* Until something better is known, it is an error without an operation. */
	request->operation = BLOCK_DONE;
	request->status = VIRTIO_BLK_S_IOERR;
	request->head = chain->head;
	request->buffered = request->in_kernel = false;
	request->written = 0;
	request->room = 0;
	request->cut = 0;
	request->status_byte = NULL;
	request->segment_count = 0;
	take_status(request, writable, &writable_count, chain->writable_bytes);
	if (request->status_byte == NULL ||
		!take_bytes(&readable, &readable_count, &header, sizeof(header)))
		return;
	bool changes = header.type == VIRTIO_BLK_T_OUT || header.type == VIRTIO_BLK_T_DISCARD ||
		       header.type == VIRTIO_BLK_T_WRITE_ZEROES;

	if (changes && geometry->read_only)
		return;
	switch (header.type) {
	case VIRTIO_BLK_T_IN:
		parse_transfer(request, BLOCK_READ, header.sector, writable, writable_count,
			request->room, geometry);
		break;
	case VIRTIO_BLK_T_OUT:
		parse_transfer(request, BLOCK_WRITE, header.sector, readable, readable_count,
			chain->readable_bytes - sizeof(header), geometry);
		break;
	case VIRTIO_BLK_T_FLUSH:
		request->operation = BLOCK_FLUSH;
		request->status = VIRTIO_BLK_S_OK;
		break;
	case VIRTIO_BLK_T_GET_ID:
		parse_id(request, writable, writable_count, geometry);
		break;
	case VIRTIO_BLK_T_DISCARD:
		parse_segments(request, BLOCK_DISCARD, readable, readable_count, geometry);
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		parse_segments(request, BLOCK_WRITE_ZEROES, readable, readable_count, geometry);
		break;
	default:
		request->status = VIRTIO_BLK_S_UNSUPP;
	}
}

static void undo_cut(struct block_request *request)
{
	if (request->cut != 0)
		request->iov[request->piece_count - 1].iov_len += request->cut;
	request->cut = 0;
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

bool block_request_advance(struct block_request *request, size_t done)
{
	undo_cut(request);
	request->offset += done;
	request->length -= done;
	if (request->operation == BLOCK_READ)
		request->written += (uint32_t)done;
	if (request->length == 0)
		return false;
	while (done > 0) {
		size_t n = min_u64(done, request->iov->iov_len);

		request->iov->iov_base = (uint8_t *)request->iov->iov_base + n;
		request->iov->iov_len -= n;
		done -= n;
		if (request->iov->iov_len == 0) {
			request->iov++;
			request->iov_count--;
		}
	}
	return true;
}

/* The used length counts from the first writable byte: the status is in it only after all data. */
uint32_t block_request_finish(struct block_request *request)
{
	if (request->status_byte == NULL)
		return 0;
	*request->status_byte = request->status;
	return request->written == request->room ? request->written + 1 : request->written;
}
