/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What vsock's packets do: guest to host, packet by packet; host to guest, as
 * buffers are there for them; and the host's sockets, by epoll.
 *
 * Every answer is a bit or a count of its connection, or one of RESETS_MAX
 * resets for what is no connection; so no packet waits in memory. All of it is
 * under `lock`, which vsock_queue.c takes. The guest may send any packet at any
 * time: what fits no state costs it the connection (RST).
 *
 * Source: virtio 1.2, section 5.10.6.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/log_limit.h"
#include "base/unix_listener.h"
#include "virtio/vsock_connection.h"

enum { VSOCK_RESETS_MAX = 128 };

/* Tags of the epoll descriptor; all others are vsock_table_tag(). */
#define VSOCK_TAG_WAKE          UINT64_MAX
#define VSOCK_TAG_KICK          (UINT64_MAX - 1)
#define VSOCK_TAG_TRANSMIT_KICK (UINT64_MAX - 2)
#define VSOCK_TAG_STOP          (UINT64_MAX - 3)
#define VSOCK_TAG_LISTENER      (UINT64_MAX - 4)

struct device_queue;

struct vsock_host {
	const char *path;
	uint64_t cid;
	struct unix_listener listener;
	int connector_fd; /* borrowed: who connects for us (connector.h); -1: we do */
	int epoll_fd;     /* edges, but for what vsock_queue.c adds */
	bool is_listener_ready;
	/* What the newest packet of the guest holds, less what its socket took; whose it is. */
	struct vsock_data data;
	uint64_t data_tag;
	bool is_full; /* that socket has no room for all */
	struct vsock_table table;
	/* RSTs for packets that belong to no connection: a ring. */
	struct virtio_vsock_hdr resets[VSOCK_RESETS_MAX];
	unsigned reset_first;
	unsigned reset_count;
	struct log_limit complaints;

	/* vsock_queue.c's. */
	pthread_mutex_t lock; /* of all of this */
	pthread_cond_t lent;
	atomic_bool is_lending; /* a thread wants the lock, to lend its queue or to take it back */
	struct device_queue *transmit; /* lent, or NULL */
	int transmit_error;            /* why it was given back */
	uint16_t full_head;            /* of the packet whose socket is full */
	uint64_t patience_ns;          /* the end of the wait for that */
	uint64_t patient_from_ns;      /* the next such wait */
	uint64_t ask_from_ns;          /* connector_ask()'s */
	unsigned packets_wanted;       /* for which room is looked for at once; 0 as 1 */
	int wake_receive_fd;
	int wake_transmit_fd;
	bool was_cut; /* a stop ended connections: the driver shall hear of it */
};

/*
 * Takes one packet; reset_count < VSOCK_RESETS_MAX. False: its socket is full,
 * and is waited for a moment, so that bytes need no copy: vsock_take_rest()
 * follows before the next packet. The chain is in use until then.
 */
MUST_CHECK bool vsock_take_packet(struct vsock_host *host, const struct virtqueue_chain *chain);
/* Tries once more, and with `keep` takes what the socket does not. As vsock_take_packet(). */
MUST_CHECK bool vsock_take_rest(struct vsock_host *host, bool keep);

/* Whether vsock_make_packet() may have one. */
MUST_CHECK bool vsock_has_packet(const struct vsock_host *host);
/*
 * Writes the next packet, or several of one connection, to the first chains,
 * of which there is one at least. How many; 0: there was none after all.
 */
MUST_CHECK unsigned vsock_make_packets(struct vsock_host *host, struct vsock_room *room);

/* Takes an event of a listener's or connection's tag. */
void vsock_take_event(struct vsock_host *host, uint64_t tag, uint32_t events);
/* Whether a program may wait at the listener for which there is room. */
bool vsock_can_accept(const struct vsock_host *host);
/* Takes the programs that wait at the listener, as far as there is room. */
void vsock_accept(struct vsock_host *host);
/* The driver is gone, and all connections with it. */
void vsock_cut(struct vsock_host *host);
