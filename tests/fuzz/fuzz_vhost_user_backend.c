// SPDX-License-Identifier: BSD-3-Clause
/*
 * A hostile front end against the back end: a program of messages, good or with
 * faults of form, values and descriptors, in any order and any pieces, to a
 * device that is served in this thread until the front end has hung up. The
 * whole program is in the socket before, and the device's rings run in threads
 * of their own meanwhile. Checked: the device is started and stopped in turns,
 * gets only features that it offered, and no descriptor is left over.
 */
#include <errno.h>

#include "base/log.h"
#include "fuzz/vhost_user.h"
#include "unit/copier.h"
#include "unit/virtio_driver.h"
#include "virtio/vhost_thread.h"
#include "virtio/vhost_user_backend.h"

enum { MESSAGES = 48, USER_ADDRESS = 0x1000000, WINDOW_SIZE = 0x10000 };

struct peer {
	struct guest_memory *memory;
	int socket;
	int kick_fd, call_fd;
};

static void fill_memory(const struct peer *peer, struct vhost_user_message *message)
{
	size_t count = guest_memory_region_count(peer->memory);

	message->size = vhost_user_memory_payload((uint32_t)count);
	message->memory.count = (uint32_t)count;
	for (size_t i = 0; i < count; i++) {
		const struct guest_memory_region *region = guest_memory_region(peer->memory, i);

		message->memory.regions[i] = (struct vhost_user_region){
			.gpa = region->gpa,
			.size = region->size,
			.user_address = region->gpa + USER_ADDRESS,
			.offset = region->file_offset,
		};
		message->fds[message->fd_count++] = guest_memory_fd(peer->memory);
	}
}

/* The window that the device was given: not two, and none in the end. */
static const struct window *given;

static void take_window(struct device *device, const struct window *window)
{
	(void)device;
	require(window == NULL || (given == NULL && window->size == WINDOW_SIZE));
	given = window;
}

/* A message that a good front end would send. */
static struct vhost_user_message good_message(const struct peer *peer, uint32_t request)
{
	struct vhost_user_message message = {
		.request = request, .flags = VHOST_USER_VERSION, .size = 8
	};

	switch (request) {
	case VHOST_USER_GET_FEATURES:
	case VHOST_USER_SET_OWNER:
	case VHOST_USER_GET_PROTOCOL_FEATURES:
	case VHOST_USER_GET_QUEUE_NUM:
	case VHOST_USER_RESET_DEVICE:
	case VHOST_USER_GET_STATUS:
	case VHOST_USER_GET_SHMEM_CONFIG:
		message.size = 0;
		break;
	case VHOST_USER_SET_BACKEND_REQ_FD:
		message.size = 0;
		message.fds[message.fd_count++] = peer->call_fd;
		break;
	case VHOST_USER_SET_FEATURES:
		message.u64 = UINT64_C(1) << 32;
		break;
	case VHOST_USER_SET_PROTOCOL_FEATURES:
		message.u64 = UINT64_C(1) << 0 | 1 << 3 | 1 << 9 | 1 << 13 | 1 << 16 |
			      VHOST_USER_WINDOW_FEATURES;
		break;
	case VHOST_USER_SET_MEM_TABLE:
		fill_memory(peer, &message);
		break;
	case VHOST_USER_SET_VRING_NUM:
		message.state.num = SIZE;
		break;
	case VHOST_USER_SET_VRING_ADDR:
		message.size = sizeof(message.addr);
		message.addr.desc_user_addr = USER_ADDRESS + DRIVER_DESC;
		message.addr.avail_user_addr = USER_ADDRESS + DRIVER_AVAIL;
		message.addr.used_user_addr = USER_ADDRESS + DRIVER_USED;
		break;
	case VHOST_USER_SET_VRING_ENABLE:
		message.state.num = 1;
		break;
	case VHOST_USER_SET_VRING_KICK:
		message.fds[message.fd_count++] = peer->kick_fd;
		break;
	case VHOST_USER_SET_VRING_CALL:
	case VHOST_USER_SET_VRING_ERR:
		message.fds[message.fd_count++] = peer->call_fd;
		break;
	case VHOST_USER_GET_CONFIG:
	case VHOST_USER_SET_CONFIG:
		message.size = vhost_user_config_payload(CONFIG_SIZE);
		message.config.size = CONFIG_SIZE;
		break;
	default:
		break;
	}
	return message;
}

/* What may be wrong with it, one bit each. */
enum {
	WRONG_WORD = 1,
	WRONG_SIZE = 2,
	WRONG_FLAGS = 4,
	WRONG_FDS = 8,
	WRONG_LENGTH = 16,
	NEEDS_REPLY = 32,
	IN_PIECES = 64,
	OTHER_RING = 128,
};

static void put_message(const struct peer *peer, struct input *input)
{
	uint8_t faults = take(input);
	struct vhost_user_message message = good_message(peer, take(input) % VHOST_USER_REQUESTS);
	uint8_t bytes[12 + sizeof(struct vhost_user_memory)] = { 0 };

	if (faults & OTHER_RING)
		message.state.index = take(input) % 4; /* or another low word */
	if (faults & WRONG_WORD) {
		size_t word = take(input) % (sizeof(message.memory) / 8);
		uint64_t value = take_value(input);

		memcpy((uint8_t *)&message.u64 + word * 8, &value, sizeof(value));
	}
	size_t length = message.size;

	if (faults & WRONG_SIZE)
		message.size = (uint32_t)take_value(input);
	if (faults & WRONG_FLAGS)
		message.flags = (uint32_t)take_value(input);
	if (faults & NEEDS_REPLY)
		message.flags |= VHOST_USER_FLAG_NEED_REPLY;
	if (faults & WRONG_FDS) {
		message.fd_count = take(input) % (VHOST_USER_REGIONS_MAX + 1);
		for (unsigned i = 0; i < message.fd_count; i++)
			message.fds[i] = take(input) % 2 == 0 ? peer->kick_fd : peer->socket;
	}
	if (faults & WRONG_LENGTH)
		length = take_value(input) % (sizeof(message.memory) + 1);
	memcpy(bytes, &message.request, 12);
	memcpy(bytes + 12, &message.u64, length);
	size_t cut = faults & IN_PIECES ? take(input) % (12 + length) : 0;

	if (cut > 0)
		send_piece(peer->socket, bytes, cut, message.fds,
			take(input) % 2 == 0 ? message.fd_count : 0);
	send_piece(peer->socket, bytes + cut, 12 + length - cut, message.fds, message.fd_count);
}

/* All that a ring needs, so that the fuzzer need not find it. */
static void put_start(const struct peer *peer)
{
	static const uint32_t order[] = { VHOST_USER_SET_OWNER, VHOST_USER_SET_PROTOCOL_FEATURES,
		VHOST_USER_SET_FEATURES, VHOST_USER_SET_MEM_TABLE, VHOST_USER_SET_VRING_NUM,
		VHOST_USER_SET_VRING_ADDR, VHOST_USER_SET_VRING_CALL, VHOST_USER_SET_VRING_ERR,
		VHOST_USER_SET_VRING_KICK, VHOST_USER_SET_VRING_ENABLE };

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		const struct vhost_user_message message = good_message(peer, order[i]);
		uint8_t bytes[12 + sizeof(struct vhost_user_memory)];

		memcpy(bytes, &message.request, 12);
		memcpy(bytes + 12, &message.u64, message.size);
		send_piece(peer->socket, bytes, 12 + message.size, message.fds, message.fd_count);
	}
}

/* A program: first whether a ring is started, then messages. */
static void put_program(struct peer *peer, struct input *input)
{
	struct driver driver;

	driver_init(&driver, peer->memory, SIZE);
	driver_put(&driver, 0, DRIVER_DATA, 16, VRING_DESC_F_NEXT, 1);
	driver_put(&driver, 1, DRIVER_DATA + 16, 16, VRING_DESC_F_WRITE, 0);
	driver_offer(&driver, take(input) % 4);
	if (take(input) % 2 == 0)
		put_start(peer);
	for (unsigned i = 0; i < MESSAGES && input->size > 0; i++)
		put_message(peer, input);
	(void)shutdown(peer->socket, SHUT_WR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct peer peer = { .kick_fd = -1, .call_fd = -1 };
	struct input input = { data, size };
	struct device device = { 0 };
	struct device_ops ops = copier_ops;
	struct vhost *vhost;
	int sockets[2];

	log_set_level(LOG_LEVEL_NONE);
	if (peer.memory == NULL)
		peer.memory = driver_memory();
	(void)eventfd_again(&peer.kick_fd);
	(void)eventfd_again(&peer.call_fd);
	int fd_before = next_fd();

	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
	peer.socket = sockets[0];
	put_program(&peer, &input);
	ops.window_size = WINDOW_SIZE;
	ops.set_window = take_window;
	require(vhost_thread_create(&ops, &device, NULL, &vhost) == 0);
	(void)!vhost_user_serve(sockets[1], "fuzz", vhost, -1);
	require(device.starts == device.stops && given == NULL);
	require((device.features & ~(UINT64_C(0x30) | VHOST_RING_FEATURES)) == 0);
	vhost->ops->free(vhost);
	close(sockets[0]);
	close(sockets[1]);
	require(next_fd() == fd_before);
	return 0;
}
