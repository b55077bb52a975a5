// SPDX-License-Identifier: BSD-3-Clause
/*
 * Finds and greets vhost-user back ends of others. The path is the user's; who
 * listens there may be anything.
 */
#include "vm/foreign_device.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/unix_connect.h"
#include "virtio/vhost_user_frontend.h"
#include "virtio/vhost_user_message.h"

#define BIT(n) (UINT64_C(1) << (n))

/* What frames need; the rest is told in the configuration space or by the control queue. */
#define NET_FRAME_FEATURES                                                                         \
	(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |    \
		BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) |                       \
		BIT(VIRTIO_NET_F_GUEST_UFO) | BIT(VIRTIO_NET_F_HOST_TSO4) |                        \
		BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) |                         \
		BIT(VIRTIO_NET_F_HOST_UFO) | BIT(VIRTIO_NET_F_MRG_RXBUF))

/* Back ends refuse to tell more than they knew when they were written. */
static uint32_t block_config_used(uint64_t features)
{
	if ((features & BIT(VIRTIO_BLK_F_SECURE_ERASE)) != 0)
		return sizeof(struct virtio_blk_config);
	if ((features & BIT(VIRTIO_BLK_F_WRITE_ZEROES)) != 0)
		return offsetof(struct virtio_blk_config, max_secure_erase_sectors);
	if ((features & BIT(VIRTIO_BLK_F_DISCARD)) != 0)
		return offsetof(struct virtio_blk_config, max_write_zeroes_sectors);
	return offsetof(struct virtio_blk_config, max_discard_sectors);
}

/* A driver takes as many as this says, and gives up where the transport has fewer. */
static void fit_block_config(uint8_t *space, unsigned queues)
{
	struct virtio_blk_config config;

	memcpy(&config, space, sizeof(config));
	config.num_queues = (uint16_t)min_u64(config.num_queues, queues);
	memcpy(space, &config, sizeof(config));
}

/* What we must know of a device beyond what the class says. Virtio 1.2, section 5. */
static const struct foreign_kind {
	const struct device_class *class;
	unsigned queues_min;
	uint64_t features_without_config; /* 0: a back end without a configuration space is none */
	uint32_t (*config_used)(uint64_t features);
	void (*fit_config)(uint8_t *space, unsigned queues);
	bool drops_work; /* some may; where the driver leaves nothing in the ring for later */
} kinds[] = {
	{ &block_device_class, 1, 0, block_config_used, fit_block_config, true },
	{ &net_device_class, 2, NET_FRAME_FEATURES, NULL, NULL, false },
	{ &rng_device_class, 1, 0, NULL, NULL, false }, /* the device has no configuration space */
	{ &vsock_device_class, 3, 0, NULL, NULL, false },
	{ &wl_device_class, 2, 0, NULL, NULL, false }, /* what of its space there is, is ours */
};

static const struct foreign_kind *find_kind(const struct device_class *class)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].class == class)
			return &kinds[i];
	return NULL;
}

bool foreign_device_is_known(const struct device_class *class)
{
	return find_kind(class) != NULL;
}

static const char *find_advice(int error)
{
	switch (error) {
	case ENOENT:
		return "start the back end first, or correct the path";
	case ECONNREFUSED:
		return "nobody listens there any more, start the back end again";
	case EAGAIN:
		return "too many wait there already, does it serve another VM?";
	case EACCES:
		return "it belongs to another user, run both as the same";
	case EPROTOTYPE:
	case ENOTSOCK:
		return "that is no stream socket, correct the path";
	default:
		return "is that a vhost-user socket?";
	}
}

int foreign_device_open(
	const struct device_class *class, const char *path, struct foreign_device *ret_device)
{
	struct foreign_device device = { .kind = find_kind(class), .socket = -1 };

	if (device.kind == NULL)
		return -EINVAL;
	/* One that blocked would wait for a back end that is slow to accept. */
	int r = unix_connect(SOCK_STREAM | SOCK_NONBLOCK, path, &device.socket);

	if (r < 0) {
		log_error("--vhost-user: cannot connect to '%s': %s; %s", path, strerror(-r),
			find_advice(-r));
		return r;
	}
	if (asprintf(&device.name, "%s at %s", class->ops->name, path) < 0) {
		fd_close(&device.socket);
		return -ENOMEM;
	}
	*ret_device = device;
	return 0;
}

int foreign_device_adopt(
	const struct device_class *class, int socket, struct foreign_device *ret_device)
{
	struct foreign_device device = { .kind = find_kind(class), .socket = socket };

	if (asprintf(&device.name, "%s's program", class->ops->name) < 0) {
		fd_close(&socket);
		return -ENOMEM;
	}
	*ret_device = device;
	return 0;
}

static void report_bad_greeting(
	const struct foreign_device *device, const struct device *own, int r)
{
	if (own != NULL)
		log_error("%s does not answer by vhost-user: %s; its own message may tell why",
			device->name, strerror(-r));
	else
		log_error("--vhost-user: %s does not answer as such a device must: %s; is it "
			  "another device, or busy with another VM?",
			device->name, strerror(-r));
}

int foreign_device_greet(struct foreign_device *device, struct device *own,
	const struct guest_memory *memory, const struct device_loss *loss, struct vhost **ret_vhost)
{
	const struct foreign_kind *kind = device->kind;
	const struct device_ops *ops = kind->class->ops;
	uint8_t config[VHOST_USER_CONFIG_MAX] = { 0 };
	const struct vhost_user_offer offer = {
		.features = own == NULL ? 0 : ops->features(own) & ~kind->features_without_config,
		.config = config,
	};

	if (own != NULL)
		ops->config_read(own, 0, config, ops->config_size);
	const struct vhost_user_peer peer = {
		.name = device->name,
		.socket = fd_steal(&device->socket),
		.queue_size = ops->queue_size,
		.config_size = ops->config_size,
		.config_used = kind->config_used,
		.fit_config = kind->fit_config,
		.drops_work = kind->drops_work,
		.has_window = ops->window_size > 0,
		.queues_min = kind->queues_min,
		.features_without_config = kind->features_without_config,
		.own = own == NULL ? NULL : &offer,
		.lost = loss->lost,
		.owner = loss->owner,
	};
	int r = vhost_user_frontend_create(&peer, memory, ret_vhost);

	if (r < 0)
		report_bad_greeting(device, own, r);
	return r;
}

void foreign_device_close(struct foreign_device *device)
{
	if (device->name == NULL)
		return;
	fd_close(&device->socket);
	free(device->name);
	device->name = NULL;
}
