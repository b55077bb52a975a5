/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The conversation with a device in another process, of whose other end nothing
 * is believed: requests, and answers of the right form within the time that it
 * has credit for. The first violation, time-out or hang-up ends it for good;
 * every call fails at once with -ENOTCONN then.
 *
 * Under the device's lock. Results are 0 or -errno.
 */
#pragma once

#include "virtio/vhost_user_credit.h"
#include "virtio/vhost_user_message.h"

struct vhost_user_connection {
	int socket;       /* owned by whoever owns this */
	const char *name; /* for messages */
	/* Told once of the end, from the thread that noticed; NULL: nobody. */
	void (*lost)(void *owner);
	void *owner;
	bool tells_reasons; /* it is ours: a refusal says why, by an errno */
	bool dead;
	struct vhost_user_credit credit;
	uint64_t protocol_features; /* agreed on */
};

static inline bool vhost_user_speaks(
	const struct vhost_user_connection *connection, unsigned protocol_feature)
{
	return (connection->protocol_features >> protocol_feature & 1) != 0;
}

/* Ends it, because of `error`, and says so. Gives `error` back; -ENOTCONN if it has ended. */
int vhost_user_give_up(struct vhost_user_connection *connection, int error, const char *what);

/* Sends, and if `reply` is not NULL waits for the answer with a payload of reply_size. */
MUST_CHECK int vhost_user_talk(struct vhost_user_connection *connection,
	struct vhost_user_message *message, struct vhost_user_message *reply, uint32_t reply_size);

/*
 * A request without an answer of its own. With REPLY_ACK the other side says
 * whether it worked: -EIO, or what it says if it is ours.
 */
MUST_CHECK int vhost_user_tell(
	struct vhost_user_connection *connection, struct vhost_user_message *message);
MUST_CHECK int vhost_user_tell_u64(
	struct vhost_user_connection *connection, uint32_t request, uint64_t value);

/* A request whose answer is a number. */
MUST_CHECK int vhost_user_ask_u64(
	struct vhost_user_connection *connection, uint32_t request, uint64_t *ret_value);
