// SPDX-License-Identifier: BSD-3-Clause
/*
 * The io_urings of devices. How many threads the kernel makes for them must fit
 * the jail's limit, whatever the number of queues; it tells whom it gives how many.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>

#include "base/thread.h"
#include "virtio/uring.h"

static const uint8_t nop = IORING_OP_NOP;
static const struct uring_kind kind = {
	.entries = 4,
	.operation_count = 1,
	.operations = &nop,
};

struct look {
	struct urings urings;
	unsigned
		limits[2]; /* of workers for files, and for all else; 0: the kernel does not tell */
};

static void use_ring(struct io_uring *ring)
{
	io_uring_prep_nop(io_uring_get_sqe(ring));
	assert_int_equal(io_uring_submit_and_wait(ring, 1), 1);
}

/* A second ring of the same thread may ask, the first one may not any more. */
static void *use_and_look(void *argument)
{
	struct look *look = argument;
	struct io_uring *ring = urings_open(&look->urings, &kind, 0);
	struct io_uring other;

	if (ring == NULL)
		return NULL;
	use_ring(ring);
	assert_int_equal(io_uring_queue_init(2, &other, 0), 0);
	(void)io_uring_register_iowq_max_workers(&other, look->limits);
	io_uring_queue_exit(&other);
	return NULL;
}

static void look_from_a_thread(struct look *look)
{
	pthread_t thread;

	assert_int_equal(thread_start(&thread, use_and_look, look), 0);
	pthread_join(thread, NULL);
	urings_free(&look->urings);
	if (look->limits[0] == 0)
		skip();
}

static void workers_of_all_rings_fit_the_limit(void **state)
{
	(void)state;
	for (unsigned queues = 2; queues <= DEVICE_QUEUES_MAX; queues++) {
		struct look look = { .limits = { 0 } };

		urings_prepare(&look.urings, &kind, queues);
		look_from_a_thread(&look);
		assert_in_range(look.limits[0], 1, URING_WORKERS / queues);
		assert_int_equal(look.limits[1], 1);
		assert_true(queues * (look.limits[0] + look.limits[1]) <= URING_WORKERS);
		assert_true(queues * (look.limits[0] + look.limits[1] + 1) > URING_WORKERS);
	}
}

/* Without a jail there is no limit that they must fit, and in it one ring may have them all. */
static void others_have_as_many_as_the_kernel_likes(void **state)
{
	struct look look = { .limits = { 0 } };
	struct look alone = { .limits = { 0 } };

	(void)state;
	look_from_a_thread(&look);
	assert_true(look.limits[1] > 1);
	urings_prepare(&alone.urings, &kind, 1);
	look_from_a_thread(&alone);
	assert_memory_equal(alone.limits, look.limits, sizeof(look.limits));
}

/* What a device would do that a guest has taken over, in a jail without files. */
static void *misuse_a_ring(void *argument)
{
	struct urings *urings = argument;
	struct io_uring *ring = urings_open(urings, &kind, 0);
	struct io_uring_cqe *cqe;
	unsigned limits[2] = { 0 };

	if (ring == NULL)
		return NULL;
	io_uring_prep_openat(io_uring_get_sqe(ring), AT_FDCWD, "/dev/null", O_RDONLY, 0);
	(void)io_uring_submit_and_wait(ring, 1);
	assert_int_equal(io_uring_peek_cqe(ring, &cqe), 0);
	assert_int_equal(cqe->res, -EACCES);
	assert_int_equal(io_uring_register_iowq_max_workers(ring, limits), -EACCES);
	return urings;
}

static void a_ring_does_what_its_kind_needs_and_no_more(void **state)
{
	struct urings urings = { .rings = { NULL } };
	pthread_t thread;
	void *done;

	(void)state;
	urings_prepare(&urings, &kind, 1);
	assert_int_equal(thread_start(&thread, misuse_a_ring, &urings), 0);
	pthread_join(thread, &done);
	urings_free(&urings);
	if (done == NULL)
		skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(workers_of_all_rings_fit_the_limit),
		cmocka_unit_test(others_have_as_many_as_the_kernel_likes),
		cmocka_unit_test(a_ring_does_what_its_kind_needs_and_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
