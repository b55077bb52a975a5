// SPDX-License-Identifier: BSD-3-Clause
/*
 * The states of vsock connections, packet by packet, without driver or
 * threads: what comes when it may not, ends of one half, and events and
 * packets for a connection whose place another one has.
 */
#include "unit/unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "virtio/vsock_queue.h"

enum { CID = 42, HOST_PORT = 7, GUEST_PORT = 100 };

struct rig {
	char directory[32], path[48];
	struct vsock_host *host;
	uint8_t buffer[8192]; /* the guest's */
	uint8_t start[10];    /* of what the guest gets */
};

static int make_rig(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	strcpy(rig->directory, "/tmp/states-XXXXXX");
	assert_non_null(mkdtemp(rig->directory));
	snprintf(rig->path, sizeof(rig->path), "%s/s", rig->directory);
	assert_int_equal(vsock_host_open(rig->path, CID, &rig->host), 0);
	*state = rig;
	return 0;
}

static int free_rig(void **state)
{
	struct rig *rig = *state;

	vsock_host_free(rig->host);
	rmdir(rig->directory);
	free(rig);
	return 0;
}

/* A connection in this state. The host's program, whose end this is, waits for nothing. */
static struct vsock_connection *add(
	struct rig *rig, enum vsock_state state, uint32_t guest_port, int *ret_program)
{
	int ends[2];

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
	struct vsock_connection *connection = vsock_table_add(&rig->host->table, ends[0], state);
	struct epoll_event event = { .events = EPOLLIN };

	assert_non_null(connection);
	vsock_table_list(&rig->host->table, connection, guest_port, HOST_PORT);
	assert_int_equal(epoll_ctl(rig->host->epoll_fd, EPOLL_CTL_ADD, ends[0], &event), 0);
	*ret_program = ends[1];
	return connection;
}

/* A packet with four bytes of data. */
static void take(struct rig *rig, uint16_t op, uint32_t guest_port, uint32_t flags)
{
	const struct virtio_vsock_hdr header = {
		.src_cid = CID,
		.dst_cid = 2,
		.src_port = guest_port,
		.dst_port = HOST_PORT,
		.len = 4,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.flags = flags,
		.buf_alloc = 65536,
	};
	struct iovec iov = { rig->buffer, VSOCK_HEADER_SIZE + 4 };
	const struct virtqueue_chain chain = {
		.iov = &iov, .readable = 1, .readable_bytes = VSOCK_HEADER_SIZE + 4
	};

	memcpy(rig->buffer, &header, VSOCK_HEADER_SIZE);
	memcpy(rig->buffer + VSOCK_HEADER_SIZE, "data", 4);
	assert_true(vsock_take_packet(rig->host, &chain));
}

/* The operation of the next packet for the guest, or -1. */
static int make(struct rig *rig)
{
	const size_t cut = sizeof(rig->start);
	struct vsock_room room = { .count = 1 };
	struct virtio_vsock_hdr header;

	room.iov[0] = (struct iovec){ rig->start, cut };
	room.iov[1] = (struct iovec){ rig->buffer, sizeof(rig->buffer) };
	room.chains[0] = (struct virtqueue_chain){
		.iov = room.iov, .writable = 2, .writable_bytes = cut + sizeof(rig->buffer)
	};
	if (vsock_make_packets(rig->host, &room) == 0)
		return -1;
	memcpy(&header, rig->start, cut);
	memcpy((uint8_t *)&header + cut, rig->buffer, VSOCK_HEADER_SIZE - cut);
	return header.op;
}

static void each_state_takes_its_own_packets(void **state)
{
	enum { OPS = 12 };
	static const bool legal[][OPS] = {
		[VSOCK_REQUESTED] = { [VIRTIO_VSOCK_OP_RESPONSE] = true },
		[VSOCK_CONNECTED] = { [VIRTIO_VSOCK_OP_SHUTDOWN] = true,
			[VIRTIO_VSOCK_OP_RW] = true,
			[VIRTIO_VSOCK_OP_CREDIT_UPDATE] = true,
			[VIRTIO_VSOCK_OP_CREDIT_REQUEST] = true },
	};
	static const uint16_t beyond[] = { 12, 255, 256, 0x7fff, 0xffff };
	struct rig *rig = *state;

	for (unsigned i = 0; i < 2 * (OPS + ARRAY_SIZE(beyond)); i++) {
		enum vsock_state from = i % 2 ? VSOCK_REQUESTED : VSOCK_CONNECTED;
		unsigned n = i / 2;
		uint16_t op = n < OPS ? (uint16_t)n : beyond[n - OPS];
		int program;

		if (op == VIRTIO_VSOCK_OP_RST)
			continue; /* of any */
		(void)add(rig, from, GUEST_PORT, &program);
		take(rig, op, GUEST_PORT, 0);
		bool is_reset = rig->host->table.used == 1 && make(rig) == VIRTIO_VSOCK_OP_RST;

		if (is_reset == (n < OPS && legal[from][n]))
			fail_msg("packet %u in state %d", op, from);
		close(program);
		vsock_cut(rig->host);
	}
}

/* It goes on reading until it is told of both ends, and what it sends then is a lie. */
static void a_half_that_ended_stays_so(void **state)
{
	struct rig *rig = *state;
	char text[8];
	int program;

	(void)add(rig, VSOCK_CONNECTED, GUEST_PORT, &program);
	take(rig, VIRTIO_VSOCK_OP_RW, GUEST_PORT, 0);
	take(rig, VIRTIO_VSOCK_OP_SHUTDOWN, GUEST_PORT, VIRTIO_VSOCK_SHUTDOWN_SEND);
	assert_int_equal(read(program, text, sizeof(text)), 4);
	assert_int_equal(read(program, text, sizeof(text)), 0);
	assert_int_equal(write(program, "host", 4), 4);
	assert_int_equal(make(rig), VIRTIO_VSOCK_OP_RW);
	take(rig, VIRTIO_VSOCK_OP_RW, GUEST_PORT, 0);
	assert_int_equal(make(rig), VIRTIO_VSOCK_OP_RST);
	assert_int_equal(rig->host->table.used, 0);
	close(program);
}

/* Of two connections that had the same place one after the other, events are of one. */
static void the_next_in_its_place_gets_no_event_of_it(void **state)
{
	struct rig *rig = *state;
	struct vsock_table *table = &rig->host->table;
	int programs[2];
	struct vsock_connection *first = add(rig, VSOCK_CONNECTED, GUEST_PORT, &programs[0]);
	uint64_t tag = vsock_table_tag(table, first);

	assert_ptr_equal(vsock_table_at(table, tag), first);
	vsock_table_remove(table, first);
	assert_null(vsock_table_at(table, tag));
	assert_int_equal(read(programs[0], &programs[1], 1), 0); /* it is closed */
	struct vsock_connection *second = add(rig, VSOCK_CONNECTED, GUEST_PORT, &programs[1]);

	assert_ptr_equal(second, first);
	assert_null(vsock_table_at(table, tag));
	vsock_take_event(rig->host, tag, EPOLLHUP);
	assert_false(second->is_hung_up);
	close(programs[0]);
	close(programs[1]);
}

#define RIGGED(test) cmocka_unit_test_setup_teardown(test, make_rig, free_rig)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIGGED(each_state_takes_its_own_packets),
		RIGGED(a_half_that_ended_stays_so),
		RIGGED(the_next_in_its_place_gets_no_event_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
