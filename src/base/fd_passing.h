/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One small message with one file descriptor, over a SOCK_SEQPACKET unix
 * socket. The other end may send anything.
 *
 * System calls: sendmsg, recvmsg, close.
 */
#pragma once

#include "base/util.h"

/* Sends `size` bytes with `fd`, which is borrowed; -1: none. 0 or -errno; -EPIPE: nobody is there.
 */
MUST_CHECK int fd_send(int socket, const void *data, size_t size, int fd);
/* The same without a wait: -EAGAIN when there is no room, because nobody reads. */
MUST_CHECK int fd_send_now(int socket, const void *data, size_t size, int fd);

/*
 * Receives a message of exactly `size` bytes; *ret_fd gets the descriptor,
 * O_CLOEXEC, or -1 when none came. 0, -ENOTCONN at the end, -EPROTO for another
 * message, or -errno; then nothing is held.
 */
MUST_CHECK int fd_receive(int socket, void *data, size_t size, int *ret_fd);
