// SPDX-License-Identifier: BSD-3-Clause
/*
 * Guest memory. The gpa and the length of every call may come from the guest;
 * guest_memory_at() is the one place that checks them.
 */
#include "memory/guest_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"

static const uint64_t small_page = 4096;
static const uint64_t huge_page = 2 << 20;

struct guest_memory {
	int fd;
	uint8_t *mapping;
	uint64_t size;
	size_t count;
	struct guest_memory_region regions[GUEST_MEMORY_REGIONS_MAX];
};

/* Checks the ranges and lays them out one after the other in the memfd. */
static int plan_regions(struct guest_memory *memory, const struct guest_memory_range *ranges,
	size_t count, uint64_t page_size)
{
	uint64_t previous_end = 0;

	if (count == 0 || count > GUEST_MEMORY_REGIONS_MAX)
		return -EINVAL;
	for (size_t i = 0; i < count; i++) {
		uint64_t gpa = ranges[i].gpa;
		uint64_t size = ranges[i].size;
		uint64_t end;

		if (size == 0 || gpa % page_size != 0 || size % page_size != 0)
			return -EINVAL;
		if (gpa < previous_end || __builtin_add_overflow(gpa, size, &end) ||
			end > INT64_MAX)
			return -EINVAL;
		memory->regions[i] = (struct guest_memory_region){
			.gpa = gpa,
			.size = size,
			.file_offset = memory->size,
		};
		memory->size += size;
		previous_end = end;
	}
	memory->count = count;
	return 0;
}

static int map_memfd(struct guest_memory *memory, unsigned flags)
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
	memory->mapping = mapping;
	memory->fd = fd_steal(&fd);
	for (size_t i = 0; i < memory->count; i++)
		memory->regions[i].hva = memory->mapping + memory->regions[i].file_offset;
	if ((flags & GUEST_MEMORY_PREALLOCATE) != 0 &&
		madvise(memory->mapping, memory->size, MADV_POPULATE_WRITE) < 0)
		return -errno;
	return 0;
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
		r = map_memfd(memory, flags);
	if (r < 0) {
		guest_memory_free(memory);
		return r;
	}
	*ret_memory = memory;
	return 0;
}

void guest_memory_free(struct guest_memory *memory)
{
	if (memory == NULL)
		return;
	if (memory->mapping != NULL)
		munmap(memory->mapping, memory->size);
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

void *guest_memory_at(const struct guest_memory *memory, uint64_t gpa, uint64_t size)
{
	if (size == 0)
		return NULL;
	for (size_t i = 0; i < memory->count; i++) {
		const struct guest_memory_region *region = &memory->regions[i];

		if (gpa < region->gpa || gpa - region->gpa >= region->size)
			continue;
		uint64_t offset = gpa - region->gpa;

		return size <= region->size - offset ? region->hva + offset : NULL;
	}
	return NULL;
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

int guest_memory_read_file(
	const struct guest_memory *memory, uint64_t gpa, int fd, uint64_t offset, uint64_t size)
{
	void *target = guest_memory_at(memory, gpa, size);

	if (target == NULL)
		return -EFAULT;
	return fd_pread_full(fd, target, size, offset);
}
