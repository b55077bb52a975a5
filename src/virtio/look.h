/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long a queue's thread looks for what the driver offers before it sleeps.
 * To be woken takes longer than most drivers need for their next request, and a
 * driver that is looked for need not kick. The time doubles while waits are
 * short, and one that is long ends it, so that a device at rest costs nothing;
 * QEMU's iothreads have the same bounds. While there is no look, a wait is
 * measured now and then. One thread's.
 */
#pragma once

#include "base/clock.h"
#include "base/util.h"

enum { LOOK_MIN_NS = 4000, LOOK_MAX_NS = 32000, LOOK_WAITS_A_MEASURE = 16 };

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

/* The look found something: its time is right. */
static inline void look_found(struct look *look)
{
	look->begin_ns = 0;
}

/* The wait is over, if one began, by whatever it was for. */
static inline void look_end(struct look *look)
{
	if (look->begin_ns == 0)
		return;
	bool was_long = clock_monotonic_ns() - look->begin_ns > LOOK_MAX_NS;

	look->ns = was_long ? 0 : min_u64(look->ns == 0 ? LOOK_MIN_NS : look->ns * 2, LOOK_MAX_NS);
	look->begin_ns = 0;
}
