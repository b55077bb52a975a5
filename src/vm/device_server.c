// SPDX-License-Identifier: BSD-3-Clause
/*
 * Who connects is anybody with the rights to the socket, which are the user's
 * alone; what they send is checked by vhost_user_serve(). A front end that
 * breaks the protocol loses its connection and the next one is served.
 */
#include "vm/device_server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/unix_listener.h"
#include "virtio/vhost_thread.h"
#include "virtio/vhost_user_backend.h"

/* Signals that end the server come by this descriptor, in all threads. */
static int open_signals(int *ret_fd)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	int error = pthread_sigmask(SIG_BLOCK, &signals, NULL);

	if (error != 0)
		return -error;
	*ret_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	return *ret_fd < 0 ? -errno : 0;
}

/* Waits for a front end. 1 with its socket, 0 when a signal came, or -errno. */
static int accept_front_end(int listener, int stop_fd, int *ret_socket)
{
	struct pollfd fds[] = {
		{ .fd = listener, .events = POLLIN },
		{ .fd = stop_fd, .events = POLLIN },
	};

	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return -errno;
		if (fds[1].revents != 0)
			return 0;
		// cppcheck-suppress nullPointer ; accept4() takes NULL where nobody asks for the
		// address
		*ret_socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (*ret_socket >= 0)
			return 1;
		/* It may have gone again. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			return -errno;
	}
}

static int serve_front_ends(int listener, int stop_fd, const char *name, struct vhost *vhost)
{
	int socket = -1;
	int r;

	while ((r = accept_front_end(listener, stop_fd, &socket)) > 0) {
		log_debug("%s: a front end has connected", name);
		/* What was wrong with it is logged, and does not concern the next. */
		(void)!vhost_user_serve(socket, name, vhost, stop_fd);
		fd_close(&socket);
	}
	return r;
}

/* Opens the device and puts it behind the contract. */
static int open_device(
	const struct device_class *class, const void *options, struct vhost **ret_vhost)
{
	const struct device_ops *ops = class->ops;
	struct device *device;
	int r = class->open(options, &device);

	if (r < 0)
		return r;
	if (ops->kernel != NULL && ops->kernel->fd(device) >= 0) {
		log_error("device %s: the kernel serves it so, and no process can", ops->name);
		ops->free(device);
		return -EINVAL;
	}
	return vhost_thread_create(ops, device, NULL, ret_vhost);
}

int device_server_run(
	const struct device_class *class, const void *options, const char *socket_path)
{
	const char *name = class->ops->name;
	CLEANUP_FD int stop_fd = -1;
	struct unix_listener listener;
	struct vhost *vhost;
	int r = open_device(class, options, &vhost);

	if (r < 0)
		return r;
	r = open_signals(&stop_fd);
	if (r < 0)
		log_error("device %s: cannot receive signals: %s", name, strerror(-r));
	if (r == 0)
		r = unix_listener_open("--socket-path", socket_path, &listener);
	if (r == 0) {
		r = serve_front_ends(listener.fd, stop_fd, name, vhost);
		unix_listener_close(&listener);
	}
	vhost->ops->free(vhost);
	return r;
}
