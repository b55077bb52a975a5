// SPDX-License-Identifier: BSD-3-Clause
/*
 * The back end's part of vhost-user, one row a request. The front end may send
 * any request at any time, with any index, address, size and descriptor, and
 * guest memory that is none.
 */
#include "virtio/vhost_user_backend.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/footprint.h"
#include "base/log.h"
#include "virtio/device.h"
#include "virtio/vhost_user_message.h"
#include "virtio/window_channel.h"

#define BIT(n)         (UINT64_C(1) << (n))
#define PROTOCOL(name) BIT(VHOST_USER_PROTOCOL_F_##name)

#define PROTOCOL_FEATURES                                                                          \
	(PROTOCOL(MQ) | PROTOCOL(REPLY_ACK) | PROTOCOL(CONFIG) | PROTOCOL(RESET_DEVICE) |          \
		PROTOCOL(STATUS))

/* A ring as the front end has described it so far. */
struct back_ring {
	uint32_t size;
	uint16_t base;
	bool has_address;
	uint64_t desc, avail, used; /* user addresses */
	int kick_fd;                /* owned, like call_fd */
	int call_fd;
	bool enabled;
	bool running;
};

struct server {
	int socket;
	const char *name;
	struct vhost *vhost;
	struct guest_memory *memory; /* NULL before there is a table */
	struct vhost_user_memory table;
	uint64_t features;             /* with VHOST_USER_F_PROTOCOL_FEATURES */
	uint64_t protocol_features;    /* agreed on */
	uint64_t status;               /* of the driver, as far as it is told */
	int error_fd;                  /* owned; the last one set, for all rings */
	uint64_t window_size;          /* of the device; 0: it has none */
	struct window_channel channel; /* whose socket is owned; -1: nobody serves the window */
	unsigned queue_count;
	struct back_ring rings[DEVICE_QUEUES_MAX];
};

static const struct vhost_ops *back(const struct server *server)
{
	return server->vhost->ops;
}

static struct back_ring *find_ring(struct server *server, uint64_t index)
{
	return index < server->queue_count ? &server->rings[index] : NULL;
}

/* The gpa that a user address means. False when it is in no region. */
static bool translate(const struct server *server, uint64_t user_address, uint64_t *ret_gpa)
{
	for (unsigned i = 0; i < server->table.count; i++) {
		const struct vhost_user_region *region = &server->table.regions[i];

		if (user_address >= region->user_address &&
			user_address - region->user_address < region->size) {
			*ret_gpa = region->gpa + (user_address - region->user_address);
			return true;
		}
	}
	return false;
}

static bool is_ready(const struct server *server, const struct back_ring *ring)
{
	bool enabled = ring->enabled || !(server->features & BIT(VHOST_USER_F_PROTOCOL_FEATURES));

	return server->memory != NULL && ring->size != 0 && ring->has_address &&
	       ring->kick_fd >= 0 && enabled;
}

static int start_ring(struct server *server, unsigned index)
{
	struct back_ring *ring = &server->rings[index];
	struct vhost_ring place = {
		.size = (uint16_t)ring->size,
		.base = ring->base,
		.kick_fd = ring->kick_fd,
		.call_fd = ring->call_fd,
	};

	if (!translate(server, ring->desc, &place.desc) ||
		!translate(server, ring->avail, &place.avail) ||
		!translate(server, ring->used, &place.used))
		return -EINVAL;
	int r = back(server)->set_vring(server->vhost, index, &place);

	if (r == 0)
		r = back(server)->start_vring(server->vhost, index);
	ring->running = r == 0;
	return r;
}

/* Starts what is ready and does not run. The first failure is told to the driver as well. */
static int start_rings(struct server *server)
{
	int first = 0;

	for (unsigned i = 0; i < server->queue_count; i++) {
		struct back_ring *ring = &server->rings[i];
		int r = !ring->running && is_ready(server, ring) ? start_ring(server, i) : 0;

		first = first == 0 ? r : first;
	}
	if (first < 0 && server->error_fd >= 0)
		(void)eventfd_write(server->error_fd, 1);
	return first;
}

static void stop_ring(struct server *server, unsigned index)
{
	struct back_ring *ring = &server->rings[index];

	if (ring->running)
		(void)!back(server)->stop_vring(server->vhost, index, &ring->base);
	ring->running = false;
}

/* The ring that a message changes, which does not run meanwhile; NULL: there is none. */
static struct back_ring *hold_ring(struct server *server, uint64_t index)
{
	struct back_ring *ring = find_ring(server, index);

	if (ring != NULL)
		stop_ring(server, (unsigned)index);
	return ring;
}

static void stop_rings(struct server *server)
{
	for (unsigned i = 0; i < server->queue_count; i++)
		stop_ring(server, i);
}

/* The handlers. 0 or -errno; a row's flags say what is done around them. */

static int answer_features(struct server *server, struct vhost_user_message *message)
{
	int r = back(server)->get_features(server->vhost, &message->u64);

	message->u64 |= BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	return r;
}

static int set_features(struct server *server, struct vhost_user_message *message)
{
	uint64_t protocol = BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	int r = back(server)->set_features(server->vhost, message->u64 & ~protocol);

	if (r == 0)
		server->features = message->u64;
	return r;
}

static int set_owner(struct server *server, struct vhost_user_message *message)
{
	(void)server, (void)message;
	return 0;
}

static uint64_t protocol_features(const struct server *server)
{
	return PROTOCOL_FEATURES | (server->window_size > 0 ? VHOST_USER_WINDOW_FEATURES : 0);
}

static int answer_protocol_features(struct server *server, struct vhost_user_message *message)
{
	message->u64 = protocol_features(server);
	return 0;
}

static int set_protocol_features(struct server *server, struct vhost_user_message *message)
{
	if ((message->u64 & ~protocol_features(server)) != 0)
		return -EINVAL;
	server->protocol_features = message->u64;
	return 0;
}

static int answer_queue_count(struct server *server, struct vhost_user_message *message)
{
	message->u64 = server->queue_count;
	return 0;
}

static void forget_memory(struct server *server)
{
	(void)!back(server)->set_memory(server->vhost, NULL);
	guest_memory_free(server->memory);
	server->memory = NULL;
	server->table.count = 0;
}

/* A table that is refused leaves the old one. */
static int set_memory(struct server *server, struct vhost_user_message *message)
{
	const struct vhost_user_memory *table = &message->memory;
	struct guest_memory_file files[VHOST_USER_REGIONS_MAX];
	struct guest_memory *memory;
	uint64_t end;

	for (unsigned i = 0; i < table->count; i++) {
		const struct vhost_user_region *region = &table->regions[i];

		if (__builtin_add_overflow(region->user_address, region->size, &end))
			return -EINVAL;
		files[i] = (struct guest_memory_file){
			.gpa = region->gpa,
			.size = region->size,
			.offset = region->offset,
			.fd = message->fds[i],
		};
	}
	int r = guest_memory_create_from_files(files, table->count, &memory);

	if (r < 0)
		return r;
	forget_memory(server);
	server->memory = memory;
	server->table = *table;
	return back(server)->set_memory(server->vhost, memory);
}

static int set_ring_size(struct server *server, struct vhost_user_message *message)
{
	struct back_ring *ring = hold_ring(server, message->state.index);
	uint32_t size = message->state.num;

	if (ring == NULL || size == 0 || size > VIRTQUEUE_SIZE_MAX)
		return -EINVAL;
	ring->size = size;
	return 0;
}

static int set_ring_address(struct server *server, struct vhost_user_message *message)
{
	struct back_ring *ring = hold_ring(server, message->addr.index);

	/* The one flag asks for a log of writes, which was not offered. */
	if (ring == NULL || message->addr.flags != 0)
		return -EINVAL;
	ring->desc = message->addr.desc_user_addr;
	ring->avail = message->addr.avail_user_addr;
	ring->used = message->addr.used_user_addr;
	ring->has_address = true;
	return 0;
}

static int set_ring_base(struct server *server, struct vhost_user_message *message)
{
	struct back_ring *ring = hold_ring(server, message->state.index);

	if (ring == NULL || message->state.num > UINT16_MAX)
		return -EINVAL;
	ring->base = (uint16_t)message->state.num;
	return 0;
}

/* The ring is stopped until there is a new kick descriptor; in flight is nothing any more. */
static int answer_ring_base(struct server *server, struct vhost_user_message *message)
{
	struct back_ring *ring = hold_ring(server, message->state.index);

	if (ring == NULL)
		return -EINVAL;
	fd_close(&ring->kick_fd);
	message->state.num = ring->base;
	return 0;
}

/* The descriptor of a ring message, or -1 where it says that there is none. */
static int take_ring_fd(
	struct server *server, struct vhost_user_message *message, struct back_ring **ret_ring)
{
	const uint64_t known = VHOST_USER_VRING_INDEX_MASK | VHOST_USER_VRING_NO_FD;

	if ((message->u64 & ~known) != 0)
		return -EINVAL;
	*ret_ring = hold_ring(server, message->u64 & VHOST_USER_VRING_INDEX_MASK);
	return *ret_ring != NULL ? 0 : -EINVAL;
}

static void replace_fd(int *fd, struct vhost_user_message *message)
{
	fd_close(fd);
	*fd = vhost_user_message_take_fd(message, 0);
}

/* Without a descriptor a ring would have to be polled, which no device of ours does. */
static int set_ring_kick(struct server *server, struct vhost_user_message *message)
{
	struct back_ring *ring;
	int r = take_ring_fd(server, message, &ring);

	if (r == 0 && message->fd_count == 0)
		r = -EOPNOTSUPP;
	if (r == 0)
		replace_fd(&ring->kick_fd, message);
	return r;
}

static int set_ring_call(struct server *server, struct vhost_user_message *message)
{
	struct back_ring *ring;
	int r = take_ring_fd(server, message, &ring);

	if (r == 0)
		replace_fd(&ring->call_fd, message);
	return r;
}

/* One for all rings: whichever was set last. */
static int set_ring_error(struct server *server, struct vhost_user_message *message)
{
	struct back_ring *ring;
	int r = take_ring_fd(server, message, &ring);

	if (r < 0)
		return r;
	replace_fd(&server->error_fd, message);
	return back(server)->set_error_fd(server->vhost, server->error_fd);
}

static int enable_ring(struct server *server, struct vhost_user_message *message)
{
	struct back_ring *ring = hold_ring(server, message->state.index);

	if (ring == NULL || message->state.num > 1)
		return -EINVAL;
	ring->enabled = message->state.num == 1;
	return 0;
}

/* A failure is told by an answer without data, as the specification wants it. */
static int answer_config(struct server *server, struct vhost_user_message *message)
{
	struct vhost_user_config *config = &message->config;

	if (back(server)->get_config(server->vhost, config->offset, config->data, config->size) < 0)
		message->size = 0;
	return 0;
}

static int set_config(struct server *server, struct vhost_user_message *message)
{
	const struct vhost_user_config *config = &message->config;
	const struct vhost_ops *ops = back(server);

	if (config->flags == VHOST_USER_CONFIG_BY_DRIVER)
		return ops->set_config(server->vhost, config->offset, config->data, config->size);
	if (config->flags != VHOST_USER_CONFIG_BY_VMM)
		return -EINVAL;
	return ops->change_config == NULL ? -EOPNOTSUPP
					  : ops->change_config(server->vhost, config->offset,
						    config->data, config->size);
}

/* Back to the beginning; what stays is the memory and what was agreed on. */
static int reset_device(struct server *server, struct vhost_user_message *message)
{
	(void)message;
	stop_rings(server);
	for (unsigned i = 0; i < server->queue_count; i++) {
		struct back_ring *ring = &server->rings[i];

		fd_close(&ring->kick_fd);
		fd_close(&ring->call_fd);
		*ring = (struct back_ring){ .kick_fd = -1, .call_fd = -1 };
	}
	server->status = 0;
	server->features &= BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	return back(server)->reset(server->vhost);
}

static int set_status(struct server *server, struct vhost_user_message *message)
{
	if (message->u64 > UINT8_MAX)
		return -EINVAL;
	if (message->u64 == 0)
		return reset_device(server, message);
	server->status = message->u64;
	return 0;
}

static int answer_status(struct server *server, struct vhost_user_message *message)
{
	message->u64 = server->status;
	return 0;
}

static int answer_windows(struct server *server, struct vhost_user_message *message)
{
	message->windows = (struct vhost_user_windows){ 1, 0, { server->window_size } };
	return 0;
}

/* Once: what the device has mapped it takes away where it did. It waits for answers. */
static int set_channel(struct server *server, struct vhost_user_message *message)
{
	if (server->channel.socket >= 0)
		return -EBUSY;
	window_channel_init(
		&server->channel, vhost_user_message_take_fd(message, 0), server->window_size);
	if ((VHOST_USER_WINDOW_FEATURES & ~server->protocol_features) != 0)
		return 0; /* nothing is asked by it then */
	return back(server)->set_window(server->vhost, &server->channel.window);
}

/* What is done around a handler. */
enum {
	ANSWERS = 1, /* it puts the answer into the message, whose size becomes reply_size */
	STARTS = 2,  /* rings that are ready and do not run start after it */
	MOVES = 4,   /* all rings stop before it, and start after it; the device does not notice */
};

/* Permitted are those with a handler, and with `needs` only once that was agreed on. */
static const struct row {
	int (*handle)(struct server *server, struct vhost_user_message *message);
	unsigned flags;
	uint32_t reply_size; /* 0: as the request */
	uint64_t needs;      /* protocol features */
} rows[VHOST_USER_REQUESTS] = {
	[VHOST_USER_GET_FEATURES] = { answer_features, ANSWERS, 8, 0 },
	[VHOST_USER_SET_FEATURES] = { set_features, MOVES, 0, 0 },
	[VHOST_USER_SET_OWNER] = { set_owner, 0, 0, 0 },
	[VHOST_USER_RESET_OWNER] = { set_owner, 0, 0, 0 }, /* ignored, says the specification */
	[VHOST_USER_SET_MEM_TABLE] = { set_memory, MOVES, 0, 0 },
	[VHOST_USER_SET_VRING_NUM] = { set_ring_size, STARTS, 0, 0 },
	[VHOST_USER_SET_VRING_ADDR] = { set_ring_address, STARTS, 0, 0 },
	[VHOST_USER_SET_VRING_BASE] = { set_ring_base, STARTS, 0, 0 },
	[VHOST_USER_GET_VRING_BASE] = { answer_ring_base, ANSWERS, 0, 0 },
	[VHOST_USER_SET_VRING_KICK] = { set_ring_kick, STARTS, 0, 0 },
	[VHOST_USER_SET_VRING_CALL] = { set_ring_call, STARTS, 0, 0 },
	[VHOST_USER_SET_VRING_ERR] = { set_ring_error, MOVES, 0, 0 },
	[VHOST_USER_GET_PROTOCOL_FEATURES] = { answer_protocol_features, ANSWERS, 8, 0 },
	[VHOST_USER_SET_PROTOCOL_FEATURES] = { set_protocol_features, 0, 0, 0 },
	[VHOST_USER_GET_QUEUE_NUM] = { answer_queue_count, ANSWERS, 8, PROTOCOL(MQ) },
	[VHOST_USER_SET_VRING_ENABLE] = { enable_ring, STARTS, 0, 0 },
	[VHOST_USER_SET_BACKEND_REQ_FD] = { set_channel, MOVES, 0, PROTOCOL(BACKEND_REQ) },
	[VHOST_USER_GET_SHMEM_CONFIG] = { answer_windows, ANSWERS,
		sizeof(struct vhost_user_windows), PROTOCOL(SHMEM) },
	[VHOST_USER_GET_CONFIG] = { answer_config, ANSWERS, 0, PROTOCOL(CONFIG) },
	[VHOST_USER_SET_CONFIG] = { set_config, 0, 0, PROTOCOL(CONFIG) },
	[VHOST_USER_RESET_DEVICE] = { reset_device, 0, 0, PROTOCOL(RESET_DEVICE) },
	[VHOST_USER_SET_STATUS] = { set_status, 0, 0, PROTOCOL(STATUS) },
	[VHOST_USER_GET_STATUS] = { answer_status, ANSWERS, 8, PROTOCOL(STATUS) },
};

static int reply(struct server *server, struct vhost_user_message *message)
{
	message->flags = VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY;
	vhost_user_message_release(message);
	return vhost_user_send(
		server->socket, message, clock_monotonic_ns() + VHOST_USER_MESSAGE_MS * NS_PER_MS);
}

static int run_handler(
	struct server *server, const struct row *row, struct vhost_user_message *message)
{
	if ((row->flags & MOVES) != 0)
		stop_rings(server);
	int r = row->handle(server, message);

	if ((row->flags & (MOVES | STARTS)) != 0) {
		int started = start_rings(server);

		r = r == 0 ? started : r;
	}
	return r;
}

/* 0 to go on, or -errno to end the connection. */
static int handle_message(struct server *server, struct vhost_user_message *message)
{
	const struct row *row = &rows[message->request];
	bool wants_answer = (message->flags & VHOST_USER_FLAG_NEED_REPLY) != 0 &&
			    (server->protocol_features & PROTOCOL(REPLY_ACK)) != 0;

	if (row->handle == NULL || (row->needs & ~server->protocol_features) != 0)
		return -EPROTO;
	int r = run_handler(server, row, message);

	if (r < 0)
		log_debug("%s: request %u is refused: %s", server->name, message->request,
			strerror(-r));
	if ((row->flags & ANSWERS) != 0) {
		if (r < 0)
			return r;
		if (row->reply_size != 0)
			message->size = row->reply_size;
		return reply(server, message);
	}
	if (!wants_answer)
		return r;
	vhost_user_message_set_result(message, r);
	return reply(server, message);
}

/* Waits for a message. 1, 0 when it is time to stop, or -errno. */
static int wait_for_message(const struct server *server, int stop_fd)
{
	struct pollfd fds[] = {
		{ .fd = server->socket, .events = POLLIN },
		{ .fd = stop_fd, .events = POLLIN },
	};
	int timeout_ms = FOOTPRINT_FIRST_MS;
	int n;

	while ((n = poll(fds, ARRAY_SIZE(fds), timeout_ms)) <= 0) {
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			footprint_drop_program(&timeout_ms);
	}
	return fds[1].revents == 0;
}

static int serve_messages(struct server *server, int stop_fd)
{
	uint32_t request = 0;
	int r;

	while ((r = wait_for_message(server, stop_fd)) > 0) {
		CLEANUP_MESSAGE struct vhost_user_message message = { 0 };

		r = vhost_user_receive_request(server->socket, &message,
			clock_monotonic_ns() + VHOST_USER_MESSAGE_MS * NS_PER_MS);
		if (r == 0) {
			request = message.request;
			r = handle_message(server, &message);
		}
		if (r == -ENOTCONN)
			return 0;
		if (r < 0)
			break;
	}
	if (r < 0)
		log_warn("%s: the front end's request, or the one after %u: %s; disconnected",
			server->name, request, strerror(-r));
	return r;
}

/* Leaves the device as the next front end wants to find it. */
static void close_server(struct server *server)
{
	/* A queue may wait for an answer. */
	if (server->channel.socket >= 0)
		(void)shutdown(server->channel.socket, SHUT_RDWR);
	(void)!reset_device(server, NULL);
	(void)!back(server)->set_error_fd(server->vhost, -1);
	fd_close(&server->error_fd);
	if (server->window_size > 0)
		(void)!back(server)->set_window(server->vhost, NULL);
	fd_close(&server->channel.socket);
	forget_memory(server);
}

int vhost_user_serve(int socket, const char *name, struct vhost *vhost, int stop_fd)
{
	struct server server = {
		.socket = socket,
		.name = name,
		.vhost = vhost,
		.queue_count = vhost->ops->queue_count(vhost),
		.error_fd = -1,
		.window_size = vhost->ops->window_size == NULL ? 0 : vhost->ops->window_size(vhost),
		.channel.socket = -1,
	};

	for (unsigned i = 0; i < DEVICE_QUEUES_MAX; i++)
		server.rings[i].kick_fd = server.rings[i].call_fd = -1;
	int r = serve_messages(&server, stop_fd);

	close_server(&server);
	return r;
}
