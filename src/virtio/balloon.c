// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-balloon: memory that the guest does not need goes back to the host.
 * The driver names pages by their numbers, or offers free memory as buffers.
 * It may lie about all of them: what it loses is its own.
 *
 * Source: virtio 1.2, section 5.5.
 */
#include "virtio/balloon.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/log.h"
#include "virtio/device.h"

#define BIT(feature) (UINT64_C(1) << (feature))

enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUES_FIXED };
enum { QUEUE_SIZE = 128 };
/* Of one request; Linux sends 256 pages. What a driver names beyond is not given back. */
enum { PAGES_MAX = 1024, STATS_MAX = 64 };
enum { SIZE_MIB_MAX = UINT32_MAX / BALLOON_PAGES_PER_MIB };

struct balloon_options {
	uint64_t size_mib;
	bool reporting;
	bool keeps_on_oom; /* deflate-on-oom=false */
};

struct device {
	struct balloon_options options;
	uint64_t features;    /* accepted */
	pthread_mutex_t lock; /* all below */
	struct balloon_state state;
	const struct guest_memory *memory;
	int stats_kick_fd; /* borrowed from the queue while it is served; else -1 */
	bool refused;      /* the host, once; that was said */
};

static bool has_feature(const struct device *device, unsigned bit)
{
	return (device->features >> bit) & 1;
}

static unsigned balloon_queue_count(const struct device *device)
{
	return QUEUES_FIXED + 1 + device->options.reporting;
}

static uint64_t balloon_features(const struct device *device)
{
	uint64_t features = BIT(VIRTIO_BALLOON_F_STATS_VQ);

	if (!device->options.keeps_on_oom)
		features |= BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
	if (device->options.reporting)
		features |= BIT(VIRTIO_BALLOON_F_REPORTING);
	return features;
}

/* ---- configuration space ---- */

static void balloon_config_read(
	struct device *device, uint32_t offset, uint8_t *data, uint32_t size)
{
	pthread_mutex_lock(&device->lock);
	memcpy(data, (const uint8_t *)&device->state + offset, size);
	pthread_mutex_unlock(&device->lock);
}

/* The driver says how large its balloon is; the rest is not its to write. */
static void balloon_config_write(
	struct device *device, uint32_t offset, const uint8_t *data, uint32_t size)
{
	uint8_t *actual = (uint8_t *)&device->state.actual_pages;
	const uint32_t begin = offsetof(struct balloon_state, actual_pages);

	if (offset < begin || size > BALLOON_CONFIG_SIZE - offset)
		return;
	pthread_mutex_lock(&device->lock);
	memcpy(actual + (offset - begin), data, size);
	pthread_mutex_unlock(&device->lock);
}

static int balloon_config_change(
	struct device *device, uint32_t offset, const uint8_t *data, uint32_t size)
{
	bool asks = offset == offsetof(struct balloon_state, stats_asked);
	uint32_t value;

	if ((!asks && offset != offsetof(struct balloon_state, target_pages)) ||
		size != sizeof(value))
		return -EINVAL;
	memcpy(&value, data, sizeof(value));
	pthread_mutex_lock(&device->lock);
	if (asks)
		device->state.stats_asked = value;
	else
		device->state.target_pages = value;
	/* As if by the driver: the queue's thread looks what there is to do. */
	if (asks && device->stats_kick_fd >= 0)
		(void)eventfd_write(device->stats_kick_fd, 1);
	pthread_mutex_unlock(&device->lock);
	return 0;
}

/* ---- memory ---- */

static const struct guest_memory *memory_of(struct device *device)
{
	pthread_mutex_lock(&device->lock);
	const struct guest_memory *memory = device->memory;

	pthread_mutex_unlock(&device->lock);
	return memory;
}

/* -EFAULT is the driver's mistake, and concerns nobody else. */
static void note_result(struct device *device, int result)
{
	if (result == 0 || result == -EFAULT)
		return;
	pthread_mutex_lock(&device->lock);
	bool first = !device->refused;

	device->refused = true;
	pthread_mutex_unlock(&device->lock);
	if (first)
		log_warn("balloon: the guest's memory cannot be given back: %s",
			result == -EOPNOTSUPP ? "its huge pages are reserved for it"
					      : strerror(-result));
}

/* The chain's readable bytes, `size` at most. How many. */
static size_t gather(const struct virtqueue_chain *chain, void *buffer, size_t size)
{
	uint8_t *at = buffer;
	size_t done = 0;

	for (unsigned i = 0; i < chain->readable && done < size; i++) {
		size_t length = min_u64(chain->iov[i].iov_len, size - done);

		memcpy(at + done, chain->iov[i].iov_base, length);
		done += length;
	}
	return done;
}

/* Drivers name pages one by one, going up or down through memory. */
static uint32_t inflate(struct device *device, const struct virtqueue_chain *chain)
{
	const struct guest_memory *memory = memory_of(device);
	uint32_t pages[PAGES_MAX];
	size_t named = gather(chain, pages, sizeof(pages)) / sizeof(pages[0]);
	uint64_t first = 0;
	uint64_t count = 0;

	for (size_t i = 0; i < named; i++) {
		uint64_t page = pages[i];

		if (count > 0 && page == first + count) {
			count++;
		} else if (count > 0 && page + 1 == first) {
			first--;
			count++;
		} else {
			if (count > 0)
				note_result(
					device, guest_memory_discard_pages(memory, first, count));
			first = page;
			count = 1;
		}
	}
	if (count > 0)
		note_result(device, guest_memory_discard_pages(memory, first, count));
	return 0;
}

/* The pages come back when the guest touches them. */
static uint32_t ignore(struct device *device, const struct virtqueue_chain *chain)
{
	(void)device;
	(void)chain;
	return 0;
}

/* Each buffer is free memory; none of it is written. */
static uint32_t take_report(struct device *device, const struct virtqueue_chain *chain)
{
	const struct guest_memory *memory = memory_of(device);

	for (unsigned i = 0; i < chain->writable; i++) {
		const struct iovec *free_memory = &chain->iov[chain->readable + i];

		note_result(device, guest_memory_discard_buffer(
					    memory, free_memory->iov_base, free_memory->iov_len));
	}
	return 0;
}

/* ---- statistics ---- */

static void forget_stats(struct balloon_state *state)
{
	for (unsigned i = 0; i < BALLOON_STATS; i++)
		state->stats[i] = BALLOON_STAT_UNKNOWN;
}

/* The buffer that the driver keeps offered, and for which request it was last given back. */
struct stats_buffer {
	bool held;
	uint16_t head;
	uint32_t sent;
};

/* Tags that we do not know are of a newer driver. */
static void take_stats(struct device *device, const struct virtqueue_chain *chain, uint32_t answers)
{
	struct virtio_balloon_stat told[STATS_MAX];
	size_t count = gather(chain, told, sizeof(told)) / sizeof(told[0]);

	pthread_mutex_lock(&device->lock);
	forget_stats(&device->state);
	for (size_t i = 0; i < count; i++)
		if (told[i].tag < BALLOON_STATS)
			device->state.stats[told[i].tag] = told[i].val;
	device->state.stats_answered = answers;
	pthread_mutex_unlock(&device->lock);
}

static void give_back(struct device_queue *queue, struct stats_buffer *buffer)
{
	virtqueue_push(&queue->vq, buffer->head, 0);
	buffer->held = false;
}

/* Takes a ring's worth of buffers, keeps the last. 1: there may be more, 0: all done. */
static int take_buffers(struct device_queue *queue, struct iovec *iov, struct stats_buffer *buffer)
{
	struct virtqueue_chain chain = { .iov = iov, .iov_max = queue->size };
	int r = 1;

	for (unsigned n = 0; r == 1 && n < queue->size; n++) {
		r = virtqueue_pop(&queue->vq, &chain);
		if (r != 1)
			break;
		if (buffer->held) /* a driver has one; this one has more */
			give_back(queue, buffer);
		take_stats(queue->device, &chain, buffer->sent);
		buffer->held = true;
		buffer->head = chain.head;
	}
	return r;
}

/* Its way back asks the driver for new ones. */
static void ask_driver(struct device_queue *queue, struct stats_buffer *buffer)
{
	struct device *device = queue->device;

	pthread_mutex_lock(&device->lock);
	uint32_t asked = device->state.stats_asked;

	pthread_mutex_unlock(&device->lock);
	if (!buffer->held || asked == buffer->sent)
		return;
	buffer->sent = asked;
	give_back(queue, buffer);
}

static int serve_stats_rounds(struct device_queue *queue, struct stats_buffer *buffer)
{
	struct iovec iov[VIRTQUEUE_SIZE_MAX];
	int r = 1;

	while (r > 0) {
		do {
			r = take_buffers(queue, iov, buffer);
			ask_driver(queue, buffer);
			if (virtqueue_publish(&queue->vq))
				(void)eventfd_write(queue->call_fd, 1);
		} while ((r == 1 || (r == 0 && virtqueue_enable_kicks(&queue->vq))) &&
			 !device_shall_stop(queue));
		if (r >= 0)
			r = device_wait_for_kick(queue);
	}
	return r;
}

static void set_stats_kick(struct device *device, int fd)
{
	pthread_mutex_lock(&device->lock);
	device->stats_kick_fd = fd;
	pthread_mutex_unlock(&device->lock);
}

static int serve_stats(struct device_queue *queue)
{
	struct device *device = queue->device;

	pthread_mutex_lock(&device->lock);
	struct stats_buffer buffer = { .sent = device->state.stats_answered };

	device->stats_kick_fd = queue->kick_fd;
	pthread_mutex_unlock(&device->lock);
	int r = serve_stats_rounds(queue, &buffer);

	set_stats_kick(device, -1);
	/* Offered again for the next time, as if nobody had looked. */
	if (buffer.held)
		virtqueue_unpop(&queue->vq, buffer.head);
	return r;
}

/* ---- life ---- */

/* After the fixed queues come those of features, without gaps for those that are not accepted. */
static int balloon_serve(struct device_queue *queue)
{
	struct device *device = queue->device;
	bool has_stats = has_feature(device, VIRTIO_BALLOON_F_STATS_VQ);

	pthread_mutex_lock(&device->lock);
	device->memory = queue->vq.memory;
	pthread_mutex_unlock(&device->lock);
	if (queue->index == QUEUE_INFLATE)
		return device_serve_chains(queue, inflate);
	if (has_stats && queue->index == QUEUES_FIXED)
		return serve_stats(queue);
	if (has_feature(device, VIRTIO_BALLOON_F_REPORTING) &&
		queue->index == (has_stats ? QUEUES_FIXED + 1u : QUEUES_FIXED))
		return device_serve_chains(queue, take_report);
	return device_serve_chains(queue, ignore);
}

static int balloon_start(struct device *device, uint64_t features)
{
	device->features = features;
	return 0;
}

/* A driver that is gone has taken its pages back. */
static void balloon_stop(struct device *device)
{
	pthread_mutex_lock(&device->lock);
	device->state.actual_pages = 0;
	forget_stats(&device->state);
	pthread_mutex_unlock(&device->lock);
}

static void balloon_free(struct device *device)
{
	pthread_mutex_destroy(&device->lock);
	free(device);
}

static const struct device_ops balloon_ops = {
	.name = "balloon",
	.virtio_id = VIRTIO_ID_BALLOON,
	.pci_class = 0x00ff, /* none that fits */
	.queue_size = QUEUE_SIZE,
	.config_size = BALLOON_CONFIG_SIZE,
	.control_size = sizeof(struct balloon_state) - BALLOON_CONFIG_SIZE,
	.queue_count = balloon_queue_count,
	.features = balloon_features,
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.config_change = balloon_config_change,
	.start = balloon_start,
	.serve = balloon_serve,
	.stop = balloon_stop,
	.free = balloon_free,
};

static int balloon_open(const void *opaque_options, struct device **ret_device)
{
	const struct balloon_options *options = opaque_options;
	struct device *device = calloc(1, sizeof(*device));

	if (device == NULL)
		return -ENOMEM;
	device->options = *options;
	device->stats_kick_fd = -1;
	device->state.target_pages = (uint32_t)options->size_mib * BALLOON_PAGES_PER_MIB;
	forget_stats(&device->state);
	pthread_mutex_init(&device->lock, NULL);
	*ret_device = device;
	return 0;
}

static int apply_size(void *target, const char *option, const char *value)
{
	return suboption_number(option, "size", value, 0, SIZE_MIB_MAX,
		&((struct balloon_options *)target)->size_mib);
}

static int apply_reporting(void *target, const char *option, const char *value)
{
	return suboption_bool(
		option, "reporting", value, &((struct balloon_options *)target)->reporting);
}

static int apply_deflate_on_oom(void *target, const char *option, const char *value)
{
	bool deflates;
	int r = suboption_bool(option, "deflate-on-oom", value, &deflates);

	if (r == 0)
		((struct balloon_options *)target)->keeps_on_oom = !deflates;
	return r;
}

static const struct suboption suboptions[] = {
	{ "size", true, apply_size }, /* first: a value without a name */
	{ "reporting", false, apply_reporting },
	{ "deflate-on-oom", false, apply_deflate_on_oom },
};

uint64_t balloon_size_mib(const void *options)
{
	return ((const struct balloon_options *)options)->size_mib;
}

static const struct balloon_options default_options = { .size_mib = 0 };

const struct device_class balloon_device_class = {
	.ops = &balloon_ops,
	.once = true,
	.suboptions = suboptions,
	.suboption_count = ARRAY_SIZE(suboptions),
	.defaults = &default_options,
	.options_size = sizeof(struct balloon_options),
	.open = balloon_open,
};
