// SPDX-License-Identifier: BSD-3-Clause
/*
 * One number is the whole budget: the moment at which all lines so far are paid
 * for, at one line an interval. Who calls is a guest's doing, as often as it
 * likes and from all its vCPUs.
 */
#include "base/log_limit.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"

#define INTERVAL_NS (LOG_LIMIT_INTERVAL_S * NS_PER_S)

bool log_limit_take(struct log_limit *limit, uint64_t now_ns, unsigned *ret_left_out)
{
	uint64_t spent_until = atomic_load(&limit->spent_until_ns);
	uint64_t next;

	do {
		next = max_u64(spent_until, now_ns) + INTERVAL_NS;
		if (next - now_ns > LOG_LIMIT_BURST * INTERVAL_NS) {
			(void)atomic_fetch_add(&limit->left_out, 1);
			return false;
		}
	} while (!atomic_compare_exchange_weak(&limit->spent_until_ns, &spent_until, next));
	*ret_left_out = atomic_exchange(&limit->left_out, 0);
	return true;
}

void log_limited(struct log_limit *limit, enum log_level level, const char *format, ...)
{
	char text[512];
	unsigned left_out;
	va_list args;

	if (!log_enabled(level) || !log_limit_take(limit, clock_monotonic_ns(), &left_out))
		return;
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (left_out == 0)
		log_message(level, "%s", text);
	else
		log_message(level, "%s (and %u such messages before it that were left out)", text,
			left_out);
}
