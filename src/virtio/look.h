/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long a queue's thread looks for what it waits for, the driver or the disk,
 * before it sleeps. To be woken takes longer than most drivers need for their
 * next request, and a driver that is looked for need not kick. The time doubles
 * with each wait that is short and falls to a quarter with each that is long, down
 * to none: a device at rest costs nothing, and a driver that pauses is looked for
 * when it comes again. QEMU's iothreads have the same bounds. While there is no
 * look, a wait is measured now and then. One thread's.
 */
#pragma once

#include "base/clock.h"
#include "base/util.h"

enum { LOOK_MIN_NS = 4000, LOOK_MAX_NS = 32000, LOOK_WAITS_A_MEASURE = 32 };

struct look {
	uint64_t ns;       /* of the next look; 0: none */
	uint64_t begin_ns; /* of a wait that is measured; 0: none is */
	unsigned waits;
};

/* A wait begins: whether to look, until look_is_over(). */
static inline bool look_begin(struct look *look)
{
	if (look->ns == 0 && ++look->waits % LOOK_WAITS_A_MEASURE != 0)
		return false;
	look->begin_ns = clock_monotonic_ns();
	return look->ns != 0;
}

static inline bool look_is_over(const struct look *look)
{
	return clock_monotonic_ns() - look->begin_ns >= look->ns;
}

static inline void look_set(struct look *look, bool was_long)
{
	look->begin_ns = 0;
	if (!was_long)
		look->ns = look->ns == 0 ? LOOK_MIN_NS : min_u64(look->ns * 2, LOOK_MAX_NS);
	else
		look->ns = look->ns / 4 >= LOOK_MIN_NS ? look->ns / 4 : 0;
}

/* The look found something. */
static inline void look_found(struct look *look)
{
	look_set(look, false);
}

/* The wait is over, if one began, by whatever it was for. */
static inline void look_end(struct look *look)
{
	if (look->begin_ns != 0)
		look_set(look, clock_monotonic_ns() - look->begin_ns > LOOK_MAX_NS);
}
