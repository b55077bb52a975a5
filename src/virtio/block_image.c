// SPDX-License-Identifier: BSD-3-Clause
/*
 * Opens disk images. A file is what the user says it is: a content that looks
 * like another format is refused, never interpreted, because a guest could
 * have written it into a raw disk.
 */
#include "virtio/block_image.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/fd.h"
#include "base/log.h"

enum { LOCK_WAIT_MS = 500, LOCK_RETRY_MS = 5 };

static const struct {
	const char *magic;
	size_t length;
	const char *name;
	bool is_compressed;
} formats[] = {
	{ "QFI\xfb", 4, "qcow2" },
	{ "QED\0", 4, "qed" },
	{ "KDMV", 4, "vmdk" },
	{ "COWD", 4, "vmdk" },
	{ "vhdxfile", 8, "vhdx" },
	{ "conectix", 8, "vhd" },
	{ "<<< Oracle VM", 13, "vdi" },
	{ "\x1f\x8b", 2, "gzip", true },
	{ "\x28\xb5\x2f\xfd", 4, "zstd", true },
	{ "\xfd"
	  "7zXZ",
		5, "xz", true },
};

static int refuse_other_formats(const struct block_options *options, int fd)
{
	char head[16];

	if (options->raw || fd_pread_full(fd, head, sizeof(head), 0) < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		if (memcmp(head, formats[i].magic, formats[i].length) != 0)
			continue;
		log_error("disk '%s' looks like %s; %s, or say format=raw if the guest shall see "
			  "it as it is",
			options->path, formats[i].name,
			formats[i].is_compressed ? "decompress it"
						 : "convert it ('qemu-img convert -O raw')");
		return -EINVAL;
	}
	return 0;
}

/* How many descriptors of the file a process has, as far as we may look. */
static unsigned count_holds(const char *pid, const struct stat *file)
{
	char path[64];
	struct dirent *entry;
	struct stat held;
	unsigned count = 0;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	DIR *dir = opendir(path);

	while (dir != NULL && (entry = readdir(dir)) != NULL)
		count += fstatat(dirfd(dir), entry->d_name, &held, 0) == 0 &&
			 held.st_dev == file->st_dev && held.st_ino == file->st_ino;
	if (dir != NULL)
		closedir(dir);
	return count;
}

/* Another process that has the file open; 0: not found. */
static int find_holder(const struct stat *file)
{
	struct dirent *entry;
	int holder = 0;
	DIR *proc = opendir("/proc");

	if (proc == NULL)
		return 0;
	while (holder == 0 && (entry = readdir(proc)) != NULL) {
		int pid = (int)strtol(entry->d_name, NULL, 10);

		if (pid > 0 && pid != getpid() && count_holds(entry->d_name, file) > 0)
			holder = pid;
	}
	closedir(proc);
	return holder;
}

/*
 * Waits a moment for a lock, since a killed VM's lasts until the kernel is done with
 * its requests, and its device processes have noticed. 0, -EBUSY: it is another's, or -errno.
 */
static int wait_for_lock(int fd, const struct flock *lock)
{
	for (unsigned ms = 0; fcntl(fd, F_OFD_SETLK, lock) < 0; ms += LOCK_RETRY_MS) {
		if (errno != EAGAIN && errno != EACCES)
			return -errno;
		if (ms >= LOCK_WAIT_MS)
			return -EBUSY;
		(void)poll(NULL, 0, LOCK_RETRY_MS);
	}
	return 0;
}

static void report_busy(const struct block_options *options, int fd)
{
	unsigned ours = options->direct ? 2 : 1; /* descriptors of this disk */
	struct stat file;
	char by[32] = "";
	int holder = 0;

	if (fstat(fd, &file) == 0) {
		if (count_holds("self", &file) > ours) {
			log_error("disk '%s' is given twice, at least once to be written to; use "
				  "it read-only both times, or a copy of it",
				options->path);
			return;
		}
		holder = find_holder(&file);
	}
	if (holder != 0)
		snprintf(by, sizeof(by), " (process %d)", holder);
	log_error("disk '%s' is in use by another VM%s; stop it, or use the disk read-only in both",
		options->path, by);
}

/* Writers exclude everybody, readers share. The lock goes with the descriptor. */
static int lock_image(const struct block_options *options, int fd)
{
	const struct flock lock = {
		.l_type = options->read_only ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
	};
	int r = wait_for_lock(fd, &lock);

	if (r == 0)
		return 0;
	if (r != -EBUSY) {
		log_error("cannot lock the disk '%s': %s", options->path, strerror(-r));
		return r;
	}
	report_busy(options, fd);
	return -EBUSY;
}

static int measure(
	const struct block_options *options, int fd, uint64_t *ret_size, bool *ret_is_file)
{
	struct stat st;
	uint64_t size = 0;

	if (fstat(fd, &st) < 0)
		st.st_mode = 0; /* a descriptor that we have just opened */
	if (S_ISREG(st.st_mode)) {
		size = (uint64_t)st.st_size;
	} else if (!S_ISBLK(st.st_mode)) {
		log_error("disk '%s' is neither a file nor a block device; pass a raw image, as "
			  "'truncate -s 1G FILE' makes one",
			options->path);
		return -EINVAL;
	} else if (ioctl(fd, BLKGETSIZE64, &size) < 0) {
		int error = errno;

		log_error("cannot tell the size of the disk '%s': %s", options->path,
			strerror(error));
		return -error;
	}
	uint64_t tail = size % options->block_size;

	if (size < options->block_size) {
		log_error("disk '%s' has %" PRIu64 " bytes, less than one block of %u; make it "
			  "larger, as by 'truncate -s 1G FILE'",
			options->path, size, options->block_size);
		return -EINVAL;
	}
	if (tail != 0)
		log_warn("disk '%s': the guest does not see its last %" PRIu64
			 " bytes, which make no whole block of %u",
			options->path, tail, options->block_size);
	*ret_size = size - tail;
	*ret_is_file = S_ISREG(st.st_mode);
	return 0;
}

static const char *open_advice(int error, bool writes, bool direct)
{
	if (writes && (error == EACCES || error == EROFS))
		return "is it meant to be read-only?";
	if (direct && error == EINVAL)
		return "its file system cannot, leave out 'direct'";
	return advice_open(error);
}

static int open_file(const struct block_options *options, int extra_flags, int *ret_fd)
{
	bool writes = !options->read_only;
	int fd = open(options->path,
		(writes ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | extra_flags);

	if (fd < 0) {
		int error = errno;

		log_error("cannot open the disk '%s'%s: %s; %s", options->path,
			extra_flags != 0 ? " with O_DIRECT" : "", strerror(error),
			open_advice(error, writes, extra_flags != 0));
		return -error;
	}
	*ret_fd = fd;
	return 0;
}

/*
 * O_NONBLOCK is for the open(), which must not wait for a FIFO's other end. Left
 * set, io_uring of Linux 5.10 to 5.17 gives EAGAIN for all that is not cached.
 */
static int clear_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ? -errno : 0;
}

static bool is_power_of_two(unsigned n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

/*
 * What O_DIRECT asks for. A kernel before 6.1 and some file systems do not say;
 * then it is the logical block of a block device, and for a file a sector. What
 * is refused nevertheless goes through the cache, one call later.
 */
static void measure_alignment(int fd, struct block_image *image)
{
	struct statx sx;
	int sector = 0;

	image->memory_align = image->offset_align = SECTOR_SIZE;
	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
		(sx.stx_mask & STATX_DIOALIGN) != 0 && is_power_of_two(sx.stx_dio_mem_align) &&
		is_power_of_two(sx.stx_dio_offset_align)) {
		image->memory_align = sx.stx_dio_mem_align;
		image->offset_align = sx.stx_dio_offset_align;
	} else if (ioctl(fd, BLKSSZGET, &sector) == 0 && is_power_of_two((unsigned)sector)) {
		image->memory_align = image->offset_align = (unsigned)sector;
	}
}

int block_image_open(const struct block_options *options, struct block_image *ret_image)
{
	struct block_image image = { .memory_align = 1, .offset_align = 1 };
	CLEANUP_FD int fd = -1;
	CLEANUP_FD int direct_fd = -1;
	uint64_t size = 0;
	int r = open_file(options, 0, &fd);

	if (r == 0 && options->direct)
		r = open_file(options, O_DIRECT, &direct_fd);
	if (r == 0)
		r = refuse_other_formats(options, fd);
	if (r == 0)
		r = measure(options, fd, &size, &image.is_file);
	if (r == 0)
		r = lock_image(options, fd);
	if (r == 0)
		r = clear_nonblock(fd);
	if (r == 0 && direct_fd >= 0)
		r = clear_nonblock(direct_fd);
	if (r < 0)
		return r;
	if (direct_fd >= 0)
		measure_alignment(direct_fd, &image);
	image.fd = fd_steal(&fd);
	image.direct_fd = fd_steal(&direct_fd);
	image.size = size;
	*ret_image = image;
	return 0;
}

/* By lseek(), since a jail has no ioctl(); nobody uses the descriptors' offset. */
static int require_size(int fd, uint64_t size)
{
	off_t end = lseek(fd, 0, SEEK_END);

	if (end < 0)
		return -errno;
	return (uint64_t)end / SECTOR_SIZE == size / SECTOR_SIZE ? 0 : -ENXIO;
}

int block_image_resize(struct block_image *image, uint64_t size)
{
	int r = 0;

	if (size > INT64_MAX)
		return -EFBIG;
	if (!image->is_file)
		r = require_size(image->fd, size);
	else if (ftruncate(image->fd, (off_t)size) < 0)
		r = -errno;
	if (r == 0)
		image->size = size;
	return r;
}

void block_image_close(struct block_image *image)
{
	fd_close(&image->fd);
	fd_close(&image->direct_fd);
}
