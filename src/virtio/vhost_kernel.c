// SPDX-License-Identifier: BSD-3-Clause
/*
 * Hands rings to a vhost driver of the kernel. Ring addresses come from the
 * guest: only what guest memory holds as a whole is passed on, and the kernel
 * checks what is in the rings.
 */
#include "virtio/vhost_kernel.h"

#include <errno.h>
#include <linux/vhost.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

struct vhost_kernel {
	struct vhost vhost; /* first: what the front half holds */
	const struct device_ops *ops;
	struct device *device;
	const struct guest_memory *memory;
	uint64_t features;
	unsigned running_count; /* rings; the device is started while there are any */
	int error_fd;           /* borrowed */
	bool running[DEVICE_QUEUES_MAX];
	struct vhost_ring places[DEVICE_QUEUES_MAX];
};

static struct vhost_kernel *from_vhost(struct vhost *vhost)
{
	return (struct vhost_kernel *)vhost;
}

static int control(const struct vhost_kernel *self, unsigned long request, void *argument)
{
	return ioctl(self->ops->kernel->fd(self->device), request, argument) < 0 ? -errno : 0;
}

static uint64_t kernels_bits(const struct device_ops *ops)
{
	return ops->kernel->features | VHOST_RING_FEATURES;
}

/* The device's, without those that the kernel should know and does not. */
int vhost_kernel_features(
	const struct device_ops *ops, const struct device *device, uint64_t *ret_features)
{
	uint64_t kernels;

	if (ioctl(ops->kernel->fd(device), VHOST_GET_FEATURES, &kernels) < 0)
		return -errno;
	*ret_features =
		(ops->features(device) | VHOST_RING_FEATURES) & (kernels | ~kernels_bits(ops));
	return 0;
}

static int get_features(struct vhost *vhost, uint64_t *ret_features)
{
	const struct vhost_kernel *self = from_vhost(vhost);

	return vhost_kernel_features(self->ops, self->device, ret_features);
}

static int set_features(struct vhost *vhost, uint64_t features)
{
	struct vhost_kernel *self = from_vhost(vhost);
	uint64_t kernels = features & kernels_bits(self->ops);

	self->features = features;
	return control(self, VHOST_SET_FEATURES, &kernels);
}

static unsigned queue_count(struct vhost *vhost)
{
	struct vhost_kernel *self = from_vhost(vhost);

	return self->ops->queue_count(self->device);
}

static int get_config(struct vhost *vhost, uint32_t offset, uint8_t *data, uint32_t size)
{
	struct vhost_kernel *self = from_vhost(vhost);

	return device_get_config(self->ops, self->device, offset, data, size);
}

static int set_config(struct vhost *vhost, uint32_t offset, const uint8_t *data, uint32_t size)
{
	struct vhost_kernel *self = from_vhost(vhost);

	return device_set_config(self->ops, self->device, offset, data, size);
}

static bool is_served(const struct vhost_kernel *self, unsigned index)
{
	return index < self->ops->kernel->queues;
}

static int set_vring(struct vhost *vhost, unsigned index, const struct vhost_ring *place)
{
	struct vhost_kernel *self = from_vhost(vhost);

	if (index >= queue_count(vhost) || self->running[index] ||
		place->size > self->ops->queue_size)
		return -EINVAL;
	self->places[index] = *place;
	return 0;
}

/* The three parts of a split ring, with the event fields at their ends; virtio 1.2, section 2.7. */
static int set_addresses(struct vhost_kernel *self, unsigned index)
{
	const struct vhost_ring *place = &self->places[index];
	uint64_t size = place->size;

	if (self->memory == NULL)
		return -EFAULT;
	const void *desc = guest_memory_at(self->memory, place->desc, 16 * size);
	const void *avail = guest_memory_at(self->memory, place->avail, 6 + 2 * size);
	const void *used = guest_memory_at(self->memory, place->used, 6 + 8 * size);
	struct vhost_vring_addr addresses = {
		.index = index,
		.desc_user_addr = (uintptr_t)desc,
		.avail_user_addr = (uintptr_t)avail,
		.used_user_addr = (uintptr_t)used,
	};

	if (desc == NULL || avail == NULL || used == NULL)
		return -EFAULT;
	return control(self, VHOST_SET_VRING_ADDR, &addresses);
}

static int set_file(const struct vhost_kernel *self, unsigned long request, unsigned index, int fd)
{
	struct vhost_vring_file file = { .index = index, .fd = fd };

	return control(self, request, &file);
}

/* Without eventfds of ours the kernel neither waits for kicks nor calls. */
static void unset_files(const struct vhost_kernel *self, unsigned index)
{
	(void)!set_file(self, VHOST_SET_VRING_KICK, index, VHOST_FILE_UNBIND);
	(void)!set_file(self, VHOST_SET_VRING_CALL, index, VHOST_FILE_UNBIND);
	(void)!set_file(self, VHOST_SET_VRING_ERR, index, VHOST_FILE_UNBIND);
}

static int start_served(struct vhost_kernel *self, unsigned index)
{
	const struct vhost_ring *place = &self->places[index];
	struct vhost_vring_state size = { .index = index, .num = place->size };
	struct vhost_vring_state base = { .index = index, .num = place->base };
	int r = control(self, VHOST_SET_VRING_NUM, &size);

	if (r == 0)
		r = control(self, VHOST_SET_VRING_BASE, &base);
	if (r == 0)
		r = set_addresses(self, index);
	if (r == 0)
		r = set_file(self, VHOST_SET_VRING_CALL, index, place->call_fd);
	if (r == 0)
		r = set_file(self, VHOST_SET_VRING_ERR, index, self->error_fd);
	if (r == 0)
		r = set_file(self, VHOST_SET_VRING_KICK, index, place->kick_fd);
	if (r == 0)
		r = self->ops->kernel->run_queue(self->device, index, true);
	if (r < 0)
		unset_files(self, index);
	else
		/* What the ring holds from before a pause, the driver does not kick for again. */
		(void)eventfd_write(place->kick_fd, 1);
	return r;
}

static int start_device(struct vhost_kernel *self)
{
	if (self->running_count != 0 || self->ops->start == NULL)
		return 0;
	return self->ops->start(self->device, self->features);
}

static void stop_device(struct vhost_kernel *self)
{
	if (self->running_count == 0 && self->ops->stop != NULL)
		self->ops->stop(self->device);
}

static int start_vring(struct vhost *vhost, unsigned index)
{
	struct vhost_kernel *self = from_vhost(vhost);

	if (index >= queue_count(vhost) || self->running[index])
		return -EINVAL;
	int r = start_device(self);

	if (r < 0)
		return r;
	if (is_served(self, index))
		r = start_served(self, index);
	if (r < 0) {
		stop_device(self);
		return r;
	}
	self->running[index] = true;
	self->running_count++;
	return 0;
}

/* What the kernel took is done when it returns. */
static int stop_served(struct vhost_kernel *self, unsigned index, uint16_t *ret_base)
{
	struct vhost_vring_state base = { .index = index };
	int r = self->ops->kernel->run_queue(self->device, index, false);

	unset_files(self, index);
	if (r == 0)
		r = control(self, VHOST_GET_VRING_BASE, &base);
	if (r == 0)
		*ret_base = (uint16_t)base.num;
	return r;
}

static int stop_vring(struct vhost *vhost, unsigned index, uint16_t *ret_base)
{
	struct vhost_kernel *self = from_vhost(vhost);
	int r = 0;

	if (index >= queue_count(vhost) || !self->running[index])
		return -EINVAL;
	if (is_served(self, index))
		r = stop_served(self, index, ret_base);
	else
		*ret_base = self->places[index].base;
	self->running[index] = false;
	self->running_count--;
	stop_device(self);
	return r;
}

/* A front end's has more regions than ours. */
static int set_memory(struct vhost *vhost, const struct guest_memory *memory)
{
	struct vhost_kernel *self = from_vhost(vhost);
	struct {
		struct vhost_memory head;
		struct vhost_memory_region regions[GUEST_MEMORY_FILES_MAX];
	} table = { .head.nregions = 0 };

	if (memory != NULL)
		table.head.nregions = (uint32_t)guest_memory_region_count(memory);
	for (size_t i = 0; i < table.head.nregions; i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		table.regions[i] = (struct vhost_memory_region){
			.guest_phys_addr = region->gpa,
			.memory_size = region->size,
			.userspace_addr = (uintptr_t)region->hva,
		};
	}
	self->memory = memory;
	return control(self, VHOST_SET_MEM_TABLE, &table);
}

static int set_error_fd(struct vhost *vhost, int error_fd)
{
	from_vhost(vhost)->error_fd = error_fd;
	return 0;
}

static int reset(struct vhost *vhost)
{
	(void)vhost; /* all that it had are its rings, and they are stopped */
	return 0;
}

static void vhost_kernel_free(struct vhost *vhost)
{
	struct vhost_kernel *self = from_vhost(vhost);
	uint16_t base;

	for (unsigned i = 0; i < DEVICE_QUEUES_MAX; i++)
		if (self->running[i])
			(void)!stop_vring(vhost, i, &base);
	self->ops->free(self->device);
	free(self);
}

static const struct vhost_ops vhost_kernel_ops = {
	.get_features = get_features,
	.set_features = set_features,
	.queue_count = queue_count,
	.get_config = get_config,
	.set_config = set_config,
	.set_vring = set_vring,
	.start_vring = start_vring,
	.stop_vring = stop_vring,
	.set_memory = set_memory,
	.set_error_fd = set_error_fd,
	.reset = reset,
	.free = vhost_kernel_free,
};

int vhost_kernel_create(const struct device_ops *ops, struct device *device,
	const struct guest_memory *memory, struct vhost **ret_vhost)
{
	struct vhost_kernel *self = calloc(1, sizeof(*self));

	if (self == NULL) {
		ops->free(device);
		return -ENOMEM;
	}
	self->vhost.ops = &vhost_kernel_ops;
	self->ops = ops;
	self->device = device;
	self->error_fd = -1;
	int r = control(self, VHOST_SET_OWNER, NULL);

	if (r == 0 && memory != NULL)
		r = set_memory(&self->vhost, memory);
	if (r < 0) {
		vhost_kernel_free(&self->vhost);
		return r;
	}
	*ret_vhost = &self->vhost;
	return 0;
}
