/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The shared-memory window of a device: a range of the guest's addresses
 * beside its RAM, in which the back half shows the guest files. The back half
 * chooses places in it and asks, the front half maps, as vhost-user's
 * SHMEM_MAP and SHMEM_UNMAP do. So the front half owns all mappings, checks
 * each request, and a device never touches the guest's address space.
 *
 * Any thread of the back half may call; functions return 0 or -errno and may
 * take milliseconds, in which KVM waits for the vCPUs. Every range is a
 * multiple of WINDOW_PAGE.
 */
#pragma once

#include "base/util.h"

enum { WINDOW_PAGE = 4096 };

struct window_ops {
	/*
	 * Shows the first `size` bytes of `fd` (borrowed) at `offset`; writable, or the
	 * guest's writes go nowhere. -EINVAL outside of the window or of the file, when the
	 * file is not memory sealed against shrinking, which would let its owner end the
	 * guest; -EEXIST where something is; -ENOSPC: too many.
	 */
	int (*map)(void *owner, uint64_t offset, uint64_t size, int fd, bool writable);
	/* Takes away what one map put there. -ENOENT: none did, of that size. */
	int (*unmap)(void *owner, uint64_t offset, uint64_t size);
};

struct window {
	const struct window_ops *ops;
	void *owner;
	uint64_t gpa; /* where the guest sees it; 0: that is told later */
	uint64_t size;
	int fd; /* for a back half in another process: its end of a window_channel, borrowed */
};
