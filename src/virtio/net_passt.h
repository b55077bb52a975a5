/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A network without privileges: passt(1), a program of its own, speaks to the
 * guest by frames, or serves its rings by vhost-user, and to the world by ordinary sockets of
 * the user. It ends when its socket is closed, so also when we are killed.
 */
#pragma once

#include "virtio/net_options.h"

/* Starts passt. Socket, of frames or of vhost-user, and pidfd are the caller's. 0 or -errno,
 * logged. */
MUST_CHECK int net_passt_start(
	const struct net_options *options, int *ret_pidfd, int *ret_socket_fd);

/*
 * After the socket was closed: waits for its end, a second at most, then kills
 * it. Closes the pidfd; by it and no pid, since this runs in the sandbox.
 */
void net_passt_reap(int *pidfd);
