/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The handful of macros that every module uses. Nothing here touches the
 * outside world, so nobody can lie to it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * KIB)
#define GIB (UINT64_C(1024) * MIB)

/* The result of every function that can fail must be looked at. */
#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_index, first_argument)                                                  \
	__attribute__((format(printf, format_index, first_argument)))

/* Not inlined, and away from its caller's code: what it needs of the stack costs only who calls it.
 */
#define COLD __attribute__((cold, noinline))

/* Rounds up to a power of two. The caller knows that it cannot wrap. */
static inline uint64_t align_up(uint64_t value, uint64_t alignment)
{
	return (value + alignment - 1) & ~(alignment - 1);
}

static inline uint64_t align_down(uint64_t value, uint64_t alignment)
{
	return value & ~(alignment - 1);
}

/* Whether `size` bytes at `offset` lie in a space of `space` bytes, whatever the three are. */
static inline bool is_within(uint64_t offset, uint64_t size, uint64_t space)
{
	return offset <= space && size <= space - offset;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}
