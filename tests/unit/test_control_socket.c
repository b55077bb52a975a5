// SPDX-License-Identifier: BSD-3-Clause
/*
 * control_socket: who may connect, how messages come through, and that no
 * client, whatever it does, costs the others more than their turn: crowds,
 * silence, floods, readers that stall, clients that die, descriptors sent along.
 */
#include "unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/capture.h"
#include "unit/count_entries.h"
#include "vm/control_socket.h"

struct rig {
	char directory[64];
	char path[96];
	struct evloop *loop;
	struct control_socket *socket;
	unsigned messages;
	size_t last_size;
	bool too_long, with_descriptors;
	bool silent; /* no reply */
	size_t reply_size;
};

/* Echoes, unless told otherwise. */
static void receive(
	void *owner, struct control_client *client, const struct control_message *message)
{
	struct rig *rig = owner;

	rig->messages++;
	rig->last_size = message->size;
	rig->too_long = message->too_long;
	rig->with_descriptors = message->with_descriptors;
	assert_true(message->size <= CONTROL_MESSAGE_MAX);
	if (message->size == 9 && memcmp(message->text, "subscribe", 9) == 0)
		control_client_subscribe(client);
	if (rig->reply_size != 0) {
		static const char reply[CONTROL_MESSAGE_MAX];

		control_client_send(client, reply, rig->reply_size);
	} else if (!rig->silent) {
		control_client_send(client, message->text, message->size);
	}
}

static int make_rig(void **state)
{
	static struct rig rig;

	rig = (struct rig){ .directory = "/tmp/control-test-XXXXXX" };
	*state = &rig;
	if (mkdtemp(rig.directory) == NULL || evloop_create(&rig.loop) < 0)
		return -1;
	snprintf(rig.path, sizeof(rig.path), "%s/s", rig.directory);
	if (control_socket_open(rig.path, &rig.socket) < 0)
		return -1;
	if (control_socket_start(rig.socket, rig.loop, receive, &rig) < 0)
		return -1;
	return evloop_run_ready(rig.loop); /* makes the loop's descriptor */
}

static int free_rig(void **state)
{
	struct rig *rig = *state;

	control_socket_free(rig->socket);
	evloop_free(rig->loop);
	return rmdir(rig->directory); /* fails if the socket is left */
}

static void run(struct rig *rig)
{
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(evloop_run_ready(rig->loop), 0);
}

/* Runs the loop until the descriptor is readable, for ten seconds at most. */
static void run_until_readable(struct rig *rig, int fd)
{
	struct pollfd readable = { .fd = fd, .events = POLLIN };

	for (unsigned i = 0; i < 10000 && poll(&readable, 1, 1) == 0; i++)
		assert_int_equal(evloop_run_ready(rig->loop), 0);
	assert_int_equal(poll(&readable, 1, 0), 1);
}

static int connect_client(const struct rig *rig)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	memcpy(address.sun_path, rig->path, strlen(rig->path));
	assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static ssize_t say(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void expect_answer(struct rig *rig, int fd, const char *text)
{
	char buffer[64] = { 0 };

	run_until_readable(rig, fd);
	assert_int_equal(recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT), strlen(text));
	assert_memory_equal(buffer, text, strlen(text));
}

static void expect_end(struct rig *rig, int fd)
{
	char byte;

	run_until_readable(rig, fd);
	assert_true(recv(fd, &byte, 1, MSG_DONTWAIT) <= 0);
}

/* ---- the path ---- */

static void a_directory_gets_a_socket_of_ours(void **state)
{
	struct rig *rig = *state;
	struct control_socket *other;
	char expected[128];
	struct stat status;

	snprintf(expected, sizeof(expected), "%s/crosvm-%d.sock", rig->directory, (int)getpid());
	assert_int_equal(control_socket_open(rig->directory, &other), 0);
	assert_string_equal(control_socket_path(other), expected);
	assert_int_equal(lstat(expected, &status), 0);
	assert_int_equal(status.st_mode, S_IFSOCK | 0600);
	control_socket_free(other);
	assert_int_equal(lstat(expected, &status), -1);
}

static void expect_refusal(const char *path, int error, const char *why)
{
	struct control_socket *socket = NULL;
	struct capture capture;

	capture_begin(&capture);
	int r = control_socket_open(path, &socket);

	capture_end(&capture);
	assert_int_equal(r, -error);
	assert_null(socket);
	assert_int_equal(capture_lines(&capture), 1);
	assert_non_null(strstr(capture.text, "--socket"));
	assert_non_null(strstr(capture.text, why));
}

static void what_is_not_ours_is_refused(void **state)
{
	struct rig *rig = *state;
	char file[128], link[128], long_path[200];

	snprintf(file, sizeof(file), "%s/file", rig->directory);
	snprintf(link, sizeof(link), "%s/link", rig->directory);
	expect_refusal(rig->path, EADDRINUSE, "somebody listens");
	close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	expect_refusal(file, EEXIST, "not a socket");
	assert_int_equal(symlink(rig->path, link), 0);
	expect_refusal(link, EEXIST, "not a socket");
	unlink(link);
	assert_int_equal(symlink("/nowhere", link), 0);
	expect_refusal(link, EEXIST, "not a socket");
	memset(long_path, 'x', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	expect_refusal(long_path, ENAMETOOLONG, "characters");
	expect_refusal("", ENAMETOOLONG, "characters");
	expect_refusal("/nowhere/socket", ENOENT, "No such file");
	assert_int_equal(access(file, F_OK), 0);
	unlink(link);
	unlink(file);
	/* All that did not harm the one that is there. */
	int fd = connect_client(rig);

	say(fd, "hello");
	expect_answer(rig, fd, "hello");
	close(fd);
}

static int socket_of_type(int type, const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)address, sizeof(*address)), 0);
	return fd;
}

static void a_stale_socket_is_replaced(void **state)
{
	struct rig *rig = *state;
	struct control_socket *socket;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int types[] = { SOCK_SEQPACKET, SOCK_STREAM, SOCK_DGRAM };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/old", rig->directory);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		int fd = socket_of_type(types[i], &address);

		close(fd);
		assert_int_equal(control_socket_open(address.sun_path, &socket), 0);
		control_socket_free(socket);
		assert_int_equal(access(address.sun_path, F_OK), -1);
	}
}

/* Whoever put another one in its place keeps it. */
static void only_our_own_socket_is_removed(void **state)
{
	struct rig *rig = *state;
	struct control_socket *socket;
	char path[128];

	snprintf(path, sizeof(path), "%s/other", rig->directory);
	assert_int_equal(control_socket_open(path, &socket), 0);
	unlink(path);
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	control_socket_free(socket);
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
}

/* ---- messages ---- */

static void messages_come_whole_and_in_order(void **state)
{
	struct rig *rig = *state;
	int fd = connect_client(rig);

	say(fd, "one");
	say(fd, "two");
	expect_answer(rig, fd, "one");
	expect_answer(rig, fd, "two");
	close(fd);
	run(rig);
	assert_int_equal(control_socket_clients(rig->socket), 0);
}

static void sizes_up_to_the_limit(void **state)
{
	static const size_t sizes[] = { 1, 2, 4095, 4096, CONTROL_MESSAGE_MAX - 1,
		CONTROL_MESSAGE_MAX, CONTROL_MESSAGE_MAX + 1, 2 * CONTROL_MESSAGE_MAX };
	static char text[2 * CONTROL_MESSAGE_MAX], answer[2 * CONTROL_MESSAGE_MAX];
	struct rig *rig = *state;
	int fd = connect_client(rig);

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 7);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t size = min_u64(sizes[i], CONTROL_MESSAGE_MAX);

		assert_int_equal(send(fd, text, sizes[i], MSG_NOSIGNAL), sizes[i]);
		run_until_readable(rig, fd);
		assert_int_equal(rig->last_size, size);
		assert_int_equal(rig->too_long, sizes[i] > CONTROL_MESSAGE_MAX);
		assert_int_equal(recv(fd, answer, sizeof(answer), MSG_DONTWAIT), size);
		assert_memory_equal(answer, text, size);
	}
	close(fd);
}

/* Sends `count` descriptors along. */
static void say_with_descriptors(int fd, int descriptor, unsigned count)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(253 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { "x", 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = CMSG_SPACE(count * sizeof(int)),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	*header = (struct cmsghdr){
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
		.cmsg_len = CMSG_LEN(count * sizeof(int)),
	};
	for (unsigned i = 0; i < count; i++)
		memcpy(CMSG_DATA(header) + i * sizeof(int), &descriptor, sizeof(int));
	assert_int_equal(sendmsg(fd, &message, MSG_NOSIGNAL), 1);
}

/* The other end of a pipe tells whether a descriptor that was sent is still open. */
static void descriptors_are_closed(void **state)
{
	static const unsigned counts[] = { 1, 31, 32, 33, 253 };
	struct rig *rig = *state;
	int fd = connect_client(rig);

	say(fd, "x");
	expect_answer(rig, fd, "x");
	assert_false(rig->with_descriptors);
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		unsigned before = count_fds();
		int ends[2];
		char byte;

		assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
		say_with_descriptors(fd, ends[1], counts[i]);
		close(ends[1]);
		expect_answer(rig, fd, "x");
		assert_true(rig->with_descriptors);
		assert_int_equal(read(ends[0], &byte, 1), 0); /* not EAGAIN: no writer is left */
		close(ends[0]);
		assert_int_equal(count_fds(), before);
	}
	close(fd);
}

/* It cannot be told from the end of the connection. */
static void a_message_of_no_bytes_ends_the_connection(void **state)
{
	struct rig *rig = *state;
	int fd = connect_client(rig);

	assert_int_equal(send(fd, "", 0, MSG_NOSIGNAL), 0);
	expect_end(rig, fd);
	assert_int_equal(control_socket_clients(rig->socket), 0);
	assert_int_equal(rig->messages, 0);
	close(fd);
}

static void a_client_that_dies_before_its_reply(void **state)
{
	struct rig *rig = *state;
	unsigned before = count_fds();

	for (unsigned i = 0; i < 100; i++) {
		int fd = connect_client(rig);

		if (i % 2 == 0)
			run(rig);
		say(fd, "going");
		close(fd);
		run(rig);
		assert_int_equal(control_socket_clients(rig->socket), 0);
	}
	assert_int_equal(rig->messages, 100);
	assert_int_equal(count_fds(), before);
}

/* ---- many clients ---- */

/* A client that asks without end and reads nothing is dropped, and the others are served. */
static void a_reader_that_stalls_is_dropped(void **state)
{
	struct rig *rig = *state;
	int slow = connect_client(rig);
	int good = connect_client(rig);
	unsigned sent = 0;

	rig->reply_size = CONTROL_MESSAGE_MAX;
	run(rig);
	while (control_socket_clients(rig->socket) == 2 && sent < 100) {
		sent += say(slow, "more") > 0;
		run(rig);
	}
	assert_true(sent > 1 && sent < 100);
	rig->reply_size = 0;
	say(good, "and me");
	expect_answer(rig, good, "and me");
	close(slow);
	close(good);
}

/* Everybody gets a turn while one floods. */
static void a_flood_is_no_delay(void **state)
{
	struct rig *rig = *state;
	int flood = connect_client(rig);
	int good = connect_client(rig);
	char byte;

	rig->silent = true;
	run(rig);
	for (unsigned round = 0; round < 100; round++) {
		while (say(flood, "flood") > 0)
			;
		unsigned before = rig->messages;

		say(good, "good");
		assert_int_equal(evloop_run_ready(rig->loop), 0);
		assert_int_equal(rig->messages, before + 2); /* one of each */
	}
	assert_int_equal(recv(good, &byte, 1, MSG_DONTWAIT), -1);
	close(flood);
	close(good);
}

static void a_thousand_connects(void **state)
{
	struct rig *rig = *state;
	unsigned before = count_fds();

	for (unsigned i = 0; i < 1000; i++) {
		int fd = connect_client(rig);

		say(fd, "me too");
		expect_answer(rig, fd, "me too");
		close(fd);
	}
	run(rig);
	assert_int_equal(control_socket_clients(rig->socket), 0);
	assert_int_equal(count_fds(), before);
}

/*
 * More than there are places, all at once, none of which goes away: each is
 * served, and who has been served and is silent makes room.
 */
static void a_crowd_that_stays(void **state)
{
	enum { CROWD = CONTROL_CLIENTS_MAX + 100 };
	struct rig *rig = *state;
	unsigned before = count_fds();
	struct rlimit limit;
	int fds[CROWD];

	getrlimit(RLIMIT_NOFILE, &limit);
	assert_true(limit.rlim_cur >= before + 2 * CROWD);
	for (unsigned i = 0; i < CROWD; i++) {
		fds[i] = connect_client(rig);
		say(fds[i], "all");
	}
	/* Who has no place costs nothing until there may be one, after a second. */
	struct pollfd loop = { .events = POLLIN };

	assert_int_equal(evloop_open(rig->loop, &loop.fd), 0);
	for (unsigned i = 0; i < 20 && poll(&loop, 1, 0) != 0; i++)
		run(rig);
	assert_int_equal(poll(&loop, 1, 0), 0);
	for (unsigned i = 0; i < CROWD; i++)
		expect_answer(rig, fds[i], "all");
	assert_int_equal(control_socket_clients(rig->socket), CONTROL_CLIENTS_MAX);
	for (unsigned i = 0; i < CROWD; i++)
		close(fds[i]);
	run(rig);
	for (unsigned i = 0; i < 50; i++)
		run(rig);
	assert_int_equal(control_socket_clients(rig->socket), 0);
	assert_int_equal(count_fds(), before);
}

/* Those who listen to events are silent and stay all the same. */
static void listeners_are_not_crowded_out(void **state)
{
	struct rig *rig = *state;
	int fds[CONTROL_CLIENTS_MAX];
	int listener = connect_client(rig);

	say(listener, "subscribe");
	expect_answer(rig, listener, "subscribe");
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		fds[i] = connect_client(rig);
		say(fds[i], "x");
	}
	expect_answer(rig, fds[CONTROL_CLIENTS_MAX - 1], "x");
	control_socket_publish(rig->socket, "event", 5);
	expect_answer(rig, listener, "event");
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		close(fds[i]);
	close(listener);
}

/* Out of descriptors the process waits, and serves when there are some again. */
static void no_descriptor_is_left(void **state)
{
	struct rig *rig = *state;
	struct rlimit limit, none;
	int fd = connect_client(rig);

	getrlimit(RLIMIT_NOFILE, &limit);
	none = limit;
	none.rlim_cur = 3;
	say(fd, "patience");
	setrlimit(RLIMIT_NOFILE, &none);
	run(rig);
	assert_int_equal(control_socket_clients(rig->socket), 0);
	setrlimit(RLIMIT_NOFILE, &limit);
	expect_answer(rig, fd, "patience");
	close(fd);
}

static void events_go_to_those_who_listen(void **state)
{
	struct rig *rig = *state;
	int listener = connect_client(rig);
	int other = connect_client(rig);
	char byte;

	say(listener, "subscribe");
	expect_answer(rig, listener, "subscribe");
	say(other, "x");
	expect_answer(rig, other, "x");
	control_socket_publish(rig->socket, "event", 5);
	expect_answer(rig, listener, "event");
	assert_int_equal(recv(other, &byte, 1, MSG_DONTWAIT), -1);
	close(listener);
	control_socket_publish(rig->socket, "nobody", 6);
	run(rig);
	assert_int_equal(control_socket_clients(rig->socket), 1);
	close(other);
}

static void a_listener_that_stalls_is_dropped(void **state)
{
	static const char event[CONTROL_MESSAGE_MAX];
	struct rig *rig = *state;
	int listener = connect_client(rig);

	say(listener, "subscribe");
	expect_answer(rig, listener, "subscribe");
	for (unsigned i = 0; i < 100; i++)
		control_socket_publish(rig->socket, event, sizeof(event));
	run(rig);
	assert_int_equal(control_socket_clients(rig->socket), 0);
	close(listener);
}

/* ---- who ---- */

/* As root only: the child becomes somebody else and finds a socket that lets everybody in. */
static void another_user_is_turned_away(void **state)
{
	struct rig *rig = *state;
	struct capture capture;
	int status;

	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(rig->directory, 0755), 0);
	assert_int_equal(chmod(rig->path, 0666), 0);
	capture_begin(&capture);
	for (unsigned i = 0; i < 3; i++) {
		pid_t child = fork();

		if (child == 0) {
			if (setgid(65534) < 0 || setuid(65534) < 0)
				_exit(2);
			int fd = connect_client(rig);
			struct pollfd end = { .fd = fd, .events = POLLIN };
			char byte;

			say(fd, "let me in");
			_exit(poll(&end, 1, 5000) == 1 && recv(fd, &byte, 1, 0) <= 0 ? 0 : 1);
		}
		while (waitpid(child, &status, WNOHANG) == 0)
			run(rig);
		assert_int_equal(status, 0);
	}
	capture_end(&capture);
	assert_int_equal(rig->messages, 0);
	assert_int_equal(control_socket_clients(rig->socket), 0);
	assert_int_equal(capture_lines(&capture), 1);
	assert_non_null(strstr(capture.text, "user 65534"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_rig, free_rig)
	const struct CMUnitTest tests[] = {
		TEST(a_directory_gets_a_socket_of_ours),
		TEST(what_is_not_ours_is_refused),
		TEST(a_stale_socket_is_replaced),
		TEST(only_our_own_socket_is_removed),
		TEST(messages_come_whole_and_in_order),
		TEST(sizes_up_to_the_limit),
		TEST(descriptors_are_closed),
		TEST(a_message_of_no_bytes_ends_the_connection),
		TEST(a_client_that_dies_before_its_reply),
		TEST(a_reader_that_stalls_is_dropped),
		TEST(a_flood_is_no_delay),
		TEST(a_thousand_connects),
		TEST(a_crowd_that_stays),
		TEST(listeners_are_not_crowded_out),
		TEST(no_descriptor_is_left),
		TEST(events_go_to_those_who_listen),
		TEST(a_listener_that_stalls_is_dropped),
		TEST(another_user_is_turned_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
