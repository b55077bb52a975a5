// SPDX-License-Identifier: BSD-3-Clause
/*
 * A driver of our own at the queues of vsock by sockets, without a guest: it
 * does what Linux does (packets as large as the credit lets them be, 64 KiB at
 * most; 128 buffers of 4 KiB to receive; 256 KiB of room, of which the host
 * hears when less than 64 KiB are left that it knows of), and copies nothing.
 * Buffers lie side by side, and one that came back is used again before long, as
 * an allocator has it. Its peer is a program of the host, a thread here. Prints
 * bytes a second, or round trips of a byte, beside those of a Unix socket pair
 * between two threads.
 *
 *	vsockqueue [-r | -p] [-b RECEIVE_BUFFER_BYTES] [-m MIB]
 *
 * Bytes go from the guest; with -r to it; with -p one goes there and back. The
 * two ways run in turn, five times; the medians count.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_vsock.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "driver.h"
#include "memory/guest_memory.h"
#include "virtio/device.h"
#include "virtio/vhost_thread.h"

enum { RX, TX, EVENT, QUEUES };
enum {
	SIZE = 128,
	CID = 42,
	PORT = 7,
	HEADER = sizeof(struct virtio_vsock_hdr),
	PACKET_MAX = 64 << 10,
	SENT_MAX = 16, /* packets at a time; the window has room for eight */
	SENT_SLOT = PACKET_MAX + 4096,
	BUFFER_MAX = 64 << 10, /* to receive into */
	ROOM = 256 << 10,
	UPDATE_AT = 192 << 10, /* of room that the host does not know of */
	ROUNDS = 5,
	ROUND_TRIPS = 20000,
};

enum way { FROM_GUEST, TO_GUEST, PING };

struct options { /* as in vsock.c */
	uint64_t cid;
	const char *socket;
};

struct ring {
	struct driver_queue queue;
	uint64_t data; /* gpa of its slots, each of which holds a packet */
	uint32_t slot_size;
	uint16_t slots;
};

struct bench {
	enum way way;
	uint32_t buffer;
	uint64_t bytes;
	char directory[32], path[64], peer_path[80];
	struct guest_memory *memory;
	struct vhost *vhost;
	struct ring rings[QUEUES];
	int listener;
	/* The one connection. */
	uint32_t port, sent, taken, told;
	uint32_t peer_room, peer_taken;
};

/* What the host's program does with its end. */
struct peer {
	enum way way;
	uint64_t bytes;
	int fd;
	pthread_t thread;
};

/* ---- the host's program ---- */

static uint64_t read_all(int fd, uint64_t bytes)
{
	static char data[PACKET_MAX];
	ssize_t n = 1;
	uint64_t done = 0;

	while (done < bytes && (n = read(fd, data, sizeof(data))) > 0)
		done += (uint64_t)n;
	return done;
}

static void write_all(int fd, uint64_t bytes)
{
	static const char data[PACKET_MAX];

	while (bytes > 0) {
		ssize_t n = write(fd, data, min_u64(bytes, sizeof(data)));

		check(n > 0, "write");
		bytes -= (uint64_t)n;
	}
}

static void *run_peer(void *argument)
{
	struct peer *peer = argument;
	char byte;

	if (peer->way == FROM_GUEST)
		check(read_all(peer->fd, peer->bytes) == peer->bytes, "read");
	else if (peer->way == TO_GUEST)
		write_all(peer->fd, peer->bytes);
	else
		for (unsigned i = 0; i < ROUND_TRIPS; i++)
			check(read(peer->fd, &byte, 1) == 1 && write(peer->fd, &byte, 1) == 1,
				"echo");
	return NULL;
}

static void start_peer(struct peer *peer)
{
	check(pthread_create(&peer->thread, NULL, run_peer, peer) == 0, "thread");
}

/* ---- without us: two threads at a socket pair ---- */

static double run_pair(const struct bench *bench)
{
	int ends[2];
	char byte = 1;

	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
	struct peer peer = { .way = bench->way, .bytes = bench->bytes, .fd = ends[1] };
	double begin = seconds();

	start_peer(&peer);
	if (bench->way == FROM_GUEST)
		write_all(ends[0], bench->bytes);
	else if (bench->way == TO_GUEST)
		check(read_all(ends[0], bench->bytes) == bench->bytes, "read");
	else
		for (unsigned i = 0; i < ROUND_TRIPS; i++)
			check(write(ends[0], &byte, 1) == 1 && read(ends[0], &byte, 1) == 1,
				"ping");
	pthread_join(peer.thread, NULL);
	double took = seconds() - begin;

	close(ends[0]);
	close(ends[1]);
	return took;
}

/* ---- the driver ---- */

static void *at(const struct bench *bench, uint64_t gpa, uint64_t size)
{
	return driver_at(bench->memory, gpa, size);
}

static uint64_t slot_gpa(const struct ring *ring, uint16_t number)
{
	return ring->data + number % ring->slots * (uint64_t)ring->slot_size;
}

static void offer(struct ring *ring, uint32_t size, uint16_t flags)
{
	uint16_t index = ring->queue.offered % SIZE;

	ring->queue.desc[index] =
		(struct vring_desc){ slot_gpa(ring, ring->queue.offered), size, flags, 0 };
	driver_offer(&ring->queue, index);
}

/* What the host has not taken stands in the ring; Linux waits for room there as well. */
static void send_packet(struct bench *bench, uint16_t op, uint32_t size)
{
	struct ring *ring = &bench->rings[TX];
	const struct virtio_vsock_hdr header = {
		.src_cid = CID,
		.dst_cid = 2,
		.src_port = bench->port,
		.dst_port = PORT,
		.len = size,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.buf_alloc = ROOM,
		.fwd_cnt = bench->taken,
	};

	if ((uint16_t)(ring->queue.offered - ring->queue.seen) == SENT_MAX)
		ring->queue.seen += driver_await(&ring->queue, 1);
	memcpy(at(bench, slot_gpa(ring, ring->queue.offered), HEADER), &header, HEADER);
	offer(ring, HEADER + size, 0);
	driver_kick(&ring->queue);
	bench->sent += size;
	bench->told = bench->taken;
}

/* Waits for the next packet and gives its buffer back. */
static struct virtio_vsock_hdr take_packet(struct bench *bench)
{
	struct ring *ring = &bench->rings[RX];
	struct virtio_vsock_hdr header;

	if (driver_ready(&ring->queue) == 0) {
		driver_kick(&ring->queue);
		(void)driver_await(&ring->queue, 1);
	}
	memcpy(&header, at(bench, slot_gpa(ring, ring->queue.seen++), HEADER), HEADER);
	bench->peer_room = header.buf_alloc;
	bench->peer_taken = header.fwd_cnt;
	offer(ring, bench->buffer, VRING_DESC_F_WRITE);
	if (header.op != VIRTIO_VSOCK_OP_RW)
		return header;
	bench->taken += header.len;
	if (bench->taken - bench->told >= UPDATE_AT)
		send_packet(bench, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	return header;
}

static void send_all(struct bench *bench)
{
	uint64_t left = bench->bytes;

	while (left > 0) {
		uint32_t room = bench->peer_room - (bench->sent - bench->peer_taken);
		uint32_t size = (uint32_t)min_u64(min_u64(room, PACKET_MAX), left);

		if (size > 0)
			send_packet(bench, VIRTIO_VSOCK_OP_RW, size);
		left -= size;
		if (size == 0 || driver_ready(&bench->rings[RX].queue) > 0)
			(void)take_packet(bench);
	}
}

static void receive_all(struct bench *bench, uint64_t bytes)
{
	for (uint64_t done = 0; done < bytes;) {
		struct virtio_vsock_hdr header = take_packet(bench);

		check(header.op != VIRTIO_VSOCK_OP_RST, "reset");
		if (header.op == VIRTIO_VSOCK_OP_CREDIT_REQUEST)
			send_packet(bench, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
		done += header.op == VIRTIO_VSOCK_OP_RW ? header.len : 0;
	}
}

static double run_vsock(struct bench *bench)
{
	struct peer peer = { .way = bench->way, .bytes = bench->bytes };

	bench->port++;
	bench->sent = bench->taken = bench->told = 0;
	send_packet(bench, VIRTIO_VSOCK_OP_REQUEST, 0);
	while (take_packet(bench).op != VIRTIO_VSOCK_OP_RESPONSE)
		;
	peer.fd = accept(bench->listener, NULL, NULL);
	check(peer.fd >= 0, "accept");
	double begin = seconds();

	start_peer(&peer);
	if (bench->way == FROM_GUEST)
		send_all(bench);
	else if (bench->way == TO_GUEST)
		receive_all(bench, bench->bytes);
	else
		for (unsigned i = 0; i < ROUND_TRIPS; i++) {
			send_packet(bench, VIRTIO_VSOCK_OP_RW, 1);
			receive_all(bench, 1);
		}
	pthread_join(peer.thread, NULL);
	double took = seconds() - begin;

	close(peer.fd);
	send_packet(bench, VIRTIO_VSOCK_OP_RST, 0);
	return took;
}

/* ---- the device ---- */

static void open_listener(struct bench *bench)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strcpy(bench->directory, "/tmp/crosvm-bench-XXXXXX");
	check(mkdtemp(bench->directory) != NULL, "mkdtemp");
	snprintf(bench->path, sizeof(bench->path), "%s/s", bench->directory);
	snprintf(bench->peer_path, sizeof(bench->peer_path), "%s_%d", bench->path, PORT);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", bench->peer_path);
	bench->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(bind(bench->listener, (void *)&address, sizeof(address)) == 0 &&
			listen(bench->listener, 16) == 0,
		"listen");
}

static void start_ring(struct bench *bench, unsigned index)
{
	struct ring *ring = &bench->rings[index];

	driver_start(&ring->queue, bench->vhost, bench->memory, index, SIZE);
	ring->data = DRIVER_RINGS_END + index * (uint64_t)SIZE * BUFFER_MAX;
	ring->slots = index == RX ? SIZE : SENT_MAX;
	ring->slot_size = index == RX ? bench->buffer : SENT_SLOT;
}

static void start(struct bench *bench)
{
	const struct guest_memory_range range = { 0,
		DRIVER_RINGS_END + SIZE * BUFFER_MAX + SENT_MAX * SENT_SLOT };
	const struct options options = { CID, bench->path };
	const uint64_t features =
		UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX;
	struct device *device;

	check(guest_memory_create(&range, 1, 0, &bench->memory) == 0, "memory");
	check(vsock_device_class.open(&options, &device) == 0, "open");
	check(vhost_thread_create(vsock_device_class.ops, device, bench->memory, &bench->vhost) ==
			0,
		"device");
	check(bench->vhost->ops->set_features(bench->vhost, features) == 0, "features");
	for (unsigned i = 0; i < QUEUES; i++)
		start_ring(bench, i);
	for (unsigned i = 0; i < SIZE; i++)
		offer(&bench->rings[RX], bench->buffer, VRING_DESC_F_WRITE);
	driver_kick(&bench->rings[RX].queue);
}

static void stop(struct bench *bench)
{
	bench->vhost->ops->free(bench->vhost);
	guest_memory_free(bench->memory);
	close(bench->listener);
	unlink(bench->peer_path);
	rmdir(bench->directory);
}

/* ---- the figures ---- */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values)
{
	qsort(values, ROUNDS, sizeof(values[0]), compare);
	return values[ROUNDS / 2];
}

static void parse(int argc, char **argv, struct bench *bench)
{
	int option;

	while ((option = getopt(argc, argv, "rpb:m:")) != -1)
		switch (option) {
		case 'r':
			bench->way = TO_GUEST;
			break;
		case 'p':
			bench->way = PING;
			break;
		case 'b':
			bench->buffer = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'm':
			bench->bytes = strtoull(optarg, NULL, 10) * MIB;
			break;
		default:
			optind = argc + 1;
		}
	if (optind != argc || bench->buffer <= HEADER || bench->buffer > BUFFER_MAX ||
		bench->bytes == 0 || bench->bytes > UINT32_MAX) {
		fprintf(stderr, "usage: vsockqueue [-r | -p] [-b RECEIVE_BUFFER_BYTES] [-m MIB]\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct bench bench = { .buffer = 4096, .bytes = 1024 * MIB };
	double pair[ROUNDS], vsock[ROUNDS];

	parse(argc, argv, &bench);
	open_listener(&bench);
	start(&bench);
	for (unsigned i = 0; i < ROUNDS; i++) {
		pair[i] = run_pair(&bench);
		vsock[i] = run_vsock(&bench);
	}
	stop(&bench);
	double count = bench.way == PING ? ROUND_TRIPS : (double)bench.bytes / (double)MIB;
	double of_pair = count / median(pair), of_vsock = count / median(vsock);

	printf("{\"%s\": %.0f, \"socket_pair\": %.0f, \"ratio\": %.2f}\n",
		bench.way == PING ? "round_trips_a_second" : "mib_a_second", of_vsock, of_pair,
		of_vsock / of_pair);
	return 0;
}
