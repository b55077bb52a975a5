// SPDX-License-Identifier: BSD-3-Clause
/*
 * The threads of the wayland device's rings. Buffers of any number and size are
 * the guest's choice: without any, sockets are not read and nothing spins; one
 * that is too small goes back empty.
 */
#include "virtio/wl_queue.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/fd.h"

enum { BATCH = 64 };

static void publish(struct device_queue *queue)
{
	if (virtqueue_publish(&queue->vq))
		(void)eventfd_write(queue->call_fd, 1);
}

/* Waits, or only looks (timeout 0). 1: go on, 0: stop, or -errno. */
static int wait_for(const struct device_queue *queue, bool kick, int other_fd, int timeout_ms)
{
	struct pollfd fds[] = {
		{ .fd = queue->stop_fd, .events = POLLIN },
		{ .fd = kick ? queue->kick_fd : -1, .events = POLLIN },
		{ .fd = other_fd, .events = POLLIN },
	};

	if (poll(fds, ARRAY_SIZE(fds), timeout_ms) < 0)
		return errno == EINTR ? 1 : -errno;
	if (fds[1].revents != 0)
		(void)fd_take_event(queue->kick_fd);
	return fds[0].revents != 0 ? 0 : 1;
}

static uint32_t copy_out(const struct virtqueue_chain *chain, const uint8_t *bytes, uint32_t size)
{
	uint32_t done = 0;

	for (unsigned i = 0; i < chain->writable && done < size; i++) {
		const struct iovec *iov = &chain->iov[chain->readable + i];
		uint32_t part = (uint32_t)min_u64(iov->iov_len, size - done);

		memcpy(iov->iov_base, bytes + done, part);
		done += part;
	}
	return done;
}

/* The whole of it, before anything is written: command and answer may share memory. */
static void copy_in(const struct virtqueue_chain *chain, uint8_t *ret_bytes)
{
	for (unsigned i = 0; i < chain->readable; i++) {
		memcpy(ret_bytes, chain->iov[i].iov_base, chain->iov[i].iov_len);
		ret_bytes += chain->iov[i].iov_len;
	}
}

/* ---- host to guest ---- */

/* One message. 1: there may be more, 0: none, -ENOBUFS: no buffer of the guest, -EBADMSG. */
static int deliver(struct device_queue *queue, struct iovec *iov)
{
	struct virtqueue_chain chain = { .iov = iov, .iov_max = queue->size };
	struct wl_host *host = queue->device->host;
	uint8_t message[WL_MESSAGE_MAX];
	int r = virtqueue_pop(&queue->vq, &chain);

	if (r <= 0)
		return r == 0 ? -ENOBUFS : r;
	pthread_mutex_lock(&host->lock);
	uint32_t size = wl_host_next_message(host, message);

	/* A buffer without room goes back as it is; the message waits for a better one. */
	if (size > 0 && size <= chain.writable_bytes) {
		virtqueue_push(&queue->vq, chain.head, copy_out(&chain, message, size));
		wl_host_delivered(host);
	} else if (size > 0) {
		virtqueue_push(&queue->vq, chain.head, 0);
	} else {
		virtqueue_unpop(&queue->vq, chain.head);
	}
	pthread_mutex_unlock(&host->lock);
	return size > 0 ? 1 : 0;
}

int wl_serve_in(struct device_queue *queue)
{
	struct wl_host *host = queue->device->host;
	struct iovec iov[WL_QUEUE_SIZE];
	int r = 1;

	while (r == 1) {
		int more = 1;

		for (unsigned n = 0; more == 1 && n < BATCH; n++)
			more = deliver(queue, iov);
		publish(queue);
		if (more < 0 && more != -ENOBUFS)
			return more;
		bool starved = more == -ENOBUFS;

		if (starved && virtqueue_enable_kicks(&queue->vq))
			more = 1;
		/* Sockets are waited for only while there are buffers for what they bring. */
		r = wait_for(queue, starved, starved ? -1 : host->in_epoll_fd, more == 1 ? 0 : -1);
	}
	return r;
}

/* ---- guest to host ---- */

/* What is written to the guest. */
static uint32_t answer(struct device *device, const struct virtqueue_chain *chain)
{
	struct wl_host *host = device->host;
	uint8_t bytes[WL_NEW_SIZE];

	/* Nobody would know what came of it. */
	if (chain->writable_bytes < WL_ANSWER_SIZE)
		return 0;
	if (chain->readable_bytes > WL_COMMAND_MAX)
		return copy_out(chain, bytes, wl_build_answer(WL_ERR, bytes));
	copy_in(chain, device->command);
	pthread_mutex_lock(&host->lock);
	uint32_t size = wl_host_command(
		host, device->command, chain->readable_bytes, chain->writable_bytes, bytes);

	pthread_mutex_unlock(&host->lock);
	return copy_out(chain, bytes, size);
}

static int take_command(struct device_queue *queue, struct iovec *iov)
{
	struct virtqueue_chain chain = { .iov = iov, .iov_max = queue->size };
	int r = virtqueue_pop(&queue->vq, &chain);

	if (r == 1)
		virtqueue_push(&queue->vq, chain.head, answer(queue->device, &chain));
	return r;
}

int wl_serve_out(struct device_queue *queue)
{
	struct wl_host *host = queue->device->host;
	struct iovec iov[WL_QUEUE_SIZE];
	int r = 1;

	while (r == 1) {
		int more = 1;

		for (unsigned n = 0; more == 1 && n < BATCH; n++)
			more = take_command(queue, iov);
		publish(queue);
		if (more < 0)
			return more;
		pthread_mutex_lock(&host->lock);
		wl_host_flush(host);
		pthread_mutex_unlock(&host->lock);
		if (more == 0 && virtqueue_enable_kicks(&queue->vq))
			more = 1;
		r = wait_for(queue, more == 0, host->out_epoll_fd, more == 1 ? 0 : -1);
	}
	return r;
}
