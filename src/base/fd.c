// SPDX-License-Identifier: BSD-3-Clause
/* Complete transfers on file descriptors, and room for them. Files may be shorter than they said.
 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"

void fd_close(int *fd)
{
	if (*fd < 0)
		return;
	int saved_errno = errno;

	close(*fd);
	*fd = -1;
	errno = saved_errno;
}

unsigned fd_make_room(unsigned count)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return count;
	rlim_t before = files.rlim_cur;

	files.rlim_cur = files.rlim_max - before < count ? files.rlim_max : before + count;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		files.rlim_cur = before;
	rlim_t more = files.rlim_cur - before;

	return (unsigned)min_u64(count, more > before / 2 ? more : before / 2);
}

int fd_steal(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

int fd_fill_standard(void)
{
	/* Not O_CLOEXEC: a program that we start has them too. */
	static const int flags[] = {
		[STDIN_FILENO] = O_RDONLY,
		[STDOUT_FILENO] = O_RDONLY,
		[STDERR_FILENO] = O_WRONLY,
	};
	struct pollfd standard[ARRAY_SIZE(flags)];

	for (int fd = 0; fd < (int)ARRAY_SIZE(flags); fd++)
		standard[fd] = (struct pollfd){ .fd = fd };
	/* One call for all three: nearly always they are open. */
	if (poll(standard, ARRAY_SIZE(standard), 0) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		// cppcheck-suppress leakReturnValNotUsed ; it gets this number, and stays open
		if ((standard[i].revents & POLLNVAL) != 0 && open("/dev/null", flags[i]) < 0)
			return -errno;
	return 0;
}

int fd_lift(int *fd)
{
	if (*fd > STDERR_FILENO)
		return 0;
	int lifted = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);

	if (lifted < 0)
		return -errno;
	fd_close(fd);
	*fd = lifted;
	return 0;
}

int fd_wait(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd pollfd = { .fd = fd, .events = events };

	for (;;) {
		uint64_t now = clock_monotonic_ns();

		if (now >= deadline_ns)
			return -ETIMEDOUT;
		/* Rounded up, so that the last round does not spin. */
		uint64_t timeout_ms = (deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;
		int n = poll(&pollfd, 1, (int)min_u64(timeout_ms, INT32_MAX));

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

ssize_t fd_pread_most(int fd, void *buffer, size_t size, uint64_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(fd, (char *)buffer + done, size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int fd_pread_full(int fd, void *buffer, size_t size, uint64_t offset)
{
	ssize_t n = fd_pread_most(fd, buffer, size, offset);

	if (n < 0)
		return (int)n;
	return (size_t)n == size ? 0 : -ENODATA;
}

bool fd_take_event(int fd)
{
	uint64_t count = 0;
	const struct iovec iov = { &count, sizeof(count) };

	return preadv2(fd, &iov, 1, -1, RWF_NOWAIT) == (ssize_t)sizeof(count);
}

ssize_t fd_read_now(int fd, void *buffer, size_t size)
{
	const struct iovec iov = { buffer, size };
	ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

	return n < 0 && errno == EOPNOTSUPP ? read(fd, buffer, size) : n;
}

ssize_t fd_write_now(int fd, const void *buffer, size_t size)
{
	const struct iovec iov = { (void *)(uintptr_t)buffer, size };
	ssize_t n = pwritev2(fd, &iov, 1, -1, RWF_NOWAIT);

	return n < 0 && errno == EOPNOTSUPP ? write(fd, buffer, size) : n;
}

int fd_write_full(int fd, const void *buffer, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = write(fd, (const char *)buffer + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int fd_read_text(const char *path, char *ret_text, size_t size)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	ssize_t n = fd_pread_most(fd, ret_text, size - 1, 0);

	if (n > 0)
		ret_text[n] = '\0';
	// cppcheck-suppress resourceLeak ; CLEANUP_FD closes it
	return n > 0 ? 0 : n == 0 ? -ENODATA : (int)n;
}

int fd_write_text(const char *path, int flags, const char *text)
{
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);

	return fd < 0 ? -errno : fd_write_full(fd, text, strlen(text));
}
