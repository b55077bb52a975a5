/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtio-rng, the entropy device. Every machine has one.
 * Source: virtio 1.2, section 5.4.
 */
#pragma once

#include "virtio/device.h"

extern const struct device_ops rng_device_ops;

/* 0 or -ENOMEM. Freed by rng_device_ops.free. */
MUST_CHECK int rng_open(struct device **ret_device);
