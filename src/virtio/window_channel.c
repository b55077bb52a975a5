// SPDX-License-Identifier: BSD-3-Clause
/* Requests with a file one way, results the other. The device may say anything, or stop reading. */
#include "virtio/window_channel.h"

#include <errno.h>

#include "base/fd.h"
#include "base/fd_passing.h"

struct request {
	uint64_t offset;
	uint64_t size;     /* 0: unmap */
	uint32_t writable; /* 0 or 1 */
	uint32_t padding;
};

/* ---- the device's half ---- */

static int ask(struct window_channel *channel, const struct request *request, int fd)
{
	int socket = channel->window.fd;
	CLEANUP_FD int none = -1;
	int32_t result = 0;

	pthread_mutex_lock(&channel->lock);
	int r = fd_send(socket, request, sizeof(*request), fd);

	if (r == 0)
		r = fd_receive(socket, &result, sizeof(result), &none);
	pthread_mutex_unlock(&channel->lock);
	return r < 0 ? r : result;
}

static int map(void *owner, uint64_t offset, uint64_t size, int fd, bool writable)
{
	const struct request request = { offset, size, writable, 0 };

	return size == 0 ? -EINVAL : ask(owner, &request, fd);
}

static int unmap(void *owner, uint64_t offset)
{
	const struct request request = { .offset = offset };

	return ask(owner, &request, -1);
}

static const struct window_ops channel_ops = { .map = map, .unmap = unmap };

void window_channel_init(
	struct window_channel *ret_channel, int socket, uint64_t gpa, uint64_t size)
{
	ret_channel->window = (struct window){
		.ops = &channel_ops,
		.owner = ret_channel,
		.gpa = gpa,
		.size = size,
		.fd = socket,
	};
	pthread_mutex_init(&ret_channel->lock, NULL);
}

/* ---- the VMM's half ---- */

static int32_t do_request(const struct window *window, const struct request *request, int fd)
{
	if (request->size == 0)
		return window->ops->unmap(window->owner, request->offset);
	return window->ops->map(
		window->owner, request->offset, request->size, fd, request->writable != 0);
}

int window_channel_serve(int socket, const struct window *window)
{
	int r;

	do {
		CLEANUP_FD int fd = -1;
		struct request request;

		r = fd_receive(socket, &request, sizeof(request), &fd);
		if (r < 0)
			break;
		int32_t result = do_request(window, &request, fd);

		r = fd_send(socket, &result, sizeof(result), -1);
	} while (r == 0);
	return r == -ENOTCONN || r == -EPIPE || r == -ECONNRESET ? 0 : r;
}
