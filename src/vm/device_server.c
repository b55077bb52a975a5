// SPDX-License-Identifier: BSD-3-Clause
/*
 * Who connects is anybody with the rights to the socket, which are the user's
 * alone; what they send is read in the jail only, by vhost_user_serve(). A front
 * end that breaks the protocol loses its connection and the next one is served.
 *
 * The process here and the device's speak over a SOCK_SEQPACKET pair: the device
 * asks for a front end by one byte, and gets one byte with its socket. The end
 * of the pair is the wish to end.
 */
#include "vm/device_server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/fd_passing.h"
#include "base/log.h"
#include "base/unix_listener.h"
#include "virtio/vhost.h"
#include "virtio/vhost_user_backend.h"

enum { END_MS = 5000 }; /* for what is in flight, when it shall end */

/* ---- the device's side: in the jail ---- */

static int serve_front_ends(const struct device_birth *birth)
{
	const char *name = birth->ops->name;
	struct vhost *vhost;
	uint8_t byte = 0;
	int socket = -1;
	int r = device_process_back(birth, &vhost);

	if (r < 0)
		return 1;
	while (fd_send(birth->socket, &byte, sizeof(byte), -1) == 0 &&
		fd_receive(birth->socket, &byte, sizeof(byte), &socket) == 0) {
		log_debug("%s: a front end has connected", name);
		/* What was wrong with it is logged, and does not concern the next. */
		(void)!vhost_user_serve(socket, name, vhost, birth->socket);
		fd_close(&socket);
		if (birth->ops->sync != NULL)
			birth->ops->sync(birth->device);
	}
	return 0; /* what it has goes with the process */
}

/* ---- the side that listens ---- */

struct server {
	const char *name;
	struct device_process process;
	struct unix_listener listener;
	int signal_fd;
	bool device_is_free; /* it has asked for a front end */
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
		log_error("device %s: cannot receive signals: %s", server->name, strerror(-r));
	return r;
}

static int take_request(struct server *server)
{
	uint8_t byte;
	CLEANUP_FD int none = -1;
	int r = fd_receive(server->process.socket, &byte, sizeof(byte), &none);

	server->device_is_free = r == 0;
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
	return fd_send(server->process.socket, &byte, sizeof(byte), front_end);
}

/* Until a signal (0), or -errno; the end of the device or its helper is -ECHILD. */
static int serve(struct server *server)
{
	const struct jail_process *helper = &server->process.helper;

	for (;;) {
		struct pollfd fds[] = {
			{ .fd = server->signal_fd, .events = POLLIN },
			{ .fd = server->process.jail.pidfd, .events = POLLIN },
			{ .fd = server->process.socket, .events = POLLIN },
			{ .fd = server->device_is_free ? server->listener.fd : -1,
				.events = POLLIN },
			{ .fd = helper->pid > 0 ? helper->pidfd : -1, .events = POLLIN },
		};
		int r = 0;

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return -errno;
		if (fds[0].revents != 0)
			return 0;
		if (fds[1].revents != 0 || fds[4].revents != 0)
			return -ECHILD;
		if (fds[2].revents != 0)
			r = take_request(server);
		else if (fds[3].revents != 0)
			r = hand_over(server);
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
		(void)device_process_report(&process->jail, server->name);
		(void)device_process_report(&process->helper, server->name);
	} else if (process->jail.pid > 0 && poll(&pidfd, 1, END_MS) == 0) {
		log_warn("device %s: its process does not end, and is killed", server->name);
	}
	device_process_end(process);
}

/* With the device's process there already. */
static int listen_and_serve(struct server *server, const char *socket_path)
{
	int r = device_process_wait(&server->process, server->name);

	if (r == 0)
		r = open_signals(server);
	if (r == 0)
		r = unix_listener_open("--socket-path", socket_path, &server->listener);
	if (r < 0)
		return r;
	r = serve(server);
	unix_listener_close(&server->listener);
	if (r < 0 && r != -ECHILD)
		log_error("device %s: cannot wait for front ends: %s", server->name, strerror(-r));
	return r;
}

int device_server_run(const struct device_class *class, const void *options,
	const char *socket_path, const struct device_jail *jail)
{
	const struct device_ops *ops = class->ops;
	struct server server = { .name = ops->name, .process.socket = -1, .signal_fd = -1 };
	struct device *device;

	if (ops->window_size > 0) {
		log_error("device %s: it shows files to the guest, which takes 'crosvm run' in "
			  "front of it",
			ops->name);
		return -EINVAL;
	}
	int r = class->open(options, &device);

	if (r < 0)
		return r;
	r = device_process_start(
		jail, ops, device, SOCK_SEQPACKET, serve_front_ends, &server.process);
	if (r == 0) {
		r = listen_and_serve(&server, socket_path);
		end_device(&server, r);
		fd_close(&server.signal_fd);
	}
	ops->free(device);
	return r;
}
