/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The contract between the two halves of a virtio device, in vhost's words.
 *
 * The front half (registers, feature negotiation, status machine: virtio/pci.c)
 * lives in the main process and calls these functions. The back half (rings,
 * data, host fds) stands behind them: threads (vhost_thread.c), another process
 * (vhost_user_frontend.c) or the kernel (vhost_kernel.c). So nothing here
 * carries a pointer into the other half's memory: addresses are gpas, memory is
 * a table of fds, notifications are eventfds.
 *
 * The front calls with the device's lock held, from vCPU threads and the
 * control loop; no function may block for longer than it takes the back half
 * to finish what is in flight. Source: the vhost-user specification (messages
 * of the same names) and Linux's <linux/vhost.h>.
 */
#pragma once

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "base/util.h"
#include "memory/guest_memory.h"
#include "virtio/window.h"

/* What each of our back halves can do with a ring. */
#define VHOST_RING_FEATURES                                                                        \
	(UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX |     \
		UINT64_C(1) << VIRTIO_F_VERSION_1)

struct vhost;

/* Where a ring lies. All gpas. VHOST_USER_SET_VRING_NUM, _ADDR, _BASE. */
struct vhost_ring {
	uint16_t size;
	uint16_t base; /* index of the next available entry */
	uint64_t desc;
	uint64_t avail;
	uint64_t used;
	int kick_fd; /* borrowed eventfds; the back half duplicates what it keeps longer */
	int call_fd;
};

struct vhost_ops {
	/* VHOST_GET_FEATURES: device bits and ring bits that the back half can do. */
	int (*get_features)(struct vhost *vhost, uint64_t *ret_features);
	int (*set_features)(struct vhost *vhost, uint64_t features);
	/* VHOST_USER_GET_QUEUE_NUM */
	unsigned (*queue_count)(struct vhost *vhost);
	/* VHOST_USER_GET_CONFIG, SET_CONFIG. -EINVAL outside of the config space. */
	int (*get_config)(struct vhost *vhost, uint32_t offset, uint8_t *data, uint32_t size);
	int (*set_config)(struct vhost *vhost, uint32_t offset, const uint8_t *data, uint32_t size);
	/*
	 * VHOST_USER_SET_CONFIG for what the driver only reads: the VMM changes the
	 * space, and may then tell the driver. The space goes on behind the
	 * driver's part for the VMM alone; get_config reads that too. NULL, or
	 * -EOPNOTSUPP, where nothing can be changed.
	 */
	int (*change_config)(
		struct vhost *vhost, uint32_t offset, const uint8_t *data, uint32_t size);
	/*
	 * VHOST_USER_GET_SHMEM_CONFIG: how many bytes of addresses the device shows
	 * files in; 0: none. NULL where nobody asks.
	 */
	uint64_t (*window_size)(struct vhost *vhost);
	/*
	 * VHOST_USER_SET_BACKEND_REQ_FD: where it asks for that (window.h), while no ring
	 * runs. What it points to outlives the back half, or is taken away before it goes
	 * (NULL). One in another process gets window->fd, once, and keeps it. NULL: it has none.
	 */
	int (*set_window)(struct vhost *vhost, const struct window *window);
	/* Fixes a ring while it is stopped. */
	int (*set_vring)(struct vhost *vhost, unsigned index, const struct vhost_ring *ring);
	/* VHOST_USER_SET_VRING_ENABLE with 1: the ring runs. */
	int (*start_vring)(struct vhost *vhost, unsigned index);
	/* VHOST_USER_GET_VRING_BASE: stops the ring; all that was popped is pushed. */
	int (*stop_vring)(struct vhost *vhost, unsigned index, uint16_t *ret_base);
	/*
	 * VHOST_USER_SET_MEM_TABLE, while no ring runs: other memory from now on, or
	 * none (NULL), without which no ring starts. It is borrowed. NULL in back
	 * halves that get it when they are made.
	 */
	int (*set_memory)(struct vhost *vhost, const struct guest_memory *memory);
	/* VHOST_USER_SET_VRING_ERR for all rings: signalled when the driver broke one. */
	int (*set_error_fd)(struct vhost *vhost, int error_fd);
	/* VHOST_USER_RESET_DEVICE, after all rings are stopped. */
	int (*reset)(struct vhost *vhost);
	/*
	 * A descriptor, readable when the back half is to be looked at between
	 * calls, by handle_event(); -1 for none. It gives -errno when the back half
	 * is gone for good, also if a call found that out: from then on every call
	 * fails at once. Both are NULL in back halves that cannot go.
	 */
	int (*event_fd)(const struct vhost *vhost);
	int (*handle_event)(struct vhost *vhost);
	/* Stops what runs. */
	void (*free)(struct vhost *vhost);
};

/* First member of each backend's own struct. */
struct vhost {
	const struct vhost_ops *ops;
};
