// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-vsock, sockets between the guest and the host, by the kernel's
 * vhost-vsock: a guest is known by its context id (CID), which is the user's
 * choice and unique on a host. Nothing that the guest sends comes here.
 *
 * Source: virtio 1.2, section 5.10.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/vhost.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_vsock.h>
#include <linux/vm_sockets.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "base/log.h"
#include "virtio/device.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUES, KERNEL_QUEUES = QUEUE_EVENT };

/* The host has 2 and less, and the last is "any". */
enum { CID_MIN = VMADDR_CID_HOST + 1 };
#define CID_MAX (UINT64_C(0xffffffff) - 1)

struct vsock_options {
	uint64_t cid;
};

struct device {
	int fd; /* /dev/vhost-vsock */
	uint64_t cid;
	unsigned running; /* a bit for each of the kernel's queues */
};

static unsigned vsock_queue_count(const struct device *device)
{
	(void)device;
	return QUEUES;
}

static uint64_t vsock_features(const struct device *device)
{
	(void)device;
	return UINT64_C(1) << VIRTIO_VSOCK_F_SEQPACKET;
}

static void vsock_config_read(struct device *device, uint32_t offset, uint8_t *data, uint32_t size)
{
	const struct virtio_vsock_config config = { .guest_cid = device->cid };

	memcpy(data, (const uint8_t *)&config + offset, size);
}

static int vsock_fd(const struct device *device)
{
	return device->fd;
}

/* The kernel runs both queues or none. */
static int vsock_run_queue(struct device *device, unsigned index, bool run)
{
	const unsigned all = (1u << KERNEL_QUEUES) - 1;
	unsigned running = run ? device->running | 1u << index : device->running & ~(1u << index);
	int on = running == all;

	if ((on != 0) != (device->running == all) &&
		ioctl(device->fd, VHOST_VSOCK_SET_RUNNING, &on) < 0)
		return -errno;
	device->running = running;
	return 0;
}

static void vsock_free(struct device *device)
{
	fd_close(&device->fd);
	free(device);
}

static const struct device_kernel_ops vsock_kernel_ops = {
	.queues = KERNEL_QUEUES,
	.features = UINT64_C(1) << VIRTIO_VSOCK_F_SEQPACKET,
	.fd = vsock_fd,
	.run_queue = vsock_run_queue,
};

static const struct device_ops vsock_ops = {
	.name = "vsock",
	.virtio_id = VIRTIO_ID_VSOCK,
	.pci_class = 0x0780, /* other communication controller */
	.queue_size = 128,
	.config_size = sizeof(struct virtio_vsock_config),
	.queue_count = vsock_queue_count,
	.features = vsock_features,
	.config_read = vsock_config_read,
	.kernel = &vsock_kernel_ops,
	.free = vsock_free,
};

static int apply_cid(void *target, const char *option, const char *value)
{
	return option_parse_number(
		option, value, CID_MIN, CID_MAX, &((struct vsock_options *)target)->cid);
}

static const struct suboption suboptions[] = {
	{ "cid", true, apply_cid }, /* first: a value without a name */
};

static const struct vsock_options default_options = { .cid = 0 };

static int check_options(const char *option, const void *opaque_options)
{
	const struct vsock_options *options = opaque_options;

	if (options->cid != 0)
		return 0;
	log_error("--%s: no context id; pass --%s cid=N, 3 or more", option, option);
	return -EINVAL;
}

static void say_why_not_opened(int error)
{
	const char *advice = error == ENOENT || error == ENODEV || error == ENXIO
				     ? "load the module with 'sudo modprobe vhost_vsock'"
			     : error == EACCES || error == EPERM
				     ? "ask the administrator for access, usually group kvm"
				     : "see the kernel's log";

	log_error("cannot open /dev/vhost-vsock: %s; %s", strerror(error), advice);
}

static int set_cid(int fd, uint64_t cid)
{
	if (ioctl(fd, VHOST_VSOCK_SET_GUEST_CID, &cid) == 0)
		return 0;
	int error = errno;

	if (error == EADDRINUSE)
		log_error("context id %" PRIu64 " belongs to another VM; pass another --cid", cid);
	else
		log_error("cannot set the context id %" PRIu64 ": %s", cid, strerror(error));
	return -error;
}

static int vsock_open(const void *opaque_options, struct device **ret_device)
{
	const struct vsock_options *options = opaque_options;
	CLEANUP_FD int fd = open("/dev/vhost-vsock", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		int error = errno;

		say_why_not_opened(error);
		return -error;
	}
	int r = set_cid(fd, options->cid);

	if (r < 0)
		return r;
	struct device *device = malloc(sizeof(*device));

	if (device == NULL)
		return -ENOMEM;
	*device = (struct device){ .fd = fd_steal(&fd), .cid = options->cid };
	*ret_device = device;
	return 0;
}

const struct device_class vsock_device_class = {
	.ops = &vsock_ops,
	.suboptions = suboptions,
	.suboption_count = ARRAY_SIZE(suboptions),
	.defaults = &default_options,
	.options_size = sizeof(struct vsock_options),
	.check = check_options,
	.open = vsock_open,
};
