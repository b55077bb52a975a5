// SPDX-License-Identifier: BSD-3-Clause
/*
 * Ports one way, connected sockets the other. To the helper the device is
 * hostile, but four bytes are all that it may say, and each is a port.
 */
#include "virtio/vsock_connector.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/fd_passing.h"
#include "virtio/vsock_unix.h"

bool vsock_connector_directory(const char *path, char *ret_directory, size_t size)
{
	const char *slash = strrchr(path, '/');
	size_t length = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);

	if (length >= size)
		return false;
	memcpy(ret_directory, slash == NULL ? "." : path, length);
	ret_directory[length] = '\0';
	return true;
}

int vsock_connector_serve(const char *path, int socket)
{
	const char *slash = strrchr(path, '/');
	char inside[VSOCK_PATH_MAX + 2]; /* a '/' may come before it */
	struct vsock_connector_answer answer;
	CLEANUP_FD int unasked = -1;

	snprintf(inside, sizeof(inside), "/%s", slash == NULL ? path : slash + 1);
	while (fd_receive(socket, &answer.port, sizeof(answer.port), &unasked) == 0) {
		CLEANUP_FD int fd = -1;

		answer.result = vsock_unix_connect(inside, answer.port, &fd);
		fd_close(&unasked);
		if (fd_send(socket, &answer, sizeof(answer), fd) < 0)
			break;
	}
	return 0;
}

int vsock_connector_ask(int socket, uint32_t port, int *ret_fd)
{
	uint64_t deadline_ns = clock_monotonic_ns() + VSOCK_CONNECTOR_MS * NS_PER_MS;
	CLEANUP_FD int fd = -1;
	struct vsock_connector_answer answer = { 0 };
	int r = fd_send(socket, &port, sizeof(port), -1);

	if (r < 0)
		return -ECONNABORTED;
	do {
		fd_close(&fd); /* another port's */
		r = fd_wait(socket, POLLIN, deadline_ns);
		if (r == 0)
			r = fd_receive(socket, &answer, sizeof(answer), &fd);
	} while (r == 0 && answer.port != port);
	if (r < 0 || (answer.result == 0 && fd < 0))
		return -ECONNABORTED;
	if (answer.result != 0)
		return answer.result < 0 ? answer.result : -ECONNABORTED;
	*ret_fd = fd_steal(&fd);
	return 0;
}
