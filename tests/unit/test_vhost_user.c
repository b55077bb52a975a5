// SPDX-License-Identifier: BSD-3-Clause
/*
 * Both ends of vhost-user with a device in between: what the contract promises
 * holds across the socket, a driver's requests are served, a driver's mistakes
 * cost nothing but its own device, and the end of either side is noticed.
 */
#include "unit/unit.h"

#include <errno.h>

#include "unit/vhost_user_rig.h"

#define BIT(n)   (UINT64_C(1) << (n))
#define ACCEPTED (BIT(VIRTIO_F_VERSION_1) | 0x10)

struct pair {
	struct rig rig;
	struct vhost *vhost; /* the front end */
};

static struct vhost_user_peer copier_peer(struct rig *rig)
{
	return (struct vhost_user_peer){
		.name = "copier",
		.socket = fd_steal(&rig->socket),
		.queue_size = SIZE,
		.config_size = CONFIG_SIZE,
		.control_size = CONTROL_SIZE,
		.takes_changes = true,
	};
}

static int make_pair(void **state)
{
	static struct pair pair;
	struct rig *rig = &pair.rig;

	rig_init(rig);
	rig_serve_copier(rig);
	const struct vhost_user_peer peer = copier_peer(rig);

	assert_int_equal(vhost_user_frontend_create(&peer, rig->memory, &pair.vhost), 0);
	assert_int_equal(pair.vhost->ops->set_error_fd(pair.vhost, rig->error_fd), 0);
	*state = &pair;
	return 0;
}

static int free_pair(void **state)
{
	struct pair *pair = *state;

	pair->vhost->ops->free(pair->vhost);
	assert_int_equal(end_serving(&pair->rig.served), 0);
	assert_int_equal(pair->rig.device.frees, 1);
	assert_int_equal(pair->rig.device.starts, pair->rig.device.stops);
	rig_free(&pair->rig);
	return 0;
}

static int start(struct pair *pair, unsigned index, uint16_t base)
{
	struct vhost_ring ring = rig_ring(&pair->rig);

	ring.base = base;
	int r = pair->vhost->ops->set_vring(pair->vhost, index, &ring);

	return r != 0 ? r : pair->vhost->ops->start_vring(pair->vhost, index);
}

static int stop(struct pair *pair, unsigned index, uint16_t *ret_base)
{
	return pair->vhost->ops->stop_vring(pair->vhost, index, ret_base);
}

static void features_and_queues_come_across(void **state)
{
	struct pair *pair = *state;
	uint64_t features = 0;

	assert_int_equal(pair->vhost->ops->get_features(pair->vhost, &features), 0);
	assert_int_equal(features, BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) |
					   BIT(VIRTIO_RING_F_EVENT_IDX) | 0x30);
	assert_int_equal(pair->vhost->ops->queue_count(pair->vhost), QUEUES);
	assert_int_equal(pair->vhost->ops->set_features(pair->vhost, BIT(1)), -EINVAL);
}

/* The same, of a device that is met before anything serves it. */
static int make_known_pair(void **state)
{
	static struct pair pair;
	struct rig *rig = &pair.rig;

	rig_init(rig);
	struct vhost_user_peer peer = copier_peer(rig);
	const struct vhost_user_offer offer = {
		.features = copier_features(&rig->device) | VHOST_RING_FEATURES,
		.config = rig->device.config,
	};

	peer.queues = QUEUES;
	peer.known = &offer;
	assert_int_equal(vhost_user_frontend_create(&peer, rig->memory, &pair.vhost), 0);
	features_and_queues_come_across((void **)&(struct pair *){ &pair });
	rig_serve_copier(rig);
	assert_int_equal(pair.vhost->ops->set_error_fd(pair.vhost, rig->error_fd), 0);
	*state = &pair;
	return 0;
}

static void requests_are_served(void **state)
{
	struct pair *pair = *state;
	uint16_t base = 0;

	assert_int_equal(pair->vhost->ops->set_features(pair->vhost, ACCEPTED), 0);
	offer_copy(&pair->rig, 0, 0x11); /* before it runs */
	assert_int_equal(start(pair, 1, 0), 0);
	wait_for_used(&pair->rig, 1);
	for (uint16_t i = 1; i < 100; i++) {
		offer_copy(&pair->rig, i % 4, (uint8_t)i);
		wait_for_used(&pair->rig, (uint16_t)(i + 1));
		assert_true(is_copied(&pair->rig, i % 4));
	}
	assert_int_equal(pair->rig.device.features, ACCEPTED);
	assert_int_equal(start(pair, 1, 0), -EINVAL); /* it runs */
	assert_int_equal(pair->vhost->ops->set_features(pair->vhost, ACCEPTED), -EINVAL);
	assert_int_equal(stop(pair, 1, &base), 0);
	assert_int_equal(base, 100);
	assert_int_equal(stop(pair, 1, &base), -EINVAL);
}

static void a_ring_goes_on_where_it_stopped(void **state)
{
	struct pair *pair = *state;
	uint16_t base = 0;

	assert_int_equal(pair->vhost->ops->set_features(pair->vhost, ACCEPTED), 0);
	assert_int_equal(start(pair, 0, 0), 0);
	offer_copy(&pair->rig, 0, 1);
	wait_for_used(&pair->rig, 1);
	assert_int_equal(stop(pair, 0, &base), 0);
	(void)fd_take_event(pair->rig.call_fd);
	offer_copy(&pair->rig, 1, 2);
	assert_false(wait_readable(pair->rig.call_fd, 50));
	assert_int_equal(start(pair, 0, base), 0);
	wait_for_used(&pair->rig, 2);
	assert_true(is_copied(&pair->rig, 1));
}

static void a_reset_lets_another_driver_begin(void **state)
{
	struct pair *pair = *state;
	uint16_t base;

	for (unsigned round = 0; round < 3; round++) {
		driver_init(&pair->rig.driver, pair->rig.memory, SIZE);
		assert_int_equal(pair->vhost->ops->set_features(pair->vhost, ACCEPTED), 0);
		assert_int_equal(start(pair, 0, 0), 0);
		offer_copy(&pair->rig, 0, (uint8_t)(round + 1));
		wait_for_used(&pair->rig, 1);
		assert_true(is_copied(&pair->rig, 0));
		assert_int_equal(stop(pair, 0, &base), 0);
		assert_int_equal(pair->vhost->ops->reset(pair->vhost), 0);
	}
	assert_int_equal(pair->rig.device.starts, 3);
	assert_int_equal(pair->rig.device.stops, 3);
}

static void the_configuration_space_is_read_and_written(void **state)
{
	struct pair *pair = *state;
	const struct vhost_ops *ops = pair->vhost->ops;
	uint8_t data[CONFIG_SIZE] = { 0 };

	assert_int_equal(ops->set_config(pair->vhost, 4, (const uint8_t *)"xy", 2), 0);
	assert_int_equal(ops->get_config(pair->vhost, 0, data, CONFIG_SIZE), 0);
	assert_memory_equal(data, "\0\0\0\0xy", CONFIG_SIZE);
	assert_int_equal(ops->get_config(pair->vhost, 5, data, 1), 0);
	assert_int_equal(data[0], 'y');
	assert_int_equal(
		ops->get_config(pair->vhost, CONFIG_SIZE, data, CONTROL_SIZE + 1), -EINVAL);
	assert_int_equal(ops->get_config(pair->vhost, UINT32_MAX, data, 2), -EINVAL);
	assert_int_equal(ops->set_config(pair->vhost, 6, data, 1), -EINVAL);
	assert_int_equal(ops->set_config(pair->vhost, 1, data, UINT32_MAX), -EINVAL);
}

static void the_vmm_has_a_part_of_its_own(void **state)
{
	struct pair *pair = *state;
	const struct vhost_ops *ops = pair->vhost->ops;
	uint8_t data[CONTROL_SIZE] = { 0 };

	assert_int_equal(ops->change_config(pair->vhost, 1, (const uint8_t *)"a", 1), 0);
	assert_int_equal(ops->get_config(pair->vhost, 1, data, 1), 0);
	assert_int_equal(data[0], 'a');
	assert_int_equal(
		ops->change_config(pair->vhost, CONFIG_SIZE, (const uint8_t *)"wxyz", 4), 0);
	assert_int_equal(ops->get_config(pair->vhost, CONFIG_SIZE, data, CONTROL_SIZE), 0);
	assert_memory_equal(data, "wxyz", CONTROL_SIZE);
	/* What the device changes there is seen at once. */
	pair->rig.device.config[CONFIG_SIZE] = '!';
	assert_int_equal(ops->get_config(pair->vhost, CONFIG_SIZE, data, 1), 0);
	assert_int_equal(data[0], '!');
	/* Refused, and it says why. */
	assert_int_equal(ops->change_config(pair->vhost, 0, (const uint8_t *)"\377", 1), -EINVAL);
	assert_int_equal(ops->change_config(pair->vhost, CONFIG_SIZE, data, 5), -EINVAL);
	assert_int_equal(ops->get_config(pair->vhost, 0, data, 1), 0); /* the connection is well */
}

/* The copy here is renewed after start, stop and reset, when a device may change it. */
static void the_configuration_space_is_not_stale(void **state)
{
	struct pair *pair = *state;
	const struct vhost_ops *ops = pair->vhost->ops;
	uint8_t byte = 0;
	uint16_t base;

	assert_int_equal(ops->get_config(pair->vhost, 0, &byte, 1), 0);
	pair->rig.device.config[0] = 1; /* no request is on its way */
	assert_int_equal(ops->get_config(pair->vhost, 0, &byte, 1), 0);
	assert_int_equal(byte, 0); /* answered without a message */
	assert_int_equal(ops->set_features(pair->vhost, ACCEPTED), 0);
	assert_int_equal(start(pair, 0, 0), 0);
	assert_int_equal(ops->get_config(pair->vhost, 0, &byte, 1), 0);
	assert_int_equal(byte, 1);
	assert_int_equal(stop(pair, 0, &base), 0);
	pair->rig.device.config[0] = 2;
	assert_int_equal(ops->get_config(pair->vhost, 0, &byte, 1), 0);
	assert_int_equal(byte, 2);
	pair->rig.device.config[0] = 3;
	assert_int_equal(ops->reset(pair->vhost), 0);
	assert_int_equal(ops->get_config(pair->vhost, 0, &byte, 1), 0);
	assert_int_equal(byte, 3);
}

static void a_badly_placed_ring_hurts_nobody(void **state)
{
	struct pair *pair = *state;
	struct vhost_ring good = rig_ring(&pair->rig);

	assert_int_equal(pair->vhost->ops->set_features(pair->vhost, ACCEPTED), 0);
	for (unsigned i = 0; i < 5; i++) {
		struct vhost_ring bad = good;

		*(i == 0         ? &bad.desc
			: i == 1 ? &bad.avail
				 : &bad.used) = i < 3 ? LOW_SIZE - 8 : good.used;
		bad.size = i == 3 ? 3 : i == 4 ? SIZE * 2 : SIZE;
		assert_int_equal(pair->vhost->ops->set_vring(pair->vhost, 0, &bad), -EINVAL);
	}
	assert_int_equal(pair->vhost->ops->set_vring(pair->vhost, QUEUES, &good), -EINVAL);
	assert_int_equal(start(pair, 0, 0), 0);
	offer_copy(&pair->rig, 0, 1);
	wait_for_used(&pair->rig, 1);
}

static void a_broken_ring_is_told_of_and_can_be_used_again(void **state)
{
	struct pair *pair = *state;
	uint16_t base;

	assert_int_equal(pair->vhost->ops->set_features(pair->vhost, ACCEPTED), 0);
	assert_int_equal(start(pair, 0, 0), 0);
	driver_offer(&pair->rig.driver, SIZE); /* no such descriptor */
	assert_int_equal(eventfd_write(pair->rig.kick_fd, 1), 0);
	assert_true(wait_readable(pair->rig.error_fd, 20000));
	assert_int_equal(stop(pair, 0, &base), 0);
	assert_int_equal(pair->vhost->ops->reset(pair->vhost), 0);
	driver_init(&pair->rig.driver, pair->rig.memory, SIZE);
	assert_int_equal(pair->vhost->ops->set_features(pair->vhost, ACCEPTED), 0);
	assert_int_equal(start(pair, 0, 0), 0);
	offer_copy(&pair->rig, 0, 1);
	wait_for_used(&pair->rig, 1);
}

/* The device is told to stop by its stop_fd: to the front end that is a hang-up. */
static void a_device_that_goes_is_noticed(void **state)
{
	struct rig rig;
	struct vhost *vhost;

	(void)state;
	rig_init(&rig);
	rig.served.stop_fd = eventfd(0, EFD_CLOEXEC);
	rig_serve_copier(&rig);
	const struct vhost_user_peer peer = copier_peer(&rig);

	assert_int_equal(vhost_user_frontend_create(&peer, rig.memory, &vhost), 0);
	assert_int_equal(vhost->ops->handle_event(vhost), 0);
	assert_int_equal(eventfd_write(rig.served.stop_fd, 1), 0);
	assert_int_equal(end_serving(&rig.served), 0);
	assert_true(wait_readable(vhost->ops->event_fd(vhost), 0));
	assert_int_equal(vhost->ops->handle_event(vhost), -ENOTCONN);
	assert_int_equal(vhost->ops->set_features(vhost, ACCEPTED), -ENOTCONN);
	vhost->ops->free(vhost);
	fd_close(&rig.served.stop_fd);
	rig_free(&rig);
}

/* Rings that run when the front end goes are stopped, and the next front end finds a new device. */
static void one_front_end_after_the_other(void **state)
{
	struct pair pair;
	struct rig *rig = &pair.rig;

	(void)state;
	rig_init(rig);
	assert_int_equal(
		vhost_thread_create(&copier_ops, &rig->device, NULL, &rig->served.vhost), 0);
	for (unsigned round = 1; round <= 3; round++) {
		if (round > 1)
			make_sockets(&rig->socket, &rig->served.socket);
		driver_init(&rig->driver, rig->memory, SIZE);
		start_serving(&rig->served);
		const struct vhost_user_peer peer = copier_peer(rig);

		assert_int_equal(vhost_user_frontend_create(&peer, rig->memory, &pair.vhost), 0);
		assert_int_equal(pair.vhost->ops->set_features(pair.vhost, ACCEPTED), 0);
		assert_int_equal(start(&pair, 0, 0), 0);
		offer_copy(rig, 0, (uint8_t)round);
		wait_for_used(rig, 1);
		/* Dies without a word: only the socket's end tells. */
		assert_int_equal(shutdown(pair.vhost->ops->event_fd(pair.vhost), SHUT_RDWR), 0);
		pthread_join(rig->served.thread, NULL);
		assert_int_equal(rig->served.result, 0);
		pair.vhost->ops->free(pair.vhost);
		assert_int_equal(rig->device.starts, round);
		assert_int_equal(rig->device.stops, round);
	}
	rig->served.vhost->ops->free(rig->served.vhost);
	rig_free(rig);
}

static void a_real_device_fills_real_buffers(void **state)
{
	static const uint8_t zeroes[DATA_SIZE];
	struct pair pair;
	struct device *device;

	(void)state;
	rig_init(&pair.rig);
	assert_int_equal(rng_device_class.open(NULL, &device), 0);
	pair.rig.served.name = "rng";
	assert_int_equal(
		vhost_thread_create(rng_device_class.ops, device, NULL, &pair.rig.served.vhost), 0);
	start_serving(&pair.rig.served);
	const struct vhost_user_peer peer = {
		.name = "rng",
		.socket = fd_steal(&pair.rig.socket),
		.queue_size = rng_device_class.ops->queue_size,
		.queues = 1,
	};

	assert_int_equal(vhost_user_frontend_create(&peer, pair.rig.memory, &pair.vhost), 0);
	assert_int_equal(pair.vhost->ops->set_features(pair.vhost, BIT(VIRTIO_F_VERSION_1)), 0);
	assert_int_equal(start(&pair, 0, 0), 0);
	driver_put(&pair.rig.driver, 0, HIGH_GPA, DATA_SIZE, VRING_DESC_F_WRITE, 0);
	driver_offer(&pair.rig.driver, 0);
	assert_int_equal(eventfd_write(pair.rig.kick_fd, 1), 0);
	wait_for_used(&pair.rig, 1);
	assert_int_equal(driver_used_length(&pair.rig.driver, 0), DATA_SIZE);
	assert_memory_not_equal(
		guest_memory_at(pair.rig.memory, HIGH_GPA, DATA_SIZE), zeroes, DATA_SIZE);
	pair.vhost->ops->free(pair.vhost);
	assert_int_equal(end_serving(&pair.rig.served), 0);
	rig_free(&pair.rig);
}

#define pair_test(function) cmocka_unit_test_setup_teardown(function, make_pair, free_pair)

int main(void)
{
	const struct CMUnitTest tests[] = {
		pair_test(features_and_queues_come_across),
		pair_test(requests_are_served),
		{ "requests_of_a_known_device_are_served", requests_are_served, make_known_pair,
			free_pair, NULL },
		pair_test(a_ring_goes_on_where_it_stopped),
		pair_test(a_reset_lets_another_driver_begin),
		pair_test(the_configuration_space_is_read_and_written),
		pair_test(the_vmm_has_a_part_of_its_own),
		pair_test(the_configuration_space_is_not_stale),
		pair_test(a_badly_placed_ring_hurts_nobody),
		pair_test(a_broken_ring_is_told_of_and_can_be_used_again),
		cmocka_unit_test(a_device_that_goes_is_noticed),
		cmocka_unit_test(one_front_end_after_the_other),
		cmocka_unit_test(a_real_device_fills_real_buffers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
