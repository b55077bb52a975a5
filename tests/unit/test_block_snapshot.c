// SPDX-License-Identifier: BSD-3-Clause
/*
 * Snapshots: a driver of our own writes, discards and reads at random on four
 * queues, an array says what each read must give, and the image stays as it
 * was to the last bit.
 */
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "block_rig.h"
#include "capture.h"
#include "virtio/block_engine.h"

enum { IN_FLIGHT = 16, REGION_SIZE = DISK_SIZE / QUEUES / IN_FLIGHT, ROUNDS = 150 };

struct model {
	uint8_t disk[DISK_SIZE];
	uint32_t random;
};

/* What a region's request in flight will do. */
struct plan {
	uint32_t type;
	uint64_t at;
	uint32_t size;
};

static uint32_t random_below(struct model *model, uint32_t limit)
{
	model->random = model->random * 1664525 + 1013904223;
	return (uint32_t)(((uint64_t)model->random * limit) >> 32);
}

static void fill_image(const struct rig *rig, struct model *model)
{
	CLEANUP_FD int fd = open(rig->path, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	for (uint64_t i = 0; i < DISK_SIZE; i++)
		model->disk[i] = pattern(i);
	assert_int_equal(fd_write_full(fd, model->disk, DISK_SIZE), 0);
}

static struct plan offer_one(
	struct rig *rig, struct model *model, unsigned queue, unsigned n, uint32_t block)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_IN,
		VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_DISCARD,
		VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_FLUSH };
	uint32_t blocks = REGION_SIZE / block;
	uint32_t first = random_below(model, blocks);
	uint32_t count = 1 + random_below(model, DATA_SIZE / block);
	struct slot *slot = slot_at(rig, queue, n);
	struct plan plan = {
		.type = types[random_below(model, ARRAY_SIZE(types))],
		.at = (uint64_t)(queue * IN_FLIGHT + n) * REGION_SIZE + (uint64_t)first * block,
		.size = (count <= blocks - first ? count : blocks - first) * block,
	};
	struct virtio_blk_discard_write_zeroes segment = { plan.at / 512, plan.size / 512,
		plan.type == VIRTIO_BLK_T_WRITE_ZEROES && (plan.at & 512) != 0 };

	if (plan.type == VIRTIO_BLK_T_OUT) {
		for (uint32_t i = 0; i < plan.size; i++)
			slot->data[i] = (uint8_t)random_below(model, 256);
		memcpy(model->disk + plan.at, slot->data, plan.size);
		offer(rig, queue, n, plan.type, plan.at / 512, plan.size);
	} else if (plan.type == VIRTIO_BLK_T_IN) {
		memset(slot->data, 0xee, DATA_SIZE);
		offer(rig, queue, n, plan.type, plan.at / 512, plan.size);
	} else if (plan.type == VIRTIO_BLK_T_FLUSH) {
		offer(rig, queue, n, plan.type, 0, 0);
	} else {
		memcpy(slot->data, &segment, sizeof(segment));
		memset(model->disk + plan.at, 0, plan.size);
		offer(rig, queue, n, plan.type, 0, sizeof(segment));
	}
	return plan;
}

static void one_round(struct rig *rig, struct model *model, uint32_t block)
{
	struct plan plans[QUEUES][IN_FLIGHT];

	for (unsigned q = 0; q < QUEUES; q++) {
		for (unsigned n = 0; n < IN_FLIGHT; n++)
			plans[q][n] = offer_one(rig, model, q, n, block);
		kick(rig, q);
	}
	for (unsigned q = 0; q < QUEUES; q++) {
		wait_for(rig, q, IN_FLIGHT);
		for (unsigned n = 0; n < IN_FLIGHT; n++) {
			const struct plan *plan = &plans[q][n];

			assert_int_equal(slot_at(rig, q, n)->status, VIRTIO_BLK_S_OK);
			if (plan->type == VIRTIO_BLK_T_IN)
				assert_memory_equal(slot_at(rig, q, n)->data,
					model->disk + plan->at, plan->size);
		}
	}
}

static void assert_disk(struct rig *rig, const struct model *model)
{
	for (uint64_t at = 0; at < DISK_SIZE; at += DATA_SIZE) {
		assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, at / 512, DATA_SIZE), 0);
		assert_memory_equal(slot_at(rig, 0, 0)->data, model->disk + at, DATA_SIZE);
	}
}

static void assert_image_unchanged(const struct rig *rig)
{
	uint8_t *seen = malloc(DISK_SIZE);

	assert_non_null(seen);
	read_file(rig, seen, DISK_SIZE, 0);
	assert_filled(seen, 0, DISK_SIZE);
	free(seen);
}

/* A snapshot's rig, with an image that is full of data. */
static struct rig *snapshot_rig(struct block_options options, struct model *model)
{
	options.snapshot = true;
	struct rig *rig = new_rig(options, "/tmp");

	model->random = 1;
	fill_image(rig, model);
	return rig;
}

static void writes_are_seen_and_the_image_is_unchanged(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	struct block_options options = *(const struct block_options *)*state;

	assert_non_null(model);
	options.queues = QUEUES;
	struct rig *rig = snapshot_rig(options, model);

	assert_int_equal(fcntl(rig->device->image.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	start_all(rig, USUAL);
	assert_disk(rig, model);
	for (unsigned round = 0; round < ROUNDS; round++)
		one_round(rig, model, options.block_size != 0 ? options.block_size : 512);
	assert_disk(rig, model);
	/* The overlay outlives a reset by the driver, as a disk does. */
	stop_all(rig);
	start_all(rig, RINGS);
	assert_disk(rig, model);
	assert_image_unchanged(rig);
	free_rig(rig);
	free(model);
}

/* The last block, and ranges over many words of the map. */
static void large_ranges(void **state)
{
	struct model *model = calloc(1, sizeof(*model));

	assert_non_null(model);
	struct rig *rig = snapshot_rig(*(const struct block_options *)*state, model);
	const uint32_t sectors = DISK_SIZE / 512;

	start_all(rig, USUAL);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, sectors - 1, 512), VIRTIO_BLK_S_OK);
	memcpy(model->disk + DISK_SIZE - 512, slot_at(rig, 0, 0)->data, 512);
	assert_disk(rig, model);
	assert_int_equal(
		ask_segment(rig, VIRTIO_BLK_T_DISCARD, 61, sectors - 200, 0), VIRTIO_BLK_S_OK);
	memset(model->disk + 61 * 512, 0, (size_t)(sectors - 200) * 512);
	assert_disk(rig, model);
	assert_int_equal(
		ask_segment(rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, sectors, 1), VIRTIO_BLK_S_OK);
	memset(model->disk, 0, DISK_SIZE);
	assert_disk(rig, model);
	assert_image_unchanged(rig);
	free_rig(rig);
	free(model);
}

static unsigned names_in(const char *directory)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;
	unsigned count = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL)
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

/* Writes beyond what the directory holds fail; the blocks keep what they had. */
static void a_full_directory_is_an_io_error(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	char directory[] = "/tmp/crosvm-snapshots-XXXXXX";
	unsigned failed = 0;

	assert_non_null(model);
	if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) {
		print_message("no mount namespace: %s\n", strerror(errno));
		free(model);
		skip();
		return; /* which tools do not know */
	}
	assert_non_null(mkdtemp(directory));
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mount("tmpfs", directory, "tmpfs", 0, "size=1M"), 0);
	assert_int_equal(setenv("TMPDIR", directory, 1), 0);
	struct rig *rig = snapshot_rig(*(const struct block_options *)*state, model);

	assert_int_equal(unsetenv("TMPDIR"), 0);
	assert_int_equal(names_in(directory), 0);
	start_all(rig, USUAL);
	for (uint64_t at = 0; at < DISK_SIZE; at += DATA_SIZE) {
		memset(slot_at(rig, 0, 0)->data, 0x5a, DATA_SIZE);
		if (ask(rig, VIRTIO_BLK_T_OUT, at / 512, DATA_SIZE) == VIRTIO_BLK_S_OK)
			memset(model->disk + at, 0x5a, DATA_SIZE);
		else
			failed++;
	}
	assert_true(failed >= (DISK_SIZE - MIB) / DATA_SIZE);
	assert_true(failed < DISK_SIZE / DATA_SIZE);
	assert_disk(rig, model);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	/* Discarded blocks make room. */
	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_DISCARD, 0, 256, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 8000, DATA_SIZE), VIRTIO_BLK_S_OK);
	assert_image_unchanged(rig);
	free_rig(rig);
	assert_int_equal(umount(directory), 0);
	assert_int_equal(rmdir(directory), 0);
	free(model);
}

static void a_snapshot_that_has_no_place_is_refused(void **state)
{
	struct block_overlay overlay = { .fd = -77 };
	struct capture capture;

	(void)state;
	assert_int_equal(setenv("TMPDIR", "/nonexistent", 1), 0);
	capture_begin(&capture);
	assert_int_equal(block_overlay_open("the-disk", MIB, 512, &overlay), -ENOENT);
	capture_end(&capture);
	assert_int_equal(unsetenv("TMPDIR"), 0);
	assert_int_equal(overlay.fd, -77);
	assert_int_equal(capture_lines(&capture), 1);
	assert_non_null(strstr(capture.text, "disk 'the-disk': cannot make its snapshot in "
					     "/nonexistent: No such file or directory"));
}

int main(void)
{
	static struct block_options uring;
	static struct block_options sync = { .sync_engine = true };
	static struct block_options uring_4k = { .block_size = 4096 };
	static struct block_options sync_1k = { .block_size = 1024, .sync_engine = true };
#define WITH(function, options)                                                                    \
	{                                                                                          \
#function " (" #options ")", function, NULL, NULL, &(options)                      \
	}
	const struct CMUnitTest tests[] = {
		WITH(writes_are_seen_and_the_image_is_unchanged, uring),
		WITH(writes_are_seen_and_the_image_is_unchanged, sync),
		WITH(writes_are_seen_and_the_image_is_unchanged, uring_4k),
		WITH(writes_are_seen_and_the_image_is_unchanged, sync_1k),
		WITH(large_ranges, uring),
		WITH(large_ranges, sync),
		WITH(a_full_directory_is_an_io_error, uring),
		WITH(a_full_directory_is_an_io_error, sync),
		cmocka_unit_test(a_snapshot_that_has_no_place_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
