// SPDX-License-Identifier: BSD-3-Clause
/*
 * A program of a hostile driver against the rings of virtio-net: chains of any
 * shape, lies in headers and commands, raw writes to the rings, frames from
 * the network. A socket that keeps frames apart stands in the place of the tap.
 *
 * A ring is served with its stop already there, so it does one round and
 * returns. After that, whatever the driver did: each frame that left has a
 * header that was accepted and none of the bytes that were not offered; each
 * used length is within its chain; memory that is not writable did not change.
 */
#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "memory/guest_memory.h"
#include "virtio/net_queue.h"

enum {
	QUEUE_SIZE = 16,
	DESC_AT = 0,
	AVAIL_AT = 0x400,
	USED_AT = 0x600,
	DATA_AT = 0x1000,
	PAGE = 0x800,
	READABLE_PAGES = 8, /* the device only reads them, as long as nobody lies */
	PAGES = 16,
	MEMORY_SIZE = DATA_AT + PAGES * PAGE,
	FRAMES_MAX = 24,
	FRAME_ROOM = 4096,
};

enum op { OP_CHAIN, OP_CHAIN_2, OP_HEADER, OP_NETWORK, OP_SERVE, OP_RAW_DESC, OP_RAW_AVAIL, OPS };

struct step {
	uint8_t op;
	uint8_t flags;
	uint8_t page;
	uint8_t pieces;
	uint16_t length;
	uint16_t seed;
};

struct machine {
	struct guest_memory *memory;
	uint8_t *bytes;
	struct device device;
	struct device_queue queue;
	int network;
	bool blind; /* a raw write: what is writable is not known */
	bool broken;
	unsigned frames;
	unsigned next_desc;
	uint16_t offered, served;
	uint32_t room[QUEUE_SIZE]; /* of the chain with this head, to write to */
	uint8_t before[MEMORY_SIZE];
};

static void require(bool holds)
{
	if (!holds)
		abort();
}

static bool is_transmit(const struct machine *machine)
{
	return machine->queue.index == 1;
}

static void put(void *at, uint16_t value)
{
	memcpy(at, &value, sizeof(value));
}

static uint16_t get_u16(const struct machine *machine, unsigned at)
{
	uint16_t value;

	memcpy(&value, machine->bytes + at, sizeof(value));
	return value;
}

static void offer(struct machine *machine, uint16_t head)
{
	put(machine->bytes + AVAIL_AT + 4 + machine->offered % QUEUE_SIZE * 2u, head);
	machine->offered++;
	put(machine->bytes + AVAIL_AT + 2, machine->offered);
}

/* A chain of one to four descriptors: readable, writable, or both as of a command. */
static void chain(struct machine *machine, const struct step *step)
{
	struct vring_desc *desc = (void *)(machine->bytes + DESC_AT);
	unsigned pieces = 1 + step->pieces % 4u;
	uint16_t head = (uint16_t)machine->next_desc;
	bool receives = machine->queue.index == 0;

	if ((uint16_t)(machine->offered - machine->served) > 3 ||
		machine->next_desc + pieces > QUEUE_SIZE)
		return;
	machine->room[head] = 0;
	for (unsigned i = 0; i < pieces; i++) {
		bool last = i == pieces - 1;
		bool writable =
			receives != ((step->flags & 1) != 0 && i == 0 && (step->flags & 6) == 6) ||
			(machine->queue.index == 2 && last);
		unsigned page =
			(step->page + i) % READABLE_PAGES + (writable ? READABLE_PAGES : 0u);
		uint32_t length =
			(step->flags & (8u << i)) != 0 ? step->length % PAGE : step->seed % 20u;

		desc[machine->next_desc] = (struct vring_desc){
			.addr = DATA_AT + page * PAGE,
			.len = length,
			.flags = (uint16_t)((writable ? VRING_DESC_F_WRITE : 0) |
					    (last ? 0 : VRING_DESC_F_NEXT)),
			.next = (uint16_t)(machine->next_desc + 1),
		};
		machine->room[head] += writable ? length : 0;
		machine->next_desc++;
	}
	offer(machine, head);
}

/* A header, or a command, at a page's start. */
static void header(struct machine *machine, const struct step *step)
{
	const struct virtio_net_hdr lies = {
		.flags = step->flags,
		.gso_type = (uint8_t)(step->pieces & 0x87),
		.hdr_len = step->length,
		.gso_size = step->seed,
		.csum_start = step->length,
		.csum_offset = step->seed,
	};
	/* Class, command, and as much data as the longest has: offloads, of the lowest and the
	 * highest bits. */
	const uint8_t command[] = { step->flags % 7u, step->pieces % 7u, (uint8_t)step->length,
		(uint8_t)(step->length >> 8), 0, 0, 0, 0, (uint8_t)(step->seed & 0xc0),
		(uint8_t)(step->seed >> 8 & 0x07) };
	uint8_t *at = machine->bytes + DATA_AT + step->page % READABLE_PAGES * PAGE;

	if (is_transmit(machine))
		memcpy(at, &lies, sizeof(lies));
	else
		memcpy(at, command, sizeof(command));
}

static void network_sends(struct machine *machine, const struct step *step)
{
	static uint8_t frame[FRAME_ROOM];

	if (machine->frames == FRAMES_MAX)
		return;
	machine->frames++;
	frame[0] = step->flags;
	frame[1] = step->pieces & 0x87;
	(void)!send(machine->network, frame, 1 + step->length % sizeof(frame),
		MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Whether a frame that left could, by what was accepted. */
static void network_gets(struct machine *machine)
{
	static uint8_t frame[FRAME_ROOM * 4];
	struct virtio_net_hdr_mrg_rxbuf sent;
	ssize_t n;

	while ((n = recv(machine->network, frame, sizeof(frame), MSG_DONTWAIT)) >= 0) {
		require(is_transmit(machine) && n >= NET_HEADER_SIZE + 14);
		memcpy(&sent, frame, sizeof(sent));
		require(sent.num_buffers == 0);
		require((sent.hdr.flags & ~VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0);
		require(net_header_is_good(machine->device.features, &sent.hdr));
	}
}

/* Page by page: what only is read keeps its bytes. */
static void check_memory(const struct machine *machine)
{
	if (machine->blind)
		return;
	require(memcmp(machine->bytes + DESC_AT, machine->before + DESC_AT, USED_AT - DESC_AT) ==
		0);
	require(memcmp(machine->bytes + DATA_AT, machine->before + DATA_AT,
			READABLE_PAGES * PAGE) == 0);
}

static void check_used(const struct machine *machine, uint16_t from)
{
	uint16_t to = get_u16(machine, USED_AT + 2);

	if (machine->blind)
		return;
	require((uint16_t)(to - from) <= QUEUE_SIZE);
	for (uint16_t i = from; i != to; i++) {
		uint32_t entry[2];

		memcpy(entry, machine->bytes + USED_AT + 4 + i % QUEUE_SIZE * 8u, sizeof(entry));
		require(entry[0] < QUEUE_SIZE && entry[1] <= machine->room[entry[0]]);
	}
}

static void serve(struct machine *machine)
{
	const struct virtqueue_config config = {
		.size = QUEUE_SIZE,
		.desc = DESC_AT,
		.avail = AVAIL_AT,
		.used = USED_AT,
		.indirect = machine->blind,
	};
	uint16_t used = get_u16(machine, USED_AT + 2);

	if (machine->broken)
		return;
	memcpy(machine->before, machine->bytes, MEMORY_SIZE);
	require(virtqueue_init(&machine->queue.vq, machine->memory, &config, machine->served) == 0);
	int r = machine->queue.index == 0 ? net_serve_receive(&machine->queue)
		: is_transmit(machine)    ? net_serve_transmit(&machine->queue)
					  : net_serve_control(&machine->queue);

	require(r == 0 || r == -EBADMSG);
	machine->broken = r < 0;
	machine->served = virtqueue_base(&machine->queue.vq);
	machine->next_desc = machine->served == machine->offered ? 0 : machine->next_desc;
	check_memory(machine);
	check_used(machine, used);
	network_gets(machine);
}

static void raw(struct machine *machine, const struct step *step)
{
	struct vring_desc *desc = (void *)(machine->bytes + DESC_AT);

	machine->blind = true;
	if (step->op % OPS == OP_RAW_AVAIL) {
		put(machine->bytes + AVAIL_AT + 2 + step->page % (QUEUE_SIZE + 2u) * 2,
			step->length);
		machine->offered = get_u16(machine, AVAIL_AT + 2);
		return;
	}
	desc[step->page % QUEUE_SIZE] = (struct vring_desc){
		.addr = (step->flags & 1) != 0 ? (uint64_t)step->seed << 48 : step->seed,
		.len = (step->flags & 2) != 0 ? (uint32_t)step->length << 16 : step->length,
		.flags = step->flags >> 4,
		.next = step->pieces,
	};
}

static void run_step(struct machine *machine, const struct step *step)
{
	switch ((enum op)(step->op % OPS)) {
	case OP_CHAIN:
	case OP_CHAIN_2:
		chain(machine, step);
		return;
	case OP_HEADER:
		header(machine, step);
		return;
	case OP_NETWORK:
		if (machine->queue.index == 0)
			network_sends(machine, step);
		return;
	case OP_SERVE:
		serve(machine);
		return;
	default:
		raw(machine, step);
	}
}

/* Made once: the cable and the eventfds. What is left in the cable is another run's. */
static struct machine *get_machine(void)
{
	static struct machine machine;
	const struct guest_memory_range range = { 0, MEMORY_SIZE };
	int ends[2];

	if (machine.memory != NULL)
		return &machine;
	log_set_level(LOG_LEVEL_NONE);
	require(guest_memory_create(&range, 1, 0, &machine.memory) == 0);
	machine.bytes = guest_memory_at(machine.memory, 0, MEMORY_SIZE);
	require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	machine.network = ends[0];
	machine.device = (struct device){
		.tap = { .count = 1, .fds = { ends[1] }, .name = "fuzzed" },
		.options.pairs = 1,
		.vhost_fd = -1,
		.pairs = 1,
	};
	net_pair_init(&machine.device.queue_pairs[0]);
	machine.queue = (struct device_queue){
		.device = &machine.device,
		.size = QUEUE_SIZE,
		.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.stop_fd = eventfd(1, EFD_CLOEXEC),
	};
	return &machine;
}

static void begin(struct machine *machine, const uint8_t *selector)
{
	static const unsigned features[] = { VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_CSUM,
		VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_GUEST_CSUM,
		VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_MQ, VIRTIO_NET_F_HOST_USO };
	/* By the highest bit of what chooses the queue. */
	const uint64_t offloads = UINT64_C(1) << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS |
				  UINT64_C(1) << VIRTIO_NET_F_GUEST_USO4 |
				  UINT64_C(1) << VIRTIO_NET_F_GUEST_USO6;
	uint8_t byte;

	while (recv(machine->device.tap.fds[0], &byte, 1, 0) >= 0)
		;
	memset(machine->bytes, 0, MEMORY_SIZE);
	machine->blind = machine->broken = false;
	machine->frames = machine->next_desc = 0;
	machine->offered = machine->served = 0;
	memset(machine->room, 0, sizeof(machine->room));
	machine->queue.index = selector[0] % 3;
	machine->device.gone = false;
	uint64_t accepted = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
		if ((selector[1] >> i & 1) != 0)
			accepted |= UINT64_C(1) << features[i];
	machine->device.features = (selector[0] & 0x80) != 0 ? accepted | offloads : accepted;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine *machine = get_machine();
	struct step step;

	if (size < 2)
		return 0;
	begin(machine, data);
	for (data += 2, size -= 2; size >= sizeof(step);
		data += sizeof(step), size -= sizeof(step)) {
		memcpy(&step, data, sizeof(step));
		run_step(machine, &step);
	}
	serve(machine);
	return 0;
}
