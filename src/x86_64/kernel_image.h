/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Kernel and initrd files: recognised by content, checked, and read straight
 * into guest memory. Everything in them may be a lie.
 *
 * Sources: System V ABI (ELF), the kernel's Documentation/arch/x86/boot.rst
 * (bzImage, 64-bit boot protocol), Xen's pvh.pandoc (PVH note, type 18).
 *
 * A refused file is logged here as one line that names what the file is and
 * what to pass instead, because only this module knows; the caller ends with
 * the exit status for a bad image. Main thread only, before any vCPU runs.
 */
#pragma once

#include "base/util.h"
#include "memory/guest_memory.h"

enum kernel_entry {
	KERNEL_ENTRY_LONG_MODE, /* 64-bit boot protocol: rsi = zero page */
	KERNEL_ENTRY_PVH,       /* 32-bit, no paging: ebx = hvm_start_info */
};

/* The setup header's place in the zero page, and the most of it that is copied. */
enum { SETUP_HEADER_OFFSET = 0x1f1, SETUP_HEADER_MAX = 0x290 - 0x1f1 };

struct kernel_image {
	enum kernel_entry entry_kind;
	uint64_t entry;       /* gpa of the first instruction */
	uint64_t start;       /* the gpas that the kernel uses before it reads the memory */
	uint64_t end;         /* map, within the low RAM: no initrd in [start, end) */
	uint64_t initrd_max;  /* no byte of the initrd above this gpa; UINT64_MAX: anywhere */
	uint64_t cmdline_max; /* bytes of command line it takes, without the NUL */
	/*
	 * bzImage: its own setup header. ELF: the fields that the kernel needs,
	 * made up. The loader's fields (cmd_line_ptr, ramdisk_*, type_of_loader)
	 * are left to whoever writes the zero page. Empty for PVH.
	 */
	uint8_t setup_header[SETUP_HEADER_MAX];
	size_t setup_header_size;
};

/*
 * Loads the kernel open at `fd`; `path` is for messages. 0, -ENOEXEC for a
 * file that is refused, -ENOMEM when the guest's memory is too small for it,
 * else -errno of reading. Logged in every case. The memory must be fresh: what
 * a kernel expects as zero is not written. A pipe is refused, but open() with
 * O_NONBLOCK, or that blocks before.
 */
MUST_CHECK int kernel_image_load(int fd, const char *path, const struct guest_memory *memory,
	struct kernel_image *ret_image);

/*
 * Loads an initrd as high as the kernel allows, page aligned. Any content is
 * good (the kernel knows its formats), but an empty file, a directory or one
 * that does not fit is refused. Errors as above.
 */
MUST_CHECK int initrd_load(int fd, const char *path, const struct guest_memory *memory,
	const struct kernel_image *image, uint64_t *ret_gpa, uint64_t *ret_size);
