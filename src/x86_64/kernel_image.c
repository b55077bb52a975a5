// SPDX-License-Identifier: BSD-3-Clause
/*
 * Recognises a kernel file by its content and hands it to its loader. Whoever
 * wrote the file may lie in every byte of it; its type and size come from the
 * host, but it may shrink or change while it is read.
 *
 * System calls: fstat and one read here, then one read for each segment.
 */
#include "x86_64/kernel_image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/log.h"
#include "x86_64/bzimage.h"
#include "x86_64/elf_image.h"
#include "x86_64/file_kind.h"
#include "x86_64/layout.h"

int image_refuse(const struct image_file *file, const char *format, ...)
{
	char reason[512];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	log_error("cannot load kernel '%s': it is %s", file->path, reason);
	return -ENOEXEC;
}

int image_refuse_truncated(const struct image_file *file, const char *what, uint64_t missing)
{
	return image_refuse(file,
		"%s that is truncated: %" PRIu64 " bytes are missing; pass the whole file", what,
		missing);
}

/* Names the least that will do: how much more the kernel wants when it runs is not in its file. */
static int refuse_small_memory(const struct image_file *file, uint64_t end)
{
	uint64_t mib = align_up(end, MIB) / MIB;
	uint64_t have = guest_memory_region(file->memory, 0)->size / MIB;

	log_error("cannot load kernel '%s': the guest's memory of %" PRIu64
		  " MiB is too small for it; pass --mem %" PRIu64 " or more",
		file->path, have, mib);
	return -ENOMEM;
}

int image_check_range(const struct image_file *file, uint64_t start, uint64_t end)
{
	const struct guest_memory_region *low = guest_memory_region(file->memory, 0);

	if (start < LAYOUT_KERNEL_START)
		return image_refuse(file,
			"a kernel for the physical address 0x%" PRIx64
			", below the 1 MiB that is kept for boot data; " IMAGE_PASS_KERNEL,
			start);
	if (start >= end || end > LAYOUT_LOW_RAM_END)
		return image_refuse(file,
			"a kernel for the physical addresses 0x%" PRIx64 " to 0x%" PRIx64
			", where no guest has memory; " IMAGE_PASS_KERNEL,
			start, end);
	if (end > low->size)
		return refuse_small_memory(file, end);
	return 0;
}

/* Offsets were checked against the file's size, so a file that ends early was changed. */
static int report_read(const struct image_file *file, int r)
{
	if (r == 0)
		return 0;
	if (r == -ENODATA)
		return image_refuse(file, "shorter than a moment ago; pass a file that nobody "
					  "writes to");
	log_error("cannot read kernel '%s': %s", file->path, strerror(-r));
	return r;
}

int image_read(const struct image_file *file, void *buffer, size_t size, uint64_t offset)
{
	return report_read(file, fd_pread_full(file->fd, buffer, size, offset));
}

int image_load(const struct image_file *file, uint64_t gpa, uint64_t offset, uint64_t size)
{
	if (size == 0)
		return 0;
	return report_read(file, guest_memory_read_file(file->memory, gpa, file->fd, offset, size));
}

static int check_type(const struct image_file *file, mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return 0;
	case S_IFDIR:
		return image_refuse(file, "a directory; pass the vmlinux or bzImage in it");
	case S_IFBLK:
		return image_refuse(
			file, "a block device; " IMAGE_PASS_KERNEL ", and the disk with --root");
	case S_IFCHR:
		return image_refuse(file, "a character device; " IMAGE_PASS_KERNEL);
	case S_IFIFO:
		return image_refuse(
			file, "a pipe, whose size is not known; write it to a file and pass that");
	default:
		return image_refuse(file, "not a regular file; " IMAGE_PASS_KERNEL);
	}
}

static int read_head(struct image_file *file)
{
	struct stat status;

	if (fstat(file->fd, &status) < 0)
		return report_read(file, -errno);
	int r = check_type(file, status.st_mode);

	if (r < 0)
		return r;
	file->size = (uint64_t)status.st_size;
	if (file->size == 0)
		return image_refuse(file, "an empty file; " IMAGE_PASS_KERNEL);
	file->head_size = min_u64(file->size, sizeof(file->head));
	return image_read(file, file->head, file->head_size, 0);
}

int kernel_image_load(
	int fd, const char *path, const struct guest_memory *memory, struct kernel_image *ret_image)
{
	struct image_file file = { .fd = fd, .path = path, .memory = memory };
	int r = read_head(&file);

	if (r < 0)
		return r;
	if (elf_image_matches(&file))
		return elf_image_load(&file, ret_image);
	if (bzimage_matches(&file))
		return bzimage_load(&file, ret_image);
	struct file_kind kind = file_kind_guess(&file);

	return image_refuse(&file, "%s; %s", kind.what, kind.remedy);
}
