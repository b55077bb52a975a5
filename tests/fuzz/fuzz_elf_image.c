// SPDX-License-Identifier: BSD-3-Clause
/* Any bytes after an ELF magic, as a kernel for a guest with 64 MiB. */
#include "loader.h"

static struct loader_fuzz fuzz;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	loader_fuzz_open(&fuzz, 64 * MIB, MIB);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char magic[] = "\x7f"
				    "ELF";

	if (size < 4 || memcmp(data, magic, 4) != 0)
		return -1;
	loader_fuzz_load(&fuzz, data, size);
	return 0;
}
