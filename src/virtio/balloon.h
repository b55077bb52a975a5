/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the VMM's control side and the balloon say to each other, through the
 * balloon's configuration space: its first two words are the driver's, the
 * rest lies behind what a driver can see (vhost_ops.change_config).
 *
 * The driver decides how much it gives and what its statistics say; none of it
 * is more than a claim. Source: virtio 1.2, section 5.5.
 */
#pragma once

#include "base/util.h"

/* Pages of 4 KiB, whatever pages guest and host have. */
enum { BALLOON_PAGES_PER_MIB = 256 };

/* VIRTIO_BALLOON_S_*, with those that Debian 12's header does not know yet. */
enum { BALLOON_STATS = 16 };
#define BALLOON_STAT_UNKNOWN UINT64_MAX

/* The configuration space, little-endian as the host is. */
struct balloon_state {
	uint32_t target_pages; /* what the driver shall give up */
	uint32_t actual_pages; /* what it says it has given up */
	uint32_t stats_asked;  /* the number of the newest request for statistics */
	/* The newest that was answered; the driver may take its time, or never answer. */
	uint32_t stats_answered;
	uint64_t stats[BALLOON_STATS]; /* by tag; BALLOON_STAT_UNKNOWN */
};

enum { BALLOON_CONFIG_SIZE = offsetof(struct balloon_state, stats_asked) };

/* What the guest shall give up at the start, by the options of a balloon_device_class. */
uint64_t balloon_size_mib(const void *options);
