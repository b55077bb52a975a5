// SPDX-License-Identifier: BSD-3-Clause
/*
 * A hostile device process against the front end. The bytes of each reply, in
 * which pieces and with how many descriptors they come are the input's; all are
 * in the socket before they are asked for, so nothing is waited for, and where
 * they end the peer has hung up. The front end is driven through the contract in
 * any order. Checked: it fits the contract, what it gives is in bounds, once
 * lost it stays lost, and no descriptor is left over. A device with a window asks
 * for what the rest of the input says.
 */
#include <errno.h>
#include <linux/virtio_config.h>

#include "base/log.h"
#include "fuzz/vhost_user.h"
#include "virtio/device.h"
#include "virtio/vhost_user_frontend.h"
#include "virtio/window_channel.h"

enum { CONFIG_SIZE = 12, SIZE = 8, CALLS = 24 };

/* What a good device would answer. */
static struct vhost_user_message good_reply(uint32_t request)
{
	struct vhost_user_message reply = {
		.request = request,
		.flags = VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY,
		.size = 8,
	};

	if (request == VHOST_USER_GET_FEATURES)
		reply.u64 = UINT64_C(1) << VHOST_USER_F_PROTOCOL_FEATURES |
			    UINT64_C(1) << VIRTIO_F_VERSION_1 | 0xff;
	if (request == VHOST_USER_GET_PROTOCOL_FEATURES)
		reply.u64 = UINT64_MAX;
	if (request == VHOST_USER_GET_QUEUE_NUM)
		reply.u64 = 2;
	if (request == VHOST_USER_GET_CONFIG) {
		reply.size = vhost_user_config_payload(CONFIG_SIZE);
		reply.config.size = CONFIG_SIZE;
	}
	return reply;
}

/* Some bytes of a reply, and with them the socket's own descriptor, `count` times. */
static void send_reply(int socket, const void *bytes, size_t size, size_t count)
{
	int fds[16];

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = socket;
	send_piece(socket, bytes, size, fds, count);
}

/* The replies in the order in which they are asked for at first, then any. */
static void put_replies(struct input *input, int socket)
{
	static const uint32_t order[] = { VHOST_USER_GET_FEATURES, VHOST_USER_GET_PROTOCOL_FEATURES,
		VHOST_USER_GET_QUEUE_NUM, VHOST_USER_GET_CONFIG, VHOST_USER_SET_FEATURES,
		VHOST_USER_SET_MEM_TABLE, VHOST_USER_SET_VRING_ENABLE, VHOST_USER_GET_CONFIG };
	unsigned count = take(input) % 24;

	for (unsigned i = 0; i < count; i++) {
		uint8_t fault = take(input);
		struct vhost_user_message reply =
			good_reply(i < ARRAY_SIZE(order) ? order[i] : take(input) % 48);
		uint8_t bytes[sizeof(reply)];

		if (fault & 1)
			reply.u64 = take_value(input);
		if (fault & 2)
			reply.flags = (uint32_t)take_value(input);
		if (fault & 4)
			reply.request = (uint32_t)take_value(input);
		uint32_t sent = reply.size;

		if (fault & 8)
			reply.size = (uint32_t)take_value(input);
		if (fault & 16)
			sent = take(input);
		memcpy(bytes, &reply.request, 12);
		memcpy(bytes + 12, &reply.u64, sent);
		size_t cut = fault & 32 ? take(input) % (12 + sent) : 0;

		if (cut > 0)
			send_reply(socket, bytes, cut, fault & 64 ? take(input) % 16 : 0);
		send_reply(
			socket, bytes + cut, 12 + sent - cut, fault & 128 ? take(input) % 16 : 0);
	}
}

struct machine {
	struct guest_memory *memory; /* these two for all inputs */
	int eventfd;
	struct vhost *vhost;
	bool running[DEVICE_QUEUES_MAX];
	bool lost;
};

/* Only what cannot be done and what was refused leave the device alive. */
static void check(struct machine *machine, int r)
{
	require(r <= 0);
	require(!machine->lost || r == -ENOTCONN || r == -EINVAL);
	if (r != 0 && r != -EINVAL && r != -EIO)
		machine->lost = true;
}

static void call(struct machine *machine, struct input *input)
{
	struct vhost *vhost = machine->vhost;
	const struct vhost_ops *ops = vhost->ops;
	unsigned index = take(input) % 4;
	uint8_t data[2 * CONFIG_SIZE];
	uint16_t base = 0;
	uint64_t features;
	const struct vhost_ring ring = {
		.size = SIZE,
		.desc = take(input) * UINT64_C(16),
		.avail = 0x2000,
		.used = 0x3000,
		.kick_fd = machine->eventfd,
		.call_fd = machine->eventfd,
	};

	switch (take(input) % 8) {
	case 0:
		require(ops->get_features(vhost, &features) <= 0);
		check(machine, ops->set_features(vhost, take_value(input)));
		break;
	case 1:
		check(machine, ops->get_config(vhost, take(input), data, take(input) % 24));
		break;
	case 2:
		memset(data, 0, sizeof(data));
		check(machine, ops->set_config(vhost, take(input), data, take(input) % 24));
		break;
	case 3:
	case 4: {
		int r = ops->set_vring(vhost, index, &ring);

		if (r == 0)
			r = ops->start_vring(vhost, index);
		if (r == 0) {
			require(index < ops->queue_count(vhost) && !machine->running[index]);
			machine->running[index] = true;
		}
		check(machine, r);
		break;
	}
	case 5:
		if (!machine->running[index])
			break;
		machine->running[index] = false;
		check(machine, ops->stop_vring(vhost, index, &base));
		break;
	case 6:
		check(machine, ops->reset(vhost));
		break;
	default: /* there is always something to read: a reply, or the end */
		require(ops->handle_event(vhost) < 0);
		machine->lost = true;
	}
}

static int say_no(void *owner, uint64_t offset, uint64_t size, int fd, bool writable)
{
	(void)owner, (void)size, (void)writable;
	require(fd >= 0);
	return offset % 2 == 0 ? 0 : -EINVAL;
}

static int say_nothing(void *owner, uint64_t offset, uint64_t size)
{
	(void)owner, (void)offset, (void)size;
	return 0;
}

/* A good request before what the input has, which may be one. */
static void ask_for_memory(struct input *input)
{
	static const struct window_ops ops = { .map = say_no, .unmap = say_nothing };
	const struct window window = { .ops = &ops };
	const struct vhost_user_message good = {
		.request = VHOST_USER_BACKEND_SHMEM_MAP,
		.flags = VHOST_USER_VERSION | VHOST_USER_FLAG_NEED_REPLY,
		.size = sizeof(struct vhost_user_mapping),
	};
	uint8_t bytes[12 + sizeof(struct vhost_user_mapping)];
	int sockets[2];

	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
	for (unsigned i = 0; i < 8; i++) {
		memcpy(bytes, &good.request, 12);
		memcpy(bytes + 12, &good.mapping, sizeof(good.mapping));
		for (unsigned faults = i == 0 ? 0 : take(input) % 4; faults > 0; faults--)
			bytes[take(input) % sizeof(bytes)] = take(input);
		send_reply(sockets[1], bytes, i == 7 ? take(input) % sizeof(bytes) : sizeof(bytes),
			i == 0 ? 1 : take(input) % 3);
	}
	(void)shutdown(sockets[1], SHUT_WR);
	require(window_channel_serve(sockets[0], &window) <= 0);
	close(sockets[0]);
	close(sockets[1]);
}

static void give_window(const struct machine *machine)
{
	const struct window window = { .gpa = 1 << 20, .fd = machine->eventfd };

	require(machine->vhost->ops->set_window(machine->vhost, &window) <= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct machine machine = { .eventfd = -1 };
	const struct guest_memory_range range = { 0, 64 * KIB };
	struct input input = { data, size };
	int sockets[2];

	log_set_level(LOG_LEVEL_NONE);
	if (machine.memory == NULL)
		require(guest_memory_create(&range, 1, 0, &machine.memory) == 0);
	machine = (struct machine){ machine.memory, eventfd_again(&machine.eventfd) };
	int fd_before = next_fd();

	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
	uint8_t shape = take(&input);
	const struct vhost_user_peer peer = {
		.name = "fuzz",
		.socket = sockets[0],
		.queue_size = SIZE,
		.config_size = CONFIG_SIZE,
		.has_window = (shape & 4) != 0,
		.queues = shape % 4,
	};

	put_replies(&input, sockets[1]);
	/* Requests are still taken, but after the last reply there is an end. */
	(void)shutdown(sockets[1], SHUT_WR);
	if (vhost_user_frontend_create(&peer, machine.memory, &machine.vhost) == 0) {
		unsigned queues = machine.vhost->ops->queue_count(machine.vhost);

		require(queues > 0 && queues <= DEVICE_QUEUES_MAX);
		if (peer.has_window)
			give_window(&machine);
		for (unsigned i = 0; i < CALLS && input.size > 0; i++)
			call(&machine, &input);
		machine.vhost->ops->free(machine.vhost);
	}
	close(sockets[1]);
	if (peer.has_window)
		ask_for_memory(&input);
	require(next_fd() == fd_before);
	return 0;
}
