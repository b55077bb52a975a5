/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the proofs share: guest memory of two small regions, each an object of
 * its own for CBMC, so that a pointer from one into the other is an error; and
 * a guest that changes all of it whenever our code looks.
 */
#pragma once

#include "memory/guest_memory.c"

enum { REGION_BYTES = 64 };

#define LOW_GPA  UINT64_C(0x1000)
#define HIGH_GPA UINT64_C(0x8000)

static uint8_t low_region[REGION_BYTES];
static uint8_t high_region[REGION_BYTES];

static const struct guest_memory model_memory = {
	.fd = -1,
	.count = 2,
	.regions = {
		{ .gpa = LOW_GPA, .size = REGION_BYTES, .hva = low_region },
		{ .gpa = HIGH_GPA, .size = REGION_BYTES, .hva = high_region },
	},
};

/* Any value at all. */
bool nondet_bool(void);
uint16_t nondet_u16(void);
uint32_t nondet_u32(void);
uint64_t nondet_u64(void);
unsigned nondet_unsigned(void);

#define ASSUME(condition)      __CPROVER_assume(condition)
#define PROVE(name, condition) __CPROVER_assert(condition, name)

static inline void guest_changes_memory(void)
{
	__CPROVER_havoc_object(low_region);
	__CPROVER_havoc_object(high_region);
}

/* Whether all of [base, base + size) is in one region. */
static inline bool in_model_memory(const uint8_t *base, uint64_t size)
{
	const uint8_t *region = __CPROVER_same_object(base, low_region) ? low_region : high_region;

	return __CPROVER_same_object(base, region) && size <= REGION_BYTES &&
	       (uint64_t)(base - region) <= REGION_BYTES - size;
}
