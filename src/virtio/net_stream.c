// SPDX-License-Identifier: BSD-3-Clause
/* Frames on a stream. Lengths are the peer's and bound nothing before they are checked. */
#include "virtio/net_stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"

enum { LENGTH_SIZE = 4, BUFFER_SIZE = 2 * (LENGTH_SIZE + NET_STREAM_FRAME_MAX) };

struct net_stream {
	int fd;
	/* Received and not yet given away: [start, end). Several small frames come in one call. */
	size_t start;
	size_t end;
	/* The rest of a frame that the socket took a part of. */
	size_t tail_start;
	size_t tail_end;
	uint8_t received[BUFFER_SIZE];
	uint8_t tail[LENGTH_SIZE + NET_STREAM_FRAME_MAX];
};

int net_stream_create(int socket_fd, struct net_stream **ret_stream)
{
	struct net_stream *stream = malloc(sizeof(*stream));

	if (stream == NULL) {
		fd_close(&socket_fd);
		return -ENOMEM;
	}
	stream->fd = socket_fd;
	stream->start = stream->end = 0;
	stream->tail_start = stream->tail_end = 0;
	*ret_stream = stream;
	return 0;
}

void net_stream_free(struct net_stream *stream)
{
	if (stream == NULL)
		return;
	fd_close(&stream->fd);
	free(stream);
}

int net_stream_fd(const struct net_stream *stream)
{
	return stream->fd;
}

/* ---- receive ---- */

/* Reads more. 0 or -errno. */
static int fill(struct net_stream *stream)
{
	if (stream->start > 0) {
		memmove(stream->received, stream->received + stream->start,
			stream->end - stream->start);
		stream->end -= stream->start;
		stream->start = 0;
	}
	ssize_t n = recv(stream->fd, stream->received + stream->end,
		sizeof(stream->received) - stream->end, MSG_DONTWAIT);

	if (n == 0)
		return -EPIPE;
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	stream->end += (size_t)n;
	return 0;
}

/* The length of the first frame if it is here as a whole. 0, -EAGAIN, or -EPROTO. */
static int find_frame(const struct net_stream *stream, uint32_t *ret_size)
{
	size_t have = stream->end - stream->start;
	uint32_t length;

	if (have < LENGTH_SIZE)
		return -EAGAIN;
	memcpy(&length, stream->received + stream->start, sizeof(length));
	length = ntohl(length);
	if (length > NET_STREAM_FRAME_MAX)
		return -EPROTO;
	if (have - LENGTH_SIZE < length)
		return -EAGAIN;
	*ret_size = length;
	return 0;
}

static size_t total(const struct iovec *iov, unsigned count)
{
	size_t size = 0;

	for (unsigned i = 0; i < count; i++)
		size += iov[i].iov_len;
	return size;
}

/* The buffers hold skip + size bytes. */
static void scatter(const struct iovec *iov, size_t skip, const uint8_t *data, size_t size)
{
	for (; skip + size > 0; iov++) {
		size_t zeroes = min_u64(skip, iov->iov_len);
		size_t bytes = min_u64(size, iov->iov_len - zeroes);

		memset(iov->iov_base, 0, zeroes);
		memcpy((uint8_t *)iov->iov_base + zeroes, data, bytes);
		skip -= zeroes;
		data += bytes;
		size -= bytes;
	}
}

ssize_t net_stream_receive(
	struct net_stream *stream, const struct iovec *iov, unsigned count, size_t skip)
{
	uint32_t size = 0;
	int r = find_frame(stream, &size);

	if (r == -EAGAIN) {
		r = fill(stream);
		if (r == 0)
			r = find_frame(stream, &size);
	}
	if (r < 0)
		return r;
	bool fits = skip + size <= total(iov, count);

	if (fits)
		scatter(iov, skip, stream->received + stream->start + LENGTH_SIZE, size);
	stream->start += LENGTH_SIZE + size;
	return fits ? (ssize_t)(skip + size) : -EMSGSIZE;
}

/* ---- send ---- */

/* The one call that sends: the jail knows no other. What was taken, or -errno. */
static ssize_t send_some(const struct net_stream *stream, struct iovec *iov, unsigned count)
{
	const struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
	ssize_t n = sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

int net_stream_flush(struct net_stream *stream)
{
	while (stream->tail_start < stream->tail_end) {
		struct iovec rest = { stream->tail + stream->tail_start,
			stream->tail_end - stream->tail_start };
		ssize_t n = send_some(stream, &rest, 1);

		if (n < 0)
			return (int)n;
		stream->tail_start += (size_t)n;
	}
	return 0;
}

/* Keeps what comes after the first `sent` bytes. */
static void keep_tail(
	struct net_stream *stream, const struct iovec *iov, unsigned count, size_t sent)
{
	stream->tail_start = stream->tail_end = 0;
	for (unsigned i = 0; i < count; i++) {
		size_t skip = min_u64(sent, iov[i].iov_len);
		size_t size = iov[i].iov_len - skip;

		if (size > 0)
			memcpy(stream->tail + stream->tail_end, (uint8_t *)iov[i].iov_base + skip,
				size);
		stream->tail_end += size;
		sent -= skip;
	}
}

int net_stream_send(struct net_stream *stream, struct iovec *iov, unsigned count, uint32_t size)
{
	uint32_t length = htonl(size);
	int r = net_stream_flush(stream);

	if (r < 0)
		return r;
	iov[0] = (struct iovec){ &length, sizeof(length) };
	ssize_t n = send_some(stream, iov, count);

	if (n < 0)
		return (int)n;
	if ((size_t)n < sizeof(length) + size)
		keep_tail(stream, iov, count, (size_t)n);
	return 0;
}
