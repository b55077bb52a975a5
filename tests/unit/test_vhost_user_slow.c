// SPDX-License-Identifier: BSD-3-Clause
/*
 * A device process that takes its time: it does not answer at all, a byte now
 * and then, each time at the last moment, or it stops reading. The front half
 * waits no longer than the credit, in sum, and then never again. All at once,
 * because each needs seconds.
 */
#include "unit/unit.h"

#include "unit/vhost_user_peer.h"

enum { CREDIT_MS = VHOST_USER_CREDIT_MS, MARGIN_MS = 10000 };

struct slow {
	const char *name;
	struct peer peer;
	bool fails_to_connect;
	unsigned rounds; /* how often it is driven, at most */
	int expected;
	/* What came of it. */
	int result;
	uint64_t took_ms, after_ms;
	pthread_t thread;
};

static struct slow cases[] = {
	{ "silent from the start", { .target = VHOST_USER_GET_FEATURES, .act = ACT_SILENT }, true,
		1, -ETIMEDOUT },
	{ "silent at its start", { .target = VHOST_USER_SET_VRING_ENABLE, .act = ACT_SILENT },
		false, 1, -ETIMEDOUT },
	{ "silent at its stop", { .target = VHOST_USER_GET_VRING_BASE, .act = ACT_SILENT }, false,
		1, -ETIMEDOUT },
	{ "a byte now and then", { .target = VHOST_USER_SET_FEATURES, .act = ACT_DRIP }, false, 1,
		-ETIMEDOUT },
	/* Each answer alone would be in time. */
	{ "slow at everything", { .target = VHOST_USER_GET_VRING_BASE, .act = ACT_SLOW }, false, 9,
		-ETIMEDOUT },
	/* Nothing is waited for, until the socket is full. */
	{ "reads no more",
		{ .target = VHOST_USER_SET_CONFIG,
			.act = ACT_STOP_READING,
			.protocol = BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) },
		false, 1, -ETIMEDOUT },
};

/* Config writes until one fails. */
static int write_without_end(struct peer *peer)
{
	uint8_t byte = 1;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < 1000000; i++)
		r = peer->vhost->ops->set_config(peer->vhost, 0, &byte, 1);
	return r;
}

static int drive(struct slow *slow)
{
	struct peer *peer = &slow->peer;
	int r = peer_meet(peer);

	if (slow->fails_to_connect || r < 0)
		return r;
	for (unsigned i = 0; r == 0 && i < slow->rounds; i++)
		r = peer->act == ACT_STOP_READING ? write_without_end(peer) : peer_drive(peer);
	return r;
}

static void *run_case(void *argument)
{
	struct slow *slow = argument;
	uint64_t before = clock_monotonic_ns();

	slow->result = drive(slow);
	uint64_t between = clock_monotonic_ns();

	slow->took_ms = (between - before) / NS_PER_MS;
	for (unsigned i = 0; slow->peer.vhost != NULL && i < 1000; i++)
		(void)peer_drive(&slow->peer);
	slow->after_ms = (clock_monotonic_ns() - between) / NS_PER_MS;
	return NULL;
}

static void nobody_is_waited_for_longer_than_the_credit(void **state)
{
	unsigned fds_before = count_fds();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		rig_init(&cases[i].peer.rig);
		peer_start(&cases[i].peer);
		assert_int_equal(pthread_create(&cases[i].thread, NULL, run_case, &cases[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct slow *slow = &cases[i];

		pthread_join(slow->thread, NULL);
		if (slow->result != slow->expected || slow->took_ms < CREDIT_MS - 100 ||
			slow->took_ms > CREDIT_MS + MARGIN_MS || slow->after_ms > CREDIT_MS - 500)
			fail_msg("%s: %d after %lu ms, then %lu ms", slow->name, slow->result,
				slow->took_ms, slow->after_ms);
	}
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		peer_release(&cases[i].peer);
	assert_int_equal(count_fds(), fds_before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_is_waited_for_longer_than_the_credit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
