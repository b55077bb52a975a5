// SPDX-License-Identifier: BSD-3-Clause
/*
 * What virtio 1.2, section 5.1, asks of a network device and a tap does not
 * give by itself: sizes at their bounds, headers that the driver knows, queues
 * that depend on features, the end of each frame.
 */
#include "unit/unit.h"

#include <linux/if_tun.h>

#include "unit/net_rig.h"

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

/* 5.1.6.3.1: buffers of 1526 bytes are enough, and a cut frame is none. */
static void a_frame_may_fill_its_buffer_and_is_never_cut(void **state)
{
	static const uint64_t features[] = { 0, BIT(VIRTIO_NET_F_MRG_RXBUF) };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		struct rig *rig = new_rig(RECEIVE, features[i]);

		offer_buffer(rig, 0, HEADER + 1514);
		kick(rig);
		network_sends(rig, 1515, 1);
		network_sends(rig, 1514, 2);
		wait_used(rig, 1);
		assert_int_equal(driver_used_length(&rig->driver, 0), HEADER + 1514);
		assert_counts_up(data_at(rig, 0) + HEADER, 1514, 2);
		/* With more room than a frame of our MTU needs. */
		offer_buffer(rig, 1, HEADER + 1600);
		kick(rig);
		network_sends(rig, 1601, 3);
		network_sends(rig, 1600, 4);
		wait_used(rig, 2);
		assert_int_equal(driver_used_length(&rig->driver, 1), HEADER + 1600);
		assert_counts_up(data_at(rig, 4096) + HEADER, 1600, 4);
		assert_int_equal(end(rig), 0);
		free_rig(rig);
	}
}

enum { NEEDS = VIRTIO_NET_HDR_F_NEEDS_CSUM, VALID = VIRTIO_NET_HDR_F_DATA_VALID };
enum { ECN4 = VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN };

#define GUEST_CSUM BIT(VIRTIO_NET_F_GUEST_CSUM)

static const struct {
	uint64_t features;
	uint8_t flags;
	uint8_t gso_type;
	int flags_seen; /* -1: the frame does not come */
} received[] = {
	{ 0, 0, 0, 0 },
	{ 0, VALID, 0, 0 },
	{ 0, NEEDS, 0, -1 },
	{ GUEST_CSUM, VALID, 0, VALID },
	{ GUEST_CSUM, NEEDS, 0, NEEDS },
	{ GUEST_CSUM, NEEDS, VIRTIO_NET_HDR_GSO_TCPV4, -1 },
	{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_TSO4), NEEDS, VIRTIO_NET_HDR_GSO_TCPV4, NEEDS },
	{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_TSO4), NEEDS, VIRTIO_NET_HDR_GSO_TCPV6, -1 },
	{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_TSO6), NEEDS, VIRTIO_NET_HDR_GSO_TCPV6, NEEDS },
	{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_TSO4), NEEDS, ECN4, -1 },
	{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_ECN), NEEDS, ECN4, -1 },
	{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_ECN), NEEDS, ECN4,
		NEEDS },
	{ GUEST_CSUM, NEEDS, VIRTIO_NET_HDR_GSO_UDP_L4, -1 },
	{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_USO4), NEEDS, VIRTIO_NET_HDR_GSO_UDP_L4, NEEDS },
	{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_TSO4), NEEDS, VIRTIO_NET_HDR_GSO_UDP, -1 },
};

static void send_with_header(struct rig *rig, uint8_t flags, uint8_t gso_type, size_t size)
{
	uint8_t frame[HEADER + 128] = { flags, gso_type };

	assert_int_equal(send(rig->network, frame, HEADER + size, 0), HEADER + size);
}

/* 5.1.6.4.1: no flags without GUEST_CSUM, no segments without their feature. */
static void a_driver_gets_the_headers_that_it_accepted(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(received); i++) {
		struct rig *rig = new_rig(RECEIVE, received[i].features);
		bool comes = received[i].flags_seen >= 0;

		/* The header in two buffers. */
		driver_put(
			&rig->driver, 0, DRIVER_DATA, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
		driver_put(&rig->driver, 1, DRIVER_DATA + 1, 2000, VRING_DESC_F_WRITE, 0);
		driver_offer(&rig->driver, 0);
		kick(rig);
		send_with_header(rig, received[i].flags, received[i].gso_type, FRAME);
		send_with_header(rig, 0, 0, FRAME + 1);
		wait_used(rig, 1);
		if (driver_used_length(&rig->driver, 0) != HEADER + FRAME + (comes ? 0u : 1u) ||
			data_at(rig, 0)[0] != (comes ? received[i].flags_seen : 0) ||
			data_at(rig, 0)[1] != (comes ? received[i].gso_type : 0))
			fail_msg("header %u: flags %u, type %u, %u bytes", i, data_at(rig, 0)[0],
				data_at(rig, 0)[1], driver_used_length(&rig->driver, 0));
		assert_int_equal(end(rig), 0);
		free_rig(rig);
	}
}

/* A kind of segments with ECN needs both features. */
static void ecn_needs_the_segments_too(void **state)
{
	const uint64_t csum = BIT(VIRTIO_NET_F_CSUM), ecn = BIT(VIRTIO_NET_F_HOST_ECN);
	const uint64_t tso4 = BIT(VIRTIO_NET_F_HOST_TSO4), tso6 = BIT(VIRTIO_NET_F_HOST_TSO6);
	const struct virtio_net_hdr header = { .flags = NEEDS, .gso_type = ECN4 };

	(void)state;
	assert_true(net_header_is_good(csum | ecn | tso4, &header));
	assert_false(net_header_is_good(csum | ecn | tso6, &header));
	assert_false(net_header_is_good(csum | tso4, &header));
	assert_false(net_header_is_good(ecn | tso4, &header));
}

/* What a tap takes; it refuses all of what has a bit too many. */
static void offloads_have_what_they_need(void **state)
{
	static const struct {
		uint64_t features;
		unsigned offloads;
	} cases[] = {
		{ 0, 0 },
		{ GUEST_CSUM, TUN_F_CSUM },
		{ BIT(VIRTIO_NET_F_GUEST_TSO4), 0 },
		{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_TSO4), TUN_F_CSUM | TUN_F_TSO4 },
		{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_TSO6), TUN_F_CSUM | TUN_F_TSO6 },
		{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_ECN), TUN_F_CSUM },
		{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN),
			TUN_F_CSUM | TUN_F_TSO6 | TUN_F_TSO_ECN },
		{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_USO4), TUN_F_CSUM },
		{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_USO6), TUN_F_CSUM },
		{ GUEST_CSUM | BIT(VIRTIO_NET_F_GUEST_USO4) | BIT(VIRTIO_NET_F_GUEST_USO6),
			TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6 },
		{ BIT(VIRTIO_NET_F_GUEST_USO4) | BIT(VIRTIO_NET_F_GUEST_USO6), 0 },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(net_tap_offloads(cases[i].features), cases[i].offloads);
}

/* 5.1.2: without MQ the control queue is queue 2, whatever the device could have. */
static void the_control_queue_follows_the_pairs_in_use(void **state)
{
	static const struct {
		uint64_t features;
		unsigned control;
	} cases[] = { { 0, 2 }, { BIT(VIRTIO_NET_F_MQ), 8 } };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rig *rig = new_rig(CONTROL, cases[i].features);

		assert_int_equal(end(rig), 0);
		rig->device.options.pairs = 4;
		rig->queue.index = cases[i].control;
		/* The stop is not taken back: what is offered is served once, then it ends. */
		memcpy(data_at(rig, 0), "\0\0\1", 3);
		driver_put(&rig->driver, 0, DRIVER_DATA, 3, VRING_DESC_F_NEXT, 1);
		driver_put(&rig->driver, 1, DRIVER_DATA + 100, 1, VRING_DESC_F_WRITE, 0);
		driver_offer(&rig->driver, 0);
		const struct virtqueue_config config = driver_config(SIZE);

		assert_int_equal(virtqueue_init(&rig->queue.vq, rig->memory, &config, 0), 0);
		assert_int_equal(net_device_class.ops->serve(&rig->queue), 0);
		assert_int_equal(driver_used_idx(&rig->driver), 1);
		assert_int_equal(data_at(rig, 0)[100], VIRTIO_NET_OK);
		free_rig(rig);
	}
}

/* The end of a frame that the socket had no room for follows although the guest is silent. */
static void the_end_of_a_frame_needs_no_other_frame(void **state)
{
	enum { BIG = 60000 };
	struct rig *rig = new_rig(TRANSMIT, 0);
	uint8_t bytes[4096];
	size_t got = 0;
	int ends[2], room = 4608;

	(void)state;
	assert_int_equal(end(rig), 0);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
	assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
	assert_int_equal(net_stream_create(ends[1], &rig->device.stream), 0);
	eventfd_t count;

	assert_int_equal(eventfd_read(rig->queue.stop_fd, &count), 0);
	driver_put(&rig->driver, 0, HIGH_GPA, HEADER + BIG, 0, 0);
	driver_offer(&rig->driver, 0);
	begin(rig);
	wait_used(rig, 1);
	while (got < 4 + BIG) {
		struct pollfd wait = { .fd = ends[0], .events = POLLIN };

		assert_int_equal(poll(&wait, 1, 20000), 1);
		ssize_t n = recv(ends[0], bytes, sizeof(bytes), 0);

		assert_true(n > 0);
		got += (size_t)n;
	}
	assert_int_equal(got, 4 + BIG);
	assert_int_equal(end(rig), 0);
	net_stream_free(rig->device.stream);
	close(ends[0]);
	free_rig(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_frame_may_fill_its_buffer_and_is_never_cut),
		cmocka_unit_test(a_driver_gets_the_headers_that_it_accepted),
		cmocka_unit_test(ecn_needs_the_segments_too),
		cmocka_unit_test(offloads_have_what_they_need),
		cmocka_unit_test(the_control_queue_follows_the_pairs_in_use),
		cmocka_unit_test(the_end_of_a_frame_needs_no_other_frame),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
