// SPDX-License-Identifier: BSD-3-Clause
/*
 * Loads an initrd where the kernel does not tread. Its content is the kernel's
 * business; its size comes from the host and may be anything, and the kernel's
 * range was checked by its loader.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "x86_64/kernel_image.h"
#include "x86_64/layout.h"

static const uint64_t page_size = 4096;

static int refuse(const char *path, const char *what)
{
	log_error("cannot load initrd '%s': it is %s; pass a cpio archive", path, what);
	return -ENOEXEC;
}

static int report_errno(const char *path, int r)
{
	log_error("cannot read initrd '%s': %s", path, strerror(-r));
	return r;
}

/* Anything whose size is known will do: a block device is how some hosts keep an initrd. */
static int find_size(int fd, const char *path, uint64_t *ret_size)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return report_errno(path, -errno);
	off_t size = status.st_size;

	if (S_ISDIR(status.st_mode))
		return refuse(path, "a directory");
	if (S_ISBLK(status.st_mode))
		size = lseek(fd, 0, SEEK_END);
	else if (!S_ISREG(status.st_mode))
		return refuse(path, "a pipe or a device, whose size is not known");
	if (size < 0)
		return report_errno(path, -errno);
	if (size == 0)
		return refuse(path, "empty");
	*ret_size = (uint64_t)size;
	return 0;
}

/* The highest place for `size` bytes in [low, high); 0 if there is none. */
static uint64_t place_below(uint64_t low, uint64_t high, uint64_t size)
{
	low = align_up(low, page_size);
	high = align_down(high, page_size);
	return low < high && size <= high - low ? high - size : 0;
}

/* The first gpa that the initrd may not have. */
static uint64_t find_limit(const struct kernel_image *image)
{
	return image->initrd_max == UINT64_MAX ? UINT64_MAX : image->initrd_max + 1;
}

/*
 * Above the kernel, else below it, and above 4 GiB only when nothing else is
 * large enough: not all kernels reach it there as early as they want to.
 */
static uint64_t find_place(
	const struct guest_memory *memory, const struct kernel_image *image, uint64_t size)
{
	uint64_t limit = find_limit(image);
	const struct guest_memory_region *low = guest_memory_region(memory, 0);
	uint64_t gpa = place_below(max_u64(image->end, LAYOUT_KERNEL_START),
		min_u64(low->gpa + low->size, limit), size);

	if (gpa == 0)
		gpa = place_below(LAYOUT_KERNEL_START,
			min_u64(min_u64(image->start, low->gpa + low->size), limit), size);
	for (size_t i = 1; gpa == 0 && i < guest_memory_region_count(memory); i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		gpa = place_below(region->gpa, min_u64(region->gpa + region->size, limit), size);
	}
	return gpa;
}

/* Says how much memory would do, or that none would. */
static int refuse_size(const char *path, const struct kernel_image *image, uint64_t size)
{
	uint64_t low_end = min_u64(find_limit(image), LAYOUT_LOW_RAM_END);
	uint64_t memory = align_up(image->end, page_size) + size;

	if (memory > low_end) {
		/* It has to lie above 4 GiB, where the RAM after the first 3 GiB is. */
		memory = LAYOUT_LOW_RAM_END + size;
		if (find_limit(image) <= LAYOUT_HIGH_RAM + size) {
			log_error("cannot load initrd '%s': this kernel takes one below 0x%" PRIx64
				  " only, and it has %" PRIu64 " MiB; pass a smaller one",
				path, low_end, size / MIB);
			return -ENOEXEC;
		}
	}
	log_error("cannot load initrd '%s': the guest's memory is too small for it (%" PRIu64
		  " MiB) and the kernel; pass --mem %" PRIu64 " or more",
		path, align_up(size, MIB) / MIB, align_up(memory, 32 * MIB) / MIB);
	return -ENOMEM;
}

int initrd_load(int fd, const char *path, const struct guest_memory *memory,
	const struct kernel_image *image, uint64_t *ret_gpa, uint64_t *ret_size)
{
	uint64_t size = 0;
	int r = find_size(fd, path, &size);

	if (r < 0)
		return r;
	uint64_t rounded = align_up(size, page_size); /* a file has less than 2^63 bytes */
	uint64_t gpa = find_place(memory, image, rounded);

	if (gpa == 0)
		return refuse_size(path, image, rounded);
	r = guest_memory_read_file(memory, gpa, fd, 0, size);
	if (r == -ENODATA)
		return refuse(path, "shorter than a moment ago");
	if (r < 0)
		return report_errno(path, r);
	*ret_gpa = gpa;
	*ret_size = size;
	return 0;
}
