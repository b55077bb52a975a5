/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vhost-user messages: their form, and how they travel on a unix stream socket.
 *
 * A message is a header of three 32-bit words, a payload, and up to eight file
 * descriptors beside it. The other end may be hostile: a message is taken only
 * whole, with the payload's size and the number of descriptors that its
 * request has in one table, before a time; whatever else is a violation, after
 * which the connection is of no use.
 *
 * Any thread, one at a time on each socket. System calls: poll, recvmsg,
 * sendmsg, close. Source: the vhost-user specification of the QEMU project
 * (docs/interop/vhost-user), whose names these are.
 */
#pragma once

#include <linux/vhost_types.h>

#include "base/util.h"
#include "memory/guest_memory.h"

enum {
	VHOST_USER_REGIONS_MAX = 8,
	VHOST_USER_CONFIG_MAX = 256,
	VHOST_USER_WINDOWS_MAX = 256,
	VHOST_USER_VERSION = 1,
	VHOST_USER_FLAG_VERSION_MASK = 3,
	VHOST_USER_FLAG_REPLY = 1 << 2,
	VHOST_USER_FLAG_NEED_REPLY = 1 << 3,
	/* The device feature bit that says that there are protocol features. */
	VHOST_USER_F_PROTOCOL_FEATURES = 30,
	/* In the u64 of SET_VRING_KICK, _CALL and _ERR. */
	VHOST_USER_VRING_INDEX_MASK = 0xff,
	VHOST_USER_VRING_NO_FD = 1 << 8,
};

enum vhost_user_request {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES = 2,
	VHOST_USER_SET_OWNER = 3,
	VHOST_USER_RESET_OWNER = 4,
	VHOST_USER_SET_MEM_TABLE = 5,
	VHOST_USER_SET_VRING_NUM = 8,
	VHOST_USER_SET_VRING_ADDR = 9,
	VHOST_USER_SET_VRING_BASE = 10,
	VHOST_USER_GET_VRING_BASE = 11,
	VHOST_USER_SET_VRING_KICK = 12,
	VHOST_USER_SET_VRING_CALL = 13,
	VHOST_USER_SET_VRING_ERR = 14,
	VHOST_USER_GET_PROTOCOL_FEATURES = 15,
	VHOST_USER_SET_PROTOCOL_FEATURES = 16,
	VHOST_USER_GET_QUEUE_NUM = 17,
	VHOST_USER_SET_VRING_ENABLE = 18,
	VHOST_USER_SET_BACKEND_REQ_FD = 21,
	VHOST_USER_GET_CONFIG = 24,
	VHOST_USER_SET_CONFIG = 25,
	VHOST_USER_RESET_DEVICE = 34,
	VHOST_USER_SET_STATUS = 39,
	VHOST_USER_GET_STATUS = 40,
	VHOST_USER_GET_SHMEM_CONFIG = 44,
	VHOST_USER_REQUESTS, /* all are below */
};

/* What the back end asks, on a channel of its own. */
enum vhost_user_back_request {
	VHOST_USER_BACKEND_SHMEM_MAP = 9,
	VHOST_USER_BACKEND_SHMEM_UNMAP = 10,
	VHOST_USER_BACK_REQUESTS, /* all are below */
};

/* Protocol features, as bit numbers. */
enum {
	VHOST_USER_PROTOCOL_F_MQ = 0,
	VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
	VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
	VHOST_USER_PROTOCOL_F_CONFIG = 9,
	VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD = 10,
	VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
	VHOST_USER_PROTOCOL_F_STATUS = 16,
	VHOST_USER_PROTOCOL_F_SHMEM = 20,
};

/* Those that a device with a window (window.h) needs to ask for anything. */
#define VHOST_USER_WINDOW_FEATURES                                                                 \
	(UINT64_C(1) << VHOST_USER_PROTOCOL_F_REPLY_ACK |                                          \
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_BACKEND_REQ |                                 \
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD |                             \
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_SHMEM)

/*
 * Who changes the configuration space: the flags of SET_CONFIG. The specification
 * has the second for live migration, which sets what a driver cannot, too; ours says
 * by it what concerns the VMM and the device alone (device_ops.control_size).
 */
enum { VHOST_USER_CONFIG_BY_DRIVER = 0, VHOST_USER_CONFIG_BY_VMM = 1 };

struct vhost_user_region {
	uint64_t gpa;
	uint64_t size;
	uint64_t user_address; /* what ring addresses in this region are relative to */
	uint64_t offset;       /* in the region's file */
};

struct vhost_user_memory {
	uint32_t count;
	uint32_t padding;
	struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
};

struct vhost_user_config {
	uint32_t offset;
	uint32_t size;
	uint32_t flags;
	uint8_t data[VHOST_USER_CONFIG_MAX];
};

/* A piece of a file for a window; flags: 0, or 1 for memory that the guest may write to. */
struct vhost_user_mapping {
	uint8_t shmid; /* which of the device's windows */
	uint8_t padding[7];
	uint64_t fd_offset;
	uint64_t offset; /* in the window */
	uint64_t size;
	uint64_t flags;
};

struct vhost_user_windows {
	uint32_t count;
	uint32_t padding;
	uint64_t sizes[VHOST_USER_WINDOWS_MAX]; /* by shmid */
};

struct vhost_user_message {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* of the payload */
	union {        /* on the wire it follows at once */
		uint64_t u64;
		struct vhost_vring_state state;
		struct vhost_vring_addr addr;
		struct vhost_user_memory memory;
		struct vhost_user_config config;
		struct vhost_user_mapping mapping;
		struct vhost_user_windows windows;
	};
	unsigned fd_count;
	int fds[VHOST_USER_REGIONS_MAX];
};

/* A message on the stack that owns its descriptors. */
#define CLEANUP_MESSAGE __attribute__((cleanup(vhost_user_message_release)))

/* Closes the descriptors that nobody has taken. */
void vhost_user_message_release(struct vhost_user_message *message);
/* Takes one descriptor out, or -1 when there is none at that index. */
MUST_CHECK int vhost_user_message_take_fd(struct vhost_user_message *message, unsigned index);

/*
 * How a request went, as the payload of its acknowledgement: 0, or -errno, which
 * the specification only has as "not 0". What is no errno there is -EIO.
 */
void vhost_user_message_set_result(struct vhost_user_message *message, int result);
int vhost_user_message_result(const struct vhost_user_message *message);

/* The bytes of a GET_CONFIG or SET_CONFIG payload that carries `size` bytes, and of a table. */
uint32_t vhost_user_config_payload(uint32_t size);
uint32_t vhost_user_memory_payload(uint32_t count);

/* SET_MEM_TABLE with all of guest memory, whose descriptors it borrows; user addresses are gpas. */
void vhost_user_message_of_memory(
	const struct guest_memory *memory, struct vhost_user_message *ret_message);

/*
 * Sends header, payload and descriptors, before `deadline_ns` of the monotonic
 * clock. The descriptors are borrowed. 0, -ETIMEDOUT, -ENOTCONN when the peer
 * is gone, or -errno.
 */
MUST_CHECK int vhost_user_send(
	int socket, const struct vhost_user_message *message, uint64_t deadline_ns);

/*
 * Receives a request of the table, whole and checked against it: size, flags
 * and number of descriptors, which *ret_message owns then. 0, -ENOTCONN when
 * the peer is gone at a message's beginning, -EPROTO for a violation, -ETIMEDOUT
 * or -errno. On failure *ret_message owns nothing.
 */
MUST_CHECK int vhost_user_receive_request(
	int socket, struct vhost_user_message *ret_message, uint64_t deadline_ns);

/* The same of a request of the back end's. */
MUST_CHECK int vhost_user_receive_back_request(
	int socket, struct vhost_user_message *ret_message, uint64_t deadline_ns);

/*
 * Receives the reply to `request`, whose payload must have exactly `size` bytes
 * and which carries no descriptors. Results as above; a peer that hangs up is
 * -ENOTCONN also in the middle.
 */
MUST_CHECK int vhost_user_receive_reply(int socket, uint32_t request, uint32_t size,
	struct vhost_user_message *ret_message, uint64_t deadline_ns);
