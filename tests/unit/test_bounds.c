// SPDX-License-Identifier: BSD-3-Clause
/*
 * That our objects are built with checks of array bounds, also of an array at
 * the end of a struct, which compilers take for one without bounds unless told
 * otherwise. What is broken here is the caller's promise, on purpose.
 */
#include "unit/unit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/virtio_driver.h"
#include "virtio/virtqueue.h"

/* A queue with room behind it, so that without a check nothing would be noticed. */
union roomy {
	struct virtqueue vq;
	uint8_t bytes[sizeof(struct virtqueue) + 65536 / 8];
};

/* In a child: gives back a head, which a virtqueue_pop() never gave if it is out of range. */
static int push_in_child(struct guest_memory *memory, uint16_t head)
{
	static union roomy roomy;
	const struct virtqueue_config config = driver_config(8);
	int status = -1;

	assert_int_equal(virtqueue_init(&roomy.vq, memory, &config, 0), 0);
	pid_t child = fork();

	if (child == 0) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

		(void)signal(SIGILL, SIG_DFL);   /* cmocka has its own */
		(void)dup2(null, STDERR_FILENO); /* for a sanitizer's report */
		virtqueue_push(&roomy.vq, head, 0);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static void the_array_at_a_structs_end_has_bounds(void **state)
{
#if defined(SANITIZED) && !defined(__SANITIZE_ADDRESS__)
	(void)state;
	(void)push_in_child;
	skip(); /* only these builds check bounds: the plain ones and gcc's ASan */
#else
	assert_int_equal(push_in_child(*state, 0), 0);
	assert_int_equal(push_in_child(*state, VIRTQUEUE_SIZE_MAX - 1), 0);
	assert_int_not_equal(push_in_child(*state, VIRTQUEUE_SIZE_MAX), 0);
	assert_int_not_equal(push_in_child(*state, UINT16_MAX), 0);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_array_at_a_structs_end_has_bounds),
	};

	return cmocka_run_group_tests(tests, driver_make_memory, driver_free_memory);
}
