/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a network device is asked to be, and the words of --net that say it.
 * All of it comes from the user's command line; strings live as long as that.
 */
#pragma once

#include <netinet/in.h>

#include "base/option_values.h"
#include "base/util.h"

enum { NET_MAC_SIZE = 6, NET_PAIRS_MAX = 7, NET_MTU_MIN = 68, NET_MTU_MAX = 65521 };
enum { NET_FORWARDS_MAX = 32, NET_FORWARD_SIZE = 64 };

/* A port of the host that leads to one of the guest, as passt writes it: "127.0.0.1/8080:80". */
struct net_forward {
	bool udp;
	char host[INET6_ADDRSTRLEN]; /* "": all addresses */
	uint16_t port;               /* of the host */
	char ports[NET_FORWARD_SIZE];
};

/* Whether the kernel's vhost-net moves the packets, or passt by vhost-user. */
enum net_vhost { NET_VHOST_AUTO, NET_VHOST_ON, NET_VHOST_OFF };

struct net_options {
	const char *tap_name; /* NULL: a new one */
	int tap_fd;           /* an open tap, the device's once it is opened; -1: none */
	bool has_host_ip;
	bool has_netmask;
	bool has_mac;
	struct in_addr host_ip; /* of the tap, on the host */
	struct in_addr netmask;
	uint8_t mac[NET_MAC_SIZE]; /* the guest's; random if the user gave none */
	enum net_vhost vhost;
	unsigned pairs; /* of receive and transmit queues */
	unsigned mtu;   /* 0: not told */
	bool user;      /* no tap but passt */
	unsigned forward_count;
	struct net_forward forwards[NET_FORWARDS_MAX];
};

extern const struct net_options net_default_options;

enum { NET_SUBOPTIONS = 10 };

extern const struct suboption net_suboptions[NET_SUBOPTIONS];

/* "192.168.0.1"; "255.255.255.0"; "02:00:00:00:00:01". 0, or -EINVAL, logged. */
MUST_CHECK int net_parse_address(const char *option, const char *text, struct in_addr *ret_address);
MUST_CHECK int net_parse_netmask(const char *option, const char *text, struct in_addr *ret_netmask);
MUST_CHECK int net_parse_mac(const char *option, const char *text, uint8_t *ret_mac);

/* For struct device_class. */
MUST_CHECK int net_options_check(const char *option, const void *options);
bool net_options_have_back_end(const void *options);
