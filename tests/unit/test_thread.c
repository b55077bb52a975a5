// SPDX-License-Identifier: BSD-3-Clause
/*
 * base/thread: the function runs with its argument and its stack is small,
 * since a VM has many threads and their memory is counted.
 */
#include "unit/unit.h"

#include <signal.h>

#include "base/thread.h"

static void *return_argument(void *argument)
{
	return argument;
}

static void *stack_size_of_self(void *argument)
{
	pthread_attr_t attributes;

	if (pthread_getattr_np(pthread_self(), &attributes) != 0)
		return NULL;
	pthread_attr_getstacksize(&attributes, argument);
	pthread_attr_destroy(&attributes);
	return argument;
}

static void *is_usr1_blocked(void *argument)
{
	sigset_t set;

	pthread_sigmask(SIG_SETMASK, NULL, &set);
	return sigismember(&set, SIGUSR1) == 1 ? argument : NULL;
}

static void *run(void *(*function)(void *argument), void *argument)
{
	pthread_t thread;
	void *result;

	assert_int_equal(thread_start(&thread, function, argument), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	return result;
}

static void the_argument_arrives(void **state)
{
	assert_ptr_equal(run(return_argument, state), state);
}

static void the_stack_is_small(void **state)
{
	size_t size = 0;

	(void)state;
	assert_ptr_equal(run(stack_size_of_self, &size), &size);
	assert_true(size > 0 && size <= MIB);
}

static void blocked_signals_stay_blocked(void **state)
{
	sigset_t set;

	assert_null(run(is_usr1_blocked, state));
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	assert_non_null(run(is_usr1_blocked, state));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_argument_arrives),
		cmocka_unit_test(the_stack_is_small),
		cmocka_unit_test(blocked_signals_stay_blocked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
