/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a kernel finds in memory at its entry: command line, memory map, where
 * the initrd and the ACPI tables are. The 64-bit boot protocol gets a zero
 * page (struct boot_params), page tables and a GDT; PVH gets hvm_start_info.
 *
 * Main thread, after the kernel was loaded and before any vCPU runs.
 * Sources: Documentation/arch/x86/boot.rst and zero-page.rst; Xen's
 * pvh.pandoc and public/arch-x86/hvm/start_info.h.
 */
#pragma once

#include "memory/guest_memory.h"
#include "x86_64/kernel_image.h"

/* The GDT that boot.c writes and regs.c points to; selectors by boot.rst. */
enum {
	BOOT_CODE_SELECTOR = 0x10,
	BOOT_DATA_SELECTOR = 0x18,
	BOOT_TSS_SELECTOR = 0x20,
	BOOT_GDT_SIZE = 0x28,
};

struct boot_request {
	const struct kernel_image *image;
	const char *cmdline; /* checked: fits image->cmdline_max */
	uint64_t initrd_gpa;
	uint64_t initrd_size; /* 0: none */
	uint64_t rsdp_gpa;
};

/* 0, or -EFAULT when the guest's memory has no room (with 1 MiB it has). */
MUST_CHECK int boot_write(const struct guest_memory *memory, const struct boot_request *request);

/* One entry of the memory map, as e820 and PVH both name it. */
struct boot_map_entry {
	uint64_t gpa;
	uint64_t size;
	uint32_t type; /* 1 RAM, 2 reserved */
};
enum { BOOT_MAP_MAX = 8, BOOT_MAP_RAM = 1, BOOT_MAP_RESERVED = 2 };

/* The guest's memory map, ascending. Returns the number of entries. */
size_t boot_memory_map(const struct guest_memory *memory, struct boot_map_entry *ret_map);
