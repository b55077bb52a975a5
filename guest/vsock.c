// SPDX-License-Identifier: BSD-3-Clause
/*
 * A test guest's end of a vsock, which busybox has no program for. The peer is
 * a test on the host.
 *
 *	vsock connect CID PORT    stdin to the socket, the socket to stdout
 *	vsock echo PORT COUNT     answers COUNT connections, one after the other,
 *	                          with what they send
 *	vsock many CID PORT COUNT has so many connections at once, says its number
 *	                          on each, and then hears how many answer with it
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

/* A connection, or -1. Linux gives up after 2 s, which a busy emulator may take. */
static int dial(unsigned cid, unsigned port)
{
	const struct sockaddr_vm address = {
		.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port
	};
	const struct timeval patience = { .tv_sec = 60 };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0 ||
		setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience,
			sizeof(patience)) < 0 ||
		connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -1;
	return fd;
}

/* All that `from` has to say, to `to`. False at its end, or when there is nobody to tell. */
static int pump(int from, int to)
{
	static char buffer[64 << 10];
	ssize_t size = read(from, buffer, sizeof(buffer));

	for (ssize_t done = 0, n; done < size; done += n) {
		n = write(to, buffer + done, (size_t)(size - done));
		if (n < 0)
			return 0;
	}
	return size > 0;
}

static int run_connect(unsigned cid, unsigned port)
{
	int fd = dial(cid, port);
	struct pollfd fds[] = { { .fd = fd, .events = POLLIN }, { .fd = 0, .events = POLLIN } };

	if (fd < 0)
		return fail("vsock connect");
	while (fds[0].fd >= 0 && poll(fds, 2, -1) > 0) {
		if (fds[0].revents != 0 && !pump(fd, STDOUT_FILENO))
			fds[0].fd = -1;
		if (fds[1].revents != 0 && !pump(STDIN_FILENO, fd)) {
			fds[1].fd = -1;
			shutdown(fd, SHUT_WR);
		}
	}
	return 0;
}

static int run_echo(unsigned port, unsigned count)
{
	struct sockaddr_vm address = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port
	};
	int listener = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
		listen(listener, 128) < 0)
		return fail("vsock listen");
	puts("listening");
	fflush(stdout);
	while (count-- > 0) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			return fail("vsock accept");
		while (pump(fd, fd))
			;
		close(fd);
	}
	return 0;
}

static int ask_many(int *fds, unsigned cid, unsigned port, unsigned count)
{
	unsigned answered = 0;

	for (unsigned i = 0; i < count; i++) {
		fds[i] = dial(cid, port);
		if (fds[i] < 0)
			return fail("vsock connect");
	}
	for (unsigned i = 0; i < count; i++)
		if (write(fds[i], &i, sizeof(i)) != sizeof(i))
			return fail("vsock write");
	for (unsigned i = 0, answer; i < count; i++) {
		if (read(fds[i], &answer, sizeof(answer)) == sizeof(answer) && answer == i)
			answered++;
		close(fds[i]);
	}
	printf("%u answered\n", answered);
	return 0;
}

static int run_many(unsigned cid, unsigned port, unsigned count)
{
	const struct rlimit limit = { count + 16, count + 16 };
	int *fds = calloc(count, sizeof(*fds));
	int status = fds != NULL && setrlimit(RLIMIT_NOFILE, &limit) == 0
			     ? ask_many(fds, cid, port, count)
			     : fail("vsock many");

	free(fds);
	return status;
}

static unsigned number(const char *text)
{
	return (unsigned)strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "many") == 0)
		return run_many(number(argv[2]), number(argv[3]), number(argv[4]));
	if (argc != 4)
		return 2;
	return strcmp(argv[1], "connect") == 0 ? run_connect(number(argv[2]), number(argv[3]))
					       : run_echo(number(argv[2]), number(argv[3]));
}
