// SPDX-License-Identifier: BSD-3-Clause
/*
 * A program of a hostile driver against vsock by unix sockets: packets with
 * lies in each field, buffers of all sizes for what comes back, and a program
 * of the host that listens, reads some, and leaves. What comes out must be a
 * packet, and fit; what is held must stay within its bounds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "virtio/vsock_queue.h"

enum { CID = 3, PORTS = 4, SLOTS = 4 };

/* One operation of the input. */
struct step {
	uint8_t op;
	uint8_t packet_op;
	uint8_t ports;
	uint8_t lies;
	uint16_t length;
	uint16_t cut;
	uint32_t credit;
};

static void require(bool holds)
{
	if (!holds)
		abort();
}

struct machine {
	struct vsock_host *host;
	int listener;
	int peers[SLOTS];
};

static uint8_t memory[VSOCK_PACKETS_MAX * (VSOCK_HEADER_SIZE + 1) + VSOCK_DATA_MAX];

static void open_machine(struct machine *machine)
{
	static char path[64];
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	log_set_level(LOG_LEVEL_NONE);
	snprintf(path, sizeof(path), "/tmp/crosvm-fuzz-vsock-%d", (int)getpid());
	require(vsock_host_open(path, CID, &machine->host) == 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s_1", path);
	machine->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlink(address.sun_path);
	require(bind(machine->listener, (const void *)&address, sizeof(address)) == 0);
	require(listen(machine->listener, SLOTS) == 0);
	/* It has its descriptor; nothing may stay behind when a finding aborts. */
	unlink(path);
}

/* Cuts the buffer at memory + at in two, at `cut`. */
static void make_chain(struct virtqueue_chain *chain, struct iovec *iov, uint32_t at, uint32_t size,
	uint32_t cut, bool writable)
{
	uint32_t first = (uint32_t)min_u64(cut, size);

	iov[0] = (struct iovec){ memory + at, first };
	iov[1] = (struct iovec){ memory + at + first, size - first };
	*chain = (struct virtqueue_chain){ .iov = iov, .iov_max = 2 };
	*(writable ? &chain->writable : &chain->readable) = 2;
	*(writable ? &chain->writable_bytes : &chain->readable_bytes) = size;
}

static void take_events(struct machine *machine)
{
	struct epoll_event events[8];
	int n = epoll_wait(machine->host->epoll_fd, events, 8, 0);

	for (int i = 0; i < n; i++)
		vsock_take_event(machine->host, events[i].data.u64, events[i].events);
}

static void send_packet(struct machine *machine, const struct step *step)
{
	struct virtqueue_chain chain;
	struct iovec iov[2];
	const struct virtio_vsock_hdr header = {
		.src_cid = (step->lies & 0x81) == 0x81 ? 9 : CID,
		.dst_cid = (step->lies & 0x82) == 0x82 ? 9 : 2,
		.src_port = step->ports % PORTS,
		.dst_port = step->ports / PORTS % 2 == 0 ? 1 : 1u << 30 | step->ports % 8,
		.len = (step->lies & 4) != 0 ? step->credit : step->length,
		.type = (step->lies & 0x88) == 0x88 ? 2 : 1,
		.op = (step->lies & 0x90) == 0x90 ? step->packet_op : step->packet_op % 8,
		.flags = step->lies >> 5,
		.buf_alloc = (step->lies & 8) != 0 ? step->credit : 65536,
		.fwd_cnt = (step->lies & 16) != 0 ? step->credit >> 8 : 0,
	};

	if (machine->host->reset_count == VSOCK_RESETS_MAX)
		return;
	memcpy(memory, &header, sizeof(header));
	make_chain(&chain, iov, 0, (step->lies & 0x40) != 0 ? step->cut : step->length + 44u,
		step->cut, false);
	bool done = vsock_take_packet(machine->host, &chain);

	/* What a program of the host does meanwhile. */
	for (uint8_t more = step->lies; !done; more /= 2) {
		if (step->op >= 128)
			take_events(machine);
		done = vsock_take_rest(machine->host, more == 0);
	}
}

/* Chains of one size, cut in different places. */
static void get_packets(struct machine *machine, const struct step *step)
{
	struct vsock_room room = { .count = 1 + step->lies % VSOCK_PACKETS_MAX };
	uint32_t chain_size = VSOCK_HEADER_SIZE + 1u + step->length / room.count;
	struct virtio_vsock_hdr header;

	for (unsigned i = 0; i < room.count; i++)
		make_chain(&room.chains[i], room.iov + 2 * i, i * chain_size, chain_size,
			step->cut + i, true);
	if (!vsock_has_packet(machine->host))
		return;
	unsigned count = vsock_make_packets(machine->host, &room);

	require(count <= room.count);
	for (unsigned i = 0; i < count; i++) {
		memcpy(&header, memory + i * chain_size, sizeof(header));
		require(room.sizes[i] <= chain_size);
		require(room.sizes[i] == sizeof(header) + header.len && header.dst_cid == CID &&
			header.src_cid == 2 && header.op >= 1 && header.op <= 7);
		require(count == 1 || header.op == VIRTIO_VSOCK_OP_RW);
	}
}

static void host_step(struct machine *machine, const struct step *step)
{
	int *peer = &machine->peers[step->ports % SLOTS];
	static char bytes[4096];

	if (*peer < 0)
		*peer = accept4(machine->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	else if (step->packet_op % 4 == 0)
		fd_close(peer);
	else if (step->packet_op % 4 == 1)
		(void)!send(*peer, bytes, step->length % sizeof(bytes), MSG_NOSIGNAL);
	else if (step->packet_op % 4 == 2)
		(void)!read(*peer, bytes, step->length % sizeof(bytes));
	else
		(void)shutdown(*peer, step->lies & 1);
}

static void dial(struct machine *machine, const struct step *step)
{
	static const char line[] = "CONNECT 12\nx";
	int ends[2];

	if (machine->host->table.used == VSOCK_CONNECTIONS_MAX ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
		return;
	(void)!write(ends[0], line, step->length % sizeof(line));
	struct vsock_connection *connection =
		vsock_table_add(&machine->host->table, ends[1], VSOCK_GREETING);

	vsock_take_event(
		machine->host, vsock_table_tag(&machine->host->table, connection), EPOLLIN);
	close(ends[0]);
}

static void check(const struct machine *machine)
{
	const struct vsock_table *table = &machine->host->table;
	unsigned used = 0;

	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		const struct vsock_connection *connection = &table->connections[i];

		used += connection->state != VSOCK_FREE;
		require(connection->state == VSOCK_FREE ||
			vsock_buffered(connection) <= connection->window);
	}
	require(used == table->used && machine->host->reset_count <= VSOCK_RESETS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const steps[])(struct machine * machine, const struct step *step) = {
		send_packet, send_packet, send_packet, get_packets, get_packets, host_step, dial
	};
	static struct machine machine;
	struct step step;

	if (machine.host == NULL)
		open_machine(&machine);
	for (unsigned i = 0; i < SLOTS; i++)
		machine.peers[i] = -1;
	for (; size >= sizeof(step); data += sizeof(step), size -= sizeof(step)) {
		memcpy(&step, data, sizeof(step));
		steps[step.op % ARRAY_SIZE(steps)](&machine, &step);
		if (step.op >= 128)
			take_events(&machine);
	}
	check(&machine);
	vsock_cut(machine.host);
	for (unsigned i = 0; i < SLOTS; i++)
		fd_close(&machine.peers[i]);
	for (int fd; (fd = accept(machine.listener, NULL, NULL)) >= 0;)
		close(fd);
	return 0;
}
