// SPDX-License-Identifier: BSD-3-Clause
/*
 * What the device does for programs of the host that do not read: which of
 * them it waits for, and how much a socket and a window hold meanwhile. One
 * thread, packet by packet, no driver.
 */
#include "unit/unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "virtio/vsock_queue.h"

enum { CID = 42, HOST_PORT = 7, PROGRAMS = 3 };

struct rig {
	char directory[32], path[48];
	struct vsock_host *host;
	int programs[PROGRAMS];
	uint8_t packet[VSOCK_HEADER_SIZE + VSOCK_DATA_MAX];
};

static int make_rig(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	strcpy(rig->directory, "/tmp/patience-XXXXXX");
	assert_non_null(mkdtemp(rig->directory));
	snprintf(rig->path, sizeof(rig->path), "%s/s", rig->directory);
	assert_int_equal(vsock_host_open(rig->path, CID, &rig->host), 0);
	for (unsigned i = 0; i < PROGRAMS; i++) {
		int ends[2];

		assert_int_equal(
			socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends),
			0);
		struct vsock_connection *connection =
			vsock_table_add(&rig->host->table, ends[0], VSOCK_CONNECTED);
		struct epoll_event event = { .events = EPOLLIN };

		assert_non_null(connection);
		vsock_table_list(&rig->host->table, connection, i, HOST_PORT);
		assert_int_equal(epoll_ctl(rig->host->epoll_fd, EPOLL_CTL_ADD, ends[0], &event), 0);
		rig->programs[i] = ends[1];
	}
	*state = rig;
	return 0;
}

static int free_rig(void **state)
{
	struct rig *rig = *state;

	for (unsigned i = 0; i < PROGRAMS; i++)
		close(rig->programs[i]);
	vsock_host_free(rig->host);
	rmdir(rig->directory);
	free(rig);
	return 0;
}

/* As vsock_take_packet(). */
static bool take_packet(struct rig *rig, uint32_t guest_port)
{
	const struct virtio_vsock_hdr header = {
		.src_cid = CID,
		.dst_cid = 2,
		.src_port = guest_port,
		.dst_port = HOST_PORT,
		.len = VSOCK_DATA_MAX,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = VIRTIO_VSOCK_OP_RW,
		.buf_alloc = 65536,
	};
	struct iovec iov = { rig->packet, sizeof(rig->packet) };
	const struct virtqueue_chain chain = {
		.iov = &iov, .readable = 1, .readable_bytes = sizeof(rig->packet)
	};

	memcpy(rig->packet, &header, sizeof(header));
	return vsock_take_packet(rig->host, &chain);
}

static struct vsock_connection *connection_of(struct rig *rig, uint32_t guest_port)
{
	return vsock_table_find(&rig->host->table, guest_port, HOST_PORT);
}

/* Sends until the socket is full. True: the device waits for the program; false: it keeps bytes. */
static bool fill(struct rig *rig, uint32_t guest_port)
{
	const struct vsock_connection *connection = connection_of(rig, guest_port);

	while (vsock_buffered(connection) == 0)
		if (!take_packet(rig, guest_port))
			return true;
	return false;
}

static void after_a_wait_in_vain_nobody_is_waited_for(void **state)
{
	struct rig *rig = *state;
	uint64_t begin_ns = clock_monotonic_ns();

	assert_true(fill(rig, 0));
	assert_int_equal(vsock_buffered(connection_of(rig, 0)), 0);
	assert_true(vsock_take_rest(rig->host, true));
	assert_true(vsock_buffered(connection_of(rig, 0)) > 0);
	/* Fifteen times as long as the wait was, at least; the clock is stopped here. */
	assert_true(rig->host->patient_from_ns >= begin_ns + 15 * NS_PER_MS);
	rig->host->patient_from_ns = UINT64_MAX;
	assert_false(fill(rig, 1));
	rig->host->patient_from_ns = 0;
	assert_true(fill(rig, 2));
	/* In time: that is no reason to be impatient. */
	assert_true(read(rig->programs[2], rig->packet, sizeof(rig->packet)) > 0);
	rig->host->patient_from_ns = 0;
	while (!vsock_take_rest(rig->host, false))
		assert_true(read(rig->programs[2], rig->packet, sizeof(rig->packet)) > 0);
	assert_int_equal(rig->host->patient_from_ns, 0);
}

/* More than without our asking; all that Linux gives is twice of net.core.wmem_max. */
static void the_first_sockets_hold_a_window(void **state)
{
	struct rig *rig = *state;
	int room, plain;
	socklen_t size = sizeof(room);

	assert_int_equal(
		getsockopt(connection_of(rig, 0)->fd, SOL_SOCKET, SO_SNDBUF, &room, &size), 0);
	assert_int_equal(getsockopt(rig->programs[0], SOL_SOCKET, SO_SNDBUF, &plain, &size), 0);
	assert_true(room == VSOCK_WIDE || (room < VSOCK_WIDE && room > plain));
}

#define RIGGED(test) cmocka_unit_test_setup_teardown(test, make_rig, free_rig)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIGGED(after_a_wait_in_vain_nobody_is_waited_for),
		RIGGED(the_first_sockets_hold_a_window),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
