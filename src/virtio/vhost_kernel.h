/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel backend of the vhost contract: a vhost driver of the host serves
 * the rings. Configuration space and features stay with the device object.
 * Source: Linux's <linux/vhost.h>.
 */
#pragma once

#include "memory/guest_memory.h"
#include "virtio/device.h"
#include "virtio/vhost.h"

/*
 * For a device whose ops have `kernel`. Takes ownership of `device` also when
 * it fails. `memory` must outlive the backend; NULL: set_memory() follows. The
 * kernel takes it for the memory of this process, which alone may tell it more.
 * 0 or -errno. Free with (*ret_vhost)->ops->free().
 */
MUST_CHECK int vhost_kernel_create(const struct device_ops *ops, struct device *device,
	const struct guest_memory *memory, struct vhost **ret_vhost);

/* What such a device offers its driver. Any process that has its descriptor may ask. 0 or -errno.
 */
MUST_CHECK int vhost_kernel_features(
	const struct device_ops *ops, const struct device *device, uint64_t *ret_features);
