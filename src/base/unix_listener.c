// SPDX-License-Identifier: BSD-3-Clause
/* Other programs may put or remove things at the path at any time. */
#include "base/unix_listener.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/unix_connect.h"

/*
 * Whether somebody listens there. -ECONNREFUSED means that nobody does; a
 * listener of another type than this is somebody too (EPROTOTYPE).
 */
static int probe(const struct sockaddr_un *address)
{
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
		return -errno;
	return 0;
}

/* Removes a socket that its owner left behind. Nothing else. */
static int remove_stale(const char *what, const struct sockaddr_un *address)
{
	const char *path = address->sun_path;
	struct stat before, after;

	if (lstat(path, &before) < 0)
		return errno == ENOENT ? 0 : -errno; /* gone in the meantime */
	if (!S_ISSOCK(before.st_mode)) {
		log_error("%s: '%s' exists and is not a socket; choose another path or remove it",
			what, path);
		return -EEXIST;
	}
	if (probe(address) != -ECONNREFUSED) {
		log_error("%s: somebody listens on '%s'; choose another path", what, path);
		return -EADDRINUSE;
	}
	if (lstat(path, &after) < 0 || after.st_dev != before.st_dev ||
		after.st_ino != before.st_ino) {
		log_error("%s: '%s' changes while we look at it; choose another path", what, path);
		return -EEXIST;
	}
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

/* The mode of the descriptor is the one that the socket gets at the path: no window. */
static int bind_private(int fd, const struct sockaddr_un *address)
{
	if (fchmod(fd, 0600) < 0)
		return -errno;
	return bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
}

int unix_check_path(const char *what, const char *path)
{
	if (*path != '\0' && strlen(path) <= UNIX_PATH_MAX)
		return 0;
	log_error("%s: the path of a socket has 1 to %d characters; choose another", what,
		UNIX_PATH_MAX);
	return -ENAMETOOLONG;
}

static int open_listener(
	const char *what, const char *path, int type, int backlog, struct unix_listener *listener)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct stat made;
	int r;

	r = unix_check_path(what, path);
	if (r < 0)
		return r;
	memcpy(address.sun_path, path, strlen(path));
	CLEANUP_FD int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	r = fd < 0 ? -errno : bind_private(fd, &address);
	if (r == -EADDRINUSE) {
		r = remove_stale(what, &address);
		if (r == -EEXIST || r == -EADDRINUSE)
			return r;
		if (r == 0)
			r = bind_private(fd, &address);
	}
	if (r == 0 && (lstat(path, &made) < 0 || listen(fd, backlog) < 0))
		r = -errno;
	if (r < 0) {
		log_error("%s: cannot listen on '%s': %s; check the path and its directory", what,
			path, strerror(-r));
		return r;
	}
	*listener = (struct unix_listener){
		.fd = fd_steal(&fd),
		.address = address,
		.device = made.st_dev,
		.inode = made.st_ino,
	};
	return 0;
}

int unix_listener_open(const char *what, const char *path, struct unix_listener *listener)
{
	return open_listener(what, path, SOCK_STREAM, 1, listener);
}

int unix_listener_open_packets(const char *what, const char *path, struct unix_listener *listener)
{
	return open_listener(what, path, SOCK_SEQPACKET, SOMAXCONN, listener);
}

void unix_listener_leave(struct unix_listener *listener)
{
	listener->is_left = listener->fd >= 0;
	fd_close(&listener->fd);
}

void unix_listener_close(struct unix_listener *listener)
{
	struct stat now;

	if (listener->fd < 0 && !listener->is_left)
		return;
	if (lstat(listener->address.sun_path, &now) == 0 && now.st_dev == listener->device &&
		now.st_ino == listener->inode)
		(void)unlink(listener->address.sun_path);
	listener->is_left = false;
	fd_close(&listener->fd);
}
