// SPDX-License-Identifier: BSD-3-Clause
/* Whoever reads may never do so, so there is a bound. */
#include "spool.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

size_t spool_size(const struct spool *spool)
{
	return spool->end - spool->begin;
}

bool spool_add(struct spool *spool, const void *data, size_t size)
{
	if (size > SPOOL_MAX - spool_size(spool))
		return false;
	if (spool->fd < 0)
		spool->fd = memfd_create("crosvm-wl", MFD_CLOEXEC);
	if (pwrite(spool->fd, data, size, (off_t)spool->end) != (ssize_t)size)
		return false;
	spool->end += size;
	return true;
}

size_t spool_peek(const struct spool *spool, void *ret_data, size_t size)
{
	size_t all = spool_size(spool);
	ssize_t n = pread(spool->fd, ret_data, size < all ? size : all, (off_t)spool->begin);

	return n > 0 ? (size_t)n : 0;
}

void spool_drop(struct spool *spool, size_t size)
{
	spool->begin += size;
	if (spool->begin < spool->end) {
		(void)fallocate(spool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			(off_t)spool->begin);
		return;
	}
	spool->begin = spool->end = 0;
	(void)!ftruncate(spool->fd, 0);
}

void spool_end(struct spool *spool)
{
	if (spool->fd >= 0)
		close(spool->fd);
	*spool = (struct spool){ .fd = -1 };
}
