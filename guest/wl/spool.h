/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What goes to a client that is slow, in order: a file in memory that is written
 * at its end and read from its front. The kernel has what was read back.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SPOOL_MAX = 256 << 20 }; /* unread bytes */

/* Begins as { .fd = -1 }, and spool_end() ends it. */
struct spool {
	int fd; /* -1: nothing came yet */
	uint64_t begin, end;
};

/* Unread bytes. */
size_t spool_size(const struct spool *spool);
/* False: there are too many, or no memory. */
bool spool_add(struct spool *spool, const void *data, size_t size);
/* The first ones, `size` at most; how many. They stay. */
size_t spool_peek(const struct spool *spool, void *ret_data, size_t size);
/* The first ones go. */
void spool_drop(struct spool *spool, size_t size);
void spool_end(struct spool *spool);
