/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The connections of a vsock device: a table of fixed size, what each one has
 * to tell the guest, and the credit of both directions.
 *
 * Memory is bounded: VSOCK_CONNECTIONS_MAX connections, of which each buffers
 * its window at most for a program of the host that does not read: 64 MiB in
 * all. The first few at a time have a wide window, for with a narrow one the
 * guest waits for us after each packet. Nothing is buffered towards the guest:
 * what the guest has no room for stays in the unix socket.
 *
 * The guest chooses ports, credit and the order of packets. The device's lock
 * guards all of it. Source: virtio 1.2, section 5.10.6.3.
 */
#pragma once

#include <sys/queue.h>

#include "base/util.h"
#include "virtio/vsock_packet.h"

enum { VSOCK_CONNECTIONS_MAX = 1024, VSOCK_BUCKETS = 256 };
/* Powers of two, since the counts of a connection go on modulo 2^32. */
enum { VSOCK_WIDE_MAX = 64, VSOCK_WIDE = 512 << 10, VSOCK_NARROW = 32 << 10 };
_Static_assert(
	VSOCK_WIDE_MAX *VSOCK_WIDE + (VSOCK_CONNECTIONS_MAX - VSOCK_WIDE_MAX) * VSOCK_NARROW <=
		64 << 20,
	"64 MiB");

#define VSOCK_BIT(op) (1u << VIRTIO_VSOCK_OP_##op)

enum vsock_state {
	VSOCK_FREE,
	VSOCK_GREETING,  /* a program of the host that has not said a port */
	VSOCK_REQUESTED, /* the guest has not answered it */
	VSOCK_CONNECTED,
	VSOCK_CLOSED, /* for the guest; its last bytes may wait for the host */
};

struct vsock_connection {
	enum vsock_state state;
	uint32_t age; /* of this use of the place */
	int fd;       /* -1: the host's side is gone */
	uint32_t guest_port;
	uint32_t host_port;
	LIST_ENTRY(vsock_connection) bucket;
	bool is_listed; /* in a bucket: the guest's packets find it */
	TAILQ_ENTRY(vsock_connection) turn;
	bool is_waiting;  /* for its turn */
	unsigned pending; /* VSOCK_BIT() of packets that the guest shall get */

	/* From the guest to the host; the counts go on modulo 2^32. */
	uint32_t window; /* VSOCK_WIDE or VSOCK_NARROW */
	uint8_t *buffer; /* of that size, or NULL while nothing waits */
	bool is_watched_for_room;
	uint32_t received;  /* bytes */
	uint32_t forwarded; /* of them, to the socket */
	uint32_t reported;  /* of those, as the guest knows */
	uint32_t guest_shutdown;

	/* From the host to the guest. */
	bool is_readable; /* the socket has bytes, or its end */
	bool is_read_dry; /* a short read is not the last: the end, or urgent bytes, are due */
	bool is_hung_up;  /* nobody reads or writes at its other end */
	uint32_t sent;
	uint32_t peer_buf_alloc;
	uint32_t peer_fwd_cnt;
	uint32_t host_shutdown; /* that the guest shall know */
};

struct vsock_table {
	struct vsock_connection connections[VSOCK_CONNECTIONS_MAX];
	LIST_HEAD(vsock_bucket, vsock_connection) buckets[VSOCK_BUCKETS];
	TAILQ_HEAD(vsock_turns, vsock_connection) turns;
	uint32_t next_host_port;
	unsigned used;
	unsigned most; /* for which there are descriptors */
};

void vsock_table_init(struct vsock_table *table, unsigned most);
void vsock_table_close_all(struct vsock_table *table);

static inline bool vsock_table_is_full(const struct vsock_table *table)
{
	return table->used == table->most;
}

/* A connection that owns `fd` then, or NULL when the table is full. */
struct vsock_connection *vsock_table_add(struct vsock_table *table, int fd, enum vsock_state state);
/* Lets packets between these ports find it. */
void vsock_table_list(struct vsock_table *table, struct vsock_connection *connection,
	uint32_t guest_port, uint32_t host_port);
/* A port of the host, on which nothing of this guest's port is connected. */
uint32_t vsock_table_choose_port(struct vsock_table *table, uint32_t guest_port);
struct vsock_connection *vsock_table_find(
	const struct vsock_table *table, uint32_t guest_port, uint32_t host_port);
/* For events: the connection of a tag, or NULL when it is gone. */
uint64_t vsock_table_tag(
	const struct vsock_table *table, const struct vsock_connection *connection);
struct vsock_connection *vsock_table_at(struct vsock_table *table, uint64_t tag);
void vsock_table_remove(struct vsock_table *table, struct vsock_connection *connection);

/* Queues the connection for its turn if it has something for the guest. */
void vsock_table_schedule(struct vsock_table *table, struct vsock_connection *connection);
/* The next one whose turn it is, taken out of the queue, or NULL. */
struct vsock_connection *vsock_table_next(struct vsock_table *table);

/* How many bytes the guest has room for. */
uint32_t vsock_credit(const struct vsock_connection *connection);
/* What a packet says of the guest's room. False: it took more than it got. */
MUST_CHECK bool vsock_credit_learn(
	struct vsock_connection *connection, const struct virtio_vsock_hdr *header);

static inline uint32_t vsock_buffered(const struct vsock_connection *connection)
{
	return connection->received - connection->forwarded;
}

/*
 * Hands bytes of the guest to the socket, unless earlier ones are kept; `data`
 * is then the rest. 0; -ENOBUFS: more than the credit; or the socket's -errno.
 */
MUST_CHECK int vsock_forward(struct vsock_connection *connection, struct vsock_data *data);
/* Keeps that rest in memory. 0 or -ENOMEM. */
MUST_CHECK int vsock_keep(struct vsock_connection *connection, const struct vsock_data *data);
/* Hands over what was kept. 0, also if the socket does not take all, or -errno. */
MUST_CHECK int vsock_flush(struct vsock_connection *connection);
