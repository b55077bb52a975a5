/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For tests of vhost-user: guest memory with a driver's rings in it, a device
 * that is served in a thread at one end of a socket pair, and a count of the
 * process's descriptors, so that each test sees that none is lost.
 */
#pragma once

#include <linux/virtio_config.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "unit/copier.h"
#include "unit/count_entries.h"
#include "unit/virtio_driver.h"
#include "virtio/vhost_thread.h"
#include "virtio/vhost_user_backend.h"
#include "virtio/vhost_user_frontend.h"
#include "virtio/vhost_user_message.h"

#define FAR_AWAY (clock_monotonic_ns() + 60 * NS_PER_S)

/* What is served, and where. */
struct served {
	int socket;  /* the device's end; closed when it is served no more */
	int stop_fd; /* or -1 */
	const char *name;
	struct vhost *vhost;
	int result;
	pthread_t thread;
};

struct rig {
	unsigned fds_before;
	struct guest_memory *memory;
	struct driver driver;
	struct device device; /* the copier */
	struct served served;
	int socket; /* the front end's end */
	int kick_fd, call_fd, error_fd;
};

static inline void *serve_in_thread(void *argument)
{
	struct served *served = argument;

	served->result =
		vhost_user_serve(served->socket, served->name, served->vhost, served->stop_fd);
	fd_close(&served->socket);
	return NULL;
}

static inline void start_serving(struct served *served)
{
	assert_int_equal(pthread_create(&served->thread, NULL, serve_in_thread, served), 0);
}

/* After the front end has hung up. What vhost_user_serve() gave. */
static inline int end_serving(struct served *served)
{
	pthread_join(served->thread, NULL);
	served->vhost->ops->free(served->vhost);
	return served->result;
}

static inline void make_sockets(int *ret_ours, int *ret_theirs)
{
	int sockets[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	*ret_ours = sockets[0];
	*ret_theirs = sockets[1];
}

/* Without a device: the test says who is at the other end. */
static inline void rig_init(struct rig *rig)
{
	/* What is wrong with a peer is tested by the results. Set before there are threads. */
	if (log_enabled(LOG_LEVEL_WARN))
		log_set_level(LOG_LEVEL_ERROR);
	*rig = (struct rig){ .fds_before = count_fds(), .served.stop_fd = -1 };
	rig->memory = driver_memory();
	driver_init(&rig->driver, rig->memory, SIZE);
	rig->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rig->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rig->error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	make_sockets(&rig->socket, &rig->served.socket);
}

static inline void rig_release(struct rig *rig)
{
	fd_close(&rig->socket);
	fd_close(&rig->served.socket);
	fd_close(&rig->kick_fd);
	fd_close(&rig->call_fd);
	fd_close(&rig->error_fd);
	guest_memory_free(rig->memory);
}

/* The same, and nothing is left over. */
static inline void rig_free(struct rig *rig)
{
	rig_release(rig);
	assert_int_equal(count_fds(), rig->fds_before);
}

/* `ops` are the copier's, or like them. */
static inline void rig_serve(struct rig *rig, const struct device_ops *ops)
{
	rig->served.name = "copier";
	assert_int_equal(vhost_thread_create(ops, &rig->device, NULL, &rig->served.vhost), 0);
	start_serving(&rig->served);
}

static inline void rig_serve_copier(struct rig *rig)
{
	rig_serve(rig, &copier_ops);
}

static inline struct vhost_ring rig_ring(const struct rig *rig)
{
	return (struct vhost_ring){
		.size = SIZE,
		.desc = DRIVER_DESC,
		.avail = DRIVER_AVAIL,
		.used = DRIVER_USED,
		.kick_fd = rig->kick_fd,
		.call_fd = rig->call_fd,
	};
}

/* A request to copy 16 bytes, at descriptors 2 * slot and the next. */
static inline void offer_copy(struct rig *rig, unsigned slot, uint8_t byte)
{
	uint64_t gpa = DRIVER_DATA + slot * 2 * DATA_SIZE;
	uint8_t *data = guest_memory_at(rig->memory, gpa, (uint64_t)2 * DATA_SIZE);

	memset(data, byte, DATA_SIZE);
	memset(data + DATA_SIZE, 0, DATA_SIZE);
	driver_put(&rig->driver, slot * 2, gpa, DATA_SIZE, VRING_DESC_F_NEXT,
		(uint16_t)(slot * 2 + 1));
	driver_put(&rig->driver, slot * 2 + 1, gpa + DATA_SIZE, DATA_SIZE, VRING_DESC_F_WRITE, 0);
	driver_offer(&rig->driver, (uint16_t)(slot * 2));
	assert_int_equal(eventfd_write(rig->kick_fd, 1), 0);
}

static inline bool is_copied(const struct rig *rig, unsigned slot)
{
	const uint8_t *data = guest_memory_at(
		rig->memory, DRIVER_DATA + slot * 2 * DATA_SIZE, (uint64_t)2 * DATA_SIZE);

	return memcmp(data, data + DATA_SIZE, DATA_SIZE) == 0;
}

static inline bool wait_readable(int fd, int timeout_ms)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	return poll(&pollfd, 1, timeout_ms) == 1;
}

/* Waits by interrupts until so many are used. */
static inline void wait_for_used(const struct rig *rig, uint16_t idx)
{
	eventfd_t count;

	while (driver_used_idx(&rig->driver) != idx) {
		if (!wait_readable(rig->call_fd, 20000))
			fail_msg("%u used, not %u", driver_used_idx(&rig->driver), idx);
		(void)eventfd_read(rig->call_fd, &count);
	}
}
