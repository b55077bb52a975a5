// SPDX-License-Identifier: BSD-3-Clause
/* What is at the path may change at any time; it is named once. */
#include "base/unix_connect.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"

int unix_connect(int type, const char *path, int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (*path == '\0' || strlen(path) > UNIX_PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path));
	CLEANUP_FD int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		// cppcheck-suppress resourceLeak ; CLEANUP_FD closes it
		return -errno;
	*ret_fd = fd_steal(&fd);
	return 0;
}
