// SPDX-License-Identifier: BSD-3-Clause
/*
 * A disk that the VMM makes bigger or smaller: file, capacity and what requests
 * may reach change together, or not at all.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "block_rig.h"

static int resize(const struct rig *rig, uint64_t sectors)
{
	return rig->vhost->ops->change_config(
		rig->vhost, 0, (const uint8_t *)&sectors, sizeof(sectors));
}

static uint64_t capacity(const struct rig *rig)
{
	uint64_t sectors = 0;

	assert_int_equal(
		rig->vhost->ops->get_config(rig->vhost, 0, (uint8_t *)&sectors, sizeof(sectors)),
		0);
	return sectors;
}

static uint64_t file_size(const struct rig *rig)
{
	struct stat st;

	assert_int_equal(stat(rig->path, &st), 0);
	return (uint64_t)st.st_size;
}

/* As the VMM does it: the rings stop before and go on after. */
static void resize_at_rest(struct rig *rig, uint64_t sectors)
{
	stop_all(rig);
	assert_int_equal(resize(rig, sectors), 0);
	assert_int_equal(capacity(rig), sectors);
	assert_int_equal(file_size(rig), sectors * 512);
	start_all(rig, USUAL);
}

static void requests_reach_what_there_is(void **state)
{
	const uint64_t end = DISK_SIZE / 512;

	(void)state;
	for (unsigned sync = 0; sync < 2; sync++) {
		struct rig *rig =
			new_rig((struct block_options){ .sync_engine = sync != 0 }, "/tmp");

		start_all(rig, USUAL);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, end, 512), VIRTIO_BLK_S_IOERR);
		resize_at_rest(rig, 2 * end);
		fill(slot_at(rig, 0, 0), 1, 512);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 2 * end - 1, 512), VIRTIO_BLK_S_OK);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 2 * end, 512), VIRTIO_BLK_S_IOERR);
		resize_at_rest(rig, 8);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 7, 512), VIRTIO_BLK_S_OK);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 8, 512), VIRTIO_BLK_S_IOERR);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 2 * end - 1, 512), VIRTIO_BLK_S_IOERR);
		assert_int_equal(
			ask_segment(rig, VIRTIO_BLK_T_DISCARD, 8, 1, 0), VIRTIO_BLK_S_IOERR);
		assert_int_equal(file_size(rig), 8 * 512);
		/* What was cut off does not come back. */
		resize_at_rest(rig, 2 * end);
		memset(slot_at(rig, 0, 0)->data, 0xff, 512);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 2 * end - 1, 512), VIRTIO_BLK_S_OK);
		for (unsigned i = 0; i < 512; i++)
			assert_int_equal(slot_at(rig, 0, 0)->data[i], 0);
		free_rig(rig);
	}
}

static void refusals_change_nothing(void **state)
{
	const struct {
		struct block_options options;
		uint64_t sectors;
		int error;
	} rows[] = {
		{ { .read_only = true }, 8, -EROFS },
		{ { .read_only = true, .snapshot = true }, 8, -EROFS },
		{ { .snapshot = true }, 8, -EOPNOTSUPP }, { { .block_size = 4096 }, 9, -EINVAL },
		{ { 0 }, 0, -EINVAL }, { { 0 }, UINT64_MAX, -EINVAL },
		{ { 0 }, UINT64_MAX / 512, -EFBIG },
		{ { 0 }, INT64_MAX / 512, -EFBIG }, /* more than any file system has */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct rig *rig = new_rig(rows[i].options, "/tmp");
		uint64_t sectors = 8;

		assert_int_equal(resize(rig, rows[i].sectors), rows[i].error);
		assert_int_equal(
			rig->vhost->ops->change_config(rig->vhost, 8, (const uint8_t *)&sectors, 8),
			-EINVAL);
		assert_int_equal(
			rig->vhost->ops->change_config(rig->vhost, 0, (const uint8_t *)&sectors, 4),
			-EINVAL);
		assert_int_equal(capacity(rig), DISK_SIZE / 512);
		assert_int_equal(file_size(rig), DISK_SIZE);
		free_rig(rig);
	}
}

/* A block device has the size that it has. No loop device is needed to see it. */
static void a_block_device_is_measured(void **state)
{
	char path[] = "/tmp/crosvm-resize-XXXXXX";
	struct block_image image = { .fd = mkostemp(path, O_CLOEXEC), .direct_fd = -1 };

	(void)state;
	assert_true(image.fd >= 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(ftruncate(image.fd, 8192), 0);
	image.size = 4096;
	assert_int_equal(block_image_resize(&image, 4096), -ENXIO);
	assert_int_equal(image.size, 4096);
	assert_int_equal(block_image_resize(&image, 8192), 0);
	assert_int_equal(image.size, 8192);
	image.is_file = true;
	assert_int_equal(block_image_resize(&image, 4096), 0);
	assert_int_equal(lseek(image.fd, 0, SEEK_END), 4096);
	block_image_close(&image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_reach_what_there_is),
		cmocka_unit_test(refusals_change_nothing),
		cmocka_unit_test(a_block_device_is_measured),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
