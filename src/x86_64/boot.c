// SPDX-License-Identifier: BSD-3-Clause
/*
 * Boot data below 1 MiB. Everything here was checked before: the kernel image
 * by its loader, the command line by vm/cmdline.c, the sizes by the layout.
 */
#include "x86_64/boot.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <string.h>

#include "x86_64/layout.h"
#include "x86_64/pvh.h"

#define PAGE_PRESENT_RW UINT64_C(0x03)
#define PAGE_LARGE      UINT64_C(0x80)
#define PAGE_ENTRIES    512

enum { LOADER_TYPE_UNDEFINED = 0xff };

_Static_assert(SETUP_HEADER_OFFSET == offsetof(struct boot_params, hdr), "setup header moved");
_Static_assert(
	SETUP_HEADER_OFFSET + SETUP_HEADER_MAX <= offsetof(struct boot_params, edd_mbr_sig_buffer),
	"a setup header may overwrite what follows");

size_t boot_memory_map(const struct guest_memory *memory, struct boot_map_entry *ret_map)
{
	const struct guest_memory_region *low = guest_memory_region(memory, 0);
	size_t n = 0;

	ret_map[n++] = (struct boot_map_entry){ 0, LAYOUT_EBDA, BOOT_MAP_RAM };
	ret_map[n++] = (struct boot_map_entry){ LAYOUT_EBDA, LAYOUT_EBDA_END - LAYOUT_EBDA,
		BOOT_MAP_RESERVED };
	ret_map[n++] = (struct boot_map_entry){ LAYOUT_ACPI, LAYOUT_BIOS_END - LAYOUT_ACPI,
		BOOT_MAP_RESERVED };
	ret_map[n++] = (struct boot_map_entry){ LAYOUT_KERNEL_START,
		low->size - LAYOUT_KERNEL_START, BOOT_MAP_RAM };
	ret_map[n++] = (struct boot_map_entry){ LAYOUT_ECAM, LAYOUT_ECAM_SIZE, BOOT_MAP_RESERVED };
	for (size_t i = 1; i < guest_memory_region_count(memory); i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		ret_map[n++] = (struct boot_map_entry){ region->gpa, region->size, BOOT_MAP_RAM };
	}
	return n;
}

/* The words of the BIOS data area that kernels read: where the EBDA starts, KiB below it. */
static int write_bios_data(const struct guest_memory *memory)
{
	const uint16_t ebda_segment = LAYOUT_EBDA >> 4;
	const uint16_t base_memory_kib = LAYOUT_EBDA / KIB;
	int r = guest_memory_write(memory, 0x40e, &ebda_segment, sizeof(ebda_segment));

	if (r == 0)
		r = guest_memory_write(memory, 0x413, &base_memory_kib, sizeof(base_memory_kib));
	return r;
}

static int write_gdt(const struct guest_memory *memory, bool long_mode)
{
	const uint64_t gdt[BOOT_GDT_SIZE / 8] = {
		[BOOT_CODE_SELECTOR / 8] = long_mode ? 0x00af9b000000ffff : 0x00cf9b000000ffff,
		[BOOT_DATA_SELECTOR / 8] = 0x00cf93000000ffff,
		[BOOT_TSS_SELECTOR / 8] = 0x00008b0000000067,
	};

	return guest_memory_write(memory, LAYOUT_GDT, gdt, sizeof(gdt));
}

/* Maps the first GiBs one to one with 2 MiB pages: as many as the kernel lies in. */
static int write_page_tables(const struct guest_memory *memory, uint64_t kernel_end)
{
	uint64_t gibs = min_u64((kernel_end - 1) / GIB + 1, 4);
	const uint64_t pml4e = LAYOUT_PDPT | PAGE_PRESENT_RW;
	uint64_t *pdpt = guest_memory_at(memory, LAYOUT_PDPT, gibs * sizeof(uint64_t));
	uint64_t *pd = guest_memory_at(memory, LAYOUT_PD, gibs * 4 * KIB);

	if (pdpt == NULL || pd == NULL)
		return -EFAULT;
	for (uint64_t i = 0; i < gibs; i++)
		pdpt[i] = (LAYOUT_PD + i * 4 * KIB) | PAGE_PRESENT_RW;
	for (uint64_t i = 0; i < gibs * PAGE_ENTRIES; i++)
		pd[i] = (i * 2 * MIB) | PAGE_PRESENT_RW | PAGE_LARGE;
	return guest_memory_write(memory, LAYOUT_PML4, &pml4e, sizeof(pml4e));
}

static void fill_e820(const struct guest_memory *memory, struct boot_params *params)
{
	struct boot_map_entry map[BOOT_MAP_MAX];

	params->e820_entries = (uint8_t)boot_memory_map(memory, map);
	for (size_t i = 0; i < params->e820_entries; i++)
		params->e820_table[i] =
			(struct boot_e820_entry){ map[i].gpa, map[i].size, map[i].type };
}

static int write_zero_page(const struct guest_memory *memory, const struct boot_request *request)
{
	const struct kernel_image *image = request->image;
	struct boot_params params = { 0 };

	memcpy((uint8_t *)&params + SETUP_HEADER_OFFSET, image->setup_header,
		image->setup_header_size);
	params.hdr.type_of_loader = LOADER_TYPE_UNDEFINED;
	params.hdr.cmd_line_ptr = LAYOUT_CMDLINE;
	params.hdr.ramdisk_image = (uint32_t)request->initrd_gpa;
	params.hdr.ramdisk_size = (uint32_t)request->initrd_size;
	params.ext_ramdisk_image = (uint32_t)(request->initrd_gpa >> 32);
	params.ext_ramdisk_size = (uint32_t)(request->initrd_size >> 32);
	params.acpi_rsdp_addr = request->rsdp_gpa;
	fill_e820(memory, &params);
	return guest_memory_write(memory, LAYOUT_ZERO_PAGE, &params, sizeof(params));
}

int boot_write(const struct guest_memory *memory, const struct boot_request *request)
{
	bool long_mode = request->image->entry_kind == KERNEL_ENTRY_LONG_MODE;
	int r = guest_memory_write(
		memory, LAYOUT_CMDLINE, request->cmdline, strlen(request->cmdline) + 1);

	if (r == 0)
		r = write_bios_data(memory);
	if (r == 0)
		r = write_gdt(memory, long_mode);
	if (r < 0)
		return r;
	if (!long_mode)
		return pvh_write_start_info(memory, request);
	r = write_page_tables(memory, request->image->end);
	if (r == 0)
		r = write_zero_page(memory, request);
	return r;
}
