/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the benches of a device's queue share: a driver's side of a ring with event
 * indices, as Linux has it, how a thread's system calls are counted, and an end
 * with one line when something cannot be done. Included by one program each.
 */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "memory/guest_memory.h"
#include "virtio/vhost.h"

struct driver_queue {
	uint16_t size;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	int kick_fd, call_fd;
	uint16_t offered, kicked, seen;
	uint64_t kicks, calls; /* that were heard */
};

enum { DRIVER_PATIENCE_MS = 10000 };
/* Where rings end in guest memory. */
#define DRIVER_RINGS_END UINT64_C(0x100000)

static inline void check(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

/* The newest thread of this process: the queue's. */
static inline int last_thread(void)
{
	DIR *dir = opendir("/proc/self/task");
	const struct dirent *entry;
	int last = 0;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		int thread = (int)strtol(entry->d_name, NULL, 10); /* 0: not one */

		if (thread > last)
			last = thread;
	}
	if (dir != NULL)
		closedir(dir);
	return last;
}

/* Counts a thread's system calls; -1: we may not. */
static inline int count_system_calls(int thread)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr) };
	FILE *file = fopen("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id", "re");
	char id[24] = "";

	if (file == NULL)
		return -1;
	bool found = fgets(id, sizeof(id), file) != NULL;

	fclose(file);
	attr.config = strtoul(id, NULL, 10);
	return found ? (int)syscall(SYS_perf_event_open, &attr, thread, -1, -1, 0) : -1;
}

static inline double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A place in the bench's own memory. */
static inline void *driver_at(const struct guest_memory *memory, uint64_t gpa, uint64_t size)
{
	void *place = guest_memory_at(memory, gpa, size);

	check(place != NULL, "guest memory");
	return place;
}

/* Makes the ring of a queue, of 256 entries at most, and starts it. */
static inline void driver_start(struct driver_queue *queue, struct vhost *vhost,
	const struct guest_memory *memory, unsigned index, uint16_t size)
{
	uint64_t gpa = (1 + index) * UINT64_C(0x10000);
	const struct vhost_ring ring = {
		.size = size,
		.desc = gpa,
		.avail = gpa + 0x4000,
		.used = gpa + 0x8000,
		.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
	};

	*queue = (struct driver_queue){
		.size = size,
		.desc = driver_at(memory, ring.desc, 0x1000),
		.avail = driver_at(memory, ring.avail, 0x1000),
		.used = driver_at(memory, ring.used, 0x1000),
		.kick_fd = ring.kick_fd,
		.call_fd = ring.call_fd,
	};
	check(vhost->ops->set_vring(vhost, index, &ring) == 0 &&
			vhost->ops->start_vring(vhost, index) == 0,
		"start");
}

/* The chain that begins at this descriptor; the device sees it with the next kick. */
static inline void driver_offer(struct driver_queue *queue, uint16_t head)
{
	queue->avail->ring[queue->offered++ % queue->size] = head;
}

static inline void driver_kick(struct driver_queue *queue)
{
	const uint16_t *avail_event =
		(const uint16_t *)(const void *)&queue->used->ring[queue->size];

	if (queue->kicked == queue->offered)
		return;
	__atomic_store_n(&queue->avail->idx, queue->offered, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (vring_need_event(__atomic_load_n(avail_event, __ATOMIC_RELAXED), queue->offered,
		    queue->kicked)) {
		queue->kicks++;
		(void)eventfd_write(queue->kick_fd, 1);
	}
	queue->kicked = queue->offered;
}

/* How many chains were used that have not been seen. */
static inline uint16_t driver_ready(const struct driver_queue *queue)
{
	return (uint16_t)(__atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE) - queue->seen);
}

/* Waits until so many are, and asks for one call then. How many are. */
static inline uint16_t driver_await(struct driver_queue *queue, uint16_t count)
{
	struct pollfd call = { .fd = queue->call_fd, .events = POLLIN };
	eventfd_t value;

	while (driver_ready(queue) < count) {
		__atomic_store_n(&queue->avail->ring[queue->size],
			(uint16_t)(queue->seen + count - 1), __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (driver_ready(queue) >= count)
			break;
		check(poll(&call, 1, DRIVER_PATIENCE_MS) == 1, "no answer");
		if (eventfd_read(queue->call_fd, &value) == 0)
			queue->calls += value;
	}
	return driver_ready(queue);
}

/* The next chain that was used. */
static inline uint16_t driver_take(struct driver_queue *queue)
{
	return (uint16_t)queue->used->ring[queue->seen++ % queue->size].id;
}
