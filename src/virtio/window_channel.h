/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A window (window.h) of a device in another process, over a unix stream
 * socket: vhost-user's channel for requests of the back end, of which these are
 * SHMEM_MAP and SHMEM_UNMAP. The device's half asks, the VMM's answers, one
 * request at a time.
 *
 * To the VMM the device is hostile: a message that is no request ends the
 * serving; what a request may ask is window_ops' business. A device that
 * anybody may drive (`crosvm device`) believes nothing either, but waits for an
 * answer as long as the socket lives.
 *
 * System calls: poll, sendmsg, recvmsg, close. Source: the vhost-user specification.
 */
#pragma once

#include <pthread.h>

#include "virtio/window.h"

struct window_channel {
	struct window window; /* the device's */
	int socket;           /* borrowed */
	pthread_mutex_t lock; /* a request and its answer */
};

/* The device's half, of a window that is somewhere. */
void window_channel_init(struct window_channel *ret_channel, int socket, uint64_t size);

/*
 * The VMM's half: does what is asked until the other end closes (0) or breaks
 * the protocol (-EPROTO), or the host fails (-errno).
 */
MUST_CHECK int window_channel_serve(int socket, const struct window *window);
