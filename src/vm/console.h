/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The host's end of COM1: a terminal or pipes on stdin and stdout, a file, or
 * a unix socket. What the guest sends is passed on as it is, escape sequences
 * included, as on any serial console.
 *
 * One thread moves the bytes. Output waits in a ring of 64 KiB, so a reader
 * that is slow or gone never holds a vCPU; what does not fit is dropped and
 * counted. Input is read only as the guest takes it. The guest, the person or
 * program at the other end, and the file system may all misbehave.
 *
 * Every function takes NULL for a console that was not opened or leads
 * nowhere. They are called by the main thread unless they say otherwise.
 */
#pragma once

#include "base/util.h"
#include "bus/serial.h"
#include "jail/sandbox.h"

enum console_kind {
	CONSOLE_NULL,  /* nothing: no thread, no descriptor */
	CONSOLE_STDIO, /* stdin and stdout */
	CONSOLE_FILE,  /* output only, to a file that is emptied at the start */
	CONSOLE_UNIX,  /* a unix socket that we listen on, for one client at a time */
};

struct console_config {
	enum console_kind kind;
	const char *path; /* CONSOLE_FILE and CONSOLE_UNIX; outlives the console */
};

struct console;

/*
 * Opens what the configuration names: the file (made with mode 0644 if it is
 * not there) or the socket (mode 0600; a stale one is replaced, anything else in its
 * place is refused). `quit` is called with `owner` in the console's thread when
 * the person at the terminal asks for the end of the VM, or that thread has failed.
 *
 * *ret_console is NULL for CONSOLE_NULL. 0 or -errno; failures are logged.
 */
MUST_CHECK int console_open(const struct console_config *config,
	void (*quit)(void *owner, bool failed), void *owner, struct console **ret_console);

/* What to give to serial_create(): NULL for a console that leads nowhere. */
const struct serial_backend *console_serial_backend(struct console *console);

/*
 * Empties the file, starts the thread and, if stdin is a terminal and we are in its foreground,
 * makes it raw. `serial` must live until console_stop(). The thread blocks
 * SIGPIPE and SIGXFSZ for itself, and enters the sandbox (borrowed; NULL: none). 0 or -errno;
 * failures are logged.
 */
MUST_CHECK int console_start(
	struct console *console, struct serial *serial, const struct sandbox *sandbox);

/*
 * Each byte that a guest prints is an exit, unless KVM keeps it until the guest's next one, which
 * comes at once where a driver asks the UART whether it may go on, and never where none does.
 * So while the guest prints, and for `quiet_ns` after, bytes are kept, and the console's thread
 * looks for them: after 5 ms, then when an eighth of the silence has gone by again, at least each
 * second.
 *
 * Both are called by the console's thread.
 */
struct console_batching {
	int (*set)(void *owner, bool on); /* keeps bytes, or no longer; 0 or -errno */
	void (*take)(void *owner);        /* gives the UART what is kept */
	void *owner;
	uint64_t quiet_ns;
};

/* After console_start(), once; copies it. */
void console_batch(struct console *console, const struct console_batching *batching);

/*
 * Waits at most 1 s for pending output, ends the thread, gives the terminal
 * back as it was and removes the socket if it is still ours. In any state,
 * any number of times. vCPUs should have stopped: later output is dropped.
 */
void console_stop(struct console *console);
/* Stops it if it runs. The UART must not be used after this. */
void console_free(struct console *console);

/*
 * After SIGCONT: whoever stopped us may have used the terminal since. Makes it
 * raw again if we are in its foreground, else leaves it alone and does not read it.
 */
void console_resume_terminal(struct console *console);

/*
 * Gives the terminal back, for the handlers of fatal signals: async-signal-safe,
 * any thread, any time, also when there is no console.
 */
void console_restore_terminal(void);

/* Bytes of output that the host's side lost: no reader, no space, too slow. */
uint64_t console_dropped_bytes(struct console *console);
