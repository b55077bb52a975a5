/* SPDX-License-Identifier: BSD-3-Clause */
/* The other end of a unix socket at a path that the user chose. Whoever listens there may be
 * anybody. */
#pragma once

#include <sys/un.h>

#include "base/util.h"

/* The longest path of a socket. */
enum { UNIX_PATH_MAX = sizeof(((struct sockaddr_un *)0)->sun_path) - 1 };

/*
 * Makes a socket of this type (SOCK_STREAM..., with SOCK_NONBLOCK if it shall not wait for a
 * listener that is slow) and connects it. 0, -ENAMETOOLONG for a path that is empty or longer than
 * UNIX_PATH_MAX, or -errno.
 */
MUST_CHECK int unix_connect(int type, const char *path, int *ret_fd);
