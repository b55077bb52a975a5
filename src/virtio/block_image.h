/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A disk image: a raw file or a block device, opened, locked and measured.
 *
 * Main thread, with the user's rights; the files are whatever the user named.
 * Errors are logged as one line.
 */
#pragma once

#include "base/util.h"

enum { SECTOR_SIZE = 512, BLOCK_ID_SIZE = 20 };

struct block_options {
	const char *path;
	bool read_only;
	bool direct;         /* O_DIRECT */
	bool raw;            /* the user said format=raw: do not look at the content */
	bool no_discard;     /* sparse=false: never punch holes */
	bool sync_engine;    /* engine=sync: do not use io_uring */
	unsigned block_size; /* logical, bytes: 512 to 4096 */
	unsigned queues;
	char id[BLOCK_ID_SIZE + 1];
};

struct block_image {
	int fd;        /* owned; through the page cache */
	int direct_fd; /* owned; the same file with O_DIRECT, or -1 */
	uint64_t size; /* bytes, whole sectors */
};

MUST_CHECK int block_image_open(const struct block_options *options, struct block_image *ret_image);
void block_image_close(struct block_image *image);
