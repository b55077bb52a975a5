// SPDX-License-Identifier: BSD-3-Clause
/*
 * A device process that is hostile, against the front end: every reply with
 * every fault of form, values that cannot be, messages that nobody asked for.
 * After each the device is lost, at once and for good, and nothing else is.
 */
#include "unit/unit.h"

#include <linux/virtio_blk.h>

#include "unit/vhost_user_peer.h"
#include "vm/device_process.h"
#include "vm/foreign_device.h"

static const uint32_t answered[] = {
	VHOST_USER_GET_FEATURES,
	VHOST_USER_GET_PROTOCOL_FEATURES,
	VHOST_USER_GET_QUEUE_NUM,
	VHOST_USER_GET_CONFIG,
	VHOST_USER_SET_FEATURES,
	VHOST_USER_SET_MEM_TABLE,
	VHOST_USER_SET_VRING_ENABLE,
	VHOST_USER_SET_CONFIG,
	VHOST_USER_GET_VRING_BASE,
	VHOST_USER_RESET_DEVICE,
};

/* Each call of the contract fails, without a wait. */
static void assert_lost(struct peer *peer)
{
	struct vhost *vhost = peer->vhost;
	const struct vhost_ops *ops = vhost->ops;
	struct vhost_ring ring = rig_ring(&peer->rig);
	uint64_t before = clock_monotonic_ns();
	uint64_t features = 77;
	uint8_t byte = 77;

	assert_true(wait_readable(ops->event_fd(vhost), 0));
	assert_int_equal(ops->handle_event(vhost), -ENOTCONN);
	assert_int_equal(ops->get_features(vhost, &features), -ENOTCONN);
	assert_int_equal(ops->set_features(vhost, 0), -ENOTCONN);
	assert_int_equal(ops->get_config(vhost, 0, &byte, 1), -ENOTCONN);
	assert_int_equal(ops->set_config(vhost, 0, &byte, 1), -ENOTCONN);
	assert_int_equal(ops->set_vring(vhost, 0, &ring), -ENOTCONN);
	assert_int_equal(ops->start_vring(vhost, 0), -ENOTCONN);
	assert_int_equal(ops->reset(vhost), -ENOTCONN);
	assert_int_equal(byte, 77);
	assert_true(clock_monotonic_ns() - before < (VHOST_USER_CREDIT_MS - 500) * NS_PER_MS);
}

static void a_good_peer_is_driven(void **state)
{
	struct peer peer = { .act = ACT_NONE };

	(void)state;
	assert_int_equal(peer_connect(&peer), 0);
	assert_int_equal(peer_drive(&peer), 0);
	assert_int_equal(peer_drive(&peer), 0);
	assert_int_equal(peer.vhost->ops->handle_event(peer.vhost), 0);
	peer_end(&peer);
}

static void a_peer_that_knows_less_is_driven(void **state)
{
	static const unsigned features[] = { VHOST_USER_PROTOCOL_F_MQ,
		VHOST_USER_PROTOCOL_F_REPLY_ACK, VHOST_USER_PROTOCOL_F_RESET_DEVICE };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		struct peer peer = { .act = ACT_NONE, .protocol = BIT(features[i]) };

		assert_int_equal(peer_connect(&peer), 0);
		unsigned queues = peer.vhost->ops->queue_count(peer.vhost);

		assert_int_equal(queues, features[i] == VHOST_USER_PROTOCOL_F_MQ ? 1 : PEER_QUEUES);
		if (queues == PEER_QUEUES)
			assert_int_equal(peer_drive(&peer), 0);
		peer_end(&peer);
	}
}

/* A device that shows files to the guest is none without a way to do so. */
static void a_peer_without_a_way_to_the_window_is_refused(void **state)
{
	struct peer peer = { .has_window = true };

	(void)state;
	assert_int_equal(peer_connect(&peer), -EPROTO);
	peer_end(&peer);
}

/* Zeros instead of a configuration space, and only features that need none. */
static void a_peer_without_a_configuration_space_may_be_driven(void **state)
{
	struct peer peer = {
		.protocol = BIT(VHOST_USER_PROTOCOL_F_CONFIG),
		.features_without_config = 1,
	};
	uint64_t features;
	uint8_t bytes[PEER_CONFIG_SIZE] = { 77 };

	(void)state;
	assert_int_equal(peer_connect(&peer), 0);
	const struct vhost_ops *ops = peer.vhost->ops;

	assert_int_equal(ops->get_features(peer.vhost, &features), 0);
	assert_int_equal(features, BIT(VIRTIO_F_VERSION_1));
	assert_int_equal(ops->set_features(peer.vhost, features), 0);
	assert_int_equal(ops->set_config(peer.vhost, 0, bytes, 1), -EOPNOTSUPP);
	assert_int_equal(ops->reset(peer.vhost), 0);
	assert_int_equal(ops->get_config(peer.vhost, 0, bytes, sizeof(bytes)), 0);
	assert_true(bytes[0] == 0 && bytes[PEER_CONFIG_SIZE - 1] == 0);
	assert_int_equal(ops->handle_event(peer.vhost), 0);
	peer_end(&peer);
}

/* What stands in the space that we have for it the driver sees, and the peer hears nothing of. */
static void the_configuration_space_of_such_a_peer_may_be_ours(void **state)
{
	static const uint8_t space[PEER_CONFIG_SIZE] = { 1, 2, [PEER_CONFIG_SIZE - 1] = 9 };
	static const struct vhost_user_offer own = { .features = BIT(5), .config = space };
	struct peer peer = {
		.protocol = BIT(VHOST_USER_PROTOCOL_F_CONFIG),
		.features_without_config = 1,
		.own = &own,
	};
	uint64_t features;
	uint8_t bytes[PEER_CONFIG_SIZE] = { 0 };

	(void)state;
	assert_int_equal(peer_connect(&peer), 0);
	const struct vhost_ops *ops = peer.vhost->ops;

	assert_int_equal(ops->get_features(peer.vhost, &features), 0);
	assert_int_equal(features, BIT(VIRTIO_F_VERSION_1) | BIT(5));
	assert_int_equal(ops->set_features(peer.vhost, features), 0);
	assert_int_equal(ops->reset(peer.vhost), 0);
	assert_int_equal(ops->get_config(peer.vhost, 0, bytes, sizeof(bytes)), 0);
	assert_memory_equal(bytes, space, sizeof(space));
	assert_int_equal(ops->handle_event(peer.vhost), 0);
	peer_end(&peer);
	assert_int_equal(peer.told, BIT(VIRTIO_F_VERSION_1) | BIT(VHOST_USER_F_PROTOCOL_FEATURES));
}

static uint32_t used_by_known_features(uint64_t features)
{
	return (features & 0x10) != 0 ? 3 : 0;
}

static void no_more_of_the_configuration_is_asked_for_than_there_is(void **state)
{
	struct peer peer = { .config_used = used_by_known_features };
	uint8_t bytes[PEER_CONFIG_SIZE];

	(void)state;
	assert_int_equal(peer_connect(&peer), 0);
	assert_int_equal(peer.vhost->ops->get_config(peer.vhost, 0, bytes, PEER_CONFIG_SIZE), 0);
	peer_end(&peer);
	peer = (struct peer){ .config_used = used_by_known_features,
		.target = VHOST_USER_GET_CONFIG,
		.answers_otherwise = true,
		.answer = (uint64_t)PEER_CONFIG_SIZE << 32 };
	assert_int_equal(peer_connect(&peer), -EPROTO); /* all of it was not asked for */
	peer_end(&peer);
}

static void there_are_as_many_queues_as_the_device_needs(void **state)
{
	struct peer few = { .queues_min = PEER_QUEUES + 1 };
	struct peer silent = { .queues_min = 3, .protocol = BIT(VHOST_USER_PROTOCOL_F_MQ) };

	(void)state;
	assert_int_equal(peer_connect(&few), -EPROTO);
	peer_end(&few);
	assert_int_equal(peer_connect(&silent), 0);
	assert_int_equal(silent.vhost->ops->queue_count(silent.vhost), 3);
	peer_end(&silent);
}

/* DPDK's have 128. */
static void there_may_be_more_queues_than_we_use(void **state)
{
	static const uint64_t counts[] = { DEVICE_QUEUES_MAX, DEVICE_QUEUES_MAX + 1, 128,
		BIT(32) + 1, UINT64_MAX };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct peer peer = {
			.target = VHOST_USER_GET_QUEUE_NUM,
			.answers_otherwise = true,
			.answer = counts[i],
		};
		const struct vhost_ring ring = { .size = SIZE };

		assert_int_equal(peer_connect(&peer), 0);
		const struct vhost_ops *ops = peer.vhost->ops;

		assert_int_equal(ops->queue_count(peer.vhost), DEVICE_QUEUES_MAX);
		assert_int_equal(ops->set_vring(peer.vhost, DEVICE_QUEUES_MAX, &ring), -EINVAL);
		assert_int_equal(peer_drive(&peer), 0);
		peer_end(&peer);
	}
}

/* How many queues the driver of a disk reads of, where a back end says both of these. */
static unsigned queues_of_disk(unsigned queues, unsigned config_says)
{
	const struct virtio_blk_config config = { .num_queues = (uint16_t)config_says };
	const struct device_loss loss = { 0 };
	struct foreign_device device;
	struct peer peer = {
		.target = VHOST_USER_GET_QUEUE_NUM,
		.answers_otherwise = true,
		.answer = queues,
		.config = &config,
	};
	uint16_t seen = 0;

	rig_init(&peer.rig);
	peer_start(&peer);
	assert_int_equal(
		foreign_device_adopt(&block_device_class, fd_steal(&peer.rig.socket), &device), 0);
	assert_int_equal(
		foreign_device_greet(&device, NULL, peer.rig.memory, &loss, &peer.vhost), 0);
	assert_int_equal(peer.vhost->ops->get_config(peer.vhost,
				 offsetof(struct virtio_blk_config, num_queues), (uint8_t *)&seen,
				 sizeof(seen)),
		0);
	peer_release(&peer);
	foreign_device_close(&device);
	return seen;
}

/* More would make its driver give up. */
static void a_disk_tells_of_the_queues_that_are_used(void **state)
{
	(void)state;
	assert_int_equal(queues_of_disk(128, 128), DEVICE_QUEUES_MAX);
	assert_int_equal(queues_of_disk(4, 128), 4);
	assert_int_equal(queues_of_disk(4, 2), 2);
}

/* How long it takes to stop a ring on which one chain is offered and `done` given back. */
static uint64_t time_to_stop(bool drops_work, uint16_t done)
{
	struct peer peer = { .drops_work = drops_work };
	uint16_t base;

	assert_int_equal(peer_connect(&peer), 0);
	const struct vhost_ops *ops = peer.vhost->ops;
	struct vhost_ring ring = rig_ring(&peer.rig);

	driver_offer(&peer.rig.driver, 0);
	peer.rig.driver.used[2] = (uint8_t)done;
	assert_int_equal(ops->set_features(peer.vhost, BIT(VIRTIO_F_VERSION_1)), 0);
	assert_int_equal(ops->set_vring(peer.vhost, 1, &ring), 0);
	assert_int_equal(ops->start_vring(peer.vhost, 1), 0);
	uint64_t before = clock_monotonic_ns();

	assert_int_equal(ops->stop_vring(peer.vhost, 1, &base), 0);
	uint64_t took = clock_monotonic_ns() - before;

	peer_end(&peer);
	return took;
}

static bool stops_at_once(bool drops_work, uint16_t done)
{
	for (unsigned i = 0; i < 5; i++) /* the machine may be busy */
		if (time_to_stop(drops_work, done) < VHOST_USER_SETTLE_MS * NS_PER_MS)
			return true;
	return false;
}

static void a_ring_comes_to_rest_before_one_that_drops_work(void **state)
{
	(void)state;
	assert_true(time_to_stop(true, 0) >= VHOST_USER_SETTLE_MS * NS_PER_MS);
	assert_true(stops_at_once(true, 1));
	assert_true(stops_at_once(false, 0));
}

static uint64_t time_to_end(bool syncs, unsigned sync_ms)
{
	struct peer peer = { .syncs = syncs, .sync_ms = sync_ms };

	assert_int_equal(peer_connect(&peer), 0);
	uint64_t before = clock_monotonic_ns();

	peer.vhost->ops->free(peer.vhost);
	peer.vhost = NULL;
	uint64_t took_ms = (clock_monotonic_ns() - before) / NS_PER_MS;

	peer_end(&peer);
	return took_ms;
}

/* Within its credit; one that has nothing to make durable is not waited for. */
static void the_end_of_one_that_syncs_is_waited_for(void **state)
{
	(void)state;
	assert_true(time_to_end(true, 300) >= 300);
	assert_true(time_to_end(false, 3000) < 3000);
	/* It has used up some of it before. */
	assert_in_range(time_to_end(true, VHOST_USER_CREDIT_MS + 6000), VHOST_USER_CREDIT_MS / 2,
		VHOST_USER_CREDIT_MS + 5900);
}

static void every_fault_of_form_is_the_end(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(answered); i++) {
		for (enum act act = ACT_HANG_UP; act < ACTS_AT_ONCE; act++) {
			struct peer peer = { .target = answered[i], .act = act };
			uint64_t before = clock_monotonic_ns();
			int r = peer_connect(&peer);
			bool connected = r == 0;

			if (connected)
				r = peer_drive(&peer);
			if (r >= 0)
				fail_msg("request %u, act %d: taken", answered[i], act);
			assert_true(r == -EPROTO || r == -ENOTCONN);
			if (connected)
				assert_lost(&peer);
			assert_int_equal(peer.acts, 1);
			peer_end(&peer);
			assert_true(clock_monotonic_ns() - before <
				    2 * VHOST_USER_CREDIT_MS * NS_PER_MS);
		}
	}
}

static const struct {
	uint32_t request;
	uint64_t answer;
	bool connects;
} lies[] = {
	{ VHOST_USER_GET_FEATURES, 0, false },
	{ VHOST_USER_GET_FEATURES, BIT(VIRTIO_F_VERSION_1), false },
	{ VHOST_USER_GET_FEATURES, BIT(VHOST_USER_F_PROTOCOL_FEATURES), false },
	{ VHOST_USER_GET_PROTOCOL_FEATURES, 0, false }, /* no configuration space */
	{ VHOST_USER_GET_QUEUE_NUM, 0, false },
	{ VHOST_USER_GET_CONFIG, 1 | (uint64_t)PEER_CONFIG_SIZE << 32, false },
	{ VHOST_USER_GET_CONFIG, (uint64_t)(PEER_CONFIG_SIZE + 1) << 32, false },
	{ VHOST_USER_GET_CONFIG, UINT64_C(0xffffffff) << 32, false },
	{ VHOST_USER_GET_VRING_BASE, 0, true },                         /* another ring's */
	{ VHOST_USER_GET_VRING_BASE, 1 | UINT64_C(65536) << 32, true }, /* no 16 bits */
};

static void answers_that_cannot_be_are_the_end(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct peer peer = {
			.target = lies[i].request,
			.answers_otherwise = true,
			.answer = lies[i].answer,
		};
		int r = peer_connect(&peer);

		if (r != (lies[i].connects ? 0 : -EPROTO))
			fail_msg("lie %zu: %d", i, r);
		if (lies[i].connects) {
			assert_int_equal(peer_drive(&peer), -EPROTO);
			assert_lost(&peer);
		}
		peer_end(&peer);
	}
}

/* A request that is refused is no fault of form: the device lives. */
static void a_refusal_is_passed_on(void **state)
{
	static const uint32_t acknowledged[] = { VHOST_USER_SET_FEATURES, VHOST_USER_SET_MEM_TABLE,
		VHOST_USER_SET_VRING_ENABLE, VHOST_USER_SET_CONFIG, VHOST_USER_RESET_DEVICE };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(acknowledged); i++) {
		struct peer peer = {
			.target = acknowledged[i], .answers_otherwise = true, .answer = 22
		};

		assert_int_equal(peer_connect(&peer), 0);
		assert_int_equal(peer_drive(&peer), -EIO);
		assert_int_equal(peer.vhost->ops->handle_event(peer.vhost), 0);
		peer_end(&peer);
	}
}

/* The device, which would refuse it, does not hear of it. */
static void a_reset_with_nothing_to_undo_costs_nothing(void **state)
{
	struct peer peer = {
		.target = VHOST_USER_RESET_DEVICE,
		.answers_otherwise = true,
		.answer = 22,
	};

	(void)state;
	assert_int_equal(peer_connect(&peer), 0);
	const struct vhost_ops *ops = peer.vhost->ops;

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(ops->reset(peer.vhost), 0);
	assert_int_equal(ops->set_features(peer.vhost, BIT(VIRTIO_F_VERSION_1)), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(ops->reset(peer.vhost), -EIO);
	peer.answers_otherwise = false;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(ops->reset(peer.vhost), 0);
	peer_end(&peer);
}

/* The guest never sees features that our half would have to know of. */
static void features_are_cut_to_what_we_know(void **state)
{
	struct peer peer = {
		.target = VHOST_USER_GET_FEATURES,
		.answers_otherwise = true,
		.answer = UINT64_MAX,
	};
	uint64_t features = 0;

	(void)state;
	assert_int_equal(peer_connect(&peer), 0);
	assert_int_equal(peer.vhost->ops->get_features(peer.vhost, &features), 0);
	assert_int_equal(features & BIT(VHOST_USER_F_PROTOCOL_FEATURES), 0);
	assert_int_equal(features & BIT(VIRTIO_F_ACCESS_PLATFORM), 0);
	assert_int_equal(features & BIT(VIRTIO_F_RING_PACKED), 0);
	assert_int_equal(features & BIT(26), 0); /* VHOST_F_LOG_ALL */
	assert_int_equal(features & 0xffffff, 0xffffff);
	assert_int_equal(features & BIT(VIRTIO_F_VERSION_1), BIT(VIRTIO_F_VERSION_1));
	peer_end(&peer);
}

static void what_nobody_asked_for_is_the_end(void **state)
{
	const struct vhost_user_message good = {
		.request = VHOST_USER_GET_CONFIG,
		.flags = VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY,
	};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct peer peer = { .act = ACT_NONE };

		assert_int_equal(peer_connect(&peer), 0);
		if (i == 0)
			peer_send(&peer, &good);
		else
			peer_send_fds(&peer, &good, 253);
		assert_true(wait_readable(peer.vhost->ops->event_fd(peer.vhost), 20000));
		assert_int_equal(peer.vhost->ops->handle_event(peer.vhost), -EPROTO);
		assert_lost(&peer);
		peer_end(&peer);
	}
}

/* Once it is lost, a peer that goes on writing meets a closed door, not a full buffer of ours. */
static void a_flood_ends_with_the_device(void **state)
{
	struct peer peer = { .target = VHOST_USER_SET_MEM_TABLE, .act = ACT_JUNK };
	char byte = 0;

	(void)state;
	assert_int_equal(peer_connect(&peer), 0);
	assert_int_equal(peer_drive(&peer), -EPROTO);
	assert_lost(&peer);
	while (send(peer.rig.served.socket, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1)
		;
	assert_int_equal(errno, EPIPE);
	peer_end(&peer);
}

static void bad_descriptions_are_refused(void **state)
{
	struct vhost_user_peer bad[] = {
		{ .config_size = VHOST_USER_CONFIG_MAX + 1 },
		{ .queues = DEVICE_QUEUES_MAX + 1 },
		{ .known = &(const struct vhost_user_offer){ 0 } },
	};
	struct vhost *vhost;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct rig rig;

		rig_init(&rig);
		bad[i].socket = fd_steal(&rig.socket);
		assert_int_equal(vhost_user_frontend_create(&bad[i], rig.memory, &vhost), -EINVAL);
		rig_free(&rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_peer_is_driven),
		cmocka_unit_test(a_peer_that_knows_less_is_driven),
		cmocka_unit_test(a_peer_without_a_way_to_the_window_is_refused),
		cmocka_unit_test(a_peer_without_a_configuration_space_may_be_driven),
		cmocka_unit_test(the_configuration_space_of_such_a_peer_may_be_ours),
		cmocka_unit_test(no_more_of_the_configuration_is_asked_for_than_there_is),
		cmocka_unit_test(there_are_as_many_queues_as_the_device_needs),
		cmocka_unit_test(there_may_be_more_queues_than_we_use),
		cmocka_unit_test(a_disk_tells_of_the_queues_that_are_used),
		cmocka_unit_test(a_ring_comes_to_rest_before_one_that_drops_work),
		cmocka_unit_test(the_end_of_one_that_syncs_is_waited_for),
		cmocka_unit_test(every_fault_of_form_is_the_end),
		cmocka_unit_test(answers_that_cannot_be_are_the_end),
		cmocka_unit_test(a_refusal_is_passed_on),
		cmocka_unit_test(a_reset_with_nothing_to_undo_costs_nothing),
		cmocka_unit_test(features_are_cut_to_what_we_know),
		cmocka_unit_test(what_nobody_asked_for_is_the_end),
		cmocka_unit_test(a_flood_ends_with_the_device),
		cmocka_unit_test(bad_descriptions_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
