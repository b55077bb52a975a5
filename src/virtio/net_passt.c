// SPDX-License-Identifier: BSD-3-Clause
/* Starts and ends passt. What it is told comes from the user's command line. */
#include "virtio/net_passt.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "virtio/net_forward.h"
#include "virtio/net_resolver.h"

enum { REAP_MS = 1000, FORWARD_ARGUMENTS = 2 * NET_FORWARDS_MAX };

struct arguments {
	unsigned count;
	const char *words[16 + FORWARD_ARGUMENTS];
	bool is_resolver_local;
	char mtu[16], socket_fd[16];
};

static void add(struct arguments *arguments, const char *word)
{
	arguments->words[arguments->count++] = word;
}

static void make_arguments(
	const struct net_options *options, int socket_fd, struct arguments *arguments)
{
	static const char *const fixed[] = { "passt", "--foreground", "--quiet",
		/* The guest reaches the host's own services only by what is forwarded. */
		"--no-map-gw" };

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		add(arguments, fixed[i]);
	snprintf(arguments->socket_fd, sizeof(arguments->socket_fd), "%d", socket_fd);
	add(arguments, "--fd");
	add(arguments, arguments->socket_fd);
	if (net_options_have_back_end(options))
		add(arguments, "--vhost-user");
	snprintf(arguments->mtu, sizeof(arguments->mtu), "%u", options->mtu);
	add(arguments, "--mtu");
	add(arguments, arguments->mtu);
	arguments->is_resolver_local = net_resolver_is_local();
	if (arguments->is_resolver_local) {
		add(arguments, "--dns-forward");
		add(arguments, NET_RESOLVER);
	}
	for (unsigned i = 0; i < options->forward_count; i++) {
		add(arguments, options->forwards[i].udp ? "--udp-ports" : "--tcp-ports");
		add(arguments, options->forwards[i].ports);
	}
}

static void show_resolver(void)
{
	int r = net_resolver_show();

	if (r < 0)
		log_warn("net: cannot tell the guest by DHCP of the host's resolver: %s; in the "
			 "guest, "
			 "write 'nameserver " NET_RESOLVER "' to /etc/resolv.conf",
			strerror(-r));
}

/*
 * The child. Its signals are as a program expects them, which ours are not. With a socket it says
 * what it says on our stderr, without nobody hears it.
 */
static _Noreturn void become_passt(const struct arguments *arguments, int socket_fd, int error_fd)
{
	CLEANUP_FD int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	int out_fd = socket_fd >= 0 ? STDERR_FILENO : null_fd;
	sigset_t none;

	if (arguments->is_resolver_local)
		show_resolver();
	/* A closed terminal does not end a VM that ignores that, nor its network. */
	(void)setsid();
	for (int number = 1; number < NSIG; number++)
		(void)signal(number, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (null_fd >= 0 && dup2(null_fd, STDIN_FILENO) >= 0 && dup2(out_fd, STDOUT_FILENO) >= 0 &&
		dup2(out_fd, STDERR_FILENO) >= 0 &&
		(socket_fd < 0 || fcntl(socket_fd, F_SETFD, 0) == 0))
		(void)execvp("passt", (char *const *)(uintptr_t)arguments->words);
	int error = errno;

	(void)!write(error_fd, &error, sizeof(error));
	_exit(EXIT_FAILURE);
}

/* We are one thread still, and the guest has no memory yet. */
static int spawn(const struct arguments *arguments, int socket_fd, pid_t *ret_pid)
{
	int error = 0, ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid_t pid = fork();

	if (pid == 0)
		become_passt(arguments, socket_fd, ends[1]);
	if (pid < 0)
		error = errno;
	fd_close(&ends[1]);
	/* It ends without a word when there is passt in its place. */
	if (pid > 0 && read(ends[0], &error, sizeof(error)) > 0)
		(void)waitpid(pid, NULL, 0);
	fd_close(&ends[0]);
	*ret_pid = pid;
	return -error;
}

static int report_start(int r)
{
	if (r < 0)
		log_error("cannot start passt: %s%s", strerror(-r),
			r == -ENOENT ? "; install it, on Debian 'sudo apt install passt'" : "");
	return r;
}

/* One that serves rings has this option; an older one would say how it is used, in 100 lines. */
static int check_vhost_user(void)
{
	const struct arguments arguments = { .words = { "passt", "--print-capabilities" } };
	int status = 0;
	pid_t pid = -1;
	int r = report_start(spawn(&arguments, -1, &pid));

	if (r < 0)
		return r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	log_error("this passt is too old for vhost=on; leave that out, or install one of 2025, "
		  "such as Debian 13 has");
	return -EOPNOTSUPP;
}

int net_passt_start(const struct net_options *options, int *ret_pidfd, int *ret_socket_fd)
{
	struct arguments arguments = { .count = 0 };
	int ends[2];
	pid_t pid = -1;
	int r = net_forward_try(options);

	if (r == 0 && net_options_have_back_end(options))
		r = check_vhost_user();

	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		int error = errno;

		log_error("cannot make a socket for passt: %s", strerror(error));
		return -error;
	}
	make_arguments(options, ends[1], &arguments);
	r = report_start(spawn(&arguments, ends[1], &pid));
	fd_close(&ends[1]);
	if (r < 0) {
		fd_close(&ends[0]);
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
	/* Root's passt is nobody by then, whom we may not end any more. */
	if (poll(&end, 1, REAP_MS) <= 0 &&
		syscall(SYS_pidfd_send_signal, *pidfd, SIGKILL, NULL, 0) < 0)
		log_warn("net: passt does not end, and cannot be ended: %s; look for it with ps",
			strerror(errno));
	else
		while (waitid(P_PIDFD, (id_t)*pidfd, &how, WEXITED) < 0 && errno == EINTR)
			;
	fd_close(pidfd);
}
