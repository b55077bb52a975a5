/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One ring of virtio-net served in a thread, with a driver at one end and, in
 * the place of a tap, a socket that keeps frames apart at the other.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "unit/unit.h"
#include "unit/virtio_driver.h"
#include "virtio/net_queue.h"

#define BIT(feature) (UINT64_C(1) << (feature))

/* Entries of the ring; a test may say another number before it includes this. */
#ifndef NET_RIG_SIZE
#define NET_RIG_SIZE 8
#endif

enum { SIZE = NET_RIG_SIZE, HEADER = NET_HEADER_SIZE, FRAME = 60, PATIENCE_MS = 20000 };
enum { RECEIVE, TRANSMIT, CONTROL };

struct rig {
	struct guest_memory *memory;
	struct driver driver;
	struct device device;
	struct device_queue queue;
	int network; /* the other end of the cable */
	pthread_t thread;
	int result;
	uint16_t base; /* where begin() starts the ring */
};

/* Its ring was for the thread that ends; the next start is another's. */
static inline void forget_ring(const struct device_queue *queue)
{
	struct urings *urings = &queue->device->urings;

	urings_give_up(urings, queue->index);
	urings->tried[queue->index] = urings->enabled[queue->index] = false;
}

static inline void *serve(void *argument)
{
	struct rig *rig = argument;

	rig->result = rig->queue.index == RECEIVE    ? net_serve_receive(&rig->queue)
		      : rig->queue.index == TRANSMIT ? net_serve_transmit(&rig->queue)
						     : net_serve_control(&rig->queue);
	forget_ring(&rig->queue);
	return NULL;
}

static inline void begin(struct rig *rig)
{
	struct virtqueue_config config = driver_config(SIZE);

	config.event_idx = (rig->device.features & BIT(VIRTIO_RING_F_EVENT_IDX)) != 0;
	assert_int_equal(virtqueue_init(&rig->queue.vq, rig->memory, &config, rig->base), 0);
	assert_int_equal(pthread_create(&rig->thread, NULL, serve, rig), 0);
}

static inline struct rig *new_rig(unsigned index, uint64_t features)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	int ends[2];

	assert_non_null(rig);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
	rig->memory = driver_memory();
	driver_init(&rig->driver, rig->memory, SIZE);
	rig->network = ends[0];
	rig->device = (struct device){
		.options.pairs = 1,
		.tap = { .count = 1, .fds = { ends[1] }, .name = "test" },
		.vhost_fd = -1,
		.features = features,
		.pairs = 1,
	};
	net_pair_init(&rig->device.queue_pairs[0]);
	rig->queue = (struct device_queue){
		.device = &rig->device,
		.index = index,
		.size = SIZE,
		.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.stop_fd = eventfd(0, EFD_CLOEXEC),
	};
	begin(rig);
	return rig;
}

/* What serve returned. */
static inline int end(struct rig *rig)
{
	assert_int_equal(eventfd_write(rig->queue.stop_fd, 1), 0);
	pthread_join(rig->thread, NULL);
	return rig->result;
}

static inline void free_rig(struct rig *rig)
{
	net_pair_free(&rig->device.queue_pairs[0]);
	close(rig->network);
	close(rig->device.tap.fds[0]);
	close(rig->queue.kick_fd);
	close(rig->queue.call_fd);
	close(rig->queue.stop_fd);
	guest_memory_free(rig->memory);
	free(rig);
}

static inline uint8_t *data_at(struct rig *rig, uint64_t offset)
{
	return guest_memory_at(rig->memory, DRIVER_DATA + offset, 4096);
}

static inline void sleep_ms(long ms)
{
	const struct timespec pause = { .tv_nsec = ms * 1000000 };

	nanosleep(&pause, NULL);
}

/* If the device wants it, as a driver does. */
static inline void kick(struct rig *rig)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if ((driver_used_flags(&rig->driver) & VRING_USED_F_NO_NOTIFY) == 0)
		assert_int_equal(eventfd_write(rig->queue.kick_fd, 1), 0);
}

/* Waits for the call after which the used ring has `idx` entries. */
static inline void wait_used(struct rig *rig, uint16_t idx)
{
	struct pollfd call = { .fd = rig->queue.call_fd, .events = POLLIN };
	eventfd_t count;

	while (driver_used_idx(&rig->driver) != idx) {
		assert_int_equal(poll(&call, 1, PATIENCE_MS), 1);
		(void)eventfd_read(rig->queue.call_fd, &count);
	}
}

/* A frame from the network: a header as a tap gives it, without num_buffers, and bytes. */
static inline void network_sends(struct rig *rig, size_t size, uint8_t first)
{
	uint8_t frame[NET_FRAME_MAX];

	memset(frame, 0, HEADER);
	for (size_t i = 0; i < size; i++)
		frame[HEADER + i] = (uint8_t)(first + i);
	frame[10] = frame[11] = 0xee; /* what was in the tap's buffer */
	assert_int_equal(send(rig->network, frame, HEADER + size, 0), HEADER + size);
}

static inline void assert_counts_up(const uint8_t *data, size_t size, uint8_t first)
{
	for (size_t i = 0; i < size; i++)
		assert_int_equal(data[i], (uint8_t)(first + i));
}

/* Descriptor `index` is a chain of one buffer to write to, at its own place. */
static inline void offer_buffer(struct rig *rig, unsigned index, uint32_t size)
{
	memset(data_at(rig, index * UINT64_C(4096)), 0x5a, 4096);
	driver_put(&rig->driver, index, DRIVER_DATA + index * UINT64_C(4096), size,
		VRING_DESC_F_WRITE, 0);
	driver_offer(&rig->driver, (uint16_t)index);
}

/* The bytes of a frame that came out of the cable, with its header. */
static inline size_t network_gets(struct rig *rig, uint8_t *frame, size_t size)
{
	struct pollfd wait = { .fd = rig->network, .events = POLLIN };

	assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
	ssize_t n = recv(rig->network, frame, size, 0);

	assert_true(n > 0);
	return (size_t)n;
}

static inline void assert_network_is_silent(struct rig *rig)
{
	uint8_t byte;

	assert_int_equal(recv(rig->network, &byte, 1, 0), -1);
	assert_int_equal(errno, EAGAIN);
}

/* Writes a frame with this header at the data's start. */
static inline void make_frame(struct rig *rig, struct virtio_net_hdr header, size_t size)
{
	memset(data_at(rig, 0), 0, 4096);
	memcpy(data_at(rig, 0), &header, sizeof(header));
	for (size_t i = 0; i < size; i++)
		data_at(rig, 0)[HEADER + i] = (uint8_t)i;
}
