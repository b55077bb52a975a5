/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A window (window.h) of a device in another process, over a SOCK_SEQPACKET
 * pair: the device's half asks, what SHMEM_MAP and SHMEM_UNMAP of vhost-user
 * ask; the VMM's answers, one request at a time.
 *
 * To the VMM the device is hostile: a message that is no request ends the
 * serving; what a request may ask is window_ops' business.
 */
#pragma once

#include <pthread.h>

#include "virtio/window.h"

struct window_channel {
	struct window window; /* the device's; its fd is this end of the pair */
	pthread_mutex_t lock; /* a request and its answer */
};

/* The device's half, of the window that is at `gpa` there. `socket` is borrowed. */
void window_channel_init(
	struct window_channel *ret_channel, int socket, uint64_t gpa, uint64_t size);

/*
 * The VMM's half: does what is asked until the other end closes (0) or breaks
 * the protocol (-EPROTO), or the host fails (-errno).
 */
MUST_CHECK int window_channel_serve(int socket, const struct window *window);
