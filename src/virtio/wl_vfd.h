/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The vfds of a wayland device: what guest and host call a file by. Each holds
 * descriptors of the host; a guest makes and closes them at will, so their
 * number, the descriptors and the shared memory have bounds.
 *
 * Not locked: the device's lock is held.
 */
#pragma once

#include <sys/types.h>

#include "virtio/window.h"
#include "virtio/wl_protocol.h"

enum {
	WL_HOST_VFDS_MAX = 1024,
	WL_DESCRIPTORS_MAX = 600, /* of 1024 that a process has, unless told otherwise */
	WL_PENDING_CHUNK = 4096,
};
/*
 * The window, and how much of it may be in use when the guest asks for more.
 * What it sent and closed is not in it: who has that does not tell when it goes.
 */
#define WL_WINDOW_SIZE   (16 * GIB)
#define WL_COMMITTED_MAX (2 * GIB)
/* What a reader may be behind. */
#define WL_PENDING_MAX (4 * MIB)
/* A received file that its owner could shrink is copied, up to this size. */
#define WL_COPY_MAX (1 * MIB)

/* Data on its way to a socket or pipe that did not take it at once. */
struct wl_pending {
	struct wl_pending *next;
	unsigned begin, end; /* what is left of `data` */
	unsigned fd_count;   /* go with the first byte; owned */
	int fds[WL_FDS_MAX];
	uint8_t data[WL_PENDING_CHUNK];
};

struct wl_vfd {
	uint32_t id;
	uint32_t flags; /* as the guest was told */
	bool is_socket; /* takes and gives descriptors */
	bool can_read;  /* by the guest: the device reads fd and sends RECV */
	bool can_write;
	bool is_hung_up;
	int fd;
	int remote_fd;              /* of a pipe: the end that the guest can send; -1: it did */
	uint32_t size;              /* of shared memory, in bytes; 0: none */
	uint64_t offset;            /* in the window */
	struct wl_vfd *next_mapped; /* by offset */
	struct wl_vfd *next_closed;
	struct wl_pending *pending, *last_pending;
	unsigned pending_count;
};

struct wl_table {
	const struct window *window; /* NULL: there is none */
	uint64_t window_gpa;         /* 0: not known, and of no use so far */
	struct wl_vfd *mapped;
	struct wl_vfd *closed;  /* by the guest; they live until their data are sent */
	unsigned descriptors;   /* held by all vfds, their pending data included */
	unsigned pending_count; /* chunks, of all vfds */
	uint32_t next_host_id;
	struct wl_vfd *guest[WL_GUEST_IDS];
	struct wl_vfd *host[WL_HOST_VFDS_MAX];
};

/* NULL: there is none. */
struct wl_vfd *wl_find(const struct wl_table *table, uint32_t id);

/* Puts the guest's id in the table. WL_OK, WL_INVALID_ID or WL_OUT_OF_MEMORY. */
MUST_CHECK enum wl_answer wl_add_guest(
	struct wl_table *table, uint32_t id, struct wl_vfd **ret_vfd);
/* Gives it a new id of the host's. 0, -ENOSPC or -ENOMEM. */
MUST_CHECK int wl_add_host(struct wl_table *table, struct wl_vfd **ret_vfd);
/* The vfd owns `fd` from now on; -EMFILE: too many, and `fd` is closed. */
MUST_CHECK int wl_own(struct wl_table *table, int *slot, int fd);
void wl_disown(struct wl_table *table, int *slot);
/* The guest may use its id again; it lives until wl_free(). */
void wl_close(struct wl_table *table, struct wl_vfd *vfd);
void wl_free(struct wl_table *table, struct wl_vfd *vfd);
/* Forgets what the host did not take. */
void wl_drop_pending(struct wl_table *table, struct wl_vfd *vfd);

/* Shows `size` bytes of vfd->fd to the guest. 0, -ENOSPC or what the window says. */
MUST_CHECK int wl_map(struct wl_table *table, struct wl_vfd *vfd, uint64_t size, bool writable);
/* New memory of `size` bytes, rounded up. 0 or -errno; -ENOMEM: over a bound. */
MUST_CHECK int wl_make_memory(struct wl_table *table, struct wl_vfd *vfd, uint32_t size);
/*
 * Makes a vfd of what the compositor sent: memory, a pipe or socket, or what can
 * only be sent on. Takes `fd` also when it fails. 0 or -errno.
 */
MUST_CHECK int wl_adopt(struct wl_table *table, int fd, bool trans_flags, struct wl_vfd **ret_vfd);

/* How the guest is told of it. */
struct wl_new wl_describe(const struct wl_table *table, const struct wl_vfd *vfd);
