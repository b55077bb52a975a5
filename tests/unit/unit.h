/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every unit test includes first: cmocka wants these headers before its
 * own. A test program is one test_*.c, linked with everything but cli/main.c.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* The same numbers in each run: the next one of `seed`, below 65536 at most. */
static inline unsigned draw_below(unsigned *seed, unsigned below)
{
	*seed = *seed * 1103515245 + 12345;
	return (*seed >> 16) % below;
}
