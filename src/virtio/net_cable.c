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
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "virtio/net_guard.h"
#include "virtio/net_queue.h"

enum { WAIT_STOP, WAIT_KICK, WAIT_CABLE, WAIT_COUNT };
/* In place of a frame's index. */
enum { TAG_CANCEL = NET_CABLE_FRAMES_MAX };

static const uint8_t allowed_operations[] = {
	IORING_OP_READV,
	IORING_OP_WRITEV,
	IORING_OP_ASYNC_CANCEL,
};

const struct uring_kind net_uring_kind = {
	.entries = 2 * NET_CABLE_FRAMES_MAX,
	.operation_count = ARRAY_SIZE(allowed_operations),
	.operations = allowed_operations,
};

static int cable_fd(const struct device_queue *queue)
{
	const struct device *device = queue->device;

	return device->stream != NULL ? net_stream_fd(device->stream)
				      : device->tap.fds[queue->index / 2];
}

static void close_ring(struct net_cable *cable, bool dead)
{
	if (cable->ring != NULL)
		urings_close(&cable->queue->device->urings, cable->queue->index, dead);
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
		close_ring(cable, true);
}

void net_cable_close(struct net_cable *cable)
{
	close_ring(cable, false);
}

/* ---- with io_uring ---- */

/* Not to be had at the moment, or interrupted: it is tried again later. */
static bool is_not_now(ssize_t result)
{
	return result == -EAGAIN || result == -ECANCELED || result == -EINTR;
}

static void submit(
	struct net_cable *cable, const struct net_frame *frames, unsigned count, bool to_network)
{
	int fd = cable_fd(cable->queue);

	for (unsigned i = 0; i < count; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(cable->ring);

		if (to_network)
			io_uring_prep_writev(sqe, fd, frames[i].iov, frames[i].iov_count, 0);
		else
			io_uring_prep_readv(sqe, fd, frames[i].iov, frames[i].iov_count, 0);
		sqe->user_data = i;
	}
}

static void submit_cancel(struct net_cable *cable)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(cable->ring);

	io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY);
	sqe->user_data = TAG_CANCEL;
}

/* Takes completions. Frames that are through come into the order. */
static void reap(struct net_cable *cable, struct net_frame *frames, unsigned *left,
	uint8_t *ret_order, unsigned *done)
{
	struct io_uring_cqe *cqe;
	unsigned head;
	unsigned count = 0;

	io_uring_for_each_cqe(cable->ring, head, cqe)
	{
		count++;
		if (cqe->user_data == TAG_CANCEL)
			continue;
		struct net_frame *frame = &frames[cqe->user_data];

		--*left;
		frame->result = is_not_now(cqe->res) ? -EAGAIN : cqe->res;
		if (frame->result != -EAGAIN)
			ret_order[(*done)++] = (uint8_t)cqe->user_data;
	}
	io_uring_cq_advance(cable->ring, count);
}

/*
 * As net_cable_receive(). One whose event comes at this very moment cannot be
 * cancelled, and may wait again afterwards, so it is tried until none is left.
 * -EOPNOTSUPP: the kernel took nothing and never will.
 */
static int run_ring(struct net_cable *cable, struct net_frame *frames, unsigned count,
	uint8_t *ret_order, bool to_network)
{
	unsigned left = count;
	unsigned done = 0;

	submit(cable, frames, count, to_network);
	for (bool first = true; left > 0; first = false) {
		/* What the kernel was too short of memory to take goes first. */
		if (first || io_uring_sq_ready(cable->ring) == 0)
			submit_cancel(cable);
		int r = io_uring_submit_and_wait(cable->ring, 1);

		if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
			return io_uring_sq_ready(cable->ring) > count ? -EOPNOTSUPP : r;
		reap(cable, frames, &left, ret_order, &done);
	}
	return (int)done;
}

/* ---- without ---- */

static ssize_t receive_one(const struct device_queue *queue, const struct net_frame *frame)
{
	struct net_stream *stream = queue->device->stream;

	if (stream != NULL)
		return net_stream_receive(stream, frame->iov, frame->iov_count, NET_HEADER_SIZE);
	ssize_t n = readv(cable_fd(queue), frame->iov, (int)frame->iov_count);

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

	net_load(frame->iov + 1, start, size);
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
	ssize_t n = writev(cable_fd(queue), frame->iov, (int)frame->iov_count);

	return n < 0 ? -errno : n;
}

/* Up to the first that does not go on. */
static int run_plain(const struct net_cable *cable, struct net_frame *frames, unsigned count,
	uint8_t *ret_order, bool to_network)
{
	unsigned done = 0;

	while (done < count) {
		struct net_frame *frame = &frames[done];
		ssize_t result = to_network ? send_one(cable->queue, frame)
					    : receive_one(cable->queue, frame);

		if (is_not_now(result))
			break;
		frame->result = result;
		ret_order[done] = (uint8_t)done;
		done++;
	}
	for (unsigned i = done; i < count; i++)
		frames[i].result = -EAGAIN;
	return (int)done;
}

static int run(struct net_cable *cable, struct net_frame *frames, unsigned count,
	uint8_t *ret_order, bool to_network)
{
	/* For one frame a plain call is the same and cheaper. */
	if (cable->ring == NULL || count == 1)
		return run_plain(cable, frames, count, ret_order, to_network);
	int r = run_ring(cable, frames, count, ret_order, to_network);

	if (r < 0)
		close_ring(cable, true);
	return r == -EOPNOTSUPP ? run_plain(cable, frames, count, ret_order, to_network) : r;
}

int net_cable_receive(
	struct net_cable *cable, struct net_frame *frames, unsigned count, uint8_t *ret_order)
{
	return run(cable, frames, count, ret_order, false);
}

int net_cable_send(struct net_cable *cable, struct net_frame *frames, unsigned count)
{
	uint8_t order[NET_CABLE_FRAMES_MAX];
	int r = run(cable, frames, count, order, true);

	return r < 0 ? r : 0;
}

short net_cable_flush(struct net_cable *cable)
{
	struct net_stream *stream = cable->queue->device->stream;
	int r = stream != NULL ? net_stream_flush(stream) : 0;

	if (r < 0 && r != -EAGAIN)
		net_cable_failed(cable->queue, -r);
	return r == -EAGAIN ? POLLOUT : 0;
}

/* ---- both ---- */

void net_cable_failed(const struct device_queue *queue, int error)
{
	const struct device *device = queue->device;

	if (!atomic_exchange(&queue->device->gone, true))
		log_warn("net: %s: %s; the guest has no network any more",
			device->stream != NULL ? "passt" : device->tap.name, strerror(error));
}

int net_cable_wait(const struct device_queue *queue, bool kick, short events, int timeout_ms)
{
	struct pollfd fds[WAIT_COUNT] = {
		[WAIT_STOP] = { .fd = queue->stop_fd, .events = POLLIN },
		[WAIT_KICK] = { .fd = kick ? queue->kick_fd : -1, .events = POLLIN },
		[WAIT_CABLE] = { .fd = events != 0 ? cable_fd(queue) : -1, .events = events },
	};
	eventfd_t kicks;
	int n;

	do {
		n = poll(fds, WAIT_COUNT, timeout_ms);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (fds[WAIT_STOP].revents != 0)
		return 0;
	if (fds[WAIT_KICK].revents != 0)
		(void)eventfd_read(queue->kick_fd, &kicks);
	return n > 0 ? 1 : -ETIME;
}

int net_cable_look(const struct device_queue *queue)
{
	int r = net_cable_wait(queue, false, 0, 0);

	return r == -ETIME ? 1 : r;
}
