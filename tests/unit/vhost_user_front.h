/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A front end that sends what a test wants, message by message, to the copier
 * that is served at the other end. Like QEMU's, its user addresses are no gpas.
 */
#pragma once

#include <errno.h>

#include "unit/vhost_user_rig.h"

#define BIT(n)       (UINT64_C(1) << (n))
#define USER_ADDRESS UINT64_C(0x7f0000000000)
#define ALL_PROTOCOL                                                                               \
	(BIT(VHOST_USER_PROTOCOL_F_MQ) | BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |                    \
		BIT(VHOST_USER_PROTOCOL_F_CONFIG) | BIT(VHOST_USER_PROTOCOL_F_RESET_DEVICE) |      \
		BIT(VHOST_USER_PROTOCOL_F_STATUS))
#define WANTED (BIT(VIRTIO_F_VERSION_1) | BIT(VHOST_USER_F_PROTOCOL_FEATURES))

static inline void front_connect(struct rig *rig)
{
	rig_init(rig);
	rig_serve_copier(rig);
}

/* Hangs up. What became of the serving. */
static inline int front_end(struct rig *rig)
{
	fd_close(&rig->socket);
	int r = end_serving(&rig->served);

	assert_int_equal(rig->device.starts, rig->device.stops);
	rig_free(rig);
	return r;
}

static inline struct vhost_user_message front_u64(uint32_t request, uint64_t value)
{
	return (struct vhost_user_message){
		.request = request, .flags = VHOST_USER_VERSION, .size = 8, .u64 = value
	};
}

static inline struct vhost_user_message front_state(
	uint32_t request, uint32_t index, uint32_t number)
{
	struct vhost_user_message message = front_u64(request, 0);

	message.state.index = index;
	message.state.num = number;
	return message;
}

static inline struct vhost_user_message front_empty(uint32_t request)
{
	return (struct vhost_user_message){ .request = request, .flags = VHOST_USER_VERSION };
}

static inline struct vhost_user_message front_address(uint32_t index)
{
	return (struct vhost_user_message){
		.request = VHOST_USER_SET_VRING_ADDR,
		.flags = VHOST_USER_VERSION,
		.size = sizeof(struct vhost_vring_addr),
		.addr = {
			.index = index,
			.desc_user_addr = USER_ADDRESS + DRIVER_DESC,
			.avail_user_addr = USER_ADDRESS + DRIVER_AVAIL,
			.used_user_addr = USER_ADDRESS + DRIVER_USED,
		},
	};
}

static inline struct vhost_user_message front_eventfd(uint32_t request, uint32_t index, int fd)
{
	struct vhost_user_message message = front_u64(request, index);

	message.fd_count = 1;
	message.fds[0] = fd;
	return message;
}

static inline struct vhost_user_message front_config(
	uint32_t request, uint32_t offset, uint32_t size)
{
	struct vhost_user_message message = front_empty(request);

	message.size = vhost_user_config_payload(size);
	message.config.offset = offset;
	message.config.size = size;
	return message;
}

/* The rig's memory as it is. */
static inline struct vhost_user_message front_memory(const struct rig *rig)
{
	struct vhost_user_message message = front_empty(VHOST_USER_SET_MEM_TABLE);

	message.size = vhost_user_memory_payload(2);
	message.memory.count = 2;
	message.fd_count = 2;
	for (unsigned i = 0; i < 2; i++) {
		const struct guest_memory_region *region = guest_memory_region(rig->memory, i);

		message.memory.regions[i] = (struct vhost_user_region){
			.gpa = region->gpa,
			.size = region->size,
			.user_address = USER_ADDRESS + region->gpa,
			.offset = region->file_offset,
		};
		message.fds[i] = guest_memory_fd(rig->memory);
	}
	return message;
}

static inline void put(struct rig *rig, struct vhost_user_message message)
{
	assert_int_equal(vhost_user_send(rig->socket, &message, FAR_AWAY), 0);
}

/* Sends and gives the reply with `size` bytes of payload. */
static inline struct vhost_user_message ask(
	struct rig *rig, struct vhost_user_message message, uint32_t size)
{
	struct vhost_user_message reply;

	put(rig, message);
	assert_int_equal(
		vhost_user_receive_reply(rig->socket, message.request, size, &reply, FAR_AWAY), 0);
	return reply;
}

/* Sends with the wish to know. What the device answers: 0 or an errno. */
static inline uint64_t try(struct rig *rig, struct vhost_user_message message)
{
	message.flags |= VHOST_USER_FLAG_NEED_REPLY;
	return ask(rig, message, 8).u64;
}

/* As far as a front end comes before it places rings. */
static inline void front_greet(struct rig *rig)
{
	put(rig, front_empty(VHOST_USER_SET_OWNER));
	put(rig, front_u64(VHOST_USER_SET_PROTOCOL_FEATURES, ALL_PROTOCOL));
	assert_int_equal(try(rig, front_u64(VHOST_USER_SET_FEATURES, WANTED)), 0);
	assert_int_equal(try(rig, front_memory(rig)), 0);
}

/* All that ring 0 needs but to be enabled. */
static inline void front_place(struct rig *rig)
{
	assert_int_equal(try(rig, front_state(VHOST_USER_SET_VRING_NUM, 0, SIZE)), 0);
	assert_int_equal(try(rig, front_state(VHOST_USER_SET_VRING_BASE, 0, 0)), 0);
	assert_int_equal(try(rig, front_address(0)), 0);
	assert_int_equal(try(rig, front_eventfd(VHOST_USER_SET_VRING_CALL, 0, rig->call_fd)), 0);
	assert_int_equal(try(rig, front_eventfd(VHOST_USER_SET_VRING_ERR, 0, rig->error_fd)), 0);
	assert_int_equal(try(rig, front_eventfd(VHOST_USER_SET_VRING_KICK, 0, rig->kick_fd)), 0);
}

static inline uint64_t front_enable(struct rig *rig, unsigned on)
{
	return try(rig, front_state(VHOST_USER_SET_VRING_ENABLE, 0, on));
}
