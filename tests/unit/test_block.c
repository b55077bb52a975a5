// SPDX-License-Identifier: BSD-3-Clause
/*
 * The whole block device behind the vhost contract, with a driver of our own:
 * rings in guest memory, a temporary file as the disk, both engines. Some
 * functions of libc are ours here, so that the file may fail when we say so;
 * that reaches the synchronous engine only, io_uring does not ask libc.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "block_rig.h"
#include "capture.h"
#include "virtio/block_engine.h"

/* ---- libc ---------------------------------------------------------------- */

/* Queues' threads look at it. */
static struct {
	atomic_int fdatasync_error;
	atomic_int fallocate_error;
	atomic_int next_error; /* of one transfer */
	atomic_size_t most;    /* bytes of one transfer; 0: all */
	atomic_int write_flags;
	atomic_bool fdatasync_held; /* it does not end yet */
	atomic_uint fdatasyncs;
	atomic_uint clock;       /* goes on at each thing that D1 puts into an order */
	atomic_uint synced_from; /* when the last good fdatasync began */
} libc;

/* Once with EINTR, always with other errors. */
static bool fails(atomic_int *error)
{
	errno = *error;
	if (errno == EINTR)
		*error = 0;
	return errno != 0;
}

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): libc's have two underscores */
int fdatasync(int fd)
{
	unsigned began = libc.clock++;

	libc.fdatasyncs++;
	while (libc.fdatasync_held)
		(void)poll(NULL, 0, 1);
	if (fails(&libc.fdatasync_error))
		return -1;
	int r = (int)syscall(SYS_fdatasync, fd);

	libc.synced_from = began;
	return r;
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (fails(&libc.fallocate_error))
		return -1;
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

/* How much of the first buffer; 0: fail, SIZE_MAX: do all as the kernel does. */
static size_t next_transfer(const struct iovec *iov)
{
	int error = atomic_exchange(&libc.next_error, 0);

	if (error != 0) {
		errno = error;
		return 0;
	}
	return libc.most != 0 ? min_u64(libc.most, iov->iov_len) : SIZE_MAX;
}

ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	/* What does not wait is a kick that is taken, and no transfer. */
	size_t size = (flags & RWF_NOWAIT) != 0 ? SIZE_MAX : next_transfer(iov);

	if (size == 0)
		return -1;
	if (size != SIZE_MAX)
		return pread(fd, iov->iov_base, size, offset);
	return syscall(SYS_preadv2, fd, iov, count, offset, 0, flags);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	size_t size = next_transfer(iov);

	libc.write_flags = flags;
	if (size == 0)
		return -1;
	if (size != SIZE_MAX)
		return pwrite(fd, iov->iov_base, size, offset);
	return syscall(SYS_pwritev2, fd, iov, count, offset, 0, flags);
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */

static int forget_faults(void **state)
{
	(void)state;
	libc.fdatasync_error = libc.fallocate_error = libc.next_error = 0;
	libc.most = 0;
	return 0;
}

/* Which engine a test is for. */
static struct block_options engine(void **state)
{
	return (struct block_options){ .sync_engine = *(bool *)*state };
}

/* ---- data ------------------------------------------------------------------ */

static void data_is_written_and_read(void **state)
{
	struct rig *rig = new_rig(engine(state), "/tmp");
	uint8_t seen[DATA_SIZE];

	start_all(rig, USUAL);
	for (uint64_t sector = 0; sector < DISK_SIZE / 512; sector += 777) {
		uint32_t size = sector + 8 <= DISK_SIZE / 512 ? DATA_SIZE : 512;

		fill(slot_at(rig, 0, 0), sector * 512, size);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, sector, size), VIRTIO_BLK_S_OK);
		assert_int_equal(last_answer(rig, 0).len, 1);
		read_file(rig, seen, size, sector * 512);
		assert_filled(seen, sector * 512, size);
		memset(slot_at(rig, 0, 0)->data, 0, DATA_SIZE);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, sector, size), VIRTIO_BLK_S_OK);
		assert_int_equal(last_answer(rig, 0).len, size + 1);
		assert_filled(slot_at(rig, 0, 0)->data, sector * 512, size);
	}
	assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, DISK_SIZE / 512, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(last_answer(rig, 0).len, 1);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
	assert_string_equal((char *)slot_at(rig, 0, 0)->data, "the-disk");
	assert_int_equal(allocated(rig) != 0, 1);
	free_rig(rig);
}

/* Many at a time, on all queues, over and over: every answer comes, each once, each with its data.
 */
static void many_requests_on_four_queues(void **state)
{
	struct block_options options = engine(state);
	uint8_t *seen = malloc(DISK_SIZE);

	assert_non_null(seen);
	options.queues = QUEUES;
	struct rig *rig = new_rig(options, "/tmp");

	start_all(rig, USUAL);
	for (unsigned round = 0; round < 8; round++) {
		bool write = round % 2 == 0;

		for (unsigned q = 0; q < QUEUES; q++) {
			for (unsigned n = 0; n < QUEUE_SIZE; n++) {
				uint64_t at = (uint64_t)(q * QUEUE_SIZE + n) * DATA_SIZE;

				fill(slot_at(rig, q, n), write ? at : 1, DATA_SIZE);
				offer(rig, q, n, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
					at / 512, DATA_SIZE);
				if (n % 50 == 0)
					kick(rig, q);
			}
			kick(rig, q);
		}
		for (unsigned q = 0; q < QUEUES; q++) {
			wait_for(rig, q, QUEUE_SIZE);
			for (unsigned n = 0; n < QUEUE_SIZE; n++) {
				uint64_t at = (uint64_t)(q * QUEUE_SIZE + n) * DATA_SIZE;

				assert_int_equal(slot_at(rig, q, n)->status, 0);
				assert_filled(slot_at(rig, q, n)->data, at, DATA_SIZE);
			}
		}
	}
	read_file(rig, seen, DISK_SIZE, 0);
	assert_filled(seen, 0, DISK_SIZE);
	free(seen);
	free_rig(rig);
}

/* Stopped with requests in flight: each that was taken is answered, and then nothing moves. */
static void stop_in_the_middle(void **state)
{
	struct block_options options = engine(state);
	struct rig *rig = new_rig(options, "/tmp");

	start_all(rig, USUAL);
	for (unsigned round = 0; round < 40; round++) {
		for (unsigned n = 0; n < 128; n++)
			offer(rig, 0, n,
				n % 16 == 0    ? VIRTIO_BLK_T_FLUSH
				: (n & 1) == 0 ? VIRTIO_BLK_T_OUT
					       : VIRTIO_BLK_T_IN,
				n * 8, n % 16 == 0 ? 0 : DATA_SIZE);
		kick(rig, 0);
		if (round % 4 == 1)
			(void)poll(NULL, 0, 1);
		uint16_t base = stop_queue(rig, 0);

		assert_int_equal(rig->queues[0].used->idx, base);
		/* From the second round on, the first answer is that to ask(). */
		for (unsigned n = 0; n + (round != 0) < base; n++)
			assert_int_equal(slot_at(rig, 0, n)->status != 0xee, 1);
		start_queue(rig, 0);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	}
	free_rig(rig);
}

static void a_broken_ring_ends_only_the_queue(void **state)
{
	struct rig *rig = new_rig(engine(state), "/tmp");
	struct pollfd error = { .fd = rig->error_fd, .events = POLLIN };
	struct capture capture;

	start_all(rig, USUAL);
	capture_begin(&capture);
	for (unsigned n = 0; n < 64; n++)
		offer(rig, 0, n, VIRTIO_BLK_T_OUT, n * 8, DATA_SIZE);
	offer(rig, 0, 100, VIRTIO_BLK_T_IN, 0, UINT32_MAX); /* ends far behind the memory */
	kick(rig, 0);
	assert_int_equal(poll(&error, 1, 20000), 1);
	assert_int_equal(stop_queue(rig, 0), 64);
	capture_end(&capture);
	assert_non_null(strstr(capture.text, "the driver broke the ring"));
	assert_int_equal(rig->queues[0].used->idx, 64);
	start_queue(rig, 0);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	free_rig(rig);
}

/* ---- discard and zeroes ---------------------------------------------------- */

static void fill_disk(struct rig *rig)
{
	for (uint64_t at = 0; at < MIB; at += DATA_SIZE) {
		fill(slot_at(rig, 0, 0), at, DATA_SIZE);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, at / 512, DATA_SIZE), VIRTIO_BLK_S_OK);
	}
	assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
}

static void assert_zeroes_inside(const struct rig *rig, uint64_t from, uint64_t to)
{
	static uint8_t seen[MIB];

	read_file(rig, seen, sizeof(seen), 0);
	assert_filled(seen, 0, from);
	for (uint64_t i = from; i < to; i++)
		if (seen[i] != 0)
			fail_msg("byte 0x%lx is not zero", i);
	assert_filled(seen + to, to, sizeof(seen) - to);
}

static void discard_frees_blocks(void **state)
{
	struct rig *rig = new_rig(engine(state), "/tmp");

	start_all(rig, USUAL);
	fill_disk(rig);
	uint64_t before = allocated(rig);

	assert_true(before >= MIB);
	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_DISCARD, 128, 1024, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(last_answer(rig, 0).len, 1);
	assert_int_equal(before - allocated(rig), 512 * KIB);
	assert_zeroes_inside(rig, 64 * KIB, 576 * KIB);
	free_rig(rig);
}

static void zeroes_are_zero_and_stay_allocated(void **state)
{
	struct rig *rig = new_rig(engine(state), "/tmp");
	const uint32_t type = VIRTIO_BLK_T_WRITE_ZEROES;

	start_all(rig, USUAL);
	fill_disk(rig);
	uint64_t before = allocated(rig);

	assert_int_equal(ask_segment(rig, type, 127, 130, 0), VIRTIO_BLK_S_OK);
	assert_true(allocated(rig) >= before);
	assert_zeroes_inside(rig, 127 * 512, 257 * 512);
	assert_int_equal(ask_segment(rig, type, 127, 1000, 1), VIRTIO_BLK_S_OK);
	assert_true(allocated(rig) < before);
	assert_zeroes_inside(rig, 127 * 512, 1127 * 512);
	assert_int_equal(ask_segment(rig, type, 0, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);
	assert_zeroes_inside(rig, 127 * 512, 1127 * 512);
	free_rig(rig);
}

/* sparse=false: "may unmap" does not. */
static void without_discard_nothing_is_freed(void **state)
{
	struct block_options options = engine(state);

	options.no_discard = true;
	struct rig *rig = new_rig(options, "/tmp");

	start_all(rig, USUAL);
	fill_disk(rig);
	uint64_t before = allocated(rig);

	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_DISCARD, 0, 1024, 0), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1024, 1), VIRTIO_BLK_S_OK);
	assert_true(allocated(rig) >= before);
	assert_zeroes_inside(rig, 0, 512 * KIB);
	free_rig(rig);
}

/* A file system without holes: discard is nothing, zeroes are written. */
static void without_fallocate_zeroes_are_written(void **state)
{
	struct rig *rig = new_rig(engine(state), "/tmp");

	start_all(rig, USUAL);
	fill_disk(rig);
	libc.fallocate_error = EOPNOTSUPP;
	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_DISCARD, 0, 1024, 0), VIRTIO_BLK_S_OK);
	assert_zeroes_inside(rig, 0, 0);
	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_WRITE_ZEROES, 3, 1000, 1), VIRTIO_BLK_S_OK);
	assert_zeroes_inside(rig, 3 * 512, 1003 * 512);
	libc.fallocate_error = EIO;
	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(last_answer(rig, 0).len, 1);
	free_rig(rig);
}

/* ---- a file that fails ------------------------------------------------------- */

static void a_file_cut_under_us_is_an_io_error(void **state)
{
	struct rig *rig = new_rig(engine(state), "/tmp");

	start_all(rig, USUAL);
	fill_disk(rig);
	assert_int_equal(truncate(rig->path, 64 * KIB), 0);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 256, DATA_SIZE), VIRTIO_BLK_S_IOERR);
	assert_int_equal(last_answer(rig, 0).len, 0);
	/* Across the new end: what was read is told, with the error. */
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 126, DATA_SIZE), VIRTIO_BLK_S_IOERR);
	assert_int_equal(last_answer(rig, 0).len, 1024);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 0, DATA_SIZE), VIRTIO_BLK_S_OK);
	assert_filled(slot_at(rig, 0, 0)->data, 0, DATA_SIZE);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 256, DATA_SIZE), VIRTIO_BLK_S_OK);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 256, DATA_SIZE), VIRTIO_BLK_S_OK);
	free_rig(rig);
}

static void a_full_file_system_is_an_io_error(void **state)
{
	char directory[] = "/tmp/crosvm-full-XXXXXX";
	unsigned failed = 0;

	if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) {
		print_message("no mount namespace: %s\n", strerror(errno));
		skip();
	}
	assert_non_null(mkdtemp(directory));
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mount("tmpfs", directory, "tmpfs", 0, "size=1M"), 0);
	struct rig *rig = new_rig(engine(state), directory);

	start_all(rig, USUAL);
	for (uint64_t at = 0; at < DISK_SIZE; at += DATA_SIZE) {
		fill(slot_at(rig, 0, 0), at, DATA_SIZE);
		failed += ask(rig, VIRTIO_BLK_T_OUT, at / 512, DATA_SIZE) == VIRTIO_BLK_S_IOERR;
	}
	assert_true(failed >= (DISK_SIZE - MIB) / DATA_SIZE);
	assert_true(failed < DISK_SIZE / DATA_SIZE);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 8, DATA_SIZE), VIRTIO_BLK_S_OK);
	assert_filled(slot_at(rig, 0, 0)->data, DATA_SIZE, DATA_SIZE);
	/* The guest makes room itself. */
	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_DISCARD, 0, 256, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 4096, DATA_SIZE), VIRTIO_BLK_S_OK);
	free_rig(rig);
	assert_int_equal(umount(directory), 0);
	assert_int_equal(rmdir(directory), 0);
}

static void short_and_interrupted_transfers_go_on(void **state)
{
	struct rig *rig = new_rig((struct block_options){ .sync_engine = true }, "/tmp");

	(void)state;
	start_all(rig, USUAL);
	libc.most = 700;
	libc.next_error = EINTR;
	fill(slot_at(rig, 0, 0), 0, DATA_SIZE);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, DATA_SIZE), VIRTIO_BLK_S_OK);
	memset(slot_at(rig, 0, 0)->data, 0, DATA_SIZE);
	libc.next_error = EINTR;
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 0, DATA_SIZE), VIRTIO_BLK_S_OK);
	assert_int_equal(last_answer(rig, 0).len, DATA_SIZE + 1);
	assert_filled(slot_at(rig, 0, 0)->data, 0, DATA_SIZE);
	libc.fdatasync_error = libc.fallocate_error = EINTR;
	assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(libc.fdatasync_error | libc.fallocate_error, 0);
	libc.next_error = EIO;
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 0, DATA_SIZE), VIRTIO_BLK_S_IOERR);
	assert_int_equal(last_answer(rig, 0).len, 0);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 0, DATA_SIZE), VIRTIO_BLK_S_OK);
	free_rig(rig);
}

/* The kernel tells of lost pages once, so that a later success means nothing. */
static void after_a_failed_flush_all_fail_until_the_reset(void **state)
{
	struct rig *rig = new_rig((struct block_options){ .sync_engine = true }, "/tmp");
	struct capture capture;

	(void)state;
	start_all(rig, USUAL);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	libc.fdatasync_error = EIO;
	capture_begin(&capture);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_IOERR);
	libc.fdatasync_error = 0;
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_IOERR);
	capture_end(&capture);
	assert_non_null(strstr(capture.text, "fdatasync failed"));
	assert_int_equal(capture_lines(&capture), 1);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	stop_all(rig);
	start_queue(rig, 0); /* as when a suspended VM goes on */
	assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_IOERR);
	stop_all(rig);
	assert_int_equal(rig->vhost->ops->reset(rig->vhost), 0);
	start_all(rig, USUAL);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	free_rig(rig);
}

/* What both engines call; on io_uring the result comes from the ring. */
static void a_failed_flush_is_remembered_by_the_device(void **state)
{
	struct device device = { .options.path = "disk" };
	struct block_request request = { .status = VIRTIO_BLK_S_OK };
	struct capture capture;

	(void)state;
	block_flush_done(&device, &request, 0);
	assert_int_equal(request.status, VIRTIO_BLK_S_OK);
	capture_begin(&capture);
	for (unsigned i = 0; i < 3; i++) {
		request.status = VIRTIO_BLK_S_OK;
		block_flush_done(&device, &request, i == 0 ? -ENOSPC : 0);
		assert_int_equal(request.status, VIRTIO_BLK_S_IOERR);
	}
	capture_end(&capture);
	assert_non_null(strstr(capture.text, "disk 'disk': fdatasync failed: No space left"));
	assert_int_equal(capture_lines(&capture), 1);
}

/*
 * Durability D1: writes and flushes in any order, many in flight. What was answered before a
 * flush was offered is on the disk when the flush is answered, for an fdatasync began between.
 */
static void a_flush_covers_what_was_answered_before(void **state)
{
	struct rig *rig = new_rig((struct block_options){ .sync_engine = true }, "/tmp");
	unsigned random = 1;

	(void)state;
	start_all(rig, USUAL);
	for (unsigned round = 0; round < 1000; round++) {
		unsigned count = 1 + round % 7;
		unsigned flushes = 0;
		unsigned offered = libc.clock++;
		unsigned syncs = libc.fdatasyncs;

		for (unsigned n = 0; n < count; n++) {
			unsigned drawn = draw_below(&random, 65536);
			bool flush = drawn % 3 == 0;

			offer(rig, 0, n, flush ? VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_OUT,
				flush ? 0 : drawn / 16 % 1024 * 8, flush ? 0 : 512);
			flushes += flush;
		}
		kick(rig, 0);
		wait_for(rig, 0, count);
		for (unsigned n = 0; n < count; n++)
			assert_int_equal(slot_at(rig, 0, n)->status, VIRTIO_BLK_S_OK);
		assert_int_equal(libc.fdatasyncs, syncs + flushes);
		assert_true(flushes == 0 || libc.synced_from >= offered);
	}
	free_rig(rig);
}

/* Durability D7: what a driver wrote and had no time to flush is on the disk when the VM ended. */
static void the_end_leaves_nothing_unwritten(void **state)
{
	struct rig *rig = new_rig(engine(state), "/tmp");
	unsigned syncs = libc.fdatasyncs;

	start_all(rig, USUAL);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	free_rig(rig);
	assert_int_equal(libc.fdatasyncs, syncs); /* nothing to do */
	rig = new_rig(engine(state), "/tmp");
	start_all(rig, USUAL);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	stop_all(rig); /* as suspend does, which shall not take long */
	assert_int_equal(rig->vhost->ops->reset(rig->vhost), 0);
	assert_int_equal(libc.fdatasyncs, syncs);
	free_rig(rig); /* as SIGTERM does */
	assert_int_equal(libc.fdatasyncs, ++syncs);
	rig = new_rig(engine(state), "/tmp");
	start_all(rig, USUAL);
	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_OK);
	free_rig(rig);
	assert_int_equal(libc.fdatasyncs, ++syncs);
}

static void what_was_flushed_is_not_flushed_again(void **state)
{
	struct rig *rig = new_rig(engine(state), "/tmp");

	start_all(rig, USUAL);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	unsigned syncs = libc.fdatasyncs;

	free_rig(rig);
	assert_int_equal(libc.fdatasyncs, syncs);
}

static void a_failure_at_the_end_is_told(void **state)
{
	struct rig *rig = new_rig(engine(state), "/tmp");
	struct capture capture;

	start_all(rig, USUAL);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	libc.fdatasync_error = EIO;
	capture_begin(&capture);
	free_rig(rig);
	capture_end(&capture);
	libc.fdatasync_error = 0;
	assert_non_null(strstr(capture.text, "fdatasync failed"));
}

static uint32_t get_busy(const struct rig *rig)
{
	uint32_t busy = UINT32_MAX;

	assert_int_equal(
		rig->vhost->ops->get_config(rig->vhost, block_device_class.ops->busy_offset,
			(uint8_t *)&busy, sizeof(busy)),
		0);
	return busy;
}

static void wait_until_busy(const struct rig *rig, uint32_t count)
{
	for (unsigned ms = 0; get_busy(rig) != count; ms++) {
		assert_true(ms < 20000);
		(void)poll(NULL, 0, 1);
	}
}

/* The VMM looks at it before it stops a queue, which would have to wait. */
static void what_the_host_works_on_is_told(void **state)
{
	struct rig *rig = new_rig(engine(state), "/tmp");

	start_all(rig, USUAL);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
		wait_until_busy(rig, 0); /* for good, while the driver asks for nothing */
	}
	stop_all(rig);
	assert_int_equal(get_busy(rig), 0);
	free_rig(rig);
}

static void a_slow_host_is_told(void **state)
{
	struct rig *rig = new_rig((struct block_options){ .sync_engine = true }, "/tmp");

	(void)state;
	start_all(rig, USUAL);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	libc.fdatasync_held = true;
	offer(rig, 0, 0, VIRTIO_BLK_T_FLUSH, 0, 0);
	kick(rig, 0);
	wait_until_busy(rig, 1);
	libc.fdatasync_held = false;
	wait_for(rig, 0, 1);
	wait_until_busy(rig, 0);
	free_rig(rig);
}

/* ---- the write cache --------------------------------------------------------- */

static uint8_t get_wce(const struct rig *rig)
{
	uint8_t wce = 0xee;

	assert_int_equal(rig->vhost->ops->get_config(
				 rig->vhost, offsetof(struct virtio_blk_config, wce), &wce, 1),
		0);
	return wce;
}

static void set_wce(const struct rig *rig, uint8_t wce)
{
	assert_int_equal(rig->vhost->ops->set_config(
				 rig->vhost, offsetof(struct virtio_blk_config, wce), &wce, 1),
		0);
}

static void the_write_cache_is_the_drivers_choice(void **state)
{
	struct rig *rig = new_rig((struct block_options){ .sync_engine = true }, "/tmp");

	(void)state;
	start_all(rig, USUAL);
	assert_int_equal(get_wce(rig), 1);
	assert_int_equal(block_write_flags(rig->device), 0);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(libc.write_flags, 0);
	set_wce(rig, 0);
	assert_int_equal(get_wce(rig), 0);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(libc.write_flags, RWF_DSYNC);
	unsigned syncs = libc.fdatasyncs;

	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(libc.fdatasyncs, syncs + 1);
	set_wce(rig, 1);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(libc.write_flags, 0);
	/* Queues that stop change nothing, nor does a reset, which is all that QEMU's stop and cont
	 * are to us. */
	set_wce(rig, 0);
	stop_all(rig);
	assert_int_equal(get_wce(rig), 0);
	assert_int_equal(rig->vhost->ops->reset(rig->vhost), 0);
	assert_int_equal(get_wce(rig), 0);
	start_all(rig, USUAL);
	assert_int_equal(block_write_flags(rig->device), RWF_DSYNC);
	stop_all(rig);
	/* A driver that cannot set it is not bound by that, nor is the next by it. */
	start_all(rig, RINGS | BIT(VIRTIO_BLK_F_FLUSH));
	assert_int_equal(get_wce(rig), 1);
	stop_all(rig);
	assert_int_equal(rig->vhost->ops->reset(rig->vhost), 0);
	assert_int_equal(get_wce(rig), 0);
	/* Before DRIVER_OK is early enough; but not for a driver that did not ask whether it may.
	 */
	for (unsigned asked = 0; asked < 2; asked++) {
		set_wce(rig, 0);
		start_all(rig, asked != 0 ? USUAL : RINGS | BIT(VIRTIO_BLK_F_FLUSH));
		assert_int_equal(get_wce(rig), !asked);
		assert_int_equal(block_write_flags(rig->device), asked != 0 ? RWF_DSYNC : 0);
		stop_all(rig);
		assert_int_equal(rig->vhost->ops->reset(rig->vhost), 0);
	}
	free_rig(rig);
}

/* Without a cache a write or a discard may be told what would have been a flush's to tell. */
static void a_durable_request_that_fails_is_a_flush_that_fails(void **state)
{
	struct rig *rig = new_rig((struct block_options){ .sync_engine = true }, "/tmp");
	struct capture capture;

	(void)state;
	for (unsigned by_write = 0; by_write < 2; by_write++) {
		start_all(rig, USUAL);
		set_wce(rig, 0);
		capture_begin(&capture);
		if (by_write) {
			libc.next_error = ENOSPC; /* of this write, and of nothing else */
			assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
			assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
			libc.next_error = EIO;
			assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
		} else {
			libc.fdatasync_error = EIO;
			assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_DISCARD, 0, 8, 0),
				VIRTIO_BLK_S_IOERR);
			libc.fdatasync_error = 0;
		}
		set_wce(rig, 1);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_IOERR);
		capture_end(&capture);
		stop_all(rig);
		assert_int_equal(rig->vhost->ops->reset(rig->vhost), 0);
		start_all(rig, USUAL);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
		stop_all(rig);
	}
	free_rig(rig);
}

static void who_cannot_flush_need_not(void **state)
{
	struct rig *rig = new_rig((struct block_options){ .sync_engine = true }, "/tmp");

	(void)state;
	start_all(rig, RINGS);
	assert_int_equal(get_wce(rig), 0);
	assert_int_equal(block_write_flags(rig->device), RWF_DSYNC);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(libc.write_flags, RWF_DSYNC);
	stop_all(rig);
	start_all(rig, RINGS | BIT(VIRTIO_BLK_F_FLUSH));
	assert_int_equal(block_write_flags(rig->device), 0);
	free_rig(rig);
}

/* ---- configuration ----------------------------------------------------------- */

static void the_configuration_tells_the_disk(void **state)
{
	struct virtio_blk_config config;
	uint64_t features;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct rig *rig = new_rig((struct block_options){ .block_size = i == 0 ? 512 : 4096,
						  .queues = QUEUES,
						  .read_only = i == 1,
						  .no_discard = i == 2 },
			"/tmp");

		assert_int_equal(rig->vhost->ops->get_config(
					 rig->vhost, 0, (uint8_t *)&config, sizeof(config)),
			0);
		assert_int_equal(rig->vhost->ops->get_features(rig->vhost, &features), 0);
		assert_int_equal(config.capacity, DISK_SIZE / 512);
		assert_int_equal(config.seg_max, 126);
		assert_int_equal(config.blk_size << config.physical_block_exp, 4096);
		assert_int_equal(config.num_queues, QUEUES);
		assert_int_equal(config.max_discard_sectors, DISK_SIZE / 512);
		assert_int_equal(config.discard_sector_alignment, config.blk_size / 512);
		assert_int_equal(config.write_zeroes_may_unmap, i == 0);
		assert_int_equal((features >> VIRTIO_BLK_F_RO) & 1, i == 1);
		assert_int_equal((features >> VIRTIO_BLK_F_DISCARD) & 1, i == 0);
		assert_int_equal((features >> VIRTIO_BLK_F_WRITE_ZEROES) & 1, i != 1);
		/* All else is not to be written. */
		uint64_t capacity = 1;

		assert_int_equal(rig->vhost->ops->set_config(
					 rig->vhost, 0, (uint8_t *)&capacity, sizeof(capacity)),
			0);
		assert_int_equal(rig->vhost->ops->get_config(
					 rig->vhost, 0, (uint8_t *)&config, sizeof(config)),
			0);
		assert_int_equal(config.capacity, DISK_SIZE / 512);
		free_rig(rig);
	}
}

static void a_read_only_disk_is_never_written(void **state)
{
	struct block_options options = engine(state);

	options.read_only = true;
	struct rig *rig = new_rig(options, "/tmp");

	start_all(rig, USUAL);
	fill(slot_at(rig, 0, 0), 0, DATA_SIZE);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, DATA_SIZE), VIRTIO_BLK_S_IOERR);
	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(allocated(rig), 0);
	free_rig(rig);
}

/* The guest's buffers are where the guest wants them: not aligned for O_DIRECT. */
static void direct_takes_every_buffer(void **state)
{
	struct block_options options = engine(state);
	struct capture capture;

	options.direct = true;
	capture_begin(&capture);
	CLEANUP_FD int probe = open("/tmp", O_RDWR | O_TMPFILE | O_DIRECT | O_CLOEXEC, 0600);

	capture_end(&capture);
	if (probe < 0) {
		print_message("no O_DIRECT in /tmp: %s\n", strerror(errno));
		skip();
	}
	struct rig *rig = new_rig(options, "/tmp");

	start_all(rig, USUAL);
	/* Slots are 4217 bytes apart or so, so that data lies at all kinds of addresses. */
	for (unsigned n = 0; n < 64; n++) {
		fill(slot_at(rig, 0, n), n * DATA_SIZE, DATA_SIZE);
		offer(rig, 0, n, VIRTIO_BLK_T_OUT, n * 8, DATA_SIZE);
	}
	kick(rig, 0);
	wait_for(rig, 0, 64);
	for (unsigned n = 0; n < 64; n++) {
		assert_int_equal(slot_at(rig, 0, n)->status, VIRTIO_BLK_S_OK);
		memset(slot_at(rig, 0, n)->data, 0, DATA_SIZE);
		offer(rig, 0, n, VIRTIO_BLK_T_IN, n * 8, DATA_SIZE);
	}
	kick(rig, 0);
	wait_for(rig, 0, 64);
	for (unsigned n = 0; n < 64; n++) {
		assert_int_equal(slot_at(rig, 0, n)->status, VIRTIO_BLK_S_OK);
		assert_filled(slot_at(rig, 0, n)->data, n * DATA_SIZE, DATA_SIZE);
	}
	free_rig(rig);
}

int main(void)
{
	static bool uring = false;
	static bool sync = true;
#define BOTH(function)                                                                             \
	{ #function " (uring)", function, forget_faults, NULL, &uring },                           \
	{                                                                                          \
#function " (sync)", function, forget_faults, NULL, &sync                          \
	}
	const struct CMUnitTest tests[] = {
		BOTH(data_is_written_and_read),
		BOTH(many_requests_on_four_queues),
		BOTH(stop_in_the_middle),
		BOTH(a_broken_ring_ends_only_the_queue),
		BOTH(discard_frees_blocks),
		BOTH(zeroes_are_zero_and_stay_allocated),
		BOTH(without_discard_nothing_is_freed),
		BOTH(without_fallocate_zeroes_are_written),
		BOTH(a_file_cut_under_us_is_an_io_error),
		BOTH(a_full_file_system_is_an_io_error),
		BOTH(a_read_only_disk_is_never_written),
		BOTH(direct_takes_every_buffer),
		BOTH(the_end_leaves_nothing_unwritten),
		BOTH(a_failure_at_the_end_is_told),
		BOTH(what_was_flushed_is_not_flushed_again),
		BOTH(what_the_host_works_on_is_told),
		cmocka_unit_test_setup(a_slow_host_is_told, forget_faults),
		cmocka_unit_test_setup(short_and_interrupted_transfers_go_on, forget_faults),
		cmocka_unit_test_setup(
			after_a_failed_flush_all_fail_until_the_reset, forget_faults),
		cmocka_unit_test_teardown(
			a_durable_request_that_fails_is_a_flush_that_fails, forget_faults),
		cmocka_unit_test_setup(a_failed_flush_is_remembered_by_the_device, forget_faults),
		cmocka_unit_test_setup(a_flush_covers_what_was_answered_before, forget_faults),
		cmocka_unit_test_setup(the_write_cache_is_the_drivers_choice, forget_faults),
		cmocka_unit_test_setup(who_cannot_flush_need_not, forget_faults),
		cmocka_unit_test_setup(the_configuration_tells_the_disk, forget_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
