/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crosvm-wl, the guest's half of wayland, with clients on real sockets and a
 * double of the device. A vfd's memory is a file, and what is closed twice or
 * used after that aborts.
 */
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../../guest/wl/proxy.h"
#include "base/fd_passing.h"

enum { VFDS = 512, HOST_VFD = 0x40000000 + VFDS / 2, EVENTS_MAX = 32 };

struct device {
	int ready_fd; /* readable: a round does not wait */
	bool is_open[VFDS];
	int memory[VFDS]; /* 0: none */
	uint32_t last;    /* vfd that was made */
	struct device_event events[EVENTS_MAX];
	unsigned event_count;
	size_t got[VFDS];    /* bytes */
	size_t room[VFDS];   /* for bytes; 0: for any */
	bool is_gone[VFDS];  /* on the host */
	unsigned asked;      /* to send */
	uint32_t memory_max; /* what it gives; 0: any */
	size_t mapped;       /* by the last view */
};

struct rig {
	struct device device;
	struct proxy proxy;
};

static inline void rig_require(bool holds)
{
	if (!holds)
		abort();
}

/* ---- the double ---- */

static inline uint32_t rig_new_vfd(struct device *device)
{
	rig_require(++device->last < VFDS / 2);
	device->is_open[device->last] = true;
	return device->last;
}

static inline bool rig_is_open(const struct device *device, uint32_t vfd)
{
	return device->is_open[vfd % VFDS];
}

uint32_t device_new_context(struct device *device)
{
	return rig_new_vfd(device);
}

uint32_t device_new_pipe(struct device *device, unsigned direction)
{
	rig_require(direction == WL_READ || direction == WL_WRITE);
	return rig_new_vfd(device);
}

uint32_t device_new_memory(struct device *device, uint32_t size, uint64_t *ret_pfn)
{
	if (device->memory_max != 0 && size > device->memory_max)
		return 0;
	uint32_t vfd = rig_new_vfd(device);

	device->memory[vfd] = memfd_create("twin", MFD_CLOEXEC);
	rig_require(device->memory[vfd] >= 0 && ftruncate(device->memory[vfd], size) == 0);
	*ret_pfn = vfd;
	return vfd;
}

void *device_map(const struct device *device, uint64_t pfn, size_t size, bool writable)
{
	((struct device *)(uintptr_t)device)->mapped = size;
	void *view = mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED,
		device->memory[pfn], 0);

	if (view == MAP_FAILED)
		return NULL;
	return view;
}

void device_close_vfd(struct device *device, uint32_t vfd)
{
	rig_require(rig_is_open(device, vfd));
	device->is_open[vfd % VFDS] = false;
	if (device->memory[vfd % VFDS] > 0)
		close(device->memory[vfd % VFDS]);
	device->memory[vfd % VFDS] = 0;
}

enum sent device_send(struct device *device, uint32_t vfd, const void *data, size_t size,
	const uint32_t *ids, unsigned count)
{
	uint32_t at = vfd % VFDS;

	(void)data;
	rig_require(rig_is_open(device, vfd) && size > 0 && size <= WL_DATA_MAX);
	for (unsigned i = 0; i < count; i++)
		rig_require(rig_is_open(device, ids[i]));
	device->asked++;
	if (device->is_gone[at])
		return SEND_REFUSED;
	if (device->room[at] != 0 && device->got[at] + size > device->room[at])
		return SEND_BUSY;
	device->got[at] += size;
	return SENT;
}

int device_fd(const struct device *device)
{
	return device->ready_fd;
}

void device_rearm(struct device *device)
{
	(void)device; /* it stays ready */
}

bool device_next_event(struct device *device, struct device_event *ret_event)
{
	if (device->event_count == 0)
		return false;
	*ret_event = device->events[0];
	device->event_count--;
	memmove(device->events, device->events + 1, device->event_count * sizeof(*ret_event));
	return true;
}

static inline uint64_t rig_time_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Rounds wait for something to happen. */
static inline void rig_be_quiet(const struct rig *rig)
{
	eventfd_t ignored;

	(void)eventfd_read(rig->device.ready_fd, &ignored);
}

/* The next of what the host says; `data` stays the caller's. */
static inline void rig_event(struct rig *rig, struct device_event event)
{
	rig_require(rig->device.event_count < EVENTS_MAX);
	if (event.kind == EVENT_NEW)
		rig->device.is_open[event.vfd % VFDS] = true;
	rig->device.events[rig->device.event_count++] = event;
}

/* ---- what happens ---- */

static inline void rig_run(struct rig *rig, unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++)
		rig_require(run_round(&rig->proxy) == 1);
}

/* The host's message for the client with descriptors, each of which it announced. */
static inline void rig_tell(
	struct rig *rig, unsigned place, const struct device_event *news, unsigned count)
{
	static const uint32_t message[] = { 9, 8 << 16 };
	struct device_event event = { .kind = EVENT_DATA,
		.vfd = rig->proxy.clients[place].vfd,
		.count = count,
		.data = (const uint8_t *)message,
		.data_size = sizeof(message) };

	for (unsigned i = 0; i < count; i++) {
		rig_event(rig, news[i]);
		event.ids[i] = news[i].vfd;
	}
	rig_event(rig, event);
}

/* ---- clients ---- */

/* Its end of the socket. */
static inline int rig_connect(struct rig *rig, unsigned place)
{
	int ends[2];

	rig_require(rig->proxy.clients[place].fd < 0);
	rig_require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	rig->proxy.clients[place] =
		(struct client){ .fd = ends[0], .vfd = device_new_context(&rig->device) };
	return ends[1];
}

/* Bytes and descriptors, which the client keeps. */
static inline void rig_say(
	int client, const void *data, size_t size, const int *fds, unsigned count)
{
	union {
		struct cmsghdr align;
		uint8_t bytes[CMSG_SPACE(WL_FDS_MAX * sizeof(int))];
	} control = { .bytes = { 0 } };
	struct iovec iov = { (void *)(uintptr_t)data, size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count > 0) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, count * sizeof(int));
	}
	rig_require(sendmsg(client, &message, MSG_NOSIGNAL) == (ssize_t)size);
}

/* A request: object, opcode and words. */
static inline void rig_request(
	int client, uint32_t object, uint32_t op, const uint32_t *words, unsigned count, int fd)
{
	uint32_t message[16] = { object, (4 * (count + 2)) << 16 | op };

	for (unsigned i = 0; i < count; i++)
		message[2 + i] = words[i];
	rig_say(client, message, 4 * (count + 2), &fd, fd >= 0);
}

#define REQUEST(client, object, op, fd, ...)                                                       \
	rig_request(client, object, op, (const uint32_t[]){ __VA_ARGS__ },                         \
		sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4, fd)

/* What a client has of its registry, by these ids. */
enum { REGISTRY_ID = 2, SHM_ID, COMPOSITOR_ID, SURFACE_ID, POOL_ID, FREE_ID };

static inline int rig_connect_shm(struct rig *rig, unsigned place)
{
	int client = rig_connect(rig, place);
	const uint32_t *shm = (const void *)"wl_shm\0",
		       *compositor = (const void *)"wl_compositor\0\0";

	REQUEST(client, 1, 1, -1, REGISTRY_ID);
	REQUEST(client, REGISTRY_ID, 0, -1, 1, 7, shm[0], shm[1], 1, SHM_ID);
	REQUEST(client, REGISTRY_ID, 0, -1, 2, 14, compositor[0], compositor[1], compositor[2],
		compositor[3], 4, COMPOSITOR_ID);
	REQUEST(client, COMPOSITOR_ID, 0, -1, SURFACE_ID);
	return client;
}

/* One descriptor that came with a message of 8 bytes. */
static inline int rig_take_fd(int client)
{
	uint8_t data[8];
	int fd = -1;

	rig_require(fd_receive(client, data, sizeof(data), &fd) == 0 && fd >= 0);
	return fd;
}

static inline bool rig_is_over(const struct rig *rig, unsigned place)
{
	return rig->proxy.clients[place].fd < 0;
}

static inline unsigned rig_pumps(const struct rig *rig)
{
	unsigned count = 0;

	for (unsigned i = 0; i < PUMPS; i++)
		count += rig->proxy.pumps[i].vfd != 0;
	return count;
}

/* ---- all of it ---- */

static inline void rig_open(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	rig->device.ready_fd = eventfd(1, EFD_CLOEXEC);
	rig_require(rig->device.ready_fd >= 0);
	rig->proxy.device = &rig->device;
	rig->proxy.listener = rig->proxy.signals = -1;
	for (unsigned i = 0; i < CLIENTS; i++)
		rig->proxy.clients[i].fd = -1;
	for (unsigned i = 0; i < PUMPS; i++)
		rig->proxy.pumps[i].fd = -1;
}

/* Nothing is left of anybody. */
static inline void rig_close(struct rig *rig)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (rig->proxy.clients[i].fd >= 0)
			drop_client(&rig->proxy, &rig->proxy.clients[i]);
	for (unsigned i = 0; i < PUMPS; i++)
		if (rig->proxy.pumps[i].vfd != 0)
			end_pump(&rig->proxy, &rig->proxy.pumps[i]);
	for (unsigned i = 0; i < VFDS; i++)
		rig_require(!rig->device.is_open[i]);
	close(rig->device.ready_fd);
}

static inline int rig_setup(void **state)
{
	static struct rig rig;

	rig_open(&rig);
	*state = &rig;
	return 0;
}

static inline int rig_teardown(void **state)
{
	rig_close(*state);
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
