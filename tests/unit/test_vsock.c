// SPDX-License-Identifier: BSD-3-Clause
/*
 * vsock by unix sockets: a driver and programs of the host against the real
 * threads. What one side sends arrives at the other, ends and refusals too; a
 * driver that lies loses its connection and nothing else.
 */
#include "unit/unit.h"

#include <errno.h>
#include <linux/virtio_vsock.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd_passing.h"
#include "unit/virtio_driver.h"
#include "virtio/vhost_thread.h"
#include "virtio/vsock_queue.h"

enum {
	SIZE = 16,
	HEADER = VSOCK_HEADER_SIZE,
	CID = 42,
	PATIENCE_MS = 20000,
	SLOT = 8192,
	DATA_MAX = SLOT - HEADER,
};

struct options { /* as in vsock.c */
	uint64_t cid;
	const char *socket;
};

struct ring {
	struct vring_desc *desc;
	uint16_t *avail;
	uint8_t *used;
	uint64_t data;
	uint16_t offered, seen;
	int kick_fd, call_fd;
};

struct rig {
	char directory[32];
	char path[64];
	struct guest_memory *memory;
	struct device *device;
	struct vhost *vhost;
	struct ring rings[VSOCK_QUEUES];
	int error_fd;
	int listener;
};

static void *at(struct rig *rig, uint64_t gpa)
{
	return guest_memory_at(rig->memory, gpa, 1);
}

static void offer(struct ring *ring, uint32_t size, uint16_t flags)
{
	unsigned slot = ring->offered % SIZE;

	ring->desc[slot] = (struct vring_desc){ ring->data + slot * SLOT, size, flags, 0 };
	ring->avail[2 + slot] = (uint16_t)slot;
	__atomic_store_n(&ring->avail[1], ++ring->offered, __ATOMIC_RELEASE);
	(void)eventfd_write(ring->kick_fd, 1);
}

static uint64_t ring_gpa(unsigned index)
{
	return 0x1000 + index * UINT64_C(0x3000);
}

static void start_ring(struct rig *rig, unsigned index, uint16_t base)
{
	struct ring *ring = &rig->rings[index];
	uint64_t gpa = ring_gpa(index);
	const struct vhost_ring place = {
		.size = SIZE,
		.base = base,
		.desc = gpa,
		.avail = gpa + 0x1000,
		.used = gpa + 0x2000,
		.kick_fd = ring->kick_fd,
		.call_fd = ring->call_fd,
	};

	ring->desc = at(rig, place.desc);
	ring->avail = at(rig, place.avail);
	ring->used = at(rig, place.used);
	assert_int_equal(rig->vhost->ops->set_vring(rig->vhost, index, &place), 0);
	assert_int_equal(rig->vhost->ops->start_vring(rig->vhost, index), 0);
}

static void start(struct rig *rig)
{
	for (unsigned i = 0; i < VSOCK_QUEUES; i++) {
		struct ring *ring = &rig->rings[i];

		memset(at(rig, ring_gpa(i)), 0, 0x3000);
		ring->data = 0x10000 + i * UINT64_C(0x20000);
		ring->offered = ring->seen = 0;
		start_ring(rig, i, 0);
	}
	for (unsigned i = 0; i < SIZE; i++)
		offer(&rig->rings[VSOCK_RX], SLOT, VRING_DESC_F_WRITE);
}

static void stop(struct rig *rig)
{
	uint16_t base;

	for (unsigned i = 0; i < VSOCK_QUEUES; i++)
		assert_int_equal(rig->vhost->ops->stop_vring(rig->vhost, i, &base), 0);
}

/* As a suspended VM goes on, and as a front end that has a new eventfd. */
static void restart(struct rig *rig)
{
	uint16_t base;

	for (unsigned i = 0; i < VSOCK_QUEUES; i++) {
		assert_int_equal(rig->vhost->ops->stop_vring(rig->vhost, i, &base), 0);
		start_ring(rig, i, base);
	}
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(bind(fd, (void *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static int make_rig(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	char guest_path[80];

	assert_non_null(rig);
	strcpy(rig->directory, "/tmp/crosvm-vsock-XXXXXX");
	assert_non_null(mkdtemp(rig->directory));
	snprintf(rig->path, sizeof(rig->path), "%s/s", rig->directory);
	snprintf(guest_path, sizeof(guest_path), "%s_7", rig->path);
	rig->listener = listen_at(guest_path);
	rig->memory = driver_memory();
	const struct options options = { CID, rig->path };

	assert_int_equal(vsock_device_class.open(&options, &rig->device), 0);
	assert_int_equal(
		vhost_thread_create(vsock_device_class.ops, rig->device, rig->memory, &rig->vhost),
		0);
	rig->error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(rig->vhost->ops->set_error_fd(rig->vhost, rig->error_fd), 0);
	for (unsigned i = 0; i < VSOCK_QUEUES; i++) {
		rig->rings[i].kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		rig->rings[i].call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
	start(rig);
	*state = rig;
	return 0;
}

static int free_rig(void **state)
{
	struct rig *rig = *state;
	char guest_path[80];

	rig->vhost->ops->free(rig->vhost);
	assert_int_equal(access(rig->path, F_OK), -1);
	for (unsigned i = 0; i < VSOCK_QUEUES; i++) {
		close(rig->rings[i].kick_fd);
		close(rig->rings[i].call_fd);
	}
	close(rig->error_fd);
	close(rig->listener);
	snprintf(guest_path, sizeof(guest_path), "%s_7", rig->path);
	unlink(guest_path);
	rmdir(rig->directory);
	guest_memory_free(rig->memory);
	free(rig);
	return 0;
}

static void wait_used(struct ring *ring)
{
	struct pollfd call = { .fd = ring->call_fd, .events = POLLIN };
	eventfd_t count;

	while (__atomic_load_n((uint16_t *)(void *)(ring->used + 2), __ATOMIC_ACQUIRE) ==
		ring->seen) {
		assert_int_equal(poll(&call, 1, PATIENCE_MS), 1);
		(void)eventfd_read(ring->call_fd, &count);
	}
	ring->seen++;
}

static struct virtio_vsock_hdr packet(uint16_t op, uint32_t guest_port, uint32_t host_port)
{
	return (struct virtio_vsock_hdr){ .src_cid = CID,
		.dst_cid = 2,
		.src_port = guest_port,
		.dst_port = host_port,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.buf_alloc = 65536 };
}

/* `size` bytes of header and data go, whatever the header says. */
static void send_raw(struct rig *rig, const struct virtio_vsock_hdr *header, uint32_t size)
{
	struct ring *ring = &rig->rings[VSOCK_TX];
	uint8_t *slot = at(rig, ring->data + ring->offered % SIZE * SLOT);

	memset(slot, 'g', SLOT);
	memcpy(slot, header, HEADER);
	offer(ring, size, 0);
	wait_used(ring);
}

static void send_op(struct rig *rig, uint16_t op, uint32_t guest_port, uint32_t host_port)
{
	struct virtio_vsock_hdr header = packet(op, guest_port, host_port);

	if (op == VIRTIO_VSOCK_OP_SHUTDOWN)
		header.flags = 3;
	send_raw(rig, &header, HEADER);
}

/* The next packet for the guest; its buffer is offered again. */
static struct virtio_vsock_hdr get(struct rig *rig, uint8_t *data)
{
	struct ring *ring = &rig->rings[VSOCK_RX];
	struct virtio_vsock_hdr header;

	wait_used(ring);
	const uint8_t *slot = at(rig, ring->data + (ring->seen - 1u) % SIZE * SLOT);
	uint32_t used;

	memcpy(&used, ring->used + 8 + (ring->seen - 1u) % SIZE * 8, sizeof(used));
	memcpy(&header, slot, HEADER);
	assert_int_equal(used, HEADER + header.len);
	assert_int_equal(header.src_cid, 2);
	assert_int_equal(header.dst_cid, CID);
	if (data != NULL)
		memcpy(data, slot + HEADER, header.len);
	offer(ring, SLOT, VRING_DESC_F_WRITE);
	return header;
}

static void expect(struct rig *rig, uint16_t op, uint32_t guest_port)
{
	struct virtio_vsock_hdr header = get(rig, NULL);

	assert_int_equal(header.op, op);
	assert_int_equal(header.dst_port, guest_port);
}

/* The host's end of a connection that the guest made to port 7. */
static int connect_guest(struct rig *rig, uint32_t guest_port)
{
	send_op(rig, VIRTIO_VSOCK_OP_REQUEST, guest_port, 7);
	expect(rig, VIRTIO_VSOCK_OP_RESPONSE, guest_port);
	int fd = accept(rig->listener, NULL, NULL);

	assert_true(fd >= 0);
	return fd;
}

static size_t read_some(int fd, char *text, size_t size)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };

	assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
	ssize_t n = read(fd, text, size);

	assert_true(n >= 0);
	return (size_t)n;
}

static int dial(struct rig *rig, const char *line)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", rig->path);
	assert_int_equal(connect(fd, (void *)&address, sizeof(address)), 0);
	assert_int_equal(write(fd, line, strlen(line)), strlen(line));
	return fd;
}

static void the_guest_connects_and_both_ends_end(void **state)
{
	struct rig *rig = *state;
	struct virtio_vsock_hdr header = packet(VIRTIO_VSOCK_OP_RW, 100, 7);
	uint8_t data[DATA_MAX];
	char text[16];
	int fd = connect_guest(rig, 100);

	header.len = 5;
	send_raw(rig, &header, HEADER + 9); /* what is behind the length is no data */
	assert_int_equal(read_some(fd, text, sizeof(text)), 5);
	assert_memory_equal(text, "ggggg", 5);
	assert_int_equal(write(fd, "host", 4), 4);
	shutdown(fd, SHUT_WR);
	header = get(rig, data);
	assert_int_equal(header.op, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(header.len, 4);
	assert_int_equal(header.fwd_cnt, 5);
	assert_memory_equal(data, "host", 4);
	header = get(rig, NULL);
	assert_int_equal(header.op, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(header.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	/* The other half is open still. */
	header = packet(VIRTIO_VSOCK_OP_RW, 100, 7);
	header.len = 3;
	header.fwd_cnt = 4;
	send_raw(rig, &header, HEADER + 3);
	assert_int_equal(read_some(fd, text, sizeof(text)), 3);
	header = packet(VIRTIO_VSOCK_OP_SHUTDOWN, 100, 7);
	header.fwd_cnt = 4;
	header.flags = 3;
	send_raw(rig, &header, HEADER);
	expect(rig, VIRTIO_VSOCK_OP_RST, 100);
	assert_int_equal(read_some(fd, text, sizeof(text)), 0);
	close(fd);
}

static void the_host_connects(void **state)
{
	struct rig *rig = *state;
	char text[32] = { 0 };
	int fd = dial(rig, "CONNECT 52\nearly");
	struct virtio_vsock_hdr header = get(rig, NULL);

	assert_int_equal(header.op, VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(header.dst_port, 52);
	assert_int_equal(header.buf_alloc, VSOCK_WIDE);
	send_op(rig, VIRTIO_VSOCK_OP_RESPONSE, 52, header.src_port);
	(void)read_some(fd, text, sizeof(text) - 1);
	char expected[32];

	snprintf(expected, sizeof(expected), "OK %u\n", header.src_port);
	assert_string_equal(text, expected);
	uint8_t data[DATA_MAX];

	header = get(rig, data);
	assert_int_equal(header.len, 5);
	assert_memory_equal(data, "early", 5);
	close(fd);
	header = get(rig, NULL);
	assert_int_equal(header.op, VIRTIO_VSOCK_OP_SHUTDOWN);
}

static void bad_greetings_and_refusals_close(void **state)
{
	static const char *const lines[] = { "CONNECT\n", "CONNECT x\n", "connect 5\n",
		"CONNECT 4294967295\n", "CONNECT 00000000000000000005\n" };
	struct rig *rig = *state;
	char text[4];

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		int fd = dial(rig, lines[i]);
		struct pollfd end = { .fd = fd, .events = POLLIN };

		assert_int_equal(poll(&end, 1, PATIENCE_MS), 1);
		assert_true(read(fd, text, 1) <= 0);
		close(fd);
	}
	int fd = dial(rig, "CONNECT 52\n");
	struct virtio_vsock_hdr header = get(rig, NULL);

	send_op(rig, VIRTIO_VSOCK_OP_RST, 52, header.src_port);
	assert_int_equal(read_some(fd, text, sizeof(text)), 0);
	close(fd);
}

/* Programs that end within the line take no place for good. */
static void greetings_cut_short_are_forgotten(void **state)
{
	struct rig *rig = *state;

	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX + 1; i++)
		close(dial(rig, "CONN"));
	int fd = dial(rig, "CONNECT 52\n");
	struct virtio_vsock_hdr header = get(rig, NULL);

	assert_int_equal(header.op, VIRTIO_VSOCK_OP_REQUEST);
	close(fd);
}

/* Each costs its sender a RST, and the next connection works. */
static void lies_are_answered_by_a_reset(void **state)
{
	struct rig *rig = *state;
	const uint16_t strange[] = { 0, 255, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_OP_RESPONSE };

	for (uint32_t i = 0; i < ARRAY_SIZE(strange); i++) { /* without a connection */
		send_op(rig, strange[i], 300 + i, 7);
		expect(rig, VIRTIO_VSOCK_OP_RST, 300 + i);
	}
	send_op(rig, VIRTIO_VSOCK_OP_REQUEST, 310, 8); /* nobody listens */
	expect(rig, VIRTIO_VSOCK_OP_RST, 310);
	struct virtio_vsock_hdr header = packet(VIRTIO_VSOCK_OP_REQUEST, 311, 7);

	header.type = 2;
	send_raw(rig, &header, HEADER);
	assert_int_equal(get(rig, NULL).type, 2);
	for (uint32_t lie = 0; lie < 5; lie++) { /* on a connection */
		int fd = connect_guest(rig, 400 + lie);

		header = packet(VIRTIO_VSOCK_OP_RW, 400 + lie, 7);
		header.len = 10;
		if (lie == 0)
			header.fwd_cnt = 1; /* more than it got */
		if (lie == 1)
			header.len = 11; /* more than there is */
		if (lie == 2)
			header.len = UINT32_MAX;
		if (lie == 3)
			header.op = 0;
		if (lie == 4)
			header.op = VIRTIO_VSOCK_OP_REQUEST;
		send_raw(rig, &header, HEADER + 10);
		expect(rig, VIRTIO_VSOCK_OP_RST, 400 + lie);
		close(fd);
	}
	/* These get no answer. */
	header = packet(VIRTIO_VSOCK_OP_REQUEST, 500, 7);
	send_raw(rig, &header, HEADER - 1);
	header.dst_cid = 3;
	send_raw(rig, &header, HEADER);
	header.dst_cid = 2;
	header.src_cid = CID + 1;
	send_raw(rig, &header, HEADER);
	send_op(rig, VIRTIO_VSOCK_OP_RST, 500, 7);
	close(connect_guest(rig, 501));
}

/* The socket, which holds as much as the window at most, then the window, then a reset. */
static void a_driver_that_ignores_credit_is_reset(void **state)
{
	struct rig *rig = *state;
	struct virtio_vsock_hdr header = packet(VIRTIO_VSOCK_OP_RW, 600, 7);
	int fd = connect_guest(rig, 600);
	struct ring *receive = &rig->rings[VSOCK_RX];
	const unsigned packets = (2 * VSOCK_WIDE + (100 << 10)) / DATA_MAX;
	uint16_t op = 0;

	header.len = DATA_MAX;
	for (unsigned i = 0; i < packets; i++)
		send_raw(rig, &header, SLOT);
	/* From the reset on there is no connection, which is answered as well. */
	while (op != VIRTIO_VSOCK_OP_RST) {
		op = get(rig, NULL).op;
		assert_true(op == VIRTIO_VSOCK_OP_RST || op == VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	}
	close(fd);
	send_op(rig, VIRTIO_VSOCK_OP_REQUEST, 601, 7);
	do {
		header = get(rig, NULL);
		assert_true(header.dst_port == 601 || header.op == VIRTIO_VSOCK_OP_RST);
	} while (header.dst_port != 601);
	assert_int_equal(header.op, VIRTIO_VSOCK_OP_RESPONSE);
	assert_true(receive->seen < packets);
}

static void the_guests_credit_is_kept(void **state)
{
	struct rig *rig = *state;
	struct virtio_vsock_hdr header = packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 700, 7);
	int fd = connect_guest(rig, 700);

	header.buf_alloc = 10;
	send_raw(rig, &header, HEADER);
	assert_int_equal(write(fd, "0123456789abcdef", 16), 16);
	assert_int_equal(get(rig, NULL).len, 10);
	expect(rig, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 700);
	header.buf_alloc = 4; /* less than is on the way */
	send_raw(rig, &header, HEADER);
	header.buf_alloc = 12;
	send_raw(rig, &header, HEADER);
	assert_int_equal(get(rig, NULL).len, 2);
	expect(rig, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 700);
	header.fwd_cnt = 12;
	header.buf_alloc = UINT32_MAX;
	send_raw(rig, &header, HEADER);
	assert_int_equal(get(rig, NULL).len, 4);
	close(fd);
}

/* A socket stops reading there, though it has more; the guest gets the bytes, and neither of these.
 */
static void check_bytes_around(struct rig *rig, uint32_t guest_port, bool is_descriptor)
{
	struct virtio_vsock_hdr header = packet(VIRTIO_VSOCK_OP_REQUEST, guest_port, 7);
	uint8_t data[DATA_MAX];
	size_t seen = 0;

	header.buf_alloc = 0; /* all is there before the first is read */
	send_raw(rig, &header, HEADER);
	expect(rig, VIRTIO_VSOCK_OP_RESPONSE, guest_port);
	int fd = accept(rig->listener, NULL, NULL);

	if (is_descriptor)
		assert_int_equal(fd_send(fd, "before, ", 8, fd), 0);
	else /* Linux has urgent bytes since 5.15. */
		assert_true(write(fd, "before, ", 8) == 8 &&
			    (send(fd, "!", 1, MSG_OOB) == 1 || errno == EOPNOTSUPP));
	assert_int_equal(write(fd, "after", 5), 5);
	send_op(rig, VIRTIO_VSOCK_OP_CREDIT_UPDATE, guest_port, 7);
	while (seen < 13) {
		header = get(rig, data);
		assert_int_equal(header.op, VIRTIO_VSOCK_OP_RW);
		assert_in_range(header.len, 1, 13 - seen);
		assert_memory_equal(data, &"before, after"[seen], header.len);
		seen += header.len;
	}
	close(fd);
	expect(rig, VIRTIO_VSOCK_OP_SHUTDOWN, guest_port);
}

static void descriptors_and_urgent_bytes_hold_nothing_up(void **state)
{
	check_bytes_around(*state, 720, true);
	check_bytes_around(*state, 721, false);
}

/* A guest that sends on does not lose what the host wrote before it closed. */
static void the_last_words_of_the_host_arrive(void **state)
{
	struct rig *rig = *state;
	struct virtio_vsock_hdr header = packet(VIRTIO_VSOCK_OP_REQUEST, 750, 7);
	uint8_t data[DATA_MAX];

	header.buf_alloc = 0; /* nothing is read ahead of the close */
	send_raw(rig, &header, HEADER);
	expect(rig, VIRTIO_VSOCK_OP_RESPONSE, 750);
	int fd = accept(rig->listener, NULL, NULL);

	assert_int_equal(write(fd, "last words", 10), 10);
	close(fd);
	header.op = VIRTIO_VSOCK_OP_RW;
	header.len = 3;
	send_raw(rig, &header, HEADER + 3);
	header = get(rig, NULL);
	assert_int_equal(header.op, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(header.flags, VIRTIO_VSOCK_SHUTDOWN_RCV);
	send_op(rig, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 750, 7);
	header = get(rig, data);
	assert_int_equal(header.op, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(header.len, 10);
	assert_memory_equal(data, "last words", 10);
	header = get(rig, NULL);
	assert_int_equal(header.op, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(header.flags, 3);
}

/* Of a program that writes and goes without waiting for "OK"; with nothing to say it is forgotten.
 */
static void who_goes_before_the_answer_is_heard(void **state)
{
	struct rig *rig = *state;
	uint8_t data[DATA_MAX];
	struct virtio_vsock_hdr header;

	for (unsigned late = 0; late < 2; late++) {
		int fd = dial(rig, "CONNECT 52\nlast words");

		if (late == 0)
			close(fd);
		header = get(rig, NULL);
		assert_int_equal(header.op, VIRTIO_VSOCK_OP_REQUEST);
		if (late == 1)
			close(fd);
		fd = dial(rig, "CONNECT 53\n"); /* once it is seen, so is the close */
		expect(rig, VIRTIO_VSOCK_OP_REQUEST, 53);
		close(fd);
		expect(rig, VIRTIO_VSOCK_OP_RST, 53);
		send_op(rig, VIRTIO_VSOCK_OP_RESPONSE, 52, header.src_port);
		header = get(rig, data);
		assert_int_equal(header.op, VIRTIO_VSOCK_OP_RW);
		assert_int_equal(header.len, 10);
		assert_memory_equal(data, "last words", 10);
		header = get(rig, NULL);
		assert_int_equal(header.op, VIRTIO_VSOCK_OP_SHUTDOWN);
		assert_int_equal(header.flags, 3);
		send_op(rig, VIRTIO_VSOCK_OP_RST, 52, header.src_port);
	}
}

/* A half that ends before the guest has answered ends after its answer. */
static void who_ends_its_half_early_is_heard(void **state)
{
	struct rig *rig = *state;
	int fd = dial(rig, "CONNECT 52\n");
	struct virtio_vsock_hdr header = get(rig, NULL);
	char text[32];

	assert_int_equal(header.op, VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	int other = dial(rig, "CONNECT 53\n"); /* once it is seen, so is the end */

	expect(rig, VIRTIO_VSOCK_OP_REQUEST, 53);
	send_op(rig, VIRTIO_VSOCK_OP_RESPONSE, 52, header.src_port);
	assert_memory_equal(text, "OK ", read_some(fd, text, 3));
	header = get(rig, NULL);
	assert_int_equal(header.op, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(header.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	close(other);
	close(fd);
}

/* A full table lets nobody in, connects nowhere, and takes the next one when a place is free. */
static void who_waits_for_a_place_gets_it(void **state)
{
	struct rig *rig = *state;
	struct pollfd nobody = { .fd = rig->listener, .events = POLLIN };
	int fds[VSOCK_CONNECTIONS_MAX + 1];
	unsigned count = 0;

	fds[count++] = connect_guest(rig, 100);
	while (count < VSOCK_CONNECTIONS_MAX) {
		fds[count++] = dial(rig, "CONNECT 52\n");
		expect(rig, VIRTIO_VSOCK_OP_REQUEST, 52);
	}
	send_op(rig, VIRTIO_VSOCK_OP_REQUEST, 101, 7);
	expect(rig, VIRTIO_VSOCK_OP_RST, 101);
	assert_int_equal(poll(&nobody, 1, 0), 0);
	fds[count++] = dial(rig, "CONNECT 53\n");
	send_op(rig, VIRTIO_VSOCK_OP_REQUEST, 102, 7); /* the other thread has seen both then */
	expect(rig, VIRTIO_VSOCK_OP_RST, 102);
	send_op(rig, VIRTIO_VSOCK_OP_RST, 100, 7);
	expect(rig, VIRTIO_VSOCK_OP_REQUEST, 53);
	while (count > 0)
		close(fds[--count]);
}

/* What comes while the rings stop and start again is no news a second time: it must be taken then.
 */
static void a_pause_loses_no_event(void **state)
{
	struct rig *rig = *state;
	uint8_t data[DATA_MAX];

	for (unsigned n = 0; n < 30; n++) {
		int fd = connect_guest(rig, 900);

		assert_int_equal(write(fd, "late", 4), 4);
		int other = dial(rig, "CONNECT 52\n");

		restart(rig);
		restart(rig);
		unsigned requests = 0, packets = 0;

		while (requests == 0 || packets == 0) {
			struct virtio_vsock_hdr header = get(rig, data);

			requests += header.op == VIRTIO_VSOCK_OP_REQUEST && header.dst_port == 52;
			packets += header.op == VIRTIO_VSOCK_OP_RW && header.len == 4;
			if (header.op == VIRTIO_VSOCK_OP_REQUEST)
				send_op(rig, VIRTIO_VSOCK_OP_RST, 52, header.src_port);
		}
		send_op(rig, VIRTIO_VSOCK_OP_RST, 900, 7);
		close(other);
		close(fd);
	}
}

/* Who takes no resets is not heard until it does, and then is told of each that it is owed. */
static void resets_that_have_no_buffer_wait(void **state)
{
	enum { STRANGERS = SIZE + VSOCK_RESETS_MAX + SIZE };
	struct rig *rig = *state;
	struct ring *transmit = &rig->rings[VSOCK_TX];
	unsigned owed = SIZE + VSOCK_RESETS_MAX;
	uint16_t heard = 0;

	for (uint32_t port = 0; port < STRANGERS; port++) {
		struct virtio_vsock_hdr header = packet(VIRTIO_VSOCK_OP_RW, port, 7);

		if (port < owed) {
			send_raw(rig, &header, HEADER);
			continue;
		}
		memcpy(at(rig, transmit->data + transmit->offered % SIZE * SLOT), &header, HEADER);
		offer(transmit, HEADER, 0);
	}
	poll(NULL, 0, 20);
	memcpy(&heard, transmit->used + 2, sizeof(heard));
	assert_int_equal(heard, owed);
	for (uint32_t port = 0; port < STRANGERS; port++)
		expect(rig, VIRTIO_VSOCK_OP_RST, port);
}

static void a_buffer_without_room_for_data_breaks_the_queue(void **state)
{
	struct rig *rig = *state;
	struct pollfd error = { .fd = rig->error_fd, .events = POLLIN };

	/* The sixteenth of those that are there comes before it. */
	for (uint32_t port = 0; port < SIZE; port++)
		send_op(rig, VIRTIO_VSOCK_OP_RW, port, 7);
	for (uint32_t port = 0; port < SIZE; port++)
		wait_used(&rig->rings[VSOCK_RX]);
	offer(&rig->rings[VSOCK_RX], HEADER, VRING_DESC_F_WRITE);
	assert_int_equal(poll(&error, 1, 0), 0);
	send_op(rig, VIRTIO_VSOCK_OP_RW, SIZE, 7);
	assert_int_equal(poll(&error, 1, PATIENCE_MS), 1);
}

static void a_new_driver_hears_that_connections_are_cut(void **state)
{
	struct rig *rig = *state;
	char text[4];
	int fd = connect_guest(rig, 800);

	stop(rig);
	assert_int_equal(rig->vhost->ops->reset(rig->vhost), 0);
	assert_int_equal(read_some(fd, text, sizeof(text)), 0);
	close(fd);
	start(rig);
	struct ring *ring = &rig->rings[VSOCK_EVENT];

	memset(at(rig, ring->data), 0xff, 8);
	offer(ring, 8, VRING_DESC_F_WRITE);
	wait_used(ring);
	assert_memory_equal(at(rig, ring->data), "\0\0\0\0\xff", 5);
	close(connect_guest(rig, 800));
}

int main(void)
{
	struct rlimit files;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	files.rlim_cur = files.rlim_max; /* both ends of all connections are ours */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
#define RIGGED(test) cmocka_unit_test_setup_teardown(test, make_rig, free_rig)
	const struct CMUnitTest tests[] = {
		RIGGED(the_guest_connects_and_both_ends_end),
		RIGGED(the_host_connects),
		RIGGED(bad_greetings_and_refusals_close),
		RIGGED(greetings_cut_short_are_forgotten),
		RIGGED(lies_are_answered_by_a_reset),
		RIGGED(a_driver_that_ignores_credit_is_reset),
		RIGGED(the_guests_credit_is_kept),
		RIGGED(descriptors_and_urgent_bytes_hold_nothing_up),
		RIGGED(the_last_words_of_the_host_arrive),
		RIGGED(who_goes_before_the_answer_is_heard),
		RIGGED(who_ends_its_half_early_is_heard),
		RIGGED(who_waits_for_a_place_gets_it),
		RIGGED(a_pause_loses_no_event),
		RIGGED(resets_that_have_no_buffer_wait),
		RIGGED(a_buffer_without_room_for_data_breaks_the_queue),
		RIGGED(a_new_driver_hears_that_connections_are_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
