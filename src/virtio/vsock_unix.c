// SPDX-License-Identifier: BSD-3-Clause
/* Unix stream sockets, none of which blocks. Programs of the host may send and end at any time. */
#include "virtio/vsock_unix.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/connector.h"

static const char greeting[] = "CONNECT ";

/* "CONNECT ", ten digits, "\r\n". */
enum { GREETING_MAX = sizeof(greeting) - 1 + 10 + 2 };

int vsock_unix_connect(const char *path, uint32_t port, int *ret_fd)
{
	char text[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
	int length = snprintf(text, sizeof(text), "%s_%u", path, port);

	return length < 0 || (size_t)length >= sizeof(text) ? -ENAMETOOLONG
							    : connector_connect(text, ret_fd);
}

int vsock_unix_accept(int listener_fd, int *ret_fd)
{
	int fd;

	do {
		// cppcheck-suppress nullPointer ; who it is does not matter
		fd = accept4(listener_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	} while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

/* The decimal number of a line that ends at its '\n'. */
static int parse_port(const char *text, const char *end, uint32_t *ret_port)
{
	uint64_t port = 0;
	const char *c = text;

	for (; c < end && *c >= '0' && *c <= '9' && port <= UINT32_MAX; c++)
		port = 10 * port + (uint64_t)(*c - '0');
	if (c < end && *c == '\r')
		c++;
	if (c == text || c != end || port >= UINT32_MAX) /* the last is "any" */
		return -EPROTO;
	*ret_port = (uint32_t)port;
	return 0;
}

int vsock_unix_take_greeting(int fd, uint32_t *ret_port)
{
	char line[GREETING_MAX];
	ssize_t n = recv(fd, line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);

	if (n <= 0)
		return n == 0 ? -EPROTO : errno == EINTR ? -EAGAIN : -errno;
	const char *end = memchr(line, '\n', (size_t)n);

	if (end == NULL)
		return n < GREETING_MAX ? -EAGAIN : -EPROTO;
	size_t prefix = sizeof(greeting) - 1;

	if ((size_t)(end - line) < prefix || memcmp(line, greeting, prefix) != 0)
		return -EPROTO;
	n = recv(fd, line, (size_t)(end - line) + 1, MSG_DONTWAIT);
	if (n < 0)
		return -errno;
	return parse_port(line + prefix, end, ret_port);
}

bool vsock_unix_has_bytes(int fd)
{
	char byte;

	return recv(fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT) > 0;
}

int vsock_unix_confirm(int fd, uint32_t host_port)
{
	char line[sizeof("OK 4294967295\n")];
	int length = snprintf(line, sizeof(line), "OK %u\n", host_port);
	ssize_t n = send(fd, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n < 0 ? -errno : n == length ? 0 : -EPIPE;
}

void vsock_unix_make_room(int fd, uint32_t bytes)
{
	int half = (int)bytes / 2; /* which Linux doubles, for what it adds to each packet */

	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half));
}

ssize_t vsock_unix_send(int fd, const struct iovec *iov, unsigned count)
{
	const struct msghdr message = { .msg_iov = (struct iovec *)iov, .msg_iovlen = count };
	ssize_t n;

	do {
		n = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t vsock_unix_receive(int fd, const struct vsock_data *to, bool *ret_was_cut)
{
	struct msghdr message = { .msg_iov = (struct iovec *)to->iov, .msg_iovlen = to->count };
	ssize_t n;

	do {
		n = recvmsg(fd, &message, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	*ret_was_cut = (message.msg_flags & MSG_CTRUNC) != 0;
	return n < 0 ? -errno : n;
}
