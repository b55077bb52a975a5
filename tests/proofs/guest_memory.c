// SPDX-License-Identifier: BSD-3-Clause
/*
 * Proofs of guest_memory_at(), for any two regions that guest_memory_create()
 * takes (of up to 2^20 bytes), any gpa and any size.
 *
 *  K1  a pointer comes out exactly when every byte asked for is in one region
 *  K2  it is the right one, and all its bytes are in the mapping
 *  K3  nothing wraps (CBMC's own checks), and of no bytes there is no pointer
 */
#include "model.h"

static struct guest_memory_region any_region(uint64_t previous_end)
{
	struct guest_memory_region region = { .gpa = nondet_u64(), .size = nondet_u64() };

	ASSUME(region.size != 0 && region.size <= 1 << 20);
	ASSUME(region.gpa >= previous_end && region.gpa <= INT64_MAX - region.size);
	region.hva = malloc(region.size);
	ASSUME(region.hva != NULL);
	return region;
}

static bool has_byte(const struct guest_memory_region *region, uint64_t gpa)
{
	return gpa >= region->gpa && gpa < region->gpa + region->size; /* cannot wrap, see above */
}

void prove_guest_memory_at(void)
{
	struct guest_memory memory = { .count = nondet_bool() ? 1 : 2 };
	uint64_t gpa = nondet_u64(), size = nondet_u64(), byte = nondet_u64();

	memory.regions[0] = any_region(0);
	if (memory.count == 2)
		memory.regions[1] = any_region(memory.regions[0].gpa + memory.regions[0].size);
	const uint8_t *at = guest_memory_at(&memory, gpa, size);
	uint64_t last;
	bool wraps = size == 0 || __builtin_add_overflow(gpa, size - 1, &last);
	bool good = false;

	for (size_t i = 0; i < memory.count; i++)
		good = good || (!wraps && has_byte(&memory.regions[i], gpa) &&
				       has_byte(&memory.regions[i], last));
	PROVE("K1 exactly what is in a region", (at != NULL) == good);
	if (at == NULL)
		return;
	const struct guest_memory_region *region =
		&memory.regions[has_byte(&memory.regions[0], gpa) ? 0 : 1];

	ASSUME(byte < size);
	PROVE("K2 the right place", at == region->hva + (gpa - region->gpa));
	PROVE("K2 every byte", __CPROVER_r_ok(at + byte, 1));
	PROVE("K3 no bytes, no pointer", size != 0);
}
