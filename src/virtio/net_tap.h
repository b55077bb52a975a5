/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Taps: network interfaces of the host whose other end is a file descriptor.
 * A read or write is one frame behind a virtio_net_hdr of 12 bytes.
 *
 * Opened by the main thread with the user's rights; a tap may vanish at any
 * time. Source: Linux's <linux/if_tun.h>, Documentation/networking/tuntap.rst.
 */
#pragma once

#include "virtio/net_options.h"

struct net_tap {
	unsigned count;         /* of queues */
	int fds[NET_PAIRS_MAX]; /* owned, non-blocking */
	bool has_uso;           /* the kernel can segment UDP */
	char name[16];          /* on the host, for messages */
};

/* 0 or -errno, logged; then nothing is open. */
MUST_CHECK int net_tap_open(const struct net_options *options, struct net_tap *ret_tap);
void net_tap_close(struct net_tap *tap);

/*
 * The TUN_F_ bits for these virtio-net feature bits, without those that a tap
 * would refuse: what depends on a feature that is missing, and half of USO.
 */
unsigned net_tap_offloads(uint64_t features);
/* What the guest can receive: virtio-net feature bits. 0 or -errno. */
MUST_CHECK int net_tap_set_offloads(const struct net_tap *tap, uint64_t features);
/* How many of the queues get frames; the first ones. 0 or -errno. */
MUST_CHECK int net_tap_set_pairs(const struct net_tap *tap, unsigned before, unsigned count);
