// SPDX-License-Identifier: BSD-3-Clause
/* Where an initrd goes: as high as it may, never on the kernel, or refused with the size needed. */
#include "unit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "images.h"
#include "x86_64/layout.h"

enum { PAGE = 4096 };

static const struct {
	const char *name;
	uint64_t start; /* of the kernel, in KiB, as all but max */
	uint64_t end;
	uint64_t max;
	uint64_t low;  /* RAM from 0 */
	uint64_t high; /* and from 4 GiB */
	uint64_t size;
	int error;
	uint64_t gpa; /* expected, in KiB */
	const char *message;
} cases[] = {
	{ "at the top", 16384, 20480, UINT64_MAX, 65536, 0, 1024, 0, 65536 - 1024, "" },
	{ "exactly the rest", 16384, 20480, UINT64_MAX, 65536, 0, 45056, 0, 20480, "" },
	{ "below the kernel", 16384, 20480, UINT64_MAX, 24576, 0, 8192, 0, 8192, "" },
	{ "exactly below the kernel", 16384, 20480, UINT64_MAX, 24576, 0, 15360, 0, 1024, "" },
	{ "high although low is free", 16384, 20480, UINT64_MAX, 65536, 32768, 1024, 0,
		65536 - 1024, "" },
	{ "above 4 GiB", 16384, 20480, UINT64_MAX, 24576, 32768, 20480, 0,
		(4 << 20) + 32768 - 20480, "" },
	{ "not above 4 GiB", 16384, 20480, 0xffffffff, 24576, 32768, 20480, -ENOMEM, 0,
		"--mem 64 or more" },
	{ "below initrd_max", 16384, 20480, 0x1ffffff, 65536, 0, 1024, 0, 32768 - 1024, "" },
	{ "initrd_max is no page", 16384, 20480, 0x1fffffe, 65536, 0, 1024, 0, 32768 - 1024 - 4,
		"" },
	{ "one page too large", 16384, 20480, UINT64_MAX, 65536, 0, 45060, -ENOMEM, 0,
		"pass --mem 96 or more" },
	{ "larger than RAM", 16384, 20480, UINT64_MAX, 65536, 0, 131072, -ENOMEM, 0,
		"pass --mem 160 or more" },
	{ "initrd_max below the kernel", 16384, 20480, 0x7fffff, 65536, 0, 8192, -ENOEXEC, 0,
		"takes one below 0x800000 only" },
	{ "initrd_max 0", 16384, 20480, 0, 65536, 0, 4, -ENOEXEC, 0, "takes one below 0x1 only" },
	{ "never in 4 GiB", 16384, 20480, 0xffffffff, 65536, 0, UINT64_C(3) << 20, -ENOEXEC, 0,
		"takes one below 0xc0000000 only" },
	{ "only above 4 GiB", 16384, 20480, UINT64_MAX, 65536, 0, UINT64_C(3) << 20, -ENOMEM, 0,
		"pass --mem 6144 or more" },
	{ "as large as a file can be", 16384, 20480, UINT64_MAX, 65536, 0, INT64_MAX / 1024 - 8,
		-ENOMEM, 0, "pass --mem" },
	{ "kernel at 1 MiB", 1024, 65536, UINT64_MAX, 65536, 0, 4, -ENOMEM, 0, "--mem 96 or more" },
};

static struct guest_memory *make_memory(size_t index)
{
	const struct guest_memory_range ranges[] = {
		{ 0, cases[index].low * KIB },
		{ LAYOUT_HIGH_RAM, cases[index].high * KIB },
	};
	struct guest_memory *memory = NULL;

	assert_int_equal(
		guest_memory_create(ranges, cases[index].high != 0 ? 2 : 1, 0, &memory), 0);
	return memory;
}

static void check_case(size_t index)
{
	const struct kernel_image image = {
		.start = cases[index].start * KIB,
		.end = cases[index].end * KIB,
		.initrd_max = cases[index].max,
	};
	struct guest_memory *memory = make_memory(index);
	CLEANUP_FD int fd = memfd_create("initrd", MFD_CLOEXEC);
	uint64_t gpa = 77;
	uint64_t size = 77;
	struct capture capture;

	assert_int_equal(ftruncate(fd, (off_t)(cases[index].size * KIB)), 0);
	capture_begin(&capture);
	int r = initrd_load(fd, "some/initrd", memory, &image, &gpa, &size);

	capture_end(&capture);
	guest_memory_free(memory);
	if (r != cases[index].error || capture_lines(&capture) != (r < 0) ||
		strstr(capture.text, cases[index].message) == NULL)
		fail_msg("%s: %d: %s", cases[index].name, r, capture.text);
	if (r < 0 && (gpa != 77 || size != 77))
		fail_msg("%s: the result was touched", cases[index].name);
	if (r == 0 && (gpa != cases[index].gpa * KIB || size != cases[index].size * KIB))
		fail_msg("%s: %" PRIu64 " bytes at %" PRIu64 " KiB", cases[index].name, size,
			gpa / KIB);
}

static void test_places(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_case(i);
}

static const struct kernel_image kernel = {
	.start = 0x1000000, .end = 0x1400000, .initrd_max = UINT64_MAX
};

/* All bytes arrive, and nothing around them changes. */
static void test_content(void **state)
{
	struct guest_memory *memory = test_memory(TEST_MEMORY_MIB);
	struct test_file file = { .size = PAGE + 1 };
	uint64_t gpa = 0;
	uint64_t size = 0;

	(void)state;
	test_fill(file.bytes, file.size);
	CLEANUP_FD int fd = test_memfd(&file);

	assert_int_equal(initrd_load(fd, "initrd", memory, &kernel, &gpa, &size), 0);
	assert_int_equal(size, PAGE + 1);
	assert_int_equal(gpa, TEST_MEMORY_MIB * MIB - 2 * PAGE);
	const uint8_t *content = guest_memory_at(memory, gpa, 2 * PAGE);

	assert_memory_equal(content, file.bytes, file.size);
	for (size_t i = file.size; i < 2 * PAGE; i++)
		assert_int_equal(content[i], 0);
	assert_int_equal(*(uint8_t *)guest_memory_at(memory, gpa - 1, 1), 0);
	guest_memory_free(memory);
}

static off_t missing; /* of what fstat() tells is there */

int fstat(int fd, struct stat *buf)
{
	int r = (int)syscall(SYS_fstat, fd, buf);

	if (r == 0)
		buf->st_size += missing;
	return r;
}

static void check_refused(int fd, int error, const char *message)
{
	struct guest_memory *memory = test_memory(TEST_MEMORY_MIB);
	uint64_t gpa = 0;
	uint64_t size = 0;
	struct capture capture;

	capture_begin(&capture);
	int r = initrd_load(fd, "some/initrd", memory, &kernel, &gpa, &size);

	capture_end(&capture);
	if (r != error || capture_lines(&capture) != 1 || strstr(capture.text, message) == NULL)
		fail_msg("no '%s': %d: %s", message, r, capture.text);
	guest_memory_free(memory);
	if (fd >= 0)
		close(fd);
}

static void test_types(void **state)
{
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	check_refused(fds[0], -ENOEXEC, "cannot load initrd 'some/initrd': it is a pipe");
	check_refused(open("/", O_RDONLY | O_CLOEXEC), -ENOEXEC, "it is a directory; pass a cpio");
	check_refused(open("/dev/null", O_RDONLY | O_CLOEXEC), -ENOEXEC, "or a device");
	check_refused(memfd_create("empty", MFD_CLOEXEC), -ENOEXEC, "it is empty; pass a cpio");
	check_refused(-1, -EBADF, "cannot read initrd 'some/initrd': Bad file descriptor");
	close(fds[1]);
}

/* Somebody cuts it while we look. */
static void test_shorter_than_it_was(void **state)
{
	int fd = memfd_create("shrinks", MFD_CLOEXEC);

	(void)state;
	assert_int_equal(ftruncate(fd, PAGE), 0);
	missing = 1;
	check_refused(fd, -ENOEXEC, "it is shorter than a moment ago");
	missing = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_content),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_shorter_than_it_was),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
