// SPDX-License-Identifier: BSD-3-Clause
/* Ports, credit and lengths are the guest's; all arithmetic on counts is modulo 2^32. */
#include "virtio/vsock_connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "virtio/vsock_unix.h"

/* Above the ports that programs of the host listen on by convention. */
#define FIRST_HOST_PORT (UINT32_C(1) << 30)
#define LAST_HOST_PORT  (UINT32_C(1) << 31)
/* More in flight would make a count that lies look like an old one. */
#define PEER_BUFFER_MAX (UINT32_C(1) << 30)

/* ---- the table ---- */

void vsock_table_init(struct vsock_table *table, unsigned most)
{
	table->most = most;
	TAILQ_INIT(&table->turns);
	for (unsigned i = 0; i < VSOCK_BUCKETS; i++)
		LIST_INIT(&table->buckets[i]);
	table->next_host_port = FIRST_HOST_PORT;
}

void vsock_table_close_all(struct vsock_table *table)
{
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX && table->used > 0; i++)
		if (table->connections[i].state != VSOCK_FREE)
			vsock_table_remove(table, &table->connections[i]);
}

struct vsock_connection *vsock_table_add(struct vsock_table *table, int fd, enum vsock_state state)
{
	struct vsock_connection *connection = table->connections;

	if (vsock_table_is_full(table))
		return NULL;
	while (connection->state != VSOCK_FREE)
		connection++;
	*connection = (struct vsock_connection){
		.state = state,
		.age = connection->age + 1,
		.fd = fd,
		.is_readable = true,
		.window = connection < table->connections + VSOCK_WIDE_MAX ? VSOCK_WIDE
									   : VSOCK_NARROW,
	};
	table->used++;
	if (connection->window == VSOCK_WIDE)
		vsock_unix_make_room(fd, VSOCK_WIDE);
	return connection;
}

static unsigned bucket_of(uint32_t guest_port, uint32_t host_port)
{
	return (guest_port * 31 + host_port) % VSOCK_BUCKETS;
}

void vsock_table_list(struct vsock_table *table, struct vsock_connection *connection,
	uint32_t guest_port, uint32_t host_port)
{
	connection->guest_port = guest_port;
	connection->host_port = host_port;
	connection->is_listed = true;
	LIST_INSERT_HEAD(&table->buckets[bucket_of(guest_port, host_port)], connection, bucket);
}

struct vsock_connection *vsock_table_find(
	const struct vsock_table *table, uint32_t guest_port, uint32_t host_port)
{
	struct vsock_connection *connection;

	LIST_FOREACH(connection, &table->buckets[bucket_of(guest_port, host_port)], bucket)
	if (connection->guest_port == guest_port && connection->host_port == host_port)
		return connection;
	return NULL;
}

uint32_t vsock_table_choose_port(struct vsock_table *table, uint32_t guest_port)
{
	uint32_t port;

	/* There are more ports than connections. */
	do {
		port = table->next_host_port++;
		if (table->next_host_port == LAST_HOST_PORT)
			table->next_host_port = FIRST_HOST_PORT;
	} while (vsock_table_find(table, guest_port, port) != NULL);
	return port;
}

uint64_t vsock_table_tag(const struct vsock_table *table, const struct vsock_connection *connection)
{
	return (uint64_t)connection->age << 32 | (uint64_t)(connection - table->connections);
}

struct vsock_connection *vsock_table_at(struct vsock_table *table, uint64_t tag)
{
	struct vsock_connection *connection = &table->connections[(uint32_t)tag];

	return connection->state != VSOCK_FREE && connection->age == tag >> 32 ? connection : NULL;
}

static void leave_turn(struct vsock_table *table, struct vsock_connection *connection)
{
	if (connection->is_waiting)
		TAILQ_REMOVE(&table->turns, connection, turn);
	connection->is_waiting = false;
}

void vsock_table_remove(struct vsock_table *table, struct vsock_connection *connection)
{
	leave_turn(table, connection);
	if (connection->is_listed)
		LIST_REMOVE(connection, bucket);
	fd_close(&connection->fd);
	free(connection->buffer);
	connection->buffer = NULL;
	connection->state = VSOCK_FREE;
	table->used--;
}

static bool has_work(const struct vsock_connection *connection)
{
	if (connection->pending != 0)
		return true;
	return connection->state == VSOCK_CONNECTED && connection->is_readable &&
	       vsock_credit(connection) > 0;
}

void vsock_table_schedule(struct vsock_table *table, struct vsock_connection *connection)
{
	if (connection->is_waiting || !has_work(connection))
		return;
	TAILQ_INSERT_TAIL(&table->turns, connection, turn);
	connection->is_waiting = true;
}

struct vsock_connection *vsock_table_next(struct vsock_table *table)
{
	struct vsock_connection *connection = TAILQ_FIRST(&table->turns);

	if (connection != NULL)
		leave_turn(table, connection);
	return connection;
}

/* ---- credit ---- */

uint32_t vsock_credit(const struct vsock_connection *connection)
{
	uint32_t in_flight = connection->sent - connection->peer_fwd_cnt;

	/* A buffer may have shrunk below what is on the way. */
	return in_flight < connection->peer_buf_alloc ? connection->peer_buf_alloc - in_flight : 0;
}

bool vsock_credit_learn(struct vsock_connection *connection, const struct virtio_vsock_hdr *header)
{
	uint32_t in_flight = connection->sent - header->fwd_cnt;

	if (in_flight > INT32_MAX)
		return false;
	/* Threads of a guest overtake each other: what is older than we know says nothing. */
	if (in_flight > connection->sent - connection->peer_fwd_cnt)
		return true;
	connection->peer_fwd_cnt = header->fwd_cnt;
	connection->peer_buf_alloc = (uint32_t)min_u64(header->buf_alloc, PEER_BUFFER_MAX);
	return true;
}

/* ---- from the guest to the host ---- */

/* Half of the window, so that the guest need not wait for our word while it sends. */
static void count_forwarded(struct vsock_connection *connection, size_t bytes)
{
	connection->forwarded += (uint32_t)bytes;
	if (connection->forwarded - connection->reported >= connection->window / 2 &&
		connection->state == VSOCK_CONNECTED)
		connection->pending |= VSOCK_BIT(CREDIT_UPDATE);
}

int vsock_keep(struct vsock_connection *connection, const struct vsock_data *data)
{
	size_t skip = 0;

	if (connection->buffer == NULL)
		connection->buffer = malloc(connection->window);
	if (connection->buffer == NULL)
		return -ENOMEM;
	/* Byte n of the stream lies at n modulo the buffer's size. */
	for (size_t left = data->size; left > 0;) {
		uint32_t at = connection->received % connection->window;
		size_t part = min_u64(left, connection->window - at);

		vsock_data_copy(data, skip, connection->buffer + at, part);
		connection->received += (uint32_t)part;
		skip += part;
		left -= part;
	}
	return 0;
}

int vsock_forward(struct vsock_connection *connection, struct vsock_data *data)
{
	if (data->size > connection->window - vsock_buffered(connection))
		return -ENOBUFS;
	if (data->size == 0 || vsock_buffered(connection) > 0)
		return 0;
	ssize_t n = vsock_unix_send(connection->fd, data->iov, data->count);

	if (n < 0)
		return n == -EAGAIN ? 0 : (int)n;
	connection->received += (uint32_t)n;
	count_forwarded(connection, (size_t)n);
	vsock_data_skip(data, (size_t)n);
	return 0;
}

int vsock_flush(struct vsock_connection *connection)
{
	while (vsock_buffered(connection) > 0) {
		uint32_t at = connection->forwarded % connection->window;
		uint32_t size = vsock_buffered(connection);
		size_t first = min_u64(size, connection->window - at);
		const struct iovec iov[] = {
			{ connection->buffer + at, first },
			{ connection->buffer, size - first },
		};
		ssize_t n = vsock_unix_send(connection->fd, iov, ARRAY_SIZE(iov));

		if (n < 0)
			return n == -EAGAIN ? 0 : (int)n;
		count_forwarded(connection, (size_t)n);
	}
	free(connection->buffer);
	connection->buffer = NULL;
	return 0;
}
