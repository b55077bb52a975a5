/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which frames of the guest passt may see. passt makes sockets of the host of
 * whatever address stands in a packet, and some of its versions (Debian 12's)
 * also of loopback and of no address at all, which Linux takes for loopback:
 * services that the host offers to itself alone. The guest writes the frame,
 * and may change it while it is looked at, so what is looked at is a copy that
 * goes out in its place.
 */
#pragma once

#include "base/util.h"

/* An Ethernet header and the longer of the two IP headers, up to the end of its addresses. */
enum { NET_GUARD_SIZE = 14 + 40 };

/* Whether a frame that begins with these bytes, NET_GUARD_SIZE or all that it has, leads there. */
MUST_CHECK bool net_guard_is_loopback(const uint8_t *start, size_t size);
