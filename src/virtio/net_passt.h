/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A network without privileges: passt(1), a program of its own, speaks to the
 * guest by frames and to the world by ordinary sockets of the user. It ends
 * when its socket is closed, so also when we are killed.
 */
#pragma once

#include <sys/types.h>

#include "virtio/net_options.h"

/* Starts passt. The socket is the caller's. 0 or -errno, logged. */
MUST_CHECK int net_passt_start(
	const struct net_options *options, pid_t *ret_pid, int *ret_socket_fd);

/* After the socket was closed: waits for its end, a second at most, then kills it. */
void net_passt_reap(pid_t pid);
