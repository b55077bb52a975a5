// SPDX-License-Identifier: BSD-3-Clause
/* Parses the options of a network device. Addresses and names are the user's. */
#include "virtio/net_options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

const struct net_options net_default_options = { .tap_fd = -1, .pairs = 1 };

/* Why no interface can have this address, or NULL. */
static const char *why_of_no_host(struct in_addr address)
{
	unsigned first = ntohl(address.s_addr) >> 24;

	return first == 0     ? "stands for no machine"
	       : first == 127 ? "is the loopback's"
	       : first >= 240 ? "is reserved"
	       : first >= 224 ? "is a group's"
			      : NULL;
}

int net_parse_address(const char *option, const char *text, struct in_addr *ret_address)
{
	struct in_addr address;

	if (inet_pton(AF_INET, text, &address) != 1) {
		log_error("%s: '%s' is not an IPv4 address such as 192.168.10.1", option, text);
		return -EINVAL;
	}
	const char *why = why_of_no_host(address);

	if (why != NULL) {
		log_error("%s: %s %s; pass one such as 192.168.10.1", option, text, why);
		return -EINVAL;
	}
	*ret_address = address;
	return 0;
}

int net_parse_netmask(const char *option, const char *text, struct in_addr *ret_netmask)
{
	struct in_addr netmask;

	if (inet_pton(AF_INET, text, &netmask) == 1) {
		uint32_t hosts = ~ntohl(netmask.s_addr);

		if ((hosts & (hosts + 1)) == 0) {
			*ret_netmask = netmask;
			return 0;
		}
	}
	log_error("%s: '%s' is not a netmask such as 255.255.255.0", option, text);
	return -EINVAL;
}

/* ether_aton() takes one digit for two, and what follows for nothing. */
static bool has_form_of_mac(const char *text)
{
	bool is_good = strlen(text) == 3 * NET_MAC_SIZE - 1;

	for (size_t i = 1; is_good && i < NET_MAC_SIZE; i++)
		is_good = text[3 * i - 1] == ':';
	return is_good;
}

int net_parse_mac(const char *option, const char *text, uint8_t *ret_mac)
{
	static const uint8_t no_mac[NET_MAC_SIZE];
	struct ether_addr mac;

	if (!has_form_of_mac(text) || ether_aton_r(text, &mac) == NULL) {
		log_error("%s: '%s' is not a MAC address such as 02:00:00:00:00:01", option, text);
		return -EINVAL;
	}
	if ((mac.ether_addr_octet[0] & 1) != 0) {
		log_error("%s: %s is a group's address; the first byte must be even", option, text);
		return -EINVAL;
	}
	if (memcmp(mac.ether_addr_octet, no_mac, NET_MAC_SIZE) == 0) {
		log_error("%s: %s is nobody's address; pass one such as 02:00:00:00:00:01", option,
			text);
		return -EINVAL;
	}
	memcpy(ret_mac, mac.ether_addr_octet, NET_MAC_SIZE);
	return 0;
}

static int apply_tap_name(void *target, const char *option, const char *value)
{
	bool is_place = strcmp(value, ".") == 0 || strcmp(value, "..") == 0;

	if (*value == '\0' || strlen(value) >= IFNAMSIZ || is_place ||
		strpbrk(value, "/%: \t") != NULL) {
		log_error("%s: tap-name=%s is no name of a network interface: 1 to %d characters, "
			  "no blank, '/', ':' or '%%'",
			option, value, IFNAMSIZ - 1);
		return -EINVAL;
	}
	((struct net_options *)target)->tap_name = value;
	return 0;
}

static int apply_tap_fd(void *target, const char *option, const char *value)
{
	uint64_t fd;
	int r = suboption_number(option, "tap-fd", value, 0, INT_MAX, &fd);

	if (r < 0)
		return r;
	/* No program that we start shall have it; what else it is is looked at later. */
	(void)fcntl((int)fd, F_SETFD, FD_CLOEXEC);
	((struct net_options *)target)->tap_fd = (int)fd;
	return 0;
}

static int apply_host_ip(void *target, const char *option, const char *value)
{
	struct net_options *options = target;
	char label[OPTION_LABEL_SIZE];

	suboption_label(option, "host-ip", label);
	options->has_host_ip = true;
	return net_parse_address(label, value, &options->host_ip);
}

static int apply_netmask(void *target, const char *option, const char *value)
{
	struct net_options *options = target;
	char label[OPTION_LABEL_SIZE];

	suboption_label(option, "netmask", label);
	options->has_netmask = true;
	return net_parse_netmask(label, value, &options->netmask);
}

static int apply_mac(void *target, const char *option, const char *value)
{
	struct net_options *options = target;
	char label[OPTION_LABEL_SIZE];

	suboption_label(option, "mac", label);
	options->has_mac = true;
	return net_parse_mac(label, value, options->mac);
}

static int apply_vhost(void *target, const char *option, const char *value)
{
	static const struct {
		const char *word;
		enum net_vhost vhost;
	} words[] = {
		{ "on", NET_VHOST_ON },
		{ "off", NET_VHOST_OFF },
		{ "auto", NET_VHOST_AUTO },
	};

	if (value == NULL)
		value = "on";
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(words[i].word, value) != 0)
			continue;
		((struct net_options *)target)->vhost = words[i].vhost;
		return 0;
	}
	log_error("%s: vhost=%s is not on, off or auto", option, value);
	return -EINVAL;
}

static int apply_queues(void *target, const char *option, const char *value)
{
	uint64_t pairs;
	int r = suboption_number(option, "queues", value, 1, NET_PAIRS_MAX, &pairs);

	if (r == 0)
		((struct net_options *)target)->pairs = (unsigned)pairs;
	return r;
}

static int apply_mtu(void *target, const char *option, const char *value)
{
	uint64_t mtu;
	int r = suboption_number(option, "mtu", value, NET_MTU_MIN, NET_MTU_MAX, &mtu);

	if (r == 0)
		((struct net_options *)target)->mtu = (unsigned)mtu;
	return r;
}

static int apply_user(void *target, const char *option, const char *value)
{
	return suboption_bool(option, "user", value, &((struct net_options *)target)->user);
}

/* A port, up to `end` or the end of the text. */
static bool take_port(const char **text, char end, unsigned *ret_port)
{
	unsigned port = 0;
	const char *c = *text;

	while (*c >= '0' && *c <= '9' && port <= UINT16_MAX)
		port = 10 * port + (unsigned)(*c++ - '0');
	if (c == *text || port < 1 || port > UINT16_MAX || *c != end)
		return false;
	*ret_port = port;
	*text = end != '\0' ? c + 1 : c;
	return true;
}

/* The host's address before the last colon of "A:PORT", where A may be empty or [IPv6]. */
static bool take_host(const char **text, char *ret_host, size_t size)
{
	const char *dash = strchr(*text, '-');
	const char *colon = dash != NULL ? memrchr(*text, ':', (size_t)(dash - *text)) : NULL;
	struct in6_addr address;

	if (colon == NULL || (size_t)(colon - *text) >= size)
		return false;
	const char *host = *text;
	size_t length = (size_t)(colon - host);

	if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
		host++;
		length -= 2;
	}
	memcpy(ret_host, host, length);
	ret_host[length] = '\0';
	*text = colon + 1;
	return length == 0 || inet_pton(AF_INET, ret_host, &address) == 1 ||
	       inet_pton(AF_INET6, ret_host, &address) == 1;
}

/* tcp:HOST:PORT-:PORT, as QEMU has it. */
static bool parse_forward(const char *text, struct net_forward *ret_forward)
{
	char host[INET6_ADDRSTRLEN];
	unsigned from, to;
	bool udp = strncmp(text, "udp:", 4) == 0;

	if (!udp && strncmp(text, "tcp:", 4) != 0)
		return false;
	text += 4;
	if (!take_host(&text, host, sizeof(host)) || !take_port(&text, '-', &from) ||
		*text++ != ':' || !take_port(&text, '\0', &to))
		return false;
	ret_forward->udp = udp;
	memcpy(ret_forward->host, host, sizeof(host));
	ret_forward->port = (uint16_t)from;
	snprintf(ret_forward->ports, sizeof(ret_forward->ports), "%s%s%u:%u", host,
		*host != '\0' ? "/" : "", from, to);
	return true;
}

static int apply_forward(void *target, const char *option, const char *value)
{
	struct net_options *options = target;

	if (options->forward_count == NET_FORWARDS_MAX) {
		log_error("%s: more than %d forwards", option, NET_FORWARDS_MAX);
		return -EINVAL;
	}
	if (!parse_forward(value, &options->forwards[options->forward_count])) {
		log_error("%s: forward=%s is not tcp:HOST:PORT-:PORT or udp:HOST:PORT-:PORT, "
			  "such as tcp:127.0.0.1:8080-:80",
			option, value);
		return -EINVAL;
	}
	options->forward_count++;
	return 0;
}

const struct suboption net_suboptions[NET_SUBOPTIONS] = {
	{ "tap-name", true, apply_tap_name, .needs_name = true },
	{ "tap-fd", true, apply_tap_fd },
	{ "host-ip", true, apply_host_ip },
	{ "netmask", true, apply_netmask },
	{ "mac", true, apply_mac },
	{ "vhost", false, apply_vhost },
	{ "queues", true, apply_queues },
	{ "mtu", true, apply_mtu },
	{ "user", false, apply_user },
	{ "forward", true, apply_forward, .repeatable = true },
};

int net_options_check(const char *option, const void *opaque_options)
{
	const struct net_options *options = opaque_options;
	const char *wrong = NULL;

	if (options->has_host_ip != options->has_netmask)
		wrong = "host-ip and netmask belong together";
	else if (options->tap_fd >= 0 && (options->tap_name != NULL || options->has_host_ip))
		wrong = "tap-fd is a tap that is set up; leave out tap-name and host-ip";
	else if (options->user && (options->tap_fd >= 0 || options->tap_name != NULL ||
					  options->has_host_ip || options->pairs > 1))
		wrong = "user has no tap and one pair of queues";
	else if (!options->user && options->forward_count > 0)
		wrong = "forward belongs to user";
	else if (!options->user && options->tap_fd < 0 && options->tap_name == NULL &&
		 !options->has_host_ip)
		wrong = "say where it leads: user, tap-name=N, tap-fd=N, or host-ip=A,netmask=M";
	else if (options->tap_fd >= 0 && options->pairs > 1)
		wrong = "tap-fd is one queue; leave out queues";
	else if (options->vhost == NET_VHOST_ON && options->pairs > 1)
		wrong = "vhost=on is for one pair of queues";
	if (wrong == NULL)
		return 0;
	log_error("%s: %s", option, wrong);
	return -EINVAL;
}

bool net_options_have_back_end(const void *opaque_options)
{
	const struct net_options *options = opaque_options;

	return options->user && options->vhost == NET_VHOST_ON;
}
