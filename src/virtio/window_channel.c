// SPDX-License-Identifier: BSD-3-Clause
/* Requests with a file one way, results the other. Either end may say anything, or stop reading. */
#include "virtio/window_channel.h"

#include <errno.h>

#include "virtio/vhost_user_message.h"

enum { SHMID = 0, WRITABLE = 1 };

/* Nobody waits for less: KVM may hold the VMM's half, and its own end ends the wait. */
static const uint64_t never_ns = UINT64_MAX;

/* ---- the device's half ---- */

static int ask(struct window_channel *channel, struct vhost_user_message *request)
{
	struct vhost_user_message reply = { 0 };

	request->flags = VHOST_USER_VERSION | VHOST_USER_FLAG_NEED_REPLY;
	request->size = sizeof(request->mapping);
	pthread_mutex_lock(&channel->lock);
	int r = vhost_user_send(channel->socket, request, never_ns);

	if (r == 0)
		r = vhost_user_receive_reply(
			channel->socket, request->request, sizeof(reply.u64), &reply, never_ns);
	pthread_mutex_unlock(&channel->lock);
	return r == 0 ? vhost_user_message_result(&reply) : r;
}

static int map(void *owner, uint64_t offset, uint64_t size, int fd, bool writable)
{
	struct vhost_user_message request = {
		.request = VHOST_USER_BACKEND_SHMEM_MAP,
		.mapping = { .offset = offset, .size = size, .flags = writable ? WRITABLE : 0 },
		.fd_count = 1,
		.fds = { fd },
	};

	return ask(owner, &request);
}

static int unmap(void *owner, uint64_t offset, uint64_t size)
{
	struct vhost_user_message request = {
		.request = VHOST_USER_BACKEND_SHMEM_UNMAP,
		.mapping = { .offset = offset, .size = size },
	};

	return ask(owner, &request);
}

static const struct window_ops channel_ops = { .map = map, .unmap = unmap };

void window_channel_init(struct window_channel *ret_channel, int socket, uint64_t size)
{
	*ret_channel = (struct window_channel){
		.window = { .ops = &channel_ops, .owner = ret_channel, .size = size, .fd = -1 },
		.socket = socket,
	};
	pthread_mutex_init(&ret_channel->lock, NULL);
}

/* ---- the VMM's half ---- */

/* A file is shown from its beginning: what our devices ask for. */
static int do_request(const struct window *window, const struct vhost_user_message *message)
{
	const struct vhost_user_mapping *mapping = &message->mapping;

	if (mapping->shmid != SHMID || mapping->fd_offset != 0 ||
		(mapping->flags & ~(uint64_t)WRITABLE) != 0)
		return -EINVAL;
	if (message->request == VHOST_USER_BACKEND_SHMEM_UNMAP)
		return window->ops->unmap(window->owner, mapping->offset, mapping->size);
	return window->ops->map(window->owner, mapping->offset, mapping->size, message->fds[0],
		(mapping->flags & WRITABLE) != 0);
}

static int serve_request(int socket, const struct window *window)
{
	struct vhost_user_message message = { 0 };
	int r = vhost_user_receive_back_request(socket, &message, never_ns);

	if (r < 0)
		return r;
	int result = do_request(window, &message);

	vhost_user_message_release(&message);
	if ((message.flags & VHOST_USER_FLAG_NEED_REPLY) == 0)
		return 0;
	message.flags = VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY;
	vhost_user_message_set_result(&message, result);
	return vhost_user_send(socket, &message, never_ns);
}

int window_channel_serve(int socket, const struct window *window)
{
	int r;

	do {
		r = serve_request(socket, window);
	} while (r == 0);
	return r == -ENOTCONN ? 0 : r;
}
