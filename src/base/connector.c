// SPDX-License-Identifier: BSD-3-Clause
/*
 * Numbers one way, connected sockets the other. To the helper the device is
 * hostile, but a number and what it shall be answered with are all that it may say.
 */
#include "base/connector.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/fd_passing.h"

enum { REST_MS = 4 * CONNECTOR_MS }; /* for a helper that did not answer */

int connector_directory(const char *path, char *ret_directory, size_t size)
{
	const char *slash = strrchr(path, '/');
	size_t length = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);

	if (length >= size)
		return -ENAMETOOLONG;
	memcpy(ret_directory, slash == NULL ? "." : path, length);
	ret_directory[length] = '\0';
	return 1;
}

const char *connector_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? path : slash + 1;
}

int connector_connect(const char *path, int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = strlen(path);

	if (length >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, length);
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		// cppcheck-suppress resourceLeak ; CLEANUP_FD closes it
		return -errno;
	*ret_fd = fd_steal(&fd);
	return 0;
}

static int send_answer(int socket, struct connector_answer *answer, int fd)
{
	int r = fd_send(socket, answer, sizeof(*answer), fd);

	/* Too many are in flight, of all programs of this user: that will pass. */
	if (r == -ETOOMANYREFS) {
		answer->result = r;
		r = fd_send(socket, answer, sizeof(*answer), -1);
	}
	return r;
}

int connector_serve(int socket, int (*connect)(const void *owner, uint32_t number, int *ret_fd),
	const void *owner)
{
	struct connector_request request;
	CLEANUP_FD int unasked = -1;

	while (fd_receive(socket, &request, sizeof(request), &unasked) == 0) {
		struct connector_answer answer = { .serial = request.serial };
		CLEANUP_FD int fd = -1;

		answer.result = connect(owner, request.number, &fd);
		fd_close(&unasked);
		if (send_answer(socket, &answer, fd) < 0)
			break;
	}
	return 0;
}

static int ask(int socket, uint64_t now_ns, uint32_t number, int *ret_fd)
{
	uint64_t deadline_ns = now_ns + CONNECTOR_MS * NS_PER_MS;
	CLEANUP_FD int fd = -1;
	/* Each request's answer is waited for before the next is made, which takes longer than 1
	 * ns. */
	const struct connector_request request = { .serial = now_ns, .number = number };
	struct connector_answer answer = { 0 };
	/* Full: so many that it has not answered. */
	int r = fd_send_now(socket, &request, sizeof(request), -1);

	if (r < 0)
		return r == -EAGAIN ? -ETIMEDOUT : -ECONNABORTED;
	do {
		fd_close(&fd); /* another request's */
		r = fd_wait(socket, POLLIN, deadline_ns);
		if (r == 0)
			r = fd_receive(socket, &answer, sizeof(answer), &fd);
	} while (r == 0 && answer.serial != request.serial);
	if (r < 0 || (answer.result == 0 && fd < 0))
		return r == -ETIMEDOUT ? r : -ECONNABORTED;
	if (answer.result != 0)
		return answer.result < 0 ? answer.result : -ECONNABORTED;
	*ret_fd = fd_steal(&fd);
	return 0;
}

int connector_ask(int socket, uint64_t *ask_from_ns, uint32_t number, int *ret_fd)
{
	uint64_t now_ns = clock_monotonic_ns();
	int r = now_ns < *ask_from_ns ? -ETIMEDOUT : ask(socket, now_ns, number, ret_fd);

	if (r == -ETIMEDOUT && now_ns >= *ask_from_ns)
		*ask_from_ns = clock_monotonic_ns() + REST_MS * NS_PER_MS;
	return r;
}

const char *connector_fault(int r)
{
	return r == -ETIMEDOUT      ? "does not answer in time"
	       : r == -ECONNABORTED ? "gives no answer that can be used"
				    : NULL;
}
