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
#include "base/log.h"

/* SIGCONT: whoever stopped us may have used the terminal since. */
static const int taken_signals[] = { SIGTERM, SIGINT, SIGHUP, SIGCONT };
/* Blocked and never taken: a reader that goes away or a full quota is an error of write(2). */
static const int ignored_signals[] = { SIGPIPE, SIGXFSZ };

int control_init(struct control *control)
{
	sigset_t taken, blocked;

	sigemptyset(&taken);
	for (size_t i = 0; i < ARRAY_SIZE(taken_signals); i++)
		sigaddset(&taken, taken_signals[i]);
	blocked = taken;
	for (size_t i = 0; i < ARRAY_SIZE(ignored_signals); i++)
		sigaddset(&blocked, ignored_signals[i]);
	if (sigprocmask(SIG_BLOCK, &blocked, NULL) < 0)
		return -errno;
	control->signalfd = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
	return control->signalfd < 0 ? -errno : evloop_create(&control->loop);
}

void control_destroy(struct control *control)
{
	fd_close(&control->signalfd);
	evloop_free(control->loop);
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
	log_debug("signal %u (%s) from process %u", info.ssi_signo, strsignal((int)info.ssi_signo),
		info.ssi_pid);
	lifecycle_end(lifecycle, VM_END_STOPPED);
}

enum vm_end control_run(
	struct control *control, struct lifecycle *lifecycle, struct console *console)
{
	struct pollfd fds[] = {
		{ .fd = control->signalfd, .events = POLLIN },
		{ .fd = lifecycle->eventfd, .events = POLLIN },
		{ .fd = -1, .events = POLLIN },
	};
	int r = evloop_open(control->loop, &fds[2].fd);

	if (r < 0)
		log_warn("cannot watch the devices: %s; their interrupts need MSI-X", strerror(-r));

	while (lifecycle_get(lifecycle) == VM_RUNNING) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue; /* EINTR; there is no other error */
		if (fds[0].revents != 0)
			take_signal(control, lifecycle, console);
		if (fds[2].revents != 0)
			(void)!evloop_run_once(control->loop);
	}
	return lifecycle_get(lifecycle);
}
