/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device process that has been taken over, for tests of the front end: it
 * speaks vhost-user as it should until a request that the test names, and does
 * something else then. It has no device: its answers are made up.
 */
#pragma once

#include <errno.h>

#include "unit/vhost_user_rig.h"

#define BIT(n) (UINT64_C(1) << (n))

enum { PEER_QUEUES = 2, PEER_CONFIG_SIZE = 8 };
#define PEER_FEATURES (BIT(VIRTIO_F_VERSION_1) | BIT(VHOST_USER_F_PROTOCOL_FEATURES) | 0x10)

enum act {
	ACT_NONE,
	ACT_HANG_UP,
	ACT_OTHER_REQUEST,
	ACT_NO_REPLY_FLAG,
	ACT_OTHER_VERSION,
	ACT_SHORT,     /* a size of one less, and so many bytes */
	ACT_LONG,      /* one more */
	ACT_HUGE_SIZE, /* said to be 4 GiB */
	ACT_NO_PAYLOAD,
	ACT_FD,       /* a good reply with a descriptor */
	ACT_MANY_FDS, /* with as many as there can be */
	ACT_HALF,     /* and hangs up */
	ACT_HEADER,   /* and hangs up */
	ACT_JUNK,
	ACTS_AT_ONCE,
	ACT_SILENT = ACTS_AT_ONCE,
	ACT_DRIP, /* a byte every 500 ms */
	ACT_SLOW, /* a good reply after a second */
	ACT_STOP_READING,
};

struct peer {
	struct rig rig;
	struct vhost *vhost;
	uint32_t target; /* the request at which it acts, each time; 0 for all */
	enum act act;
	uint64_t answer; /* instead of a good one, when answers_otherwise */
	bool answers_otherwise;
	uint64_t protocol; /* features it does not have */
	/* As in struct vhost_user_peer. */
	unsigned queues_min;
	bool drops_work;
	bool has_window;
	bool syncs;
	uint64_t features_without_config;
	const struct vhost_user_offer *own;
	uint32_t (*config_used)(uint64_t features);
	const void *config;    /* that it has, of the size that is asked for; NULL: what was sent */
	unsigned sync_ms;      /* how long it takes to hang up */
	atomic_uint acts;      /* how often it did it */
	_Atomic uint64_t told; /* the features that it was told last */
};

/* The answer of a well-behaved device. False when there is none. */
static inline bool good_answer(struct peer *peer, struct vhost_user_message *message)
{
	bool wants_answer = (message->flags & VHOST_USER_FLAG_NEED_REPLY) != 0;

	if (message->request == VHOST_USER_SET_FEATURES)
		peer->told = message->u64;
	message->flags = VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY;
	switch (message->request) {
	case VHOST_USER_GET_FEATURES:
		message->u64 = PEER_FEATURES;
		break;
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		message->u64 =
			(BIT(VHOST_USER_PROTOCOL_F_MQ) | BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
				BIT(VHOST_USER_PROTOCOL_F_CONFIG) |
				BIT(VHOST_USER_PROTOCOL_F_RESET_DEVICE)) &
			~peer->protocol;
		break;
	case VHOST_USER_GET_QUEUE_NUM:
		message->u64 = PEER_QUEUES;
		break;
	case VHOST_USER_GET_CONFIG:
		if (peer->config != NULL)
			memcpy(message->config.data, peer->config, message->config.size);
		return true; /* else as it came */
	case VHOST_USER_GET_VRING_BASE:
		return true;
	default:
		if (!wants_answer)
			return false;
		message->u64 = 0;
	}
	message->size = sizeof(message->u64);
	return true;
}

static inline void peer_send(struct peer *peer, const struct vhost_user_message *message)
{
	(void)!vhost_user_send(peer->rig.served.socket, message, FAR_AWAY);
}

/* A reply with descriptors beside it, more than vhost_user_send() sends. */
static inline void peer_send_fds(
	struct peer *peer, const struct vhost_user_message *message, unsigned count)
{
	enum { FDS_MAX = 253 }; /* the kernel's limit */
	char control[CMSG_SPACE(FDS_MAX * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { (void *)(uintptr_t)message, 12 };
	const struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(count * sizeof(int)),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&msg);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(count * sizeof(int));
	for (unsigned i = 0; i < count; i++)
		memcpy(CMSG_DATA(header) + i * sizeof(int), &peer->rig.kick_fd, sizeof(int));
	(void)sendmsg(peer->rig.served.socket, &msg, MSG_NOSIGNAL);
	(void)send(peer->rig.served.socket, &message->u64, message->size, MSG_NOSIGNAL);
}

static inline void peer_drip(struct peer *peer, const struct vhost_user_message *message)
{
	const uint8_t *bytes = (const uint8_t *)message;

	for (unsigned i = 0; i < 12; i++) {
		(void)poll(NULL, 0, 500);
		if (send(peer->rig.served.socket, bytes + i, 1, MSG_NOSIGNAL) < 0)
			return;
	}
}

/* False when it hangs up. */
static inline bool peer_act(struct peer *peer, struct vhost_user_message *message)
{
	static const uint8_t junk[4096] = { 0xff, 0xff, 0xff };
	int socket = peer->rig.served.socket;

	peer->acts++;
	switch (peer->act) {
	case ACT_HANG_UP:
		return false;
	case ACT_OTHER_REQUEST:
		message->request ^= 1;
		break;
	case ACT_NO_REPLY_FLAG:
		message->flags = VHOST_USER_VERSION;
		break;
	case ACT_OTHER_VERSION:
		message->flags++;
		break;
	case ACT_SHORT:
		message->size--;
		break;
	case ACT_LONG:
		message->size++;
		break;
	case ACT_NO_PAYLOAD:
		message->size = 0;
		break;
	case ACT_HUGE_SIZE:
		message->size = UINT32_MAX;
		(void)send(socket, message, 12, MSG_NOSIGNAL);
		return true;
	case ACT_FD:
		peer_send_fds(peer, message, 1);
		return true;
	case ACT_MANY_FDS:
		peer_send_fds(peer, message, 253);
		return true;
	case ACT_HALF:
		(void)send(socket, message, 5, MSG_NOSIGNAL);
		return false;
	case ACT_HEADER:
		(void)send(socket, message, 12, MSG_NOSIGNAL);
		return false;
	case ACT_JUNK:
		(void)send(socket, junk, sizeof(junk), MSG_NOSIGNAL);
		return true;
	case ACT_SILENT:
		return true;
	case ACT_DRIP:
		peer_drip(peer, message);
		return true;
	case ACT_SLOW:
		(void)sleep(1);
		break;
	case ACT_NONE:
	case ACT_STOP_READING:
		break;
	}
	peer_send(peer, message);
	return true;
}

static inline void *peer_run(void *argument)
{
	struct peer *peer = argument;
	bool goes_on = true;

	while (goes_on) {
		CLEANUP_MESSAGE struct vhost_user_message message = { 0 };

		if (vhost_user_receive_request(peer->rig.served.socket, &message, FAR_AWAY) < 0)
			break;
		bool is_target = peer->target == 0 || peer->target == message.request;
		bool has_answer = good_answer(peer, &message);

		vhost_user_message_release(&message);
		if (is_target && peer->act == ACT_STOP_READING)
			return NULL; /* leaves the socket open */
		if (!has_answer)
			continue;
		if (is_target && peer->answers_otherwise)
			message.u64 = peer->answer;
		if (is_target)
			goes_on = peer_act(peer, &message);
		else
			peer_send(peer, &message);
	}
	(void)poll(NULL, 0, (int)peer->sync_ms);
	/* To the front end that is the same as closing it. */
	(void)shutdown(peer->rig.served.socket, SHUT_RDWR);
	return NULL;
}

static inline void peer_start(struct peer *peer)
{
	assert_int_equal(pthread_create(&peer->rig.served.thread, NULL, peer_run, peer), 0);
}

/* Makes the front end of it. */
static inline int peer_meet(struct peer *peer)
{
	const struct vhost_user_peer description = {
		.name = "taken over",
		.socket = fd_steal(&peer->rig.socket),
		.queue_size = SIZE,
		.config_size = PEER_CONFIG_SIZE,
		.config_used = peer->config_used,
		.queues_min = peer->queues_min,
		.drops_work = peer->drops_work,
		.has_window = peer->has_window,
		.syncs = peer->syncs,
		.features_without_config = peer->features_without_config,
		.own = peer->own,
	};

	return vhost_user_frontend_create(&description, peer->rig.memory, &peer->vhost);
}

static inline int peer_connect(struct peer *peer)
{
	rig_init(&peer->rig);
	peer_start(peer);
	return peer_meet(peer);
}

static inline void peer_release(struct peer *peer)
{
	if (peer->vhost != NULL)
		peer->vhost->ops->free(peer->vhost);
	pthread_join(peer->rig.served.thread, NULL);
	rig_release(&peer->rig);
}

static inline void peer_end(struct peer *peer)
{
	peer_release(peer);
	assert_int_equal(count_fds(), peer->rig.fds_before);
}

/* The device's whole life as its front half drives it. The first failure, or 0. */
static inline int peer_drive(struct peer *peer)
{
	struct vhost *vhost = peer->vhost;
	const struct vhost_ops *ops = vhost->ops;
	struct vhost_ring ring = rig_ring(&peer->rig);
	uint8_t byte = 1;
	uint16_t base = 0;
	int r = ops->set_features(vhost, BIT(VIRTIO_F_VERSION_1) | 0x10);

	if (r == 0)
		r = ops->set_vring(vhost, 1, &ring);
	if (r == 0)
		r = ops->start_vring(vhost, 1);
	if (r == 0)
		r = ops->set_config(vhost, 1, &byte, 1);
	if (r == 0)
		r = ops->get_config(vhost, 1, &byte, 1);
	if (r == 0)
		r = ops->stop_vring(vhost, 1, &base);
	if (r == 0)
		r = ops->reset(vhost);
	return r;
}
