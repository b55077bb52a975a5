// SPDX-License-Identifier: BSD-3-Clause
/*
 * Frames on a stream against a peer that sends them in pieces, lies about
 * their lengths, ends in the middle, or does not read.
 */
#include "unit/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "virtio/net_stream.h"

enum { LENGTH = 4, SKIP = 12, MAX = NET_STREAM_FRAME_MAX };

static struct net_stream *open_stream(int *ret_peer)
{
	struct net_stream *stream;
	int ends[2];

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
	assert_int_equal(net_stream_create(ends[1], &stream), 0);
	assert_int_equal(net_stream_fd(stream), ends[1]);
	*ret_peer = ends[0];
	return stream;
}

/* What a frame of this size looks like on the stream. */
static size_t put_frame(uint8_t *at, uint32_t size, uint8_t first)
{
	uint32_t length = htonl(size);

	memcpy(at, &length, sizeof(length));
	for (uint32_t i = 0; i < size; i++)
		at[LENGTH + i] = (uint8_t)(first + i);
	return LENGTH + size;
}

static void peer_sends(int peer, const void *data, size_t size)
{
	assert_int_equal(send(peer, data, size, MSG_NOSIGNAL), size);
}

static void assert_frame(struct net_stream *stream, uint32_t size, uint8_t first)
{
	uint8_t bytes[SKIP + 256];
	const struct iovec iov[] = { { bytes, 5 }, { bytes + 5, sizeof(bytes) - 6 } };

	memset(bytes, 0x5a, sizeof(bytes));
	assert_int_equal(net_stream_receive(stream, iov, ARRAY_SIZE(iov), SKIP), SKIP + size);
	for (unsigned i = 0; i < SKIP; i++)
		assert_int_equal(bytes[i], 0);
	for (uint32_t i = 0; i < size; i++)
		assert_int_equal(bytes[SKIP + i], (uint8_t)(first + i));
	assert_int_equal(bytes[SKIP + size], 0x5a);
}

static ssize_t receive(struct net_stream *stream, size_t room)
{
	uint8_t bytes[512] = { 0 };
	const struct iovec iov = { bytes, room };

	return net_stream_receive(stream, &iov, 1, SKIP);
}

/* Two frames in two pieces, cut at each byte: nothing comes too early, and nothing is lost. */
static void frames_may_be_cut_anywhere(void **state)
{
	uint8_t bytes[256];
	int peer;
	struct net_stream *stream = open_stream(&peer);
	size_t first = put_frame(bytes, 60, 1);
	size_t all = first + put_frame(bytes + first, 33, 99);

	(void)state;
	for (size_t cut = 0; cut <= all; cut++) {
		assert_int_equal(receive(stream, 512), -EAGAIN);
		if (cut > 0)
			peer_sends(peer, bytes, cut);
		if (cut >= first)
			assert_frame(stream, 60, 1);
		if (cut < all) {
			assert_int_equal(receive(stream, 512), -EAGAIN);
			peer_sends(peer, bytes + cut, all - cut);
		}
		if (cut < first)
			assert_frame(stream, 60, 1);
		assert_frame(stream, 33, 99);
	}
	close(peer);
	net_stream_free(stream);
}

/* Many frames of one call, beyond what the stream's memory holds at a time. */
static void small_frames_come_in_order(void **state)
{
	enum { COUNT = 4000, SIZE = 50 };
	uint8_t bytes[LENGTH + SIZE];
	unsigned sent = 0, got = 0;
	int peer;
	struct net_stream *stream = open_stream(&peer);

	(void)state;
	while (got < COUNT) {
		while (sent < COUNT) {
			size_t size = put_frame(bytes, SIZE, (uint8_t)sent);

			if (send(peer, bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
				break;
			sent++;
		}
		for (; got < sent; got++)
			assert_frame(stream, SIZE, (uint8_t)got);
	}
	assert_int_equal(receive(stream, 512), -EAGAIN);
	close(peer);
	net_stream_free(stream);
}

static void the_largest_frame_passes(void **state)
{
	uint8_t *bytes = malloc(LENGTH + MAX), *got = malloc(SKIP + MAX);
	const struct iovec iov = { got, SKIP + MAX };
	int peer, room = 4 * MAX;
	struct net_stream *stream = open_stream(&peer);

	(void)state;
	assert_non_null(bytes);
	assert_non_null(got);
	assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
	peer_sends(peer, bytes, put_frame(bytes, MAX, 3));
	ssize_t n;

	do {
		n = net_stream_receive(stream, &iov, 1, SKIP);
	} while (n == -EAGAIN);
	assert_int_equal(n, SKIP + MAX);
	assert_memory_equal(got + SKIP, bytes + LENGTH, MAX);
	close(peer);
	net_stream_free(stream);
	free(bytes);
	free(got);
}

static void hostile_lengths_end_it(void **state)
{
	static const uint32_t lengths[] = { MAX + 1, 0x7fffffff, 0x80000000, 0xfffffffc,
		0xffffffff };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint32_t length = htonl(lengths[i]);
		int peer;
		struct net_stream *stream = open_stream(&peer);

		peer_sends(peer, &length, sizeof(length));
		assert_int_equal(receive(stream, 512), -EPROTO);
		assert_int_equal(receive(stream, 512), -EPROTO);
		close(peer);
		net_stream_free(stream);
	}
}

/* A frame that is too large for its buffers takes no other with it; an empty one is one. */
static void what_does_not_fit_is_skipped(void **state)
{
	uint8_t bytes[512];
	int peer;
	struct net_stream *stream = open_stream(&peer);
	size_t size = put_frame(bytes, 101, 1);

	(void)state;
	size += put_frame(bytes + size, 0, 0);
	size += put_frame(bytes + size, 100, 2);
	peer_sends(peer, bytes, size);
	assert_int_equal(receive(stream, SKIP + 100), -EMSGSIZE);
	assert_int_equal(receive(stream, SKIP + 100), SKIP);
	assert_int_equal(receive(stream, SKIP + 100), SKIP + 100);
	close(peer);
	net_stream_free(stream);
}

/* What came as a whole before the end is given out, the piece after it is not. */
static void an_end_may_come_anywhere(void **state)
{
	uint8_t bytes[256];
	size_t first = put_frame(bytes, 60, 1);
	size_t all = first + put_frame(bytes + first, 60, 1);

	(void)state;
	for (size_t cut = first; cut < all; cut++) {
		int peer;
		struct net_stream *stream = open_stream(&peer);

		peer_sends(peer, bytes, cut);
		close(peer);
		assert_frame(stream, 60, 1);
		/* Linux tells of data that we sent and nobody read; we sent none. */
		assert_int_equal(receive(stream, 512), -EPIPE);
		net_stream_free(stream);
	}
}

/* ---- send ---- */

static int send_frame(struct net_stream *stream, uint8_t *data, uint32_t size)
{
	struct iovec iov[] = { { NULL, 0 }, { data, size / 3 }, { NULL, 0 },
		{ data + size / 3, size - size / 3 } };

	return net_stream_send(stream, iov, ARRAY_SIZE(iov), size);
}

/* Reads up to `size` bytes, and how many there were. */
static size_t drain(int peer, uint8_t *bytes, size_t size)
{
	ssize_t n = recv(peer, bytes, size, 0);

	return n < 0 ? 0 : (size_t)n;
}

/*
 * A socket that takes a part of a frame, at many places of it: the rest
 * follows, before any other frame, whatever the caller did to its buffers.
 */
static void a_frame_in_parts_stays_whole(void **state)
{
	enum { SIZE = 40000, FRAMES = 12 };
	uint8_t *data = malloc(SIZE), *expected = malloc(FRAMES * (LENGTH + SIZE)),
		*got = malloc(FRAMES * (LENGTH + SIZE));

	(void)state;
	assert_true(data != NULL && expected != NULL && got != NULL);
	for (size_t step = 131; step < 5000; step += 517) {
		int peer, room = 4608, peer_fd;
		struct net_stream *stream = open_stream(&peer);
		size_t due = 0, received = 0;
		unsigned partly = 0;

		peer_fd = net_stream_fd(stream);
		assert_int_equal(
			setsockopt(peer_fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
		for (unsigned i = 0; i < FRAMES;) {
			uint32_t size = (uint32_t)(SIZE - i * 111);
			size_t whole = put_frame(expected + due, size, (uint8_t)i);

			memcpy(data, expected + due + LENGTH, size);
			int r = send_frame(stream, data, size);

			memset(data, 0xaa, SIZE);
			if (r == 0) {
				due += whole;
				i++;
				partly += net_stream_flush(stream) == -EAGAIN;
				continue;
			}
			assert_int_equal(r, -EAGAIN);
			received += drain(peer, got + received, step);
		}
		while (received < due) {
			size_t n = drain(peer, got + received, step);

			received += n;
			int r = net_stream_flush(stream);

			assert_true(r == 0 || r == -EAGAIN);
			assert_true(n > 0 || r == -EAGAIN || received + n <= due);
		}
		assert_memory_equal(got, expected, due);
		assert_int_equal(net_stream_flush(stream), 0);
		assert_int_equal(drain(peer, got, 1), 0);
		assert_true(partly > 0);
		close(peer);
		net_stream_free(stream);
	}
	free(data);
	free(expected);
	free(got);
}

static void a_peer_that_is_gone_takes_nothing(void **state)
{
	uint8_t data[64] = { 0 };
	int peer;
	struct net_stream *stream = open_stream(&peer);

	(void)state;
	close(peer);
	assert_int_equal(send_frame(stream, data, sizeof(data)), -EPIPE);
	assert_int_equal(send_frame(stream, data, sizeof(data)), -EPIPE);
	net_stream_free(stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_may_be_cut_anywhere),
		cmocka_unit_test(small_frames_come_in_order),
		cmocka_unit_test(the_largest_frame_passes),
		cmocka_unit_test(hostile_lengths_end_it),
		cmocka_unit_test(what_does_not_fit_is_skipped),
		cmocka_unit_test(an_end_may_come_anywhere),
		cmocka_unit_test(a_frame_in_parts_stays_whole),
		cmocka_unit_test(a_peer_that_is_gone_takes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
