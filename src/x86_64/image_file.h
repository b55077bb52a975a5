/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A kernel file while it is being recognised and loaded: its first page, which
 * holds every header that decides what it is, and the ways to refuse it. Only
 * the loaders in this directory use it. The user chose the file, somebody else
 * wrote it: every byte of it may lie, and it may shrink while it is read.
 *
 * Every function that returns an error has logged it, in one line.
 */
#pragma once

#include "x86_64/kernel_image.h"

enum { IMAGE_HEAD_SIZE = 4096 };

struct image_file {
	int fd;
	const char *path;
	const struct guest_memory *memory;
	uint64_t size;
	size_t head_size;
	uint8_t head[IMAGE_HEAD_SIZE];
};

/* What to pass instead, for the end of a refusal. */
#define IMAGE_PASS_KERNEL "pass a vmlinux or bzImage for x86-64"

/* Logs "cannot load kernel 'PATH': it is " and the rest, "what; what to do". -ENOEXEC. */
int image_refuse(const struct image_file *file, const char *format, ...) PRINTF_LIKE(2, 3);

/* Refuses `what` since it ends `missing` bytes too early. -ENOEXEC. */
int image_refuse_truncated(const struct image_file *file, const char *what, uint64_t missing);

/*
 * Checks that a kernel may use [start, end): above 1 MiB, in the first region
 * of RAM. 0, -ENOMEM when more memory would help, else -ENOEXEC.
 */
MUST_CHECK int image_check_range(const struct image_file *file, uint64_t start, uint64_t end);

/* Reads a part of the file: all of it or an error. 0, -ENOEXEC or -errno of reading. */
MUST_CHECK int image_read(
	const struct image_file *file, void *buffer, size_t size, uint64_t offset);
/* The same into guest memory, which was checked before. A size of 0 reads nothing. */
MUST_CHECK int image_load(
	const struct image_file *file, uint64_t gpa, uint64_t offset, uint64_t size);
