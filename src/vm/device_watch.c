// SPDX-License-Identifier: BSD-3-Clause
/* Device processes may end, be killed and be stopped at any time, and many at a time. */
#include "vm/device_watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "vm/device_process.h"

/* One that hung up is about to end; the helper that saw it may be quicker. */
enum { LAST_WAIT_MS = 200 };

struct watched {
	struct device_watch *watch;
	const struct jail_process *process;
	const char *name;
	bool stopped;
	bool killed;         /* by us, for that */
	uint64_t stopped_ns; /* since when */
};

struct device_watch {
	struct lifecycle *lifecycle;
	struct evloop *loop; /* NULL until it starts */
	int signal_fd;       /* SIGCHLD */
	int timer_fd;        /* when a stopped process may be lost */
	unsigned count;
	struct watched processes[WATCH_MAX];
};

int device_watch_create(struct lifecycle *lifecycle, struct device_watch **ret_watch)
{
	/* Whoever started us may have ignored it; then the kernel would forget how a child ended.
	 */
	const struct sigaction standard = { .sa_handler = SIG_DFL };
	struct device_watch *watch = calloc(1, sizeof(*watch));
	sigset_t child;

	if (watch == NULL)
		return -ENOMEM;
	watch->lifecycle = lifecycle;
	watch->timer_fd = -1;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	watch->signal_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (watch->signal_fd < 0 || sigaction(SIGCHLD, &standard, NULL) < 0 ||
		sigprocmask(SIG_BLOCK, &child, NULL) < 0) {
		int error = errno;

		device_watch_free(watch);
		return -error;
	}
	*ret_watch = watch;
	return 0;
}

/* Runs in the control loop, as all below. The end of the VM tells how it ended. */
static void on_end(void *argument)
{
	const struct watched *watched = argument;

	evloop_remove(watched->watch->loop, watched->process->pidfd);
	lifecycle_end(watched->watch->lifecycle, VM_END_DEVICE);
}

/* Brings `stopped` up to date; the process is not reaped. */
static void look(struct watched *watched)
{
	siginfo_t how = { .si_pid = 0 };

	while (waitid(P_PIDFD, (id_t)watched->process->pidfd, &how,
		       WSTOPPED | WCONTINUED | WNOHANG) == 0 &&
		how.si_pid != 0) {
		watched->stopped = how.si_code == CLD_STOPPED;
		watched->stopped_ns = clock_monotonic_ns();
		how.si_pid = 0;
	}
}

static void set_timer(const struct device_watch *watch)
{
	const struct itimerspec once = {
		.it_value = { WATCH_STOPPED_MS / 1000, WATCH_STOPPED_MS % 1000 * NS_PER_MS },
	};

	(void)timerfd_settime(watch->timer_fd, 0, &once, NULL);
}

static void on_child(void *argument)
{
	struct device_watch *watch = argument;
	struct signalfd_siginfo info;
	bool stopped = false;

	(void)!read(watch->signal_fd, &info, sizeof(info)); /* it stands for many */
	for (unsigned i = 0; i < watch->count; i++) {
		look(&watch->processes[i]);
		stopped = stopped || watch->processes[i].stopped;
	}
	if (stopped)
		set_timer(watch);
}

/* Killed at once, so that nobody waits for it again. */
static void lose_stopped(struct watched *watched)
{
	watched->killed = true;
	log_error("device %s: its process %d was stopped %u s ago and does not go on",
		watched->name, watched->process->pid, WATCH_STOPPED_MS / 1000);
	(void)syscall(SYS_pidfd_send_signal, watched->process->pidfd, SIGKILL, NULL, 0);
	lifecycle_end(watched->watch->lifecycle, VM_END_DEVICE);
}

static void on_timer(void *argument)
{
	struct device_watch *watch = argument;
	uint64_t now = clock_monotonic_ns();
	uint64_t count;

	(void)!read(watch->timer_fd, &count, sizeof(count));
	for (unsigned i = 0; i < watch->count; i++) {
		struct watched *watched = &watch->processes[i];

		if (!watched->stopped)
			continue;
		if (now - watched->stopped_ns >= WATCH_STOPPED_MS * NS_PER_MS)
			lose_stopped(watched);
		else
			set_timer(watch);
	}
}

int device_watch_start(struct device_watch *watch, struct evloop *loop)
{
	watch->loop = loop;
	watch->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	int r = watch->timer_fd < 0 ? -errno : evloop_add(loop, watch->timer_fd, on_timer, watch);

	return r == 0 ? evloop_add(loop, watch->signal_fd, on_child, watch) : r;
}

int device_watch_add(
	struct device_watch *watch, const struct jail_process *process, const char *name)
{
	if (watch->count == WATCH_MAX)
		return -ENOSPC;
	struct watched *watched = &watch->processes[watch->count];

	*watched = (struct watched){ .watch = watch, .process = process, .name = name };
	int r = evloop_add(watch->loop, process->pidfd, on_end, watched);

	watch->count += r == 0;
	return r;
}

void device_watch_report(struct device_watch *watch)
{
	struct pollfd ends[WATCH_MAX];
	bool is_told = false;

	for (unsigned i = 0; i < watch->count; i++)
		ends[i] = (struct pollfd){ watch->processes[i].process->pidfd, POLLIN, 0 };
	while (!is_told && poll(ends, watch->count, LAST_WAIT_MS) > 0) {
		for (unsigned i = 0; i < watch->count; i++) {
			if (ends[i].revents == 0)
				continue;
			ends[i].fd = -1; /* once is enough */
			is_told |= watch->processes[i].killed ||
				   device_process_report(
					   watch->processes[i].process, watch->processes[i].name);
		}
	}
}

void device_watch_free(struct device_watch *watch)
{
	if (watch == NULL)
		return;
	for (unsigned i = 0; i < watch->count; i++)
		evloop_remove(watch->loop, watch->processes[i].process->pidfd);
	if (watch->loop != NULL) {
		evloop_remove(watch->loop, watch->signal_fd);
		evloop_remove(watch->loop, watch->timer_fd);
	}
	fd_close(&watch->signal_fd);
	fd_close(&watch->timer_fd);
	free(watch);
}
