// SPDX-License-Identifier: BSD-3-Clause
/* Carries messages to and from clients that may be of any kind. */
#include "vm/control_socket.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/unix_listener.h"

#define SILENCE_NS NS_PER_S /* that makes a client the one to go when all places are taken */

struct control_client {
	struct control_socket *socket;
	int fd; /* owned */
	uint64_t heard_ns;
	bool subscribed;
	bool failed; /* to be dropped as soon as nobody uses it */
};

struct control_socket {
	struct unix_listener listener;
	struct evloop *loop; /* NULL until started */
	control_receiver *receive;
	void *owner;
	int timer_fd;   /* owned; looks again for room */
	bool accepting; /* the listener is watched */
	bool refusal_logged;
	unsigned count;
	struct control_client *clients[CONTROL_CLIENTS_MAX];
	char buffer[CONTROL_MESSAGE_MAX]; /* last: touched as far as messages are long */
};

/* ---- the listener ---- */

static int find_path(const char *path, char *ret_path, size_t size)
{
	struct stat status;
	int length;

	if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
		length = snprintf(ret_path, size, "%s/crosvm-%d.sock", path, (int)getpid());
	else
		length = snprintf(ret_path, size, "%s", path);
	if (length < 0 || (size_t)length >= size) {
		log_error("--socket: the path of a socket has 1 to %zu characters; choose another",
			size - 1);
		return -ENAMETOOLONG;
	}
	return 0;
}

int control_socket_open(const char *path, struct control_socket **ret_socket)
{
	char where[sizeof((struct sockaddr_un){ 0 }.sun_path)];
	int r = find_path(path, where, sizeof(where));

	if (r < 0)
		return r;
	struct control_socket *socket = malloc(sizeof(*socket));

	if (socket == NULL) {
		log_error("--socket: no memory");
		return -ENOMEM;
	}
	memset(socket, 0, offsetof(struct control_socket, buffer));
	socket->timer_fd = -1;
	r = unix_listener_open_packets("--socket", where, &socket->listener);
	if (r < 0) {
		free(socket);
		return r;
	}
	*ret_socket = socket;
	return 0;
}

const char *control_socket_path(const struct control_socket *socket)
{
	return socket->listener.address.sun_path;
}

unsigned control_socket_clients(const struct control_socket *socket)
{
	return socket->count;
}

static void on_connect(void *argument);

static void start_accepting(struct control_socket *socket)
{
	if (!socket->accepting)
		socket->accepting =
			evloop_add(socket->loop, socket->listener.fd, on_connect, socket) == 0;
}

/* Who connects now waits in the listener's queue, until somebody goes or the timer looks. */
static void stop_accepting(struct control_socket *socket)
{
	const struct itimerspec second = { .it_value.tv_sec = 1 };

	evloop_remove(socket->loop, socket->listener.fd);
	socket->accepting = false;
	(void)timerfd_settime(socket->timer_fd, 0, &second, NULL);
}

/* ---- clients come and go ---- */

static void drop(struct control_socket *socket, unsigned place)
{
	struct control_client *client = socket->clients[place];

	evloop_remove(socket->loop, client->fd);
	fd_close(&client->fd);
	free(client);
	socket->clients[place] = socket->clients[--socket->count];
	start_accepting(socket);
}

/* The only place where clients go while others are looked at. */
static void drop_failed(struct control_socket *socket)
{
	for (unsigned i = socket->count; i-- > 0;)
		if (socket->clients[i]->failed)
			drop(socket, i);
}

static bool is_permitted(struct control_socket *socket, int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return false;
	if (peer.uid == geteuid() || peer.uid == 0)
		return true;
	if (!socket->refusal_logged)
		log_warn("the control socket is for user %u only; process %d of user %u was "
			 "turned away (said once)",
			geteuid(), peer.pid, peer.uid);
	socket->refusal_logged = true;
	return false;
}

static void on_message(void *argument);

static int add_client(struct control_socket *socket, int *fd)
{
	struct control_client *client = malloc(sizeof(*client));

	if (client == NULL)
		return -ENOMEM;
	*client = (struct control_client){
		.socket = socket,
		.fd = *fd,
		.heard_ns = clock_monotonic_ns(),
	};
	int r = evloop_add(socket->loop, *fd, on_message, client);

	if (r < 0) {
		free(client);
		return r;
	}
	(void)fd_steal(fd);
	socket->clients[socket->count++] = client;
	return 0;
}

/* The one that was silent longest, if that is long enough to go. NULL: nobody. */
static struct control_client *most_silent(const struct control_socket *socket)
{
	struct control_client *found = NULL;

	for (unsigned i = 0; i < socket->count; i++) {
		struct control_client *client = socket->clients[i];

		if (!client->subscribed && (found == NULL || client->heard_ns < found->heard_ns))
			found = client;
	}
	return found != NULL && clock_monotonic_ns() - found->heard_ns >= SILENCE_NS ? found : NULL;
}

static bool make_room(struct control_socket *socket)
{
	if (socket->count < CONTROL_CLIENTS_MAX)
		return true;
	struct control_client *silent = most_silent(socket);

	if (silent == NULL)
		return false;
	silent->failed = true;
	drop_failed(socket);
	return true;
}

/* Somebody connects. Without a place, a descriptor or memory we wait: it stays in the queue. */
static void on_connect(void *argument)
{
	struct control_socket *socket = argument;

	if (!make_room(socket)) {
		stop_accepting(socket);
		return;
	}
	// cppcheck-suppress nullPointer ; accept4() takes NULL where nobody asks for the address
	CLEANUP_FD int fd = accept4(socket->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			stop_accepting(socket);
		return;
	}
	if (is_permitted(socket, fd) && add_client(socket, &fd) < 0)
		stop_accepting(socket);
}

/* A second after we stopped accepting there may be room, or somebody to make some. */
static void on_timer(void *argument)
{
	struct control_socket *socket = argument;
	uint64_t expirations;

	(void)!read(socket->timer_fd, &expirations, sizeof(expirations));
	start_accepting(socket);
}

/* ---- messages ---- */

/*
 * There is no room for descriptors, so the kernel closes those that come along
 * and none is ever ours; MSG_CTRUNC tells that there were any. A message
 * without bytes cannot be told from the end of the connection and is taken for it.
 */
static ssize_t receive(struct control_client *client, struct control_message *message)
{
	struct control_socket *socket = client->socket;
	struct iovec iov = { socket->buffer, sizeof(socket->buffer) };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n = recvmsg(client->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	*message = (struct control_message){
		.text = socket->buffer,
		.size = n > 0 ? (size_t)n : 0,
		.too_long = (header.msg_flags & MSG_TRUNC) != 0,
		.with_descriptors = (header.msg_flags & MSG_CTRUNC) != 0,
	};
	return n;
}

static void on_message(void *argument)
{
	struct control_client *client = argument;
	struct control_socket *socket = client->socket;
	struct control_message message;
	ssize_t n = receive(client, &message);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	client->heard_ns = clock_monotonic_ns();
	if (n <= 0)
		client->failed = true;
	else
		socket->receive(socket->owner, client, &message);
	drop_failed(socket);
}

void control_client_send(struct control_client *client, const char *text, size_t size)
{
	if (client->failed)
		return;
	client->failed = send(client->fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size;
	if (client->failed)
		log_debug("a client of the control socket is dropped: %s", strerror(errno));
}

void control_client_subscribe(struct control_client *client)
{
	client->subscribed = true;
}

/* Who fails here is dropped at the next message of anybody, and its hang-up is one. */
void control_socket_publish(struct control_socket *socket, const char *text, size_t size)
{
	for (unsigned i = 0; i < socket->count; i++) {
		struct control_client *client = socket->clients[i];

		if (!client->subscribed || client->failed)
			continue;
		control_client_send(client, text, size);
		if (client->failed)
			(void)shutdown(client->fd, SHUT_RDWR);
	}
}

/* ---- life ---- */

int control_socket_start(struct control_socket *socket, struct evloop *loop,
	control_receiver *receive_message, void *owner)
{
	socket->loop = loop;
	socket->receive = receive_message;
	socket->owner = owner;
	socket->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (socket->timer_fd < 0)
		return -errno;
	int r = evloop_add(loop, socket->timer_fd, on_timer, socket);

	if (r == 0) {
		r = evloop_add(loop, socket->listener.fd, on_connect, socket);
		socket->accepting = r == 0;
	}
	return r;
}

void control_socket_free(struct control_socket *socket)
{
	if (socket == NULL)
		return;
	for (unsigned i = 0; i < socket->count; i++) {
		evloop_remove(socket->loop, socket->clients[i]->fd);
		fd_close(&socket->clients[i]->fd);
		free(socket->clients[i]);
	}
	if (socket->loop != NULL) {
		evloop_remove(socket->loop, socket->listener.fd);
		evloop_remove(socket->loop, socket->timer_fd);
	}
	fd_close(&socket->timer_fd);
	unix_listener_close(&socket->listener);
	free(socket);
}
