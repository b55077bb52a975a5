// SPDX-License-Identifier: BSD-3-Clause
/*
 * What is advised for an error: the limit that is in the way, and always
 * something for a file that cannot be opened.
 */
#include "unit.h"

#include <errno.h>
#include <string.h>

#include "base/advice.h"
#include "jail/advice.h"

static void a_limit_is_named(void **state)
{
	(void)state;
	assert_non_null(strstr(advice_limit(EMFILE), "ulimit -n"));
	assert_non_null(strstr(advice_limit(EAGAIN), "ulimit -u"));
	assert_non_null(strstr(advice_limit(ENFILE), "fs.file-max"));
	assert_non_null(strstr(advice_limit(ENOMEM), "ulimit -d"));
	assert_null(advice_limit(EPERM));
	assert_null(advice_limit(0));
	/* In a jail as well; nothing of the host's forbids it. */
	assert_string_equal(jail_advice("/proc/sys", EMFILE), advice_limit(EMFILE));
	assert_string_not_equal(jail_advice("/proc/sys", EPERM), advice_limit(EMFILE));
}

static void a_file_has_always_some_advice(void **state)
{
	(void)state;
	for (int error = 1; error < 134; error++)
		assert_non_null(advice_open(error));
	assert_string_equal(advice_open(ENOENT), "check the path");
	assert_string_equal(advice_open(EMFILE), advice_limit(EMFILE));
	assert_non_null(strstr(advice_open(EACCES), "owner"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_limit_is_named),
		cmocka_unit_test(a_file_has_always_some_advice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
