// SPDX-License-Identifier: BSD-3-Clause
/*
 * Sends and receives vhost-user messages. The peer may send anything, in any
 * pieces, at any speed, with any descriptors; and may stop reading. Received
 * descriptors are owned by the message from the system call on.
 */
#include "virtio/vhost_user_message.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/fd.h"

enum { HEADER_SIZE = 12, CONFIG_HEADER_SIZE = 12, MEMORY_HEADER_SIZE = 8 };
enum { ERRNO_END = 4096 };

_Static_assert(offsetof(struct vhost_user_message, size) == HEADER_SIZE - 4, "header");
_Static_assert(offsetof(struct vhost_user_config, data) == CONFIG_HEADER_SIZE, "config header");
_Static_assert(offsetof(struct vhost_user_memory, regions) == MEMORY_HEADER_SIZE, "table header");

/* How many descriptors a request carries. */
enum fds {
	FDS_NONE,
	FDS_ONE,
	FDS_RING,   /* one, or none with VHOST_USER_VRING_NO_FD */
	FDS_REGION, /* one for each region of the table */
};

struct rule {
	bool known;
	uint16_t min_size;
	uint16_t max_size;
	enum fds fds;
};

/* The requests that there are. A size of a table or of a config access is checked by its count. */
static const struct rule rules[VHOST_USER_REQUESTS] = {
	[VHOST_USER_GET_FEATURES] = { true, 0, 0, FDS_NONE },
	[VHOST_USER_SET_FEATURES] = { true, 8, 8, FDS_NONE },
	[VHOST_USER_SET_OWNER] = { true, 0, 0, FDS_NONE },
	[VHOST_USER_RESET_OWNER] = { true, 0, 0, FDS_NONE },
	[VHOST_USER_SET_MEM_TABLE] = { true, MEMORY_HEADER_SIZE, sizeof(struct vhost_user_memory),
		FDS_REGION },
	[VHOST_USER_SET_VRING_NUM] = { true, 8, 8, FDS_NONE },
	[VHOST_USER_SET_VRING_ADDR] = { true, 40, 40, FDS_NONE },
	[VHOST_USER_SET_VRING_BASE] = { true, 8, 8, FDS_NONE },
	[VHOST_USER_GET_VRING_BASE] = { true, 8, 8, FDS_NONE },
	[VHOST_USER_SET_VRING_KICK] = { true, 8, 8, FDS_RING },
	[VHOST_USER_SET_VRING_CALL] = { true, 8, 8, FDS_RING },
	[VHOST_USER_SET_VRING_ERR] = { true, 8, 8, FDS_RING },
	[VHOST_USER_GET_PROTOCOL_FEATURES] = { true, 0, 0, FDS_NONE },
	[VHOST_USER_SET_PROTOCOL_FEATURES] = { true, 8, 8, FDS_NONE },
	[VHOST_USER_GET_QUEUE_NUM] = { true, 0, 0, FDS_NONE },
	[VHOST_USER_SET_VRING_ENABLE] = { true, 8, 8, FDS_NONE },
	[VHOST_USER_SET_BACKEND_REQ_FD] = { true, 0, 0, FDS_ONE },
	[VHOST_USER_GET_CONFIG] = { true, CONFIG_HEADER_SIZE, sizeof(struct vhost_user_config),
		FDS_NONE },
	[VHOST_USER_SET_CONFIG] = { true, CONFIG_HEADER_SIZE, sizeof(struct vhost_user_config),
		FDS_NONE },
	[VHOST_USER_RESET_DEVICE] = { true, 0, 0, FDS_NONE },
	[VHOST_USER_SET_STATUS] = { true, 8, 8, FDS_NONE },
	[VHOST_USER_GET_STATUS] = { true, 0, 0, FDS_NONE },
	[VHOST_USER_GET_SHMEM_CONFIG] = { true, 0, 0, FDS_NONE },
};

static const struct rule back_rules[VHOST_USER_BACK_REQUESTS] = {
	[VHOST_USER_BACKEND_SHMEM_MAP] = { true, 40, 40, FDS_ONE },
	[VHOST_USER_BACKEND_SHMEM_UNMAP] = { true, 40, 40, FDS_NONE },
};

/* What one end may ask of the other. */
static const struct rules {
	const struct rule *rules;
	uint32_t count;
} front_asks = { rules, ARRAY_SIZE(rules) }, back_asks = { back_rules, ARRAY_SIZE(back_rules) };

void vhost_user_message_release(struct vhost_user_message *message)
{
	for (unsigned i = 0; i < message->fd_count; i++)
		fd_close(&message->fds[i]);
	message->fd_count = 0;
}

int vhost_user_message_take_fd(struct vhost_user_message *message, unsigned index)
{
	return index < message->fd_count ? fd_steal(&message->fds[index]) : -1;
}

void vhost_user_message_set_result(struct vhost_user_message *message, int result)
{
	message->u64 = result < 0 ? (uint64_t)-result : 0;
	message->size = sizeof(message->u64);
}

int vhost_user_message_result(const struct vhost_user_message *message)
{
	return message->u64 < ERRNO_END ? -(int)message->u64 : -EIO;
}

uint32_t vhost_user_config_payload(uint32_t size)
{
	return CONFIG_HEADER_SIZE + size;
}

uint32_t vhost_user_memory_payload(uint32_t count)
{
	return MEMORY_HEADER_SIZE + count * (uint32_t)sizeof(struct vhost_user_region);
}

void vhost_user_message_of_memory(
	const struct guest_memory *memory, struct vhost_user_message *ret_message)
{
	size_t count = guest_memory_region_count(memory);

	*ret_message = (struct vhost_user_message){
		.request = VHOST_USER_SET_MEM_TABLE,
		.size = vhost_user_memory_payload((uint32_t)count),
		.memory.count = (uint32_t)count,
		.fd_count = (unsigned)count,
	};
	for (size_t i = 0; i < count; i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		ret_message->memory.regions[i] = (struct vhost_user_region){
			.gpa = region->gpa,
			.size = region->size,
			.user_address = region->gpa,
			.offset = region->file_offset,
		};
		ret_message->fds[i] = guest_memory_fd(memory);
	}
}

/* The bytes [done, size) of a message on the wire: header, then payload. */
static unsigned wire_bytes(
	const struct vhost_user_message *message, size_t done, size_t size, struct iovec iov[2])
{
	char *header = (char *)&message->request;
	char *payload = (char *)&message->u64;

	if (done >= HEADER_SIZE) {
		iov[0] = (struct iovec){ payload + (done - HEADER_SIZE), size - done };
		return 1;
	}
	iov[0] = (struct iovec){ header + done, HEADER_SIZE - done };
	iov[1] = (struct iovec){ payload, size - HEADER_SIZE };
	return size > HEADER_SIZE ? 2 : 1;
}

int vhost_user_send(int socket, const struct vhost_user_message *message, uint64_t deadline_ns)
{
	size_t size = HEADER_SIZE + message->size;
	size_t fds_size = message->fd_count * sizeof(int);
	char control[CMSG_SPACE(sizeof(message->fds))] __attribute__((aligned(8))) = { 0 };
	struct cmsghdr *header = (struct cmsghdr *)(void *)control;
	size_t done = 0;

	*header = (struct cmsghdr){ CMSG_LEN(fds_size), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(header), message->fds, fds_size);
	while (done < size) {
		struct iovec iov[2];
		unsigned count = wire_bytes(message, done, size, iov);
		/* The descriptors go with the first byte. */
		bool with_fds = done == 0 && fds_size > 0;
		const struct msghdr msg = {
			.msg_iov = iov,
			.msg_iovlen = count,
			.msg_control = with_fds ? control : NULL,
			.msg_controllen = with_fds ? CMSG_SPACE(fds_size) : 0,
		};
		ssize_t n = sendmsg(socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		int r = n < 0 && errno != EINTR ? -errno : 0;

		if (r == -EAGAIN)
			r = fd_wait(socket, POLLOUT, deadline_ns);
		if (r < 0)
			return r == -EPIPE || r == -ECONNRESET ? -ENOTCONN : r;
		if (n > 0)
			done += (size_t)n;
	}
	return 0;
}

/* Takes over the descriptors of one control message. */
static int collect_fds(struct vhost_user_message *message, struct cmsghdr *header)
{
	size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	int r = 0;

	if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
		return -EPROTO;
	for (size_t i = 0; i < count; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
		if (message->fd_count < ARRAY_SIZE(message->fds)) {
			message->fds[message->fd_count++] = fd;
		} else {
			fd_close(&fd); /* came with a later piece of the message */
			r = -EPROTO;
		}
	}
	return r;
}

/* Receives some bytes of a message. Their number, -ENOTCONN when there are no more, or -errno. */
static ssize_t receive_some(
	int socket, struct vhost_user_message *message, size_t done, size_t size)
{
	char control[CMSG_SPACE(sizeof(message->fds))] __attribute__((aligned(8)));
	struct iovec iov[2];
	unsigned count = wire_bytes(message, done, size, iov);
	struct msghdr msg = {
		.msg_iov = iov,
		.msg_iovlen = count,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	int r = 0;

	if (n < 0)
		return errno == ECONNRESET ? -ENOTCONN : -errno;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&msg); header != NULL;
		header = CMSG_NXTHDR(&msg, header)) {
		int collected = collect_fds(message, header);

		r = r == 0 ? collected : r;
	}
	if (r == 0 && (msg.msg_flags & MSG_CTRUNC) != 0)
		r = -EPROTO; /* more than eight: the kernel has closed the others */
	if (r < 0)
		return r;
	return n == 0 ? -ENOTCONN : n;
}

/* Receives until `least` bytes of the message are there, `*done` of which were, and not past
 * `most`.
 */
static int receive_until(int socket, struct vhost_user_message *message, size_t *done, size_t least,
	size_t most, uint64_t deadline_ns)
{
	while (*done < least) {
		int r = fd_wait(socket, POLLIN, deadline_ns);

		if (r < 0)
			return r;
		ssize_t n = receive_some(socket, message, *done, most);

		if (n < 0 && n != -EINTR && n != -EAGAIN)
			return (int)n;
		if (n > 0)
			*done += (size_t)n;
	}
	return 0;
}

/* Whether the number of descriptors is the one that the payload asks for. */
static bool fds_are_right(const struct vhost_user_message *message, enum fds fds)
{
	switch (fds) {
	case FDS_RING:
		return message->fd_count == ((message->u64 & VHOST_USER_VRING_NO_FD) != 0 ? 0 : 1);
	case FDS_REGION:
		return message->fd_count == message->memory.count;
	case FDS_ONE:
		return message->fd_count == 1;
	case FDS_NONE:
		break;
	}
	return message->fd_count == 0;
}

/* Whether the payload is as long as the count in it says. */
static bool count_is_right(const struct vhost_user_message *message)
{
	switch (message->request) {
	case VHOST_USER_SET_MEM_TABLE:
		return message->memory.count <= VHOST_USER_REGIONS_MAX &&
		       message->size == vhost_user_memory_payload(message->memory.count);
	case VHOST_USER_GET_CONFIG:
	case VHOST_USER_SET_CONFIG:
		return message->config.size <= VHOST_USER_CONFIG_MAX &&
		       message->size == vhost_user_config_payload(message->config.size);
	default:
		return true;
	}
}

/* The rule for a request; NULL: it is none. */
static const struct rule *find_rule(
	const struct rules *asks, const struct vhost_user_message *message)
{
	uint32_t request = message->request;

	return request < asks->count && asks->rules[request].known ? &asks->rules[request] : NULL;
}

static bool header_is_right(const struct rule *rule, const struct vhost_user_message *message)
{
	return (message->flags & ~VHOST_USER_FLAG_NEED_REPLY) == VHOST_USER_VERSION &&
	       message->size >= rule->min_size && message->size <= rule->max_size;
}

static int receive_request(const struct rules *asks, int socket, struct vhost_user_message *message,
	uint64_t deadline_ns)
{
	size_t done = 0;
	int r = receive_until(socket, message, &done, HEADER_SIZE, HEADER_SIZE, deadline_ns);

	if (r == -ENOTCONN && done > 0)
		return -EPROTO;
	if (r < 0)
		return r;
	const struct rule *rule = find_rule(asks, message);

	if (rule == NULL || !header_is_right(rule, message))
		return -EPROTO;
	size_t size = HEADER_SIZE + message->size;

	r = receive_until(socket, message, &done, size, size, deadline_ns);
	if (r == -ENOTCONN)
		return -EPROTO;
	if (r < 0)
		return r;
	return count_is_right(message) && fds_are_right(message, rule->fds) ? 0 : -EPROTO;
}

static int receive_whole_request(const struct rules *asks, int socket,
	struct vhost_user_message *ret_message, uint64_t deadline_ns)
{
	ret_message->fd_count = 0;
	int r = receive_request(asks, socket, ret_message, deadline_ns);

	if (r < 0)
		vhost_user_message_release(ret_message);
	return r;
}

int vhost_user_receive_request(
	int socket, struct vhost_user_message *ret_message, uint64_t deadline_ns)
{
	return receive_whole_request(&front_asks, socket, ret_message, deadline_ns);
}

int vhost_user_receive_back_request(
	int socket, struct vhost_user_message *ret_message, uint64_t deadline_ns)
{
	return receive_whole_request(&back_asks, socket, ret_message, deadline_ns);
}

static int receive_reply(int socket, uint32_t request, uint32_t size,
	struct vhost_user_message *message, uint64_t deadline_ns)
{
	const uint32_t flags = VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY;
	size_t done = 0;
	/* The size is known, so header and payload come by one system call. */
	int r = receive_until(socket, message, &done, HEADER_SIZE, HEADER_SIZE + size, deadline_ns);

	if (r < 0)
		return r;
	if (message->request != request || message->flags != flags || message->size != size)
		return -EPROTO;
	r = receive_until(
		socket, message, &done, HEADER_SIZE + size, HEADER_SIZE + size, deadline_ns);
	return r == 0 && message->fd_count != 0 ? -EPROTO : r;
}

int vhost_user_receive_reply(int socket, uint32_t request, uint32_t size,
	struct vhost_user_message *ret_message, uint64_t deadline_ns)
{
	ret_message->fd_count = 0;
	int r = receive_reply(socket, request, size, ret_message, deadline_ns);

	vhost_user_message_release(ret_message);
	return r;
}
