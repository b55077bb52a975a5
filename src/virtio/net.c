// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-net: a network card whose cable ends in a tap of the host or in
 * passt. The rings are served by threads (net_queue.h), by the kernel's vhost-net, or by passt.
 * The driver chooses features and sends what it likes; the other side is the
 * network.
 *
 * Source: virtio 1.2, section 5.1.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>

#include "base/fd.h"
#include "base/log.h"
#include "virtio/device.h"
#include "virtio/net_passt.h"
#include "virtio/net_queue.h"

#define BIT(feature) (UINT64_C(1) << (feature))

enum { PASST_MTU = 65520 };
enum { CONFIG_SIZE = offsetof(struct virtio_net_config, mtu) + sizeof(uint16_t) };

/* What a tap can do for whoever has its ring. */
#define OFFLOADS                                                                                   \
	(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |    \
		BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) |                       \
		BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |                        \
		BIT(VIRTIO_NET_F_HOST_ECN))
#define USO                                                                                        \
	(BIT(VIRTIO_NET_F_GUEST_USO4) | BIT(VIRTIO_NET_F_GUEST_USO6) | BIT(VIRTIO_NET_F_HOST_USO))
/* What the control queue does, which the kernel does not serve. */
#define CONTROL                                                                                    \
	(BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX) |                                   \
		BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))

static bool is_kernels(const struct device *device)
{
	return device->vhost_fd >= 0;
}

/* Whether threads of ours serve the rings; only they know of a control queue. */
static bool is_ours(const struct device *device)
{
	return !is_kernels(device) && !net_options_have_back_end(&device->options);
}

static unsigned net_queue_count(const struct device *device)
{
	return 2 * device->options.pairs + is_ours(device);
}

static uint64_t net_features(const struct device *device)
{
	uint64_t features =
		BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_MRG_RXBUF);

	if (device->stream == NULL)
		features |= OFFLOADS;
	if (device->tap.has_uso)
		features |= USO;
	if (device->options.mtu != 0)
		features |= BIT(VIRTIO_NET_F_MTU);
	if (is_ours(device))
		features |= CONTROL;
	if (device->options.pairs > 1)
		features |= BIT(VIRTIO_NET_F_MQ);
	return features;
}

static void net_config_read(struct device *device, uint32_t offset, uint8_t *data, uint32_t size)
{
	/* A driver that looks sees the end of the network; nothing in the contract tells it to. */
	struct virtio_net_config config = {
		.status = device->gone ? 0 : VIRTIO_NET_S_LINK_UP,
		.max_virtqueue_pairs = (uint16_t)device->options.pairs,
		.mtu = (uint16_t)device->options.mtu,
	};

	memcpy(config.mac, device->options.mac, sizeof(config.mac));
	memcpy(data, (const uint8_t *)&config + offset, size);
}

/* Before the driver speaks there is one pair, and of offloads those that it accepted. */
static int net_start(struct device *device, uint64_t features)
{
	device->features = features;
	int r = net_tap_set_offloads(&device->tap, features);

	if (r == 0)
		r = net_tap_set_pairs(&device->tap, device->pairs, 1);
	if (r == 0)
		device->pairs = 1;
	/* A tap that is gone makes no network, but no broken device either. */
	return r == -EBADFD ? 0 : r;
}

/* A driver that does not know of several pairs has its control queue after the first. */
static bool is_control(const struct device_queue *queue)
{
	const struct device *device = queue->device;

	return queue->index == (net_has(device, VIRTIO_NET_F_MQ) ? 2 * device->options.pairs : 2);
}

/* Of a pair. That depends on no driver, so a thread can be prepared for it once for all. */
static bool is_of_pair(const struct device_queue *queue)
{
	return queue->index < 2 * queue->device->options.pairs;
}

static int net_serve(struct device_queue *queue)
{
	if (is_control(queue))
		return net_serve_control(queue);
	/* The last queue, of a driver that does not know of several pairs: it is nobody's. */
	if (!is_of_pair(queue))
		return -EINVAL;
	return queue->index % 2 == 0 ? net_serve_receive(queue) : net_serve_transmit(queue);
}

static int net_vhost_fd(const struct device *device)
{
	return device->vhost_fd;
}

static int net_run_queue(struct device *device, unsigned index, bool run)
{
	struct vhost_vring_file backend = { .index = index, .fd = run ? device->tap.fds[0] : -1 };

	return ioctl(device->vhost_fd, VHOST_NET_SET_BACKEND, &backend) < 0 ? -errno : 0;
}

static void net_prepare(struct device *device)
{
	if (device->stream == NULL && !is_kernels(device))
		urings_prepare(&device->urings, &net_uring_kind, 2 * device->options.pairs);
}

static void net_let_go(struct device *device)
{
	urings_free(&device->urings);
	fd_close(&device->vhost_fd);
	net_tap_close(&device->tap);
	net_stream_free(device->stream);
	device->stream = NULL;
}

static void net_prepare_queue(struct device_queue *queue)
{
	if (queue->device->stream == NULL && is_of_pair(queue))
		(void)urings_open(&queue->device->urings, &net_uring_kind, queue->index);
}

static unsigned net_fds(const struct device *device, int ret_fds[DEVICE_FDS_MAX])
{
	if (device->stream != NULL) {
		ret_fds[0] = net_stream_fd(device->stream);
		return 1;
	}
	memcpy(ret_fds, device->tap.fds, device->tap.count * sizeof(ret_fds[0]));
	return device->tap.count + urings_fds(&device->urings, ret_fds + device->tap.count);
}

static int net_take_back_end(struct device *device)
{
	return fd_steal(&device->back_end_fd);
}

static int *net_program_fd(struct device *device)
{
	return &device->passt_fd;
}

static void net_free(struct device *device)
{
	net_let_go(device);
	for (unsigned i = 0; i < NET_PAIRS_MAX; i++)
		net_pair_free(&device->queue_pairs[i]);
	fd_close(&device->back_end_fd);
	net_passt_reap(&device->passt_fd);
	free(device);
}

static const struct device_kernel_ops net_kernel_ops = {
	.queues = 2,
	.features = BIT(VIRTIO_NET_F_MRG_RXBUF),
	.fd = net_vhost_fd,
	.run_queue = net_run_queue,
};

static const struct device_ops net_ops = {
	.name = "net",
	.virtio_id = VIRTIO_ID_NET,
	.pci_class = 0x0200, /* Ethernet controller */
	.queue_size = NET_QUEUE_SIZE,
	.config_size = CONFIG_SIZE,
	.queue_count = net_queue_count,
	.features = net_features,
	.config_read = net_config_read,
	.prepare = net_prepare,
	.let_go = net_let_go,
	.prepare_queue = net_prepare_queue,
	.start = net_start,
	.serve = net_serve,
	.kernel = &net_kernel_ops,
	.take_back_end = net_take_back_end,
	.fds = net_fds,
	.program_fd = net_program_fd,
	.free = net_free,
};

/* Locally administered, of one station. */
static int make_mac(uint8_t *ret_mac)
{
	if (getrandom(ret_mac, NET_MAC_SIZE, 0) != NET_MAC_SIZE)
		return -EIO;
	ret_mac[0] = (uint8_t)((ret_mac[0] & 0xfe) | 0x02);
	return 0;
}

/* Large frames, because each costs the same: there are no offloads. */
static int open_passt(struct device *device)
{
	int socket_fd;

	if (device->options.mtu == 0)
		device->options.mtu = PASST_MTU;
	int r = net_passt_start(&device->options, &device->passt_fd, &socket_fd);

	if (r == 0 && net_options_have_back_end(&device->options))
		device->back_end_fd = socket_fd;
	else if (r == 0)
		r = net_stream_create(socket_fd, &device->stream);
	return r;
}

/* Also where nobody asked for it, because nothing moves packets cheaper. */
static int open_vhost(struct device *device)
{
	if (device->options.vhost == NET_VHOST_OFF || device->options.pairs > 1 ||
		device->options.user)
		return 0;
	device->vhost_fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);
	if (device->vhost_fd >= 0 || device->options.vhost == NET_VHOST_AUTO)
		return 0;
	int error = errno;

	log_error("cannot open /dev/vhost-net: %s; %s, or pass vhost=auto", strerror(error),
		error == EACCES || error == EPERM
			? "ask the administrator for access, usually group kvm"
			: "load the module with 'sudo modprobe vhost_net'");
	return -error;
}

static int net_open(const void *opaque_options, struct device **ret_device)
{
	const struct net_options *options = opaque_options;
	struct device *device = calloc(1, sizeof(*device));

	if (device == NULL)
		return -ENOMEM;
	device->options = *options;
	device->vhost_fd = device->passt_fd = device->back_end_fd = -1;
	for (unsigned i = 0; i < NET_PAIRS_MAX; i++)
		net_pair_init(&device->queue_pairs[i]);
	device->pairs = options->pairs; /* as a new tap has them */
	int r = options->has_mac ? 0 : make_mac(device->options.mac);

	if (r == 0)
		r = options->user ? open_passt(device) : net_tap_open(options, &device->tap);
	if (r == 0)
		r = open_vhost(device);
	if (r < 0) {
		net_free(device);
		return r;
	}
	*ret_device = device;
	return 0;
}

const struct device_class net_device_class = {
	.ops = &net_ops,
	.suboptions = net_suboptions,
	.suboption_count = NET_SUBOPTIONS,
	.defaults = &net_default_options,
	.options_size = sizeof(struct net_options),
	.check = net_options_check,
	.has_back_end = net_options_have_back_end,
	.open = net_open,
};
