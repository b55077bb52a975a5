/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A wayland device's host side with a compositor that only listens, and a
 * window that keeps account: what overlaps or is taken away twice aborts.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "virtio/wl_host.h"

#define RIG_WINDOW_GPA UINT64_C(0x4000000000)

enum { RIG_MAPPINGS = 64 };

struct rig_mapping {
	uint64_t offset, size; /* size 0: free */
	bool writable;
	int fd;
};

struct wl_rig {
	struct window window;
	unsigned map_calls, mapped;
	struct rig_mapping mappings[RIG_MAPPINGS];
	struct wl_socket sockets[2];
	int listeners[2];
	struct wl_host *host;
	char directory[32];
};

static inline void rig_require(bool holds)
{
	if (!holds)
		abort();
}

static inline int rig_map(void *owner, uint64_t offset, uint64_t size, int fd, bool writable)
{
	struct wl_rig *rig = owner;
	struct rig_mapping *place = NULL;

	rig_require((offset | size) % WINDOW_PAGE == 0 && size > 0);
	rig_require(offset <= WL_WINDOW_SIZE && size <= WL_WINDOW_SIZE - offset);
	for (unsigned i = 0; i < RIG_MAPPINGS; i++) {
		struct rig_mapping *mapping = &rig->mappings[i];

		if (mapping->size == 0)
			place = mapping;
		else
			rig_require(offset >= mapping->offset + mapping->size ||
				    mapping->offset >= offset + size);
	}
	if (place == NULL)
		return -ENOSPC;
	*place = (struct rig_mapping){ offset, size, writable, fcntl(fd, F_DUPFD_CLOEXEC, 0) };
	rig->map_calls++;
	rig->mapped++;
	return 0;
}

static inline int rig_unmap(void *owner, uint64_t offset, uint64_t size)
{
	struct wl_rig *rig = owner;

	for (unsigned i = 0; i < RIG_MAPPINGS; i++) {
		struct rig_mapping *mapping = &rig->mappings[i];

		if (mapping->size == 0 || mapping->offset != offset || mapping->size != size)
			continue;
		close(mapping->fd);
		mapping->size = 0;
		rig->mapped--;
		return 0;
	}
	abort();
}

static const struct window_ops rig_window_ops = { .map = rig_map, .unmap = rig_unmap };

static inline int rig_listen(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	unlink(path);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	rig_require(bind(fd, (const void *)&address, sizeof(address)) == 0);
	rig_require(listen(fd, 16) == 0);
	return fd;
}

static inline int rig_accept(int listener)
{
	// cppcheck-suppress nullPointer ; accept4() takes NULL where nobody asks for the address
	return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

static inline void rig_open(struct wl_rig *rig)
{
	static const char *const names[] = { "", "other" };

	*rig = (struct wl_rig){
		.window = { &rig_window_ops, rig, RIG_WINDOW_GPA, WL_WINDOW_SIZE, -1 },
	};
	snprintf(rig->directory, sizeof(rig->directory), "/tmp/crosvm-wl-XXXXXX");
	rig_require(mkdtemp(rig->directory) != NULL);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(rig->sockets[i].path, sizeof(rig->sockets[i].path), "%s/%u",
			rig->directory, i);
		snprintf(rig->sockets[i].name, sizeof(rig->sockets[i].name), "%s", names[i]);
		rig->listeners[i] = rig_listen(rig->sockets[i].path);
	}
	rig_require(wl_host_create(rig->sockets, 2, &rig->host) == 0);
	rig->host->table.window = &rig->window;
	rig->host->table.window_gpa = RIG_WINDOW_GPA;
}

/* Nothing is left of what a driver did. */
static inline void rig_reset(struct wl_rig *rig)
{
	wl_host_reset(rig->host);
	rig_require(rig->mapped == 0 && rig->host->table.descriptors == 0 &&
		    rig->host->table.pending_count == 0 && rig->host->table.closed == NULL);
}

static inline void rig_close(struct wl_rig *rig)
{
	rig_reset(rig);
	wl_host_free(rig->host);
	for (unsigned i = 0; i < 2; i++) {
		fd_close(&rig->listeners[i]);
		unlink(rig->sockets[i].path);
	}
	rmdir(rig->directory);
}

/* Sends bytes and descriptors, all at once. */
static inline bool rig_send(
	int fd, const void *data, size_t size, const int *fds, unsigned fd_count)
{
	union {
		struct cmsghdr align;
		uint8_t bytes[CMSG_SPACE(64 * sizeof(int))];
	} control = { .bytes = { 0 } };
	struct iovec iov = { (void *)(uintptr_t)data, size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd_count > 0) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, fd_count * sizeof(int));
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

/* What is there, up to `size` bytes; bytes, 0 at the end, -1. Descriptors are the caller's. */
static inline ssize_t rig_receive(int fd, void *data, size_t size, int *fds, unsigned *ret_count)
{
	union {
		struct cmsghdr align;
		uint8_t bytes[CMSG_SPACE(64 * sizeof(int))];
	} control;
	struct iovec iov = { data, size };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&message);

	*ret_count = c == NULL ? 0 : (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	if (c != NULL)
		memcpy(fds, CMSG_DATA(c), *ret_count * sizeof(int));
	return n;
}
