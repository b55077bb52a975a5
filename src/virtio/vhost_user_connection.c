// SPDX-License-Identifier: BSD-3-Clause
/* All that comes back is a hostile process's. */
#include "virtio/vhost_user_connection.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"

int vhost_user_give_up(struct vhost_user_connection *connection, int error, const char *what)
{
	if (connection->dead)
		return -ENOTCONN;
	connection->dead = true;
	/* Makes the socket readable too, so that the control loop comes to look. */
	(void)shutdown(connection->socket, SHUT_RDWR);
	log_warn("%s: the device's process %s %s; the device is lost", connection->name,
		error == -ENOTCONN    ? "hung up"
		: error == -ETIMEDOUT ? "did not answer in time"
		: error == -EPROTO    ? "broke the protocol"
				      : strerror(-error),
		what);
	if (connection->lost != NULL)
		connection->lost(connection->owner);
	return error;
}

int vhost_user_talk(struct vhost_user_connection *connection, struct vhost_user_message *message,
	struct vhost_user_message *reply, uint32_t reply_size)
{
	char what[32];

	if (connection->dead)
		return -ENOTCONN;
	uint64_t deadline_ns = vhost_user_credit_deadline(&connection->credit);

	message->flags |= VHOST_USER_VERSION;
	int r = vhost_user_send(connection->socket, message, deadline_ns);

	if (r == 0 && reply != NULL)
		r = vhost_user_receive_reply(
			connection->socket, message->request, reply_size, reply, deadline_ns);
	vhost_user_credit_charge(&connection->credit);
	if (r == 0)
		return 0;
	snprintf(what, sizeof(what), "at request %u", message->request);
	return vhost_user_give_up(connection, r, what);
}

int vhost_user_tell(struct vhost_user_connection *connection, struct vhost_user_message *message)
{
	struct vhost_user_message reply = { 0 };

	if (!vhost_user_speaks(connection, VHOST_USER_PROTOCOL_F_REPLY_ACK))
		return vhost_user_talk(connection, message, NULL, 0);
	message->flags = VHOST_USER_FLAG_NEED_REPLY;
	int r = vhost_user_talk(connection, message, &reply, sizeof(reply.u64));

	if (r == 0 && reply.u64 != 0)
		r = connection->tells_reasons ? vhost_user_message_result(&reply) : -EIO;
	return r;
}

int vhost_user_tell_u64(struct vhost_user_connection *connection, uint32_t request, uint64_t value)
{
	struct vhost_user_message message = {
		.request = request, .size = sizeof(value), .u64 = value
	};

	return vhost_user_tell(connection, &message);
}

int vhost_user_ask_u64(
	struct vhost_user_connection *connection, uint32_t request, uint64_t *ret_value)
{
	struct vhost_user_message message = { .request = request };
	struct vhost_user_message reply = { 0 };
	int r = vhost_user_talk(connection, &message, &reply, sizeof(reply.u64));

	if (r == 0)
		*ret_value = reply.u64;
	return r;
}
