/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bytes and descriptors to and from a vfd's socket or pipe, without waiting.
 * What it does not take at once is kept, up to WL_PENDING_MAX.
 */
#pragma once

#include "virtio/wl_vfd.h"

/* What was received: `size` 0 is the end. */
struct wl_received {
	size_t size;
	unsigned fd_count;
	int fds[WL_FDS_MAX];
	uint8_t data[WL_RECV_DATA_MAX];
};

/*
 * Sends; the descriptors are borrowed. 1: all went, 0: the rest is pending,
 * -ENOBUFS: the reader is too far behind, or -errno.
 */
MUST_CHECK int wl_stream_send(struct wl_table *table, struct wl_vfd *vfd, const uint8_t *data,
	size_t size, const int *fds, unsigned fd_count);
/* Whether so much can be kept, if nothing of it is taken now. */
bool wl_stream_has_room(const struct wl_table *table, const struct wl_vfd *vfd, size_t size);
/* Sends pending data. As wl_stream_send(). */
MUST_CHECK int wl_stream_flush(struct wl_table *table, struct wl_vfd *vfd);
/* 0, -EAGAIN: nothing now, -EPROTO: more descriptors than fit, closed; or -errno. */
MUST_CHECK int wl_stream_receive(const struct wl_vfd *vfd, struct wl_received *ret_received);
