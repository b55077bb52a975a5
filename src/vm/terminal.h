/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The terminal that the user started us on, in raw mode while a guest has it.
 * A process has one, and handlers of fatal signals must be able to give it
 * back, so its state is the one thing here that is global.
 *
 * The user's shell decides whether we are in the foreground; that may change
 * at any time, and only then may a process read or change the terminal.
 */
#pragma once

#include "base/util.h"

enum terminal_state {
	TERMINAL_NONE,       /* not a terminal */
	TERMINAL_BACKGROUND, /* one, but another job has it */
	TERMINAL_RAW,        /* ours, and raw now */
};

/*
 * Makes `fd` raw if it is a terminal and ours: every key comes as it is typed,
 * none is echoed and none sends a signal. Output processing stays on, because
 * our messages go to the same screen. Main thread only; may be repeated. From
 * the first time on, a signal that kills us gives the terminal back before.
 */
enum terminal_state terminal_acquire(int fd);

/* Gives it back as it was at the first terminal_acquire(). Async-signal-safe. */
void terminal_restore(void);
