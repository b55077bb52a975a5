// SPDX-License-Identifier: BSD-3-Clause
/*
 * An initrd of any size for a kernel at any place that its loader could have
 * accepted. The input is four numbers: the initrd's size, start and end of the
 * kernel, initrd_max.
 */
#include "loader.h"

enum { LOW = 0x200000, HIGH = 0x40000 };

static struct loader_fuzz fuzz;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t numbers[4];
	struct kernel_image image = { 0 };

	loader_fuzz_open(&fuzz, LOW, HIGH);
	if (size != sizeof(numbers))
		return -1;
	memcpy(numbers, data, sizeof(numbers));
	if (numbers[0] == 0 || numbers[0] > INT64_MAX)
		return -1;
	image.start = LAYOUT_KERNEL_START + numbers[1] % (LOW - LAYOUT_KERNEL_START);
	image.end = image.start + 1 + numbers[2] % (LOW - image.start);
	image.initrd_max = numbers[3];
	/* The file system may not take all sizes that a file can have. */
	if (ftruncate(fuzz.initrd_fd, (off_t)numbers[0]) != 0)
		return -1;
	check_initrd(&fuzz, &image, numbers[0]);
	return 0;
}
