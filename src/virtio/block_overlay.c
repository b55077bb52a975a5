// SPDX-License-Identifier: BSD-3-Clause
/*
 * The overlay of `snapshot`. Its file system may be slow or full: then a write
 * fails, its block is not marked, and the image's content stays visible.
 */
#include "virtio/block_overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

enum { WORD_BITS = 64 };

/* A file that has no name, or none for longer than it takes to open it. */
static int open_nameless(const char *directory, int *ret_fd)
{
	int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
		char path[4096];

		if (snprintf(path, sizeof(path), "%s/crosvm-snapshot-XXXXXX", directory) >=
			(int)sizeof(path))
			return -ENAMETOOLONG;
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			(void)unlink(path);
	}
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int block_overlay_open(
	const char *disk, uint64_t size, unsigned block_size, struct block_overlay *ret_overlay)
{
	const char *directory = getenv("TMPDIR");
	uint64_t words = (size / block_size + WORD_BITS - 1) / WORD_BITS;
	CLEANUP_FD int fd = -1;

	if (directory == NULL || *directory == '\0')
		directory = "/var/tmp";
	int r = open_nameless(directory, &fd);

	if (r == 0 && ftruncate(fd, (off_t)size) < 0)
		r = -errno;
	if (r < 0) {
		log_error("disk '%s': cannot make its snapshot in %s: %s; set TMPDIR to a "
			  "directory with room for what the guest writes",
			disk, directory, strerror(-r));
		return r;
	}
	void *map = mmap(NULL, words * sizeof(uint64_t), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED) {
		r = -errno;
		log_error(
			"disk '%s': no memory for the map of its snapshot: %s", disk, strerror(-r));
		return r;
	}
	*ret_overlay = (struct block_overlay){
		.fd = fd_steal(&fd),
		.block_shift = (unsigned)__builtin_ctz(block_size),
		.map_size = words * sizeof(uint64_t),
		.map = map,
	};
	return 0;
}

void block_overlay_close(struct block_overlay *overlay)
{
	if (overlay->fd < 0)
		return;
	munmap(overlay->map, overlay->map_size);
	fd_close(&overlay->fd);
}

static uint64_t load_word(const struct block_overlay *overlay, uint64_t block)
{
	return atomic_load_explicit(&overlay->map[block / WORD_BITS], memory_order_acquire);
}

uint64_t block_overlay_run(
	const struct block_overlay *overlay, uint64_t offset, uint64_t length, bool *ret_present)
{
	uint64_t block = offset >> overlay->block_shift;
	uint64_t end = (offset + length - 1) >> overlay->block_shift; /* the last block */
	bool present = ((load_word(overlay, block) >> (block % WORD_BITS)) & 1) != 0;

	*ret_present = present;
	/* The first block is decided; others may become present while we look. */
	block++;
	while (block <= end) {
		uint64_t word = load_word(overlay, block);
		uint64_t other = (present ? ~word : word) >> (block % WORD_BITS);

		if (other != 0) {
			block += (unsigned)__builtin_ctzll(other);
			break;
		}
		block += WORD_BITS - block % WORD_BITS;
	}
	return block > end ? length : (block << overlay->block_shift) - offset;
}

void block_overlay_mark(struct block_overlay *overlay, uint64_t offset, uint64_t length)
{
	uint64_t block = offset >> overlay->block_shift;
	uint64_t end = (offset + length) >> overlay->block_shift; /* behind the last */

	while (block < end) {
		unsigned first = block % WORD_BITS;
		unsigned count = (unsigned)min_u64(end - block, WORD_BITS - first);
		uint64_t mask = (~UINT64_C(0) >> (WORD_BITS - count)) << first;

		atomic_fetch_or_explicit(
			&overlay->map[block / WORD_BITS], mask, memory_order_release);
		block += count;
	}
}
