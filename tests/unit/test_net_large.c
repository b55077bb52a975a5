// SPDX-License-Identifier: BSD-3-Clause
/*
 * Frames of all sizes to a driver that takes large ones in many buffers: after
 * a run of small ones, a large one was dealt too little, and yet comes whole.
 */
#define NET_RIG_SIZE 256
#include "unit/unit.h"

#include "unit/net_rig.h"

enum { BUFFER = 1536, BUFFERS = SIZE, RUN = 150, BURST = 12, LARGE = 40000 };

static uint64_t gpa_of(unsigned id)
{
	return HIGH_GPA + id * (uint64_t)BUFFER;
}

static void offer(struct rig *rig, unsigned id)
{
	driver_put(&rig->driver, id, gpa_of(id), BUFFER, VRING_DESC_F_WRITE, 0);
	driver_offer(&rig->driver, (uint16_t)id);
}

static struct rig *new_driver(unsigned buffers)
{
	struct rig *rig =
		new_rig(RECEIVE, BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_GUEST_TSO4));

	for (unsigned id = 0; id < buffers; id++)
		offer(rig, id);
	kick(rig);
	return rig;
}

static void await_more(struct rig *rig, uint16_t seen)
{
	struct pollfd call = { .fd = rig->queue.call_fd, .events = POLLIN };
	eventfd_t count;

	while (driver_used_idx(&rig->driver) == seen) {
		assert_int_equal(poll(&call, 1, PATIENCE_MS), 1);
		(void)eventfd_read(rig->queue.call_fd, &count);
	}
}

/* The next frame, of `size` bytes that count up from `first`, in as many buffers as it needs and no
 * more. They are offered again. */
static void expect_frame(struct rig *rig, uint16_t *seen, size_t size, uint8_t first)
{
	unsigned buffers = (unsigned)((HEADER + size + BUFFER - 1) / BUFFER);
	size_t done = 0;

	for (unsigned i = 0; i < buffers; i++, ++*seen) {
		await_more(rig, *seen);
		unsigned id = driver_used_id(&rig->driver, *seen);
		uint32_t length = driver_used_length(&rig->driver, *seen);
		const uint8_t *data = guest_memory_at(rig->memory, gpa_of(id), BUFFER);
		unsigned skip = i == 0 ? HEADER : 0;

		assert_int_equal(length, min_u64(HEADER + size - i * (size_t)BUFFER, BUFFER));
		if (i == 0)
			assert_int_equal(data[10] | data[11] << 8, buffers);
		assert_counts_up(data + skip, length - skip, (uint8_t)(first + done));
		done += length - skip;
		offer(rig, id);
	}
	assert_int_equal(done, size);
	kick(rig);
}

/* Small ones until no room for large ones is dealt. */
static void run_of_small_frames(struct rig *rig, uint16_t *seen)
{
	for (unsigned i = 0; i < RUN; i++) {
		network_sends(rig, FRAME, (uint8_t)i);
		expect_frame(rig, seen, FRAME, (uint8_t)i);
	}
}

static void a_large_frame_after_small_ones_comes_whole(void **state)
{
	struct rig *rig = new_driver(BUFFERS);
	uint16_t seen = 0;

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		run_of_small_frames(rig, &seen);
		network_sends(rig, LARGE + round, 7);
		expect_frame(rig, &seen, LARGE + round, 7);
		network_sends(rig, 65549, 9);
		network_sends(rig, FRAME, 11);
		expect_frame(rig, &seen, 65549, 9);
		expect_frame(rig, &seen, FRAME, 11);
	}
	assert_int_equal(end(rig), 0);
	assert_int_equal(virtqueue_base(&rig->queue.vq), seen);
	free_rig(rig);
}

/* Several of one turn do not share a place for their ends. */
static void large_frames_at_once_come_whole(void **state)
{
	struct rig *rig = new_driver(BUFFERS);
	uint16_t seen = 0;

	(void)state;
	for (unsigned round = 0; round < 10; round++) {
		run_of_small_frames(rig, &seen);
		/* Some before them, so that they have arrived when their turn comes. */
		for (unsigned i = 0; i < BURST; i++)
			network_sends(rig, FRAME, (uint8_t)i);
		network_sends(rig, LARGE, 1);
		network_sends(rig, LARGE - 1, 2);
		for (unsigned i = 0; i < BURST; i++)
			expect_frame(rig, &seen, FRAME, (uint8_t)i);
		expect_frame(rig, &seen, LARGE, 1);
		expect_frame(rig, &seen, LARGE - 1, 2);
	}
	assert_int_equal(end(rig), 0);
	free_rig(rig);
}

/* Where the end has no room the frame is lost, and nothing of it is given away. */
static void a_frame_without_room_for_its_end_is_lost(void **state)
{
	struct rig *rig = new_driver(2);
	uint16_t seen = 0;

	(void)state;
	run_of_small_frames(rig, &seen);
	network_sends(rig, LARGE, 1);
	network_sends(rig, BUFFER + FRAME, 2);
	expect_frame(rig, &seen, BUFFER + FRAME, 2);
	network_sends(rig, FRAME, 3);
	expect_frame(rig, &seen, FRAME, 3);
	assert_int_equal(end(rig), 0);
	free_rig(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_large_frame_after_small_ones_comes_whole),
		cmocka_unit_test(large_frames_at_once_come_whole),
		cmocka_unit_test(a_frame_without_room_for_its_end_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
