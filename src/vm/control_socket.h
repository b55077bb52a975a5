/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket as a carrier of messages: a SOCK_SEQPACKET listener and
 * its clients, on the control loop. What messages mean is control_service.c's.
 *
 * Any process of our user or of root may connect, and then do what it likes:
 * send anything, descriptors included, read nothing, or stay silent for ever.
 * No client costs more than its slot: nothing here waits, a message is read
 * into one buffer of fixed size, and who does not read what it asked for is
 * dropped. Clients are served in turn, one message each.
 *
 * All functions are for the main thread.
 */
#pragma once

#include "base/evloop.h"
#include "base/util.h"

enum {
	CONTROL_MESSAGE_MAX = 64 << 10, /* bytes; of a request and of a reply */
	/* At a time. When more come, whoever was silent longest, for a second at least, makes room.
	 */
	CONTROL_CLIENTS_MAX = 256,
};

struct control_socket;
struct control_client;

/* A message as it came. It ends where its receiver returns. */
struct control_message {
	const char *text; /* any bytes; no NUL at its end */
	size_t size;
	bool too_long;         /* the rest is lost */
	bool with_descriptors; /* they were sent along, and never reached us */
};

typedef void control_receiver(
	void *owner, struct control_client *client, const struct control_message *message);

/*
 * Listens at `path`, or if that is a directory at PATH/crosvm-PID.sock, with
 * mode 0600; clients wait until control_socket_start(). What may be at that
 * path already: see unix_listener.h. 0 or -errno, logged.
 */
MUST_CHECK int control_socket_open(const char *path, struct control_socket **ret_socket);

/* Serves clients in the loop: each message goes to `receive`. 0 or -errno. */
MUST_CHECK int control_socket_start(
	struct control_socket *socket, struct evloop *loop, control_receiver *receive, void *owner);

/* Removes the socket, if it is still ours, and drops all clients. NULL is none. */
void control_socket_free(struct control_socket *socket);

/* Where it is. */
const char *control_socket_path(const struct control_socket *socket);
unsigned control_socket_clients(const struct control_socket *socket);

/* Sends a message. A client that has no room for it is dropped once its receiver returns. */
void control_client_send(struct control_client *client, const char *text, size_t size);

/* From now on the client gets what is published, and is not dropped for its silence. */
void control_client_subscribe(struct control_client *client);
void control_socket_publish(struct control_socket *socket, const char *text, size_t size);
