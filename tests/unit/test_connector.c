// SPDX-License-Identifier: BSD-3-Clause
/*
 * base/connector: who asks gets the connections that its numbers mean and
 * nothing else, and a helper that is gone is told from one that refuses.
 */
#include "unit/unit.h"

#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/connector.h"
#include "base/fd.h"
#include "base/fd_passing.h"

struct helper {
	char path[48]; /* of the one socket that there is */
	int ends[2];
	pthread_t thread;
};

/* The last number is that of the socket. */
static int connect_number(const void *owner, uint32_t number, int *ret_fd)
{
	const struct helper *helper = owner;

	return number != UINT32_MAX ? -ECONNREFUSED : connector_connect(helper->path, ret_fd);
}

static void *run(void *argument)
{
	struct helper *helper = argument;

	assert_int_equal(connector_serve(helper->ends[1], connect_number, helper), 0);
	return NULL;
}

static void prepare(struct helper *helper)
{
	snprintf(helper->path, sizeof(helper->path), "/tmp/crosvm-connector-%d", getpid());
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, helper->ends), 0);
}

static void start(struct helper *helper)
{
	prepare(helper);
	assert_int_equal(pthread_create(&helper->thread, NULL, run, helper), 0);
}

static void end(struct helper *helper)
{
	fd_close(&helper->ends[0]);
	pthread_join(helper->thread, NULL);
	fd_close(&helper->ends[1]);
}

static int ask_once(int socket, uint32_t number, int *ret_fd)
{
	uint64_t ask_from_ns = 0;

	return connector_ask(socket, &ask_from_ns, number, ret_fd);
}

static void directories_of_paths(void **state)
{
	static const struct {
		const char *path, *directory, *name;
	} cases[] = {
		{ "vsock", ".", "vsock" },
		{ "./vsock", ".", "vsock" },
		{ "/vsock", "/", "vsock" },
		{ "/run/vm/vsock", "/run/vm", "vsock" },
		{ "a/b", "a", "b" },
	};
	char directory[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(
			connector_directory(cases[i].path, directory, sizeof(directory)), 1);
		assert_string_equal(directory, cases[i].directory);
		assert_string_equal(connector_name(cases[i].path), cases[i].name);
	}
	assert_int_equal(connector_directory("/a/long/directory/x", directory, 16), -ENAMETOOLONG);
}

static void nobody_there_is_an_error_and_no_end(void **state)
{
	struct helper helper;
	int fd = 77;

	(void)state;
	start(&helper);
	for (uint32_t number = 0; number < 3; number++)
		assert_int_equal(ask_once(helper.ends[0], number, &fd), -ECONNREFUSED);
	assert_int_equal(ask_once(helper.ends[0], UINT32_MAX, &fd), -ENOENT);
	assert_int_equal(fd, 77);
	end(&helper);
}

/* The one socket that there is, for so many at once. */
static int listen_at(const struct helper *helper, int backlog)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, helper->path, sizeof(helper->path));
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, backlog), 0);
	return listener;
}

static void a_number_is_connected(void **state)
{
	struct helper helper;
	char byte = 0;
	int fd = -1;

	(void)state;
	start(&helper);
	int listener = listen_at(&helper, 1);

	assert_int_equal(ask_once(helper.ends[0], UINT32_MAX, &fd), 0);
	int accepted = accept(listener, NULL, NULL);

	assert_int_equal(write(accepted, "x", 1), 1);
	assert_int_equal(read(fd, &byte, 1), 1);
	assert_int_equal(byte, 'x');
	(void)unlink(helper.path);
	fd_close(&fd);
	fd_close(&accepted);
	fd_close(&listener);
	end(&helper);
}

/* A device that a guest owns: whatever is no number ends the helper. */
static void what_is_no_number_ends_it(void **state)
{
	struct helper helper;
	int fd = 77;

	(void)state;
	start(&helper);
	assert_int_equal(send(helper.ends[0], "/etc/x", 6, 0), 6);
	pthread_join(helper.thread, NULL);
	fd_close(&helper.ends[1]);
	assert_int_equal(ask_once(helper.ends[0], 1, &fd), -ECONNABORTED);
	assert_int_equal(fd, 77);
	fd_close(&helper.ends[0]);
}

/* What a helper of ours answers. */
struct line {
	bool late; /* to a request before this one */
	int32_t result;
	int fd; /* -1: none */
	size_t size;
};

struct script {
	int socket;
	const struct line *lines;
	unsigned count;
};

enum { WHOLE = sizeof(struct connector_answer) };

static void *play(void *argument)
{
	const struct script *script = argument;
	struct connector_request request;

	assert_int_equal(recv(script->socket, &request, sizeof(request), 0), sizeof(request));
	for (unsigned i = 0; i < script->count; i++) {
		const struct line *line = &script->lines[i];
		const struct connector_answer answer = { request.serial - line->late,
			line->result };

		assert_int_equal(fd_send(script->socket, &answer, line->size, line->fd), 0);
	}
	return NULL;
}

static int ask(const struct line *lines, unsigned count, int *ret_fd)
{
	pthread_t thread;
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	struct script script = { ends[1], lines, count };

	assert_int_equal(pthread_create(&thread, NULL, play, &script), 0);
	int r = ask_once(ends[0], 1, ret_fd);

	pthread_join(thread, NULL);
	fd_close(&ends[0]);
	fd_close(&ends[1]);
	return r;
}

/* It answers with something else, or not at all. */
static void a_helper_that_lies_or_sleeps_is_of_no_use(void **state)
{
	const struct line bare = { false, 0, -1, WHOLE },
			  strange = { false, 5, STDERR_FILENO, WHOLE },
			  cut = { false, 0, STDERR_FILENO, 1 };
	int fd = 77;

	(void)state;
	assert_int_equal(ask(&bare, 1, &fd), -ECONNABORTED);
	assert_int_equal(ask(&strange, 1, &fd), -ECONNABORTED);
	assert_int_equal(ask(&cut, 1, &fd), -ECONNABORTED);
	assert_int_equal(ask(NULL, 0, &fd), -ETIMEDOUT); /* a second */
	assert_int_equal(fd, 77);
}

/* To requests that nobody waits for any more, of whatever number: none is taken for another's. */
static void late_answers_are_nobodys(void **state)
{
	int wrong[2], right[2], fd = -1;
	char byte = 0;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, wrong), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, right), 0);
	const struct line lines[] = { { true, 0, wrong[0], WHOLE },
		{ true, -ECONNREFUSED, -1, WHOLE }, { false, 0, right[0], WHOLE } };

	assert_int_equal(ask(lines, ARRAY_SIZE(lines), &fd), 0);
	assert_int_equal(write(right[1], "x", 1), 1);
	assert_int_equal(read(fd, &byte, 1), 1);
	assert_int_equal(byte, 'x');
	fd_close(&wrong[0]);
	assert_int_equal(read(wrong[1], &byte, 1), 0); /* nobody kept it */
	fd_close(&fd);
	fd_close(&wrong[1]);
	fd_close(&right[0]);
	fd_close(&right[1]);
}

/* ---- descriptors in flight ---- */

enum { LIMIT = 128, IN_FLIGHT = LIMIT + 64 }; /* which a socket has room for */

static void set_limit(rlim_t fds)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = fds;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void *serve_without_capabilities(void *argument)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct none[2] = { 0 };

	assert_int_equal(syscall(SYS_capset, &header, none), 0);
	return run(argument);
}

/* Those of any program of this user: the request fails, and the helper is there for the next. */
static void too_many_in_flight_is_no_end(void **state)
{
	struct helper helper;
	int flight[2], fd = 77;

	(void)state;
	prepare(&helper);
	int listener = listen_at(&helper, 2);

	set_limit(2 * IN_FLIGHT);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, flight), 0);
	for (int i = 0; i < IN_FLIGHT; i++)
		assert_int_equal(fd_send(flight[0], "x", 1, listener), 0);
	set_limit(LIMIT);
	assert_int_equal(
		pthread_create(&helper.thread, NULL, serve_without_capabilities, &helper), 0);
	assert_int_equal(ask_once(helper.ends[0], UINT32_MAX, &fd), -ETOOMANYREFS);
	assert_int_equal(fd, 77);
	fd_close(&flight[0]);
	fd_close(&flight[1]);
	/* Other tests of this user may have some on their way. */
	int r = -ETOOMANYREFS;

	for (unsigned i = 0; i < 1000 && r == -ETOOMANYREFS; i++, (void)poll(NULL, 0, 10))
		r = ask_once(helper.ends[0], UINT32_MAX, &fd);
	assert_int_equal(r, 0);
	(void)unlink(helper.path);
	fd_close(&fd);
	fd_close(&listener);
	end(&helper);
}

static unsigned count_requests(int socket)
{
	struct connector_request request;
	unsigned count = 0;

	while (recv(socket, &request, sizeof(request), MSG_DONTWAIT) > 0)
		count++;
	return count;
}

static void a_helper_that_is_stuck_costs_one_wait(void **state)
{
	uint64_t ask_from_ns = 0;
	int ends[2], fd = -1;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(connector_ask(ends[0], &ask_from_ns, i, &fd), -ETIMEDOUT);
	assert_int_equal(count_requests(ends[1]), 1);
	/* Nor is it waited for where there is no room for one more question. */
	while (send(ends[0], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
		;
	assert_int_equal(ask_once(ends[0], 1, &fd), -ETIMEDOUT);
	assert_int_equal(fd, -1);
	fd_close(&ends[0]);
	fd_close(&ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(directories_of_paths),
		cmocka_unit_test(nobody_there_is_an_error_and_no_end),
		cmocka_unit_test(a_number_is_connected),
		cmocka_unit_test(what_is_no_number_ends_it),
		cmocka_unit_test(a_helper_that_lies_or_sleeps_is_of_no_use),
		cmocka_unit_test(late_answers_are_nobodys),
		cmocka_unit_test(too_many_in_flight_is_no_end),
		cmocka_unit_test(a_helper_that_is_stuck_costs_one_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
