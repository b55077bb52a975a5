// SPDX-License-Identifier: BSD-3-Clause
/* Talks to a control socket. Whoever listens there may answer anything, or nothing. */
#include "cli/client.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/unix_connect.h"
#include "vm/control_protocol.h"
#include "vm/control_socket.h"

enum { REPLY_TIMEOUT_MS = 10000 };

static const char *connect_advice(int error)
{
	switch (error) {
	case ENOENT:
	case ECONNREFUSED:
		return "; no VM is there";
	case EACCES:
		return "; the VM belongs to another user";
	case EPROTOTYPE:
		return "; that is not a control socket";
	default:
		return "";
	}
}

int client_connect(const char *path, int *ret_fd)
{
	int r = unix_connect(SOCK_SEQPACKET, path, ret_fd);

	if (r == -ENAMETOOLONG)
		log_error("%s: the path of a socket has 1 to %d characters", path, UNIX_PATH_MAX);
	else if (r < 0)
		log_error("%s: cannot connect: %s%s", path, strerror(-r), connect_advice(-r));
	return r;
}

int client_await(int fd, int out_fd)
{
	/* A pipe's writer is told of its end by POLLERR, a socket's or a terminal's by POLLHUP. */
	struct pollfd fds[] = { { .fd = fd, .events = POLLIN }, { .fd = out_fd } };

	if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
		return -errno;
	return fds[1].revents != 0 ? -EPIPE : 0;
}

int client_receive(int fd, int timeout_ms, json_t **ret_message)
{
	char text[CONTROL_MESSAGE_MAX];
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	int ready = poll(&readable, 1, timeout_ms);

	if (ready <= 0)
		return ready == 0 ? -ETIMEDOUT : -errno;
	ssize_t n = recv(fd, text, sizeof(text), MSG_DONTWAIT);

	if (n <= 0)
		return n == 0 || errno == ECONNRESET ? -ENODATA : -errno;
	json_t *message = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);

	if (!json_is_object(message)) {
		json_decref(message);
		return -EBADMSG;
	}
	*ret_message = message;
	return 0;
}

static int send_request(int fd, const char *verb, const json_t *fields)
{
	char text[128];
	json_t *request =
		json_pack("{s:i, s:s}", "version", CONTROL_PROTOCOL_VERSION, "verb", verb);
	size_t size = 0;

	if (request != NULL &&
		(fields == NULL || json_object_update(request, (json_t *)fields) == 0))
		size = json_dumpb(request, text, sizeof(text), JSON_COMPACT);

	json_decref(request);
	if (size == 0 || size > sizeof(text))
		return -ENOMEM;
	return send(fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static const char *explain(int error)
{
	switch (error) {
	case -ETIMEDOUT:
		return "no answer within 10 s; the VM may be stopped by a signal";
	case -ENODATA:
	case -EPIPE:
	case -ECONNRESET:
		return "no answer: the connection was closed; the VM has just ended, or is another "
		       "user's";
	case -EBADMSG:
		return "an answer that is none of crosvm's";
	default:
		return strerror(-error);
	}
}

int client_ask(const char *path, int fd, const char *verb, const json_t *fields, json_t **ret_reply)
{
	json_t *reply = NULL;
	int r = send_request(fd, verb, fields);

	if (r == 0)
		r = client_receive(fd, REPLY_TIMEOUT_MS, &reply);
	if (r < 0) {
		log_error("%s: %s", path, explain(r));
		return r;
	}
	if (json_is_true(json_object_get(reply, "ok"))) {
		*ret_reply = reply;
		return 0;
	}
	const char *why = json_string_value(json_object_get(reply, "error"));

	log_error("%s: %s", path, why != NULL ? why : explain(-EBADMSG));
	json_decref(reply);
	return -EREMOTEIO;
}
