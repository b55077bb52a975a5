// SPDX-License-Identifier: BSD-3-Clause
/*
 * Moves batches of frames. What arrives is the network's; how the frames lie
 * in memory was checked by who gives them.
 *
 * A batch on the ring is a readv or writev for each frame and a cancel of all:
 * what cannot go on at once would wait in the kernel otherwise, and whether it
 * does so for a descriptor with O_NONBLOCK has changed with Linux's versions.
 */
#include "virtio/net_cable.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "virtio/net_guard.h"
#include "virtio/net_queue.h"

/* Frames' indices: of those that arrive from TAG_IN on. */
enum { TAG_IN = NET_CABLE_FRAMES_MAX, TAG_CANCEL = 2 * NET_CABLE_FRAMES_MAX };

static const uint8_t allowed_operations[] = {
	IORING_OP_READV,
	IORING_OP_WRITEV,
	IORING_OP_ASYNC_CANCEL,
};

const struct uring_kind net_uring_kind = {
	.entries = NET_CABLE_FRAMES_MAX + NET_CABLE_IN_MAX + 1, /* and the cancel */
	.operation_count = ARRAY_SIZE(allowed_operations),
	.operations = allowed_operations,
};

int net_cable_fd(const struct device_queue *queue)
{
	const struct device *device = queue->device;

	return device->stream != NULL ? net_stream_fd(device->stream)
				      : device->tap.fds[queue->index / 2];
}

static void give_up_ring(struct net_cable *cable)
{
	urings_give_up(&cable->queue->device->urings, cable->queue->index);
	cable->ring = NULL;
}

void net_cable_open(struct net_cable *cable, struct device_queue *queue)
{
	struct device *device = queue->device;

	cable->queue = queue;
	cable->ring = NULL;
	/* Of a stream, several frames come in one call anyway. */
	if (device->stream == NULL)
		cable->ring = urings_open(&device->urings, &net_uring_kind, queue->index);
	/* Linux 5.19 brought the first of these flags, and the cancel of all. */
	if (cable->ring != NULL && (cable->ring->flags & (IORING_SETUP_COOP_TASKRUN |
								 IORING_SETUP_DEFER_TASKRUN)) == 0)
		give_up_ring(cable);
}

/* ---- with io_uring ---- */

/* Not to be had at the moment, or interrupted: it is tried again later. */
static bool is_not_now(ssize_t result)
{
	return result == -EAGAIN || result == -ECANCELED || result == -EINTR;
}

static void submit(struct net_cable *cable, const struct net_batch *batch, bool to_network)
{
	int fd = net_cable_fd(cable->queue);

	for (unsigned i = 0; i < batch->count; i++) {
		const struct net_frame *frame = &batch->frames[i];
		struct io_uring_sqe *sqe = io_uring_get_sqe(cable->ring);

		if (to_network)
			io_uring_prep_writev(sqe, fd, frame->iov, frame->iov_count, 0);
		else
			io_uring_prep_readv(sqe, fd, frame->iov, frame->iov_count, 0);
		sqe->user_data = to_network ? i : TAG_IN + i;
	}
}

static void submit_cancel(struct net_cable *cable)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(cable->ring);

	io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY);
	sqe->user_data = TAG_CANCEL;
}

static void finish_frame(struct net_batch *batch, unsigned index, ssize_t result)
{
	batch->frames[index].result = is_not_now(result) ? -EAGAIN : result;
	if (batch->frames[index].result != -EAGAIN)
		batch->order[batch->done++] = (uint8_t)index;
}

/* Takes completions. How many frames they are of. */
static unsigned reap(struct net_cable *cable, struct net_batch *out, struct net_batch *in)
{
	struct io_uring_cqe *cqe;
	unsigned head;
	unsigned count = 0, frames = 0;

	io_uring_for_each_cqe(cable->ring, head, cqe)
	{
		count++;
		if (cqe->user_data == TAG_CANCEL)
			continue;
		unsigned index = (unsigned)cqe->user_data;

		frames++;
		if (index < TAG_IN)
			finish_frame(out, index, cqe->res);
		else
			finish_frame(in, index - TAG_IN, cqe->res);
	}
	io_uring_cq_advance(cable->ring, count);
	return frames;
}

/*
 * As net_cable_move(). One whose event comes at this very moment cannot be
 * cancelled, and may wait again afterwards, so it is tried until none is left.
 * -EOPNOTSUPP: the kernel took nothing and never will.
 */
static int run_ring(struct net_cable *cable, struct net_batch *out, struct net_batch *in)
{
	unsigned count = out->count + in->count;
	unsigned left = count;

	submit(cable, out, true);
	submit(cable, in, false);
	/* Until all frames are done, and no cancel is left that the kernel did not take. */
	for (bool first = true; left > 0 || io_uring_sq_ready(cable->ring) != 0; first = false) {
		/* What the kernel was too short of memory to take goes first. */
		if (first || io_uring_sq_ready(cable->ring) == 0)
			submit_cancel(cable);
		int r = io_uring_submit_and_wait(cable->ring, 1);

		if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
			return io_uring_sq_ready(cable->ring) > count ? -EOPNOTSUPP : r;
		left -= reap(cable, out, in);
	}
	return 0;
}

/* ---- without ---- */

static ssize_t receive_one(const struct device_queue *queue, const struct net_frame *frame)
{
	struct net_stream *stream = queue->device->stream;

	if (stream != NULL)
		return net_stream_receive(stream, frame->iov, frame->iov_count, NET_HEADER_SIZE);
	ssize_t n = readv(net_cable_fd(queue), frame->iov, (int)frame->iov_count);

	return n < 0 ? -errno : n;
}

/* Behind a copy of its start, which the guest cannot change any more. One for nobody counts as
 * sent. */
static ssize_t send_guarded(struct net_stream *stream, const struct net_frame *frame)
{
	uint8_t start[NET_GUARD_SIZE];
	size_t size = min_u64(frame->size, sizeof(start)), skip = size;
	struct iovec iov[NET_QUEUE_SIZE + 2];
	unsigned count = 2;

	net_load(frame->iov + 1, 0, start, size);
	if (net_guard_is_loopback(start, size))
		return 0;
	iov[1] = (struct iovec){ start, size };
	for (unsigned i = 1; i < frame->iov_count; i++) {
		const struct iovec *part = &frame->iov[i];
		size_t copied = min_u64(skip, part->iov_len);

		skip -= copied;
		if (copied < part->iov_len)
			iov[count++] = (struct iovec){ (uint8_t *)part->iov_base + copied,
				part->iov_len - copied };
	}
	return net_stream_send(stream, iov, count, frame->size);
}

static ssize_t send_one(const struct device_queue *queue, const struct net_frame *frame)
{
	struct net_stream *stream = queue->device->stream;

	if (stream != NULL)
		return send_guarded(stream, frame);
	ssize_t n = writev(net_cable_fd(queue), frame->iov, (int)frame->iov_count);

	return n < 0 ? -errno : n;
}

/* Up to the first that does not go on. */
static void run_plain(const struct device_queue *queue, struct net_batch *batch, bool to_network)
{
	while (batch->done < batch->count) {
		const struct net_frame *frame = &batch->frames[batch->done];
		ssize_t result = to_network ? send_one(queue, frame) : receive_one(queue, frame);

		if (is_not_now(result))
			break;
		finish_frame(batch, batch->done, result);
	}
	for (unsigned i = batch->done; i < batch->count; i++)
		batch->frames[i].result = -EAGAIN;
}

int net_cable_move(struct net_cable *cable, struct net_batch *out, struct net_batch *in)
{
	int r = -EOPNOTSUPP;

	out->done = in->done = 0;
	/* For one frame a plain call is the same and cheaper. */
	if (cable->ring != NULL && out->count + in->count > 1) {
		r = run_ring(cable, out, in);
		if (r < 0)
			give_up_ring(cable);
	}
	if (r != -EOPNOTSUPP)
		return r;
	run_plain(cable->queue, out, true);
	run_plain(cable->queue, in, false);
	return 0;
}

/* ---- both ---- */

short net_cable_flush(const struct device_queue *queue)
{
	struct net_stream *stream = queue->device->stream;
	int r = stream != NULL ? net_stream_flush(stream) : 0;

	if (r < 0 && r != -EAGAIN)
		(void)net_cable_is_gone(queue, -r);
	return r == -EAGAIN ? POLLOUT : 0;
}

bool net_cable_is_gone(const struct device_queue *queue, int error)
{
	struct device *device = queue->device;
	bool is_gone = error == EBADFD || error == EBADF || error == EPIPE || error == ECONNRESET ||
		       error == EPROTO;

	/* Of a queue that the driver does not use it is no loss. */
	if (is_gone && queue->index / NET_SIDES < device->pairs &&
		!atomic_exchange(&device->gone, true))
		log_warn("net: %s: %s; the guest has no network any more",
			device->stream != NULL ? "passt" : device->tap.name, strerror(error));
	return is_gone;
}
