// SPDX-License-Identifier: BSD-3-Clause
/*
 * base/log: levels, one write a line, and that nothing which a guest supplies
 * can move the terminal's cursor. Stderr is a packet pipe while a test logs,
 * so each write(2) is seen as it was made.
 */
#include "unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

/* The next write to stderr, "" when there was none. */
static const char *logged(int fd)
{
	static char line[4096];
	ssize_t n = read(fd, line, sizeof(line) - 1);

	line[n > 0 ? n : 0] = '\0';
	return line;
}

static int real_stderr = -1;

static int redirect_stderr(void **state)
{
	static int reader;
	int fds[2];

	if (pipe2(fds, O_DIRECT | O_NONBLOCK | O_CLOEXEC) < 0)
		return -1;
	real_stderr = dup(STDERR_FILENO);
	dup2(fds[1], STDERR_FILENO);
	close(fds[1]);
	reader = fds[0];
	*state = &reader;
	log_set_level(LOG_LEVEL_INFO);
	return 0;
}

static int restore_stderr(void **state)
{
	fd_close(*state);
	dup2(real_stderr, STDERR_FILENO);
	fd_close(&real_stderr);
	return 0;
}

static void levels_above_the_chosen_one_are_dropped(void **state)
{
	int *fd = *state;

	log_error("e");
	log_warn("w");
	log_info("i");
	log_debug("d");
	assert_string_equal(logged(*fd), "crosvm: e\n");
	assert_string_equal(logged(*fd), "crosvm: warning: w\n");
	assert_string_equal(logged(*fd), "crosvm: i\n");
	assert_string_equal(logged(*fd), "");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("d");
	assert_string_equal(logged(*fd), "crosvm: debug: d\n");
	log_set_level(LOG_LEVEL_ERROR);
	log_warn("w");
	assert_string_equal(logged(*fd), "");
	assert_true(log_enabled(LOG_LEVEL_ERROR));
	assert_false(log_enabled(LOG_LEVEL_WARN));
}

static void a_message_is_one_write_with_its_arguments(void **state)
{
	int *fd = *state;

	log_error("%s: %d of %u", "disk", -1, 2U);
	assert_string_equal(logged(*fd), "crosvm: disk: -1 of 2\n");
	assert_string_equal(logged(*fd), "");
}

static void control_characters_never_reach_the_terminal(void **state)
{
	int *fd = *state;

	log_error("%s", "a\033[2Jb\nc\rd\te\177f");
	assert_string_equal(logged(*fd), "crosvm: a?[2Jb?c?d?e?f\n");
	/* UTF-8 of a file's name passes. */
	log_error("%s", "gr\xc3\xbc\xc3\x9f");
	assert_string_equal(logged(*fd), "crosvm: gr\xc3\xbc\xc3\x9f\n");
}

static void a_long_message_is_cut_and_still_one_line(void **state)
{
	static char text[8192];
	int *fd = *state;

	memset(text, 'x', sizeof(text) - 1);
	log_error("%s", text);
	const char *line = logged(*fd);
	size_t length = strlen(line);

	assert_true(length > 512 && length <= 1024);
	assert_int_equal(line[length - 1], '\n');
	assert_int_equal(line[length - 2], 'x');
	assert_string_equal(logged(*fd), "");
}

/* What is wrong is told at the end, behind a path that may be long. */
static void a_long_message_keeps_its_end(void **state)
{
	static char text[5000];
	int *fd = *state;

	memset(text, 'x', sizeof(text) - 1);
	log_error("cannot open '%s': %s; %s", text, "too long", "pass another");
	const char *line = logged(*fd);

	assert_int_equal(strncmp(line, "crosvm: cannot open 'xxx", 24), 0);
	assert_non_null(strstr(line, "xxx...xxx"));
	assert_non_null(strstr(line, "xxx': too long; pass another\n"));
	assert_int_equal(strlen(line), 1024 - 1);
}

static void level_names_are_parsed(void **state)
{
	static const struct {
		const char *text;
		enum log_level level;
	} names[] = {
		{ "error", LOG_LEVEL_ERROR },
		{ "warn", LOG_LEVEL_WARN },
		{ "info", LOG_LEVEL_INFO },
		{ "debug", LOG_LEVEL_DEBUG },
	};
	static const char *const bad[] = { "", "warning", "Info", "debug ", "3" };
	enum log_level level;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(log_level_parse(names[i].text, &level), 0);
		assert_int_equal(level, names[i].level);
	}
	level = LOG_LEVEL_WARN;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(log_level_parse(bad[i], &level), -EINVAL);
	assert_int_equal(level, LOG_LEVEL_WARN);
}

static void a_closed_stderr_is_survived(void **state)
{
	(void)state;
	close(STDERR_FILENO);
	log_error("nobody hears this");
}

#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, redirect_stderr, restore_stderr)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOG_TEST(levels_above_the_chosen_one_are_dropped),
		LOG_TEST(a_message_is_one_write_with_its_arguments),
		LOG_TEST(control_characters_never_reach_the_terminal),
		LOG_TEST(a_long_message_keeps_its_end),
		LOG_TEST(a_long_message_is_cut_and_still_one_line),
		LOG_TEST(a_closed_stderr_is_survived),
		cmocka_unit_test(level_names_are_parsed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
