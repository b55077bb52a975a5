// SPDX-License-Identifier: BSD-3-Clause
/*
 * The serve loop of devices that answer each chain on the spot. The driver may
 * offer chains without end and of any size, so that after each ring's worth or
 * MiB its share is published and stop is looked for.
 */
#include "virtio/device.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "base/fd.h"

/* With the VMM's part, from which its front half keeps the driver. */
static uint32_t whole_config(const struct device_ops *ops)
{
	return ops->config_size + ops->control_size;
}

int device_get_config(const struct device_ops *ops, struct device *device, uint32_t offset,
	uint8_t *data, uint32_t size)
{
	if (!is_within(offset, size, whole_config(ops)))
		return -EINVAL;
	ops->config_read(device, offset, data, size);
	return 0;
}

int device_set_config(const struct device_ops *ops, struct device *device, uint32_t offset,
	const uint8_t *data, uint32_t size)
{
	if (!is_within(offset, size, ops->config_size) || ops->config_write == NULL)
		return -EINVAL;
	ops->config_write(device, offset, data, size);
	return 0;
}

int device_change_config(const struct device_ops *ops, struct device *device, uint32_t offset,
	const uint8_t *data, uint32_t size)
{
	if (ops->config_change == NULL)
		return -EOPNOTSUPP;
	if (!is_within(offset, size, whole_config(ops)))
		return -EINVAL;
	return ops->config_change(device, offset, data, size);
}

int device_wait_for_kick(const struct device_queue *queue)
{
	struct pollfd fds[] = {
		{ .fd = queue->stop_fd, .events = POLLIN },
		{ .fd = queue->kick_fd, .events = POLLIN },
	};

	while (poll(fds, ARRAY_SIZE(fds), -1) < 0)
		if (errno != EINTR)
			return -errno;
	if (fds[0].revents != 0)
		return 0;
	(void)fd_take_event(queue->kick_fd);
	return 1;
}

bool device_shall_stop(const struct device_queue *queue)
{
	struct pollfd stop = { .fd = queue->stop_fd, .events = POLLIN };

	return poll(&stop, 1, 0) > 0;
}

/* What a batch may read and write, roughly: its last chain may go beyond. */
#define BATCH_BYTES (1 * MIB)

/* Answers at most a ring's worth and BATCH_BYTES. 1: there may be more, 0: all done. */
static int serve_batch(struct device_queue *queue, struct iovec *iov,
	uint32_t (*handle)(struct device *device, const struct virtqueue_chain *chain))
{
	struct virtqueue_chain chain = { .iov = iov, .iov_max = queue->size };
	uint64_t bytes = 0;
	int r = 1;

	for (unsigned n = 0; r == 1 && n < queue->size && bytes < BATCH_BYTES; n++) {
		r = virtqueue_pop(&queue->vq, &chain);
		if (r != 1)
			break;
		uint32_t written = handle(queue->device, &chain);

		virtqueue_push(&queue->vq, chain.head, written);
		bytes += (uint64_t)chain.readable_bytes + written;
	}
	if (virtqueue_publish(&queue->vq))
		(void)eventfd_write(queue->call_fd, 1);
	return r;
}

int device_serve_chains(struct device_queue *queue,
	uint32_t (*handle)(struct device *device, const struct virtqueue_chain *chain))
{
	struct iovec iov[VIRTQUEUE_SIZE_MAX];
	int r = 1;

	/* What the driver offered before we began needs no kick. */
	while (r > 0) {
		do {
			r = serve_batch(queue, iov, handle);
		} while ((r == 1 || (r == 0 && virtqueue_enable_kicks(&queue->vq))) &&
			 !device_shall_stop(queue));
		if (r >= 0)
			r = device_wait_for_kick(queue);
	}
	return r;
}
