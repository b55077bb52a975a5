/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a user can ask of the wayland device: --wayland-sock PATH[,name=N], or,
 * by default, the compositor of the user's own session.
 */
#pragma once

#include "virtio/wl_host.h"

struct wl_options {
	unsigned socket_count;
	struct wl_socket sockets[WL_SOCKETS_MAX];
	bool id_63; /* the virtio id that today's drivers look for, not 30 */
};

/*
 * The socket of the session whose XDG_RUNTIME_DIR is `runtime` and whose WAYLAND_DISPLAY is
 * `display`; both may be NULL or "". 0; -ENOENT: there is no session, -ECONNREFUSED: there
 * is, without a socket at the path, which is told, -ENAMETOOLONG.
 */
MUST_CHECK int wl_find_session(
	const char *runtime, const char *display, struct wl_socket *ret_socket);
