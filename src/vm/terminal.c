// SPDX-License-Identifier: BSD-3-Clause
/* Raw mode. The shell may take the terminal away between any two of our calls. */
#include "vm/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <termios.h>
#include <unistd.h>

static struct {
	int fd;
	bool known; /* `saved` is valid; main thread only */
	struct termios saved;
	atomic_bool raw; /* set last: a signal handler then finds the rest */
} terminal;

/* A terminal that does not control our session has no background: it is ours. */
static bool in_foreground(int fd)
{
	pid_t group = tcgetpgrp(fd);

	return group < 0 ? errno == ENOTTY : group == getpgrp();
}

/*
 * Should the shell have taken the terminal since we looked, SIGTTOU would stop
 * us here for as long as the shell likes. Blocked, the change goes through.
 */
static void set_attributes(int fd, const struct termios *attributes)
{
	sigset_t ttou, before;

	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &ttou, &before);
	(void)tcsetattr(fd, TCSANOW, attributes);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void on_fatal_signal(int signal_number)
{
	terminal_restore();
	raise(signal_number); /* SA_RESETHAND: now it has its usual effect */
}

/*
 * Should we crash or be killed in an unusual way, the user's terminal must not stay raw.
 * Sanitizers report by these handlers.
 */
static void catch_fatal_signals(void)
{
	static const int fatal[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS,
		SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGXCPU, SIGIO, SIGPWR,
		SIGSTKFLT };
	const struct sigaction action = {
		.sa_handler = on_fatal_signal,
		.sa_flags = (int)SA_RESETHAND | SA_NODEFER,
	};

#ifndef SANITIZED
	for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
		(void)sigaction(fatal[i], &action, NULL);
#else
	(void)fatal;
	(void)action;
#endif
}

enum terminal_state terminal_acquire(int fd)
{
	struct termios raw;

	if (tcgetattr(fd, &raw) < 0)
		return TERMINAL_NONE;
	if (!in_foreground(fd))
		return TERMINAL_BACKGROUND;
	if (!terminal.known) {
		terminal.fd = fd;
		terminal.saved = raw;
		terminal.known = true;
		catch_fatal_signals();
	}
	raw = terminal.saved;
	raw.c_iflag &= ~(tcflag_t)(BRKINT | PARMRK | INPCK | ISTRIP | INLCR | IGNCR | ICRNL | IXON |
				   IXOFF | IUTF8);
	raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	atomic_store(&terminal.raw, true);
	set_attributes(fd, &raw);
	return TERMINAL_RAW;
}

void terminal_restore(void)
{
	int saved_errno = errno;

	/* In the background it is the shell's, which has set it up for itself. */
	if (atomic_exchange(&terminal.raw, false) && in_foreground(terminal.fd))
		set_attributes(terminal.fd, &terminal.saved);
	errno = saved_errno;
}
