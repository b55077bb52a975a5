// SPDX-License-Identifier: BSD-3-Clause
/* Any bytes after an ELF magic, as a kernel for a guest with 64 MiB. */
#include "loader.h"

static struct loader_fuzz fuzz;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t magic[] = { 0x7f, 0x45, 0x4c, 0x46 }; /* the byte 7f, then "ELF" */

	if (size < 4 || memcmp(data, magic, 4) != 0)
		return -1;
	loader_fuzz_open(&fuzz, 64 * MIB, MIB);
	loader_fuzz_load(&fuzz, data, size);
	return 0;
}
