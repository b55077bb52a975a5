// SPDX-License-Identifier: BSD-3-Clause
/*
 * Guest memory: every access is inside one region or refused, for all gpas and
 * lengths up to 2^64; the memfd cannot change its size.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "memory/guest_memory.h"

#define HIGH (4 * GIB)

static struct guest_memory *make_memory(void)
{
	const struct guest_memory_range ranges[] = { { 0, 2 * MIB }, { HIGH, MIB } };
	struct guest_memory *memory = NULL;

	assert_int_equal(guest_memory_create(ranges, 2, GUEST_MEMORY_SHARED, &memory), 0);
	return memory;
}

static const struct {
	uint64_t gpa;
	uint64_t size;
	bool inside;
} accesses[] = {
	{ 0, 1, true },
	{ 0, 2 * MIB, true },
	{ 2 * MIB - 1, 1, true },
	{ HIGH, MIB, true },
	{ HIGH + MIB - 1, 1, true },
	/* nothing to point to */
	{ 0, 0, false },
	{ MIB, 0, false },
	/* one byte too far */
	{ 0, 2 * MIB + 1, false },
	{ 1, 2 * MIB, false },
	{ 2 * MIB - 1, 2, false },
	{ 2 * MIB, 1, false },
	{ HIGH - 1, 1, false },
	{ HIGH - 1, 2, false },
	{ HIGH, MIB + 1, false },
	{ HIGH + MIB, 1, false },
	/* into the other region: contiguous in the file, not in the guest */
	{ 0, 3 * MIB, false },
	{ MIB, HIGH, false },
	/* sums that wrap */
	{ 1, UINT64_MAX, false },
	{ MIB, UINT64_MAX - MIB + 1, false },
	{ MIB, UINT64_MAX - MIB + 2, false },
	{ HIGH, UINT64_MAX - HIGH + 2, false },
	{ UINT64_MAX, 1, false },
	{ UINT64_MAX, 2, false },
	{ UINT64_MAX, UINT64_MAX, false },
	{ UINT64_C(1) << 63, UINT64_C(1) << 63, false },
};

static void test_bounds(void **state)
{
	struct guest_memory *memory = make_memory();
	uint8_t byte = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(accesses); i++) {
		uint64_t gpa = accesses[i].gpa;
		uint64_t size = accesses[i].size;
		uint8_t *bytes = guest_memory_at(memory, gpa, size);

		if ((bytes != NULL) != accesses[i].inside)
			fail_msg("0x%lx + 0x%lx: %s", gpa, size, bytes != NULL ? "given" : "NULL");
		if (bytes != NULL) {
			bytes[0] = bytes[size - 1] = 1;
			continue;
		}
		/* The buffer is one byte: a copy that is not refused is an overflow. */
		assert_int_equal(guest_memory_write(memory, gpa, &byte, size), -EFAULT);
		assert_int_equal(guest_memory_read(memory, gpa, &byte, size), -EFAULT);
		assert_int_equal(guest_memory_read_file(memory, gpa, -1, 0, size), -EFAULT);
	}
	guest_memory_free(memory);
}

static void test_copies(void **state)
{
	struct guest_memory *memory = make_memory();
	const uint64_t gpas[] = { 0, 2 * MIB - 8, HIGH, HIGH + MIB - 8 };
	uint64_t value = 0;

	(void)state;
	for (uint64_t i = 0; i < ARRAY_SIZE(gpas); i++) {
		assert_int_equal(guest_memory_read(memory, gpas[i], &value, 8), 0);
		assert_int_equal(value, 0); /* new memory is zero */
		value = 0x1111111111111111 * (i + 1);
		assert_int_equal(guest_memory_write(memory, gpas[i], &value, 8), 0);
	}
	for (uint64_t i = 0; i < ARRAY_SIZE(gpas); i++) {
		assert_int_equal(guest_memory_read(memory, gpas[i], &value, 8), 0);
		assert_int_equal(value, 0x1111111111111111 * (i + 1));
	}
	guest_memory_free(memory);
}

static void test_read_file(void **state)
{
	struct guest_memory *memory = make_memory();
	CLEANUP_FD int fd = memfd_create("file", MFD_CLOEXEC);
	const char text[] = "0123456789";
	char found[4];

	(void)state;
	assert_int_equal(fd_write_full(fd, text, 10), 0);
	assert_int_equal(guest_memory_read_file(memory, HIGH + MIB - 4, fd, 6, 4), 0);
	assert_int_equal(guest_memory_read(memory, HIGH + MIB - 4, found, 4), 0);
	assert_memory_equal(found, "6789", 4);
	assert_int_equal(guest_memory_read_file(memory, HIGH + MIB - 4, fd, 6, 5), -EFAULT);
	assert_int_equal(guest_memory_read_file(memory, 0, fd, 6, 5), -ENODATA);
	assert_int_equal(guest_memory_read_file(memory, 0, fd, 100, 1), -ENODATA);
	assert_int_equal(guest_memory_read_file(memory, 0, -1, 0, 1), -EBADF);
	guest_memory_free(memory);
}

static void test_regions(void **state)
{
	struct guest_memory *memory = make_memory();
	const struct guest_memory_region *low = guest_memory_region(memory, 0);
	const struct guest_memory_region *high = guest_memory_region(memory, 1);

	(void)state;
	assert_int_equal(guest_memory_region_count(memory), 2);
	assert_int_equal(low->gpa, 0);
	assert_int_equal(low->size, 2 * MIB);
	assert_int_equal(low->file_offset, 0);
	assert_int_equal(high->gpa, HIGH);
	assert_int_equal(high->size, MIB);
	assert_int_equal(high->file_offset, 2 * MIB);
	assert_ptr_equal(guest_memory_at(memory, HIGH + 5, 1), high->hva + 5);
	guest_memory_free(memory);
	guest_memory_free(NULL);
}

static const struct {
	struct guest_memory_range ranges[GUEST_MEMORY_REGIONS_MAX + 1];
	size_t count;
} bad_ranges[] = {
	{ { { 0, MIB } }, 0 },
	{ { { 0, MIB }, { MIB, MIB }, { 2 * MIB, MIB } }, 3 },
	{ { { 0, 0 } }, 1 },
	{ { { 0, 4095 } }, 1 },
	{ { { 1, 4096 } }, 1 },
	{ { { 0, 2 * MIB }, { MIB, MIB } }, 2 },
	{ { { MIB, MIB }, { 0, MIB } }, 2 },
	{ { { UINT64_MAX - 4095, 4096 } }, 1 },
	{ { { UINT64_MAX - 4095, 8192 } }, 1 },
	{ { { UINT64_C(1) << 63, 4096 } }, 1 },
};

static void test_bad_ranges(void **state)
{
	struct guest_memory *const untouched = (struct guest_memory *)(uintptr_t)0x5a;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_ranges); i++) {
		struct guest_memory *memory = untouched;

		assert_int_equal(guest_memory_create(bad_ranges[i].ranges, bad_ranges[i].count,
					 GUEST_MEMORY_SHARED, &memory),
			-EINVAL);
		assert_ptr_equal(memory, untouched);
	}
}

/* Finds the memfd as a device process would: among the descriptors. */
static int find_memfd(void)
{
	for (int fd = 3; fd < 64; fd++) {
		char path[64];
		char target[64] = { 0 };

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (readlink(path, target, sizeof(target) - 1) > 0 &&
			strstr(target, "memfd:crosvm-guest") != NULL)
			return fd;
	}
	return -1;
}

static void test_sealed(void **state)
{
	struct guest_memory *memory = make_memory();
	int fd = find_memfd();

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)MIB), -1);
	assert_int_equal(ftruncate(fd, (off_t)(4 * MIB)), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
	guest_memory_free(memory);
	assert_int_equal(find_memfd(), -1);
}

static uint64_t allocated(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* Pages come when they are touched; with PREALLOCATE all of them at once. */
static void test_preallocated(void **state)
{
	const struct guest_memory_range ranges[] = { { 0, 2 * MIB }, { 4 * GIB, MIB } };
	struct guest_memory *memory;

	(void)state;
	assert_int_equal(guest_memory_create(ranges, 2, GUEST_MEMORY_SHARED, &memory), 0);
	assert_int_equal(allocated(guest_memory_fd(memory)), 0);
	guest_memory_free(memory);
	assert_int_equal(guest_memory_create(ranges, 2,
				 GUEST_MEMORY_SHARED | GUEST_MEMORY_PREALLOCATE, &memory),
		0);
	assert_int_equal(allocated(guest_memory_fd(memory)), 3 * MIB);
	guest_memory_free(memory);
}

/* It may take minutes, and whoever waits for its end shall not. */
static void test_preallocation_ends_by_a_signal(void **state)
{
	const struct guest_memory_range range = { 0, 2 * MIB };
	struct guest_memory *memory;
	sigset_t set, before;
	int number;

	(void)state;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	assert_int_equal(sigprocmask(SIG_BLOCK, &set, &before), 0);
	assert_int_equal(raise(SIGTERM), 0);
	assert_int_equal(guest_memory_create(&range, 1, GUEST_MEMORY_PREALLOCATE, &memory), -EINTR);
	assert_int_equal(sigwait(&set, &number), 0);
	assert_int_equal(guest_memory_create(&range, 1, GUEST_MEMORY_PREALLOCATE, &memory), 0);
	guest_memory_free(memory);
	assert_int_equal(sigprocmask(SIG_SETMASK, &before, NULL), 0);
}

/* Private memory: no file, laid out as huge pages want it, given back and allocated as the other
 * kind is. */
static void test_private(void **state)
{
	const struct guest_memory_range ranges[] = { { 0, 6 * MIB }, { HIGH, 4 * MIB } };
	struct guest_memory *memory;
	unsigned char resident[10 * MIB / 4096];

	(void)state;
	for (unsigned flags = 0; flags <= GUEST_MEMORY_PREALLOCATE;
		flags += GUEST_MEMORY_PREALLOCATE) {
		assert_int_equal(guest_memory_create(ranges, 2, flags, &memory), 0);
		assert_int_equal(guest_memory_fd(memory), -1);
		assert_int_equal(find_memfd(), -1);
		uint8_t *low = guest_memory_at(memory, 0, 6 * MIB);
		uint8_t *high = guest_memory_at(memory, HIGH, 4 * MIB);

		assert_int_equal((uintptr_t)low % (2 * MIB), 0);
		assert_int_equal((uintptr_t)high % (2 * MIB), 0);
		assert_int_equal(mincore(low, 10 * MIB, resident), 0);
		for (size_t i = 0; i < sizeof(resident); i++)
			assert_int_equal(resident[i] & 1, flags != 0);
		memset(low, 1, 6 * MIB);
		memset(high, 1, 4 * MIB);
		assert_int_equal(guest_memory_discard_pages(memory, 1, 2), 0);
		assert_int_equal(guest_memory_discard_buffer(memory, high, 4096), 0);
		assert_int_equal(low[4095], 1);
		assert_int_equal(low[4096], 0);
		assert_int_equal(low[3 * 4096 - 1], 0);
		assert_int_equal(low[3 * 4096], 1);
		assert_int_equal(high[0], 0);
		assert_int_equal(high[4096], 1);
		guest_memory_free(memory);
	}
}

/* Of huge pages there are enough or there is no memory: never a SIGBUS later. */
static void test_huge_pages(void **state)
{
	const struct guest_memory_range odd = { 0, MIB };
	const struct guest_memory_range all = { 0, UINT64_C(1) << 44 }; /* more than any host has */
	struct guest_memory *memory = NULL;

	(void)state;
	assert_int_equal(guest_memory_create(&odd, 1, GUEST_MEMORY_HUGE_PAGES, &memory), -EINVAL);
	assert_int_equal(guest_memory_create(&all, 1, GUEST_MEMORY_HUGE_PAGES, &memory), -ENOMEM);
	assert_null(memory);
	assert_int_equal(find_memfd(), -1);
}

/* What one process writes, the other reads: the same pages, by another mapping. */
static void test_files(void **state)
{
	struct guest_memory *owner = make_memory();
	struct guest_memory *mapped = NULL;
	struct guest_memory_file files[2];
	int fd = guest_memory_fd(owner);

	(void)state;
	assert_int_equal(fd, find_memfd());
	for (size_t i = 0; i < 2; i++) {
		const struct guest_memory_region *region = guest_memory_region(owner, 1 - i);

		files[i] = (struct guest_memory_file){ region->gpa, region->size,
			region->file_offset, fd };
	}
	assert_int_equal(guest_memory_create_from_files(files, 2, &mapped), 0);
	assert_int_equal(guest_memory_fd(mapped), -1);
	assert_int_equal(guest_memory_region_count(mapped), 2);
	for (size_t i = 0; i < ARRAY_SIZE(accesses); i++)
		assert_true((guest_memory_at(mapped, accesses[i].gpa, accesses[i].size) != NULL) ==
			    accesses[i].inside);
	for (uint64_t gpa = HIGH; gpa < HIGH + MIB; gpa += 4096) {
		assert_int_equal(guest_memory_write(owner, gpa, &gpa, sizeof(gpa)), 0);
		assert_memory_equal(guest_memory_at(mapped, gpa, sizeof(gpa)), &gpa, sizeof(gpa));
	}
	guest_memory_free(owner);
	assert_int_equal(find_memfd(), -1); /* no descriptor is kept, the pages are */
	assert_non_null(guest_memory_at(mapped, HIGH, 1));
	guest_memory_free(mapped);
}

static void test_bad_files(void **state)
{
	struct guest_memory *const untouched = (struct guest_memory *)(uintptr_t)0x5a;
	struct guest_memory *owner = make_memory();
	int fd = guest_memory_fd(owner);
	const struct guest_memory_file good = { 0, MIB, 0, fd };
	const struct guest_memory_file bad[] = {
		{ 0, 0, 0, fd },
		{ 1, MIB, 0, fd },
		{ 0, MIB + 1, 0, fd },
		{ 0, MIB, 1, fd },
		{ 0, 4 * MIB, 0, fd },
		{ 0, MIB, 3 * MIB, fd },
		{ 0, MIB, UINT64_MAX - 4095, fd },
		{ 0, UINT64_MAX - 4095, 8192, fd },
		{ UINT64_MAX - 4095, 8192, 0, fd },
		{ INT64_MAX - 4095, 8192, 0, fd },
	};
	const struct guest_memory_file overlapping[] = { good, { MIB - 4096, MIB, 0, fd } };
	struct guest_memory_file many[GUEST_MEMORY_FILES_MAX + 1];
	struct guest_memory *memory = untouched;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct guest_memory_file files[] = { { 8 * MIB, MIB, 0, fd }, bad[i] };

		assert_int_equal(guest_memory_create_from_files(files, 2, &memory), -EINVAL);
	}
	assert_int_equal(guest_memory_create_from_files(overlapping, 2, &memory), -EINVAL);
	assert_int_equal(guest_memory_create_from_files(&good, 0, &memory), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (struct guest_memory_file){ i * MIB, MIB, 0, fd };
	assert_int_equal(guest_memory_create_from_files(many, ARRAY_SIZE(many), &memory), -EINVAL);
	assert_ptr_equal(memory, untouched);
	assert_int_equal(guest_memory_create_from_files(many, ARRAY_SIZE(many) - 1, &memory), 0);
	guest_memory_free(memory);
	guest_memory_free(owner);
}

static uint64_t blocks(const struct guest_memory *memory)
{
	struct stat status;

	assert_int_equal(fstat(guest_memory_fd(memory), &status), 0);
	return (uint64_t)status.st_blocks * 512;
}

/* What is given back is gone from the file, and so for all who map it; the rest is as it was. */
static void test_discard(void **state)
{
	struct guest_memory *memory = make_memory();
	uint8_t *low = guest_memory_at(memory, 0, 2 * MIB);
	uint8_t *high = guest_memory_at(memory, HIGH, MIB);

	(void)state;
	memset(low, 1, 2 * MIB);
	memset(high, 1, MIB);
	assert_int_equal(guest_memory_discard_pages(memory, 1, 2), 0);
	assert_int_equal(guest_memory_discard_pages(memory, 511, 1), 0);
	assert_int_equal(guest_memory_discard_pages(memory, HIGH / 4096, 256), 0);
	assert_int_equal(guest_memory_discard_buffer(memory, low + 4096 * 5 - 1, 8194), 0);
	assert_int_equal(blocks(memory), 3 * MIB - UINT64_C(4096) * (3 + 256 + 2));
	/* No whole page in it. */
	assert_int_equal(guest_memory_discard_buffer(memory, low + 1, 4095), 0);
	assert_int_equal(guest_memory_discard_buffer(memory, low + 4096 * 10, 4095), 0);
	assert_int_equal(guest_memory_discard_buffer(memory, low + 4096 * 10 + 1, 8190), 0);
	assert_int_equal(low[4095] + low[3 * 4096] + low[4096 * 5 - 1] + low[4096 * 7], 4);
	assert_int_equal(low[4096] + low[511 * 4096] + low[4096 * 5] + high[0], 0);
	guest_memory_free(memory);
}

static void test_discard_outside(void **state)
{
	static const struct {
		uint64_t first, count;
	} bad[] = {
		{ 0, 0 },
		{ 0, 513 },
		{ 511, 2 },
		{ 512, 1 },
		{ HIGH / 4096 - 1, 2 },
		{ HIGH / 4096, 257 },
		{ 0, UINT64_MAX },
		{ UINT64_MAX, 1 },
		/* products that wrap to what would be inside */
		{ UINT64_C(1) << 52, 1 },
		{ 0, (UINT64_C(1) << 52) + 1 },
		{ 1, UINT64_MAX },
	};
	struct guest_memory *memory = make_memory();
	uint8_t *low = guest_memory_at(memory, 0, 2 * MIB);
	uint8_t *high = guest_memory_at(memory, HIGH, MIB);

	(void)state;
	memset(low, 1, 2 * MIB);
	memset(high, 1, MIB);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(
			guest_memory_discard_pages(memory, bad[i].first, bad[i].count), -EFAULT);
	assert_int_equal(guest_memory_discard_buffer(memory, low - 4096, 4096), -EFAULT);
	assert_int_equal(guest_memory_discard_buffer(memory, low, 2 * MIB + 1), -EFAULT);
	assert_int_equal(guest_memory_discard_buffer(memory, low, UINT64_MAX), -EFAULT);
	assert_int_equal(guest_memory_discard_buffer(memory, high + MIB, 4096), -EFAULT);
	assert_int_equal(blocks(memory), 3 * MIB);
	guest_memory_free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_copies),
		cmocka_unit_test(test_read_file),
		cmocka_unit_test(test_regions),
		cmocka_unit_test(test_bad_ranges),
		cmocka_unit_test(test_sealed),
		cmocka_unit_test(test_preallocated),
		cmocka_unit_test(test_preallocation_ends_by_a_signal),
		cmocka_unit_test(test_private),
		cmocka_unit_test(test_huge_pages),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_discard_outside),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_bad_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
