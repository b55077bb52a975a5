// SPDX-License-Identifier: BSD-3-Clause
/* Looks at destinations. The bytes are the guest's, copied. */
#include "virtio/net_guard.h"

#include <net/ethernet.h>
#include <string.h>

enum { TYPE = 12, IP = 14, IP4_TO = IP + 16, IP4_END = IP + 20, IP6_TO = IP + 24 };

static const uint8_t zeroes[10];

/* 127.0.0.0/8, and 0.0.0.0/8: "this host". */
static bool is_ip4_loopback(const uint8_t *address)
{
	return address[0] == 127 || address[0] == 0;
}

/* ::, ::1, and what stands for an IPv4 address (::/96, ::ffff:0:0/96), whose frames are others. */
static bool is_ip6_loopback(const uint8_t *address)
{
	const uint8_t *group = address + sizeof(zeroes);

	return memcmp(address, zeroes, sizeof(zeroes)) == 0 && group[0] == group[1] &&
	       (group[0] == 0 || group[0] == 0xff);
}

bool net_guard_is_loopback(const uint8_t *start, size_t size)
{
	if (size < IP)
		return false;
	unsigned type = (unsigned)start[TYPE] << 8 | start[TYPE + 1];

	/* One that ends before its address is none to passt either. */
	if (type == ETHERTYPE_IP)
		return size >= IP4_END && is_ip4_loopback(start + IP4_TO);
	return type == ETHERTYPE_IPV6 && size >= NET_GUARD_SIZE && is_ip6_loopback(start + IP6_TO);
}
