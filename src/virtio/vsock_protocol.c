// SPDX-License-Identifier: BSD-3-Clause
/* The state machine of connections. Its input is hostile from one side and careless from the other.
 */
#include "virtio/vsock_protocol.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/connector.h"
#include "base/fd.h"
#include "virtio/vsock_unix.h"

/* After a wait in vain for one program, none is waited for. */
enum { REST_MS = 16 };

#define SHUTDOWN_BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

/* ---- life of a connection ---- */

/* Gone for the guest; removed when it knows, and the host has got all that it was sent. */
static void finish_if_done(struct vsock_host *host, struct vsock_connection *connection)
{
	if (connection->state == VSOCK_CLOSED && connection->pending == 0 &&
		(connection->fd < 0 || vsock_buffered(connection) == 0))
		vsock_table_remove(&host->table, connection);
}

/* Ends a connection at once, and tells the guest. */
static void reset(struct vsock_host *host, struct vsock_connection *connection)
{
	fd_close(&connection->fd);
	connection->state = VSOCK_CLOSED;
	connection->pending = VSOCK_BIT(RST);
	vsock_table_schedule(&host->table, connection);
}

/* The host's program is gone: the guest may neither send nor expect anything. */
static void host_has_left(struct vsock_host *host, struct vsock_connection *connection)
{
	fd_close(&connection->fd);
	connection->is_readable = false;
	connection->received = connection->forwarded;
	if (connection->state == VSOCK_CLOSED) {
		finish_if_done(host, connection);
		return;
	}
	if (connection->state != VSOCK_CONNECTED) {
		reset(host, connection);
		return;
	}
	connection->host_shutdown = SHUTDOWN_BOTH;
	connection->pending |= VSOCK_BIT(SHUTDOWN);
	vsock_table_schedule(&host->table, connection);
}

/*
 * The host's program takes no more, perhaps because it ended. What it wrote
 * before is still the guest's to read; then host_has_left().
 */
static void host_takes_no_more(struct vsock_host *host, struct vsock_connection *connection)
{
	bool is_read = (connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV) == 0 &&
		       (connection->host_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND) == 0;

	if (connection->state != VSOCK_CONNECTED || !is_read) {
		host_has_left(host, connection);
		return;
	}
	connection->received = connection->forwarded;
	connection->is_readable = true;
	connection->host_shutdown |= VIRTIO_VSOCK_SHUTDOWN_RCV;
	connection->pending |= VSOCK_BIT(SHUTDOWN);
	vsock_table_schedule(&host->table, connection);
}

static int control_watch(struct vsock_host *host, struct vsock_connection *connection, int op)
{
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET,
		.data.u64 = vsock_table_tag(&host->table, connection),
	};

	if (connection->is_watched_for_room)
		event.events |= EPOLLOUT;
	return epoll_ctl(host->epoll_fd, op, connection->fd, &event) < 0 ? -errno : 0;
}

static int watch(struct vsock_host *host, struct vsock_connection *connection)
{
	return control_watch(host, connection, EPOLL_CTL_ADD);
}

static bool is_full(const struct vsock_host *host, const struct vsock_connection *connection)
{
	return host->is_full && host->data_tag == vsock_table_tag(&host->table, connection);
}

/* While bytes wait for it; else each read of a host's program were an event. */
static int watch_room(struct vsock_host *host, struct vsock_connection *connection)
{
	bool is_wanted = vsock_buffered(connection) > 0 || is_full(host, connection);

	if (connection->is_watched_for_room == is_wanted)
		return 0;
	connection->is_watched_for_room = is_wanted;
	return control_watch(host, connection, EPOLL_CTL_MOD);
}

/* The guest sends no more, and the host has got all of it. */
static void pass_end_on(struct vsock_connection *connection)
{
	if ((connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND) != 0 &&
		vsock_buffered(connection) == 0 && connection->fd >= 0)
		(void)shutdown(connection->fd, SHUT_WR);
}

/* ---- packets of the guest ---- */

static void reset_stranger(struct vsock_host *host, const struct virtio_vsock_hdr *header)
{
	unsigned last = (host->reset_first + host->reset_count) % VSOCK_RESETS_MAX;

	if (header->op == VIRTIO_VSOCK_OP_RST || host->reset_count == VSOCK_RESETS_MAX)
		return;
	host->resets[last] = (struct virtio_vsock_hdr){
		.src_port = header->dst_port,
		.dst_port = header->src_port,
		.type = header->type,
	};
	host->reset_count++;
}

/* To PATH_port. */
static int connect_to_host(struct vsock_host *host, uint32_t port, int *ret_fd)
{
	if (host->connector_fd < 0)
		return vsock_unix_connect(host->path, port, ret_fd);
	int r = connector_ask(host->connector_fd, &host->ask_from_ns, port, ret_fd);

	if (connector_fault(r) != NULL)
		log_warn_limited(&host->complaints, "vsock: the helper that connects to '%s_%u' %s",
			host->path, port, connector_fault(r));
	return r;
}

static void open_connection(struct vsock_host *host, const struct virtio_vsock_hdr *header)
{
	CLEANUP_FD int fd = -1;
	struct vsock_connection *connection = NULL;

	if (header->op == VIRTIO_VSOCK_OP_REQUEST && !vsock_table_is_full(&host->table) &&
		connect_to_host(host, header->dst_port, &fd) == 0)
		connection = vsock_table_add(&host->table, fd, VSOCK_CONNECTED);
	if (connection == NULL) {
		reset_stranger(host, header);
		return;
	}
	(void)fd_steal(&fd);
	vsock_table_list(&host->table, connection, header->src_port, header->dst_port);
	connection->pending = VSOCK_BIT(RESPONSE);
	if (!vsock_credit_learn(connection, header) || watch(host, connection) < 0)
		reset(host, connection);
}

static void take_response(struct vsock_host *host, struct vsock_connection *connection,
	const struct virtio_vsock_hdr *header)
{
	(void)header;
	connection->state = VSOCK_CONNECTED;
	if (vsock_unix_confirm(connection->fd, connection->host_port) < 0)
		host_takes_no_more(host, connection);
}

static void take_reset(struct vsock_host *host, struct vsock_connection *connection,
	const struct virtio_vsock_hdr *header)
{
	(void)header;
	connection->state = VSOCK_CLOSED;
	connection->pending = 0;
	fd_close(&connection->fd);
	finish_if_done(host, connection);
}

/* Both ends: the guest is done, and waits for a RST only. What it sent is still delivered. */
static void take_shutdown(struct vsock_host *host, struct vsock_connection *connection,
	const struct virtio_vsock_hdr *header)
{
	(void)host;
	connection->guest_shutdown |= header->flags & SHUTDOWN_BOTH;
	pass_end_on(connection);
	if ((connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV) != 0) {
		if (connection->fd >= 0)
			(void)shutdown(connection->fd, SHUT_RD);
		connection->is_readable = false;
	}
	if (connection->guest_shutdown == SHUTDOWN_BOTH) {
		connection->state = VSOCK_CLOSED;
		connection->pending = VSOCK_BIT(RST);
	}
}

/* Who did not read in time is not waited for again until all is read. */
static bool is_waited_for(const struct vsock_host *host, const struct vsock_connection *connection)
{
	return vsock_buffered(connection) == 0 && connection->window == VSOCK_WIDE &&
	       clock_monotonic_ns() >= host->patient_from_ns;
}

/* Hands bytes over, or keeps them, or leaves them for later if the caller is to wait. */
static void deliver(struct vsock_host *host, struct vsock_connection *connection, bool keep)
{
	int r = vsock_forward(connection, &host->data);

	if (r == 0 && host->data.size > 0) {
		host->data_tag = vsock_table_tag(&host->table, connection);
		host->is_full = !keep && is_waited_for(host, connection);
		/* The wait was in vain, and many such would hold all others up. */
		if (keep)
			host->patient_from_ns = clock_monotonic_ns() + REST_MS * NS_PER_MS;
		r = host->is_full ? 0 : vsock_keep(connection, &host->data);
		if (r == 0 && watch_room(host, connection) < 0)
			r = -ENOMEM;
	}
	if (r < 0)
		host->is_full = false;
	if (r == -ENOBUFS || r == -ENOMEM)
		reset(host, connection);
	else if (r < 0)
		host_takes_no_more(host, connection);
}

static bool wants_data(const struct vsock_connection *connection)
{
	return connection->fd >= 0 && (connection->host_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV) == 0;
}

bool vsock_take_rest(struct vsock_host *host, bool keep)
{
	struct vsock_connection *connection = vsock_table_at(&host->table, host->data_tag);

	host->is_full = false;
	/* The host's program may have left meanwhile. */
	if (connection != NULL && connection->state == VSOCK_CONNECTED && wants_data(connection)) {
		deliver(host, connection, keep);
		vsock_table_schedule(&host->table, connection);
	}
	return !host->is_full;
}

static void take_data(struct vsock_host *host, struct vsock_connection *connection,
	const struct virtio_vsock_hdr *header)
{
	(void)header;
	if ((connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND) != 0) {
		reset(host, connection);
		return;
	}
	/* Else it was sent before the guest knew that nobody takes it. */
	if (wants_data(connection))
		deliver(host, connection, false);
}

static void take_credit(struct vsock_host *host, struct vsock_connection *connection,
	const struct virtio_vsock_hdr *header)
{
	(void)host;
	if (header->op == VIRTIO_VSOCK_OP_CREDIT_REQUEST)
		connection->pending |= VSOCK_BIT(CREDIT_UPDATE);
}

#define STATE(name) (1u << VSOCK_##name)

/* Which packet is legal when; another one resets the connection. */
static const struct {
	unsigned states;
	void (*take)(struct vsock_host *host, struct vsock_connection *connection,
		const struct virtio_vsock_hdr *header);
} takers[] = {
	[VIRTIO_VSOCK_OP_RESPONSE] = { STATE(REQUESTED), take_response },
	[VIRTIO_VSOCK_OP_RST] = { STATE(REQUESTED) | STATE(CONNECTED) | STATE(CLOSED), take_reset },
	[VIRTIO_VSOCK_OP_SHUTDOWN] = { STATE(CONNECTED), take_shutdown },
	[VIRTIO_VSOCK_OP_RW] = { STATE(CONNECTED), take_data },
	[VIRTIO_VSOCK_OP_CREDIT_UPDATE] = { STATE(CONNECTED), take_credit },
	[VIRTIO_VSOCK_OP_CREDIT_REQUEST] = { STATE(CONNECTED), take_credit },
};

static void take_for_connection(struct vsock_host *host, struct vsock_connection *connection,
	const struct virtio_vsock_hdr *header)
{
	bool is_known = header->op < ARRAY_SIZE(takers) && takers[header->op].take != NULL;
	bool is_legal = is_known && (takers[header->op].states & 1u << connection->state) != 0;

	if (connection->state == VSOCK_CLOSED && header->op != VIRTIO_VSOCK_OP_RST)
		return; /* sent before it knew */
	if (header->op != VIRTIO_VSOCK_OP_RST &&
		(!is_legal || !vsock_credit_learn(connection, header))) {
		reset(host, connection);
		return;
	}
	takers[header->op].take(host, connection, header);
}

bool vsock_take_packet(struct vsock_host *host, const struct virtqueue_chain *chain)
{
	struct virtio_vsock_hdr header;
	int r = vsock_packet_take(chain, &header, &host->data);

	if (r == -EPROTO) {
		log_warn_limited(
			&host->complaints, "vsock: the guest sent a packet without a header");
		return true;
	}
	/* Nobody else is reachable, and nobody else sends. */
	if (header.src_cid != host->cid || header.dst_cid != VMADDR_CID_HOST)
		return true;
	struct vsock_connection *connection =
		header.type == VIRTIO_VSOCK_TYPE_STREAM
			? vsock_table_find(&host->table, header.src_port, header.dst_port)
			: NULL;

	if (connection != NULL && r < 0)
		reset(host, connection);
	else if (connection != NULL)
		take_for_connection(host, connection, &header);
	else if (header.type == VIRTIO_VSOCK_TYPE_STREAM && r == 0)
		open_connection(host, &header);
	else
		reset_stranger(host, &header);
	connection = vsock_table_find(&host->table, header.src_port, header.dst_port);
	if (connection != NULL)
		vsock_table_schedule(&host->table, connection);
	return !host->is_full;
}

/* ---- packets for the guest ---- */

bool vsock_has_packet(const struct vsock_host *host)
{
	return host->reset_count > 0 || !TAILQ_EMPTY(&host->table.turns);
}

static uint32_t write_header(struct vsock_host *host, const struct virtqueue_chain *chain,
	struct virtio_vsock_hdr *header)
{
	header->src_cid = VMADDR_CID_HOST;
	header->dst_cid = host->cid;
	vsock_packet_put_header(chain->iov, header);
	return VSOCK_HEADER_SIZE + header->len;
}

static uint32_t data_room(const struct virtqueue_chain *chain)
{
	return chain->writable_bytes - VSOCK_HEADER_SIZE;
}

/* Reads straight into the guest's buffers, behind the headers. Bytes, 0 when there are none. */
static uint32_t read_data(
	struct vsock_host *host, struct vsock_connection *connection, const struct vsock_room *room)
{
	uint32_t left = vsock_credit(connection);
	struct vsock_data data = { .count = 0 };

	for (unsigned i = 0; i < room->count && left > 0; i++) {
		const struct virtqueue_chain *chain = &room->chains[i];
		uint32_t size = (uint32_t)min_u64(data_room(chain), left);

		vsock_data_add(&data, chain->iov, chain->writable, VSOCK_HEADER_SIZE, size);
		left -= size;
	}
	bool was_cut;
	ssize_t n = vsock_unix_receive(connection->fd, &data, &was_cut);

	if (n > 0) {
		/* Less than there was room for: what comes next will be an event. */
		if ((size_t)n < data.size && !was_cut && !connection->is_read_dry)
			connection->is_readable = false;
		return (uint32_t)n;
	}
	connection->is_readable = false;
	if (n == -EAGAIN)
		return 0;
	/* The end, after which the other direction may go on. */
	if (n < 0 || connection->is_hung_up ||
		(connection->host_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV) != 0) {
		host_has_left(host, connection);
		return 0;
	}
	if (connection->host_shutdown == 0)
		connection->pending |= VSOCK_BIT(SHUTDOWN);
	connection->host_shutdown |= VIRTIO_VSOCK_SHUTDOWN_SEND;
	return 0;
}

/* Which packet comes next, or -1. Bytes go before the end of them. */
static int choose_op(struct vsock_host *host, struct vsock_connection *connection,
	const struct vsock_room *room, uint32_t *ret_bytes)
{
	static const uint16_t first[] = { VIRTIO_VSOCK_OP_RST, VIRTIO_VSOCK_OP_REQUEST,
		VIRTIO_VSOCK_OP_RESPONSE, VIRTIO_VSOCK_OP_CREDIT_REQUEST };
	static const uint16_t later[] = { VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_OP_CREDIT_UPDATE };

	for (size_t i = 0; i < ARRAY_SIZE(first); i++)
		if ((connection->pending & 1u << first[i]) != 0)
			return first[i];
	if (connection->state == VSOCK_CONNECTED && connection->is_readable &&
		vsock_credit(connection) > 0) {
		*ret_bytes = read_data(host, connection, room);
		if (*ret_bytes > 0)
			return VIRTIO_VSOCK_OP_RW;
	}
	for (size_t i = 0; i < ARRAY_SIZE(later); i++)
		if ((connection->pending & 1u << later[i]) != 0)
			return later[i];
	return -1;
}

/* Linux speaks of its room when most of it is filled; asked earlier, it need not be waited for. */
static bool has_half_credit(const struct vsock_connection *connection)
{
	return vsock_credit(connection) >= connection->peer_buf_alloc / 2;
}

/* What the guest knows once it has the packet. */
static void count_packet(struct vsock_connection *connection, const struct virtio_vsock_hdr *header)
{
	bool had_half = has_half_credit(connection);

	connection->pending &= ~(1u << header->op | VSOCK_BIT(CREDIT_UPDATE));
	connection->reported = connection->forwarded;
	connection->sent += header->len;
	if (header->op == VIRTIO_VSOCK_OP_RW &&
		(had_half != has_half_credit(connection) || vsock_credit(connection) == 0))
		connection->pending |= VSOCK_BIT(CREDIT_REQUEST);
	if (header->op == VIRTIO_VSOCK_OP_RST && connection->is_listed) {
		LIST_REMOVE(connection, bucket);
		connection->is_listed = false;
	}
}

static unsigned make_for_connection(
	struct vsock_host *host, struct vsock_connection *connection, struct vsock_room *room)
{
	uint32_t bytes = 0;
	int op = choose_op(host, connection, room, &bytes);
	unsigned count = 0;

	if (op < 0)
		return 0;
	do {
		const struct virtqueue_chain *chain = &room->chains[count];
		struct virtio_vsock_hdr header = {
			.src_port = connection->host_port,
			.dst_port = connection->guest_port,
			.len = (uint32_t)min_u64(bytes, data_room(chain)),
			.type = VIRTIO_VSOCK_TYPE_STREAM,
			.op = (uint16_t)op,
			.flags = op == VIRTIO_VSOCK_OP_SHUTDOWN ? connection->host_shutdown : 0,
			.buf_alloc = connection->window,
			.fwd_cnt = connection->forwarded,
		};

		count_packet(connection, &header);
		room->sizes[count++] = write_header(host, chain, &header);
		bytes -= header.len;
	} while (bytes > 0);
	return count;
}

unsigned vsock_make_packets(struct vsock_host *host, struct vsock_room *room)
{
	if (host->reset_count > 0) {
		struct virtio_vsock_hdr header = host->resets[host->reset_first];

		header.op = VIRTIO_VSOCK_OP_RST;
		host->reset_first = (host->reset_first + 1) % VSOCK_RESETS_MAX;
		host->reset_count--;
		room->sizes[0] = write_header(host, &room->chains[0], &header);
		return 1;
	}
	struct vsock_connection *connection = vsock_table_next(&host->table);

	if (connection == NULL)
		return 0;
	unsigned count = make_for_connection(host, connection, room);

	vsock_table_schedule(&host->table, connection);
	finish_if_done(host, connection);
	return count;
}

/* ---- the host's sockets ---- */

static void take_greeting(struct vsock_host *host, struct vsock_connection *connection)
{
	uint32_t guest_port;
	int r = vsock_unix_take_greeting(connection->fd, &guest_port);

	/* Of a line that was cut short there will be no rest, and no other event. */
	if (r == -EAGAIN && !connection->is_hung_up)
		return;
	if (r < 0) {
		vsock_table_remove(&host->table, connection);
		return;
	}
	vsock_table_list(&host->table, connection, guest_port,
		vsock_table_choose_port(&host->table, guest_port));
	connection->state = VSOCK_REQUESTED;
	connection->pending = VSOCK_BIT(REQUEST);
	vsock_table_schedule(&host->table, connection);
}

bool vsock_can_accept(const struct vsock_host *host)
{
	return host->is_listener_ready && !vsock_table_is_full(&host->table);
}

void vsock_accept(struct vsock_host *host)
{
	int fd;

	while (vsock_can_accept(host)) {
		int r = vsock_unix_accept(host->listener.fd, &fd);

		/* Without descriptors we try again when something else has happened. */
		if (r == -EAGAIN)
			host->is_listener_ready = false;
		if (r < 0)
			return;
		struct vsock_connection *connection =
			vsock_table_add(&host->table, fd, VSOCK_GREETING);

		if (watch(host, connection) < 0)
			vsock_table_remove(&host->table, connection);
	}
}

/* What the host did not take is tried again; then its end. */
static void take_room(struct vsock_host *host, struct vsock_connection *connection)
{
	if (!connection->is_watched_for_room)
		return;
	if (vsock_flush(connection) < 0 || watch_room(host, connection) < 0) {
		host_takes_no_more(host, connection);
		return;
	}
	pass_end_on(connection);
	vsock_table_schedule(&host->table, connection);
	finish_if_done(host, connection);
}

void vsock_take_event(struct vsock_host *host, uint64_t tag, uint32_t events)
{
	if (tag == VSOCK_TAG_LISTENER) {
		host->is_listener_ready = true;
		return;
	}
	struct vsock_connection *connection = vsock_table_at(&host->table, tag);

	if (connection == NULL || connection->fd < 0)
		return;
	if ((events & (EPOLLHUP | EPOLLERR)) != 0)
		connection->is_hung_up = true;
	if ((events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP | EPOLLPRI)) != 0)
		connection->is_read_dry = true;
	if (connection->state == VSOCK_GREETING) {
		take_greeting(host, connection);
		return;
	}
	bool is_read = (connection->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV) == 0;
	/* What it said before the guest answers waits for that. */
	bool is_awaited = connection->state == VSOCK_REQUESTED
				  ? vsock_unix_has_bytes(connection->fd)
				  : is_read;

	if (connection->is_hung_up && !is_awaited) {
		host_has_left(host, connection);
		return;
	}
	/* Bytes before the end are still there to be read, and then the end itself. */
	if ((events & ~(uint32_t)EPOLLOUT) != 0)
		connection->is_readable = is_read;
	vsock_table_schedule(&host->table, connection);
	if ((events & (EPOLLOUT | EPOLLHUP)) != 0)
		take_room(host, connection);
}

void vsock_cut(struct vsock_host *host)
{
	host->was_cut |= host->table.used > 0;
	vsock_table_close_all(&host->table);
	host->reset_count = 0;
	host->is_full = false;
}
