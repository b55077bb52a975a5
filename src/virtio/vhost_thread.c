// SPDX-License-Identifier: BSD-3-Clause
/*
 * Runs a device in threads of this process. The ring addresses come from the
 * guest and are checked by virtqueue_init(); a broken queue's thread reports
 * it and waits to be stopped, so a bad driver hurts only itself.
 */
#include "virtio/vhost_thread.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log_limit.h"
#include "base/thread.h"

/*
 * Its thread is made when it first starts, and then waits for the next start or the end: what it
 * made before its filter is its own for good, and a driver that resets all the time makes no
 * threads.
 */
struct ring {
	struct device_queue queue;
	struct vhost_ring place;
	struct vhost_thread *owner;
	bool running;
	bool has_thread; /* and what follows */
	bool ending;     /* what `begin` means then */
	pthread_t thread;
	sem_t begin; /* serve what `queue` says */
	sem_t done;  /* `queue` is the owner's again */
};

struct vhost_thread {
	struct vhost vhost; /* first: what the front half holds */
	const struct device_ops *ops;
	struct device *device;
	const struct guest_memory *memory;
	uint64_t features;
	unsigned running; /* rings */
	bool started;     /* the device: from its first ring to the reset */
	int error_fd;     /* borrowed */
	struct queue_threads threads;
	struct log_limit complaints; /* about the driver */
	struct ring rings[DEVICE_QUEUES_MAX];
};

static struct vhost_thread *from_vhost(struct vhost *vhost)
{
	return (struct vhost_thread *)vhost;
}

static bool has_feature(const struct vhost_thread *self, unsigned bit)
{
	return (self->features >> bit) & 1;
}

static int get_features(struct vhost *vhost, uint64_t *ret_features)
{
	struct vhost_thread *self = from_vhost(vhost);

	*ret_features = self->ops->features(self->device) | VHOST_RING_FEATURES;
	return 0;
}

/* Not when its last ring stops, for that one may go on where it was. */
static void stop_device(struct vhost_thread *self)
{
	if (self->started && self->ops->stop != NULL)
		self->ops->stop(self->device);
	self->started = false;
}

static int set_features(struct vhost *vhost, uint64_t features)
{
	struct vhost_thread *self = from_vhost(vhost);
	uint64_t offered = self->ops->features(self->device) | VHOST_RING_FEATURES;

	if ((features & ~offered) != 0 || self->running != 0)
		return -EINVAL;
	stop_device(self);
	self->features = features;
	return 0;
}

static unsigned queue_count(struct vhost *vhost)
{
	struct vhost_thread *self = from_vhost(vhost);

	return self->ops->queue_count(self->device);
}

static int get_config(struct vhost *vhost, uint32_t offset, uint8_t *data, uint32_t size)
{
	struct vhost_thread *self = from_vhost(vhost);

	return device_get_config(self->ops, self->device, offset, data, size);
}

static int set_config(struct vhost *vhost, uint32_t offset, const uint8_t *data, uint32_t size)
{
	struct vhost_thread *self = from_vhost(vhost);

	return device_set_config(self->ops, self->device, offset, data, size);
}

static int change_config(struct vhost *vhost, uint32_t offset, const uint8_t *data, uint32_t size)
{
	struct vhost_thread *self = from_vhost(vhost);

	return device_change_config(self->ops, self->device, offset, data, size);
}

static struct ring *find_ring(struct vhost_thread *self, unsigned index)
{
	return index < self->ops->queue_count(self->device) ? &self->rings[index] : NULL;
}

static int set_vring(struct vhost *vhost, unsigned index, const struct vhost_ring *place)
{
	struct vhost_thread *self = from_vhost(vhost);
	struct ring *ring = find_ring(self, index);

	if (ring == NULL || ring->running ||
		place->size > max_u64(self->ops->queue_size, self->ops->queue_size_limit))
		return -EINVAL;
	ring->place = *place;
	return 0;
}

/* First what needs rights, then without them what the guest asks for. */
static int enter_thread(struct vhost_thread *self, struct device_queue *queue)
{
	if (self->threads.enter == NULL)
		return 0;
	if (self->ops->prepare_queue != NULL)
		self->ops->prepare_queue(queue);
	return self->threads.enter(self->threads.owner, self->ops->name);
}

static void serve_ring(struct ring *ring, int entered)
{
	struct vhost_thread *self = ring->owner;
	int r = entered < 0 ? entered : self->ops->serve(&ring->queue);

	if (r < 0) {
		log_warn_limited(&self->complaints,
			"%s: queue %u: %s; the device waits for a reset by its driver",
			self->ops->name, ring->queue.index,
			r == -EBADMSG ? "the driver broke the ring" : strerror(-r));
		(void)eventfd_write(self->error_fd, 1);
	}
}

static void *run_thread(void *argument)
{
	struct ring *ring = argument;
	int entered = enter_thread(ring->owner, &ring->queue);

	for (thread_await(&ring->begin); !ring->ending; thread_await(&ring->begin)) {
		serve_ring(ring, entered);
		sem_post(&ring->done);
	}
	return NULL;
}

static int init_queue(struct vhost_thread *self, struct ring *ring, unsigned index)
{
	const struct virtqueue_config config = {
		.size = ring->place.size,
		.desc = ring->place.desc,
		.avail = ring->place.avail,
		.used = ring->place.used,
		.event_idx = has_feature(self, VIRTIO_RING_F_EVENT_IDX),
		.indirect = has_feature(self, VIRTIO_RING_F_INDIRECT_DESC),
	};

	ring->queue = (struct device_queue){
		.device = self->device,
		.index = index,
		.size = ring->place.size,
		.kick_fd = ring->place.kick_fd,
		.call_fd = ring->place.call_fd,
		.stop_fd = ring->has_thread ? ring->queue.stop_fd : -1,
	};
	return virtqueue_init(&ring->queue.vq, self->memory, &config, ring->place.base);
}

static int make_thread(struct vhost_thread *self, struct ring *ring)
{
	const struct queue_threads *threads = &self->threads;
	int r;

	ring->owner = self;
	ring->queue.stop_fd = eventfd(0, EFD_CLOEXEC);
	if (ring->queue.stop_fd < 0)
		return -errno;
	sem_init(&ring->begin, 0, 0);
	sem_init(&ring->done, 0, 0);
	r = threads->start == NULL
		    ? thread_start(&ring->thread, run_thread, ring)
		    : threads->start(threads->owner, &ring->thread, run_thread, ring);
	if (r < 0)
		fd_close(&ring->queue.stop_fd);
	ring->has_thread = r == 0;
	return r;
}

static void end_thread(struct ring *ring)
{
	if (!ring->has_thread)
		return;
	ring->ending = true;
	sem_post(&ring->begin);
	pthread_join(ring->thread, NULL);
	fd_close(&ring->queue.stop_fd);
}

static int start_device(struct vhost_thread *self)
{
	int r = 0;

	if (!self->started && self->ops->start != NULL)
		r = self->ops->start(self->device, self->features);
	if (r == 0)
		self->started = true;
	return r;
}

static int start_vring(struct vhost *vhost, unsigned index)
{
	struct vhost_thread *self = from_vhost(vhost);
	struct ring *ring = find_ring(self, index);

	if (ring == NULL || ring->running || self->memory == NULL)
		return -EINVAL;
	int r = init_queue(self, ring, index);

	if (r == 0)
		r = start_device(self);
	if (r == 0 && !ring->has_thread)
		r = make_thread(self, ring);
	if (r < 0)
		return r;
	sem_post(&ring->begin);
	ring->running = true;
	self->running++;
	return 0;
}

static int stop_vring(struct vhost *vhost, unsigned index, uint16_t *ret_base)
{
	struct vhost_thread *self = from_vhost(vhost);
	struct ring *ring = find_ring(self, index);

	if (ring == NULL || !ring->running)
		return -EINVAL;
	(void)eventfd_write(ring->queue.stop_fd, 1);
	thread_await(&ring->done);
	(void)fd_take_event(ring->queue.stop_fd);
	ring->running = false;
	self->running--;
	*ret_base = virtqueue_base(&ring->queue.vq);
	return 0;
}

static int set_memory(struct vhost *vhost, const struct guest_memory *memory)
{
	from_vhost(vhost)->memory = memory;
	return 0;
}

static uint64_t window_size(struct vhost *vhost)
{
	return from_vhost(vhost)->ops->window_size;
}

static int set_window(struct vhost *vhost, const struct window *window)
{
	struct vhost_thread *self = from_vhost(vhost);

	if (self->ops->window_size == 0 || self->running != 0)
		return -EINVAL;
	self->ops->set_window(self->device, window);
	return 0;
}

static int set_error_fd(struct vhost *vhost, int error_fd)
{
	from_vhost(vhost)->error_fd = error_fd;
	return 0;
}

static int reset(struct vhost *vhost)
{
	struct vhost_thread *self = from_vhost(vhost);

	if (self->running != 0)
		return -EINVAL;
	stop_device(self);
	self->features = 0;
	return 0;
}

static void vhost_thread_free(struct vhost *vhost)
{
	struct vhost_thread *self = from_vhost(vhost);
	uint16_t base;

	for (unsigned i = 0; i < DEVICE_QUEUES_MAX; i++)
		if (self->rings[i].running)
			(void)!stop_vring(vhost, i, &base);
	for (unsigned i = 0; i < DEVICE_QUEUES_MAX; i++)
		end_thread(&self->rings[i]);
	stop_device(self);
	if (self->ops->sync != NULL)
		self->ops->sync(self->device);
	self->ops->free(self->device);
	free(self);
}

static const struct vhost_ops vhost_thread_ops = {
	.get_features = get_features,
	.set_features = set_features,
	.queue_count = queue_count,
	.get_config = get_config,
	.set_config = set_config,
	.change_config = change_config,
	.window_size = window_size,
	.set_window = set_window,
	.set_vring = set_vring,
	.start_vring = start_vring,
	.stop_vring = stop_vring,
	.set_memory = set_memory,
	.set_error_fd = set_error_fd,
	.reset = reset,
	.free = vhost_thread_free,
};

int vhost_thread_create(const struct device_ops *ops, struct device *device,
	const struct guest_memory *memory, struct vhost **ret_vhost)
{
	struct vhost_thread *self = calloc(1, sizeof(*self));

	if (self == NULL) {
		ops->free(device);
		return -ENOMEM;
	}
	self->vhost.ops = &vhost_thread_ops;
	self->ops = ops;
	self->device = device;
	self->memory = memory;
	self->error_fd = -1;
	*ret_vhost = &self->vhost;
	return 0;
}

void vhost_thread_set_threads(struct vhost *vhost, const struct queue_threads *threads)
{
	from_vhost(vhost)->threads = *threads;
}
