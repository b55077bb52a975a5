// SPDX-License-Identifier: BSD-3-Clause
/*
 * base/fd: who closes a descriptor and when, and that transfers are complete
 * or say why not. Short reads and writes are those that pipes really make.
 */
#include "unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static int make_file(const char *content)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(fd_write_full(fd, content, strlen(content)), 0);
	return fd;
}

static void close_forgets_the_descriptor_and_keeps_errno(void **state)
{
	int fd = make_file(""), number = fd;

	(void)state;
	errno = EXDEV;
	fd_close(&fd);
	assert_int_equal(fd, -1);
	assert_false(is_open(number));
	errno = EXDEV;
	fd_close(&fd); /* none: nothing happens */
	assert_int_equal(fd, -1);
	assert_int_equal(errno, EXDEV);
}

static void close_keeps_errno_when_it_fails(void **state)
{
	int fd = make_file("");

	(void)state;
	int number = fd;

	close(number);
	errno = EXDEV;
	fd_close(&fd);
	assert_int_equal(fd, -1);
	assert_int_equal(errno, EXDEV);
}

static void cleanup_closes_at_the_end_of_the_scope(void **state)
{
	int number;

	(void)state;
	{
		CLEANUP_FD int fd = make_file("");

		number = fd;
		assert_true(is_open(number));
	}
	assert_false(is_open(number));
}

static int open_and_hand_on(void)
{
	CLEANUP_FD int fd = make_file("");

	return fd_steal(&fd);
}

static void stolen_descriptor_stays_open(void **state)
{
	(void)state;
	CLEANUP_FD int fd = open_and_hand_on();

	assert_true(is_open(fd));
}

static void pread_full_reads_at_the_offset(void **state)
{
	CLEANUP_FD int fd = make_file("0123456789");
	char buffer[5] = "xxxx";

	(void)state;
	assert_int_equal(fd_pread_full(fd, buffer, 4, 6), 0);
	assert_string_equal(buffer, "6789");
	assert_int_equal(fd_pread_full(fd, buffer, 0, 6), 0);
}

static void pread_full_of_a_short_file_is_no_data(void **state)
{
	CLEANUP_FD int fd = make_file("0123456789");
	char buffer[16];

	(void)state;
	assert_int_equal(fd_pread_full(fd, buffer, 11, 0), -ENODATA);
	assert_int_equal(fd_pread_full(fd, buffer, 1, 10), -ENODATA);
	assert_int_equal(fd_pread_full(fd, buffer, 1, UINT64_C(1) << 40), -ENODATA);
}

static void pread_most_gives_what_there_is(void **state)
{
	CLEANUP_FD int fd = make_file("0123456789");
	char buffer[16];

	(void)state;
	assert_int_equal(fd_pread_most(fd, buffer, sizeof(buffer), 7), 3);
	assert_memory_equal(buffer, "789", 3);
	assert_int_equal(fd_pread_most(fd, buffer, sizeof(buffer), 10), 0);
}

static void reads_report_the_error(void **state)
{
	int fds[2];
	char byte;

	(void)state;
	assert_int_equal(fd_pread_full(-1, &byte, 1, 0), -EBADF);
	assert_int_equal(fd_pread_most(-1, &byte, 1, 0), -EBADF);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(fd_pread_most(fds[0], &byte, 1, 0), -ESPIPE);
	/* An offset above what off_t holds comes from a file's header. */
	CLEANUP_FD int file = make_file("x");

	assert_int_equal(fd_pread_full(file, &byte, 1, UINT64_MAX), -EINVAL);
	close(fds[0]);
	close(fds[1]);
}

static void write_full_reports_the_error(void **state)
{
	(void)state;
	assert_int_equal(fd_write_full(-1, "x", 1), -EBADF);
	assert_int_equal(fd_write_full(-1, "", 0), 0);
}

static void ignore_signal(int number)
{
	(void)number;
}

enum { BIG = 1 << 20 };

/* Reads slowly, and disturbs the writer by a signal before each read. */
static void *drain_with_signals(void *argument)
{
	const int *fds = argument;
	static char buffer[1 << 16];
	size_t total = 0;
	ssize_t n;

	while (total < BIG && (n = read(fds[0], buffer, sizeof(buffer))) > 0) {
		total += (size_t)n;
		kill(getpid(), SIGUSR1);
	}
	return total == BIG ? argument : NULL;
}

static void write_full_goes_on_after_signals_and_short_writes(void **state)
{
	static const char data[BIG];
	const struct sigaction action = { .sa_handler = ignore_signal }; /* no SA_RESTART */
	sigset_t usr1;
	pthread_t reader;
	int fds[2];
	void *complete;

	(void)state;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
	assert_int_equal(pipe(fds), 0);
	/* The reader inherits the mask, so the signals hit the writer. */
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	assert_int_equal(pthread_create(&reader, NULL, drain_with_signals, fds), 0);
	pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
	assert_int_equal(fd_write_full(fds[1], data, sizeof(data)), 0);
	assert_int_equal(pthread_join(reader, &complete), 0);
	assert_non_null(complete);
	close(fds[0]);
	close(fds[1]);
}

static void an_event_is_taken_once_and_never_waited_for(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC); /* a blocking one */

	(void)state;
	assert_false(fd_take_event(fd));
	assert_int_equal(eventfd_write(fd, 3), 0);
	assert_true(fd_take_event(fd));
	assert_false(fd_take_event(fd));
	close(fd);
	assert_false(fd_take_event(-1));
}

/* In a process of its own, whose limits can be lowered for good. */
static unsigned room_with(rlim_t soft, rlim_t hard, unsigned wanted)
{
	const struct rlimit files = { soft, hard };
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(setrlimit(RLIMIT_NOFILE, &files) < 0 ? 255 : (int)fd_make_room(wanted));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return (unsigned)WEXITSTATUS(status);
}

static void room_is_made_as_far_as_there_is_any(void **state)
{
	struct rlimit before, after;

	(void)state;
	assert_int_equal(room_with(64, 200, 100), 100);
	assert_int_equal(room_with(64, 164, 100), 100);
	assert_int_equal(room_with(64, 150, 100), 86);
	assert_int_equal(room_with(64, 70, 100), 32);
	assert_int_equal(room_with(64, 64, 100), 32);
	assert_int_equal(room_with(64, 64, 10), 10);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(fd_make_room(3), 3);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &after), 0);
	assert_true(after.rlim_cur == before.rlim_cur + 3 || after.rlim_cur == after.rlim_max);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(close_forgets_the_descriptor_and_keeps_errno),
		cmocka_unit_test(close_keeps_errno_when_it_fails),
		cmocka_unit_test(cleanup_closes_at_the_end_of_the_scope),
		cmocka_unit_test(stolen_descriptor_stays_open),
		cmocka_unit_test(pread_full_reads_at_the_offset),
		cmocka_unit_test(pread_full_of_a_short_file_is_no_data),
		cmocka_unit_test(pread_most_gives_what_there_is),
		cmocka_unit_test(reads_report_the_error),
		cmocka_unit_test(write_full_reports_the_error),
		cmocka_unit_test(an_event_is_taken_once_and_never_waited_for),
		cmocka_unit_test(room_is_made_as_far_as_there_is_any),
		cmocka_unit_test(write_full_goes_on_after_signals_and_short_writes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
