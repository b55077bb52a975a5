// SPDX-License-Identifier: BSD-3-Clause
/*
 * A hostile peer of the frame stream: it sends frames in pieces, lies about
 * lengths and reads when it likes, while frames are received into buffers of
 * any size and sent from them. A model parses the same bytes: what is received
 * is what was sent, in order, and what arrives at the peer is whole.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "virtio/net_stream.h"

enum { LENGTH = 4, SKIP = 12, WIRE_MAX = 64 << 10, ROOM_MAX = 4096, PIECES = 8 };
enum op { OP_PEER_FRAME, OP_PEER_PIECE, OP_PEER_LIES, OP_RECEIVE, OP_SEND, OP_PEER_READS, OPS };

struct step {
	uint8_t op;
	uint8_t seed;
	uint16_t size;
};

struct wire {
	uint8_t bytes[WIRE_MAX];
	size_t start, end;
};

struct machine {
	struct net_stream *stream;
	int peer;
	bool over;       /* a lie was read: the stream is of no more use */
	struct wire in;  /* sent by the peer and not yet received as frames */
	struct wire out; /* sent by us and not yet seen by the peer */
	size_t withheld; /* of `in`, what the peer has not yet written */
};

static void require(bool holds)
{
	if (!holds)
		abort();
}

static bool has_room(const struct wire *wire, size_t size)
{
	return size <= sizeof(wire->bytes) - wire->end;
}

static void append_frame(struct wire *wire, uint32_t claim, uint32_t size, uint8_t seed)
{
	uint32_t length = htonl(claim);

	memcpy(wire->bytes + wire->end, &length, sizeof(length));
	wire->end += LENGTH;
	memset(wire->bytes + wire->end, seed, size);
	wire->end += size;
}

/* The peer writes the next bytes of what it has to say. */
static void peer_writes(struct machine *machine, size_t size)
{
	size = min_u64(size, machine->withheld);
	if (size == 0)
		return;
	ssize_t n = send(machine->peer, machine->in.bytes + machine->in.end - machine->withheld,
		size, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n > 0)
		machine->withheld -= (size_t)n;
}

static void receive(struct machine *machine, const struct step *step)
{
	static uint8_t room[ROOM_MAX];
	struct wire *in = &machine->in;
	struct iovec iov[PIECES];
	size_t size = SKIP + step->size % (ROOM_MAX - SKIP), left = size;
	unsigned count = 0;

	for (; left > 0; count++) {
		size_t piece = count == PIECES - 1 ? left : min_u64(left, 1 + step->seed * count);

		iov[count] = (struct iovec){ room + size - left, piece };
		left -= piece;
	}
	memset(room, 0x5a, sizeof(room));
	ssize_t n = net_stream_receive(machine->stream, iov, count, SKIP);
	size_t here = in->end - machine->withheld - in->start;
	uint32_t length = 0;

	if (here >= LENGTH)
		memcpy(&length, in->bytes + in->start, sizeof(length));
	length = ntohl(length);
	if (here >= LENGTH && length > NET_STREAM_FRAME_MAX) {
		require(n == -EPROTO);
		machine->over = true;
		return;
	}
	if (here < LENGTH || here - LENGTH < length) {
		require(n == -EAGAIN);
		return;
	}
	/* One read of the socket may give less than what is there. */
	if (n == -EAGAIN)
		return;
	require(n == (SKIP + length <= size ? (ssize_t)(SKIP + length) : -EMSGSIZE));
	if (n > 0) {
		for (unsigned i = 0; i < SKIP; i++)
			require(room[i] == 0);
		require(memcmp(room + SKIP, in->bytes + in->start + LENGTH, length) == 0);
		require((size_t)n == size || room[n] == 0x5a);
	}
	in->start += LENGTH + length;
}

static void transmit(struct machine *machine, const struct step *step)
{
	static uint8_t data[UINT16_MAX];
	struct iovec iov[] = { { NULL, 0 }, { data, step->size / 2 }, { NULL, 0 },
		{ data + step->size / 2, step->size - step->size / 2 } };

	if (!has_room(&machine->out, LENGTH + (size_t)step->size))
		return;
	memset(data, step->seed, step->size);
	int r = net_stream_send(machine->stream, iov, ARRAY_SIZE(iov), step->size);

	require(r == 0 || r == -EAGAIN);
	if (r == 0)
		append_frame(&machine->out, step->size, step->size, step->seed);
	memset(data, ~step->seed, step->size);
}

static bool peer_reads(struct machine *machine, size_t size)
{
	static uint8_t bytes[WIRE_MAX];
	struct wire *out = &machine->out;
	ssize_t n = recv(machine->peer, bytes, min_u64(size, sizeof(bytes)), MSG_DONTWAIT);

	if (n <= 0)
		return false;
	require((size_t)n <= out->end - out->start);
	require(memcmp(bytes, out->bytes + out->start, (size_t)n) == 0);
	out->start += (size_t)n;
	return true;
}

static void run_step(struct machine *machine, const struct step *step)
{
	struct wire *in = &machine->in;
	size_t size = step->size % 2048u;

	switch ((enum op)(step->op % OPS)) {
	case OP_PEER_FRAME:
	case OP_PEER_LIES:
		if (!has_room(in, LENGTH + size))
			return;
		append_frame(in,
			step->op % OPS == OP_PEER_FRAME ? (uint32_t)size
							: (uint32_t)step->seed << 16 | step->size,
			(uint32_t)size, step->seed);
		machine->withheld += LENGTH + size;
		if ((step->seed & 1) != 0)
			peer_writes(machine, SIZE_MAX);
		return;
	case OP_PEER_PIECE:
		peer_writes(machine, step->size % 300u);
		return;
	case OP_RECEIVE:
		if (!machine->over)
			receive(machine, step);
		return;
	case OP_SEND:
		transmit(machine, step);
		return;
	default:
		(void)peer_reads(machine, step->size);
	}
}

static void finish(struct machine *machine)
{
	int r;

	do {
		r = net_stream_flush(machine->stream);
		require(r == 0 || r == -EAGAIN);
	} while (peer_reads(machine, WIRE_MAX) || r == -EAGAIN);
	require(machine->out.start == machine->out.end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct machine machine;
	struct step step;
	int ends[2], room = 4608;

	machine.over = false;
	machine.in.start = machine.in.end = machine.out.start = machine.out.end = 0;
	machine.withheld = 0;
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
	if (size % 2 != 0) /* so that frames are taken in parts */
		require(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)) == 0);
	machine.peer = ends[0];
	require(net_stream_create(ends[1], &machine.stream) == 0);
	for (; size >= sizeof(step); data += sizeof(step), size -= sizeof(step)) {
		memcpy(&step, data, sizeof(step));
		run_step(&machine, &step);
	}
	finish(&machine);
	net_stream_free(machine.stream);
	close(machine.peer);
	return 0;
}
