// SPDX-License-Identifier: BSD-3-Clause
/*
 * What the engine on io_uring promises of the disk's content. The kernel does it, and asks no
 * libc whose place a test could take; but what was submitted stays in the ring's memory, in its
 * order, until 512 others came after it, and is read there while the queue is stopped. And the
 * disk may become a pipe, which lets a write wait, takes a part of it, and has no fsync.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log_limit.h"
#include "block_rig.h"
#include "capture.h"

/* Those of the queue's thread, not of the ring. */
static atomic_uint fdatasyncs;

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): libc's has underscores */
int fdatasync(int fd)
{
	fdatasyncs++;
	return (int)syscall(SYS_fdatasync, fd);
}

/* ---- what was submitted ------------------------------------------------------- */

/* All that a queue submitted since the last look, oldest first. */
struct past {
	unsigned next; /* where the next look begins */
	unsigned count;
	struct io_uring_sqe entries[BLOCK_RING_ENTRIES];
};

/* The queue is stopped, so that nobody writes there. */
static void look(const struct rig *rig, unsigned index, struct past *past)
{
	const struct io_uring_sq *sq = &rig->device->urings.rings[index]->sq;

	assert_true(sq->sqe_tail - past->next <= BLOCK_RING_ENTRIES);
	for (past->count = 0; past->next != sq->sqe_tail; past->next++)
		past->entries[past->count++] = sq->sqes[past->next & sq->ring_mask];
}

static void stop_and_look(struct rig *rig, struct past *past)
{
	stop_all(rig);
	look(rig, 0, past);
}

/* The next entry of that kind from `at` on, or past->count. */
static unsigned find(const struct past *past, unsigned at, uint8_t opcode)
{
	while (at < past->count && past->entries[at].opcode != opcode)
		at++;
	return at;
}

static unsigned count(const struct past *past, uint8_t opcode)
{
	unsigned found = 0;

	for (unsigned i = 0; i < past->count; i++)
		found += past->entries[i].opcode == opcode;
	return found;
}

/* So many writes, all with these flags, and no flush. */
static void assert_writes(const struct past *past, unsigned writes, int flags)
{
	assert_int_equal(count(past, IORING_OP_WRITEV), writes);
	assert_int_equal(count(past, IORING_OP_FSYNC), 0);
	for (unsigned i = 0; i < past->count; i++)
		if (past->entries[i].opcode == IORING_OP_WRITEV)
			assert_int_equal(past->entries[i].rw_flags, flags);
}

/* A flush is of the whole file. */
static void assert_flush(const struct rig *rig, const struct io_uring_sqe *sqe)
{
	assert_int_equal(sqe->opcode, IORING_OP_FSYNC);
	assert_int_equal(sqe->fd, rig->device->image.fd);
	assert_int_equal(sqe->fsync_flags, IORING_FSYNC_DATASYNC);
	assert_int_equal(sqe->off, 0);
	assert_int_equal(sqe->len, 0);
}

/* ---- a driver ----------------------------------------------------------------- */

static uint8_t flush(struct rig *rig, unsigned index)
{
	offer(rig, index, 0, VIRTIO_BLK_T_FLUSH, 0, 0);
	kick(rig, index);
	wait_for(rig, index, 1);
	return slot_at(rig, index, 0)->status;
}

static void set_wce(const struct rig *rig, uint8_t wce)
{
	assert_int_equal(rig->vhost->ops->set_config(
				 rig->vhost, offsetof(struct virtio_blk_config, wce), &wce, 1),
		0);
}

static void reset(struct rig *rig)
{
	stop_all(rig);
	assert_int_equal(rig->vhost->ops->reset(rig->vhost), 0);
}

/* A pipe with room for one page takes the disk's place; where to read from it. */
static int become_pipe(const struct rig *rig)
{
	int ends[2], fd = rig->device->image.fd;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(fcntl(ends[1], F_SETPIPE_SZ, DATA_SIZE), DATA_SIZE);
	assert_int_equal(dup3(ends[1], fd, O_CLOEXEC), fd);
	close(ends[1]);
	return ends[0];
}

/* It says at the end that a pipe cannot be made durable. */
static void free_pipe_rig(struct rig *rig, int disk)
{
	struct capture capture;

	capture_begin(&capture);
	free_rig(rig);
	capture_end(&capture);
	close(disk);
}

/* ---- durable writes ------------------------------------------------------------- */

static void who_cannot_flush_gets_durable_writes(void **state)
{
	enum { MANY = 40 };
	struct rig *rig = new_ring_rig(1);
	struct past past = { 0 };

	(void)state;
	start_all(rig, RINGS);
	for (unsigned n = 0; n < MANY; n++)
		offer(rig, 0, n, VIRTIO_BLK_T_OUT, n * 8, DATA_SIZE);
	kick(rig, 0);
	wait_for(rig, 0, MANY);
	stop_and_look(rig, &past);
	assert_writes(&past, MANY, RWF_DSYNC);

	/* Who can flush, and not turn the cache off, has it on. */
	start_all(rig, RINGS | BIT(VIRTIO_BLK_F_FLUSH));
	set_wce(rig, 0);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	stop_and_look(rig, &past);
	assert_writes(&past, 1, 0);
	free_rig(rig);
}

static void without_a_cache_each_write_is_durable(void **state)
{
	struct rig *rig = new_ring_rig(1);
	struct past past = { 0 };

	(void)state;
	start_all(rig, USUAL);
	for (unsigned n = 0; n < 16; n++) {
		set_wce(rig, n % 2 == 0);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, n, 512), VIRTIO_BLK_S_OK);
	}
	stop_and_look(rig, &past);
	for (unsigned n = 0, at = 0; n < 16; n++, at++) {
		at = find(&past, at, IORING_OP_WRITEV);
		assert_true(at < past.count);
		assert_int_equal(past.entries[at].off, n * 512);
		assert_int_equal(past.entries[at].rw_flags, n % 2 == 0 ? 0 : RWF_DSYNC);
	}

	/* What is no transfer is the queue's thread's work. The cache is still off. */
	start_queue(rig, 0);
	unsigned before = fdatasyncs;

	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(fdatasyncs, before + 1);
	assert_int_equal(ask_segment(rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(fdatasyncs, before + 2);
	free_rig(rig);
}

/* The pipe takes a page of two, the rest is submitted anew. */
static void the_rest_of_a_short_write_is_durable_too(void **state)
{
	struct rig *rig = new_ring_rig(1);
	struct past past = { 0 };
	uint8_t data[DATA_SIZE];

	(void)state;
	int disk = become_pipe(rig);

	start_all(rig, RINGS);
	offer(rig, 0, 0, VIRTIO_BLK_T_OUT, 0, 2 * DATA_SIZE);
	kick(rig, 0);
	assert_int_equal(read(disk, data, DATA_SIZE), DATA_SIZE);
	assert_int_equal(read(disk, data, DATA_SIZE), DATA_SIZE);
	wait_for(rig, 0, 1);
	assert_int_equal(slot_at(rig, 0, 0)->status, VIRTIO_BLK_S_OK);
	stop_and_look(rig, &past);
	assert_writes(&past, 2, RWF_DSYNC);
	free_pipe_rig(rig, disk);
}

/* A full pipe makes it wait. */
static void a_write_is_answered_when_it_is_done(void **state)
{
	struct rig *rig = new_ring_rig(1);
	uint8_t data[DATA_SIZE] = { 0 };

	(void)state;
	int disk = become_pipe(rig);
	struct pollfd call = { .fd = rig->queues[0].call_fd, .events = POLLIN };

	assert_int_equal(write(rig->device->image.fd, data, DATA_SIZE), DATA_SIZE);
	start_all(rig, USUAL);
	offer(rig, 0, 0, VIRTIO_BLK_T_OUT, 0, DATA_SIZE);
	kick(rig, 0);
	assert_int_equal(poll(&call, 1, 50), 0);
	assert_int_equal(__atomic_load_n(&rig->queues[0].used->idx, __ATOMIC_ACQUIRE), 0);
	assert_int_equal(read(disk, data, DATA_SIZE), DATA_SIZE);
	wait_for(rig, 0, 1);
	assert_int_equal(slot_at(rig, 0, 0)->status, VIRTIO_BLK_S_OK);
	free_pipe_rig(rig, disk);
}

/* ---- flushes ------------------------------------------------------------------- */

enum { REQUESTS = 56 };

/* The order of things as the driver sees it. */
struct order {
	unsigned offered;
	unsigned flushes; /* among them */
	bool is_flush[REQUESTS];
	unsigned flushes_before[REQUESTS]; /* how many were offered when its answer was seen */
};

static void see_answers(struct rig *rig, struct order *order, bool all)
{
	struct driver_queue *queue = &rig->queues[0];
	unsigned seen = queue->seen;

	if (all)
		wait_for(rig, 0, order->offered - seen);
	queue->seen = __atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE);
	for (; seen != queue->seen; seen++)
		order->flushes_before[queue->used->ring[seen].id] = order->flushes;
}

static void offer_at_random(struct rig *rig, struct order *order, unsigned *random)
{
	unsigned n = order->offered++;
	unsigned drawn = draw_below(random, 65536);

	order->is_flush[n] = drawn % 3 == 0;
	order->flushes += order->is_flush[n];
	if (order->is_flush[n])
		offer(rig, 0, n, VIRTIO_BLK_T_FLUSH, 0, 0);
	else
		offer(rig, 0, n, VIRTIO_BLK_T_OUT, n * 8, DATA_SIZE);
	if (drawn / 16 % 4 != 0)
		kick(rig, 0);
}

/*
 * Each flush has its own fsync, in the order of the flushes. Between a write and the fsync of a
 * flush that the driver offered with its answer in hand there is a call to the driver, which is
 * submitted with the answer: so the kernel was done with the one before it got the other.
 */
static void check_order(const struct rig *rig, const struct past *past, const struct order *order)
{
	unsigned writes[REQUESTS], fsyncs[REQUESTS], fsync_count = 0;

	assert_int_equal(count(past, IORING_OP_FSYNC), order->flushes);
	for (unsigned i = 0; i < past->count; i++) {
		const struct io_uring_sqe *sqe = &past->entries[i];

		if (sqe->opcode == IORING_OP_FSYNC) {
			assert_flush(rig, sqe);
			fsyncs[fsync_count++] = i;
		} else if (sqe->opcode == IORING_OP_WRITEV) {
			assert_true(sqe->off / DATA_SIZE < REQUESTS);
			writes[sqe->off / DATA_SIZE] = i;
		}
	}
	for (unsigned n = 0; n < REQUESTS; n++) {
		unsigned next_flush = order->flushes_before[n];

		if (!order->is_flush[n] && next_flush < fsync_count)
			assert_true(find(past, writes[n], IORING_OP_WRITE) < fsyncs[next_flush]);
	}
}

/*
 * Durability D1: writes and flushes in any order, many in flight. What was answered before a
 * flush was offered is covered by the fsync that the flush waits for.
 */
static void a_flush_covers_what_was_answered_before(void **state)
{
	struct rig *rig = new_ring_rig(1);
	struct past past = { 0 };
	unsigned random = 1;

	(void)state;
	for (unsigned round = 0; round < 30; round++) {
		struct order order = { 0 };

		start_all(rig, USUAL);
		while (order.offered < REQUESTS) {
			offer_at_random(rig, &order, &random);
			bool all = (random >> 24) % 5 == 0 || order.offered == REQUESTS;

			if (all)
				kick(rig, 0);
			see_answers(rig, &order, all);
		}
		for (unsigned n = 0; n < REQUESTS; n++)
			assert_int_equal(slot_at(rig, 0, n)->status, VIRTIO_BLK_S_OK);
		stop_and_look(rig, &past);
		check_order(rig, &past, &order);
	}
	free_rig(rig);
}

/* What one queue wrote, another flushes: nothing that it knows of itself saves it the fsync. */
static void a_flush_covers_other_queues_writes(void **state)
{
	enum { ROUNDS = 20 };
	struct rig *rig = new_ring_rig(2);
	struct past past = { 0 };

	(void)state;
	start_all(rig, USUAL);
	for (unsigned n = 0; n < ROUNDS; n++) {
		assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, n, 512), VIRTIO_BLK_S_OK);
		assert_int_equal(flush(rig, 1), VIRTIO_BLK_S_OK);
	}
	stop_all(rig);
	look(rig, 1, &past);
	assert_int_equal(count(&past, IORING_OP_FSYNC), ROUNDS);
	for (unsigned i = 0; i < past.count; i++)
		if (past.entries[i].opcode == IORING_OP_FSYNC)
			assert_flush(rig, &past.entries[i]);
	free_rig(rig);
}

/* The kernel tells of lost pages once, so that a later success means nothing, in any queue. */
static void after_a_failed_fsync_all_fail_until_the_reset(void **state)
{
	struct rig *rig = new_ring_rig(2);
	struct capture capture;
	unsigned failed = 0;

	(void)state;
	int fd = rig->device->image.fd;
	CLEANUP_FD int kept = dup(fd);

	start_all(rig, USUAL);
	assert_int_equal(flush(rig, 0), VIRTIO_BLK_S_OK);
	capture_begin(&capture);
	int disk = become_pipe(rig);

	failed += flush(rig, 0) == VIRTIO_BLK_S_IOERR;
	assert_int_equal(dup3(kept, fd, O_CLOEXEC), fd);
	close(disk);
	for (unsigned i = 0; i < 20; i++)
		failed += flush(rig, i % 2) == VIRTIO_BLK_S_IOERR;
	capture_end(&capture);
	assert_int_equal(failed, 21);
	assert_non_null(strstr(capture.text, "fdatasync failed: Invalid argument"));
	assert_int_equal(capture_lines(&capture), 1);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	stop_all(rig);
	for (unsigned i = 0; i < 2; i++)
		start_queue(rig, i); /* as when a suspended VM goes on */
	assert_int_equal(flush(rig, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(flush(rig, 1), VIRTIO_BLK_S_IOERR);
	reset(rig);
	start_all(rig, USUAL);
	assert_int_equal(flush(rig, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(flush(rig, 1), VIRTIO_BLK_S_OK);
	free_rig(rig);
}

/* A driver that resets in a loop cannot fill the host's log with it. */
static void a_hundred_failed_flushes_are_told_in_few_lines(void **state)
{
	struct rig *rig = new_ring_rig(1);
	struct capture capture;
	unsigned failed = 0;

	(void)state;
	int disk = become_pipe(rig);

	capture_begin(&capture);
	for (unsigned i = 0; i < 100; i++) {
		start_all(rig, USUAL);
		failed += flush(rig, 0) == VIRTIO_BLK_S_IOERR;
		reset(rig);
	}
	capture_end(&capture);
	assert_int_equal(failed, 100);
	assert_null(strstr(capture.text, "warning"));
	assert_true(capture_lines(&capture) >= LOG_LIMIT_BURST);
	/* One more in each interval that a slow machine takes for it. */
	assert_true(capture_lines(&capture) <= 2 * LOG_LIMIT_BURST);
	free_pipe_rig(rig, disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_cannot_flush_gets_durable_writes),
		cmocka_unit_test(without_a_cache_each_write_is_durable),
		cmocka_unit_test(the_rest_of_a_short_write_is_durable_too),
		cmocka_unit_test(a_write_is_answered_when_it_is_done),
		cmocka_unit_test(a_flush_covers_what_was_answered_before),
		cmocka_unit_test(a_flush_covers_other_queues_writes),
		cmocka_unit_test(after_a_failed_fsync_all_fail_until_the_reset),
		cmocka_unit_test(a_hundred_failed_flushes_are_told_in_few_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
