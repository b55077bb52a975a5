/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A disk image: a raw file or a block device, opened, locked and measured.
 *
 * Main thread, with the user's rights; the files are whatever the user named.
 * Errors are logged as one line.
 */
#pragma once

#include "base/util.h"
#include "virtio/block_options.h"

struct block_image {
	int fd;        /* owned; through the page cache */
	int direct_fd; /* owned; the same file with O_DIRECT, or -1 */
	/* What O_DIRECT asks of buffers, and of offsets and lengths. Powers of two. */
	unsigned memory_align;
	unsigned offset_align;
	uint64_t size; /* bytes, whole blocks */
	bool is_file;  /* and not a block device */
};

MUST_CHECK int block_image_open(const struct block_options *options, struct block_image *ret_image);
/*
 * Makes the file as big as `size`, a number of bytes; a block device must have
 * that many. While nothing is in flight. 0, -ENXIO for another size of a block
 * device, or what ftruncate says.
 */
MUST_CHECK int block_image_resize(struct block_image *image, uint64_t size);
void block_image_close(struct block_image *image);
