/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A listening unix socket at a path that the user chose. Whatever else may be
 * at that path stays untouched, except a socket that nobody listens on.
 */
#pragma once

#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"

struct unix_listener {
	int fd;       /* non-blocking; -1 when closed */
	bool is_left; /* to another process that has it */
	struct sockaddr_un address;
	dev_t device; /* with `inode`: what we made at that path */
	ino_t inode;
};

/* Whether a path is short enough, and one at all. 0, or -ENAMETOOLONG, logged as below. */
MUST_CHECK int unix_check_path(const char *what, const char *path);

/*
 * Binds with mode 0600 and listens. -ENAMETOOLONG, -EADDRINUSE when somebody
 * listens there, -EEXIST for anything else there, or -errno; `what` names the
 * option in the messages that it logs. *listener is untouched on failure.
 */
MUST_CHECK int unix_listener_open(
	const char *what, const char *path, struct unix_listener *listener);

/* The same for SOCK_SEQPACKET, with a queue for many clients at once. */
MUST_CHECK int unix_listener_open_packets(
	const char *what, const char *path, struct unix_listener *listener);

/* Another process goes on to listen: closes what is ours. It is unix_listener_close() still that
 * removes the socket. */
void unix_listener_leave(struct unix_listener *listener);

/* Closes, and removes the socket if it is still the one that we made. */
void unix_listener_close(struct unix_listener *listener);
