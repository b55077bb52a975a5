// SPDX-License-Identifier: BSD-3-Clause
/*
 * base/log_limit: a burst, then a line an interval, whatever the pace of the
 * calls; what was left out is counted; threads that call at once get no more.
 */
#include "unit/unit.h"

#include <pthread.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/log_limit.h"
#include "unit/capture.h"

#define INTERVAL (LOG_LIMIT_INTERVAL_S * NS_PER_S)
/* An hour after the machine's start, and not at 0, which is where a budget begins. */
#define START (3600 * NS_PER_S)

static unsigned take_many(struct log_limit *limit, uint64_t now, unsigned count)
{
	unsigned taken = 0;
	unsigned left_out;

	for (unsigned i = 0; i < count; i++)
		taken += log_limit_take(limit, now, &left_out);
	return taken;
}

static void a_burst_and_no_more(void **state)
{
	struct log_limit limit = { 0 };
	unsigned left_out = 7;

	(void)state;
	for (unsigned i = 0; i < LOG_LIMIT_BURST; i++) {
		assert_true(log_limit_take(&limit, START, &left_out));
		assert_int_equal(left_out, 0);
	}
	left_out = 7;
	assert_false(log_limit_take(&limit, START, &left_out));
	assert_int_equal(left_out, 7);
}

static void one_an_interval_says_what_was_left_out(void **state)
{
	struct log_limit limit = { 0 };
	unsigned left_out;

	(void)state;
	assert_int_equal(take_many(&limit, START, LOG_LIMIT_BURST + 5), LOG_LIMIT_BURST);
	assert_false(log_limit_take(&limit, START + INTERVAL - 1, &left_out));
	assert_true(log_limit_take(&limit, START + INTERVAL, &left_out));
	assert_int_equal(left_out, 6);
	assert_false(log_limit_take(&limit, START + INTERVAL, &left_out));
	assert_true(log_limit_take(&limit, START + 2 * INTERVAL, &left_out));
	assert_int_equal(left_out, 1);
}

/* A million calls in ten minutes: the burst, and a line every interval. */
static void a_flood_is_bounded(void **state)
{
	struct log_limit limit = { 0 };
	unsigned taken = 0;

	(void)state;
	for (unsigned i = 0; i < 1000000; i++)
		taken += take_many(&limit, START + i * (600 * NS_PER_S / 1000000), 1);
	assert_in_range(taken, LOG_LIMIT_BURST + 600 / LOG_LIMIT_INTERVAL_S - 1,
		LOG_LIMIT_BURST + 600 / LOG_LIMIT_INTERVAL_S);
}

static void a_quiet_time_fills_the_budget(void **state)
{
	struct log_limit limit = { 0 };

	(void)state;
	assert_int_equal(take_many(&limit, START, 1000), LOG_LIMIT_BURST);
	assert_int_equal(
		take_many(&limit, START + LOG_LIMIT_BURST * INTERVAL, 1000), LOG_LIMIT_BURST);
	assert_int_equal(take_many(&limit, START + 3600 * NS_PER_S, 1000), LOG_LIMIT_BURST);
}

static void *take_in_a_thread(void *argument)
{
	return (void *)(uintptr_t)take_many(
		argument, START, 10000); // NOLINT: a number, not a place
}

static void threads_share_a_budget(void **state)
{
	struct log_limit limit = { 0 };
	pthread_t threads[4];
	uintptr_t taken = 0;
	unsigned left_out;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, take_in_a_thread, &limit), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		void *result;

		assert_int_equal(pthread_join(threads[i], &result), 0);
		taken += (uintptr_t)result;
	}
	assert_int_equal(taken, LOG_LIMIT_BURST);
	assert_true(log_limit_take(&limit, START + INTERVAL, &left_out));
	assert_int_equal(left_out, 4 * 10000 - LOG_LIMIT_BURST);
}

static void lines_are_warnings(void **state)
{
	struct log_limit limit = { 0 };
	struct capture capture;
	char text[64];

	(void)state;
	capture_begin(&capture);
	log_warn_limited(&limit, "queue %d", 5);
	for (unsigned i = 0; i < 100; i++)
		log_warn_limited(&limit, "queue %d", 6);
	/* As if the interval had passed. */
	limit.spent_until_ns = 0;
	log_warn_limited(&limit, "queue %d", 7);
	log_set_level(LOG_LEVEL_ERROR);
	log_warn_limited(&limit, "queue %d", 8);
	log_set_level(LOG_LEVEL_INFO);
	capture_end(&capture);
	assert_int_equal(capture_lines(&capture), LOG_LIMIT_BURST + 1);
	assert_int_equal(strncmp(capture.text, "crosvm: warning: queue 5\n", 25), 0);
	(void)snprintf(text, sizeof(text), "queue 7 (and %d such messages", 101 - LOG_LIMIT_BURST);
	assert_non_null(strstr(capture.text, text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_burst_and_no_more),
		cmocka_unit_test(one_an_interval_says_what_was_left_out),
		cmocka_unit_test(a_flood_is_bounded),
		cmocka_unit_test(a_quiet_time_fills_the_budget),
		cmocka_unit_test(threads_share_a_budget),
		cmocka_unit_test(lines_are_warnings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
