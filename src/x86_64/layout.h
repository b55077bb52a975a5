/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where everything lies in the guest's physical address space. All values are
 * gpas or sizes in bytes.
 *
 *   0x0000_0000  page tables, GDT, zero page, command line, PVH info   boot data
 *   0x0009_fc00  pointer to the MP table                (EBDA, reserved in e820)
 *   0x000e_0000  ACPI tables, MP table                  (BIOS area, reserved)
 *   0x0010_0000  RAM: kernel, initrd
 *   0xe000_0000  ECAM of PCI bus 0
 *   0xfec0_0000  IOAPIC; 0xfee0_0000 LAPIC; 0xfffb_c000 KVM's own pages
 *   0x1_0000_0000  the rest of the RAM, then the 64-bit MMIO window
 */
#pragma once

#include "base/util.h"
#include "memory/guest_memory.h"

#define LAYOUT_LOW_RAM_END  UINT64_C(0xc0000000)
#define LAYOUT_HIGH_RAM     UINT64_C(0x100000000)
#define LAYOUT_KERNEL_START UINT64_C(0x100000) /* nothing is loaded below 1 MiB */

#define LAYOUT_GDT          UINT64_C(0x500)
#define LAYOUT_ZERO_PAGE    UINT64_C(0x7000)
#define LAYOUT_STACK        UINT64_C(0x7000) /* grows down; a kernel soon has its own */
#define LAYOUT_PML4         UINT64_C(0x9000)
#define LAYOUT_PDPT         UINT64_C(0xa000)
#define LAYOUT_PD           UINT64_C(0xb000) /* up to four pages, one for each GiB */
#define LAYOUT_PVH_INFO     UINT64_C(0xf000)
#define LAYOUT_CMDLINE      UINT64_C(0x20000)
#define LAYOUT_CMDLINE_SIZE UINT64_C(0x1000) /* with the final NUL; Linux takes 2 KiB */

#define LAYOUT_EBDA     UINT64_C(0x9fc00)
#define LAYOUT_EBDA_END UINT64_C(0xa0000)
#define LAYOUT_ACPI     UINT64_C(0xe0000)
#define LAYOUT_ACPI_END UINT64_C(0xfe000)
#define LAYOUT_MPTABLE  UINT64_C(0xfe000)
#define LAYOUT_BIOS_END UINT64_C(0x100000)

/*
 * Three pages that KVM wants on Intel. The page before them is where KVM puts
 * its identity map unless told otherwise, so we do not tell it.
 */
#define LAYOUT_TSS UINT64_C(0xfffbd000)

#define LAYOUT_ECAM      UINT64_C(0xe0000000)
#define LAYOUT_ECAM_SIZE UINT64_C(0x100000) /* bus 0 only */

#define LAYOUT_IOAPIC UINT64_C(0xfec00000)
#define LAYOUT_LAPIC  UINT64_C(0xfee00000)

/*
 * Splits `size` bytes of RAM into ranges below and above the MMIO hole.
 * Returns their number; `ret_ranges` has room for GUEST_MEMORY_REGIONS_MAX.
 */
size_t layout_ram_ranges(uint64_t size, struct guest_memory_range *ret_ranges);

/* Where the PCI BARs go: a window above all RAM. */
#define LAYOUT_PCI_WINDOW_SIZE (4 * GIB)
uint64_t layout_pci_window(uint64_t ram_size);

/*
 * Where a device shows files: beyond the PCI window, and where the first crosvm had it,
 * so that 39 bits of address are enough for what follows, unless there is so much RAM.
 */
#define LAYOUT_DEVICE_WINDOW UINT64_C(0x4000000000)
uint64_t layout_device_window(uint64_t pci_window_gpa);
