// SPDX-License-Identifier: BSD-3-Clause
/*
 * Speaks the front end's part of vhost-user. Ring addresses and features are
 * the guest's and are checked before they are sent; all that comes back is a
 * hostile process's.
 */
#include "virtio/vhost_user_frontend.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "virtio/device.h"
#include "virtio/vhost_user_connection.h"

#define BIT(n) (UINT64_C(1) << (n))

/*
 * Feature bits that a driver may see: those of device types (virtio 1.2, section
 * 6) and of the rings that our transport knows. Not, for one, an IOMMU or packed
 * rings, for which the transport would have to do its part.
 */
#define DEVICE_FEATURES   ((BIT(24) - 1) | ~(BIT(50) - 1))
#define REQUIRED_FEATURES (BIT(VHOST_USER_F_PROTOCOL_FEATURES) | BIT(VIRTIO_F_VERSION_1))

/*
 * Not VHOST_USER_PROTOCOL_F_STATUS: the contract has no status, and start, stop
 * and reset say the same.
 */
#define PROTOCOL_FEATURES                                                                          \
	(BIT(VHOST_USER_PROTOCOL_F_MQ) | BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |                    \
		BIT(VHOST_USER_PROTOCOL_F_CONFIG) | BIT(VHOST_USER_PROTOCOL_F_RESET_DEVICE))

/* Without these a device cannot show its files to the guest. */
#define WINDOW_FEATURES (VHOST_USER_WINDOW_FEATURES | BIT(VHOST_USER_PROTOCOL_F_CONFIG))

struct front_ring {
	struct vhost_ring place;
	bool running;
};

struct vhost_user_frontend {
	struct vhost vhost; /* first: what the front half holds */
	struct vhost_user_peer peer;
	const struct guest_memory *memory;
	struct vhost_user_connection connection;
	uint64_t features;
	uint64_t own_features; /* of these, what the other side does not know of */
	unsigned queue_count;
	int error_fd;    /* borrowed */
	bool is_touched; /* a reset has something to undo */
	bool config_is_stale;
	uint8_t config[VHOST_USER_CONFIG_MAX];
	struct front_ring rings[DEVICE_QUEUES_MAX];
};

static struct vhost_user_frontend *from_vhost(const struct vhost *vhost)
{
	return (struct vhost_user_frontend *)vhost;
}

static bool speaks(const struct vhost_user_frontend *self, unsigned protocol_feature)
{
	return vhost_user_speaks(&self->connection, protocol_feature);
}

/* Ring messages go without an answer: the one that starts the ring has it. */
static int send_state(
	struct vhost_user_frontend *self, uint32_t request, unsigned index, uint32_t number)
{
	struct vhost_user_message message = {
		.request = request,
		.size = sizeof(message.state),
		.state = { .index = index, .num = number },
	};

	return vhost_user_talk(&self->connection, &message, NULL, 0);
}

static int send_address(
	struct vhost_user_frontend *self, unsigned index, const struct vhost_ring *place)
{
	struct vhost_user_message message = {
		.request = VHOST_USER_SET_VRING_ADDR,
		.size = sizeof(message.addr),
		.addr = {
			.index = index,
			.desc_user_addr = place->desc,
			.used_user_addr = place->used,
			.avail_user_addr = place->avail,
		},
	};

	return vhost_user_talk(&self->connection, &message, NULL, 0);
}

static int send_eventfd(
	struct vhost_user_frontend *self, uint32_t request, unsigned index, int eventfd)
{
	struct vhost_user_message message = {
		.request = request,
		.size = sizeof(message.u64),
		.u64 = index,
		.fd_count = 1,
		.fds = { eventfd },
	};

	return vhost_user_talk(&self->connection, &message, NULL, 0);
}

static int send_memory(struct vhost_user_frontend *self)
{
	struct vhost_user_message message;

	vhost_user_message_of_memory(self->memory, &message);
	return vhost_user_tell(&self->connection, &message);
}

static int get_features(struct vhost *vhost, uint64_t *ret_features)
{
	struct vhost_user_frontend *self = from_vhost(vhost);

	*ret_features = self->features;
	return self->connection.dead ? -ENOTCONN : 0;
}

/* Every start of the device comes through here: the other side gets all it needs anew. */
static int set_features(struct vhost *vhost, uint64_t features)
{
	struct vhost_user_frontend *self = from_vhost(vhost);

	if (self->connection.dead)
		return -ENOTCONN;
	if ((features & ~self->features) != 0)
		return -EINVAL;
	for (unsigned i = 0; i < self->queue_count; i++)
		if (self->rings[i].running)
			return -EINVAL;
	self->is_touched = true;
	int r = vhost_user_tell_u64(&self->connection, VHOST_USER_SET_FEATURES,
		(features & ~self->own_features) | BIT(VHOST_USER_F_PROTOCOL_FEATURES));

	return r == 0 ? send_memory(self) : r;
}

static unsigned queue_count(struct vhost *vhost)
{
	return from_vhost(vhost)->queue_count;
}

/* With the part that is ours and not the driver's. */
static uint32_t whole_config(const struct vhost_user_frontend *self)
{
	return self->peer.config_size + self->peer.control_size;
}

/* Makes the copy of the configuration space good. */
static int fetch_config(struct vhost_user_frontend *self)
{
	uint32_t size = self->peer.config_used != NULL ? self->peer.config_used(self->features)
						       : whole_config(self);
	struct vhost_user_message message = {
		.request = VHOST_USER_GET_CONFIG,
		.size = vhost_user_config_payload(size),
		.config.size = size,
	};
	struct vhost_user_message reply = { 0 };
	int r = vhost_user_talk(
		&self->connection, &message, &reply, vhost_user_config_payload(size));

	if (r < 0)
		return r;
	if (reply.config.offset != 0 || reply.config.size != size)
		return vhost_user_give_up(&self->connection, -EPROTO, "at the configuration space");
	memcpy(self->config, reply.config.data, size);
	if (self->peer.fit_config != NULL)
		self->peer.fit_config(self->config, self->queue_count);
	self->config_is_stale = false;
	return 0;
}

static int get_config(struct vhost *vhost, uint32_t offset, uint8_t *data, uint32_t size)
{
	struct vhost_user_frontend *self = from_vhost(vhost);

	if (self->connection.dead)
		return -ENOTCONN;
	if (!is_within(offset, size, whole_config(self)))
		return -EINVAL;
	/* Behind the driver's part the device writes by itself. */
	bool is_stale = self->config_is_stale || offset + size > self->peer.config_size;
	int r = is_stale && speaks(self, VHOST_USER_PROTOCOL_F_CONFIG) ? fetch_config(self) : 0;

	if (r == 0)
		memcpy(data, self->config + offset, size);
	return r;
}

/* `size` is VHOST_USER_CONFIG_MAX at most. */
static struct vhost_user_message config_message(
	uint32_t flags, uint32_t offset, const void *data, uint32_t size)
{
	struct vhost_user_message message = {
		.request = VHOST_USER_SET_CONFIG,
		.size = vhost_user_config_payload(size),
		.config = { .offset = offset, .size = size, .flags = flags },
	};

	memcpy(message.config.data, data, size);
	return message;
}

static int put_config(struct vhost_user_frontend *self, uint32_t flags, uint32_t offset,
	const uint8_t *data, uint32_t size)
{
	bool is_driver = flags == VHOST_USER_CONFIG_BY_DRIVER;

	if (self->connection.dead)
		return -ENOTCONN;
	if (!is_within(offset, size, is_driver ? self->peer.config_size : whole_config(self)))
		return -EINVAL;
	if (!speaks(self, VHOST_USER_PROTOCOL_F_CONFIG) || !(is_driver || self->peer.takes_changes))
		return -EOPNOTSUPP;
	struct vhost_user_message message = config_message(flags, offset, data, size);

	self->is_touched = true;
	self->config_is_stale = true;
	return vhost_user_tell(&self->connection, &message);
}

static int set_config(struct vhost *vhost, uint32_t offset, const uint8_t *data, uint32_t size)
{
	return put_config(from_vhost(vhost), VHOST_USER_CONFIG_BY_DRIVER, offset, data, size);
}

static int change_config(struct vhost *vhost, uint32_t offset, const uint8_t *data, uint32_t size)
{
	return put_config(from_vhost(vhost), VHOST_USER_CONFIG_BY_VMM, offset, data, size);
}

/* A ring that the device could not use never gets there: it might hang up for it. */
static int probe_ring(const struct vhost_user_frontend *self, const struct vhost_ring *place,
	struct virtqueue *ret_probe)
{
	const struct virtqueue_config config = {
		.size = place->size,
		.desc = place->desc,
		.avail = place->avail,
		.used = place->used,
	};

	if (place->size > self->peer.queue_size)
		return -EINVAL;
	return virtqueue_init(ret_probe, self->memory, &config, place->base);
}

static int set_vring(struct vhost *vhost, unsigned index, const struct vhost_ring *place)
{
	struct vhost_user_frontend *self = from_vhost(vhost);

	if (self->connection.dead)
		return -ENOTCONN;
	if (index >= self->queue_count || self->rings[index].running)
		return -EINVAL;
	struct virtqueue probe;
	int r = probe_ring(self, place, &probe);

	if (r == 0)
		self->rings[index].place = *place;
	return r;
}

/* The kick comes last of the descriptors: with it many devices begin to serve. */
static int start_vring(struct vhost *vhost, unsigned index)
{
	struct vhost_user_frontend *self = from_vhost(vhost);

	if (self->connection.dead)
		return -ENOTCONN;
	if (index >= self->queue_count || self->rings[index].running)
		return -EINVAL;
	const struct vhost_ring *place = &self->rings[index].place;

	self->is_touched = true;
	struct vhost_user_message enable = {
		.request = VHOST_USER_SET_VRING_ENABLE,
		.size = sizeof(enable.state),
		.state = { .index = index, .num = 1 },
	};
	int r = send_state(self, VHOST_USER_SET_VRING_NUM, index, place->size);

	if (r == 0)
		r = send_address(self, index, place);
	if (r == 0)
		r = send_state(self, VHOST_USER_SET_VRING_BASE, index, place->base);
	if (r == 0 && self->error_fd >= 0)
		r = send_eventfd(self, VHOST_USER_SET_VRING_ERR, index, self->error_fd);
	if (r == 0)
		r = send_eventfd(self, VHOST_USER_SET_VRING_CALL, index, place->call_fd);
	if (r == 0)
		r = send_eventfd(self, VHOST_USER_SET_VRING_KICK, index, place->kick_fd);
	if (r == 0)
		r = vhost_user_tell(&self->connection, &enable);
	self->config_is_stale = true;
	self->rings[index].running = r == 0;
	return r;
}

/* In vain where the driver offers more meanwhile, or has not kicked yet: what is lost is time. */
static void settle(const struct vhost_user_frontend *self, const struct vhost_ring *place)
{
	uint64_t deadline_ns = clock_monotonic_ns() + VHOST_USER_SETTLE_MS * NS_PER_MS;
	struct virtqueue probe;

	if (self->connection.dead || probe_ring(self, place, &probe) < 0)
		return;
	while (!virtqueue_is_settled(&probe) && clock_monotonic_ns() < deadline_ns)
		(void)poll(NULL, 0, 1);
}

static int stop_vring(struct vhost *vhost, unsigned index, uint16_t *ret_base)
{
	struct vhost_user_frontend *self = from_vhost(vhost);
	struct vhost_user_message message = {
		.request = VHOST_USER_GET_VRING_BASE,
		.size = sizeof(message.state),
		.state.index = index,
	};
	struct vhost_user_message reply = { 0 };

	if (index >= self->queue_count || !self->rings[index].running)
		return -EINVAL;
	if (self->peer.drops_work)
		settle(self, &self->rings[index].place);
	self->rings[index].running = false;
	self->config_is_stale = true;
	int r = vhost_user_talk(&self->connection, &message, &reply, sizeof(reply.state));

	if (r < 0)
		return r;
	if (reply.state.index != index || reply.state.num > UINT16_MAX)
		return vhost_user_give_up(&self->connection, -EPROTO, "at a ring's base");
	*ret_base = (uint16_t)reply.state.num;
	return 0;
}

/* For the other side only: it may do to it what it wants, so we never write to it. */
static int set_error_fd(struct vhost *vhost, int error_fd)
{
	from_vhost(vhost)->error_fd = error_fd;
	return 0;
}

/* A driver begins with one, and a guest may ask for nothing else: that costs the device no time. */
static int reset(struct vhost *vhost)
{
	struct vhost_user_frontend *self = from_vhost(vhost);
	struct vhost_user_message message = { .request = VHOST_USER_RESET_DEVICE };

	if (self->connection.dead)
		return -ENOTCONN;
	if (!self->is_touched)
		return 0;
	self->config_is_stale = true;
	int r = speaks(self, VHOST_USER_PROTOCOL_F_RESET_DEVICE)
			? vhost_user_tell(&self->connection, &message)
			: 0;

	self->is_touched = r < 0;
	return r;
}

/* No answer is waited for: the device need not run yet. */
static int set_window(struct vhost *vhost, const struct window *window)
{
	struct vhost_user_frontend *self = from_vhost(vhost);
	struct vhost_user_message channel = {
		.request = VHOST_USER_SET_BACKEND_REQ_FD,
		.fd_count = 1,
		.fds = { window->fd },
	};
	struct vhost_user_message place = config_message(VHOST_USER_CONFIG_BY_VMM,
		self->peer.config_size, &window->gpa, sizeof(window->gpa));
	int r = vhost_user_talk(&self->connection, &channel, NULL, 0);

	return r == 0 ? vhost_user_talk(&self->connection, &place, NULL, 0) : r;
}

static int event_fd(const struct vhost *vhost)
{
	return from_vhost(vhost)->connection.socket;
}

/* Between calls there is nothing to read: what is there breaks the protocol. */
static int handle_event(struct vhost *vhost)
{
	struct vhost_user_frontend *self = from_vhost(vhost);
	char byte;
	ssize_t n = recv(self->connection.socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return vhost_user_give_up(
		&self->connection, n > 0 ? -EPROTO : -ENOTCONN, "between requests");
}

static void vhost_user_frontend_free(struct vhost *vhost)
{
	struct vhost_user_frontend *self = from_vhost(vhost);
	uint16_t base;

	for (unsigned i = 0; i < self->queue_count; i++)
		if (self->rings[i].running)
			(void)!stop_vring(vhost, i, &base);
	/* Nothing will follow; the other side's end tells that it is done. */
	if (self->peer.syncs && !self->connection.dead) {
		uint64_t deadline_ns = vhost_user_credit_deadline(&self->connection.credit);

		(void)shutdown(self->connection.socket, SHUT_WR);
		if (fd_wait(self->connection.socket, POLLIN, deadline_ns) < 0)
			log_warn("%s: what was written last is still on its way to the disk",
				self->peer.name);
	}
	fd_close(&self->connection.socket);
	free(self);
}

static const struct vhost_ops vhost_user_frontend_ops = {
	.get_features = get_features,
	.set_features = set_features,
	.queue_count = queue_count,
	.get_config = get_config,
	.set_config = set_config,
	.change_config = change_config,
	.set_window = set_window,
	.set_vring = set_vring,
	.start_vring = start_vring,
	.stop_vring = stop_vring,
	.set_error_fd = set_error_fd,
	.reset = reset,
	.event_fd = event_fd,
	.handle_event = handle_event,
	.free = vhost_user_frontend_free,
};

static uint64_t protocol_features(const struct vhost_user_frontend *self)
{
	return PROTOCOL_FEATURES | (self->peer.has_window ? WINDOW_FEATURES : 0);
}

static int agree_on_features(struct vhost_user_frontend *self)
{
	struct vhost_user_message owner = { .request = VHOST_USER_SET_OWNER };
	uint64_t protocol = 0;
	int r = vhost_user_talk(&self->connection, &owner, NULL, 0);

	if (r == 0)
		r = vhost_user_ask_u64(&self->connection, VHOST_USER_GET_FEATURES, &self->features);
	if (r == 0 && (self->features & REQUIRED_FEATURES) != REQUIRED_FEATURES)
		return vhost_user_give_up(
			&self->connection, -EPROTO, "with features that we cannot do without");
	self->features &= DEVICE_FEATURES | VHOST_RING_FEATURES;
	if (r == 0)
		r = vhost_user_ask_u64(
			&self->connection, VHOST_USER_GET_PROTOCOL_FEATURES, &protocol);
	protocol &= protocol_features(self);
	if (r == 0 && self->peer.has_window && (protocol & WINDOW_FEATURES) != WINDOW_FEATURES)
		return vhost_user_give_up(
			&self->connection, -EPROTO, "without memory that it shows to the guest");
	/* Before they are agreed on there is no acknowledgement. */
	if (r == 0)
		r = vhost_user_tell_u64(
			&self->connection, VHOST_USER_SET_PROTOCOL_FEATURES, protocol);
	self->connection.protocol_features = protocol;
	return r;
}

/* It may have more than there can be here, as DPDK's: those are left alone. */
static int count_queues(struct vhost_user_frontend *self)
{
	uint64_t least = max_u64(max_u64(self->peer.queues, self->peer.queues_min), 1);
	uint64_t count = least;
	int r = speaks(self, VHOST_USER_PROTOCOL_F_MQ)
			? vhost_user_ask_u64(&self->connection, VHOST_USER_GET_QUEUE_NUM, &count)
			: 0;

	if (r == 0 && count < least)
		r = vhost_user_give_up(
			&self->connection, -EPROTO, "with fewer queues than the device needs");
	self->queue_count = (unsigned)min_u64(
		self->peer.queues != 0 ? self->peer.queues : count, DEVICE_QUEUES_MAX);
	return r;
}

static int greet(struct vhost_user_frontend *self)
{
	int r = agree_on_features(self);

	if (r == 0)
		r = count_queues(self);
	if (r < 0 || self->peer.config_size == 0)
		return r;
	if (speaks(self, VHOST_USER_PROTOCOL_F_CONFIG))
		return fetch_config(self);
	if (self->peer.features_without_config == 0)
		return vhost_user_give_up(
			&self->connection, -EPROTO, "without a configuration space");
	self->features &= self->peer.features_without_config | VHOST_RING_FEATURES;
	if (self->peer.own != NULL) {
		self->own_features = self->peer.own->features;
		self->features |= self->own_features;
		memcpy(self->config, self->peer.own->config, self->peer.config_size);
	}
	return 0;
}

/* The other side need not run yet: what it is told waits in the socket. */
static int introduce(struct vhost_user_frontend *self, const struct vhost_user_offer *known)
{
	uint64_t protocol = protocol_features(self);
	int r = vhost_user_tell_u64(&self->connection, VHOST_USER_SET_PROTOCOL_FEATURES, protocol);

	self->connection.protocol_features = protocol;
	self->features = known->features & (DEVICE_FEATURES | VHOST_RING_FEATURES);
	self->queue_count = self->peer.queues;
	memcpy(self->config, known->config, self->peer.config_size);
	return r;
}

int vhost_user_frontend_create(const struct vhost_user_peer *peer,
	const struct guest_memory *memory, struct vhost **ret_vhost)
{
	struct vhost_user_frontend *self = calloc(1, sizeof(*self));
	int r = self == NULL ? -ENOMEM : 0;

	if (r == 0 && (peer->config_size + peer->control_size > VHOST_USER_CONFIG_MAX ||
			      peer->queues > DEVICE_QUEUES_MAX ||
			      (peer->known != NULL && peer->queues == 0)))
		r = -EINVAL;
	if (r < 0) {
		close(peer->socket);
		free(self);
		return r;
	}
	self->vhost.ops = &vhost_user_frontend_ops;
	self->peer = *peer;
	self->connection = (struct vhost_user_connection){
		.socket = peer->socket,
		.name = peer->name,
		.lost = peer->lost,
		.owner = peer->owner,
		.tells_reasons = peer->takes_changes,
		.credit = vhost_user_credit_new(),
	};
	self->memory = memory;
	self->error_fd = -1;
	r = peer->known != NULL ? introduce(self, peer->known) : greet(self);
	self->peer.known = self->peer.own = NULL;
	if (r < 0) {
		vhost_user_frontend_free(&self->vhost);
		return r;
	}
	*ret_vhost = &self->vhost;
	return 0;
}
