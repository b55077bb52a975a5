/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ports of the host that are to lead to the guest, before passt is asked to
 * bind them: it takes what it gets, IPv6 alone if another program has the port
 * for IPv4, and fails later without one. Others may take a port at any time;
 * then it is passt that finds out.
 */
#pragma once

#include "virtio/net_options.h"

/* Binds each for a moment, at all addresses if no host is given. 0, or -errno, logged. */
MUST_CHECK int net_forward_try(const struct net_options *options);
