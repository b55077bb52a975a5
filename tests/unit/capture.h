/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the code under test writes to stderr, because messages are interface
 * and tested like any other. One capture at a time, one thread.
 */
#pragma once

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct capture {
	int saved_stderr;
	int memfd;
	char text[8192]; /* valid after capture_end() */
};

static inline void capture_die(const char *what)
{
	perror(what);
	abort();
}

static inline void capture_begin(struct capture *capture)
{
	fflush(stderr);
	capture->saved_stderr = dup(STDERR_FILENO);
	capture->memfd = memfd_create("stderr", MFD_CLOEXEC);
	if (capture->saved_stderr < 0 || capture->memfd < 0 ||
		dup2(capture->memfd, STDERR_FILENO) < 0)
		capture_die("capture stderr");
}

/* Until another thread has written something. */
static inline void capture_await(const struct capture *capture)
{
	char byte;

	for (unsigned ms = 0; pread(capture->memfd, &byte, 1, 0) == 0; ms++) {
		if (ms == 20000)
			capture_die("nothing was written to stderr");
		(void)poll(NULL, 0, 1);
	}
}

static inline void capture_end(struct capture *capture)
{
	fflush(stderr);
	if (dup2(capture->saved_stderr, STDERR_FILENO) < 0)
		capture_die("restore stderr");
	ssize_t n = pread(capture->memfd, capture->text, sizeof(capture->text) - 1, 0);

	capture->text[n > 0 ? n : 0] = '\0';
	close(capture->saved_stderr);
	close(capture->memfd);
}

static inline unsigned capture_lines(const struct capture *capture)
{
	unsigned lines = 0;

	for (const char *c = capture->text; *c != '\0'; c++)
		lines += *c == '\n';
	return lines;
}
