// SPDX-License-Identifier: BSD-3-Clause
/* Gives back the pages of the program's file, and of the stack. Only our own ELF headers are read.
 */
#include "base/footprint.h"

#include <elf.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "base/util.h"

/* What may have been used of the main thread's, and far less than what the kernel leaves free below
 * it. */
enum { STACK_USED = 128 << 10, STACK_MAX = 8 << 20 };

/* Set by the linker: where the file begins in memory. */
extern const ElfW(Ehdr) program_start __asm__("__ehdr_start") __attribute__((visibility("hidden")));

/* Below this call, but for the page that the next ones use. A thread's stack is short, and stays.
 */
static void drop_stack(void)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);
	uintptr_t top = getauxval(AT_RANDOM); /* the kernel puts it above main() */
	uintptr_t end = align_down(here, 4096) - 4096;

	if (here < top && top - here < STACK_MAX)
		(void)madvise((void *)(end - STACK_USED), STACK_USED, MADV_DONTNEED);
}

void footprint_drop_program(int *timeout_ms)
{
	uintptr_t base = (uintptr_t)&program_start;
	const ElfW(Phdr) *headers = (const void *)(base + program_start.e_phoff);

	drop_stack();
	/* Backwards: the first segment holds the headers that are read here. */
	for (unsigned i = program_start.e_phnum; i-- > 0;) {
		const ElfW(Phdr) *header = &headers[i];
		uintptr_t start = align_down(base + header->p_vaddr, 4096);
		uintptr_t end = align_up(base + header->p_vaddr + header->p_memsz, 4096);

		if (header->p_type == PT_LOAD && (header->p_flags & PF_W) == 0)
			(void)madvise((void *)start, end - start, MADV_DONTNEED);
	}
	*timeout_ms = (int)min_u64(2 * (uint64_t)*timeout_ms, FOOTPRINT_STEADY_MS);
}
