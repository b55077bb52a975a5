// SPDX-License-Identifier: BSD-3-Clause
/* Tries ports that others may have. Nothing is sent and nobody is listened to. */
#include "virtio/net_forward.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* As passt does it; of UDP another program's port is not shared. */
static int prepare(int fd, bool udp, sa_family_t family)
{
	const int on = 1;

	/* Connections that have ended do not keep a port. */
	if (!udp && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
		return -errno;
	return 0;
}

static int try_bind(bool udp, const union address *address, socklen_t size)
{
	sa_family_t family = address->any.sa_family;
	CLEANUP_FD int fd = socket(family, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	int r = fd < 0 ? -errno : prepare(fd, udp, family);

	if (r == 0 && bind(fd, &address->any, size) < 0)
		r = -errno;
	return r;
}

static int try_address(const struct net_forward *forward, const char *host)
{
	union address address = { .v6 = { .sin6_family = AF_INET6 } };

	if (inet_pton(AF_INET6, host, &address.v6.sin6_addr) == 1) {
		address.v6.sin6_port = htons(forward->port);
		return try_bind(forward->udp, &address, sizeof(address.v6));
	}
	address.v4 =
		(struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(forward->port) };
	if (inet_pton(AF_INET, host, &address.v4.sin_addr) != 1)
		return -EINVAL;
	return try_bind(forward->udp, &address, sizeof(address.v4));
}

static const char *find_advice(int error)
{
	return error == EADDRINUSE      ? "another program has it, choose another port"
	       : error == EADDRNOTAVAIL ? "the host has no such address"
	       : error == EACCES        ? "choose one of 1024 or more"
					: "choose another";
}

static int report(const struct net_forward *forward, const char *host, int r)
{
	log_error("net: cannot forward %s port %u of %s: %s; %s", forward->udp ? "udp" : "tcp",
		forward->port, host, strerror(-r), find_advice(-r));
	return r;
}

static int try_all_addresses(const struct net_forward *forward)
{
	static const char *const all[] = { "0.0.0.0", "::" };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		int r = try_address(forward, all[i]);

		/* A host may lack one of the two. */
		if (r < 0 && r != -EAFNOSUPPORT && r != -EADDRNOTAVAIL)
			return report(forward, all[i], r);
	}
	return 0;
}

int net_forward_try(const struct net_options *options)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < options->forward_count; i++) {
		const struct net_forward *forward = &options->forwards[i];

		if (*forward->host == '\0') {
			r = try_all_addresses(forward);
			continue;
		}
		r = try_address(forward, forward->host);
		if (r < 0)
			r = report(forward, forward->host, r);
	}
	return r;
}
