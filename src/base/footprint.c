// SPDX-License-Identifier: BSD-3-Clause
/* Gives back the pages of the program's file. Only our own ELF headers are read. */
#include "base/footprint.h"

#include <elf.h>
#include <link.h>
#include <sys/mman.h>

#include "base/util.h"

/* Called for each object of the process; a static program has one, and the kernel's vDSO. */
static int drop_object(struct dl_phdr_info *info, size_t size, void *argument)
{
	(void)size;
	(void)argument;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		uint64_t start = align_down(info->dlpi_addr + header->p_vaddr, 4096);
		uint64_t end = align_up(info->dlpi_addr + header->p_vaddr + header->p_memsz, 4096);

		if (header->p_type == PT_LOAD && (header->p_flags & PF_W) == 0)
			(void)madvise((void *)start, end - start, MADV_DONTNEED);
	}
	return 1; /* the first object is the program */
}

void footprint_drop_program(void)
{
	(void)dl_iterate_phdr(drop_object, NULL);
}
