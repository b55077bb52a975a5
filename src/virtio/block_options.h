/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a disk is asked to be, and the words of --block that say it. All of it
 * comes from the user's command line; strings live as long as that.
 */
#pragma once

#include "base/option_values.h"
#include "base/util.h"

enum { SECTOR_SIZE = 512, BLOCK_ID_SIZE = 20 };

struct block_options {
	const char *path;
	bool read_only;
	bool root;           /* it has the root file system */
	bool direct;         /* O_DIRECT */
	bool raw;            /* the user said format=raw: do not look at the content */
	bool no_discard;     /* sparse=false: never punch holes */
	bool snapshot;       /* writes go to an overlay that is thrown away */
	bool sync_engine;    /* engine=sync: do not use io_uring */
	unsigned block_size; /* logical, bytes: 512 to 4096 */
	unsigned queues;
	char id[BLOCK_ID_SIZE + 1];
};

extern const struct block_options block_default_options;

enum { BLOCK_SUBOPTIONS = 11 };

extern const struct suboption block_suboptions[BLOCK_SUBOPTIONS];

/* For struct device_class. */
MUST_CHECK int block_options_check(const char *option, const void *options);
void block_kernel_params(const void *options, unsigned index, char *ret_text, size_t size);
