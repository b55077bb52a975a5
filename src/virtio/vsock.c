// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-vsock, sockets between the guest and the host. By the kernel's
 * vhost-vsock, where a guest is known by its context id (CID), which is the
 * user's choice and unique on a host; then nothing that the guest sends comes
 * here. Or by unix sockets, without the kernel: vsock_queue.c.
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/connector.h"
#include "base/fd.h"
#include "base/log.h"
#include "virtio/vsock_queue.h"
#include "virtio/vsock_unix.h"

enum { KERNEL_QUEUES = VSOCK_EVENT };

#define CID_ANY UINT64_C(0xffffffff) /* VMADDR_CID_ANY, unsigned */

struct vsock_options {
	uint64_t cid;
	const char *socket; /* or NULL: the kernel's */
};

static unsigned vsock_queue_count(const struct device *device)
{
	(void)device;
	return VSOCK_QUEUES;
}

static uint64_t vsock_features(const struct device *device)
{
	/* Records have no place in a unix stream. */
	return device->host != NULL ? 0 : UINT64_C(1) << VIRTIO_VSOCK_F_SEQPACKET;
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

static int vsock_serve(struct device_queue *queue)
{
	static int (*const serve[])(struct device_queue * queue) = {
		[VSOCK_RX] = vsock_serve_receive,
		[VSOCK_TX] = vsock_serve_transmit,
		[VSOCK_EVENT] = vsock_serve_event,
	};

	return serve[queue->index](queue);
}

static void vsock_stop(struct device *device)
{
	if (device->host != NULL)
		vsock_host_stop(device->host);
}

static void vsock_let_go(struct device *device)
{
	if (device->host != NULL)
		vsock_host_let_go(device->host);
	fd_close(&device->fd);
}

static void vsock_free(struct device *device)
{
	vsock_host_free(device->host);
	fd_close(&device->fd);
	free(device);
}

static const struct device_kernel_ops vsock_kernel_ops = {
	.queues = KERNEL_QUEUES,
	.features = UINT64_C(1) << VIRTIO_VSOCK_F_SEQPACKET,
	.fd = vsock_fd,
	.run_queue = vsock_run_queue,
};

static const char *vsock_socket_path(const struct device *device)
{
	return device->host != NULL ? vsock_host_path(device->host) : NULL;
}

static unsigned vsock_fds(const struct device *device, int ret_fds[DEVICE_FDS_MAX])
{
	return device->host != NULL ? vsock_host_fds(device->host, ret_fds) : 0;
}

static int vsock_helper_directory(const struct device *device, char *ret_path, size_t size)
{
	return device->host != NULL
		       ? connector_directory(vsock_host_path(device->host), ret_path, size)
		       : 0;
}

static int connect_port(const void *path, uint32_t port, int *ret_fd)
{
	return vsock_unix_connect(path, port, ret_fd);
}

static int vsock_helper_serve(struct device *device, int socket)
{
	char inside[VSOCK_PATH_MAX + 2]; /* a '/' may come before it */

	snprintf(inside, sizeof(inside), "/%s", connector_name(vsock_host_path(device->host)));
	return connector_serve(socket, connect_port, inside);
}

static void vsock_helper_attach(struct device *device, int socket)
{
	vsock_host_attach(device->host, socket);
}

static const struct device_helper_ops vsock_helper_ops = {
	.name = "vsock-to",
	.policy = "connector",
	.directory = vsock_helper_directory,
	.serve = vsock_helper_serve,
	.attach = vsock_helper_attach,
};

static const struct device_ops vsock_ops = {
	.name = "vsock",
	.virtio_id = VIRTIO_ID_VSOCK,
	.pci_class = 0x0780, /* other communication controller */
	.queue_size = VSOCK_QUEUE_SIZE,
	.config_size = sizeof(struct virtio_vsock_config),
	.queue_count = vsock_queue_count,
	.features = vsock_features,
	.config_read = vsock_config_read,
	.serve = vsock_serve,
	.let_go = vsock_let_go,
	.fds = vsock_fds,
	.spare_fds = VSOCK_CONNECTIONS_MAX,
	.helper = &vsock_helper_ops,
	.kernel = &vsock_kernel_ops,
	.stop = vsock_stop,
	.socket_path = vsock_socket_path,
	.free = vsock_free,
};

static const char *why_of_no_guest(uint64_t cid)
{
	return cid == VMADDR_CID_HYPERVISOR ? "is reserved for the hypervisor"
	       : cid == VMADDR_CID_LOCAL    ? "is each machine's own loopback"
	       : cid == VMADDR_CID_HOST     ? "is the host"
	       : cid == CID_ANY             ? "stands for any machine"
					    : NULL;
}

static int apply_cid(void *target, const char *option, const char *value)
{
	uint64_t cid;

	if (!option_read_number(value, &cid) || cid > CID_ANY) {
		log_error("%s: context id '%s' is not a number from 3 to %u", option, value,
			(uint32_t)CID_ANY - 1);
		return -EINVAL;
	}
	const char *why = why_of_no_guest(cid);

	if (why != NULL) {
		log_error("%s: context id %" PRIu64 " %s; pass a number from 3 to %u", option, cid,
			why, (uint32_t)CID_ANY - 1);
		return -EINVAL;
	}
	((struct vsock_options *)target)->cid = cid;
	return 0;
}

static int apply_socket(void *target, const char *option, const char *value)
{
	if (*value == '\0' || strlen(value) > VSOCK_PATH_MAX) {
		log_error("%s: socket= is a path of 1 to %zu characters", option,
			(size_t)VSOCK_PATH_MAX);
		return -EINVAL;
	}
	((struct vsock_options *)target)->socket = value;
	return 0;
}

static const struct suboption suboptions[] = {
	{ "cid", true, apply_cid }, /* first: a value without a name */
	{ "socket", true, apply_socket },
};

static const struct vsock_options default_options = { .cid = 0 };

static int check_options(const char *option, const void *opaque_options)
{
	const struct vsock_options *options = opaque_options;

	if (options->cid != 0)
		return 0;
	log_error("%s: no context id; say cid=N, 3 or more", option);
	return -EINVAL;
}

static void say_why_not_opened(int error)
{
	const char *advice =
		error == ENOENT || error == ENODEV || error == ENXIO
			? "load the module with 'sudo modprobe vhost_vsock', or pass "
			  "--vsock cid=N,socket=PATH, which needs none"
		: error == EACCES || error == EPERM
			? "ask the administrator for access, usually group kvm, or pass "
			  "--vsock cid=N,socket=PATH"
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

static int open_kernels(uint64_t cid, int *ret_fd)
{
	CLEANUP_FD int fd = open("/dev/vhost-vsock", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		int error = errno;

		say_why_not_opened(error);
		return -error;
	}
	int r = set_cid(fd, cid);

	if (r == 0)
		*ret_fd = fd_steal(&fd);
	return r;
}

static int vsock_open(const void *opaque_options, struct device **ret_device)
{
	const struct vsock_options *options = opaque_options;
	struct device *device = malloc(sizeof(*device));

	if (device == NULL)
		return -ENOMEM;
	*device = (struct device){ .fd = -1, .cid = options->cid };
	int r = options->socket != NULL
			? vsock_host_open(options->socket, options->cid, &device->host)
			: open_kernels(options->cid, &device->fd);

	if (r < 0) {
		free(device);
		return r;
	}
	*ret_device = device;
	return 0;
}

const struct device_class vsock_device_class = {
	.ops = &vsock_ops,
	.once = true,
	.suboptions = suboptions,
	.suboption_count = ARRAY_SIZE(suboptions),
	.defaults = &default_options,
	.options_size = sizeof(struct vsock_options),
	.check = check_options,
	.open = vsock_open,
};
