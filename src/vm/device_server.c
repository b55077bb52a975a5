// SPDX-License-Identifier: BSD-3-Clause
/*
 * Who connects is anybody with the rights to the socket, which are the user's
 * alone; what they send is read in the jail only, by vhost_user_serve(). A front
 * end that breaks the protocol loses its connection and the next one is served.
 *
 * The process here and the device's speak over a SOCK_SEQPACKET pair: the device
 * asks for a front end by one byte, and gets one byte with its socket; by another
 * it says that it is done with that one. The end of the pair is the wish to end.
 *
 * A front end may keep a queue's thread, by a descriptor to write to that blocks,
 * and so the device when it goes. Then the device's process is given up.
 */
#include "vm/device_server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/fd_passing.h"
#include "base/log.h"
#include "base/unix_listener.h"
#include "virtio/vhost.h"
#include "virtio/vhost_user_backend.h"

enum { END_MS = 5000 }; /* for what is in flight, when it or its front end shall end */

enum { DONE, ASKS }; /* what the device says */

/* ---- the device's side: in the jail ---- */

static int say(const struct device_birth *birth, uint8_t what)
{
	return fd_send(birth->socket, &what, sizeof(what), -1);
}

static int serve_front_ends(const struct device_birth *birth)
{
	const char *name = birth->ops->name;
	struct vhost *vhost;
	uint8_t byte = 0;
	int socket = -1;
	int r = device_process_back(birth, &vhost);

	if (r < 0)
		return 1;
	while (say(birth, ASKS) == 0 &&
		fd_receive(birth->socket, &byte, sizeof(byte), &socket) == 0) {
		log_debug("%s: a front end has connected", name);
		/* What was wrong with it is logged, and does not concern the next. */
		(void)!vhost_user_serve(socket, name, vhost, birth->socket);
		fd_close(&socket);
		(void)!say(birth, DONE); /* to sync may take longer than to stop */
		if (birth->ops->sync != NULL)
			birth->ops->sync(birth->device);
	}
	return 0; /* what it has goes with the process */
}

/* ---- the side that listens ---- */

struct server {
	const struct device_ops *ops;
	struct device_process process;
	struct unix_listener listener;
	int signal_fd;
	bool device_is_free;  /* it has asked for a front end */
	int front_end;        /* that it has, to see it go; nothing is read from it. -1: none */
	uint64_t deadline_ns; /* to be done with that one, which has gone; 0: it has not */
};

/* What serve() waits for. */
enum {
	SERVER_SIGNAL,
	SERVER_END,
	SERVER_HELPER_END,
	SERVER_DEVICE,
	SERVER_LISTENER,
	SERVER_FRONT_END,
};

/* Signals that end the server come by this descriptor, in all threads. */
static int open_signals(struct server *server)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	int r = -pthread_sigmask(SIG_BLOCK, &signals, NULL);

	if (r == 0) {
		server->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
		r = server->signal_fd < 0 ? -errno : 0;
	}
	if (r < 0)
		log_error("device %s: cannot receive signals: %s", server->ops->name, strerror(-r));
	return r;
}

static int take_request(struct server *server)
{
	uint8_t byte = DONE;
	CLEANUP_FD int none = -1;
	int r = fd_receive(server->process.socket, &byte, sizeof(byte), &none);

	server->device_is_free = r == 0 && byte == ASKS;
	fd_close(&server->front_end);
	server->deadline_ns = 0;
	return r;
}

static int hand_over(struct server *server)
{
	const uint8_t byte = 0;
	// cppcheck-suppress nullPointer ; accept4() takes NULL where nobody asks for the address
	CLEANUP_FD int front_end = accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC);

	if (front_end < 0)
		/* It may have gone again. */
		return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED ? 0 : -errno;
	server->device_is_free = false;
	int r = fd_send_now(server->process.socket, &byte, sizeof(byte), front_end);

	if (r == 0)
		server->front_end = fd_steal(&front_end);
	return r;
}

/* For poll(). */
static int time_left_ms(const struct server *server)
{
	uint64_t now_ns = clock_monotonic_ns();

	if (server->deadline_ns == 0)
		return -1;
	return now_ns < server->deadline_ns ? (int)((server->deadline_ns - now_ns) / NS_PER_MS) + 1
					    : 0;
}

/* It has a front end that keeps it, or does not take what it asked for. */
static int give_up(const struct server *server, const char *what)
{
	log_error("device %s: its process does not %s, and is killed", server->ops->name, what);
	return -ECHILD;
}

static int handle_events(struct server *server, const struct pollfd *fds)
{
	if (fds[SERVER_DEVICE].revents != 0)
		return take_request(server);
	if (fds[SERVER_FRONT_END].revents != 0)
		server->deadline_ns = clock_monotonic_ns() + END_MS * NS_PER_MS;
	return fds[SERVER_LISTENER].revents != 0 ? hand_over(server) : 0;
}

/* Until a signal (0), or -errno; the end of the device or its helper is -ECHILD. */
static int serve(struct server *server)
{
	const struct jail_process *helper = &server->process.helper;

	for (;;) {
		bool has_gone = server->deadline_ns != 0;
		struct pollfd fds[] = {
			[SERVER_SIGNAL] = { .fd = server->signal_fd, .events = POLLIN },
			[SERVER_END] = { .fd = server->process.jail.pidfd, .events = POLLIN },
			[SERVER_DEVICE] = { .fd = server->process.socket, .events = POLLIN },
			[SERVER_LISTENER] = { .fd = server->device_is_free ? server->listener.fd
									   : -1,
				.events = POLLIN },
			[SERVER_FRONT_END] = { .fd = has_gone ? -1 : server->front_end,
				.events = POLLRDHUP },
			[SERVER_HELPER_END] = { .fd = helper->pid > 0 ? helper->pidfd : -1,
				.events = POLLIN },
		};
		int n = poll(fds, ARRAY_SIZE(fds), time_left_ms(server));

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return give_up(server, "let go of a front end that has gone");
		if (fds[SERVER_SIGNAL].revents != 0)
			return 0;
		if (fds[SERVER_END].revents != 0 || fds[SERVER_HELPER_END].revents != 0)
			return -ECHILD;
		int r = handle_events(server, fds);

		if (r == -EAGAIN)
			return give_up(server, "take a front end that it asked for");
		/* One that hung up will be seen to have ended. */
		if (r < 0 && r != -ENOTCONN && r != -EPIPE && r != -ECONNRESET)
			return r;
	}
}

/* Lets the device finish what is in flight. */
static void end_device(struct server *server, int result)
{
	struct device_process *process = &server->process;
	struct pollfd pidfd = { .fd = process->jail.pidfd, .events = POLLIN };

	fd_close(&process->socket);
	if (result == -ECHILD) {
		(void)device_process_report(&process->jail, server->ops->name);
		(void)device_process_report(&process->helper, server->ops->name);
	} else if (process->jail.pid > 0 && poll(&pidfd, 1, END_MS) == 0) {
		log_warn("device %s: its process does not end, and is killed", server->ops->name);
	}
	device_process_end(process);
}

/* With the device's process there already. */
static int listen_and_serve(struct server *server, const char *socket_path)
{
	int r = device_process_wait(&server->process, server->ops);

	if (r == 0)
		r = open_signals(server);
	if (r == 0)
		r = unix_listener_open("--socket-path", socket_path, &server->listener);
	if (r < 0)
		return r;
	r = serve(server);
	unix_listener_close(&server->listener);
	if (r < 0 && r != -ECHILD)
		log_error("device %s: cannot wait for front ends: %s", server->ops->name,
			strerror(-r));
	return r;
}

int device_server_run(const struct device_class *class, const void *options,
	const char *socket_path, const struct device_jail *jail)
{
	const struct device_ops *ops = class->ops;
	struct server server = {
		.ops = ops,
		.process.socket = -1,
		.signal_fd = -1,
		.front_end = -1,
	};
	struct device *device;

	int r = class->open(options, &device);

	if (r < 0)
		return r;
	r = device_process_start(
		jail, ops, device, SOCK_SEQPACKET, serve_front_ends, &server.process);
	if (r == 0) {
		r = listen_and_serve(&server, socket_path);
		end_device(&server, r);
		fd_close(&server.front_end);
		fd_close(&server.signal_fd);
	}
	ops->free(device);
	return r;
}
