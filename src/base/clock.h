/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The clock that only goes forward, for durations and timeouts. It knows
 * nothing of the time of day, so nobody can set it under us.
 */
#pragma once

#include <time.h>

#include "base/util.h"

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

/* Nanoseconds since some moment in the past. Any thread; no system call, by the vDSO. */
static inline uint64_t clock_monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}
