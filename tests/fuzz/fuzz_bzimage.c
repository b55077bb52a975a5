// SPDX-License-Identifier: BSD-3-Clause
/* Any bytes that are no ELF file: bzImages, and all that is refused by its kind. */
#include "loader.h"

static struct loader_fuzz fuzz;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0 || data[0] == 0x7f)
		return -1;
	loader_fuzz_open(&fuzz, 64 * MIB, MIB);
	loader_fuzz_load(&fuzz, data, size);
	return 0;
}
