/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control side of the balloon, in the main process: reads and changes its
 * configuration space. What it says comes from the driver, by way of a device
 * that may be in another process; see virtio/balloon.h.
 */
#pragma once

#include "virtio/balloon.h"
#include "virtio/pci.h"

/* As people and programs call them: "free-memory". Bytes, or counts. */
extern const char *const balloon_stat_names[BALLOON_STATS];

/*
 * Control loop; none waits for the driver. -EINVAL when the device is no
 * balloon or the size has more than 2^32 - 1 pages.
 */
MUST_CHECK int balloon_set_target(struct virtio_pci *pci, uint64_t size_mib);
/* The statistics are there when stats_answered has come to this number. */
MUST_CHECK int balloon_ask_stats(struct virtio_pci *pci, uint32_t *ret_number);
MUST_CHECK int balloon_read_state(struct virtio_pci *pci, struct balloon_state *ret_state);
