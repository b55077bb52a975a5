// SPDX-License-Identifier: BSD-3-Clause
/* Opens and sets up taps. Names, addresses and descriptors are the user's. */
#include "virtio/net_tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

enum { TAP_FLAGS = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };

/* Of Linux 6.2; Debian 12's headers are older. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define BIT(feature) (UINT64_C(1) << (feature))
/* Bits of virtio that <linux/virtio_net.h> of Debian 12 has not. */
#ifndef VIRTIO_NET_F_GUEST_USO4
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#endif

static int open_failed(int error)
{
	const char *advice = "load the module with 'sudo modprobe tun'";

	if (error == EACCES || error == EPERM)
		advice = "pass --net user, which needs no privilege";
	log_error("cannot open /dev/net/tun: %s; %s", strerror(error), advice);
	return -error;
}

static int attach_failed(const struct net_options *options, int error)
{
	const char *name = options->tap_name != NULL ? options->tap_name : "a new tap";
	const char *why = strerror(error);

	if (error == EPERM)
		why = "it needs CAP_NET_ADMIN or a tap made for you (ip tuntap add ... user), "
		      "and --net user needs neither";
	else if (error == EBUSY)
		why = "another program has it open; end that, or pass another tap-name";
	else if (error == EINVAL)
		why = "it is no tap, or was made with another number of queues "
		      "('ip tuntap add ... multi_queue')";
	log_error("cannot attach to %s: %s", name, why);
	return -error;
}

static int attach(const struct net_options *options, struct net_tap *tap)
{
	struct ifreq request = { .ifr_flags = TAP_FLAGS };
	CLEANUP_FD int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return open_failed(errno);
	if (options->pairs > 1)
		request.ifr_flags |= IFF_MULTI_QUEUE;
	/* The later queues are of the interface that the first one got. */
	const char *name = tap->count > 0              ? tap->name
			   : options->tap_name != NULL ? options->tap_name
						       : "vmtap%d";

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (ioctl(fd, TUNSETIFF, &request) < 0)
		// cppcheck-suppress resourceLeak ; CLEANUP_FD closes it
		return attach_failed(options, errno);
	memcpy(tap->name, request.ifr_name, sizeof(tap->name));
	tap->fds[tap->count++] = fd_steal(&fd);
	return 0;
}

/*
 * A tap that somebody else opened, and that is ours from now on: with its own
 * number it would be open in each program that we start.
 */
static int adopt(const struct net_options *options, struct net_tap *tap)
{
	struct ifreq request = { .ifr_flags = 0 };
	CLEANUP_FD int fd = fcntl(options->tap_fd, F_DUPFD_CLOEXEC, 0);
	int flags = fcntl(fd, F_GETFL);

	if (fd < 0 || flags < 0 || ioctl(fd, TUNGETIFF, &request) < 0 ||
		fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		log_error("tap-fd=%d is not the descriptor of a tap: %s", options->tap_fd,
			strerror(errno));
		return -EINVAL;
	}
	if ((request.ifr_flags & TAP_FLAGS) != TAP_FLAGS) {
		log_error("tap-fd=%d: open it with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR",
			options->tap_fd);
		return -EINVAL;
	}
	memcpy(tap->name, request.ifr_name, sizeof(tap->name));
	if (options->tap_fd > STDERR_FILENO)
		(void)close(options->tap_fd);
	tap->fds[tap->count++] = fd_steal(&fd);
	return 0;
}

static int set_address(
	int socket_fd, struct ifreq *request, unsigned long what, struct in_addr address)
{
	const struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = address };

	memcpy(&request->ifr_addr, &in, sizeof(in));
	return ioctl(socket_fd, what, request);
}

static int set_up(const struct net_options *options, const struct net_tap *tap)
{
	CLEANUP_FD int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request;
	const char *step = "a socket";
	bool done = socket_fd >= 0;

	memcpy(request.ifr_name, tap->name, sizeof(request.ifr_name));
	if (done) {
		step = "its address";
		done = set_address(socket_fd, &request, SIOCSIFADDR, options->host_ip) == 0;
	}
	if (done) {
		step = "its netmask";
		done = set_address(socket_fd, &request, SIOCSIFNETMASK, options->netmask) == 0;
	}
	if (done && options->mtu != 0) {
		step = "its MTU";
		request.ifr_mtu = (int)options->mtu;
		done = ioctl(socket_fd, SIOCSIFMTU, &request) == 0;
	}
	if (done) {
		step = "it up";
		done = ioctl(socket_fd, SIOCGIFFLAGS, &request) == 0;
		request.ifr_flags |= IFF_UP;
		done = done && ioctl(socket_fd, SIOCSIFFLAGS, &request) == 0;
	}
	if (done)
		return 0;
	int error = errno;

	log_error("tap %s: cannot set %s: %s%s", tap->name, step, strerror(error),
		error == EPERM ? "; it needs CAP_NET_ADMIN, and --net user does not" : "");
	return -error;
}

static int set_header_size(const struct net_tap *tap)
{
	int size = sizeof(struct virtio_net_hdr_mrg_rxbuf);

	for (unsigned i = 0; i < tap->count; i++)
		if (ioctl(tap->fds[i], TUNSETVNETHDRSZ, &size) < 0) {
			int error = errno;

			log_error("tap %s: cannot set its header's size: %s; it must be a tap of "
				  "Linux's tun driver",
				tap->name, strerror(error));
			return -error;
		}
	return 0;
}

int net_tap_open(const struct net_options *options, struct net_tap *ret_tap)
{
	struct net_tap tap = { .count = 0 };
	int r = options->tap_fd >= 0 ? adopt(options, &tap) : 0;

	while (r == 0 && tap.count < options->pairs)
		r = attach(options, &tap);
	if (r == 0)
		r = set_header_size(&tap);
	if (r == 0 && options->has_host_ip)
		r = set_up(options, &tap);
	if (r < 0) {
		net_tap_close(&tap);
		return r;
	}
	tap.has_uso = ioctl(tap.fds[0], TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6) == 0;
	/* It was a question: what comes before the driver is up shall be plain. */
	(void)!net_tap_set_offloads(&tap, 0);
	*ret_tap = tap;
	return 0;
}

void net_tap_close(struct net_tap *tap)
{
	while (tap->count > 0)
		fd_close(&tap->fds[--tap->count]);
}

unsigned net_tap_offloads(uint64_t features)
{
	/* In an order in which each comes after what it needs. */
	static const struct {
		uint64_t features; /* all of them */
		unsigned offloads;
		unsigned needs; /* one of them, if any */
	} rules[] = {
		{ BIT(VIRTIO_NET_F_GUEST_CSUM), TUN_F_CSUM, 0 },
		{ BIT(VIRTIO_NET_F_GUEST_TSO4), TUN_F_TSO4, TUN_F_CSUM },
		{ BIT(VIRTIO_NET_F_GUEST_TSO6), TUN_F_TSO6, TUN_F_CSUM },
		{ BIT(VIRTIO_NET_F_GUEST_ECN), TUN_F_TSO_ECN, TUN_F_TSO4 | TUN_F_TSO6 },
		/* A tap has both or none. */
		{ BIT(VIRTIO_NET_F_GUEST_USO4) | BIT(VIRTIO_NET_F_GUEST_USO6),
			TUN_F_USO4 | TUN_F_USO6, TUN_F_CSUM },
	};
	unsigned set = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if ((features & rules[i].features) == rules[i].features &&
			(rules[i].needs == 0 || (set & rules[i].needs) != 0))
			set |= rules[i].offloads;
	return set;
}

int net_tap_set_offloads(const struct net_tap *tap, uint64_t features)
{
	unsigned set = net_tap_offloads(features);

	for (unsigned i = 0; i < tap->count; i++)
		if (ioctl(tap->fds[i], TUNSETOFFLOAD, set) < 0)
			return -errno;
	return 0;
}

int net_tap_set_pairs(const struct net_tap *tap, unsigned before, unsigned count)
{
	for (unsigned i = 0; tap->count > 1 && i < tap->count; i++) {
		struct ifreq request = {
			.ifr_flags = i < count ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE,
		};

		if ((i < before) != (i < count) && ioctl(tap->fds[i], TUNSETQUEUE, &request) < 0)
			return -errno;
	}
	return 0;
}
