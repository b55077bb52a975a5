/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the two fuzz targets of vhost-user share: the program that an input is,
 * messages in pieces with descriptors, a look for descriptors that are left
 * over, and what is made once for all inputs. Included by one program.
 */
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "virtio/vhost_user_message.h"

struct input {
	const uint8_t *data;
	size_t size;
};

static inline void require(bool holds)
{
	if (!holds)
		abort();
}

static inline uint8_t take(struct input *input)
{
	if (input->size == 0)
		return 0;
	input->size--;
	return *input->data++;
}

static inline uint64_t take_value(struct input *input)
{
	uint64_t value = 0;
	uint8_t kind = take(input);

	if (kind < 128)
		return kind;
	for (unsigned i = 0; i < 8; i++)
		value = value << 8 | take(input);
	return value;
}

/* The next descriptor that will be given: the same before and after when none is lost. */
static inline int next_fd(void)
{
	int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);

	close(fd);
	return fd;
}

/* An eventfd that serves all inputs; it comes without the signals of the last one. */
static inline int eventfd_again(int *fd)
{
	eventfd_t value;

	if (*fd < 0)
		*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	(void)eventfd_read(*fd, &value);
	return *fd;
}

/* Sends what there is room for, with `count` descriptors, 16 at most. */
static inline void send_piece(
	int socket, const void *bytes, size_t size, const int *fds, size_t count)
{
	char control[CMSG_SPACE(16 * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { (void *)(uintptr_t)bytes, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (count > 0) {
		struct cmsghdr *header = (struct cmsghdr *)(void *)control;

		*header = (struct cmsghdr){ CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(header), fds, count * sizeof(int));
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
	}
	(void)sendmsg(socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}
