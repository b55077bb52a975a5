/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages for the person who runs crosvm, on stderr.
 *
 * A message is one line, "crosvm: what failed: why; what to do". Each is one
 * write(2), so lines of several threads and processes never mix. Any thread
 * may log; the level is set once, before the first thread starts.
 *
 * Text that comes from a guest or a file must be printed with %s only; control
 * characters in it are shown as '?' so that they never reach the terminal.
 */
#pragma once

#include "base/util.h"

enum log_level {
	LOG_LEVEL_NONE = -1, /* for fuzzers: say nothing */
	LOG_LEVEL_ERROR,     /* crosvm or one of its devices cannot do what was asked */
	LOG_LEVEL_WARN,      /* it goes on, but not as the user may expect */
	LOG_LEVEL_INFO,      /* life of the VM: how it ended (default) */
	LOG_LEVEL_DEBUG,     /* for people who work on crosvm */
	LOG_LEVELS,
};

/* Messages above this level are dropped. */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
/* Parses "error", "warn", "info" or "debug". -EINVAL for anything else. */
MUST_CHECK int log_level_parse(const char *text, enum log_level *ret_level);

void log_message(enum log_level level, const char *format, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_message(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_message(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_message(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_message(LOG_LEVEL_DEBUG, __VA_ARGS__)
