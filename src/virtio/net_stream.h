/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Frames on a stream socket, each behind its length as 32 bits, big-endian:
 * how passt and QEMU's -netdev stream speak. There are no virtio_net_hdrs on
 * it, so nothing is offloaded.
 *
 * The peer may send anything; the receiving and the sending half belong to one
 * thread each. Errors are -errno; after any but -EAGAIN the stream is of no
 * more use.
 */
#pragma once

#include <sys/uio.h>

#include "base/util.h"

enum { NET_STREAM_FRAME_MAX = 14 + 4 + 65535 };

struct net_stream;

/* Takes the connected socket, also when it fails. 0 or -ENOMEM. */
MUST_CHECK int net_stream_create(int socket_fd, struct net_stream **ret_stream);
void net_stream_free(struct net_stream *stream);
int net_stream_fd(const struct net_stream *stream);

/*
 * Copies the next frame behind `skip` zero bytes into the buffers. How many
 * bytes it wrote; -EAGAIN when none is there as a whole; -EMSGSIZE when the
 * buffers do not hold it and it is lost; -EPIPE at the end; or -errno.
 */
MUST_CHECK ssize_t net_stream_receive(
	struct net_stream *stream, const struct iovec *iov, unsigned count, size_t skip);

/* Sends what the socket did not take of the last frame. 0, -EAGAIN, or -errno. */
MUST_CHECK int net_stream_flush(struct net_stream *stream);

/*
 * Sends the buffers as one frame of `size` bytes, NET_STREAM_FRAME_MAX at most.
 * 0 when the socket took it or the stream keeps its end for net_stream_flush(),
 * -EAGAIN when nothing of it was sent, or -errno. iov[0] is ours to use.
 */
MUST_CHECK int net_stream_send(
	struct net_stream *stream, struct iovec *iov, unsigned count, uint32_t size);
