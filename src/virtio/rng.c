// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-rng: random bytes from the host's kernel, straight into the guest's
 * buffers. The guest chooses buffers and sizes; a request gets 64 KiB at most.
 * Source: virtio 1.2, section 5.4.
 */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

#include "virtio/device.h"

enum { REQUEST_MAX = 64 << 10 };

struct device {
	char nothing; /* the device has no state */
};

static unsigned rng_queue_count(const struct device *device)
{
	(void)device;
	return 1;
}

static uint64_t rng_features(const struct device *device)
{
	(void)device;
	return 0;
}

/* Fills one buffer; fewer bytes than asked only when the host refuses. */
static size_t fill(uint8_t *buffer, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = getrandom(buffer + done, size - done, 0);

		if (n < 0 && errno != EINTR)
			break;
		if (n > 0)
			done += (size_t)n;
	}
	return done;
}

static uint32_t rng_handle(struct device *device, const struct virtqueue_chain *chain)
{
	size_t left = REQUEST_MAX;

	(void)device;
	for (unsigned i = 0; left > 0 && i < chain->writable; i++) {
		const struct iovec *buffer = &chain->iov[chain->readable + i];
		size_t size = min_u64(buffer->iov_len, left);
		size_t done = fill(buffer->iov_base, size);

		left -= done;
		if (done < size)
			break;
	}
	return (uint32_t)(REQUEST_MAX - left);
}

static int rng_serve(struct device_queue *queue)
{
	return device_serve_chains(queue, rng_handle);
}

static void rng_free(struct device *device)
{
	free(device);
}

static const struct device_ops rng_ops = {
	.name = "rng",
	.virtio_id = VIRTIO_ID_RNG,
	.pci_class = 0x00ff, /* none that fits */
	.queue_size = 64,
	.queue_size_limit = VIRTQUEUE_SIZE_MAX, /* QEMU's queue */
	.queue_count = rng_queue_count,
	.features = rng_features,
	.serve = rng_serve,
	.free = rng_free,
};

static int rng_open(const void *options, struct device **ret_device)
{
	struct device *device = calloc(1, sizeof(*device));

	(void)options;
	if (device == NULL)
		return -ENOMEM;
	*ret_device = device;
	return 0;
}

const struct device_class rng_device_class = { .ops = &rng_ops, .open = rng_open };
