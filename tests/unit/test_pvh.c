// SPDX-License-Identifier: BSD-3-Clause
/*
 * What a kernel that is entered by PVH finds, read as Xen's start_info.h says
 * and not by our own structs.
 */
#include "unit.h"

#include <errno.h>
#include <string.h>

#include "memory/guest_memory.h"
#include "x86_64/boot.h"
#include "x86_64/layout.h"

enum { START_INFO_SIZE = 56, MODULE_SIZE = 32, MAP_ENTRY_SIZE = 24 };

static const struct kernel_image pvh_image = { .entry_kind = KERNEL_ENTRY_PVH, .entry = 0x1000000 };

static struct guest_memory *make_memory(uint64_t size)
{
	struct guest_memory_range ranges[GUEST_MEMORY_REGIONS_MAX];
	struct guest_memory *memory = NULL;
	size_t count = layout_ram_ranges(size, ranges);

	assert_int_equal(guest_memory_create(ranges, count, 0, &memory), 0);
	return memory;
}

static uint64_t load(const struct guest_memory *memory, uint64_t gpa, size_t size)
{
	uint64_t value = 0;

	assert_int_equal(guest_memory_read(memory, gpa, &value, size), 0);
	return value;
}

static uint64_t load_info(const struct guest_memory *memory, unsigned offset, size_t size)
{
	return load(memory, LAYOUT_PVH_INFO + offset, size);
}

/* Whether a structure lies behind the start info and before what comes next in the layout. */
static void assert_placed(uint64_t gpa, uint64_t size)
{
	assert_in_range(gpa, LAYOUT_PVH_INFO + START_INFO_SIZE, LAYOUT_CMDLINE - size);
	assert_int_equal(gpa % 8, 0);
}

static void assert_map_entry(const struct guest_memory *memory, unsigned index, uint64_t gpa,
	uint64_t size, uint32_t type)
{
	uint64_t entry = load_info(memory, 40, 8) + (uint64_t)index * MAP_ENTRY_SIZE;

	assert_int_equal(load(memory, entry, 8), gpa);
	assert_int_equal(load(memory, entry + 8, 8), size);
	assert_int_equal(load(memory, entry + 16, 4), type);
	assert_int_equal(load(memory, entry + 20, 4), 0);
}

static void assert_map(const struct guest_memory *memory, uint64_t low_end, uint64_t high_size)
{
	unsigned count = high_size != 0 ? 6 : 5;

	assert_int_equal(load_info(memory, 48, 4), count);
	assert_placed(load_info(memory, 40, 8), (uint64_t)count * MAP_ENTRY_SIZE);
	assert_map_entry(memory, 0, 0, 0x9fc00, 1);
	assert_map_entry(memory, 1, 0x9fc00, 0x400, 2);
	assert_map_entry(memory, 2, 0xe0000, 0x20000, 2);
	assert_map_entry(memory, 3, 0x100000, low_end - 0x100000, 1);
	assert_map_entry(memory, 4, LAYOUT_ECAM, LAYOUT_ECAM_SIZE, 2);
	if (high_size != 0)
		assert_map_entry(memory, 5, 0x100000000, high_size, 1);
}

static void start_info_without_an_initrd(void **state)
{
	struct guest_memory *memory = make_memory(64 * MIB);
	const struct boot_request request = {
		.image = &pvh_image, .cmdline = "console=ttyS0", .rsdp_gpa = 0xe1230
	};
	char cmdline[sizeof("console=ttyS0")];

	(void)state;
	assert_int_equal(boot_write(memory, &request), 0);
	assert_int_equal(load_info(memory, 0, 4), 0x336ec578);
	assert_int_equal(load_info(memory, 4, 4), 1);  /* version: with a memory map */
	assert_int_equal(load_info(memory, 8, 4), 0);  /* flags */
	assert_int_equal(load_info(memory, 12, 4), 0); /* modules */
	assert_int_equal(load_info(memory, 16, 8), 0);
	assert_int_equal(load_info(memory, 32, 8), 0xe1230);
	assert_int_equal(load_info(memory, 52, 4), 0); /* reserved */
	assert_map(memory, 64 * MIB, 0);
	assert_int_equal(
		guest_memory_read(memory, load_info(memory, 24, 8), cmdline, sizeof(cmdline)), 0);
	assert_string_equal(cmdline, "console=ttyS0");
	guest_memory_free(memory);
}

static void initrd_is_the_only_module(void **state)
{
	struct guest_memory *memory = make_memory(5 * GIB);
	const struct boot_request request = {
		.image = &pvh_image,
		.cmdline = "",
		.initrd_gpa = 0xbfe01000,
		.initrd_size = 0x1fe123,
	};

	(void)state;
	assert_int_equal(boot_write(memory, &request), 0);
	assert_int_equal(load_info(memory, 12, 4), 1);
	uint64_t module = load_info(memory, 16, 8);

	assert_placed(module, MODULE_SIZE);
	assert_int_equal(load(memory, module, 8), 0xbfe01000);
	assert_int_equal(load(memory, module + 8, 8), 0x1fe123);
	assert_int_equal(load(memory, module + 16, 8), 0); /* its command line */
	assert_int_equal(load(memory, module + 24, 8), 0);
	assert_map(memory, LAYOUT_LOW_RAM_END, 5 * GIB - LAYOUT_LOW_RAM_END);
	guest_memory_free(memory);
}

/* PVH is entered in 32-bit mode, and its kernel must not take us for a boot loader of the other
 * protocol. */
static void data_of_the_64_bit_protocol_is_not_there(void **state)
{
	struct guest_memory *memory = make_memory(64 * MIB);
	const struct boot_request request = { .image = &pvh_image, .cmdline = "" };
	const uint64_t code_32_bit = 0x00cf9b000000ffff;

	(void)state;
	assert_int_equal(boot_write(memory, &request), 0);
	assert_int_equal(load(memory, LAYOUT_GDT + BOOT_CODE_SELECTOR, 8), code_32_bit);
	assert_int_equal(load(memory, LAYOUT_PML4, 8), 0);
	for (unsigned offset = 0; offset < 4096; offset += 8)
		assert_int_equal(load(memory, LAYOUT_ZERO_PAGE + offset, 8), 0);
	guest_memory_free(memory);
}

static void memory_without_room_is_refused(void **state)
{
	const struct guest_memory_range range = { 0, 0x8000 };
	const struct boot_request request = { .image = &pvh_image, .cmdline = "" };
	struct guest_memory *memory = NULL;

	(void)state;
	assert_int_equal(guest_memory_create(&range, 1, 0, &memory), 0);
	assert_int_equal(boot_write(memory, &request), -EFAULT);
	guest_memory_free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(start_info_without_an_initrd),
		cmocka_unit_test(initrd_is_the_only_module),
		cmocka_unit_test(data_of_the_64_bit_protocol_is_not_there),
		cmocka_unit_test(memory_without_room_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
