/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names for a guest whose host asks a resolver on its own loopback, as hosts
 * with systemd-resolved or dnsmasq do. passt tells a guest the addresses of
 * /etc/resolv.conf but for those, which a guest does not reach. It can carry
 * questions there from an address that we choose, and its newest versions tell
 * the guest that one; for all others it stands in the resolv.conf that we let
 * passt see.
 */
#pragma once

#include "base/util.h"

/* Where the guest asks: link-local, so that no other machine is hidden by it. */
#define NET_RESOLVER "169.254.1.1"

/* Whether a resolv.conf names IPv4 resolvers, all of them on the loopback. */
MUST_CHECK bool net_resolver_text_is_local(const char *text);
/* The same of the host's. */
MUST_CHECK bool net_resolver_is_local(void);

/*
 * In a child that will be passt: mounts the host's resolv.conf with
 * NET_RESOLVER added, in a mount namespace of its own; an ordinary user's
 * child gets a user namespace for that, and stays who it is. 0 or -errno,
 * after which some of it may be done, and passt works without.
 */
MUST_CHECK int net_resolver_show(void);
