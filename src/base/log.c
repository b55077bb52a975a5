// SPDX-License-Identifier: BSD-3-Clause
/*
 * One line a message, one write(2) a line. Guests and files may supply parts
 * of a message, so control characters are replaced before it is written.
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum log_level max_level = LOG_LEVEL_INFO;

static const struct {
	const char *name;
	const char *prefix;
} levels[LOG_LEVELS] = {
	[LOG_LEVEL_ERROR] = { "error", "crosvm: " },
	[LOG_LEVEL_WARN] = { "warn", "crosvm: warning: " },
	[LOG_LEVEL_INFO] = { "info", "crosvm: " },
	[LOG_LEVEL_DEBUG] = { "debug", "crosvm: debug: " },
};

void log_set_level(enum log_level level)
{
	max_level = level;
}

bool log_enabled(enum log_level level)
{
	return level <= max_level;
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
	for (unsigned i = 0; i < LOG_LEVELS; i++) {
		if (strcmp(text, levels[i].name) == 0) {
			*ret_level = i;
			return 0;
		}
	}
	return -EINVAL;
}

enum { LINE_SIZE = 1024, TEXT_SIZE = 8192, HEAD_SIZE = 256 };

/*
 * A message that is too long has a long path in it, mostly: its middle goes, for the end tells
 * what is wrong. Writes `size` bytes at most.
 */
__attribute__((format(printf, 3, 0))) static COLD void shorten(
	char *line, size_t size, const char *format, va_list args)
{
	char text[TEXT_SIZE];

	(void)vsnprintf(text, sizeof(text), format, args);
	size_t tail = size - HEAD_SIZE - sizeof("...");

	snprintf(line, size, "%.*s...%s", HEAD_SIZE, text, text + strlen(text) - tail);
}

void log_message(enum log_level level, const char *format, ...)
{
	char line[LINE_SIZE];
	va_list args, again;

	if (!log_enabled(level))
		return;
	int prefix = snprintf(line, sizeof(line), "%s", levels[level].prefix);
	char *text = line + prefix;
	size_t size = sizeof(line) - (size_t)prefix - 1;

	va_start(args, format);
	va_copy(again, args);
	int body = vsnprintf(text, size, format, args);

	if (body >= 0 && (size_t)body >= size)
		shorten(text, size, format, again);
	va_end(again);
	va_end(args);
	if (body < 0)
		return;
	size_t length = strlen(line);
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)line[i];

		if (c < ' ' || c == 0x7f)
			line[i] = '?';
	}
	line[length++] = '\n';
	/* Nothing can be done about a stderr that fails. */
	(void)!write(STDERR_FILENO, line, length);
}
