// SPDX-License-Identifier: BSD-3-Clause
/* The other ends are programs of the host, and what they do with what they get is their business.
 */
#include "virtio/wl_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

enum { PENDING_MAX = WL_PENDING_MAX / WL_PENDING_CHUNK };
#ifndef SCM_PIDFD
enum { SCM_PIDFD = 4 }; /* Linux 6.5 */
#endif

union control {
	struct cmsghdr align;
	uint8_t bytes[CMSG_SPACE(WL_FDS_MAX * sizeof(int))];
};

static ssize_t send_with_fds(
	int fd, const uint8_t *data, size_t size, const int *fds, unsigned fd_count)
{
	union control control;
	struct iovec iov = { (void *)(uintptr_t)data, size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd_count > 0) {
		memset(&control, 0, sizeof(control));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		control.align = (struct cmsghdr){
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
			.cmsg_len = CMSG_LEN(fd_count * sizeof(int)),
		};
		memcpy(CMSG_DATA(&control.align), fds, fd_count * sizeof(int));
	}
	return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Bytes sent, 0: not now, or -errno. SIGPIPE is ignored by the process. */
static ssize_t send_some(
	const struct wl_vfd *vfd, const uint8_t *data, size_t size, const int *fds, unsigned count)
{
	ssize_t n;

	do {
		n = vfd->is_socket ? send_with_fds(vfd->fd, data, size, fds, count)
				   : fd_write_now(vfd->fd, data, size);
	} while (n < 0 && errno == EINTR);
	return n >= 0 ? n : errno == EAGAIN ? 0 : -errno;
}

static int keep_fds(
	struct wl_table *table, struct wl_pending *chunk, const int *fds, unsigned fd_count)
{
	for (unsigned i = 0; i < fd_count; i++) {
		int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);

		if (fd < 0)
			return -errno;
		int r = wl_own(table, &chunk->fds[i], fd);

		if (r < 0)
			return r;
		chunk->fd_count++;
	}
	return 0;
}

bool wl_stream_has_room(const struct wl_table *table, const struct wl_vfd *vfd, size_t size)
{
	unsigned chunks = (unsigned)(size / WL_PENDING_CHUNK + 1);

	return vfd->pending_count + chunks <= PENDING_MAX &&
	       table->pending_count + chunks <= 4 * PENDING_MAX;
}

/* Of a chunk's size at most. What of it is there stays, whatever comes of it. */
static int keep_chunk(struct wl_table *table, struct wl_vfd *vfd, const uint8_t *data, size_t size,
	const int *fds, unsigned fd_count)
{
	struct wl_pending *last = vfd->last_pending;

	if (last != NULL && fd_count == 0 && size <= WL_PENDING_CHUNK - last->end) {
		memcpy(last->data + last->end, data, size);
		last->end += (unsigned)size;
		return 0;
	}
	if (vfd->pending_count == PENDING_MAX || table->pending_count == 4 * PENDING_MAX)
		return -ENOBUFS;
	struct wl_pending *chunk = malloc(sizeof(*chunk));

	if (chunk == NULL)
		return -ENOMEM;
	chunk->next = NULL;
	chunk->begin = 0;
	chunk->end = (unsigned)size;
	chunk->fd_count = 0;
	memcpy(chunk->data, data, size);
	if (last == NULL)
		vfd->pending = chunk;
	else
		last->next = chunk;
	vfd->last_pending = chunk;
	vfd->pending_count++;
	table->pending_count++;
	// cppcheck-suppress memleak ; it is in the list
	return keep_fds(table, chunk, fds, fd_count);
}

int wl_stream_send(struct wl_table *table, struct wl_vfd *vfd, const uint8_t *data, size_t size,
	const int *fds, unsigned fd_count)
{
	size_t done = 0;
	int r = 0;

	if (vfd->pending == NULL) {
		ssize_t n = send_some(vfd, data, size, fds, fd_count);

		if (n < 0)
			return (int)n;
		done = (size_t)n;
	}
	if (done > 0)
		fd_count = 0;
	if (done == size)
		return 1;
	for (size_t part; r == 0 && done < size; done += part, fd_count = 0) {
		part = min_u64(size - done, WL_PENDING_CHUNK);
		r = keep_chunk(table, vfd, data + done, part, fds, fd_count);
	}
	return r;
}

static void drop_first(struct wl_table *table, struct wl_vfd *vfd)
{
	struct wl_pending *chunk = vfd->pending;

	vfd->pending = chunk->next;
	if (vfd->pending == NULL)
		vfd->last_pending = NULL;
	vfd->pending_count--;
	table->pending_count--;
	free(chunk);
}

int wl_stream_flush(struct wl_table *table, struct wl_vfd *vfd)
{
	while (vfd->pending != NULL) {
		struct wl_pending *chunk = vfd->pending;
		ssize_t n = send_some(vfd, chunk->data + chunk->begin, chunk->end - chunk->begin,
			chunk->fds, chunk->fd_count);

		if (n <= 0)
			return (int)n;
		while (chunk->fd_count > 0)
			wl_disown(table, &chunk->fds[--chunk->fd_count]);
		chunk->begin += (unsigned)n;
		if (chunk->begin == chunk->end)
			drop_first(table, vfd);
	}
	return 1;
}

/* Takes the descriptors of a message. More than there is room for closes all. */
static int take_fds(const struct msghdr *message, struct wl_received *received)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL;
		c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)message, c)) {
		size_t size = c->cmsg_len - CMSG_LEN(0);
		int pidfd;

		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_PIDFD) {
			/* A socket whose last owner asked for that. */
			memcpy(&pidfd, CMSG_DATA(c), sizeof(pidfd));
			fd_close(&pidfd);
		}
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		received->fd_count = (unsigned)min_u64(size / sizeof(int), WL_FDS_MAX);
		memcpy(received->fds, CMSG_DATA(c), received->fd_count * sizeof(int));
	}
	if ((message->msg_flags & MSG_CTRUNC) == 0)
		return 0;
	while (received->fd_count > 0)
		fd_close(&received->fds[--received->fd_count]);
	return -EPROTO;
}

int wl_stream_receive(const struct wl_vfd *vfd, struct wl_received *ret_received)
{
	union control control;
	struct iovec iov = { ret_received->data, sizeof(ret_received->data) };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = vfd->is_socket ? recvmsg(vfd->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
				   : fd_read_now(vfd->fd, iov.iov_base, iov.iov_len);

	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	ret_received->size = (size_t)n;
	ret_received->fd_count = 0;
	return vfd->is_socket ? take_fds(&message, ret_received) : 0;
}
