// SPDX-License-Identifier: BSD-3-Clause
/*
 * Guest memory. The gpa and the length of every call may come from the guest;
 * guest_memory_at() is the one place that checks them. Files of another process
 * may be anything, and of any size.
 */
#include "memory/guest_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

static const uint64_t small_page = 4096;
static const uint64_t huge_page = 2 << 20;

#define POPULATE_BYTES (UINT64_C(256) << 20)

/* Whether a range of guest memory can be there at all. */
static bool is_range(uint64_t gpa, uint64_t size, uint64_t page_size)
{
	uint64_t end;

	return size != 0 && gpa % page_size == 0 && size % page_size == 0 &&
	       !__builtin_add_overflow(gpa, size, &end) && end <= INT64_MAX;
}

/* Checks the ranges and lays them out one after the other in one mapping. */
static int plan_regions(struct guest_memory *memory, const struct guest_memory_range *ranges,
	size_t count, uint64_t page_size)
{
	uint64_t previous_end = 0;

	if (count == 0 || count > GUEST_MEMORY_REGIONS_MAX)
		return -EINVAL;
	for (size_t i = 0; i < count; i++) {
		uint64_t gpa = ranges[i].gpa;
		uint64_t size = ranges[i].size;

		if (!is_range(gpa, size, page_size) || gpa < previous_end)
			return -EINVAL;
		memory->regions[i] = (struct guest_memory_region){
			.gpa = gpa,
			.size = size,
			.file_offset = memory->size,
		};
		memory->size += size;
		previous_end = gpa + size;
	}
	memory->count = count;
	return 0;
}

static int map_memfd(struct guest_memory *memory, unsigned flags, uint8_t **ret_first)
{
	bool huge = (flags & GUEST_MEMORY_HUGE_PAGES) != 0;
	CLEANUP_FD int fd = memfd_create("crosvm-guest",
		MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0));

	if (fd < 0 || ftruncate(fd, (off_t)memory->size) < 0)
		return -errno;
	/* Sealed: no process that gets this fd can make the others fault by shrinking it. */
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	/* Huge pages are reserved here: without that, a missing one would be a SIGBUS later. */
	void *mapping = mmap(NULL, memory->size, PROT_READ | PROT_WRITE,
		MAP_SHARED | (huge ? 0 : MAP_NORESERVE), fd, 0);

	if (mapping == MAP_FAILED)
		return -errno;
	memory->mappings[memory->mapping_count++] =
		(struct guest_memory_mapping){ mapping, memory->size };
	memory->reserved = huge;
	memory->fd = fd_steal(&fd);
	*ret_first = mapping;
	return 0;
}

/*
 * Aligned as huge pages are, in the guest as here, so that the host can use
 * them; but for the first, of which a guest touches little: its tables, and
 * all of the smallest guests.
 */
static int map_private(struct guest_memory *memory, uint8_t **ret_first)
{
	uint64_t size = memory->size + huge_page;
	void *mapping = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mapping == MAP_FAILED)
		return -errno;
	memory->mappings[memory->mapping_count++] = (struct guest_memory_mapping){ mapping, size };
	memory->private = true;
	uint8_t *first = (uint8_t *)align_up((uintptr_t)mapping, huge_page);

	*ret_first = first;
	/* A guest's secrets are no part of our core. */
	(void)madvise(first, memory->size, MADV_DONTDUMP);
	if (memory->size > huge_page)
		(void)madvise(first + huge_page, memory->size - huge_page, MADV_HUGEPAGE);
	// cppcheck-suppress memleak ; guest_memory_free() unmaps it
	return 0;
}

/* Who is to end may hold the signal back, to be looked at when the VM runs. */
static bool is_asked_to_end(void)
{
	sigset_t pending;

	return sigpending(&pending) == 0 &&
	       (sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1 ||
		       sigismember(&pending, SIGHUP) == 1);
}

/* Page by page where the kernel cannot do it at once (before Linux 5.14). Nothing is in them yet.
 */
static void touch(uint8_t *first, uint64_t size)
{
	for (uint64_t offset = 0; offset < size; offset += small_page)
		*(volatile uint8_t *)(first + offset) = 0;
}

/* In pieces, since it may take minutes. */
static int populate(uint8_t *first, uint64_t size)
{
	for (uint64_t done = 0, piece; done < size; done += piece) {
		piece = min_u64(size - done, POPULATE_BYTES);
		if (is_asked_to_end())
			return -EINTR;
		if (madvise(first + done, piece, MADV_POPULATE_WRITE) == 0)
			continue;
		if (errno != EINVAL)
			return -errno;
		touch(first + done, piece);
	}
	return 0;
}

static int map_regions(struct guest_memory *memory, unsigned flags)
{
	bool is_file = (flags & (GUEST_MEMORY_SHARED | GUEST_MEMORY_HUGE_PAGES)) != 0;
	uint8_t *first = NULL;
	int r = is_file ? map_memfd(memory, flags, &first) : map_private(memory, &first);

	if (first == NULL)
		return r;
	for (size_t i = 0; i < memory->count; i++)
		memory->regions[i].hva = first + memory->regions[i].file_offset;
	for (size_t i = 0; r == 0 && (flags & GUEST_MEMORY_PREALLOCATE) != 0 && i < memory->count;
		i++)
		r = populate(memory->regions[i].hva, memory->regions[i].size);
	return r;
}

int guest_memory_create(const struct guest_memory_range *ranges, size_t count, unsigned flags,
	struct guest_memory **ret_memory)
{
	struct guest_memory *memory = calloc(1, sizeof(*memory));

	if (memory == NULL)
		return -ENOMEM;
	memory->fd = -1;
	bool huge = (flags & GUEST_MEMORY_HUGE_PAGES) != 0;
	int r = plan_regions(memory, ranges, count, huge ? huge_page : small_page);

	if (r == 0)
		r = map_regions(memory, flags);
	if (r < 0) {
		guest_memory_free(memory);
		return r;
	}
	*ret_memory = memory;
	return 0;
}

/* What a mapping of the file must begin and end at: hugetlbfs says its page size here. */
static uint64_t file_page_size(const struct stat *st)
{
	uint64_t size = (uint64_t)st->st_blksize;

	return size > small_page && size <= GIB && (size & (size - 1)) == 0 ? size : small_page;
}

static bool overlaps(const struct guest_memory *memory, uint64_t gpa, uint64_t size)
{
	for (size_t i = 0; i < memory->count; i++) {
		const struct guest_memory_region *region = &memory->regions[i];

		if (gpa < region->gpa + region->size && region->gpa < gpa + size)
			return true;
	}
	return false;
}

/* Maps one file and makes it a region. */
static int map_file(struct guest_memory *memory, const struct guest_memory_file *file)
{
	struct stat st;
	uint64_t end;

	if (!is_range(file->gpa, file->size, small_page) || file->offset % small_page != 0 ||
		overlaps(memory, file->gpa, file->size))
		return -EINVAL;
	if (fstat(file->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || __builtin_add_overflow(file->offset, file->size, &end) ||
		end > (uint64_t)st.st_size)
		return -EINVAL;
	uint64_t page_size = file_page_size(&st);
	uint64_t begin = align_down(file->offset, page_size);
	uint64_t length = align_up(end, page_size) - begin;
	uint8_t *mapping = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		file->fd, (off_t)begin);

	if (mapping == MAP_FAILED)
		return -errno;
	memory->mappings[memory->mapping_count++] =
		(struct guest_memory_mapping){ mapping, length };
	memory->reserved = memory->reserved || page_size > small_page;
	memory->regions[memory->count++] = (struct guest_memory_region){
		.gpa = file->gpa,
		.size = file->size,
		.hva = mapping + (file->offset - begin),
		.file_offset = file->offset,
	};
	// cppcheck-suppress memleak ; guest_memory_free() unmaps it
	return 0;
}

int guest_memory_create_from_files(
	const struct guest_memory_file *files, size_t count, struct guest_memory **ret_memory)
{
	if (count == 0 || count > GUEST_MEMORY_FILES_MAX)
		return -EINVAL;
	struct guest_memory *memory = calloc(1, sizeof(*memory));
	int r = 0;

	if (memory == NULL)
		return -ENOMEM;
	memory->fd = -1;
	for (size_t i = 0; r == 0 && i < count; i++)
		r = map_file(memory, &files[i]);
	if (r < 0) {
		guest_memory_free(memory);
		return r;
	}
	*ret_memory = memory;
	return 0;
}

int guest_memory_fd(const struct guest_memory *memory)
{
	return memory->fd;
}

void guest_memory_free(struct guest_memory *memory)
{
	if (memory == NULL)
		return;
	for (size_t i = 0; i < memory->mapping_count; i++)
		munmap(memory->mappings[i].address, memory->mappings[i].size);
	fd_close(&memory->fd);
	free(memory);
}

size_t guest_memory_region_count(const struct guest_memory *memory)
{
	return memory->count;
}

const struct guest_memory_region *guest_memory_region(
	const struct guest_memory *memory, size_t index)
{
	return &memory->regions[index];
}

int guest_memory_write(
	const struct guest_memory *memory, uint64_t gpa, const void *buffer, uint64_t size)
{
	void *target = guest_memory_at(memory, gpa, size);

	if (target == NULL)
		return -EFAULT;
	memcpy(target, buffer, size);
	return 0;
}

int guest_memory_read(const struct guest_memory *memory, uint64_t gpa, void *buffer, uint64_t size)
{
	const void *source = guest_memory_at(memory, gpa, size);

	if (source == NULL)
		return -EFAULT;
	memcpy(buffer, source, size);
	return 0;
}

/*
 * By the mapping and not by the memfd, which a device's process does not keep:
 * of a shared one MADV_REMOVE punches a hole into the file, and so for all who
 * map it.
 */
static int discard(const struct guest_memory *memory, uint8_t *hva, uint64_t size)
{
	if (memory->reserved)
		return -EOPNOTSUPP;
	return madvise(hva, size, memory->private ? MADV_DONTNEED : MADV_REMOVE) < 0 ? -errno : 0;
}

int guest_memory_discard_pages(
	const struct guest_memory *memory, uint64_t first_page, uint64_t count)
{
	uint64_t gpa, size;

	if (__builtin_mul_overflow(first_page, small_page, &gpa) ||
		__builtin_mul_overflow(count, small_page, &size))
		return -EFAULT;
	uint8_t *hva = guest_memory_at(memory, gpa, size);

	return hva != NULL ? discard(memory, hva, size) : -EFAULT;
}

static bool is_inside(const struct guest_memory *memory, const uint8_t *buffer, uint64_t size)
{
	for (size_t i = 0; i < memory->count; i++) {
		const struct guest_memory_region *region = &memory->regions[i];
		uint64_t offset = (uintptr_t)buffer - (uintptr_t)region->hva;

		if (offset < region->size && size <= region->size - offset)
			return true;
	}
	return false;
}

int guest_memory_discard_buffer(const struct guest_memory *memory, void *buffer, uint64_t size)
{
	uint8_t *begin = buffer;

	if (!is_inside(memory, begin, size))
		return -EFAULT;
	/* Regions begin and end with a page, so neither rounding leaves this one. */
	uint64_t skipped = align_up((uintptr_t)begin, small_page) - (uintptr_t)begin;

	if (skipped > size || size - skipped < small_page)
		return 0;
	return discard(memory, begin + skipped, align_down(size - skipped, small_page));
}

int guest_memory_read_file(
	const struct guest_memory *memory, uint64_t gpa, int fd, uint64_t offset, uint64_t size)
{
	void *target = guest_memory_at(memory, gpa, size);

	if (target == NULL)
		return -EFAULT;
	return fd_pread_full(fd, target, size, offset);
}
