/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The wayland device's state and what it does with commands and sockets,
 * without rings. A context is a connection to the compositor; what comes on
 * it, and from pipes, goes to the guest one receive at a time: the next is not
 * read before the guest has all of the last, so nothing piles up here.
 *
 * The guest may send any command; the compositor and other programs of the
 * host may send any bytes and descriptors and leave at any time. No function
 * waits. Two threads (wl_queue.c) call them with `lock` held.
 */
#pragma once

#include <pthread.h>
#include <sys/un.h>

#include "base/log_limit.h"
#include "virtio/wl_vfd.h"

enum { WL_SOCKETS_MAX = 8, WL_PATH_MAX = sizeof(((struct sockaddr_un *)0)->sun_path) - 1 };

/* A compositor's socket; NEW_CTX means the one whose name is "". */
struct wl_socket {
	char path[WL_PATH_MAX + 1];
	char name[WL_NAME_MAX + 1];
};

/* What was received and the guest has not heard of: new vfds, then the message. */
struct wl_backlog {
	uint32_t from; /* vfd */
	unsigned id_count, next_id;
	uint32_t ids[WL_FDS_MAX];
	uint32_t size; /* of `message`; 0: none */
	uint8_t message[WL_MESSAGE_MAX];
};

struct wl_host {
	pthread_mutex_t lock;
	struct wl_table table;
	unsigned socket_count;
	struct wl_socket sockets[WL_SOCKETS_MAX];
	bool trans_flags;
	int in_epoll_fd;      /* readable when there may be something for the guest */
	int out_epoll_fd;     /* readable when pending data can go on */
	int connector_fd;     /* borrowed: who connects for us (connector.h); -1: we do */
	uint64_t ask_from_ns; /* connector_ask()'s */
	struct wl_backlog backlog;
	struct log_limit complaints;
};

/* 0 or -errno. */
MUST_CHECK int wl_host_create(
	const struct wl_socket *sockets, unsigned count, struct wl_host **ret_host);
/* Another process has what it waits by; only free is left here. */
void wl_host_let_go(struct wl_host *host);
void wl_host_free(struct wl_host *host);
/* Closes all vfds. */
void wl_host_reset(struct wl_host *host);

/*
 * Does what a command says, unless the answer could be longer than `room`, which is at least
 * WL_ANSWER_SIZE. The answer, whose length it returns, is at `ret_bytes`.
 */
uint32_t wl_host_command(struct wl_host *host, const uint8_t *bytes, uint32_t size, uint32_t room,
	uint8_t ret_bytes[WL_NEW_SIZE]);

/*
 * The next message for the guest, which it reads from where it comes if need
 * be; its length, 0: none. It stays the next until wl_host_delivered().
 */
uint32_t wl_host_next_message(struct wl_host *host, uint8_t ret_bytes[WL_MESSAGE_MAX]);
void wl_host_delivered(struct wl_host *host);

/* out_epoll_fd is readable: sends what was pending. A bounded amount. */
void wl_host_flush(struct wl_host *host);
