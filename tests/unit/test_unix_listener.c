// SPDX-License-Identifier: BSD-3-Clause
/*
 * unix_listener: a socket of its own at a path, private from the start; what
 * else may be there is refused, and only a socket without owner is replaced.
 */
#include "unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/unix_listener.h"
#include "unit/capture.h"

struct place {
	char directory[32];
	char path[64];
};

static void place_up(struct place *place)
{
	*place = (struct place){ .directory = "/tmp/listener-test-XXXXXX" };
	assert_non_null(mkdtemp(place->directory));
	snprintf(place->path, sizeof(place->path), "%s/socket", place->directory);
}

static void place_down(const struct place *place)
{
	unlink(place->path);
	assert_int_equal(rmdir(place->directory), 0);
}

static void open_at(const char *path, struct unix_listener *listener)
{
	assert_int_equal(unix_listener_open("--test", path, listener), 0);
}

/* Fails with `error` and one line that has `reason` in it. */
static void expect_refusal(const char *path, int error, const char *reason)
{
	struct unix_listener listener = { .fd = -1 };
	struct capture capture;

	capture_begin(&capture);
	int r = unix_listener_open("--test", path, &listener);

	capture_end(&capture);
	assert_int_equal(r, -error);
	assert_int_equal(listener.fd, -1);
	assert_int_equal(capture_lines(&capture), 1);
	assert_non_null(strstr(capture.text, "--test: "));
	assert_non_null(strstr(capture.text, reason));
}

static void it_is_private_and_goes_with_us(void **state)
{
	struct unix_listener listener;
	struct stat status;
	struct place place;

	(void)state;
	place_up(&place);
	mode_t mask = umask(0);

	open_at(place.path, &listener);
	umask(mask);
	assert_int_equal(lstat(place.path, &status), 0);
	assert_int_equal(status.st_mode, S_IFSOCK | 0600);
	assert_int_equal(fcntl(listener.fd, F_GETFD), FD_CLOEXEC);
	unix_listener_close(&listener);
	assert_int_equal(listener.fd, -1);
	assert_int_equal(access(place.path, F_OK), -1);
	unix_listener_close(&listener);
	place_down(&place);
}

static void a_stale_socket_is_replaced(void **state)
{
	struct unix_listener listener;
	struct place place;

	(void)state;
	place_up(&place);
	open_at(place.path, &listener);
	close(listener.fd); /* as after SIGKILL */
	open_at(place.path, &listener);
	unix_listener_close(&listener);
	place_down(&place);
}

static void a_live_socket_is_left_alone(void **state)
{
	struct unix_listener listener;
	struct place place;

	(void)state;
	place_up(&place);
	open_at(place.path, &listener);
	/* The first try waits in the queue for ever; then the queue is full. */
	for (unsigned i = 0; i < 5; i++)
		expect_refusal(place.path, EADDRINUSE, "somebody listens");
	unix_listener_close(&listener);
	place_down(&place);
}

static void other_things_are_left_alone(void **state)
{
	struct unix_listener listener;
	char target[80];
	struct place place;

	(void)state;
	place_up(&place);
	int fd = open(place.path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, "data", 4), 4);
	expect_refusal(place.path, EEXIST, "not a socket");
	assert_int_equal(lseek(fd, 0, SEEK_END), 4);
	close(fd);
	unlink(place.path);

	assert_int_equal(mkdir(place.path, 0700), 0);
	expect_refusal(place.path, EEXIST, "not a socket");
	rmdir(place.path);

	/* A symlink, not even to a stale socket. */
	snprintf(target, sizeof(target), "%s/target", place.directory);
	open_at(target, &listener);
	close(listener.fd);
	assert_int_equal(symlink(target, place.path), 0);
	expect_refusal(place.path, EEXIST, "not a socket");
	assert_int_equal(access(target, F_OK), 0);
	unlink(target);
	place_down(&place);
}

static void bad_paths_are_refused(void **state)
{
	char path[200];

	(void)state;
	memset(path, 'x', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	expect_refusal(path, ENAMETOOLONG, "1 to 107 characters");
	expect_refusal("", ENAMETOOLONG, "1 to 107 characters");
	expect_refusal("/no/such/directory/socket", ENOENT, "No such file");
}

/* Somebody has put another socket there: it is not ours to remove. */
static void only_our_own_socket_is_removed(void **state)
{
	struct unix_listener ours, theirs;
	struct place place;

	(void)state;
	place_up(&place);
	open_at(place.path, &ours);
	unlink(place.path);
	open_at(place.path, &theirs);
	unix_listener_close(&ours);
	assert_int_equal(access(place.path, F_OK), 0);
	unix_listener_close(&theirs);
	place_down(&place);
}

/* As that of a device in a process of its own: whoever was left alone with it goes first. */
static void one_that_was_left_to_another_is_removed_by_us(void **state)
{
	struct unix_listener listener;
	struct capture capture;
	struct place place;

	(void)state;
	place_up(&place);
	open_at(place.path, &listener);
	int others = fcntl(listener.fd, F_DUPFD_CLOEXEC, 0);

	unix_listener_leave(&listener);
	assert_int_equal(listener.fd, -1);
	capture_begin(&capture);
	struct unix_listener second;
	int r = unix_listener_open("--test", place.path, &second);

	capture_end(&capture);
	assert_int_equal(r, -EADDRINUSE);
	close(others);
	assert_int_equal(access(place.path, F_OK), 0);
	unix_listener_close(&listener);
	assert_int_equal(access(place.path, F_OK), -1);
	unix_listener_close(&listener);
	place_down(&place);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_private_and_goes_with_us),
		cmocka_unit_test(a_stale_socket_is_replaced),
		cmocka_unit_test(a_live_socket_is_left_alone),
		cmocka_unit_test(other_things_are_left_alone),
		cmocka_unit_test(bad_paths_are_refused),
		cmocka_unit_test(only_our_own_socket_is_removed),
		cmocka_unit_test(one_that_was_left_to_another_is_removed_by_us),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
