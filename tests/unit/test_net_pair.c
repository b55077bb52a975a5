// SPDX-License-Identifier: BSD-3-Clause
/*
 * Two queues of a pair and the one thread that serves them: whichever came
 * first, whichever ends first, however it ends, the other one goes on.
 */
#include "unit/unit.h"

#include "unit/capture.h"
#include "unit/net_rig.h"

enum { ROUNDS = 30 };

/* Each with its rings in a memory of its own. */
struct rigs {
	struct rig *sides[NET_SIDES];
	bool runs[NET_SIDES];
	uint16_t used[NET_SIDES];
};

static void start(struct rigs *rigs, unsigned side)
{
	struct rig *rig = rigs->sides[side];
	eventfd_t count;

	assert_int_equal(eventfd_read(rig->queue.stop_fd, &count), 0);
	begin(rig);
	rigs->runs[side] = true;
}

static void stop(struct rigs *rigs, unsigned side)
{
	struct rig *rig = rigs->sides[side];

	assert_int_equal(end(rig), 0);
	rig->base = virtqueue_base(&rig->queue.vq);
	rigs->runs[side] = false;
}

/* Neither runs. The network is that of the receiving one. */
static struct rigs *new_rigs(uint64_t features)
{
	struct rigs *rigs = calloc(1, sizeof(*rigs));

	assert_non_null(rigs);
	for (unsigned i = 0; i < NET_SIDES; i++) {
		rigs->sides[i] = new_rig(i, features);
		assert_int_equal(end(rigs->sides[i]), 0);
	}
	rigs->sides[NET_TRANSMIT]->queue.device = &rigs->sides[NET_RECEIVE]->device;
	return rigs;
}

static void free_rigs(struct rigs *rigs)
{
	for (unsigned i = 0; i < NET_SIDES; i++)
		if (rigs->runs[i])
			stop(rigs, i);
	for (unsigned i = 0; i < NET_SIDES; i++)
		free_rig(rigs->sides[i]);
	free(rigs);
}

static void expect_receives(struct rigs *rigs, uint8_t first)
{
	struct rig *rig = rigs->sides[NET_RECEIVE];

	offer_buffer(rig, 0, 2048);
	kick(rig);
	network_sends(rig, FRAME, first);
	wait_used(rig, ++rigs->used[NET_RECEIVE]);
	assert_counts_up(data_at(rig, 0) + HEADER, FRAME, first);
}

static void expect_transmits(struct rigs *rigs)
{
	struct rig *rig = rigs->sides[NET_TRANSMIT];
	uint8_t frame[256];

	make_frame(rig, (struct virtio_net_hdr){ 0 }, FRAME);
	driver_put(&rig->driver, 0, DRIVER_DATA, HEADER + FRAME, 0, 0);
	driver_offer(&rig->driver, 0);
	kick(rig);
	assert_int_equal(
		network_gets(rigs->sides[NET_RECEIVE], frame, sizeof(frame)), HEADER + FRAME);
	wait_used(rig, ++rigs->used[NET_TRANSMIT]);
}

static void expect_what_runs(struct rigs *rigs, uint8_t first)
{
	if (rigs->runs[NET_RECEIVE])
		expect_receives(rigs, first);
	if (rigs->runs[NET_TRANSMIT])
		expect_transmits(rigs);
}

/* In each order: one alone, both, the other one alone. */
static void either_thread_serves_both(void **state)
{
	struct rigs *rigs = new_rigs(0);

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned first = i & 1, last = i >> 1 & 1;

		start(rigs, first);
		expect_what_runs(rigs, (uint8_t)i);
		start(rigs, !first);
		expect_what_runs(rigs, (uint8_t)(i + 1));
		stop(rigs, !last);
		expect_what_runs(rigs, (uint8_t)(i + 2));
		stop(rigs, last);
		for (unsigned side = 0; side < NET_SIDES; side++)
			assert_int_equal(rigs->sides[side]->base, rigs->used[side]);
	}
	free_rigs(rigs);
}

static void both_start_and_stop_at_once(void **state)
{
	struct rigs *rigs = new_rigs(0);

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		start(rigs, i & 1);
		start(rigs, !(i & 1));
		if (i % 3 == 0)
			expect_what_runs(rigs, (uint8_t)i);
		for (unsigned side = 0; side < NET_SIDES; side++)
			assert_int_equal(eventfd_write(rigs->sides[side]->queue.stop_fd, 1), 0);
		for (unsigned side = 0; side < NET_SIDES; side++)
			stop(rigs, side);
	}
	free_rigs(rigs);
}

/* What the queue held in flight when its thread took it back, the driver still offers. */
static void a_full_queue_that_was_lent_is_taken_back(void **state)
{
	struct rigs *rigs = new_rigs(0);
	struct rig *rig = rigs->sides[NET_TRANSMIT];
	int tap = rigs->sides[NET_RECEIVE]->device.tap.fds[0];
	uint8_t frame[256];
	unsigned sent = 0;

	(void)state;
	make_frame(rig, (struct virtio_net_hdr){ 0 }, FRAME);
	while (send(tap, data_at(rig, 0), HEADER + FRAME, 0) > 0)
		sent++;
	start(rigs, NET_RECEIVE);
	start(rigs, NET_TRANSMIT);
	driver_put(&rig->driver, 0, DRIVER_DATA, HEADER + FRAME, 0, 0);
	driver_offer(&rig->driver, 0);
	kick(rig);
	/* The other direction is served meanwhile. */
	expect_receives(rigs, 1);
	expect_receives(rigs, 2);
	stop(rigs, NET_TRANSMIT);
	assert_int_equal(rig->base, 0);
	assert_int_equal(driver_used_idx(&rig->driver), 0);
	start(rigs, NET_TRANSMIT);
	for (unsigned i = 0; i <= sent; i++)
		assert_int_equal(network_gets(rigs->sides[NET_RECEIVE], frame, sizeof(frame)),
			HEADER + FRAME);
	wait_used(rig, 1);
	free_rigs(rigs);
}

static void break_ring(struct rigs *rigs, unsigned side)
{
	struct rig *rig = rigs->sides[side];

	driver_put(
		&rig->driver, 1, HIGH_END, 2048, side == NET_RECEIVE ? VRING_DESC_F_WRITE : 0, 0);
	driver_offer(&rig->driver, 1);
	kick(rig);
	pthread_join(rig->thread, NULL);
	assert_int_equal(rig->result, -EBADMSG);
	rigs->runs[side] = false;
}

/* Of the thread that serves, or of the one that lends. */
static void a_broken_queue_ends_alone(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct rigs *rigs = new_rigs(0);

		start(rigs, i & 1);
		start(rigs, !(i & 1));
		expect_what_runs(rigs, 1);
		break_ring(rigs, i >> 1);
		expect_what_runs(rigs, 2);
		expect_what_runs(rigs, 3);
		free_rigs(rigs);
	}
}

/* It fails as one that was deleted, and is there again when the driver takes it. */
static void a_queue_that_the_driver_gave_up_is_not_gone(void **state)
{
	struct rigs *rigs = new_rigs(0);
	struct rig *rig = rigs->sides[NET_RECEIVE];
	CLEANUP_FD int tap = dup(rig->device.tap.fds[0]);
	CLEANUP_FD int broken = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct capture capture;

	(void)state;
	capture_begin(&capture);
	rig->device.pairs = 0;
	assert_int_equal(dup2(broken, rig->device.tap.fds[0]), rig->device.tap.fds[0]);
	start(rigs, NET_RECEIVE);
	offer_buffer(rig, 0, 2048);
	kick(rig);
	sleep_ms(20);
	assert_false(rig->device.gone);
	assert_int_equal(dup2(tap, rig->device.tap.fds[0]), rig->device.tap.fds[0]);
	sleep_ms(100); /* its thread may be about to see that the other was broken */
	rig->device.pairs = 1;
	net_pair_wake(&rig->device.queue_pairs[0]);
	network_sends(rig, FRAME, 1);
	wait_used(rig, 1);
	free_rigs(rigs);
	capture_end(&capture);
	assert_int_equal(capture_lines(&capture), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(either_thread_serves_both),
		cmocka_unit_test(both_start_and_stop_at_once),
		cmocka_unit_test(a_full_queue_that_was_lent_is_taken_back),
		cmocka_unit_test(a_broken_queue_ends_alone),
		cmocka_unit_test(a_queue_that_the_driver_gave_up_is_not_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
