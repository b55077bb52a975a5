/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A budget of log lines, for messages that a guest can cause at will: it must
 * not fill the host's disk, nor push out of sight what others have to say.
 *
 * LOG_LIMIT_BURST lines may come at once; after that, one every
 * LOG_LIMIT_INTERVAL_S seconds, which says how many were left out since the
 * last one. A budget of zeroes is full. Any thread may use it, without a lock.
 */
#pragma once

#include <stdatomic.h>

#include "base/log.h"
#include "base/util.h"

enum { LOG_LIMIT_BURST = 10, LOG_LIMIT_INTERVAL_S = 10 };

/* Embedded in whatever the messages are about, one for each device; never in the guest's reach. */
struct log_limit {
	_Atomic uint64_t spent_until_ns; /* the moment at which the budget is full again */
	_Atomic unsigned left_out;
};

/*
 * Takes a line out of the budget at a moment of base/clock.h. True with how
 * many lines were left out before it; false when this one must be, too.
 */
MUST_CHECK bool log_limit_take(struct log_limit *limit, uint64_t now_ns, unsigned *ret_left_out);

/* log_message() within a budget. */
void log_limited(struct log_limit *limit, enum log_level level, const char *format, ...)
	PRINTF_LIKE(3, 4);

#define log_error_limited(limit, ...) log_limited(limit, LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn_limited(limit, ...)  log_limited(limit, LOG_LEVEL_WARN, __VA_ARGS__)
