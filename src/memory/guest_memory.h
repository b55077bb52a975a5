/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guest memory, seen by the guest as one or more ranges of guest physical
 * addresses (gpa). The main process makes it and maps it once: private memory
 * where all of the VM is that process, a sealed memfd where others map it too.
 * A device process maps what it is given as files.
 *
 * This is the only module that turns a gpa into a pointer. Every access names
 * its length, and an access that is not wholly inside one region fails: no
 * caller ever adds to a gpa and checks the sum itself.
 *
 * The guest writes to this memory at any time, from other threads. Whoever
 * reads something that must be checked copies it first and checks the copy.
 *
 * Created and freed by the main thread; the lookups are read-only and may run
 * in any thread.
 */
#pragma once

#include "base/util.h"

enum {
	GUEST_MEMORY_REGIONS_MAX = 2, /* of memory that we make */
	GUEST_MEMORY_FILES_MAX = 8,   /* of memory that another process made */
};

/* A range of guest physical addresses to back, in bytes, page aligned. */
struct guest_memory_range {
	uint64_t gpa;
	uint64_t size;
};

/* How the memory is had from the host. */
enum guest_memory_flags {
	GUEST_MEMORY_HUGE_PAGES = 1,  /* of 2 MiB, reserved by the administrator; of a memfd */
	GUEST_MEMORY_PREALLOCATE = 2, /* all pages now, not when they are first touched */
	GUEST_MEMORY_SHARED = 4,      /* of a memfd, which another process can map */
};

/* A range with what backs it: the mapping, and its place in the memfd or the private mapping. */
struct guest_memory_region {
	uint64_t gpa;
	uint64_t size;
	uint8_t *hva;
	uint64_t file_offset;
};

/* A range that lies in a file of another process. */
struct guest_memory_file {
	uint64_t gpa;
	uint64_t size;
	uint64_t offset; /* in the file */
	int fd;          /* borrowed: not needed any more when it is mapped */
};

struct guest_memory_mapping {
	uint8_t *address;
	uint64_t size;
};

/* The fields belong to guest_memory.c, and the regions to guest_memory_at(), which is inline. */
struct guest_memory {
	struct guest_memory_region regions[GUEST_MEMORY_FILES_MAX + 1]; /* then one of size 0 */
	size_t count;
	size_t mapping_count;
	struct guest_memory_mapping mappings[GUEST_MEMORY_FILES_MAX];
	uint64_t size; /* of what we made */
	int fd;        /* -1 when it is not one memfd of ours */
	bool reserved; /* some of it has huge pages that an administrator reserved */
	bool private;  /* no other process can map it */
};

/*
 * Makes memory for `count` ascending ranges that do not overlap. `flags` are
 * enum guest_memory_flags; without any, pages are allocated when they are first
 * touched. Private memory gets the host's transparent huge pages; a process that
 * has it must not fork(), which would copy its page tables and then its pages.
 * -EINVAL for bad ranges (huge pages want multiples of 2 MiB), -ENOMEM
 * when the host has not enough (huge pages), -EINTR when SIGINT, SIGTERM or SIGHUP
 * is pending while all pages are allocated, else -errno of memfd_create,
 * ftruncate, mmap or madvise. Free with guest_memory_free().
 */
MUST_CHECK int guest_memory_create(const struct guest_memory_range *ranges, size_t count,
	unsigned flags, struct guest_memory **ret_memory);

/*
 * Maps memory of another process, which may lie about all of it: `count` page
 * aligned ranges in any order. -EINVAL when a range is empty or not aligned,
 * when two overlap, when one is not wholly inside its file, or when that is no
 * regular file; else -errno of fstat or mmap. What is not checked: unless the
 * file is sealed, its owner may shrink it later, and accesses are SIGBUS then.
 */
MUST_CHECK int guest_memory_create_from_files(
	const struct guest_memory_file *files, size_t count, struct guest_memory **ret_memory);
void guest_memory_free(struct guest_memory *memory);

/* The sealed memfd, borrowed, for who shall map it too; -1: private memory, or mapped files. */
int guest_memory_fd(const struct guest_memory *memory);

size_t guest_memory_region_count(const struct guest_memory *memory);
const struct guest_memory_region *guest_memory_region(
	const struct guest_memory *memory, size_t index);

/*
 * The pointer to `size` bytes at `gpa`, or NULL when not all of them lie in one
 * region. A size of 0 gives NULL: there is nothing to point to. Inline, since a
 * device calls it for each descriptor.
 */
static inline void *guest_memory_at(const struct guest_memory *memory, uint64_t gpa, uint64_t size)
{
	const struct guest_memory_region *region = memory->regions;

	do {
		uint64_t offset;

		if (__builtin_sub_overflow(gpa, region->gpa, &offset) || offset >= region->size)
			continue;
		/* Also of a size of 0, which wraps. */
		return size - 1 < region->size - offset ? region->hva + offset : NULL;
	} while ((++region)->size != 0);
	return NULL;
}

/* Copies in or out. 0, or -EFAULT when the range is not guest memory. */
MUST_CHECK int guest_memory_write(
	const struct guest_memory *memory, uint64_t gpa, const void *buffer, uint64_t size);
MUST_CHECK int guest_memory_read(
	const struct guest_memory *memory, uint64_t gpa, void *buffer, uint64_t size);

/*
 * Gives memory back to the host: it reads as zeros, and costs nothing until
 * somebody writes to it again. The first names pages of 4 KiB by the numbers
 * that a guest gives them (gpa / 4096), the second a buffer that lies in guest
 * memory, of which the whole pages are given back. Any thread.
 *
 * 0, -EFAULT when not all of it lies in one region, -EOPNOTSUPP for huge pages:
 * they were reserved for this guest, and might not come back. Else -errno of
 * madvise. On failure nothing was given back.
 */
MUST_CHECK int guest_memory_discard_pages(
	const struct guest_memory *memory, uint64_t first_page, uint64_t count);
MUST_CHECK int guest_memory_discard_buffer(
	const struct guest_memory *memory, void *buffer, uint64_t size);

/*
 * Reads `size` bytes of a file at `offset` straight into guest memory. 0,
 * -EFAULT when the range is not guest memory, -ENODATA when the file is
 * shorter, else -errno.
 */
MUST_CHECK int guest_memory_read_file(
	const struct guest_memory *memory, uint64_t gpa, int fd, uint64_t offset, uint64_t size);
