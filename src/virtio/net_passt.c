// SPDX-License-Identifier: BSD-3-Clause
/* Starts and ends passt. What it is told comes from the user's command line. */
#include "virtio/net_passt.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

enum { CHILD_FD = 3, REAP_MS = 1000, FORWARD_ARGUMENTS = 2 * NET_FORWARDS_MAX };

struct arguments {
	unsigned count;
	const char *words[16 + FORWARD_ARGUMENTS];
};

static void add(struct arguments *arguments, const char *word)
{
	arguments->words[arguments->count++] = word;
}

static void make_arguments(
	const struct net_options *options, const char *mtu, struct arguments *ret_arguments)
{
	static const char *const fixed[] = { "passt", "--foreground", "--quiet",
		/* The guest reaches the host's own services only by what is forwarded. */
		"--no-map-gw", "--fd", "3", "--mtu" };

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		add(ret_arguments, fixed[i]);
	add(ret_arguments, mtu);
	for (unsigned i = 0; i < options->forward_count; i++) {
		add(ret_arguments, options->forwards[i].udp ? "--udp-ports" : "--tcp-ports");
		add(ret_arguments, options->forwards[i].ports);
	}
}

/* Its signals are as a program expects them, which ours are not. */
static int spawn(const struct arguments *arguments, int socket_fd, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawn_file_actions_adddup2(&actions, socket_fd, CHILD_FD);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
	int r = posix_spawnp(ret_pid, "passt", &actions, &attributes,
		(char *const *)(uintptr_t)arguments->words, environ);

	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

int net_passt_start(const struct net_options *options, int *ret_pidfd, int *ret_socket_fd)
{
	struct arguments arguments = { .count = 0 };
	char mtu[16];
	int ends[2];
	pid_t pid;

	snprintf(mtu, sizeof(mtu), "%u", options->mtu);
	make_arguments(options, mtu, &arguments);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		int error = errno;

		log_error("cannot make a socket for passt: %s", strerror(error));
		return -error;
	}
	int r = spawn(&arguments, ends[1], &pid);

	fd_close(&ends[1]);
	if (r < 0) {
		fd_close(&ends[0]);
		log_error("cannot start passt: %s%s", strerror(-r),
			r == -ENOENT ? "; install it, on Debian 'sudo apt install passt'" : "");
		return r;
	}
	/* It is not reaped, so the number is its own still, whatever became of it. */
	*ret_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (*ret_pidfd < 0) {
		r = -errno;
		log_error("cannot watch passt: %s; Linux 5.3 is needed", strerror(-r));
		fd_close(&ends[0]);
		return r;
	}
	*ret_socket_fd = ends[0];
	return 0;
}

void net_passt_reap(int *pidfd)
{
	struct pollfd end = { .fd = *pidfd, .events = POLLIN };
	siginfo_t how;

	if (*pidfd < 0)
		return;
	if (poll(&end, 1, REAP_MS) <= 0)
		(void)syscall(SYS_pidfd_send_signal, *pidfd, SIGKILL, NULL, 0);
	while (waitid(P_PIDFD, (id_t)*pidfd, &how, WEXITED) < 0 && errno == EINTR)
		;
	fd_close(pidfd);
}
