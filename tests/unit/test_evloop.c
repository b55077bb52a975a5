// SPDX-License-Identifier: BSD-3-Clause
/*
 * base/evloop: that functions run while their descriptor is readable, and that
 * one which was removed does not, even when its event is there already and
 * its descriptor's number or place has a new owner.
 */
#include "unit/unit.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/evloop.h"
#include "base/fd.h"
#include "base/thread.h"

enum { SOURCES = 20 }; /* more than the loop takes at once */

struct source {
	struct evloop *loop;
	int fd;
	int calls;
	int remove_fd; /* what its function removes; -1: nothing */
};

static void count_call(void *argument)
{
	struct source *source = argument;

	source->calls++;
	evloop_remove(source->loop, source->remove_fd);
}

static void open_source(struct source *source, struct evloop *loop, unsigned value)
{
	*source =
		(struct source){ .loop = loop, .fd = eventfd(value, EFD_CLOEXEC), .remove_fd = -1 };
	assert_true(source->fd >= 0);
	assert_int_equal(evloop_add(loop, source->fd, count_call, source), 0);
}

static int make_loop(void **state)
{
	struct evloop *loop;
	int r = evloop_create(&loop);

	*state = loop;
	return r;
}

static int free_loop(void **state)
{
	evloop_free(*state);
	return 0;
}

static void only_readable_ones_are_called(void **state)
{
	struct evloop *loop = *state;
	struct source ready, idle;

	open_source(&ready, loop, 1);
	open_source(&idle, loop, 0);
	assert_int_equal(evloop_run_once(loop), 0);
	assert_int_equal(ready.calls, 1);
	assert_int_equal(idle.calls, 0);
	/* Nobody read it: it is called again. */
	assert_int_equal(evloop_run_once(loop), 0);
	assert_int_equal(ready.calls, 2);
	fd_close(&ready.fd);
	fd_close(&idle.fd);
}

static void a_hang_up_is_an_event(void **state)
{
	struct evloop *loop = *state;
	struct source source = { .loop = loop, .remove_fd = -1 };
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(evloop_add(loop, fds[0], count_call, &source), 0);
	fd_close(&fds[1]);
	assert_int_equal(evloop_run_once(loop), 0);
	assert_int_equal(source.calls, 1);
	fd_close(&fds[0]);
}

static void a_removed_one_is_not_called(void **state)
{
	struct evloop *loop = *state;
	struct source gone, stays;

	open_source(&gone, loop, 1);
	open_source(&stays, loop, 1);
	evloop_remove(loop, gone.fd);
	evloop_remove(loop, gone.fd); /* nothing happens */
	evloop_remove(loop, -1);
	assert_int_equal(evloop_run_once(loop), 0);
	assert_int_equal(gone.calls, 0);
	assert_int_equal(stays.calls, 1);
	fd_close(&gone.fd);
	fd_close(&stays.fd);
}

static void removal_counts_for_an_event_that_came_with_ours(void **state)
{
	struct evloop *loop = *state;
	struct source a, b;

	open_source(&a, loop, 1);
	open_source(&b, loop, 1);
	a.remove_fd = b.fd;
	b.remove_fd = a.fd;
	assert_int_equal(evloop_run_once(loop), 0);
	assert_int_equal(a.calls + b.calls, 1);
	fd_close(&a.fd);
	fd_close(&b.fd);
}

struct replacement {
	struct source old, new;
};

/* Takes `old` out and puts `new`, which is not readable, into its place. */
static void replace(void *argument)
{
	struct replacement *replacement = argument;
	struct evloop *loop = replacement->old.loop;

	replacement->old.calls++;
	evloop_remove(loop, replacement->old.fd);
	open_source(&replacement->new, loop, 0);
}

static void an_event_of_the_place_s_former_owner_is_dropped(void **state)
{
	struct evloop *loop = *state;
	struct replacement replacement = { .old = { .loop = loop, .remove_fd = -1 } };
	struct source trigger = { .loop = loop, .fd = eventfd(1, EFD_CLOEXEC), .remove_fd = -1 };

	/* Events come in the order in which they became ready: the trigger's first. */
	assert_int_equal(evloop_add(loop, trigger.fd, replace, &replacement), 0);
	replacement.old.fd = eventfd(1, EFD_CLOEXEC);
	assert_int_equal(evloop_add(loop, replacement.old.fd, count_call, &replacement.old), 0);
	assert_int_equal(evloop_run_once(loop), 0);
	assert_int_equal(replacement.old.calls, 1); /* by replace() only */
	assert_int_equal(replacement.new.calls, 0);
	fd_close(&trigger.fd);
	fd_close(&replacement.old.fd);
	fd_close(&replacement.new.fd);
}

static void many_are_all_served(void **state)
{
	struct evloop *loop = *state;
	struct source sources[SOURCES];
	int served = 0;

	for (int i = 0; i < SOURCES; i++)
		open_source(&sources[i], loop, 1);
	for (int round = 0; round < 3; round++)
		assert_int_equal(evloop_run_once(loop), 0);
	for (int i = 0; i < SOURCES; i++) {
		served += sources[i].calls > 0;
		fd_close(&sources[i].fd);
	}
	assert_int_equal(served, SOURCES);
}

static void what_cannot_be_polled_is_refused(void **state)
{
	struct evloop *loop = *state;
	struct source source;

	assert_int_equal(evloop_add(loop, -1, count_call, NULL), -EBADF);
	open_source(&source, loop, 1);
	assert_int_equal(evloop_add(loop, source.fd, count_call, &source), -EEXIST);
	/* The failures have left nothing behind. */
	assert_int_equal(evloop_run_once(loop), 0);
	assert_int_equal(source.calls, 1);
	fd_close(&source.fd);
}

static void ignore_signal(int number)
{
	(void)number;
}

static void a_signal_is_no_error(void **state)
{
	const struct sigaction action = { .sa_handler = ignore_signal };
	/* Again and again, in case the first comes before the wait. */
	const struct itimerval soon = { { 0, 10000 }, { 0, 10000 } },
			       never = { { 0, 0 }, { 0, 0 } };

	assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &soon, NULL), 0);
	assert_int_equal(evloop_run_once(*state), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
}

static void *run_until_called(void *argument)
{
	struct source *source = argument;

	while (source->calls == 0)
		if (evloop_run_once(source->loop) < 0)
			return NULL;
	return argument;
}

static void another_thread_may_add_while_it_waits(void **state)
{
	struct source source = { .loop = *state, .fd = eventfd(1, EFD_CLOEXEC), .remove_fd = -1 };
	pthread_t thread;
	void *result;

	assert_int_equal(thread_start(&thread, run_until_called, &source), 0);
	assert_int_equal(evloop_add(*state, source.fd, count_call, &source), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_non_null(result);
	fd_close(&source.fd);
}

static void free_of_none_is_fine(void **state)
{
	(void)state;
	evloop_free(NULL);
}

#define LOOP_TEST(f) cmocka_unit_test_setup_teardown(f, make_loop, free_loop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOOP_TEST(only_readable_ones_are_called),
		LOOP_TEST(a_hang_up_is_an_event),
		LOOP_TEST(a_removed_one_is_not_called),
		LOOP_TEST(removal_counts_for_an_event_that_came_with_ours),
		LOOP_TEST(an_event_of_the_place_s_former_owner_is_dropped),
		LOOP_TEST(many_are_all_served),
		LOOP_TEST(what_cannot_be_polled_is_refused),
		LOOP_TEST(a_signal_is_no_error),
		LOOP_TEST(another_thread_may_add_while_it_waits),
		cmocka_unit_test(free_of_none_is_fine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
