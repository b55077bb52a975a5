// SPDX-License-Identifier: BSD-3-Clause
/*
 * The kernel's command line at the limits of the kernel and of the buffer. What
 * the user gives comes last, and is one line of text.
 */
#include "unit/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "unit/capture.h"
#include "vm/cmdline.h"

enum { SIZE = 4096, PARAMS = 1000 };

/* How long it is without parameters, but with the space before them. */
static size_t length_around(void)
{
	const struct vm_config config = { .params = "x" };
	char line[SIZE];

	assert_int_equal(cmdline_make(&config, SIZE, line, sizeof(line)), 0);
	assert_string_equal(line + strlen(line) - 2, " x");
	return strlen(line) - 1;
}

/* What comes of a line of `length` bytes. */
static int make(uint64_t length, uint64_t max, size_t size)
{
	char params[PARAMS + 1], line[SIZE];
	const struct vm_config config = { .params = params };
	struct capture capture;
	size_t count = length - length_around();

	assert_in_range(count, 1, PARAMS);
	memset(params, 'p', count);
	params[count] = '\0';
	memset(line, 0x5a, sizeof(line));
	capture_begin(&capture);
	int r = cmdline_make(&config, max, line, size);

	capture_end(&capture);
	assert_int_equal(capture_lines(&capture), r < 0);
	assert_int_equal(line[size], 0x5a);
	if (r == 0)
		assert_int_equal(strlen(line), length);
	return r;
}

static void a_line_is_as_long_as_the_kernel_takes(void **state)
{
	(void)state;
	assert_int_equal(make(500, 501, SIZE - 1), 0);
	assert_int_equal(make(500, 500, SIZE - 1), 0);
	assert_int_equal(make(500, 499, SIZE - 1), -E2BIG);
	assert_int_equal(make(500, 0, SIZE - 1), -E2BIG);
	assert_int_equal(make(500, UINT64_MAX, SIZE - 1), 0);
}

/* With the NUL. */
static void a_line_fits_into_its_buffer(void **state)
{
	(void)state;
	assert_int_equal(make(500, SIZE, 502), 0);
	assert_int_equal(make(500, SIZE, 501), 0);
	assert_int_equal(make(500, SIZE, 500), -E2BIG);
	assert_int_equal(make(500, UINT64_MAX, 20), -E2BIG);
}

static void control_characters_are_refused(void **state)
{
	(void)state;
	for (unsigned c = 1; c < 256; c++) {
		const char params[] = { 'a', (char)c, 'b', '\0' };
		const struct vm_config config = { .params = params };
		char line[SIZE];
		struct capture capture;
		bool good = c >= ' ' && c != 0x7f;

		capture_begin(&capture);
		int r = cmdline_make(&config, SIZE, line, sizeof(line));

		capture_end(&capture);
		assert_int_equal(r, good ? 0 : -EINVAL);
		assert_int_equal(capture_lines(&capture), !good);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_is_as_long_as_the_kernel_takes),
		cmocka_unit_test(a_line_fits_into_its_buffer),
		cmocka_unit_test(control_characters_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
