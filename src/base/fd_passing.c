// SPDX-License-Identifier: BSD-3-Clause
/* Descriptors over sockets. Those that nobody asked for are closed. */
#include "base/fd_passing.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/fd.h"

static int send_one(int socket, const void *data, size_t size, int fd, int flags)
{
	char control[CMSG_SPACE(sizeof(fd))] __attribute__((aligned(8))) = { 0 };
	struct cmsghdr *header = (struct cmsghdr *)(void *)control;
	struct iovec iov = { (void *)(uintptr_t)data, size };
	const struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = fd >= 0 ? control : NULL,
		.msg_controllen = fd >= 0 ? sizeof(control) : 0,
	};
	ssize_t n;

	*header = (struct cmsghdr){ CMSG_LEN(sizeof(fd)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	do {
		n = sendmsg(socket, &message, MSG_NOSIGNAL | flags);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int fd_send(int socket, const void *data, size_t size, int fd)
{
	return send_one(socket, data, size, fd, 0);
}

int fd_send_now(int socket, const void *data, size_t size, int fd)
{
	return send_one(socket, data, size, fd, MSG_DONTWAIT);
}

/* The one descriptor of a message, or -1; closes the others. */
static int collect(struct msghdr *message, int *ret_fd)
{
	int r = (message->msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0 ? -EPROTO : 0;

	*ret_fd = -1;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL;
		header = CMSG_NXTHDR(message, header)) {
		size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			if (*ret_fd >= 0)
				r = -EPROTO;
			fd_close(ret_fd);
			memcpy(ret_fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
		}
	}
	return r;
}

int fd_receive(int socket, void *data, size_t size, int *ret_fd)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = { data, size };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	CLEANUP_FD int fd = -1;
	ssize_t n;

	do {
		n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	int r = collect(&message, &fd);

	if (n == 0)
		return -ENOTCONN;
	if (r < 0 || (size_t)n != size)
		return -EPROTO;
	*ret_fd = fd_steal(&fd);
	return 0;
}
