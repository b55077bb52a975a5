// SPDX-License-Identifier: BSD-3-Clause
/*
 * The threads of vsock's rings. Buffers and their number are the guest's: it
 * may offer none, then sockets are not read and nothing spins; it may send
 * without end, then stop and the other direction have their turn all the same.
 */
#include "virtio/vsock_queue.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

/* Packets of a direction at a turn; turns of both between two looks at the sockets and the stop. */
enum { BATCH = 16, TURNS = 8, EVENTS = 32, BACKLOG = 128 };
/* For a program of the host to read, before what it has no room for is copied. */
enum { PATIENCE_MS = 1 };

/* ---- life ---- */

static int watch(const struct vsock_host *host, int fd, uint32_t events, uint64_t tag)
{
	struct epoll_event event = { .events = events, .data.u64 = tag };

	return epoll_ctl(host->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int open_fds(struct vsock_host *host)
{
	host->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	host->wake_receive_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	host->wake_transmit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (host->epoll_fd < 0 || host->wake_receive_fd < 0 || host->wake_transmit_fd < 0 ||
		listen(host->listener.fd, BACKLOG) < 0)
		return -errno;
	int r = watch(host, host->listener.fd, EPOLLIN | EPOLLET, VSOCK_TAG_LISTENER);

	return r == 0 ? watch(host, host->wake_receive_fd, EPOLLIN | EPOLLET, VSOCK_TAG_WAKE) : r;
}

int vsock_host_open(const char *path, uint64_t cid, struct vsock_host **ret_host)
{
	struct vsock_host *host = calloc(1, sizeof(*host));

	if (host == NULL)
		return -ENOMEM;
	host->path = path;
	host->cid = cid;
	host->connector_fd = -1;
	host->listener.fd = host->epoll_fd = host->wake_receive_fd = host->wake_transmit_fd = -1;
	/* A guest shall not use up those of the process, which may be the VM's. */
	vsock_table_init(&host->table, fd_make_room(VSOCK_CONNECTIONS_MAX));
	pthread_mutex_init(&host->lock, NULL);
	pthread_cond_init(&host->lent, NULL);
	int r = unix_listener_open("--vsock", path, &host->listener);

	if (r == 0) {
		r = open_fds(host);
		if (r < 0)
			log_error("--vsock: cannot wait for '%s'; see ulimit -n", path);
	}
	if (r < 0) {
		vsock_host_free(host);
		return r;
	}
	*ret_host = host;
	return 0;
}

unsigned vsock_host_fds(const struct vsock_host *host, int ret_fds[DEVICE_FDS_MAX])
{
	unsigned count = 0;

	ret_fds[count++] = host->listener.fd;
	ret_fds[count++] = host->epoll_fd;
	ret_fds[count++] = host->wake_receive_fd;
	ret_fds[count++] = host->wake_transmit_fd;
	if (host->connector_fd >= 0)
		ret_fds[count++] = host->connector_fd;
	return count;
}

void vsock_host_attach(struct vsock_host *host, int connector_fd)
{
	host->connector_fd = connector_fd;
}

const char *vsock_host_path(const struct vsock_host *host)
{
	return host->listener.address.sun_path;
}

static void close_fds(struct vsock_host *host)
{
	fd_close(&host->epoll_fd);
	fd_close(&host->wake_receive_fd);
	fd_close(&host->wake_transmit_fd);
}

void vsock_host_let_go(struct vsock_host *host)
{
	unix_listener_leave(&host->listener);
	close_fds(host);
}

void vsock_host_free(struct vsock_host *host)
{
	if (host == NULL)
		return;
	vsock_table_close_all(&host->table);
	unix_listener_close(&host->listener);
	close_fds(host);
	pthread_cond_destroy(&host->lent);
	pthread_mutex_destroy(&host->lock);
	free(host);
}

void vsock_host_stop(struct vsock_host *host)
{
	vsock_cut(host);
}

/* ---- both ways ---- */

/* A thread that lends has the first turn. */
static void enter(struct vsock_host *host)
{
	pthread_mutex_lock(&host->lock);
	while (atomic_load(&host->is_lending))
		pthread_cond_wait(&host->lent, &host->lock);
}

static void publish(struct device_queue *queue)
{
	if (virtqueue_publish(&queue->vq))
		(void)eventfd_write(queue->call_fd, 1);
}

/* ---- host to guest ---- */

/* Gives back the packets that were written, and takes back the pops of the other chains. */
static void give_room(struct device_queue *queue, const struct vsock_room *room, unsigned written)
{
	for (unsigned i = 0; i < written; i++)
		virtqueue_push(&queue->vq, room->chains[i].head, room->sizes[i]);
	for (unsigned i = room->count; i > written; i--)
		virtqueue_unpop(&queue->vq, room->chains[i - 1].head);
}

/* Takes chains: one, and what else is there for as many packets as may come at once. 0; -ENOBUFS:
 * there is none; -EBADMSG. */
static int take_room(struct device_queue *queue, struct vsock_room *room)
{
	unsigned iov_count = 0;
	int r = 1;

	room->count = 0;
	do {
		struct virtqueue_chain *chain = &room->chains[room->count];

		chain->iov = room->iov + iov_count;
		chain->iov_max = queue->size;
		r = virtqueue_pop(&queue->vq, chain);
		if (r <= 0)
			break;
		room->count++;
		iov_count += chain->writable;
		/* A header and a byte must fit; to read from there is nothing for us. */
		if (chain->writable_bytes <= VSOCK_HEADER_SIZE || chain->readable != 0)
			r = -EBADMSG;
	} while (r == 1 && room->count < queue->device->host->packets_wanted &&
		 iov_count + queue->size <= ARRAY_SIZE(room->iov));
	if (r < 0)
		give_room(queue, room, 0);
	else if (room->count == 0)
		r = -ENOBUFS;
	return r < 0 ? r : 0;
}

/* How many packets, of one connection; 0: none; -ENOBUFS: no buffer of the guest; -EBADMSG. */
static int receive_packets(struct device_queue *queue, struct vsock_room *room)
{
	struct vsock_host *host = queue->device->host;
	int r;

	/* There may be none after all. */
	do {
		if (!vsock_has_packet(host))
			return 0;
		r = take_room(queue, room);
		if (r < 0)
			return r;
		r = (int)vsock_make_packets(host, room);
		give_room(queue, room, (unsigned)r);
	} while (r == 0);
	/* One that is not full may be the end of a load. */
	host->packets_wanted = (unsigned)r == room->count
				       ? (unsigned)min_u64(2 * room->count, VSOCK_PACKETS_MAX)
				       : host->packets_wanted / 2;
	return r;
}

/* A bounded number of packets. 1: there may be more; or as receive_packets(). */
static int receive_batch(struct device_queue *queue)
{
	struct vsock_room room;
	int r = 1;

	for (int n = 0; r > 0 && n < BATCH; n += r)
		r = receive_packets(queue, &room);
	publish(queue);
	if (r > 0)
		return 1;
	/* Kicks are wanted only where buffers are missing. */
	if (r == -ENOBUFS)
		return virtqueue_enable_kicks(&queue->vq) ? 1 : 0;
	virtqueue_disable_kicks(&queue->vq);
	return r;
}

/* ---- guest to host ---- */

/* Once more, with a socket that was full: it has room, or patience is over. */
static void finish_packet(struct device_queue *queue, bool keep)
{
	struct vsock_host *host = queue->device->host;

	if (vsock_take_rest(host, keep))
		virtqueue_push(&queue->vq, host->full_head, 0);
}

/* 1: there may be more, 0: none, or none for now, -EBADMSG. */
static int transmit_packet(struct device_queue *queue, struct iovec *iov, uint64_t *bytes)
{
	struct virtqueue_chain chain = { .iov = iov, .iov_max = queue->size };
	struct vsock_host *host = queue->device->host;

	/* The guest must take resets first. */
	if (host->reset_count == VSOCK_RESETS_MAX)
		return 0;
	int r = virtqueue_pop(&queue->vq, &chain);

	if (r <= 0)
		return r;
	*bytes += chain.readable_bytes;
	if (vsock_take_packet(host, &chain)) {
		virtqueue_push(&queue->vq, chain.head, 0);
		return 1;
	}
	host->full_head = chain.head;
	host->patience_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
	return 0;
}

/* As transmit_packet(). So little that the guest hears of its credit while it has some left. */
static int transmit_batch(struct device_queue *queue)
{
	struct vsock_host *host = queue->device->host;
	struct iovec iov[VSOCK_QUEUE_SIZE];
	uint64_t bytes = 0;

	if (host->is_full)
		finish_packet(queue, clock_monotonic_ns() >= host->patience_ns);
	int r = !host->is_full;

	for (unsigned n = 0; r == 1 && n < BATCH && bytes < VSOCK_WIDE / 2; n++)
		r = transmit_packet(queue, iov, &bytes);
	publish(queue);
	return r;
}

/* The transmit queue, lent by its thread while that waits for its end. True: there may be more. */
static bool serve_lent_queue(struct vsock_host *host)
{
	struct device_queue *queue = host->transmit;

	if (queue == NULL)
		return false;
	virtqueue_disable_kicks(&queue->vq);
	int r = transmit_batch(queue);

	if (r >= 0)
		return r == 1;
	host->transmit = NULL;
	host->transmit_error = r;
	(void)eventfd_write(host->wake_transmit_fd, 1);
	return false;
}

/* Before a sleep, unless something else must come first. True: there is no need to. */
static bool await_lent_queue(struct vsock_host *host)
{
	return host->transmit != NULL && !host->is_full && host->reset_count < VSOCK_RESETS_MAX &&
	       virtqueue_enable_kicks(&host->transmit->vq);
}

static void lend(struct vsock_host *host, struct device_queue *queue)
{
	atomic_store(&host->is_lending, true);
	pthread_mutex_lock(&host->lock);
	if (host->transmit != NULL) { /* taken back */
		if (host->is_full)
			finish_packet(host->transmit, true);
		publish(host->transmit);
	}
	host->transmit = queue;
	atomic_store(&host->is_lending, false);
	pthread_cond_broadcast(&host->lent);
	pthread_mutex_unlock(&host->lock);
	(void)eventfd_write(host->wake_receive_fd, 1);
}

int vsock_serve_transmit(struct device_queue *queue)
{
	struct vsock_host *host = queue->device->host;
	struct pollfd fds[] = {
		{ .fd = queue->stop_fd, .events = POLLIN },
		{ .fd = host->wake_transmit_fd, .events = POLLIN },
	};
	eventfd_t ignored;

	host->transmit_error = 0;
	(void)eventfd_read(host->wake_transmit_fd, &ignored);
	int r = watch(host, queue->kick_fd, EPOLLIN | EPOLLET, VSOCK_TAG_TRANSMIT_KICK);

	if (r < 0)
		return r;
	lend(host, queue);
	while (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno == EINTR)
		;
	lend(host, NULL);
	(void)epoll_ctl(host->epoll_fd, EPOLL_CTL_DEL, queue->kick_fd, NULL);
	return host->transmit_error;
}

/* ---- the thread of the receive queue ---- */

/* A kick or a wake has done its work by ending the wait. As each is an edge, none need be read. */
static void take_events(struct vsock_host *host, const struct epoll_event *events, int count)
{
	for (int i = 0; i < count; i++)
		if (events[i].data.u64 <= VSOCK_TAG_LISTENER)
			vsock_take_event(host, events[i].data.u64, events[i].events);
}

static bool has_tag(const struct epoll_event *events, int count, uint64_t tag)
{
	for (int i = 0; i < count; i++)
		if (events[i].data.u64 == tag)
			return true;
	return false;
}

/* 0 with how long to wait for the next events, in milliseconds, or -errno. */
static int serve_round(struct device_queue *queue, int *ret_timeout_ms)
{
	struct vsock_host *host = queue->device->host;
	bool more = true;

	for (unsigned i = 0; i < TURNS && more; i++) {
		more = serve_lent_queue(host);
		int r = receive_batch(queue);

		if (r < 0)
			return r;
		vsock_accept(host); /* in the places that the packets freed, too */
		more = more || r == 1 || await_lent_queue(host);
	}
	*ret_timeout_ms = more ? 0 : host->is_full ? PATIENCE_MS : -1;
	return 0;
}

static int serve(struct device_queue *queue)
{
	struct vsock_host *host = queue->device->host;
	struct epoll_event events[EVENTS];
	int count = 0, timeout_ms = -1;

	for (;;) {
		bool stop = has_tag(events, count, VSOCK_TAG_STOP);

		enter(host);
		/* Those that come with the stop, too: each is an edge, and connections outlive a
		 * pause. */
		take_events(host, events, count);
		int r = stop ? 0 : serve_round(queue, &timeout_ms);

		pthread_mutex_unlock(&host->lock);
		if (stop || r < 0)
			return r;
		count = epoll_wait(host->epoll_fd, events, EVENTS, timeout_ms);
		if (count < 0 && errno != EINTR)
			return -errno;
	}
}

int vsock_serve_receive(struct device_queue *queue)
{
	struct vsock_host *host = queue->device->host;
	int r = watch(host, queue->kick_fd, EPOLLIN | EPOLLET, VSOCK_TAG_KICK);

	if (r == 0)
		r = watch(host, queue->stop_fd, EPOLLIN, VSOCK_TAG_STOP);
	if (r == 0)
		r = serve(queue);
	(void)epoll_ctl(host->epoll_fd, EPOLL_CTL_DEL, queue->kick_fd, NULL);
	(void)epoll_ctl(host->epoll_fd, EPOLL_CTL_DEL, queue->stop_fd, NULL);
	return r;
}

/* ---- events ---- */

/* 1: go on, 0: stop, or -errno. */
static int wait_for_kick(const struct device_queue *queue, int timeout_ms)
{
	struct pollfd fds[] = {
		{ .fd = queue->stop_fd, .events = POLLIN },
		{ .fd = queue->kick_fd, .events = POLLIN },
	};
	eventfd_t ignored;

	if (poll(fds, ARRAY_SIZE(fds), timeout_ms) < 0)
		return errno == EINTR ? 1 : -errno;
	if (fds[1].revents != 0)
		(void)eventfd_read(queue->kick_fd, &ignored);
	return fds[0].revents == 0;
}

/* The one event there is: the connections from before a stop are no more. */
static uint32_t report_cut(struct device *device, const struct virtqueue_chain *chain)
{
	const struct virtio_vsock_event event = { .id = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET };
	const uint8_t *bytes = (const uint8_t *)&event;
	struct vsock_data to = { .count = 0 };

	if (chain->writable_bytes < sizeof(event))
		return 0;
	vsock_data_add(&to, chain->iov + chain->readable, chain->writable, 0, sizeof(event));
	for (unsigned i = 0; i < to.count; bytes += to.iov[i++].iov_len)
		memcpy(to.iov[i].iov_base, bytes, to.iov[i].iov_len);
	device->host->was_cut = false;
	return sizeof(event);
}

/* Its buffers stay the driver's until there is an event. */
int vsock_serve_event(struct device_queue *queue)
{
	struct device *device = queue->device;
	struct iovec iov[VSOCK_QUEUE_SIZE];
	struct virtqueue_chain chain = { .iov = iov, .iov_max = queue->size };
	int r = 1;

	while (r == 1 && device->host->was_cut) {
		int popped = virtqueue_pop(&queue->vq, &chain);

		if (popped < 0)
			return popped;
		if (popped == 1)
			virtqueue_push(&queue->vq, chain.head, report_cut(device, &chain));
		publish(queue);
		bool more = popped == 1 || virtqueue_enable_kicks(&queue->vq);

		r = wait_for_kick(queue, more ? 0 : -1);
	}
	struct pollfd stop = { .fd = queue->stop_fd, .events = POLLIN };

	while (r == 1 && poll(&stop, 1, -1) <= 0)
		;
	return r < 0 ? r : 0;
}
