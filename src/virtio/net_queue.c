// SPDX-License-Identifier: BSD-3-Clause
/*
 * Frames between the guest's rings and a tap: one readv() straight into the
 * guest's buffers, one writev() out of them; or the stream to passt. Rings,
 * headers and buffer sizes are the guest's; what comes is the network's.
 */
#include "virtio/net_queue.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"

enum {
	ETHERNET_HEADER = 14,
	FRAME_MIN = NET_HEADER_SIZE + ETHERNET_HEADER,
	FRAME_MAX = NET_HEADER_SIZE + ETHERNET_HEADER + 4 + 65535,
	PLAIN_MTU = 1500,
	BATCH = 64,     /* received frames between two looks at the stop */
	SPARSE_MS = 10, /* how long we wait for a driver that offers little to offer more */
};

/* What is sent between two looks at the stop, roughly: the last frame may go beyond. */
#define BATCH_BYTES (1 * MIB)

enum { WAIT_STOP, WAIT_KICK, WAIT_CABLE, WAIT_COUNT };

/* ---- both directions ---- */

static int cable_fd(const struct device_queue *queue)
{
	const struct device *device = queue->device;

	return device->stream != NULL ? net_stream_fd(device->stream)
				      : device->tap.fds[queue->index / 2];
}

/* A tap that was deleted stays so, and passt that ended; the guest sees a line without traffic. */
static void cable_failed(const struct device_queue *queue, int error)
{
	const struct device *device = queue->device;

	if (!atomic_exchange(&queue->device->gone, true))
		log_warn("net: %s: %s; the guest has no network any more",
			device->stream != NULL ? "passt" : device->tap.name, strerror(error));
}

/* A frame whose buffers are iov[1..], with this header. 0 or -errno. */
static int transmit(struct device_queue *queue, struct virtio_net_hdr_mrg_rxbuf *header,
	struct iovec *iov, unsigned count, uint32_t size)
{
	struct net_stream *stream = queue->device->stream;

	if (stream != NULL)
		return net_stream_send(stream, iov, count, size);
	iov[0] = (struct iovec){ header, sizeof(*header) };
	return writev(cable_fd(queue), iov, (int)count) < 0 ? -errno : 0;
}

static void publish(struct device_queue *queue)
{
	if (virtqueue_publish(&queue->vq))
		(void)eventfd_write(queue->call_fd, 1);
}

/*
 * Waits for the stop, and for a kick or the network if wanted. 1: go on, 0: stop,
 * -ETIME: nothing came, or -errno.
 */
static int wait(const struct device_queue *queue, bool kick, short events, int timeout_ms)
{
	struct pollfd fds[WAIT_COUNT] = {
		[WAIT_STOP] = { .fd = queue->stop_fd, .events = POLLIN },
		[WAIT_KICK] = { .fd = kick ? queue->kick_fd : -1, .events = POLLIN },
		[WAIT_CABLE] = { .fd = events != 0 ? cable_fd(queue) : -1, .events = events },
	};
	eventfd_t kicks;
	int n;

	do {
		n = poll(fds, WAIT_COUNT, timeout_ms);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (fds[WAIT_STOP].revents != 0)
		return 0;
	if (fds[WAIT_KICK].revents != 0)
		(void)eventfd_read(queue->kick_fd, &kicks);
	return n > 0 ? 1 : -ETIME;
}

/* Whether to stop, without waiting. 1: go on, 0: stop, or -errno. */
static int look_for_stop(const struct device_queue *queue)
{
	int r = wait(queue, false, 0, 0);

	return r == -ETIME ? 1 : r;
}

/* ---- what a header may say ---- */

static bool has(uint64_t features, unsigned feature)
{
	return (features >> feature & 1) != 0;
}

/* Whether segmentation of this kind was accepted for this direction. */
static bool segments_are_good(uint64_t features, const struct virtio_net_hdr *header, bool to_guest)
{
	static const struct {
		uint8_t type;
		unsigned to_host;
		unsigned to_guest;
	} kinds[] = {
		{ VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4 },
		{ VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_GUEST_TSO6 },
	};
	unsigned ecn = to_guest ? VIRTIO_NET_F_GUEST_ECN : VIRTIO_NET_F_HOST_ECN;
	uint8_t type = header->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;

	if ((header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0)
		return false;
	if (header->gso_type == VIRTIO_NET_HDR_GSO_UDP_L4)
		return to_guest ? has(features, VIRTIO_NET_F_GUEST_USO4) ||
					  has(features, VIRTIO_NET_F_GUEST_USO6)
				: has(features, VIRTIO_NET_F_HOST_USO);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].type == type)
			return has(features, to_guest ? kinds[i].to_guest : kinds[i].to_host) &&
			       (type == header->gso_type || has(features, ecn));
	return false;
}

bool net_header_is_good(uint64_t features, const struct virtio_net_hdr *header)
{
	if ((header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0 && !has(features, VIRTIO_NET_F_CSUM))
		return false;
	return header->gso_type == VIRTIO_NET_HDR_GSO_NONE ||
	       segments_are_good(features, header, false);
}

/* ---- receive: from the network to the guest ---- */

struct receiver {
	struct device_queue *queue;
	bool mergeable;
	uint32_t wanted;   /* room for the largest frame that should come */
	uint32_t capacity; /* of the chains that are held */
	unsigned count;
	unsigned iov_count;
	struct {
		uint16_t head;
		uint16_t iov_count;
		uint32_t bytes;
	} chains[NET_QUEUE_SIZE];
	/* Of all chains, one after the other; and behind them a byte of ours that only a frame
	 * without room reaches. */
	struct iovec iov[2 * NET_QUEUE_SIZE + 1];
	uint8_t overflow;
};

static uint32_t largest_frame(const struct device *device)
{
	static const unsigned large[] = { VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
		VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6 };
	uint32_t mtu = device->options.mtu != 0 ? device->options.mtu : PLAIN_MTU;

	for (size_t i = 0; i < ARRAY_SIZE(large); i++)
		if (net_has(device, large[i]))
			return FRAME_MAX;
	return NET_HEADER_SIZE + ETHERNET_HEADER + 4 + mtu;
}

/* Takes one chain of buffers to write to. As virtqueue_pop(). */
static int hold_chain(struct receiver *receiver)
{
	struct virtqueue_chain chain = {
		.iov = receiver->iov + receiver->iov_count,
		.iov_max = receiver->queue->size,
	};
	int r = virtqueue_pop(&receiver->queue->vq, &chain);

	if (r <= 0)
		return r;
	/* The header must fit in the first; to read from there is nothing for us. */
	if (chain.writable_bytes < NET_HEADER_SIZE || chain.readable != 0)
		return -EBADMSG;
	receiver->chains[receiver->count].head = chain.head;
	receiver->chains[receiver->count].iov_count = (uint16_t)chain.writable;
	receiver->chains[receiver->count].bytes = chain.writable_bytes;
	receiver->count++;
	receiver->iov_count += chain.writable;
	receiver->capacity += chain.writable_bytes;
	return 1;
}

/* Without mergeable buffers a frame gets one chain, whatever that holds. */
static bool wants_chains(const struct receiver *receiver)
{
	if (receiver->count > 0 && !receiver->mergeable)
		return false;
	return receiver->capacity < receiver->wanted && receiver->count < NET_QUEUE_SIZE &&
	       receiver->iov_count + receiver->queue->size < ARRAY_SIZE(receiver->iov);
}

/* Holds enough chains for the next frame. 1, 0 to stop, or -errno. */
static int hold_chains(struct receiver *receiver)
{
	while (wants_chains(receiver)) {
		int r = hold_chain(receiver);

		if (r < 0)
			return r;
		if (r > 0 || virtqueue_enable_kicks(&receiver->queue->vq))
			continue;
		publish(receiver->queue);
		r = wait(receiver->queue, true, 0, receiver->count > 0 ? SPARSE_MS : -1);
		if (r == -ETIME)
			return 1; /* this driver offers no more */
		if (r <= 0)
			return r;
	}
	virtqueue_disable_kicks(&receiver->queue->vq);
	return 1;
}

/* Copies into buffers of the guest that hold as much. */
static void store(const struct iovec *iov, size_t offset, const void *data, size_t size)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < size; i++, offset++) {
		while (offset >= iov->iov_len) {
			offset -= iov->iov_len;
			iov++;
		}
		((uint8_t *)iov->iov_base)[offset] = bytes[i];
	}
}

/* Copies what such buffers begin with. */
static void load(const struct iovec *iov, void *data, size_t size)
{
	uint8_t *bytes = data;
	size_t offset = 0;

	for (size_t i = 0; i < size; i++, offset++) {
		while (offset >= iov->iov_len) {
			offset -= iov->iov_len;
			iov++;
		}
		bytes[i] = ((const uint8_t *)iov->iov_base)[offset];
	}
}

/* Gives the first `count` chains away. */
static void drop_chains(struct receiver *receiver, unsigned count)
{
	unsigned iov_count = 0;

	for (unsigned i = 0; i < count; i++) {
		iov_count += receiver->chains[i].iov_count;
		receiver->capacity -= receiver->chains[i].bytes;
	}
	receiver->count -= count;
	receiver->iov_count -= iov_count;
	memmove(receiver->chains, receiver->chains + count,
		receiver->count * sizeof(receiver->chains[0]));
	memmove(receiver->iov, receiver->iov + iov_count,
		receiver->iov_count * sizeof(receiver->iov[0]));
}

static void deliver(struct receiver *receiver, uint32_t size)
{
	uint16_t used = 0;

	for (uint32_t left = size; left > 0; used++) {
		uint32_t bytes = (uint32_t)min_u64(left, receiver->chains[used].bytes);

		virtqueue_push(&receiver->queue->vq, receiver->chains[used].head, bytes);
		left -= bytes;
	}
	/* Before publish, so that the driver sees it with the frame. */
	store(receiver->iov, offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers), &used,
		sizeof(used));
	drop_chains(receiver, used);
}

/* One frame behind its header. Bytes, or -errno: -EAGAIN when none is there. */
static ssize_t receive(struct receiver *receiver)
{
	const struct device_queue *queue = receiver->queue;
	struct net_stream *stream = queue->device->stream;

	if (stream != NULL)
		return net_stream_receive(
			stream, receiver->iov, receiver->iov_count, NET_HEADER_SIZE);
	/* A tap cuts what does not fit and does not tell. */
	receiver->iov[receiver->iov_count] = (struct iovec){ &receiver->overflow, 1 };
	ssize_t n = readv(cable_fd(queue), receiver->iov, (int)receiver->iov_count + 1);

	if (n < 0)
		return -errno;
	return n > receiver->capacity ? -EMSGSIZE : n;
}

/*
 * Whether the driver knows what this header means. A frame may have waited in
 * the tap since before the driver said what it accepts. Without GUEST_CSUM
 * there are no flags; a tap says even then that it has verified a checksum.
 */
static bool accepts_frame(const struct receiver *receiver)
{
	const struct device *device = receiver->queue->device;
	struct virtio_net_hdr header;

	load(receiver->iov, &header, sizeof(header));
	if (header.gso_type != VIRTIO_NET_HDR_GSO_NONE &&
		!segments_are_good(device->features, &header, true))
		return false;
	if (header.flags == 0 || net_has(device, VIRTIO_NET_F_GUEST_CSUM))
		return true;
	if ((header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0)
		return false;
	header.flags = 0;
	store(receiver->iov, offsetof(struct virtio_net_hdr, flags), &header.flags,
		sizeof(header.flags));
	return true;
}

/* Moves one frame. 1: done, or there was none and we waited; 0: stop; or -errno. */
static int receive_frame(struct receiver *receiver)
{
	struct device_queue *queue = receiver->queue;
	ssize_t n = receive(receiver);

	if (n >= FRAME_MIN && accepts_frame(receiver))
		deliver(receiver, (uint32_t)n);
	if (n >= 0 || n == -EINTR || n == -EMSGSIZE)
		return 1;
	publish(queue);
	if (n == -EAGAIN)
		return wait(queue, false, POLLIN, -1);
	cable_failed(queue, (int)-n);
	return wait(queue, false, 0, -1);
}

/* What is held and was not filled, the driver has still offered. */
static void give_back(struct receiver *receiver)
{
	while (receiver->count > 0)
		virtqueue_unpop(&receiver->queue->vq, receiver->chains[--receiver->count].head);
	publish(receiver->queue);
}

int net_serve_receive(struct device_queue *queue)
{
	struct receiver receiver = {
		.queue = queue,
		.mergeable = net_has(queue->device, VIRTIO_NET_F_MRG_RXBUF),
		.wanted = largest_frame(queue->device),
	};
	int r = 1;

	for (unsigned n = 1; r == 1; n++) {
		r = hold_chains(&receiver);
		if (r == 1)
			r = receive_frame(&receiver);
		if (r == 1 && n % BATCH == 0) {
			publish(queue);
			r = look_for_stop(queue);
		}
	}
	give_back(&receiver);
	return r;
}

/* ---- transmit: from the guest to the network ---- */

/* Copies the header out of the first buffers and leaves them without it. */
static void take_header(struct iovec *iov, struct virtio_net_hdr_mrg_rxbuf *ret_header)
{
	size_t done = 0;

	while (done < sizeof(*ret_header)) {
		size_t size = min_u64(iov->iov_len, sizeof(*ret_header) - done);

		memcpy((uint8_t *)ret_header + done, iov->iov_base, size);
		iov->iov_base = (uint8_t *)iov->iov_base + size;
		iov->iov_len -= size;
		done += size;
		if (iov->iov_len == 0)
			iov++;
	}
}

/*
 * Sends the frame of a chain whose buffers are iov[1..]; iov[0] is ours. 1:
 * it is gone, sent or not; 0: stop, and it was not sent; or -errno.
 */
static int send_frame(
	struct device_queue *queue, const struct virtqueue_chain *chain, struct iovec *iov)
{
	struct virtio_net_hdr_mrg_rxbuf header;
	int r = 1;

	if (chain->readable_bytes < FRAME_MIN || chain->readable_bytes > FRAME_MAX)
		return 1;
	take_header(iov + 1, &header);
	header.hdr.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header.num_buffers = 0;
	if (!net_header_is_good(queue->device->features, &header.hdr))
		return 1;
	int sent;

	do {
		sent = transmit(queue, &header, iov, chain->readable + 1,
			chain->readable_bytes - (uint32_t)sizeof(header));
		if (sent == -EAGAIN) {
			publish(queue);
			r = wait(queue, false, POLLOUT, -1);
		}
	} while (r == 1 && (sent == -EAGAIN || sent == -EINTR));
	/* A header that the kernel does not take, or a tap that is down, is no failure. */
	if (sent == -EBADFD || sent == -EPIPE)
		cable_failed(queue, -sent);
	iov[0] = (struct iovec){ NULL, 0 };
	return r;
}

/* Sends at most a ring's worth and about BATCH_BYTES. 1: there may be more, 0: none, -ECANCELED:
 * stop, or -errno. */
static int send_batch(struct device_queue *queue, struct iovec *iov)
{
	struct virtqueue_chain chain = { .iov = iov + 1, .iov_max = queue->size };
	uint64_t bytes = 0;
	int r = 1;

	for (unsigned n = 0; r == 1 && n < queue->size && bytes < BATCH_BYTES; n++) {
		r = virtqueue_pop(&queue->vq, &chain);
		if (r != 1)
			break;
		bytes += chain.readable_bytes;
		r = send_frame(queue, &chain, iov);
		if (r == 1)
			virtqueue_push(&queue->vq, chain.head, 0);
		else
			virtqueue_unpop(&queue->vq, chain.head);
		if (r == 0)
			r = -ECANCELED;
	}
	publish(queue);
	return r;
}

/* What the stream kept of the last frame must leave although no other follows. What to wait for. */
static short finish_frame(struct device_queue *queue)
{
	struct net_stream *stream = queue->device->stream;
	int r = stream != NULL ? net_stream_flush(stream) : 0;

	if (r < 0 && r != -EAGAIN)
		cable_failed(queue, -r);
	return r == -EAGAIN ? POLLOUT : 0;
}

int net_serve_transmit(struct device_queue *queue)
{
	struct iovec iov[NET_QUEUE_SIZE + 1];
	int r = 1;

	while (r == 1) {
		r = send_batch(queue, iov);
		if (r == 1 || (r == 0 && virtqueue_enable_kicks(&queue->vq)))
			r = look_for_stop(queue);
		else if (r == 0)
			r = wait(queue, true, finish_frame(queue), -1);
	}
	return r == -ECANCELED ? 0 : r;
}

/* ---- control ---- */

static uint8_t set_offloads(struct device *device, const uint8_t *data, size_t size)
{
	const uint64_t settable =
		UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM | UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4 |
		UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO6 | UINT64_C(1) << VIRTIO_NET_F_GUEST_ECN |
		UINT64_C(1) << VIRTIO_NET_F_GUEST_USO4 | UINT64_C(1) << VIRTIO_NET_F_GUEST_USO6;
	uint64_t offloads;

	if (size != sizeof(offloads) || !net_has(device, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))
		return VIRTIO_NET_ERR;
	memcpy(&offloads, data, sizeof(offloads));
	/* The receive queues go on with room for the largest frame. */
	if ((offloads & ~(device->features & settable)) != 0 ||
		net_tap_set_offloads(&device->tap, offloads) < 0)
		return VIRTIO_NET_ERR;
	return VIRTIO_NET_OK;
}

static uint8_t set_pairs(struct device *device, const uint8_t *data, size_t size)
{
	uint16_t pairs;

	if (size != sizeof(pairs) || !net_has(device, VIRTIO_NET_F_MQ))
		return VIRTIO_NET_ERR;
	memcpy(&pairs, data, sizeof(pairs));
	if (pairs < 1 || pairs > device->options.pairs ||
		net_tap_set_pairs(&device->tap, device->pairs, pairs) < 0)
		return VIRTIO_NET_ERR;
	device->pairs = pairs;
	return VIRTIO_NET_OK;
}

/* The tap gives us all frames, so that no filter is needed. */
static uint8_t accept_mode(struct device *device, const uint8_t *data, size_t size)
{
	(void)device;
	(void)data;
	return size == 1 ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
}

static uint8_t run_command(struct device *device, const uint8_t *command, size_t size)
{
	static const struct {
		uint8_t class;
		uint8_t command_max;
		uint8_t (*run)(struct device *device, const uint8_t *data, size_t size);
	} commands[] = {
		{ VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, accept_mode },
		{ VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, set_pairs },
		{ VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
			set_offloads },
	};
	const struct virtio_net_ctrl_hdr *header = (const void *)command;

	if (size < sizeof(*header))
		return VIRTIO_NET_ERR;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].class == header->class && header->cmd <= commands[i].command_max)
			return commands[i].run(
				device, command + sizeof(*header), size - sizeof(*header));
	return VIRTIO_NET_ERR;
}

static uint32_t handle_control(struct device *device, const struct virtqueue_chain *chain)
{
	uint8_t command[16]; /* the longest has 10 bytes */
	size_t size = 0;

	if (chain->writable_bytes < 1)
		return 0;
	for (unsigned i = 0; i < chain->readable && size < sizeof(command); i++) {
		size_t part = min_u64(chain->iov[i].iov_len, sizeof(command) - size);

		memcpy(command + size, chain->iov[i].iov_base, part);
		size += part;
	}
	bool whole = size == chain->readable_bytes;
	uint8_t ack = whole ? run_command(device, command, size) : VIRTIO_NET_ERR;

	store(chain->iov + chain->readable, 0, &ack, 1);
	return 1;
}

int net_serve_control(struct device_queue *queue)
{
	return device_serve_chains(queue, handle_control);
}
