/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the loaders' fuzz targets share: the input is the file, byte for byte,
 * so that a finding can be given to `crosvm run` as it is. An accepted image
 * must be one that boot.c and the vCPU can use without looking again.
 */
#pragma once

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "memory/guest_memory.h"
#include "x86_64/kernel_image.h"
#include "x86_64/layout.h"

/* abort() rather than assert(): it must hold in every build. */
#define REQUIRE(condition)                                                                         \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct loader_fuzz {
	struct guest_memory *memory;
	int kernel_fd;
	int initrd_fd;
};

/* Once, before the first input. */
static inline void loader_fuzz_open(struct loader_fuzz *fuzz, uint64_t low, uint64_t high)
{
	const struct guest_memory_range ranges[] = { { 0, low }, { LAYOUT_HIGH_RAM, high } };

	if (fuzz->memory != NULL)
		return;
	log_set_level(LOG_LEVEL_NONE);
	REQUIRE(guest_memory_create(ranges, 2, 0, &fuzz->memory) == 0);
	fuzz->kernel_fd = memfd_create("kernel", MFD_CLOEXEC);
	fuzz->initrd_fd = memfd_create("initrd", MFD_CLOEXEC);
	REQUIRE(fuzz->kernel_fd >= 0 && fuzz->initrd_fd >= 0);
	REQUIRE(ftruncate(fuzz->initrd_fd, 5000) == 0);
}

static inline bool ranges_overlap(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end)
{
	return a < b_end && b < a_end;
}

static inline void check_initrd(
	const struct loader_fuzz *fuzz, const struct kernel_image *image, uint64_t expected_size)
{
	uint64_t gpa = 0;
	uint64_t size = 0;
	int r = initrd_load(fuzz->initrd_fd, "initrd", fuzz->memory, image, &gpa, &size);

	REQUIRE(r == 0 || r == -ENOMEM || r == -ENOEXEC);
	if (r < 0) {
		REQUIRE(gpa == 0 && size == 0);
		return;
	}
	REQUIRE(size == expected_size && gpa % 4096 == 0 && gpa >= LAYOUT_KERNEL_START);
	REQUIRE(guest_memory_at(fuzz->memory, gpa, align_up(size, 4096)) != NULL);
	REQUIRE(gpa + size - 1 <= image->initrd_max);
	REQUIRE(!ranges_overlap(gpa, gpa + align_up(size, 4096), image->start, image->end));
}

static inline void check_image(const struct loader_fuzz *fuzz, const struct kernel_image *image)
{
	REQUIRE(image->start >= LAYOUT_KERNEL_START && image->start < image->end);
	REQUIRE(guest_memory_at(fuzz->memory, image->start, image->end - image->start) != NULL);
	REQUIRE(image->end <= guest_memory_region(fuzz->memory, 0)->size);
	REQUIRE(image->entry >= image->start && image->entry < image->end);
	REQUIRE(image->setup_header_size <= SETUP_HEADER_MAX);
	REQUIRE((image->setup_header_size == 0) == (image->entry_kind == KERNEL_ENTRY_PVH));
	check_initrd(fuzz, image, 5000);
}

static inline void loader_fuzz_load(
	const struct loader_fuzz *fuzz, const uint8_t *data, size_t size)
{
	union {
		struct kernel_image image;
		uint8_t bytes[sizeof(struct kernel_image)];
	} result, untouched;

	memset(&result, 0xa5, sizeof(result));
	memset(&untouched, 0xa5, sizeof(untouched));
	REQUIRE(pwrite(fuzz->kernel_fd, data, size, 0) == (ssize_t)size);
	REQUIRE(ftruncate(fuzz->kernel_fd, (off_t)size) == 0);
	int r = kernel_image_load(fuzz->kernel_fd, "kernel", fuzz->memory, &result.image);

	if (r == 0) {
		check_image(fuzz, &result.image);
		return;
	}
	REQUIRE(r == -ENOEXEC || r == -ENOMEM);
	// NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-exp42-c,cert-flp37-c): all
	// bytes
	REQUIRE(memcmp(result.bytes, untouched.bytes, sizeof(result.bytes)) == 0);
}
