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

void log_message(enum log_level level, const char *format, ...)
{
	char line[1024];
	va_list args;

	if (!log_enabled(level))
		return;
	int prefix = snprintf(line, sizeof(line), "%s", levels[level].prefix);
	va_start(args, format);
	int body = vsnprintf(line + prefix, sizeof(line) - (size_t)prefix - 1, format, args);
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
