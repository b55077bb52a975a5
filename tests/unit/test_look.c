// SPDX-License-Identifier: BSD-3-Clause
/* How long a queue's thread looks for its driver: by a clock that really goes. */
#include "unit.h"

#include <poll.h>

#include "virtio/look.h"

/* A wait that is over at once, or only after a while. Whether there was a look. */
static bool wait_once(struct look *look, bool is_long)
{
	bool looks = look_begin(look);

	if (is_long)
		(void)poll(NULL, 0, 1);
	look_end(look);
	return looks;
}

static void until_one_is_measured(struct look *look, bool is_long)
{
	for (unsigned i = 0; i < LOOK_WAITS_A_MEASURE; i++)
		assert_false(wait_once(look, is_long));
}

static void nobody_is_looked_for_who_comes_late(void **state)
{
	struct look look = { 0 };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		until_one_is_measured(&look, true);
		assert_int_equal(look.ns, 0);
	}
}

/* Other work of the machine may make a wait long: then it begins anew. */
static void grow(struct look *look, uint64_t ns)
{
	for (unsigned i = 0; i < 100000 && look->ns != ns; i++)
		(void)wait_once(look, false);
	assert_int_equal(look->ns, ns);
}

static void the_time_grows_while_waits_are_short(void **state)
{
	struct look look = { 0 };

	(void)state;
	for (uint64_t ns = LOOK_MIN_NS; ns <= LOOK_MAX_NS; ns *= 2)
		grow(&look, ns);
	(void)wait_once(&look, false);
	assert_true(look.ns <= LOOK_MAX_NS);
}

/* A pause is no end of it, unless it is one of many. */
static void long_waits_end_it(void **state)
{
	struct look look = { 0 };

	(void)state;
	grow(&look, LOOK_MAX_NS);
	assert_true(wait_once(&look, true));
	assert_int_equal(look.ns, LOOK_MAX_NS / 4);
	assert_true(wait_once(&look, true));
	assert_int_equal(look.ns, 0);
	assert_false(wait_once(&look, false));
}

/* However long it takes until the finder is on again. */
static void what_is_found_is_looked_for_longer(void **state)
{
	struct look look = { 0 };

	(void)state;
	grow(&look, LOOK_MIN_NS);
	for (uint64_t ns = LOOK_MIN_NS * 2; ns <= LOOK_MAX_NS * 2; ns *= 2) {
		assert_true(look_begin(&look));
		look_found(&look);
		(void)poll(NULL, 0, 1);
		look_end(&look);
		assert_int_equal(look.ns, min_u64(ns, LOOK_MAX_NS));
	}
}

static void a_look_ends(void **state)
{
	struct look look = { 0 };

	(void)state;
	grow(&look, LOOK_MIN_NS);
	assert_true(look_begin(&look));
	while (!look_is_over(&look))
		;
	assert_true(clock_monotonic_ns() - look.begin_ns >= LOOK_MIN_NS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_is_looked_for_who_comes_late),
		cmocka_unit_test(the_time_grows_while_waits_are_short),
		cmocka_unit_test(long_waits_end_it),
		cmocka_unit_test(what_is_found_is_looked_for_longer),
		cmocka_unit_test(a_look_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
