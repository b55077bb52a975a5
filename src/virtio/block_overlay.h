/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A throw-away overlay over a read-only image: a sparse file without a name,
 * and in memory one bit for each block that says whether the overlay has it.
 * The kernel frees both when the last process that has them ends, however it
 * ends.
 *
 * Ranges lie in the disk, which the caller has checked. Queues' threads use it
 * side by side without a lock: a bit is set after the block's data is in the
 * file, and never cleared.
 */
#pragma once

#include <stdatomic.h>

#include "base/util.h"

struct block_overlay {
	int fd; /* owned; -1: there is no overlay, and nothing else here counts */
	unsigned block_shift;
	size_t map_size; /* bytes; touched ones only take memory */
	_Atomic(uint64_t) *map;
};

/*
 * An empty overlay for a disk of `size` bytes in blocks of `block_size`, in
 * $TMPDIR or /var/tmp. 0 or -errno, logged with the disk's name.
 */
MUST_CHECK int block_overlay_open(
	const char *disk, uint64_t size, unsigned block_size, struct block_overlay *ret_overlay);
void block_overlay_close(struct block_overlay *overlay);

/*
 * How many bytes from `offset` on, `length` at most and more than 0, lie in the
 * same file, and whether that is the overlay's.
 */
uint64_t block_overlay_run(
	const struct block_overlay *overlay, uint64_t offset, uint64_t length, bool *ret_present);

/*
 * From now on the overlay has these bytes. A block that they end in is left
 * out: it is marked by the call that brings its rest.
 */
void block_overlay_mark(struct block_overlay *overlay, uint64_t offset, uint64_t length);
