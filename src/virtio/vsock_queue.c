// SPDX-License-Identifier: BSD-3-Clause
/*
 * The threads of vsock's rings. Buffers and their number are the guest's: it
 * may offer none, then sockets are not read and nothing spins; it may send
 * without end, then stop and the other thread have their turn all the same.
 */
#include "virtio/vsock_queue.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"

enum { BATCH = 64, EVENTS = 32, BACKLOG = 128 };

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

	return r == 0 ? watch(host, host->wake_receive_fd, EPOLLIN, VSOCK_TAG_WAKE) : r;
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
	vsock_table_init(&host->table);
	pthread_mutex_init(&host->lock, NULL);
	pthread_cond_init(&host->turn, NULL);
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

void vsock_host_free(struct vsock_host *host)
{
	if (host == NULL)
		return;
	vsock_table_close_all(&host->table);
	unix_listener_close(&host->listener);
	fd_close(&host->epoll_fd);
	fd_close(&host->wake_receive_fd);
	fd_close(&host->wake_transmit_fd);
	pthread_cond_destroy(&host->turn);
	pthread_mutex_destroy(&host->lock);
	free(host);
}

void vsock_host_stop(struct vsock_host *host)
{
	vsock_cut(host);
	host->is_receive_asleep = host->is_transmit_paused = false;
}

/* ---- both threads ---- */

static void take_turn(struct vsock_host *host)
{
	pthread_mutex_lock(&host->lock);
	uint64_t ticket = host->next_ticket++;

	while (host->served_ticket != ticket)
		pthread_cond_wait(&host->turn, &host->lock);
	pthread_mutex_unlock(&host->lock);
}

static void give_turn(struct vsock_host *host)
{
	pthread_mutex_lock(&host->lock);
	host->served_ticket++;
	pthread_cond_broadcast(&host->turn);
	pthread_mutex_unlock(&host->lock);
}

static void publish(struct device_queue *queue)
{
	if (virtqueue_publish(&queue->vq))
		(void)eventfd_write(queue->call_fd, 1);
}

/* ---- host to guest ---- */

/* One packet. 1: there may be more, 0: none, -ENOBUFS: no buffer of the guest, -EBADMSG. */
static int receive_packet(struct device_queue *queue, struct iovec *iov)
{
	struct virtqueue_chain chain = { .iov = iov, .iov_max = queue->size };
	struct vsock_host *host = queue->device->host;

	if (!vsock_has_packet(host))
		return 0;
	int r = virtqueue_pop(&queue->vq, &chain);

	if (r <= 0)
		return r == 0 ? -ENOBUFS : r;
	/* A header and a byte must fit; to read from there is nothing for us. */
	if (chain.writable_bytes <= VSOCK_HEADER_SIZE || chain.readable != 0) {
		virtqueue_unpop(&queue->vq, chain.head);
		return -EBADMSG;
	}
	uint32_t size = vsock_make_packet(host, &chain);

	if (size > 0)
		virtqueue_push(&queue->vq, chain.head, size);
	else
		virtqueue_unpop(&queue->vq, chain.head);
	return 1;
}

/* A bounded number of packets. As receive_packet(). */
static int receive_batch(struct device_queue *queue)
{
	struct vsock_host *host = queue->device->host;
	struct iovec iov[VSOCK_QUEUE_SIZE];
	int r = 1;

	take_turn(host);
	for (unsigned n = 0; r == 1 && n < BATCH; n++)
		r = receive_packet(queue, iov);
	vsock_accept(host); /* in the places that the packets freed, too */
	if (host->is_transmit_paused && host->reset_count < VSOCK_RESETS_MAX / 2) {
		host->is_transmit_paused = false;
		(void)eventfd_write(host->wake_transmit_fd, 1);
	}
	host->is_receive_asleep = r == 0;
	give_turn(host);
	publish(queue);
	return r;
}

static void take_events(
	struct device_queue *queue, const struct epoll_event *events, int count, bool *ret_stop)
{
	struct vsock_host *host = queue->device->host;
	eventfd_t ignored;

	take_turn(host);
	host->is_receive_asleep = false;
	for (int i = 0; i < count; i++) {
		uint64_t tag = events[i].data.u64;

		if (tag == VSOCK_TAG_STOP)
			*ret_stop = true;
		else if (tag == VSOCK_TAG_KICK)
			(void)eventfd_read(queue->kick_fd, &ignored);
		else if (tag == VSOCK_TAG_WAKE)
			(void)eventfd_read(host->wake_receive_fd, &ignored);
		else
			vsock_take_event(host, tag, events[i].events);
	}
	give_turn(host);
}

/* Waits, or only looks. 1: go on, 0: stop, or -errno. */
static int wait_for_events(struct device_queue *queue, bool wait)
{
	struct epoll_event events[EVENTS];
	bool stop = false;
	int n = epoll_wait(queue->device->host->epoll_fd, events, EVENTS, wait ? -1 : 0);

	if (n < 0)
		return errno == EINTR ? 1 : -errno;
	if (n > 0)
		take_events(queue, events, n, &stop);
	return stop ? 0 : 1;
}

static int serve_receive(struct device_queue *queue)
{
	int r = 1;

	while (r == 1) {
		int more = receive_batch(queue);

		if (more < 0 && more != -ENOBUFS)
			return more;
		/* Kicks are wanted only where buffers are missing. */
		if (more == -ENOBUFS)
			more = virtqueue_enable_kicks(&queue->vq) ? 1 : 0;
		else
			virtqueue_disable_kicks(&queue->vq);
		r = wait_for_events(queue, more == 0);
	}
	return r;
}

int vsock_serve_receive(struct device_queue *queue)
{
	struct vsock_host *host = queue->device->host;
	int r = watch(host, queue->kick_fd, EPOLLIN, VSOCK_TAG_KICK);

	if (r == 0)
		r = watch(host, queue->stop_fd, EPOLLIN, VSOCK_TAG_STOP);
	if (r == 0)
		r = serve_receive(queue);
	(void)epoll_ctl(host->epoll_fd, EPOLL_CTL_DEL, queue->kick_fd, NULL);
	(void)epoll_ctl(host->epoll_fd, EPOLL_CTL_DEL, queue->stop_fd, NULL);
	publish(queue);
	return r;
}

/* ---- guest to host ---- */

/* 1: there may be more, 0: none, -ENOBUFS: the guest must take resets first, -EBADMSG. */
static int transmit_packet(struct device_queue *queue, struct iovec *iov)
{
	struct virtqueue_chain chain = { .iov = iov, .iov_max = queue->size };
	struct vsock_host *host = queue->device->host;

	if (host->reset_count == VSOCK_RESETS_MAX)
		return -ENOBUFS;
	int r = virtqueue_pop(&queue->vq, &chain);

	if (r == 1) {
		vsock_take_packet(host, &chain);
		virtqueue_push(&queue->vq, chain.head, 0);
	}
	return r;
}

static int transmit_batch(struct device_queue *queue)
{
	struct vsock_host *host = queue->device->host;
	struct iovec iov[VSOCK_QUEUE_SIZE];
	int r = 1;

	take_turn(host);
	for (unsigned n = 0; r == 1 && n < BATCH; n++)
		r = transmit_packet(queue, iov);
	host->is_transmit_paused = r == -ENOBUFS;
	if (host->is_receive_asleep && (vsock_has_packet(host) || vsock_can_accept(host))) {
		host->is_receive_asleep = false;
		(void)eventfd_write(host->wake_receive_fd, 1);
	}
	give_turn(host);
	publish(queue);
	return r;
}

/* 1: go on, 0: stop, or -errno. */
static int wait_for_kick(const struct device_queue *queue, bool kick, int timeout_ms)
{
	const struct vsock_host *host = queue->device->host;
	bool is_transmit = queue->index == VSOCK_TX;
	struct pollfd fds[] = {
		{ .fd = queue->stop_fd, .events = POLLIN },
		{ .fd = is_transmit ? host->wake_transmit_fd : -1, .events = POLLIN },
		{ .fd = kick ? queue->kick_fd : -1, .events = POLLIN },
	};
	eventfd_t ignored;

	if (poll(fds, ARRAY_SIZE(fds), timeout_ms) < 0)
		return errno == EINTR ? 1 : -errno;
	if (fds[0].revents != 0)
		return 0;
	if (fds[1].revents != 0)
		(void)eventfd_read(host->wake_transmit_fd, &ignored);
	if (fds[2].revents != 0)
		(void)eventfd_read(queue->kick_fd, &ignored);
	return 1;
}

int vsock_serve_transmit(struct device_queue *queue)
{
	int r = 1;

	while (r == 1) {
		int more = transmit_batch(queue);

		if (more < 0 && more != -ENOBUFS)
			return more;
		if (more == 0 && virtqueue_enable_kicks(&queue->vq))
			more = 1;
		r = wait_for_kick(queue, more == 0, more == 1 ? 0 : -1);
	}
	return r;
}

/* ---- events ---- */

/* The one event there is: the connections from before a stop are no more. */
static uint32_t report_cut(struct device *device, const struct virtqueue_chain *chain)
{
	const struct virtio_vsock_event event = { .id = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET };
	const uint8_t *bytes = (const uint8_t *)&event;
	struct vsock_data to;

	if (chain->writable_bytes < sizeof(event))
		return 0;
	vsock_data_slice(chain->iov + chain->readable, chain->writable, 0, sizeof(event), &to);
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

		r = wait_for_kick(queue, true, more ? 0 : -1);
	}
	struct pollfd stop = { .fd = queue->stop_fd, .events = POLLIN };

	while (r == 1 && poll(&stop, 1, -1) <= 0)
		;
	return r < 0 ? r : 0;
}
