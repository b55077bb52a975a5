// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-net's rings against a driver and, in the place of a tap, a socket
 * that keeps frames apart: what arrives is what was sent, in whatever buffers,
 * and a driver that offers nonsense hurts itself only.
 */
#include "unit/unit.h"

#include <linux/if_tun.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "unit/capture.h"
#include "unit/net_rig.h"

static void a_frame_fills_one_buffer(void **state)
{
	struct rig *rig = new_rig(RECEIVE, 0);

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		offer_buffer(rig, i, 2048);
		kick(rig);
		network_sends(rig, FRAME + i, (uint8_t)i);
		wait_used(rig, (uint16_t)(i + 1));
		assert_int_equal(driver_used_id(&rig->driver, (uint16_t)i), i);
		assert_int_equal(driver_used_length(&rig->driver, (uint16_t)i), HEADER + FRAME + i);
		const uint8_t *data = data_at(rig, i * UINT64_C(4096));

		assert_int_equal(data[10] | data[11] << 8, 1);
		assert_counts_up(data + HEADER, FRAME + i, (uint8_t)i);
		assert_int_equal(data[HEADER + FRAME + i], 0x5a);
	}
	assert_int_equal(end(rig), 0);
	free_rig(rig);
}

static void a_large_frame_takes_several_buffers(void **state)
{
	struct rig *rig = new_rig(RECEIVE, BIT(VIRTIO_NET_F_MRG_RXBUF));

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		offer_buffer(rig, i, 400);
	kick(rig);
	network_sends(rig, 1000, 7);
	wait_used(rig, 3);
	assert_int_equal(driver_used_length(&rig->driver, 0), 400);
	assert_int_equal(driver_used_length(&rig->driver, 1), 400);
	assert_int_equal(driver_used_length(&rig->driver, 2), HEADER + 1000 - 800);
	assert_int_equal(data_at(rig, 0)[10] | data_at(rig, 0)[11] << 8, 3);
	assert_counts_up(data_at(rig, 0) + HEADER, 400 - HEADER, 7);
	assert_counts_up(data_at(rig, 4096), 400, (uint8_t)(7 + 400 - HEADER));
	assert_counts_up(data_at(rig, 8192), HEADER + 200, (uint8_t)(7 + 800 - HEADER));
	assert_int_equal(data_at(rig, 8192)[HEADER + 200], 0x5a);
	/* The fourth was held, and is still the driver's. */
	assert_int_equal(end(rig), 0);
	assert_int_equal(virtqueue_base(&rig->queue.vq), 3);
	free_rig(rig);
}

static void a_header_may_be_cut_anywhere(void **state)
{
	struct rig *rig = new_rig(RECEIVE, 0);

	(void)state;
	for (uint32_t cut = 1; cut <= HEADER; cut++) {
		memset(data_at(rig, 0), 0x5a, 4096);
		driver_put(&rig->driver, 0, DRIVER_DATA, cut,
			VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
		driver_put(&rig->driver, 1, DRIVER_DATA + cut, 2000, VRING_DESC_F_WRITE, 0);
		driver_offer(&rig->driver, 0);
		kick(rig);
		network_sends(rig, FRAME, 1);
		wait_used(rig, (uint16_t)cut);
		assert_int_equal(data_at(rig, 0)[10] | data_at(rig, 0)[11] << 8, 1);
		assert_counts_up(data_at(rig, 0) + HEADER, FRAME, 1);
	}
	assert_int_equal(end(rig), 0);
	free_rig(rig);
}

/* A frame that does not fit in what a driver offers is lost, and the next one is not. */
static void what_does_not_fit_is_dropped(void **state)
{
	struct rig *rig = new_rig(RECEIVE, BIT(VIRTIO_NET_F_MRG_RXBUF));

	(void)state;
	offer_buffer(rig, 0, HEADER + 100);
	kick(rig);
	network_sends(rig, 500, 1);
	network_sends(rig, FRAME, 2);
	wait_used(rig, 1);
	assert_int_equal(driver_used_length(&rig->driver, 0), HEADER + FRAME);
	assert_counts_up(data_at(rig, 0) + HEADER, FRAME, 2);
	assert_int_equal(end(rig), 0);
	free_rig(rig);
}

static uint64_t cpu_time_ns(void)
{
	struct timespec used;

	assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used), 0);
	return (uint64_t)used.tv_sec * NS_PER_S + (uint64_t)used.tv_nsec;
}

/* And nobody looks for either meanwhile. */
static void frames_wait_for_buffers(void **state)
{
	struct rig *rig = new_rig(RECEIVE, 0);

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		network_sends(rig, FRAME, (uint8_t)i);
	sleep_ms(200); /* for the thread's own start */
	uint64_t before = cpu_time_ns();

	sleep_ms(200);
	assert_true(cpu_time_ns() - before < 20 * NS_PER_MS);
	for (unsigned i = 0; i < 5; i++) {
		offer_buffer(rig, i, 2048);
		kick(rig);
		wait_used(rig, (uint16_t)(i + 1));
		assert_counts_up(data_at(rig, i * UINT64_C(4096)) + HEADER, FRAME, (uint8_t)i);
	}
	assert_int_equal(end(rig), 0);
	free_rig(rig);
}

/* Waits until serve has returned by itself. */
static void expect_broken(struct rig *rig)
{
	pthread_join(rig->thread, NULL);
	assert_int_equal(rig->result, -EBADMSG);
	free_rig(rig);
}

static void buffers_that_hold_no_header_break_the_queue(void **state)
{
	(void)state;
	struct rig *rig = new_rig(RECEIVE, BIT(VIRTIO_NET_F_MRG_RXBUF));

	offer_buffer(rig, 0, HEADER - 1);
	kick(rig);
	expect_broken(rig);

	rig = new_rig(RECEIVE, 0);
	driver_put(&rig->driver, 0, DRIVER_DATA, 2000, 0, 0); /* to be read */
	driver_offer(&rig->driver, 0);
	kick(rig);
	expect_broken(rig);
}

/* As with a tap that was deleted, each call fails from now on. */
static void cut_cable(struct rig *rig, int flags)
{
	int broken = open("/dev/null", flags | O_CLOEXEC);

	assert_int_equal(dup2(broken, rig->device.tap.fds[0]), rig->device.tap.fds[0]);
	close(broken);
}

static void a_cable_that_is_cut_is_reported_once(void **state)
{
	struct rig *rig = new_rig(RECEIVE, 0);
	struct capture capture;

	(void)state;
	capture_begin(&capture);
	cut_cable(rig, O_WRONLY);
	offer_buffer(rig, 0, 2048);
	kick(rig);
	while (!rig->device.gone)
		sleep_ms(1);
	assert_int_equal(end(rig), 0);
	capture_end(&capture);
	assert_int_equal(capture_lines(&capture), 1);
	assert_non_null(strstr(capture.text, "net: test: "));
	assert_int_equal(virtqueue_base(&rig->queue.vq), 0);
	free_rig(rig);
}

/* What is no end, as a lack of memory, passes. */
static void a_cable_that_fails_for_a_moment_is_tried_again(void **state)
{
	struct rig *rig = new_rig(RECEIVE, 0);
	CLEANUP_FD int tap = dup(rig->device.tap.fds[0]);
	CLEANUP_FD int directory = open("/", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_int_equal(dup2(directory, rig->device.tap.fds[0]), rig->device.tap.fds[0]);
	offer_buffer(rig, 0, 2048);
	kick(rig);
	sleep_ms(20);
	assert_int_equal(dup2(tap, rig->device.tap.fds[0]), rig->device.tap.fds[0]);
	network_sends(rig, FRAME, 1);
	wait_used(rig, 1);
	assert_counts_up(data_at(rig, 0) + HEADER, FRAME, 1);
	assert_false(rig->device.gone);
	assert_int_equal(end(rig), 0);
	free_rig(rig);
}

/* ---- transmit ---- */

static void a_frame_leaves_from_any_buffers(void **state)
{
	struct rig *rig = new_rig(TRANSMIT, 0);
	uint8_t frame[2048];

	(void)state;
	make_frame(rig, (struct virtio_net_hdr){ 0 }, FRAME);
	data_at(rig, 0)[10] = 0xee; /* num_buffers, which is not the driver's to say */
	for (uint32_t cut = 1; cut < HEADER + FRAME; cut++) {
		driver_put(&rig->driver, 0, DRIVER_DATA, cut, VRING_DESC_F_NEXT, 1);
		driver_put(&rig->driver, 1, DRIVER_DATA + cut, HEADER + FRAME - cut, 0, 0);
		driver_offer(&rig->driver, 0);
		kick(rig);
		assert_int_equal(network_gets(rig, frame, sizeof(frame)), HEADER + FRAME);
		for (unsigned i = 0; i < HEADER; i++)
			assert_int_equal(frame[i], 0);
		assert_counts_up(frame + HEADER, FRAME, 0);
		wait_used(rig, (uint16_t)cut);
		assert_int_equal(driver_used_length(&rig->driver, (uint16_t)(cut - 1)), 0);
	}
	assert_int_equal(end(rig), 0);
	free_rig(rig);
}

static void frames_of_bad_sizes_are_dropped(void **state)
{
	static const uint32_t bad[] = { 1, HEADER, HEADER + 13, HEADER + 14 + 4 + 65535 + 1,
		HIGH_SIZE };
	struct rig *rig = new_rig(TRANSMIT, 0);
	uint8_t frame[64];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		driver_put(&rig->driver, 0, HIGH_GPA, bad[i], 0, 0);
		driver_offer(&rig->driver, 0);
		kick(rig);
		wait_used(rig, (uint16_t)(i + 1));
		assert_network_is_silent(rig);
	}
	driver_put(&rig->driver, 0, HIGH_GPA, HEADER + 14, 0, 0);
	driver_offer(&rig->driver, 0);
	kick(rig);
	assert_int_equal(network_gets(rig, frame, sizeof(frame)), HEADER + 14);
	assert_int_equal(end(rig), 0);
	free_rig(rig);
}

enum { CSUM = VIRTIO_NET_HDR_F_NEEDS_CSUM };

struct header_case {
	unsigned feature; /* the only one that lets it pass, besides CSUM; 0: none does */
	uint8_t flags;
	uint8_t gso_type;
};

static const struct header_case headers[] = {
	{ VIRTIO_NET_F_HOST_TSO4, CSUM, VIRTIO_NET_HDR_GSO_TCPV4 },
	{ VIRTIO_NET_F_HOST_TSO6, CSUM, VIRTIO_NET_HDR_GSO_TCPV6 },
	{ VIRTIO_NET_F_HOST_USO, CSUM, VIRTIO_NET_HDR_GSO_UDP_L4 },
	{ 0, CSUM, VIRTIO_NET_HDR_GSO_ECN },
	{ 0, 0, VIRTIO_NET_HDR_GSO_TCPV4 },
	{ 0, 0, VIRTIO_NET_HDR_GSO_TCPV6 },
	{ 0, 0, VIRTIO_NET_HDR_GSO_UDP_L4 },
	{ 0, CSUM, VIRTIO_NET_HDR_GSO_UDP },
	{ 0, CSUM, VIRTIO_NET_HDR_GSO_UDP_L4 | VIRTIO_NET_HDR_GSO_ECN },
	{ 0, CSUM, 2 },
	{ 0, CSUM, 6 },
	{ 0, CSUM, 0x7f },
	{ 0, CSUM, 0xff },
};

static void headers_need_their_features(void **state)
{
	const uint64_t csum = BIT(VIRTIO_NET_F_CSUM);
	const struct virtio_net_hdr plain = { 0 }, sum = { .flags = CSUM };

	(void)state;
	assert_true(net_header_is_good(0, &plain));
	assert_true(net_header_is_good(csum, &sum));
	assert_false(net_header_is_good(~csum, &sum));
	for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
		const struct virtio_net_hdr header = {
			.flags = headers[i].flags,
			.gso_type = headers[i].gso_type,
		};
		uint64_t needed = headers[i].feature != 0 ? BIT(headers[i].feature) : 0;

		if (net_header_is_good(csum | needed, &header) != (needed != 0) ||
			net_header_is_good(~needed, &header) || net_header_is_good(needed, &header))
			fail_msg("header %zu", i);
	}
}

/* With GUEST_CSUM in the place of CSUM. */
static const struct header_case guest_headers[] = {
	{ VIRTIO_NET_F_GUEST_TSO4, CSUM, VIRTIO_NET_HDR_GSO_TCPV4 },
	{ VIRTIO_NET_F_GUEST_TSO6, CSUM, VIRTIO_NET_HDR_GSO_TCPV6 },
	{ VIRTIO_NET_F_GUEST_USO4, CSUM, VIRTIO_NET_HDR_GSO_UDP_L4 },
	{ VIRTIO_NET_F_GUEST_USO6, CSUM, VIRTIO_NET_HDR_GSO_UDP_L4 },
	{ 0, 0, VIRTIO_NET_HDR_GSO_TCPV4 },
	{ 0, CSUM, VIRTIO_NET_HDR_GSO_UDP },
	{ 0, CSUM, 0x7f },
};

/* Frames that waited in the tap since another driver had it. */
static void a_guest_gets_what_it_accepted(void **state)
{
	const uint64_t csum = BIT(VIRTIO_NET_F_GUEST_CSUM);
	struct virtio_net_hdr header = { .flags = CSUM };

	(void)state;
	assert_true(net_header_fits_guest(csum, &header));
	assert_int_equal(header.flags, CSUM);
	assert_false(net_header_fits_guest(~csum, &header));
	header.flags = VIRTIO_NET_HDR_F_DATA_VALID;
	assert_true(net_header_fits_guest(~csum, &header));
	assert_int_equal(header.flags, 0);
	for (size_t i = 0; i < ARRAY_SIZE(guest_headers); i++) {
		uint64_t needed = guest_headers[i].feature != 0 ? BIT(guest_headers[i].feature) : 0;

		header = (struct virtio_net_hdr){ .flags = guest_headers[i].flags,
			.gso_type = guest_headers[i].gso_type };
		if (net_header_fits_guest(csum | needed, &header) != (needed != 0) ||
			net_header_fits_guest(csum, &header) ||
			net_header_fits_guest(needed, &header))
			fail_msg("header %zu", i);
	}
}

static void only_good_headers_reach_the_network(void **state)
{
	struct rig *rig = new_rig(TRANSMIT, BIT(VIRTIO_NET_F_CSUM));
	struct virtio_net_hdr header = { .flags = 0xff, .csum_start = 34, .csum_offset = 16 };
	uint8_t frame[256];

	(void)state;
	header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	make_frame(rig, header, FRAME);
	driver_put(&rig->driver, 0, DRIVER_DATA, HEADER + FRAME, 0, 0);
	driver_offer(&rig->driver, 0);
	kick(rig);
	wait_used(rig, 1);
	assert_network_is_silent(rig);
	header.gso_type = VIRTIO_NET_HDR_GSO_NONE;
	make_frame(rig, header, FRAME);
	driver_offer(&rig->driver, 0);
	kick(rig);
	assert_int_equal(network_gets(rig, frame, sizeof(frame)), HEADER + FRAME);
	header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM; /* of the flags, the only one a driver has */
	assert_memory_equal(frame, &header, sizeof(header));
	assert_int_equal(end(rig), 0);
	free_rig(rig);
}

/* A network that takes nothing holds the frame back; a stop does not wait for it. */
static void a_full_network_is_waited_for(void **state)
{
	struct rig *rig = new_rig(TRANSMIT, 0);
	uint8_t frame[256];
	unsigned sent = 0;

	(void)state;
	make_frame(rig, (struct virtio_net_hdr){ 0 }, FRAME);
	while (send(rig->device.tap.fds[0], data_at(rig, 0), HEADER + FRAME, 0) > 0)
		sent++;
	assert_int_equal(errno, EAGAIN);
	driver_put(&rig->driver, 0, DRIVER_DATA, HEADER + FRAME, 0, 0);
	driver_offer(&rig->driver, 0);
	kick(rig);
	sleep_ms(50);
	assert_int_equal(driver_used_idx(&rig->driver), 0);
	assert_int_equal(end(rig), 0);
	assert_int_equal(virtqueue_base(&rig->queue.vq), 0);
	/* Started again, it is sent. */
	eventfd_t count;

	assert_int_equal(eventfd_read(rig->queue.stop_fd, &count), 0);
	begin(rig);
	for (unsigned i = 0; i <= sent; i++)
		assert_int_equal(network_gets(rig, frame, sizeof(frame)), HEADER + FRAME);
	wait_used(rig, 1);
	assert_int_equal(end(rig), 0);
	free_rig(rig);
}

/* Whose network is gone gets its frames back, but not as fast as it can offer them. */
static void what_cannot_leave_costs_little(void **state)
{
	enum { FRAMES = 6 };
	struct rig *rig = new_rig(TRANSMIT, 0);
	struct capture capture;

	(void)state;
	capture_begin(&capture);
	cut_cable(rig, O_RDONLY);
	make_frame(rig, (struct virtio_net_hdr){ 0 }, FRAME);
	driver_put(&rig->driver, 0, DRIVER_DATA, HEADER + FRAME, 0, 0);
	uint64_t before = clock_monotonic_ns();

	for (unsigned i = 1; i <= FRAMES; i++) {
		driver_offer(&rig->driver, 0);
		kick(rig);
		wait_used(rig, (uint16_t)i);
	}
	assert_true(clock_monotonic_ns() - before >= (FRAMES - 1) * NET_PAUSE_MS * NS_PER_MS);
	assert_int_equal(end(rig), 0);
	capture_end(&capture);
	assert_int_equal(capture_lines(&capture), 1);
	assert_true(rig->device.gone);
	free_rig(rig);
}

/* ---- control ---- */

/* A socket has no offloads; a tap takes any. */
int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;

	va_start(arguments, request);
	long argument = va_arg(arguments, long);

	va_end(arguments);
	return request == TUNSETOFFLOAD ? 0 : (int)syscall(SYS_ioctl, fd, request, argument);
}

static const struct {
	uint64_t feature;
	const char *command; /* class, command, data */
	uint32_t size;
	bool good;
} commands[] = {
	{ 0, "", 0, false },
	{ 0, "\0", 1, false },
	{ 0, "\0\0", 2, false },
	{ 0, "\0\0\1", 3, true }, /* promiscuous */
	{ 0, "\0\5\0", 3, true },
	{ 0, "\0\6\0", 3, false },
	{ 0, "\0\0\1\1", 4, false },
	{ 0, "\1\1\2\0\0\0\0\1", 8, false }, /* an address that is not ours to change */
	/* Tables of addresses: 0, or 2 and 1; what is one too long or short, or counts too many. */
	{ 0, "\1\0\0\0\0\0\0\0\0\0", 10, true },
	{ 0,
		"\1\0\2\0\0\0"
		"aaaaaabbbbbb"
		"\1\0\0\0"
		"cccccc",
		28, true },
	{ 0,
		"\1\0\2\0\0\0"
		"aaaaaabbbbbb"
		"\1\0\0\0"
		"cccccc",
		27, false },
	{ 0,
		"\1\0\2\0\0\0"
		"aaaaaabbbbbb"
		"\1\0\0\0"
		"cccccc",
		29, false },
	{ 0,
		"\1\0\2\0\0\0"
		"aaaaaabbbbbb"
		"\2\0\0\0"
		"cccccc",
		28, false },
	{ 0,
		"\1\0\2\0\0\0"
		"aaaaaabbbbbb",
		18, false },
	{ 0, "\1\0\377\377\377\377\0\0\0\0", 10, false },
	{ 0, "\1\0\0\0\0", 5, false },
	{ 0, "\4\0\1\0", 4, false }, /* queues, not negotiated */
	{ BIT(VIRTIO_NET_F_MQ), "\4\0\1\0", 4, true },
	{ BIT(VIRTIO_NET_F_MQ), "\4\0\0\0", 4, false },
	{ BIT(VIRTIO_NET_F_MQ), "\4\0\2\0", 4, false },
	{ BIT(VIRTIO_NET_F_MQ), "\4\0\1\1", 4, false },
	{ BIT(VIRTIO_NET_F_MQ), "\4\0\1", 3, false },
	{ BIT(VIRTIO_NET_F_MQ), "\4\0\1\0\0", 5, false },
	{ BIT(VIRTIO_NET_F_MQ), "\4\1\1\0", 4, false },
	{ 0, "\5\0\0\0\0\0\0\0\0\0", 10, false },
	{ BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS), "\5\0\2\0\0\0\0\0\0\0", 10, false },
	{ BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | BIT(VIRTIO_NET_F_GUEST_CSUM),
		"\5\0\2\0\0\0\0\0\0\0", 10, true },
	{ BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | BIT(VIRTIO_NET_F_GUEST_CSUM),
		"\5\0\6\0\0\0\0\0\0\0", 10, false },
	{ BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS), "\5\0\0\0\0\0\0\0\0", 9, false },
	{ 0, "\6\0\0", 3, false },
	{ 0, "\377\377\377", 3, false },
	{ 0, "\0\0\1345678901234567890", 20, false },
};

static void commands_are_checked(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
		struct rig *rig = new_rig(CONTROL, commands[i].feature);

		/* In two buffers, wherever they meet. */
		uint32_t first = commands[i].size * (i % 11) / 11;

		memcpy(data_at(rig, 0), commands[i].command, commands[i].size);
		data_at(rig, 0)[100] = 0x5a;
		driver_put(&rig->driver, 0, DRIVER_DATA, first, VRING_DESC_F_NEXT, 2);
		driver_put(&rig->driver, 2, DRIVER_DATA + first, commands[i].size - first,
			VRING_DESC_F_NEXT, 1);
		driver_put(&rig->driver, 1, DRIVER_DATA + 100, 1, VRING_DESC_F_WRITE, 0);
		driver_offer(&rig->driver, 0);
		kick(rig);
		wait_used(rig, 1);
		if (data_at(rig, 0)[100] != (commands[i].good ? VIRTIO_NET_OK : VIRTIO_NET_ERR) ||
			driver_used_length(&rig->driver, 0) != 1)
			fail_msg("command %u: %u", i, data_at(rig, 0)[100]);
		assert_int_equal(end(rig), 0);
		free_rig(rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_frame_fills_one_buffer),
		cmocka_unit_test(a_large_frame_takes_several_buffers),
		cmocka_unit_test(a_header_may_be_cut_anywhere),
		cmocka_unit_test(what_does_not_fit_is_dropped),
		cmocka_unit_test(frames_wait_for_buffers),
		cmocka_unit_test(buffers_that_hold_no_header_break_the_queue),
		cmocka_unit_test(a_cable_that_is_cut_is_reported_once),
		cmocka_unit_test(a_cable_that_fails_for_a_moment_is_tried_again),
		cmocka_unit_test(a_frame_leaves_from_any_buffers),
		cmocka_unit_test(frames_of_bad_sizes_are_dropped),
		cmocka_unit_test(headers_need_their_features),
		cmocka_unit_test(a_guest_gets_what_it_accepted),
		cmocka_unit_test(only_good_headers_reach_the_network),
		cmocka_unit_test(a_full_network_is_waited_for),
		cmocka_unit_test(what_cannot_leave_costs_little),
		cmocka_unit_test(commands_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
