// SPDX-License-Identifier: BSD-3-Clause
/* What is not a kernel is named, and the message says what to pass instead. */
#include "unit.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "images.h"

/* `length` bytes at `offset`, in a file of `size` bytes with 0x81 elsewhere. */
static const struct {
	const char *bytes;
	size_t length;
	size_t offset;
	size_t size;
	const char *what;
	const char *remedy;
} kinds[] = {
	{ "\x1f\x8b\x08", 3, 0, 5000, "gzip compressed", "decompress it" },
	{ "\x28\xb5\x2f\xfd", 4, 0, 5000, "zstd compressed", "decompress it" },
	{ "\xfd\x37zXZ\0", 6, 0, 5000, "xz compressed", "decompress it" },
	{ "\x04\x22\x4d\x18", 4, 0, 5000, "lz4 compressed", "decompress it" },
	{ "\x02\x21\x4c\x18", 4, 0, 5000, "lz4 compressed", "decompress it" },
	{ "BZh9", 4, 0, 5000, "bzip2 compressed", "decompress it" },
	{ "\x89LZO\0\r\n\x1a\n", 9, 0, 5000, "lzop compressed", "decompress it" },
	{ "\x5d\0\0\x80", 4, 0, 5000, "lzma compressed", "--initrd" },
	{ "ARM\x64", 4, 0x38, 5000, "an arm64 kernel", "x86-64" },
	{ "RSC\x05", 4, 0x38, 5000, "a RISC-V kernel", "x86-64" },
	{ "zimg", 4, 4, 5000, "zboot", "x86-64" },
	{ "ANDROID!", 8, 0, 5000, "an Android boot image", "unpack it" },
	{ "\x27\x05\x19\x56", 4, 0, 5000, "a U-Boot image", "unpack it" },
	{ "070701", 6, 0, 5000, "a cpio archive", "--initrd" },
	{ "070707", 6, 0, 5000, "a cpio archive", "--initrd" },
	{ "\xc7\x71", 2, 0, 5000, "a cpio archive", "--initrd" },
	{ "!<arch>\n", 8, 0, 5000, "Debian package", "unpack it" },
	{ "ustar", 5, 257, 5000, "a tar archive", "unpack it" },
	{ "PK\x03\x04", 4, 0, 5000, "a zip archive", "unpack it" },
	{ "QFI\xfb", 4, 0, 5000, "a qcow2 disk", "--root" },
	{ "hsqs", 4, 0, 5000, "a squashfs", "--root" },
	{ "XFSB", 4, 0, 5000, "an XFS", "--root" },
	{ "\xe2\xe1\xf5\xe0", 4, 1024, 5000, "an EROFS", "--root" },
	{ "\x53\xef", 2, 0x438, 5000, "ext4", "--root" },
	{ "_BHRfS_M", 8, 0x10040, 0x11000, "a btrfs", "--root" },
	{ "CD001", 5, 0x8001, 0x9000, "an ISO 9660", "--root" },
	{ "EFI PART", 8, 512, 5000, "a GPT", "--root" },
	{ "EFI PART", 8, 4096, 9000, "a GPT", "--root" },
	{ "\x55\xaa", 2, 510, 5000, "a boot sector", "--root" },
	{ "MZ", 2, 0, 5000, "an EFI application", "x86-64" },
	{ "#!/bin/sh\n", 10, 0, 10, "a script", "x86-64" },
	{ "hello, \tworld\r\n", 15, 0, 15, "a text file", "x86-64" },
	{ "\xc3\xa4\n", 3, 0, 3, "a text file", "x86-64" },
	{ "\0\0\0\0", 4, 0, 4, "zeroes", "--root" },
	{ "\x01\x02\x03", 3, 0, 5000, "not a kernel that crosvm knows", "x86-64" },
	{ "\x01", 1, 0, 1, "not a kernel that crosvm knows", "x86-64" },
};

/* Some kinds are recognised far into the file, beyond struct test_file. */
static int make_file(size_t index)
{
	static uint8_t bytes[0x11000];
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0 && kinds[index].size <= sizeof(bytes));
	memset(bytes, 0x81, sizeof(bytes));
	bytes[1] = 0x02; /* nor is it text */
	memcpy(bytes + kinds[index].offset, kinds[index].bytes, kinds[index].length);
	assert_int_equal(fd_write_full(fd, bytes, kinds[index].size), 0);
	return fd;
}

/* Refused by one line with both words. The descriptor is closed. */
static void check_refused(int fd, const char *what, const char *remedy)
{
	struct guest_memory *memory = test_memory(TEST_MEMORY_MIB);
	struct kernel_image image;
	struct capture capture;

	assert_true(fd >= 0);
	capture_begin(&capture);
	int r = kernel_image_load(fd, "some/\x1b[31mfile", memory, &image);

	capture_end(&capture);
	if (r != -ENOEXEC || capture_lines(&capture) != 1)
		fail_msg("%s: %d: %s", what, r, capture.text);
	const char *found = strstr(capture.text, what);

	if (strstr(capture.text, "crosvm: cannot load kernel 'some/?[31mfile': it is ") !=
			capture.text ||
		found == NULL || strchr(found, ';') == NULL ||
		strstr(strchr(found, ';'), remedy) == NULL)
		fail_msg("no '%s; %s' in: %s", what, remedy, capture.text);
	guest_memory_free(memory);
	close(fd);
}

static void test_kinds(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		check_refused(make_file(i), kinds[i].what, kinds[i].remedy);
}

static void test_uki(void **state)
{
	struct test_file file = { .size = 0x1000, .bytes = "MZ" };

	(void)state;
	memcpy(file.bytes + 0x200, ".linux\0\0", 8);
	check_refused(test_memfd(&file), "a unified kernel image (UKI)", "objcopy");
}

/* Descriptors that are not regular files; none of these may block. */
static void test_types(void **state)
{
	int pipe_fds[2];
	int sockets[2];

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	check_refused(pipe_fds[0], "a pipe", "file");
	check_refused(sockets[0], "not a regular file", "x86-64");
	check_refused(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "a directory", "in it");
	check_refused(open("/dev/null", O_RDONLY | O_CLOEXEC), "a character device", "x86-64");
	check_refused(memfd_create("empty", MFD_CLOEXEC), "an empty file", "x86-64");
	close(pipe_fds[1]);
	close(sockets[1]);
}

static void test_unreadable(void **state)
{
	struct guest_memory *memory = test_memory(TEST_MEMORY_MIB);
	struct kernel_image image;
	struct capture capture;

	(void)state;
	capture_begin(&capture);
	int r = kernel_image_load(-1, "gone", memory, &image);

	capture_end(&capture);
	assert_int_equal(r, -EBADF);
	assert_string_equal(
		capture.text, "crosvm: cannot read kernel 'gone': Bad file descriptor\n");
	guest_memory_free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_uki),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_unreadable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
