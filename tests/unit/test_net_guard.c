// SPDX-License-Identifier: BSD-3-Clause
/*
 * What a guest sends to the host's own loopback does not reach passt, however
 * it is cut into buffers; all else does, byte for byte.
 */
#include "unit/net_rig.h"

#include <arpa/inet.h>
#include <net/ethernet.h>

#include "virtio/net_guard.h"

static const struct {
	const char *to;
	bool is_loopback;
} rows[] = {
	{ "127.0.0.1", true },
	{ "127.255.255.254", true },
	{ "0.0.0.0", true },
	{ "0.1.2.3", true },
	{ "::", true },
	{ "::1", true },
	{ "::7f00:1", true },
	{ "::ffff:127.0.0.1", true },
	{ "::ffff:192.0.2.1", true }, /* IPv4 has frames of its own */
	{ "10.0.0.1", false },
	{ "126.255.255.255", false },
	{ "128.0.0.1", false },
	{ "169.254.1.1", false },
	{ "255.255.255.255", false },
	{ "fe80::1", false },
	{ "2001:db8::7f00:1", false },
	{ "0:0:0:0:1::1", false },
	{ "::ff:7f00:1", false },
	{ "ff02::1", false },
};

/* An Ethernet header and one of IP. How many bytes. */
static size_t make_packet(uint8_t *frame, const char *to)
{
	bool is_6 = strchr(to, ':') != NULL;
	unsigned type = is_6 ? ETHERTYPE_IPV6 : ETHERTYPE_IP;

	memset(frame, 0x11, NET_GUARD_SIZE);
	frame[12] = (uint8_t)(type >> 8);
	frame[13] = (uint8_t)type;
	assert_int_equal(
		inet_pton(is_6 ? AF_INET6 : AF_INET, to, frame + 14 + (is_6 ? 24 : 16)), 1);
	return 14 + (is_6 ? 40 : 20);
}

static void destinations_are_told_apart(void **state)
{
	uint8_t frame[NET_GUARD_SIZE];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		size_t size = make_packet(frame, rows[i].to);

		assert_int_equal(net_guard_is_loopback(frame, size), rows[i].is_loopback);
		/* Of another kind, or without its address, it leads nowhere. */
		assert_false(net_guard_is_loopback(frame, size - 1));
		frame[13] ^= 1;
		assert_false(net_guard_is_loopback(frame, size));
	}
	assert_false(net_guard_is_loopback(frame, 0));
}

/* A frame in two buffers, cut after as many bytes of the whole. */
static void send_cut(struct rig *rig, uint16_t head, uint32_t size, uint32_t cut)
{
	driver_put(&rig->driver, head, DRIVER_DATA, cut, VRING_DESC_F_NEXT, head + 1u);
	driver_put(&rig->driver, head + 1u, DRIVER_DATA + cut, size - cut, 0, 0);
	driver_offer(&rig->driver, head);
	kick(rig);
}

static void take_over_a_stream(struct rig *rig, int *ret_peer)
{
	int ends[2];
	eventfd_t count;

	assert_int_equal(end(rig), 0);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
	assert_int_equal(net_stream_create(ends[1], &rig->device.stream), 0);
	assert_int_equal(eventfd_read(rig->queue.stop_fd, &count), 0);
	begin(rig);
	*ret_peer = ends[0];
}

static void loopback_does_not_reach_passt(void **state)
{
	enum { BEHIND = 100 };
	struct rig *rig = new_rig(TRANSMIT, 0);
	uint8_t frame[NET_GUARD_SIZE + BEHIND], got[4 + sizeof(frame) + 1];
	uint16_t used = 0;
	int peer;

	(void)state;
	take_over_a_stream(rig, &peer);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint32_t size = (uint32_t)make_packet(frame, rows[i].to) + BEHIND;
		uint32_t length = htonl(size);

		for (uint32_t cut = 1; cut < HEADER + size; cut++) {
			memset(data_at(rig, 0), 0, HEADER);
			memcpy(data_at(rig, 0) + HEADER, frame, size);
			send_cut(rig, 0, HEADER + size, cut);
			wait_used(rig, ++used);
			ssize_t n = recv(peer, got, sizeof(got), 0);

			assert_int_equal(n, rows[i].is_loopback ? -1 : (ssize_t)(4 + size));
			if (n < 0)
				continue;
			assert_memory_equal(got, &length, 4);
			assert_memory_equal(got + 4, frame, size);
		}
	}
	assert_int_equal(end(rig), 0);
	net_stream_free(rig->device.stream);
	close(peer);
	free_rig(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(destinations_are_told_apart),
		cmocka_unit_test(loopback_does_not_reach_passt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
