// SPDX-License-Identifier: BSD-3-Clause
/* base/fd_passing: a descriptor arrives as itself, and what nobody asked for is not kept. */
#include "unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fd_passing.h"

struct pair {
	int ends[2];
};

static void make_pair(struct pair *pair)
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair->ends), 0);
}

static void close_pair(struct pair *pair)
{
	fd_close(&pair->ends[0]);
	fd_close(&pair->ends[1]);
}

/* The lowest number that is free: whether a descriptor was kept shows there. */
static int next_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0 && close(fd) == 0);
	// cppcheck-suppress deallocret ; the number is all that is wanted
	return fd;
}

static void send_two(int socket, int fd)
{
	int fds[2] = { fd, fd };
	uint32_t value = 5;
	char control[CMSG_SPACE(sizeof(fds))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { &value, sizeof(value) };
	const struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	*header = (struct cmsghdr){ CMSG_LEN(sizeof(fds)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(header), fds, sizeof(fds));
	assert_int_equal(sendmsg(socket, &message, 0), sizeof(value));
}

static void a_descriptor_arrives(void **state)
{
	struct pair pair;
	struct stat sent, received;
	uint32_t value = 7, got = 0;
	int fd = -1;

	(void)state;
	make_pair(&pair);
	assert_int_equal(fd_send(pair.ends[0], &value, sizeof(value), pair.ends[1]), 0);
	assert_int_equal(fd_receive(pair.ends[1], &got, sizeof(got), &fd), 0);
	assert_int_equal(got, 7);
	assert_int_equal(fstat(fd, &received), 0);
	assert_int_equal(fstat(pair.ends[1], &sent), 0);
	assert_true(sent.st_ino == received.st_ino);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	fd_close(&fd);
	close_pair(&pair);
}

static void a_message_may_have_none(void **state)
{
	struct pair pair;
	uint8_t byte = 3;
	int fd = 77;

	(void)state;
	make_pair(&pair);
	assert_int_equal(fd_send(pair.ends[0], &byte, sizeof(byte), -1), 0);
	assert_int_equal(fd_receive(pair.ends[1], &byte, sizeof(byte), &fd), 0);
	assert_int_equal(fd, -1);
	close_pair(&pair);
}

static void other_messages_leave_nothing(void **state)
{
	struct pair pair;
	uint32_t value;
	int fd = 77;

	(void)state;
	make_pair(&pair);
	int free_fd = next_fd();

	assert_int_equal(fd_send(pair.ends[0], "abc", 3, pair.ends[0]), 0);
	assert_int_equal(fd_receive(pair.ends[1], &value, sizeof(value), &fd), -EPROTO);
	assert_int_equal(fd_send(pair.ends[0], "abcde", 5, pair.ends[0]), 0);
	assert_int_equal(fd_receive(pair.ends[1], &value, sizeof(value), &fd), -EPROTO);
	send_two(pair.ends[0], pair.ends[0]);
	assert_int_equal(fd_receive(pair.ends[1], &value, sizeof(value), &fd), -EPROTO);
	assert_int_equal(fd, 77);
	assert_int_equal(next_fd(), free_fd);
	close_pair(&pair);
}

static void the_end_is_told(void **state)
{
	struct pair pair;
	uint8_t byte = 0;
	int fd = 77;

	(void)state;
	make_pair(&pair);
	fd_close(&pair.ends[0]);
	assert_int_equal(fd_receive(pair.ends[1], &byte, sizeof(byte), &fd), -ENOTCONN);
	assert_int_equal(fd_send(pair.ends[1], &byte, sizeof(byte), -1), -EPIPE);
	assert_int_equal(fd, 77);
	close_pair(&pair);
}

static void one_that_does_not_read_is_not_waited_for(void **state)
{
	struct pair pair;
	uint8_t byte = 0;
	unsigned sent = 0;
	int r;

	(void)state;
	make_pair(&pair);
	while ((r = fd_send_now(pair.ends[0], &byte, sizeof(byte), -1)) == 0)
		sent++;
	assert_int_equal(r, -EAGAIN);
	assert_in_range(sent, 1, 100000);
	assert_int_equal(fd_send_now(pair.ends[0], &byte, sizeof(byte), pair.ends[0]), -EAGAIN);
	close_pair(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_descriptor_arrives),
		cmocka_unit_test(a_message_may_have_none),
		cmocka_unit_test(other_messages_leave_nothing),
		cmocka_unit_test(the_end_is_told),
		cmocka_unit_test(one_that_does_not_read_is_not_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
