// SPDX-License-Identifier: BSD-3-Clause
/*
 * Disk images: what may be opened, who may share, and the message of each
 * refusal. Every file lives in a directory of the test's own.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "capture.h"
#include "virtio/block_image.h"

enum { NOBODY = 65534 };

struct place {
	char directory[64];
	char path[80];
	struct capture capture;
};

static int set_up(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	assert_non_null(place);
	strcpy(place->directory, "/tmp/crosvm-image-XXXXXX");
	assert_non_null(mkdtemp(place->directory));
	snprintf(place->path, sizeof(place->path), "%s/disk", place->directory);
	*state = place;
	return 0;
}

static int tear_down(void **state)
{
	struct place *place = *state;

	if (unlink(place->path) < 0)
		rmdir(place->path);
	assert_int_equal(rmdir(place->directory), 0);
	free(place);
	return 0;
}

static void make_file(const struct place *place, const void *head, size_t head_size, off_t size)
{
	CLEANUP_FD int fd = open(place->path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	if (head_size != 0)
		assert_int_equal(fd_write_full(fd, head, head_size), 0);
	assert_int_equal(ftruncate(fd, size), 0);
}

/* Opens the image; the result, with what was said in place->capture. */
static int try_open(struct place *place, struct block_options options, struct block_image *image)
{
	options.path = place->path;
	if (options.block_size == 0)
		options.block_size = 512;
	capture_begin(&place->capture);
	int r = block_image_open(&options, image);

	capture_end(&place->capture);
	return r;
}

static void assert_refused(
	struct place *place, struct block_options options, int error, const char *message)
{
	struct block_image image = { .fd = -77, .direct_fd = -77, .size = 77 };

	assert_int_equal(try_open(place, options, &image), error);
	if (strstr(place->capture.text, message) == NULL ||
		strstr(place->capture.text, place->path) == NULL)
		fail_msg("no '%s' in: %s", message, place->capture.text);
	assert_int_equal(capture_lines(&place->capture), 1);
	assert_int_equal(image.fd, -77);
	assert_int_equal(image.direct_fd, -77);
	assert_int_equal(image.size, 77);
}

static void assert_opens(struct place *place, struct block_options options, uint64_t size)
{
	struct block_image image;

	assert_int_equal(try_open(place, options, &image), 0);
	assert_string_equal(place->capture.text, "");
	assert_int_equal(image.size, size);
	assert_true(fcntl(image.fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(
		fcntl(image.fd, F_GETFL) & O_ACCMODE, options.read_only ? O_RDONLY : O_RDWR);
	block_image_close(&image);
	assert_int_equal(image.fd, -1);
	assert_int_equal(image.direct_fd, -1);
}

#define RW                                                                                         \
	(struct block_options)                                                                     \
	{                                                                                          \
		.read_only = false                                                                 \
	}
#define RO                                                                                         \
	(struct block_options)                                                                     \
	{                                                                                          \
		.read_only = true                                                                  \
	}

static void whole_sectors_open(void **state)
{
	struct place *place = *state;

	make_file(place, NULL, 0, 512);
	assert_opens(place, RW, 512);
	assert_opens(place, RO, 512);
	assert_int_equal(truncate(place->path, INT64_C(8) << 40), 0);
	assert_opens(place, RW, UINT64_C(8) << 40);
	assert_opens(place, (struct block_options){ .block_size = 4096 }, UINT64_C(8) << 40);
}

/* With O_NONBLOCK some kernels' io_uring gives EAGAIN for files that cannot do that, forever. */
static void descriptors_block(void **state)
{
	struct place *place = *state;
	struct block_image image;

	make_file(place, NULL, 0, 4096);
	int r = try_open(place, (struct block_options){ .direct = true }, &image);

	if (r == -EINVAL)
		skip(); /* no O_DIRECT in /tmp */
	assert_int_equal(r, 0);
	assert_int_equal(fcntl(image.fd, F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(fcntl(image.direct_fd, F_GETFL) & O_NONBLOCK, 0);
	assert_true(fcntl(image.direct_fd, F_GETFL) & O_DIRECT);
	assert_true(fcntl(image.direct_fd, F_GETFD) & FD_CLOEXEC);
	block_image_close(&image);
}

static void odd_sizes_lose_their_tail(void **state)
{
	struct place *place = *state;
	struct block_image image;

	make_file(place, NULL, 0, 1025);
	assert_int_equal(try_open(place, RW, &image), 0);
	assert_non_null(strstr(place->capture.text, "last 1 bytes"));
	assert_int_equal(capture_lines(&place->capture), 1);
	assert_int_equal(image.size, 1024);
	block_image_close(&image);
	assert_int_equal(truncate(place->path, 4096 + 3584), 0);
	assert_int_equal(try_open(place, (struct block_options){ .block_size = 4096 }, &image), 0);
	assert_non_null(strstr(place->capture.text, "last 3584 bytes"));
	assert_non_null(strstr(place->capture.text, "block of 4096"));
	assert_int_equal(image.size, 4096);
	block_image_close(&image);
}

static void too_small_files_are_refused(void **state)
{
	struct place *place = *state;

	make_file(place, NULL, 0, 0);
	assert_refused(place, RW, -EINVAL, "has 0 bytes");
	assert_refused(place, RO, -EINVAL, "has 0 bytes");
	make_file(place, NULL, 0, 511);
	assert_refused(
		place, RW, -EINVAL, "has 511 bytes, less than one block of 512; make it larger");
	make_file(place, NULL, 0, 2048);
	assert_refused(place, (struct block_options){ .block_size = 4096 }, -EINVAL,
		"less than one block of 4096");
}

static void what_is_no_disk_is_refused(void **state)
{
	struct place *place = *state;

	assert_refused(place, RW, -ENOENT, "No such file");
	assert_int_equal(mkdir(place->path, 0755), 0);
	assert_refused(place, RW, -EISDIR, "directory");
	assert_refused(place, RO, -EINVAL, "neither a file nor a block device");
	assert_int_equal(rmdir(place->path), 0);
	/* Nobody has the other end: opening it must not wait. */
	assert_int_equal(mkfifo(place->path, 0644), 0);
	assert_refused(place, RW, -EINVAL, "neither a file nor a block device");
	assert_refused(place, RO, -EINVAL, "neither a file nor a block device");
	assert_int_equal(unlink(place->path), 0);
	assert_int_equal(symlink("/dev/null", place->path), 0);
	assert_refused(place, RW, -EINVAL, "neither a file nor a block device");
	assert_int_equal(unlink(place->path), 0);
	assert_int_equal(symlink("disk", place->path), 0);
	assert_refused(place, RW, -ELOOP, "symbolic links");
}

/* As a user without rights: root may write to everything. */
static void in_child_a_read_only_file_cannot_be_written(struct place *place)
{
	struct block_image image;

	if (geteuid() == 0 && setresuid(NOBODY, NOBODY, NOBODY) < 0)
		_exit(2);
	int r = try_open(place, RW, &image);
	bool said = strstr(place->capture.text, "is it meant to be read-only?") != NULL;

	if (r != -EACCES || !said)
		_exit(1);
	_exit(try_open(place, RO, &image) == 0 ? 0 : 3);
}

static void a_read_only_file_opens_read_only(void **state)
{
	struct place *place = *state;
	int status;

	make_file(place, NULL, 0, 512);
	assert_int_equal(chmod(place->path, 0444), 0);
	assert_int_equal(chmod(place->directory, 0755), 0);
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0)
		in_child_a_read_only_file_cannot_be_written(place);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static const struct {
	const char *head;
	size_t length;
	const char *name; /* NULL: is a raw image */
} contents[] = {
	{ "QFI\xfb\0\0\0\3", 8, "qcow2" }, { "QED\0", 4, "qed" }, { "KDMV", 4, "vmdk" },
	{ "COWD", 4, "vmdk" }, { "vhdxfile", 8, "vhdx" }, { "conectix", 8, "vhd" },
	{ "<<< Oracle VM VirtualBox Disk Image", 35, "vdi" }, { "\x1f\x8b\x08", 3, "gzip" },
	{ "\x28\xb5\x2f\xfd", 4, "zstd" }, { "\xfd\x37\x7a\x58\x5a\0", 6, "xz" },
	{ "QFI\xfa", 4, NULL }, { "\0QFI\xfb", 5, NULL }, { "\x1f", 1, NULL },
	{ "\xeb\x63\x90", 3, NULL }, /* a boot sector */
};

static void other_formats_only_when_told_so(void **state)
{
	struct place *place = *state;
	char words[32];

	for (size_t i = 0; i < ARRAY_SIZE(contents); i++) {
		make_file(place, contents[i].head, contents[i].length, 1024);
		if (contents[i].name != NULL) {
			snprintf(words, sizeof(words), "looks like %s;", contents[i].name);
			assert_refused(place, RW, -EINVAL, words);
			assert_refused(place, RO, -EINVAL, "format=raw");
		} else {
			assert_opens(place, RW, 1024);
		}
		assert_opens(place, (struct block_options){ .raw = true }, 1024);
		assert_int_equal(unlink(place->path), 0);
	}
	make_file(place, NULL, 0, 512);
}

static void writers_exclude_all_and_readers_share(void **state)
{
	struct place *place = *state;
	struct block_image first;
	struct block_image second;

	make_file(place, NULL, 0, 512);
	assert_int_equal(try_open(place, RW, &first), 0);
	assert_refused(place, RW, -EBUSY, "is given twice, at least once to be written to");
	assert_refused(place, RO, -EBUSY, "is given twice, at least once to be written to");
	block_image_close(&first);
	assert_int_equal(try_open(place, RO, &first), 0);
	assert_int_equal(try_open(place, RO, &second), 0);
	assert_refused(place, RW, -EBUSY, "is given twice, at least once to be written to");
	block_image_close(&first);
	assert_refused(place, RW, -EBUSY, "is given twice, at least once to be written to");
	block_image_close(&second);
	assert_opens(place, RW, 512);
}

/* The lock follows the file, not its name, and not the path through which it is reached. */
static void another_name_is_the_same_disk(void **state)
{
	struct place *place = *state;
	struct block_image image;
	struct place other = *place;

	make_file(place, NULL, 0, 512);
	snprintf(other.path, sizeof(other.path), "%s/other", place->directory);
	assert_int_equal(link(place->path, other.path), 0);
	assert_int_equal(try_open(place, RW, &image), 0);
	assert_refused(&other, RW, -EBUSY, "given twice");
	block_image_close(&image);
	assert_int_equal(unlink(other.path), 0);
}

/* Another process that has the disk as a writer, for so many ms; -1: until it is killed. */
static pid_t start_holder(struct place *place, int ms)
{
	struct block_image image;
	int ready[2];
	char byte;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		if (try_open(place, RW, &image) != 0 || write(ready[1], "", 1) != 1)
			_exit(1);
		(void)poll(NULL, 0, ms);
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return child;
}

static void the_message_names_the_process(void **state)
{
	struct place *place = *state;
	char words[48];

	make_file(place, NULL, 0, 512);
	pid_t child = start_holder(place, -1);

	snprintf(words, sizeof(words), "in use by another VM (process %d)", (int)child);
	assert_refused(place, RW, -EBUSY, words);
	assert_refused(place, (struct block_options){ .direct = true }, -EBUSY, words);
	/* The lock ends with its process, however that ends. */
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_opens(place, RW, 512);
}

/* As a killed VM's does, while the kernel ends its requests. */
static void a_lock_that_goes_is_waited_for(void **state)
{
	struct place *place = *state;

	make_file(place, NULL, 0, 512);
	pid_t child = start_holder(place, 50);

	assert_opens(place, RW, 512);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

static void closing_another_descriptor_keeps_the_lock(void **state)
{
	struct place *place = *state;
	struct block_image image;

	make_file(place, NULL, 0, 512);
	assert_int_equal(try_open(place, RW, &image), 0);
	/* With locks of processes this close() would drop it. */
	close(open(place->path, O_RDWR | O_CLOEXEC));
	assert_refused(place, RW, -EBUSY, "given twice");
	block_image_close(&image);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(whole_sectors_open),
		TEST(descriptors_block),
		TEST(odd_sizes_lose_their_tail),
		TEST(too_small_files_are_refused),
		TEST(what_is_no_disk_is_refused),
		TEST(a_read_only_file_opens_read_only),
		TEST(other_formats_only_when_told_so),
		TEST(writers_exclude_all_and_readers_share),
		TEST(another_name_is_the_same_disk),
		TEST(the_message_names_the_process),
		TEST(a_lock_that_goes_is_waited_for),
		TEST(closing_another_descriptor_keeps_the_lock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
