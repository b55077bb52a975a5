// SPDX-License-Identifier: BSD-3-Clause
/*
 * Block requests of a hostile driver: what is refused, with which status, and
 * the exact used length. What is accepted lies in the disk. No device and no
 * queue here, only chains; the buffers are of the exact size, so that ASan
 * sees a byte too far.
 */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "virtio/block_image.h"
#include "virtio/block_request.h"

enum { SECTORS = 2048, BUFFERS_MAX = 2048, STATUS_UNSET = 0xee };

static const struct block_geometry plain = {
	.size = SECTORS * SECTOR_SIZE, .block_size = 512, .discard = true, .id = "disk-1"
};
static const struct block_geometry huge = {
	.size = 4096 * GIB, .block_size = 512, .discard = true, .id = ""
};
static const struct block_geometry read_only = {
	.size = SECTORS * SECTOR_SIZE, .block_size = 512, .read_only = true, .id = "disk-1"
};
static const struct block_geometry big_blocks = {
	.size = SECTORS * SECTOR_SIZE, .block_size = 4096, .discard = true, .id = "disk-1"
};
static const struct block_geometry no_discard = {
	.size = SECTORS * SECTOR_SIZE, .block_size = 512, .id = "disk-1"
};

/* A chain on the heap, one allocation a buffer. */
struct chain {
	struct virtqueue_chain chain;
	struct iovec iov[BUFFERS_MAX];
	void *owned[BUFFERS_MAX];
	size_t sizes[BUFFERS_MAX];
	struct block_request request;
};

static struct chain *new_chain(void)
{
	struct chain *chain = calloc(1, sizeof(*chain));

	assert_non_null(chain);
	chain->chain.iov = chain->iov;
	chain->chain.iov_max = BUFFERS_MAX;
	chain->chain.head = 7;
	return chain;
}

static void free_chain(struct chain *chain)
{
	for (unsigned i = 0; i < chain->chain.readable + chain->chain.writable; i++)
		free(chain->owned[i]);
	free(chain);
}

static void *add_buffer(struct chain *chain, size_t size, uint8_t fill)
{
	unsigned i = chain->chain.readable + chain->chain.writable;

	assert_true(i < BUFFERS_MAX);
	chain->owned[i] = malloc(size);
	assert_non_null(chain->owned[i]);
	memset(chain->owned[i], fill, size);
	chain->sizes[i] = size;
	chain->iov[i] = (struct iovec){ .iov_base = chain->owned[i], .iov_len = size };
	return chain->owned[i];
}

static void add_readable(struct chain *chain, const void *bytes, size_t size)
{
	if (size == 0)
		return;
	memcpy(add_buffer(chain, size, 0), bytes, size);
	chain->chain.readable++;
	chain->chain.readable_bytes += (uint32_t)size;
}

static uint8_t *add_writable(struct chain *chain, size_t size)
{
	if (size == 0)
		return NULL;
	uint8_t *bytes = add_buffer(chain, size, STATUS_UNSET);

	chain->chain.writable++;
	chain->chain.writable_bytes += (uint32_t)size;
	return bytes;
}

static void add_header(struct chain *chain, uint32_t type, uint64_t sector)
{
	const struct virtio_blk_outhdr header = { .type = type, .sector = sector };

	add_readable(chain, &header, sizeof(header));
}

static void parse(struct chain *chain, const struct block_geometry *geometry)
{
	/* What was there before must not matter. */
	memset(&chain->request, 0x5a, sizeof(chain->request));
	block_request_parse(&chain->request, &chain->chain, geometry);
	assert_int_equal(chain->request.head, 7);
	assert_false(chain->request.buffered);
	assert_int_equal(chain->request.segment_count <= BLOCK_SEGMENTS_MAX, true);
}

static const uint8_t zeroes[8192];

struct transfer_case {
	const char *name;
	const struct block_geometry *geometry;
	uint32_t type;
	uint64_t sector;
	size_t readable; /* after the header */
	size_t writable; /* before the status */
	enum block_operation operation;
	uint8_t status;
};

#define OK    VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define UNSUP VIRTIO_BLK_S_UNSUPP
#define IN    VIRTIO_BLK_T_IN
#define OUT   VIRTIO_BLK_T_OUT

static const struct transfer_case transfers[] = {
	{ "read", &plain, IN, 0, 0, 512, BLOCK_READ, OK },
	{ "read of the last sector", &plain, IN, SECTORS - 1, 0, 512, BLOCK_READ, OK },
	{ "read of last + 1", &plain, IN, SECTORS, 0, 512, BLOCK_DONE, IOERR },
	{ "read across the end", &plain, IN, SECTORS - 1, 0, 1024, BLOCK_DONE, IOERR },
	{ "read at 2^64 - 1", &plain, IN, UINT64_MAX, 0, 512, BLOCK_DONE, IOERR },
	{ "read at 2^55", &plain, IN, UINT64_C(1) << 55, 0, 512, BLOCK_DONE, IOERR },
	{ "read at 2^55 + 1", &plain, IN, (UINT64_C(1) << 55) + 1, 0, 512, BLOCK_DONE, IOERR },
	{ "read at 2^63", &plain, IN, UINT64_C(1) << 63, 0, 512, BLOCK_DONE, IOERR },
	{ "read of nothing", &plain, IN, 0, 0, 0, BLOCK_DONE, OK },
	{ "read of nothing at the end", &plain, IN, SECTORS, 0, 0, BLOCK_DONE, OK },
	{ "read of nothing after the end", &plain, IN, SECTORS + 1, 0, 0, BLOCK_DONE, IOERR },
	{ "read of 1 byte", &plain, IN, 0, 0, 1, BLOCK_DONE, IOERR },
	{ "read of 511 bytes", &plain, IN, 0, 0, 511, BLOCK_DONE, IOERR },
	{ "read of 513 bytes", &plain, IN, 0, 0, 513, BLOCK_DONE, IOERR },
	{ "read of a read-only disk", &read_only, IN, 1, 0, 512, BLOCK_READ, OK },
	{ "read with data out too", &plain, IN, 1, 512, 512, BLOCK_READ, OK },
	{ "write", &plain, OUT, 0, 512, 0, BLOCK_WRITE, OK },
	{ "write of the last sector", &plain, OUT, SECTORS - 1, 512, 0, BLOCK_WRITE, OK },
	{ "write of last + 1", &plain, OUT, SECTORS, 512, 0, BLOCK_DONE, IOERR },
	{ "write across the end", &plain, OUT, SECTORS - 1, 1024, 0, BLOCK_DONE, IOERR },
	{ "write at 2^64 - 1", &plain, OUT, UINT64_MAX, 512, 0, BLOCK_DONE, IOERR },
	{ "write at 2^55", &plain, OUT, UINT64_C(1) << 55, 512, 0, BLOCK_DONE, IOERR },
	{ "write of nothing", &plain, OUT, 0, 0, 0, BLOCK_DONE, OK },
	{ "write of 1 byte", &plain, OUT, 0, 1, 0, BLOCK_DONE, IOERR },
	{ "write of 511 bytes", &plain, OUT, 0, 511, 0, BLOCK_DONE, IOERR },
	{ "write of 513 bytes", &plain, OUT, 0, 513, 0, BLOCK_DONE, IOERR },
	{ "write to a read-only disk", &read_only, OUT, 0, 512, 0, BLOCK_DONE, IOERR },
	{ "write of nothing to a read-only disk", &read_only, OUT, 0, 0, 0, BLOCK_DONE, IOERR },
	{ "4 KiB blocks: read", &big_blocks, IN, 8, 0, 4096, BLOCK_READ, OK },
	{ "4 KiB blocks: one sector", &big_blocks, IN, 8, 0, 512, BLOCK_DONE, IOERR },
	{ "4 KiB blocks: between blocks", &big_blocks, IN, 1, 0, 4096, BLOCK_DONE, IOERR },
	{ "4 KiB blocks: write of one sector", &big_blocks, OUT, 8, 512, 0, BLOCK_DONE, IOERR },
	{ "flush", &plain, VIRTIO_BLK_T_FLUSH, 0, 0, 0, BLOCK_FLUSH, OK },
	{ "flush with data", &plain, VIRTIO_BLK_T_FLUSH, 5, 512, 0, BLOCK_FLUSH, OK },
	{ "flush at 2^64 - 1", &plain, VIRTIO_BLK_T_FLUSH, UINT64_MAX, 0, 0, BLOCK_FLUSH, OK },
	{ "flush of a read-only disk", &read_only, VIRTIO_BLK_T_FLUSH, 0, 0, 0, BLOCK_FLUSH, OK },
	{ "SCSI command", &plain, VIRTIO_BLK_T_SCSI_CMD, 0, 512, 512, BLOCK_DONE, UNSUP },
	{ "old barrier bit", &plain, VIRTIO_BLK_T_BARRIER | IN, 0, 0, 512, BLOCK_DONE, UNSUP },
	{ "type 3", &plain, 3, 0, 0, 0, BLOCK_DONE, UNSUP },
	{ "secure erase, not offered", &plain, 14, 0, 16, 0, BLOCK_DONE, UNSUP },
	{ "zone report, not offered", &plain, 16, 0, 0, 512, BLOCK_DONE, UNSUP },
	{ "type 2^32 - 1", &plain, UINT32_MAX, 0, 0, 0, BLOCK_DONE, UNSUP },
	{ "type 256", &plain, 256, 0, 0, 512, BLOCK_DONE, UNSUP },
};

static void check_transfer(const struct transfer_case *c)
{
	struct chain *chain = new_chain();
	struct block_request *request = &chain->request;

	add_header(chain, c->type, c->sector);
	add_readable(chain, zeroes, c->readable);
	const uint8_t *data = add_writable(chain, c->writable);
	const uint8_t *status = add_writable(chain, 1);

	parse(chain, c->geometry);
	if (request->operation != c->operation || request->status != c->status)
		fail_msg("%s: operation %d, status %u", c->name, request->operation,
			request->status);
	if (request->operation == BLOCK_READ || request->operation == BLOCK_WRITE) {
		size_t size = request->operation == BLOCK_READ ? c->writable : c->readable;

		assert_int_equal(request->length, size);
		assert_int_equal(request->offset, c->sector * SECTOR_SIZE);
		assert_true(request->offset <= c->geometry->size);
		assert_true(request->length <= c->geometry->size - request->offset);
		assert_false(block_request_advance(request, size));
	}
	bool data_in = request->operation == BLOCK_READ;

	assert_int_equal(*status, STATUS_UNSET); /* only finish tells */
	assert_int_equal(
		block_request_finish(request), data_in ? c->writable + 1 : c->writable == 0);
	assert_int_equal(*status, c->status);
	for (size_t i = 0; i < c->writable; i++)
		assert_int_equal(data[i], STATUS_UNSET);
	free_chain(chain);
}

static void transfers_in_the_disk_and_no_others(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(transfers); i++)
		check_transfer(&transfers[i]);
}

static void without_a_status_byte_nothing_is_done(void **state)
{
	struct chain *chain = new_chain();

	(void)state;
	add_header(chain, OUT, 0);
	add_readable(chain, zeroes, 512);
	parse(chain, &plain);
	assert_int_equal(chain->request.operation, BLOCK_DONE);
	assert_null(chain->request.status_byte);
	assert_int_equal(block_request_finish(&chain->request), 0);
	free_chain(chain);
}

static void without_a_whole_header_it_is_an_error(void **state)
{
	(void)state;
	for (size_t size = 0; size < sizeof(struct virtio_blk_outhdr); size++) {
		struct chain *chain = new_chain();

		add_readable(chain, zeroes, size);
		add_writable(chain, 512);
		const uint8_t *status = add_writable(chain, 1);

		parse(chain, &plain);
		assert_int_equal(chain->request.operation, BLOCK_DONE);
		assert_int_equal(block_request_finish(&chain->request), 0);
		assert_int_equal(*status, IOERR);
		free_chain(chain);
	}
}

static void an_empty_chain_is_no_request(void **state)
{
	struct chain *chain = new_chain();

	(void)state;
	parse(chain, &plain);
	assert_int_equal(chain->request.operation, BLOCK_DONE);
	assert_int_equal(block_request_finish(&chain->request), 0);
	free_chain(chain);
}

static void the_last_writable_byte_is_the_status(void **state)
{
	struct chain *chain = new_chain();

	(void)state;
	add_header(chain, IN, 4);
	const uint8_t *data = add_writable(chain, 513);

	parse(chain, &plain);
	assert_int_equal(chain->request.operation, BLOCK_READ);
	assert_int_equal(chain->request.length, 512);
	assert_int_equal(chain->request.iov_count, 1);
	assert_int_equal(chain->request.iov[0].iov_len, 512);
	assert_false(block_request_advance(&chain->request, 512));
	assert_int_equal(block_request_finish(&chain->request), 513);
	assert_int_equal(data[511], STATUS_UNSET);
	assert_int_equal(data[512], OK);
	free_chain(chain);
}

/* Header, data and status in buffers of one byte each: legal, if slow. */
static void one_byte_buffers(void **state)
{
	const struct virtio_blk_outhdr header = { .type = OUT, .sector = 2 };
	struct chain *chain = new_chain();
	struct block_request *request = &chain->request;

	(void)state;
	for (size_t i = 0; i < sizeof(header); i++)
		add_readable(chain, (const uint8_t *)&header + i, 1);
	for (unsigned i = 0; i < 512; i++) {
		uint8_t byte = (uint8_t)i;

		add_readable(chain, &byte, 1);
	}
	const uint8_t *status = add_writable(chain, 1);

	parse(chain, &plain);
	assert_int_equal(request->operation, BLOCK_WRITE);
	assert_int_equal(request->iov_count, 512);
	assert_int_equal(request->offset, 1024);
	for (unsigned i = 0; i < 512; i++) {
		assert_int_equal(*(uint8_t *)request->iov[0].iov_base, (uint8_t)i);
		assert_int_equal(block_request_advance(request, 1), i < 511);
		assert_true(i == 511 || request->iov_count == 511 - i);
	}
	assert_int_equal(block_request_finish(request), 1);
	assert_int_equal(*status, OK);
	free_chain(chain);
}

static void a_header_split_over_buffers_with_data_behind_it(void **state)
{
	(void)state;
	for (size_t split = 1; split <= sizeof(struct virtio_blk_outhdr); split++) {
		const struct virtio_blk_outhdr header = { .type = OUT, .sector = 3 };
		struct chain *chain = new_chain();
		uint8_t rest[16 + 512] = { 0 };
		size_t in_rest = sizeof(header) - split;

		add_readable(chain, &header, split);
		memcpy(rest, (const uint8_t *)&header + split, in_rest);
		rest[in_rest] = 0xab;
		add_readable(chain, rest, in_rest + 512);
		add_writable(chain, 1);
		parse(chain, &plain);
		assert_int_equal(chain->request.operation, BLOCK_WRITE);
		assert_int_equal(chain->request.length, 512);
		assert_int_equal(chain->request.iov_count, 1);
		assert_int_equal(*(uint8_t *)chain->request.iov[0].iov_base, 0xab);
		free_chain(chain);
	}
}

/* The file gives less than asked: where it goes on, and what is told in the end. */
static void short_transfers_go_on_where_they_ended(void **state)
{
	struct chain *chain = new_chain();
	struct block_request *request = &chain->request;

	(void)state;
	add_header(chain, IN, 8);
	uint8_t *first = add_writable(chain, 1000);
	uint8_t *second = add_writable(chain, 24);
	uint8_t *third = add_writable(chain, 512);

	add_writable(chain, 1);
	parse(chain, &plain);
	assert_int_equal(request->iov_count, 3);
	assert_true(block_request_advance(request, 999));
	assert_ptr_equal(request->iov[0].iov_base, first + 999);
	assert_int_equal(request->iov[0].iov_len, 1);
	assert_true(block_request_advance(request, 1));
	assert_ptr_equal(request->iov[0].iov_base, second);
	assert_true(block_request_advance(request, 25));
	assert_ptr_equal(request->iov[0].iov_base, third + 1);
	assert_int_equal(request->iov_count, 1);
	assert_int_equal(request->offset, 4096 + 1025);
	assert_int_equal(request->length, 511);
	/* Then it fails: what was read counts, the status is not among the first bytes. */
	request->status = IOERR;
	assert_int_equal(block_request_finish(request), 1025);
	free_chain(chain);
}

/* Pieces of each size over three buffers, chosen anew and ended early: no byte is lost or twice. */
static void pieces_follow_each_other(void **state)
{
	static const size_t sizes[] = { 200, 312, 512 };
	uint8_t *buffers[ARRAY_SIZE(sizes)];

	(void)state;
	for (unsigned size = 1; size <= 1024; size += 13) {
		struct chain *chain = new_chain();
		struct block_request *request = &chain->request;
		unsigned done = 0;

		add_header(chain, IN, 0);
		for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
			buffers[i] = add_writable(chain, sizes[i]);
		add_writable(chain, 1);
		parse(chain, &plain);
		while (request->length != 0) {
			size_t in_piece = 0;

			block_request_cut(request, 1 + size / 2);
			block_request_cut(request, size);
			for (unsigned i = 0; i < request->piece_count; i++)
				in_piece += request->iov[i].iov_len;
			assert_int_equal(in_piece, min_u64(size, 1024 - done));
			assert_ptr_equal(
				request->iov[0].iov_base, done < 200   ? buffers[0] + done
							  : done < 512 ? buffers[1] + done - 200
								       : buffers[2] + done - 512);
			unsigned n = (unsigned)(in_piece > 5 ? in_piece - 5 : in_piece);

			done += n;
			assert_int_equal(block_request_advance(request, n), done < 1024);
			assert_int_equal(request->offset, done);
		}
		assert_int_equal(block_request_finish(request), 1025);
		free_chain(chain);
	}
}

static void alignment_is_that_of_all_buffers(void **state)
{
	uint8_t *data = (uint8_t *)(uintptr_t)0x100000; /* never touched */
	struct iovec iov[] = { { data, 1024 }, { data + 2048, 512 } };
	struct block_request request = {
		.offset = 512, .length = 1536, .iov = iov, .iov_count = 2, .piece_count = 2
	};

	(void)state;
	assert_true(block_request_is_aligned(&request, 2048, 512));
	assert_false(block_request_is_aligned(&request, 4096, 512));
	assert_false(block_request_is_aligned(&request, 512, 1024));
	request.offset = 1024;
	assert_false(block_request_is_aligned(&request, 512, 1024));
	request.iov[1].iov_len = 1024;
	assert_true(block_request_is_aligned(&request, 512, 1024));
	request.iov[1].iov_base = data + 2050;
	assert_false(block_request_is_aligned(&request, 4, 1024));
	assert_true(block_request_is_aligned(&request, 2, 1024));
	request.offset = 1025;
	assert_false(block_request_is_aligned(&request, 2, 1024));
}

static void get_id_fits_into_what_is_there(void **state)
{
	static const struct {
		size_t sizes[2];
		size_t filled;
	} cases[] = { { { 0, 0 }, 0 }, { { 1, 0 }, 1 }, { { 19, 0 }, 19 }, { { 20, 0 }, 20 },
		{ { 21, 0 }, 20 }, { { 3, 17 }, 20 }, { { 1, 1 }, 2 }, { { 19, 512 }, 20 },
		{ { 512, 1 }, 20 } };
	static const uint8_t id[20] = "disk-1";

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct chain *chain = new_chain();
		uint8_t seen[1024] = { 0 };
		size_t size = 0;

		add_header(chain, VIRTIO_BLK_T_GET_ID, UINT64_MAX);
		for (unsigned j = 0; j < 2; j++)
			add_writable(chain, cases[i].sizes[j]);
		const uint8_t *status = add_writable(chain, 1);

		parse(chain, &plain);
		assert_int_equal(chain->request.operation, BLOCK_DONE);
		/* Behind more room than the id needs, the status is not among the first bytes. */
		assert_int_equal(block_request_finish(&chain->request),
			cases[i].filled +
				(cases[i].sizes[0] + cases[i].sizes[1] == cases[i].filled));
		assert_int_equal(*status, OK);
		for (unsigned b = 1; b < 1 + chain->chain.writable; b++) {
			memcpy(seen + size, chain->owned[b], chain->sizes[b]);
			size += chain->sizes[b];
		}
		assert_memory_equal(seen, id, cases[i].filled);
		for (size_t j = cases[i].filled; j < size - 1; j++)
			assert_int_equal(seen[j], STATUS_UNSET);
		free_chain(chain);
	}
}

/* A flush needs no data. Room for some is left as it is, and so the length is 0. */
static void a_flush_writes_no_data(void **state)
{
	(void)state;
	for (unsigned size = 0; size <= 512; size += 256) {
		struct chain *chain = new_chain();

		add_header(chain, VIRTIO_BLK_T_FLUSH, 0);
		add_writable(chain, size);
		const uint8_t *status = add_writable(chain, 1);

		parse(chain, &plain);
		assert_int_equal(chain->request.operation, BLOCK_FLUSH);
		assert_int_equal(block_request_finish(&chain->request), size == 0);
		assert_int_equal(*status, OK);
		free_chain(chain);
	}
}

static void a_long_id_has_no_end_mark(void **state)
{
	struct block_geometry geometry = plain;
	struct chain *chain = new_chain();

	(void)state;
	geometry.id = "12345678901234567890";
	add_header(chain, VIRTIO_BLK_T_GET_ID, 0);
	const uint8_t *data = add_writable(chain, 20);

	add_writable(chain, 1);
	parse(chain, &geometry);
	assert_int_equal(block_request_finish(&chain->request), 21);
	assert_memory_equal(data, "12345678901234567890", 20);
	free_chain(chain);
}

#define DISCARD VIRTIO_BLK_T_DISCARD
#define ZEROES  VIRTIO_BLK_T_WRITE_ZEROES
#define UNMAP   VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP

static const struct segment_case {
	const char *name;
	const struct block_geometry *geometry;
	uint32_t type;
	unsigned count; /* all segments are the same */
	size_t extra;   /* bytes behind them */
	struct virtio_blk_discard_write_zeroes segment;
	uint8_t status;
} segment_cases[] = {
	{ "discard", &plain, DISCARD, 1, 0, { 8, 8, 0 }, OK },
	{ "discard of all", &plain, DISCARD, 1, 0, { 0, SECTORS, 0 }, OK },
	{ "discard of 32 segments", &plain, DISCARD, 32, 0, { 0, SECTORS, 0 }, OK },
	{ "discard of 33 segments", &plain, DISCARD, 33, 0, { 0, 8, 0 }, IOERR },
	{ "discard of 256 segments", &plain, DISCARD, 256, 0, { 0, 8, 0 }, IOERR },
	{ "discard of no segment", &plain, DISCARD, 0, 0, { 0, 0, 0 }, IOERR },
	{ "discard of a piece", &plain, DISCARD, 0, 15, { 0, 0, 0 }, IOERR },
	{ "discard of one and a piece", &plain, DISCARD, 1, 1, { 0, 8, 0 }, IOERR },
	{ "discard of no sector", &plain, DISCARD, 1, 0, { 5, 0, 0 }, OK },
	{ "discard of 2^32 - 1 sectors", &plain, DISCARD, 1, 0, { 0, UINT32_MAX, 0 }, IOERR },
	{ "discard across the end", &plain, DISCARD, 1, 0, { SECTORS - 1, 2, 0 }, IOERR },
	{ "discard after the end", &plain, DISCARD, 1, 0, { SECTORS, 1, 0 }, IOERR },
	{ "discard at 2^64 - 1", &plain, DISCARD, 1, 0, { UINT64_MAX, 1, 0 }, IOERR },
	{ "discard at 2^55", &plain, DISCARD, 1, 0, { UINT64_C(1) << 55, 1, 0 }, IOERR },
	{ "discard of 1 GiB", &huge, DISCARD, 1, 0, { 0, 1 << 21, 0 }, OK },
	{ "discard of more", &huge, DISCARD, 1, 0, { 0, (1 << 21) + 1, 0 }, IOERR },
	{ "discard of 2 TiB", &huge, DISCARD, 1, 0, { 0, UINT32_MAX, 0 }, IOERR },
	{ "discard with unmap", &plain, DISCARD, 1, 0, { 8, 8, UNMAP }, UNSUP },
	{ "discard with a reserved flag", &plain, DISCARD, 1, 0, { 8, 8, 1u << 31 }, UNSUP },
	{ "discard on a read-only disk", &read_only, DISCARD, 1, 0, { 8, 8, 0 }, IOERR },
	{ "discard not offered", &no_discard, DISCARD, 1, 0, { 8, 8, 0 }, UNSUP },
	{ "discard in 4 KiB blocks", &big_blocks, DISCARD, 1, 0, { 8, 8, 0 }, OK },
	{ "discard off 4 KiB blocks", &big_blocks, DISCARD, 1, 0, { 8, 1, 0 }, IOERR },
	{ "zeroes", &plain, ZEROES, 1, 0, { 8, 8, 0 }, OK },
	{ "zeroes with unmap", &plain, ZEROES, 32, 0, { 8, 8, UNMAP }, OK },
	{ "zeroes with a reserved flag", &plain, ZEROES, 1, 0, { 8, 8, 2 }, UNSUP },
	{ "zeroes with all flags", &plain, ZEROES, 1, 0, { 8, 8, UINT32_MAX }, UNSUP },
	{ "zeroes of no segment", &plain, ZEROES, 0, 0, { 0, 0, 0 }, IOERR },
	{ "zeroes of 33 segments", &plain, ZEROES, 33, 0, { 0, 8, 0 }, IOERR },
	{ "zeroes of 2^32 - 1 sectors", &plain, ZEROES, 1, 0, { 0, UINT32_MAX, 0 }, IOERR },
	{ "zeroes across the end", &plain, ZEROES, 1, 0, { SECTORS - 1, 2, UNMAP }, IOERR },
	{ "zeroes on a read-only disk", &read_only, ZEROES, 1, 0, { 8, 8, 0 }, IOERR },
	{ "zeroes without discard", &no_discard, ZEROES, 1, 0, { 8, 8, UNMAP }, OK },
};

static void segments_in_the_disk_and_no_others(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(segment_cases); i++) {
		const struct segment_case *c = &segment_cases[i];
		struct chain *chain = new_chain();
		struct block_request *request = &chain->request;

		add_header(chain, c->type, UINT64_MAX); /* the header's sector means nothing */
		for (unsigned j = 0; j < c->count; j++)
			add_readable(chain, &c->segment, sizeof(c->segment));
		add_readable(chain, zeroes, c->extra);
		const uint8_t *status = add_writable(chain, 1);

		parse(chain, c->geometry);
		if (request->status != c->status ||
			(request->operation == BLOCK_DONE) != !!c->status)
			fail_msg("%s: operation %d, status %u", c->name, request->operation,
				request->status);
		for (unsigned j = 0; c->status == OK && j < c->count; j++) {
			assert_int_equal(request->segments[j].offset, c->segment.sector * 512);
			assert_int_equal(
				request->segments[j].length, c->segment.num_sectors * 512u);
			assert_int_equal(request->segments[j].unmap, c->segment.flags == UNMAP);
		}
		if (c->status == OK)
			assert_int_equal(request->segment_count, c->count);
		assert_int_equal(block_request_finish(request), 1);
		assert_int_equal(*status, c->status);
		free_chain(chain);
	}
}

/* One bad segment among good ones: nothing is done, not even the good ones. */
static void a_bad_segment_spoils_all(void **state)
{
	const struct virtio_blk_discard_write_zeroes good = { 8, 8, 0 };
	const struct virtio_blk_discard_write_zeroes bad = { SECTORS, 8, 0 };

	(void)state;
	for (unsigned at = 0; at < 3; at++) {
		struct chain *chain = new_chain();

		add_header(chain, DISCARD, 0);
		for (unsigned j = 0; j < 3; j++)
			add_readable(chain, j == at ? &bad : &good, sizeof(good));
		add_writable(chain, 1);
		parse(chain, &plain);
		assert_int_equal(chain->request.operation, BLOCK_DONE);
		assert_int_equal(chain->request.status, IOERR);
		free_chain(chain);
	}
}

static void segments_split_over_buffers(void **state)
{
	const struct virtio_blk_discard_write_zeroes segments[] = { { 8, 8, 0 }, { 24, 1, 0 } };
	struct chain *chain = new_chain();

	(void)state;
	add_header(chain, DISCARD, 0);
	for (size_t i = 0; i < sizeof(segments); i += 4)
		add_readable(chain, (const uint8_t *)segments + i, 4);
	add_writable(chain, 1);
	parse(chain, &plain);
	assert_int_equal(chain->request.operation, BLOCK_DISCARD);
	assert_int_equal(chain->request.segment_count, 2);
	assert_int_equal(chain->request.segments[1].offset, 24 * 512);
	assert_int_equal(chain->request.segments[1].length, 512);
	free_chain(chain);
}

/* 4 GiB less a page of data, as far as a chain can go: no 32-bit sum overflows. */
static void the_largest_read(void **state)
{
	static struct iovec iov[] = { { NULL, sizeof(struct virtio_blk_outhdr) },
		{ NULL, 0xfffff000u - 512 }, { NULL, 1 } };
	struct virtio_blk_outhdr header = { .type = IN, .sector = 0 };
	struct virtqueue_chain chain = {
		.iov = iov,
		.readable = 1,
		.writable = 2,
		.readable_bytes = sizeof(header),
		.writable_bytes = 0xfffff000u - 511,
	};
	struct block_request request;
	uint8_t status = STATUS_UNSET;

	(void)state;
	iov[0].iov_base = &header;
	iov[1].iov_base = (void *)(uintptr_t)0x100000; /* never touched */
	iov[2].iov_base = &status;
	block_request_parse(&request, &chain, &huge);
	assert_int_equal(request.operation, BLOCK_READ);
	assert_true(block_request_advance(&request, 0x7ffff000));
	assert_false(block_request_advance(&request, 0xfffff000u - 512 - 0x7ffff000));
	assert_int_equal(block_request_finish(&request), 0xfffff000u - 511);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(transfers_in_the_disk_and_no_others),
		cmocka_unit_test(without_a_status_byte_nothing_is_done),
		cmocka_unit_test(without_a_whole_header_it_is_an_error),
		cmocka_unit_test(an_empty_chain_is_no_request),
		cmocka_unit_test(the_last_writable_byte_is_the_status),
		cmocka_unit_test(one_byte_buffers),
		cmocka_unit_test(a_header_split_over_buffers_with_data_behind_it),
		cmocka_unit_test(short_transfers_go_on_where_they_ended),
		cmocka_unit_test(pieces_follow_each_other),
		cmocka_unit_test(alignment_is_that_of_all_buffers),
		cmocka_unit_test(get_id_fits_into_what_is_there),
		cmocka_unit_test(a_flush_writes_no_data),
		cmocka_unit_test(a_long_id_has_no_end_mark),
		cmocka_unit_test(segments_in_the_disk_and_no_others),
		cmocka_unit_test(a_bad_segment_spoils_all),
		cmocka_unit_test(segments_split_over_buffers),
		cmocka_unit_test(the_largest_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
