// SPDX-License-Identifier: BSD-3-Clause
/*
 * crosvm-wl: offers the host's Wayland compositor to the programs of a guest
 * whose kernel has no driver for virtio-wayland.
 *
 *	crosvm-wl [SOCKET]        default: /run/wayland-0; ready when it is there
 *
 * Each client is a context of its own and its messages pass verbatim, so that
 * object ids are the same on both sides. Begins as root, for the sake of the
 * device, and goes on as the owner of the socket's directory, whose programs
 * are served.
 */
#include <errno.h>
#include <grp.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proxy.h"

/* ---- the start ---- */

/* What was at the path is of a run before: the device has one user at a time. */
static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = strlen(path);

	if (length >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	memcpy(address.sun_path, path, length);
	unlink(path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 16) == 0)
		return fd;
	close(fd);
	return -1;
}

/* The socket is its directory's owner's, and so is the process from here on. */
static bool become_owner(const char *path)
{
	char *copy = strdup(path);
	struct stat st;

	if (copy == NULL || stat(dirname(copy), &st) < 0) {
		free(copy);
		return false;
	}
	free(copy);
	return st.st_uid == 0 ||
	       (lchown(path, st.st_uid, st.st_gid) == 0 && setgroups(0, NULL) == 0 &&
		       setresgid(st.st_gid, st.st_gid, st.st_gid) == 0 &&
		       setresuid(st.st_uid, st.st_uid, st.st_uid) == 0);
}

/* Clients, their pools and their pipes are descriptors, and the usual limit is small. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int take_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "/run/wayland-0";
	static struct proxy proxy;

	if (argc > 2 || path[0] == '-') {
		fputs("usage: crosvm-wl [SOCKET]\n", stderr);
		return 2;
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		proxy.clients[i].fd = -1;
	for (unsigned i = 0; i < PUMPS; i++)
		proxy.pumps[i].fd = -1;
	raise_limit();
	proxy.signals = take_signals();
	proxy.device = device_open();
	if (proxy.device == NULL)
		return 1;
	proxy.listener = listen_at(path);
	if (proxy.listener < 0 || proxy.signals < 0 || !become_owner(path)) {
		fprintf(stderr, "crosvm-wl: %s: %s\n", path, strerror(errno));
		return 1;
	}
	int status;

	do
		status = run_round(&proxy);
	while (status > 0);
	if (status < 0)
		fprintf(stderr, "crosvm-wl: poll: %s\n", strerror(-status));
	unlink(path);
	device_stop(proxy.device);
	return status < 0;
}
