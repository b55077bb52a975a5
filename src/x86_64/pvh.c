// SPDX-License-Identifier: BSD-3-Clause
/*
 * hvm_start_info, its one module (the initrd) and its memory map, packed in
 * one page of boot data. All values were checked before.
 */
#include "x86_64/pvh.h"

#include <string.h>

#include "x86_64/layout.h"

struct hvm_start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t module_count;
	uint64_t modules_gpa;
	uint64_t cmdline_gpa;
	uint64_t rsdp_gpa;
	uint64_t map_gpa;
	uint32_t map_entries;
	uint32_t reserved;
};

struct hvm_module {
	uint64_t gpa;
	uint64_t size;
	uint64_t cmdline_gpa;
	uint64_t reserved;
};

struct hvm_map_entry {
	uint64_t gpa;
	uint64_t size;
	uint32_t type;
	uint32_t reserved;
};

#define HVM_START_MAGIC UINT32_C(0x336ec578)

int pvh_write_start_info(const struct guest_memory *memory, const struct boot_request *request)
{
	struct {
		struct hvm_start_info info;
		struct hvm_module initrd;
		struct hvm_map_entry map[BOOT_MAP_MAX];
	} page = {
		.info = {
			.magic = HVM_START_MAGIC,
			.version = 1,
			.module_count = request->initrd_size != 0,
			.cmdline_gpa = LAYOUT_CMDLINE,
			.rsdp_gpa = request->rsdp_gpa,
		},
		.initrd = { .gpa = request->initrd_gpa, .size = request->initrd_size },
	};
	struct boot_map_entry map[BOOT_MAP_MAX];

	if (request->initrd_size != 0)
		page.info.modules_gpa =
			LAYOUT_PVH_INFO + ((uint8_t *)&page.initrd - (uint8_t *)&page);
	page.info.map_gpa = LAYOUT_PVH_INFO + ((uint8_t *)page.map - (uint8_t *)&page);
	page.info.map_entries = (uint32_t)boot_memory_map(memory, map);
	for (size_t i = 0; i < page.info.map_entries; i++)
		page.map[i] = (struct hvm_map_entry){
			.gpa = map[i].gpa, .size = map[i].size, .type = map[i].type
		};
	return guest_memory_write(memory, LAYOUT_PVH_INFO, &page, sizeof(page));
}
