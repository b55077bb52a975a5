// SPDX-License-Identifier: BSD-3-Clause
/*
 * base/decimal: what is written is read again, of every length; what is no
 * number is none, and leaves everything as it was.
 */
#include "unit/unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/decimal.h"

static void numbers_are_read(void **state)
{
	static const struct {
		const char *text;
		int64_t number;
		size_t length;
	} numbers[] = {
		{ "0", 0, 1 },
		{ "7 8", 7, 1 },
		{ "-1000\n", -1000, 5 },
		{ "007x", 7, 3 },
		{ "-0", 0, 2 },
		{ "999999999999999999", 999999999999999999, 18 },
		{ "-999999999999999999.", -999999999999999999, 19 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		const char *at = numbers[i].text;
		int64_t number;

		assert_true(decimal_take(&at, &number));
		assert_int_equal(number, numbers[i].number);
		assert_ptr_equal(at, numbers[i].text + numbers[i].length);
	}
}

static void what_is_none_changes_nothing(void **state)
{
	static const char *const texts[] = { "", "-", " 1", "+1", "x", "--1", "/", ":",
		"1000000000000000000", "-00000000000000000000000001" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		const char *at = texts[i];
		int64_t number = 42;

		assert_false(decimal_take(&at, &number));
		assert_ptr_equal(at, texts[i]);
		assert_int_equal(number, 42);
	}
}

static void numbers_are_written_as_printf_does(void **state)
{
	int64_t number = 0;

	(void)state;
	for (unsigned digits = 0; digits < 20; digits++) {
		const int64_t near[] = { number, number - 1, -number, 1 - number, INT64_MAX,
			INT64_MIN };

		for (size_t i = 0; i < ARRAY_SIZE(near); i++) {
			char text[DECIMAL_SIZE], expected[32];
			const char *end = decimal_put(text, near[i]);

			snprintf(expected, sizeof(expected), "%" PRId64, near[i]);
			assert_string_equal(text, expected);
			assert_ptr_equal(end, text + strlen(expected));
		}
		number = number == 0 ? 1 : digits < 19 ? number * 10 : number;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_read),
		cmocka_unit_test(what_is_none_changes_nothing),
		cmocka_unit_test(numbers_are_written_as_printf_does),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
