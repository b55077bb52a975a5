// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-block, a disk image as a block device: configuration, features, and
 * the engine that works without io_uring. Requests are the guest's, parsed and
 * checked by block_request.c; the file below may fail, shrink or fill up at any
 * time.
 *
 * Without VIRTIO_BLK_F_FLUSH negotiated, and with the write cache turned off,
 * every write is durable before it completes. A flush completes after an
 * fdatasync that began after all writes that completed before it; after one
 * that failed, all flushes fail until the driver resets the device, because
 * the kernel tells of lost pages only once. So when two flushes of two queues,
 * or two durable writes, are at work at the moment in which the host's disk
 * fails, one of them may be told that all is well, and only what follows fails.
 * A VM that ended has lost no write: what was not flushed is made durable then.
 *
 * Source: virtio 1.2, section 5.2.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "virtio/block_engine.h"

enum { PHYSICAL_BLOCK_SIZE = 4096 };

/* The configuration space, and behind it what only the VMM sees. */
struct block_state {
	struct virtio_blk_config config;
	uint32_t busy; /* requests that the host works on */
} __attribute__((packed));

#define BIT(feature) (UINT64_C(1) << (feature))

static unsigned block_queue_count(const struct device *device)
{
	return device->options.queues;
}

static uint64_t block_features(const struct device *device)
{
	uint64_t features = BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
			    BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_FLUSH) |
			    BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_MQ);

	if (device->geometry.read_only)
		return features | BIT(VIRTIO_BLK_F_RO);
	features |= BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	return device->geometry.discard ? features | BIT(VIRTIO_BLK_F_DISCARD) : features;
}

/*
 * A read or write of so many segments fits into a ring of 128, with header and status: QEMU's
 * vhost-user-blk has such rings, and Linux does not ask how large a ring is.
 */
enum { SEGMENTS_MAX = 126 };

static struct virtio_blk_config make_config(const struct device *device)
{
	unsigned block_size = device->geometry.block_size;
	uint32_t max_sectors =
		(uint32_t)min_u64(device->geometry.size / SECTOR_SIZE, BLOCK_SEGMENT_SECTORS_MAX);

	return (struct virtio_blk_config){
		.capacity = device->geometry.size / SECTOR_SIZE,
		.seg_max = SEGMENTS_MAX,
		.blk_size = block_size,
		.physical_block_exp = (uint8_t)__builtin_ctz(PHYSICAL_BLOCK_SIZE / block_size),
		.min_io_size = (uint16_t)(PHYSICAL_BLOCK_SIZE / block_size),
		.wce = device->writeback,
		.num_queues = (uint16_t)device->options.queues,
		.max_discard_sectors = max_sectors,
		.max_discard_seg = BLOCK_SEGMENTS_MAX,
		.discard_sector_alignment = block_size / SECTOR_SIZE,
		.max_write_zeroes_sectors = max_sectors,
		.max_write_zeroes_seg = BLOCK_SEGMENTS_MAX,
		.write_zeroes_may_unmap = device->geometry.discard,
	};
}

static uint32_t count_busy(const struct device *device)
{
	uint32_t busy = device->busy_here;

	for (unsigned i = 0; i < DEVICE_QUEUES_MAX; i++)
		busy += atomic_load_explicit(&device->busy[i], memory_order_relaxed);
	return busy;
}

static void block_config_read(struct device *device, uint32_t offset, uint8_t *data, uint32_t size)
{
	const struct block_state state = {
		.config = make_config(device),
		.busy = count_busy(device),
	};

	memcpy(data, (const uint8_t *)&state + offset, size);
}

static bool has_overlay(const struct device *device)
{
	return device->overlay.fd >= 0;
}

/* Only the write cache can be set. */
static void block_config_write(
	struct device *device, uint32_t offset, const uint8_t *data, uint32_t size)
{
	if (offset == offsetof(struct virtio_blk_config, wce) && size == 1 &&
		device->cache_is_settable)
		device->wants_cache = device->writeback = data[0] != 0;
}

/* Only the capacity can be changed. The queues are at rest. */
static int block_config_change(
	struct device *device, uint32_t offset, const uint8_t *data, uint32_t size)
{
	uint64_t sectors, bytes;

	if (offset != offsetof(struct virtio_blk_config, capacity) || size != sizeof(sectors))
		return -EINVAL;
	memcpy(&sectors, data, sizeof(sectors));
	if (device->geometry.read_only)
		return -EROFS;
	if (has_overlay(device))
		return -EOPNOTSUPP;
	if (__builtin_mul_overflow(sectors, SECTOR_SIZE, &bytes) || bytes == 0 ||
		bytes % device->geometry.block_size != 0)
		return -EINVAL;
	int r = block_image_resize(&device->image, bytes);

	if (r == 0)
		device->geometry.size = bytes;
	return r;
}

static int block_start(struct device *device, uint64_t features)
{
	bool can_flush = (features & BIT(VIRTIO_BLK_F_FLUSH)) != 0;

	device->flush_failed = false;
	device->cache_is_settable = can_flush && (features & BIT(VIRTIO_BLK_F_CONFIG_WCE)) != 0;
	/* A driver that cannot flush must not need to. Others may have said what they want before.
	 */
	device->writeback = can_flush && (device->wants_cache || !device->cache_is_settable);
	return 0;
}

/*
 * What the driver said of the cache stays: a front end that stops us for a while (QEMU) says it
 * once, and the next driver reads it.
 */
static void block_stop(struct device *device)
{
	device->cache_is_settable = true;
	device->writeback = device->wants_cache;
}

int block_write_flags(const struct device *device)
{
	return device->writeback || has_overlay(device) ? 0 : RWF_DSYNC;
}

bool block_flush_is_due(const struct device *device)
{
	return !has_overlay(device);
}

/* An overlay has what was written to it, and an image the rest. */
static int next_piece_of_snapshot(const struct device *device, struct block_request *request)
{
	bool in_overlay = true;
	uint64_t length = request->length;

	if (request->operation == BLOCK_READ)
		length = block_overlay_run(&device->overlay, request->offset, length, &in_overlay);
	block_request_cut(request, length);
	return in_overlay ? device->overlay.fd : -1;
}

int block_choose_piece(const struct device *device, struct block_request *request)
{
	const struct block_image *image = &device->image;

	if (has_overlay(device)) {
		int fd = next_piece_of_snapshot(device, request);

		if (fd >= 0)
			return fd;
	}
	if (image->direct_fd >= 0 && !request->buffered &&
		block_request_is_aligned(request, image->memory_align, image->offset_align))
		return image->direct_fd;
	return image->fd;
}

void block_written(struct device *device, const struct block_request *request, size_t done)
{
	if (has_overlay(device))
		block_overlay_mark(&device->overlay, request->offset, done);
	else
		device->dirty = true;
}

void block_flush_begins(struct device *device)
{
	device->dirty = false;
}

/* Once for each time that the guest resets the disk, which is at will. */
static void tell_failed_sync(struct device *device, int error)
{
	if (!atomic_exchange(&device->flush_failed, true))
		log_error_limited(&device->complaints,
			"disk '%s': fdatasync failed: %s; flushes fail until the guest resets "
			"the disk",
			device->options.path, strerror(-error));
}

void block_flush_done(struct device *device, struct block_request *request, int result)
{
	if (result < 0)
		tell_failed_sync(device, result);
	if (device->flush_failed)
		request->status = VIRTIO_BLK_S_IOERR;
}

/* What a durable write was told may be of pages that another one wrote, and then no flush is told.
 */
void block_transfer_failed(struct device *device, struct block_request *request, int error)
{
	if (error == -EIO && request->operation == BLOCK_WRITE && block_write_flags(device) != 0)
		tell_failed_sync(device, error);
	request->status = VIRTIO_BLK_S_IOERR;
}

static int write_zeroes(int fd, uint64_t offset, uint64_t length)
{
	static const uint8_t zeroes[4 << 10];
	struct iovec iov[16]; /* the same zeroes in each, so that a call writes 64 KiB */

	for (size_t i = 0; i < ARRAY_SIZE(iov); i++)
		iov[i] = (struct iovec){ (void *)zeroes, sizeof(zeroes) };
	while (length > 0) {
		bool many = length >= sizeof(zeroes) * ARRAY_SIZE(iov);
		ssize_t n =
			many ? pwritev(fd, iov, ARRAY_SIZE(iov), (off_t)offset)
			     : pwrite(fd, zeroes, min_u64(length, sizeof(zeroes)), (off_t)offset);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			offset += (uint64_t)n;
			length -= (uint64_t)n;
		}
	}
	return 0;
}

static int allocate(int fd, int mode, const struct block_segment *segment)
{
	int r;

	if (segment->length == 0)
		return 0;
	do {
		r = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)segment->offset,
			(off_t)segment->length);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int sync_image(const struct device *device)
{
	int r;

	do {
		r = fdatasync(device->image.fd);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/* A discard is advice: a file system that cannot punch holes is no error. */
static int do_segment(const struct device *device, enum block_operation operation,
	const struct block_segment *segment)
{
	int fd = device->image.fd;
	bool may_punch = operation == BLOCK_DISCARD || (segment->unmap && device->geometry.discard);
	int r = allocate(fd, may_punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, segment);

	if (r != -EOPNOTSUPP && r != -EINVAL)
		return r;
	return operation == BLOCK_DISCARD ? 0 : write_zeroes(fd, segment->offset, segment->length);
}

/* In an overlay, discarded blocks are zeroes as well: the image's content must not come back. */
static int do_overlay_segment(struct block_overlay *overlay, const struct block_segment *segment)
{
	int r = allocate(overlay->fd, FALLOC_FL_PUNCH_HOLE, segment);

	if (r == -EOPNOTSUPP || r == -EINVAL)
		r = write_zeroes(overlay->fd, segment->offset, segment->length);
	if (r == 0)
		block_overlay_mark(overlay, segment->offset, segment->length);
	return r;
}

static void do_segments(struct device *device, struct block_request *request)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < request->segment_count; i++)
		r = has_overlay(device)
			    ? do_overlay_segment(&device->overlay, &request->segments[i])
			    : do_segment(device, request->operation, &request->segments[i]);
	device->dirty = !has_overlay(device);
	if (r == 0 && block_write_flags(device) != 0) {
		r = sync_image(device);
		if (r < 0)
			tell_failed_sync(device, r);
	}
	if (r < 0)
		request->status = VIRTIO_BLK_S_IOERR;
}

/* Moves all data of a read or write; short transfers go on where they ended. */
static void transfer(struct device *device, struct block_request *request)
{
	bool more = true;

	while (more) {
		int fd = block_next_piece(device, request);
		int count = (int)request->piece_count;
		off_t offset = (off_t)request->offset;
		ssize_t n = request->operation == BLOCK_READ
				    ? preadv2(fd, request->iov, count, offset, 0)
				    : pwritev2(fd, request->iov, count, offset,
					      block_write_flags(device));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EINVAL && fd == device->image.direct_fd) {
			request->buffered = true; /* its alignment is more than it says */
			continue;
		}
		if (n <= 0) {
			block_transfer_failed(device, request, n < 0 ? -errno : -ENODATA);
			return;
		}
		more = block_piece_done(device, request, (size_t)n);
	}
}

void block_do_request(struct device *device, struct block_request *request)
{
	device->busy_here++;
	switch (request->operation) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		transfer(device, request);
		break;
	case BLOCK_FLUSH:
		if (!block_flush_is_due(device))
			break;
		block_flush_begins(device);
		block_flush_done(device, request, sync_image(device));
		break;
	case BLOCK_DISCARD:
	case BLOCK_WRITE_ZEROES:
		do_segments(device, request);
		break;
	case BLOCK_DONE:
		break;
	}
	device->busy_here--;
}

static uint32_t handle_chain(struct device *device, const struct virtqueue_chain *chain)
{
	struct block_request request;

	block_request_parse(&request, chain, &device->geometry);
	block_do_request(device, &request);
	return block_request_finish(&request);
}

/* The driver may have had no time to flush. */
static void block_sync(struct device *device)
{
	int r = atomic_exchange(&device->dirty, false) ? sync_image(device) : 0;

	if (r < 0)
		tell_failed_sync(device, r);
}

static int block_serve(struct device_queue *queue)
{
	struct device *device = queue->device;
	int r = device->options.sync_engine ? -EOPNOTSUPP : block_serve_uring(queue);

	if (r == -EOPNOTSUPP)
		r = device_serve_chains(queue, handle_chain);
	device->busy[queue->index] = 0;
	return r;
}

static void block_prepare(struct device *device)
{
	if (!device->options.sync_engine)
		urings_prepare(&device->urings, &block_uring_kind, device->options.queues);
}

static void block_let_go(struct device *device)
{
	urings_free(&device->urings);
	block_overlay_close(&device->overlay);
	block_image_close(&device->image);
}

static void block_prepare_queue(struct device_queue *queue)
{
	if (!queue->device->options.sync_engine)
		(void)urings_open(&queue->device->urings, &block_uring_kind, queue->index);
}

static unsigned block_fds(const struct device *device, int ret_fds[DEVICE_FDS_MAX])
{
	const int images[] = { device->image.fd, device->image.direct_fd, device->overlay.fd };
	unsigned count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(images); i++)
		if (images[i] >= 0)
			ret_fds[count++] = images[i];
	return count + urings_fds(&device->urings, ret_fds + count);
}

static void block_free(struct device *device)
{
	block_let_go(device);
	free(device);
}

static const struct device_ops block_ops = {
	.name = "block",
	.virtio_id = VIRTIO_ID_BLOCK,
	.pci_class = 0x0100, /* SCSI storage controller */
	.queue_size = BLOCK_QUEUE_SIZE,
	.queue_size_limit = VIRTQUEUE_SIZE_MAX, /* QEMU's queues */
	.config_size = sizeof(struct virtio_blk_config),
	.control_size = sizeof(struct block_state) - sizeof(struct virtio_blk_config),
	.busy_offset = offsetof(struct block_state, busy),
	.queue_count = block_queue_count,
	.features = block_features,
	.config_read = block_config_read,
	.config_write = block_config_write,
	.config_change = block_config_change,
	.prepare = block_prepare,
	.let_go = block_let_go,
	.prepare_queue = block_prepare_queue,
	.fds = block_fds,
	.start = block_start,
	.serve = block_serve,
	.stop = block_stop,
	.sync = block_sync,
	.free = block_free,
};

/* A snapshot's image is opened read-only: who may not write it can run it. */
static int open_files(const struct block_options *options, struct device *device)
{
	struct block_options image_options = *options;

	device->image = (struct block_image){ .fd = -1, .direct_fd = -1 };
	device->overlay.fd = -1;
	image_options.read_only = options->read_only || options->snapshot;
	int r = block_image_open(&image_options, &device->image);

	if (r == 0 && options->snapshot && !options->read_only)
		r = block_overlay_open(
			options->path, device->image.size, options->block_size, &device->overlay);
	return r;
}

static int block_open(const void *opaque_options, struct device **ret_device)
{
	const struct block_options *options = opaque_options;
	struct device *device = calloc(1, sizeof(*device));

	if (device == NULL)
		return -ENOMEM;
	device->options = *options;
	int r = open_files(options, device);

	if (r < 0) {
		block_free(device);
		return r;
	}
	device->geometry = (struct block_geometry){
		.size = device->image.size,
		.block_size = options->block_size,
		.read_only = options->read_only,
		.discard = !options->read_only && !options->no_discard,
		.id = device->options.id,
	};
	device->wants_cache = true;
	block_stop(device);
	*ret_device = device;
	return 0;
}

const struct device_class block_device_class = {
	.ops = &block_ops,
	.suboptions = block_suboptions,
	.suboption_count = BLOCK_SUBOPTIONS,
	.defaults = &block_default_options,
	.options_size = sizeof(struct block_options),
	.check = block_options_check,
	.open = block_open,
	.kernel_params = block_kernel_params,
};
