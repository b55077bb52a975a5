// SPDX-License-Identifier: BSD-3-Clause
/* How RAM is split around the MMIO hole. The size comes from the command line. */
#include "x86_64/layout.h"

size_t layout_ram_ranges(uint64_t size, struct guest_memory_range *ret_ranges)
{
	uint64_t low = min_u64(size, LAYOUT_LOW_RAM_END);

	ret_ranges[0] = (struct guest_memory_range){ .gpa = 0, .size = low };
	if (size == low)
		return 1;
	ret_ranges[1] = (struct guest_memory_range){ .gpa = LAYOUT_HIGH_RAM, .size = size - low };
	return 2;
}

uint64_t layout_pci_window(uint64_t ram_size)
{
	struct guest_memory_range ranges[GUEST_MEMORY_REGIONS_MAX];
	size_t count = layout_ram_ranges(ram_size, ranges);
	uint64_t ram_end = ranges[count - 1].gpa + ranges[count - 1].size;

	return align_up(max_u64(ram_end, LAYOUT_HIGH_RAM), GIB);
}

uint64_t layout_device_window(uint64_t pci_window_gpa)
{
	return max_u64(pci_window_gpa + LAYOUT_PCI_WINDOW_SIZE, LAYOUT_DEVICE_WINDOW);
}
