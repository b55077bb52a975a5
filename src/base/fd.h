/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File descriptors: ownership and complete transfers.
 *
 * A variable declared with CLEANUP_FD owns its descriptor and closes it when it
 * goes out of scope; fd_steal() hands the ownership on. -1 means none.
 */
#pragma once

#include <sys/types.h>

#include "base/util.h"

#define CLEANUP_FD __attribute__((cleanup(fd_close)))

/* Closes *fd if it is one and sets it to -1. Keeps errno. */
void fd_close(int *fd);
/* Gives the descriptor to the caller and leaves -1. */
int fd_steal(int *fd);

/*
 * Opens what is closed of stdin, stdout and stderr, so that no file gets one of their numbers and
 * with it what is meant for them: an empty stdin, a stdout that fails as a closed one does, a
 * stderr that nobody reads. Before any other is opened. 0 or -errno.
 */
MUST_CHECK int fd_fill_standard(void);

/*
 * Lets this process open `count` more files than its limit (ulimit -Sn) lets it, for one who may
 * open so many; as far as the hard limit goes. How many it may open: where there is no such room,
 * half of what there was.
 */
unsigned fd_make_room(unsigned count);

/* Moves *fd above stdin, stdout and stderr if it is one of their numbers. 0 or -errno. */
MUST_CHECK int fd_lift(int *fd);

/*
 * Waits for `events` of poll() or a hang-up, across EINTR, before `deadline_ns`
 * of the monotonic clock. 0, -ETIMEDOUT or -errno.
 */
MUST_CHECK int fd_wait(int fd, short events, uint64_t deadline_ns);

/*
 * Reads exactly `size` bytes at `offset`, across EINTR and short reads.
 * 0, -ENODATA when the file ends before that, else -errno.
 */
MUST_CHECK int fd_pread_full(int fd, void *buffer, size_t size, uint64_t offset);
/* Reads what is there, up to `size`; fewer only at the end. Bytes or -errno. */
MUST_CHECK ssize_t fd_pread_most(int fd, void *buffer, size_t size, uint64_t offset);
/*
 * Clears an eventfd: true when it was signalled. Never waits, also when another
 * process that has it too made it a blocking one.
 */
bool fd_take_event(int fd);
/*
 * read() and write() of a pipe that another process has too, who can take O_NONBLOCK from
 * it: they fail with EAGAIN instead of waiting. Before Linux 6.4 they do what the flag says.
 */
ssize_t fd_read_now(int fd, void *buffer, size_t size);
ssize_t fd_write_now(int fd, const void *buffer, size_t size);
/* Writes all. 0 or -errno. */
MUST_CHECK int fd_write_full(int fd, const void *buffer, size_t size);

/*
 * What the file at a path begins with, as text of at most size - 1 bytes, terminated.
 * 0, -ENODATA when it is empty, or -errno; then the text is as it was.
 */
MUST_CHECK int fd_read_text(const char *path, char *ret_text, size_t size);
/* Writes a text to the file at a path, opened with these flags too; O_CREAT for all to read. 0 or
 * -errno. */
MUST_CHECK int fd_write_text(const char *path, int flags, const char *text);
