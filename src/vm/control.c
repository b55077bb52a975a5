// SPDX-License-Identifier: BSD-3-Clause
/* The control loop. Signals may come at any time and in any number. */
#include "vm/control.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/footprint.h"
#include "base/log.h"

/* SIGCONT: whoever stopped us may have used the terminal since. */
static const int taken_signals[] = { SIGTERM, SIGINT, SIGHUP, SIGCONT };
/* Blocked and never taken: a reader that goes away or a full quota is an error of write(2). */
static const int ignored_signals[] = { SIGPIPE, SIGXFSZ };

static sigset_t signals_to_take(void)
{
	sigset_t taken;

	sigemptyset(&taken);
	for (size_t i = 0; i < ARRAY_SIZE(taken_signals); i++)
		sigaddset(&taken, taken_signals[i]);
	return taken;
}

int control_init(struct control *control)
{
	sigset_t blocked = signals_to_take();

	for (size_t i = 0; i < ARRAY_SIZE(ignored_signals); i++)
		sigaddset(&blocked, ignored_signals[i]);
	/* Set, not added: what we inherit could block the signal that kicks vCPUs. */
	if (sigprocmask(SIG_SETMASK, &blocked, NULL) < 0)
		return -errno;
	return evloop_create(&control->loop);
}

void control_destroy(struct control *control)
{
	fd_close(&control->signalfd);
	evloop_free(control->loop);
}

/* For nohup(1): a signal that is blocked reaches us although it is ignored. */
static bool is_ignored(int signal_number)
{
	struct sigaction action;

	return sigaction(signal_number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static void take_signal(
	struct control *control, struct lifecycle *lifecycle, struct console *console)
{
	struct signalfd_siginfo info;

	if (read(control->signalfd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	if (info.ssi_signo == SIGCONT) {
		console_resume_terminal(console);
		return;
	}
	if (info.ssi_signo == SIGHUP && is_ignored(SIGHUP))
		return;
	log_debug("signal %u (%s) from process %u", info.ssi_signo, strsignal((int)info.ssi_signo),
		info.ssi_pid);
	lifecycle_end(lifecycle, VM_END_STOPPED);
}

/* All that the loop waits for is made here and not before, when the guest runs already. */
static int open_fds(struct control *control, struct lifecycle *lifecycle, struct pollfd fds[3])
{
	sigset_t taken = signals_to_take();

	control->signalfd = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
	int r = control->signalfd < 0 ? -errno : lifecycle_open_fd(lifecycle, &fds[1].fd);

	if (r < 0) {
		log_error("cannot wait for signals: %s", strerror(-r));
		return r;
	}
	fds[0].fd = control->signalfd;
	r = evloop_open(control->loop, &fds[2].fd);
	if (r < 0)
		log_warn("cannot watch the devices: %s; their interrupts need MSI-X", strerror(-r));
	return 0;
}

enum vm_end control_run(
	struct control *control, struct lifecycle *lifecycle, struct console *console)
{
	struct pollfd fds[] = {
		{ .fd = -1, .events = POLLIN },
		{ .fd = -1, .events = POLLIN },
		{ .fd = -1, .events = POLLIN },
	};
	int timeout_ms = FOOTPRINT_FIRST_MS;

	if (open_fds(control, lifecycle, fds) < 0)
		lifecycle_end(lifecycle, VM_END_HOST);

	while (lifecycle_get(lifecycle) == VM_RUNNING) {
		int n = poll(fds, ARRAY_SIZE(fds), timeout_ms);

		if (n == 0)
			footprint_drop_program(&timeout_ms);
		if (n <= 0)
			continue; /* or EINTR; there is no other error */
		if (fds[0].revents != 0)
			take_signal(control, lifecycle, console);
		if (fds[2].revents != 0)
			(void)!evloop_run_ready(control->loop);
	}
	return lifecycle_get(lifecycle);
}
