// SPDX-License-Identifier: BSD-3-Clause
/*
 * The life of a console, and its output ring as the UART sees it. The guest
 * may send without end; the paths come from the user.
 */
#include "vm/console.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "vm/console_thread.h"
#include "vm/terminal.h"

#define FLUSH_NS NS_PER_S /* how long console_stop() waits for output */

static void wake(struct console *console)
{
	int fd = atomic_load(&console->wake_fd);

	/* Before the thread starts nobody sleeps. Fails only when it has been woken often enough.
	 */
	if (fd >= 0)
		(void)eventfd_write(fd, 1);
}

/* ---- the UART's side: vCPU threads, under the UART's lock ---- */

static bool take_byte(void *owner, uint8_t byte)
{
	struct console *console = owner;
	bool taken = true;
	bool must_wake = false;

	pthread_mutex_lock(&console->mutex);
	console->taken_bytes++;
	if (console->discard) {
		/* A socket that nobody is connected to is a cable that is not plugged in. */
		console->dropped_bytes += console->kind != CONSOLE_UNIX;
		must_wake = console->idle;
		console->idle = false;
	} else if (console->output_count == CONSOLE_OUTPUT_SIZE) {
		console->dropped_bytes++;
		taken = false;
	} else {
		size_t end = (console->output_start + console->output_count) % CONSOLE_OUTPUT_SIZE;

		console->output[end] = byte;
		console->output_count++;
		must_wake = console->idle;
		console->idle = false;
	}
	pthread_mutex_unlock(&console->mutex);
	if (must_wake)
		wake(console);
	return taken;
}

static bool has_room(void *owner)
{
	struct console *console = owner;

	pthread_mutex_lock(&console->mutex);
	bool room = CONSOLE_OUTPUT_SIZE - console->output_count >= SERIAL_FIFO_SIZE;

	console->room_refused = !room;
	pthread_mutex_unlock(&console->mutex);
	return room;
}

static void input_wanted(void *owner)
{
	console_input_wanted(owner);
	wake(owner);
}

/* ---- life: the main thread ---- */

static int open_file(struct console *console)
{
	/*
	 * O_NONBLOCK: neither a FIFO nor a tty may hold us. O_APPEND: it may be rotated. Not
	 * O_TRUNC: what an earlier VM said stays until this one is known to start.
	 */
	int fd = open(console->path,
		O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644);

	if (fd < 0) {
		int error = errno;

		log_error("--serial: cannot write to '%s': %s; choose another file", console->path,
			error == ENXIO ? "nobody reads from it" : strerror(error));
		return -error;
	}
	console->owned_fd = fd;
	console->output_fd = fd;
	return 0;
}

static int open_kind(struct console *console)
{
	switch (console->kind) {
	case CONSOLE_STDIO:
		console->input_fd = STDIN_FILENO;
		console->output_fd = STDOUT_FILENO;
		return 0;
	case CONSOLE_FILE:
		return open_file(console);
	case CONSOLE_UNIX:
		console->discard = true;
		return unix_listener_open("--serial", console->path, &console->listener);
	case CONSOLE_NULL:
		break;
	}
	return -EINVAL;
}

int console_open(const struct console_config *config, void (*quit)(void *owner, bool failed),
	void *owner, struct console **ret_console)
{
	if (config->kind == CONSOLE_NULL) {
		*ret_console = NULL;
		return 0;
	}
	struct console *console = malloc(sizeof(*console));

	if (console == NULL)
		return -ENOMEM;
	/* Not the ring at its end: it is memory only when it is used. */
	memset(console, 0, offsetof(struct console, output));
	console->kind = config->kind;
	console->path = config->path;
	console->quit = quit;
	console->quit_owner = owner;
	console->backend = (struct serial_backend){ take_byte, has_room, input_wanted, console };
	console->listener.fd = console->owned_fd = -1;
	console->input_fd = console->output_fd = -1;
	console->wake_fd = -1;
	pthread_mutex_init(&console->mutex, NULL);
	int r = open_kind(console);

	if (r < 0) {
		console_free(console);
		return r;
	}
	*ret_console = console;
	return 0;
}

const struct serial_backend *console_serial_backend(struct console *console)
{
	return console == NULL ? NULL : &console->backend;
}

static void take_terminal(struct console *console)
{
	enum terminal_state state = terminal_acquire(STDIN_FILENO);

	pthread_mutex_lock(&console->mutex);
	console->terminal_ours = state == TERMINAL_RAW;
	pthread_mutex_unlock(&console->mutex);
	if (state == TERMINAL_BACKGROUND)
		log_warn("crosvm runs in the background and does not read the terminal; bring it "
			 "to the foreground, or redirect its input");
	/* For the thread it is a terminal from the start or never. */
	if (!console->running)
		console->terminal = state != TERMINAL_NONE;
}

static int empty_file(const struct console *console)
{
	/* What is no regular file cannot be emptied and needs not be. */
	if (console->kind != CONSOLE_FILE || ftruncate(console->owned_fd, 0) == 0 ||
		errno == EINVAL)
		return 0;
	int error = errno;

	log_error("--serial: cannot empty '%s': %s; choose another file", console->path,
		strerror(error));
	return -error;
}

int console_start(struct console *console, struct serial *serial, const struct sandbox *sandbox)
{
	if (console == NULL)
		return 0;
	console->serial = serial;
	console->sandbox = sandbox;
	int r = empty_file(console);

	if (r < 0)
		return r;
	if (console->kind == CONSOLE_STDIO)
		take_terminal(console);
	console->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = console->wake_fd < 0 ? -errno : thread_start(&console->thread, console_thread, console);

	if (r < 0) {
		const char *limit = advice_limit(-r);

		log_error("cannot start the console's thread: %s; %s", strerror(-r),
			limit != NULL ? limit : "check the limits on processes and open files");
		terminal_restore();
		return r;
	}
	console->running = true;
	if (console->terminal)
		log_info("Ctrl-a x ends the VM, Ctrl-a Ctrl-a sends Ctrl-a");
	return 0;
}

void console_batch(struct console *console, const struct console_batching *batching)
{
	if (console == NULL)
		return;
	pthread_mutex_lock(&console->mutex);
	console->batching = *batching;
	pthread_mutex_unlock(&console->mutex);
	wake(console);
}

static bool join_within(pthread_t thread, uint64_t timeout_ns)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	uint64_t ns = (uint64_t)until.tv_nsec + timeout_ns;

	until.tv_sec += (time_t)(ns / NS_PER_S);
	until.tv_nsec = (long)(ns % NS_PER_S);
	return pthread_timedjoin_np(thread, NULL, &until) == 0;
}

static void on_interrupt(int signal_number)
{
	(void)signal_number;
}

/*
 * The thread can sit in a read or write that blocks although poll() had
 * promised otherwise: another process shares the terminal or pipe. A signal
 * gets it out. Should the host not even honour that, as with a dead NFS
 * server, it stays behind and touches nothing that is freed.
 */
static void join_stuck(struct console *console)
{
	const struct sigaction interrupt = { .sa_handler = on_interrupt };
	struct sigaction before;
	bool joined = false;

	sigaction(SIGUSR2, &interrupt, &before);
	for (int attempt = 0; attempt < 20 && !joined; attempt++) {
		pthread_kill(console->thread, SIGUSR2);
		joined = join_within(console->thread, 50 * NS_PER_MS);
	}
	console->abandoned = !joined;
	if (joined)
		sigaction(SIGUSR2, &before, NULL);
}

/* From now on nobody calls the UART. */
static void set_stop(struct console *console)
{
	pthread_mutex_lock(&console->mutex);
	console->stop = true;
	console->stop_deadline_ns = clock_monotonic_ns() + FLUSH_NS;
	pthread_mutex_unlock(&console->mutex);
}

static void join_thread(struct console *console)
{
	wake(console);
	if (!join_within(console->thread, FLUSH_NS + 100 * NS_PER_MS))
		join_stuck(console);
	console->running = false;
}

void console_stop(struct console *console)
{
	if (console == NULL)
		return;
	bool was_running = console->running;

	set_stop(console);
	if (was_running)
		join_thread(console);
	terminal_restore();
	unix_listener_close(&console->listener);
	if (console->abandoned)
		return;
	console_end_output(console);
	fd_close(&console->owned_fd);
	if (was_running && console_dropped_bytes(console) > 0)
		log_warn("%" PRIu64 " bytes of the serial console's output were lost",
			console_dropped_bytes(console));
}

void console_free(struct console *console)
{
	console_stop(console);
	if (console == NULL || console->abandoned)
		return;
	int wake_fd = console->wake_fd;

	fd_close(&wake_fd);
	pthread_mutex_destroy(&console->mutex);
	free(console);
}

void console_resume_terminal(struct console *console)
{
	if (console == NULL || !console->running || !console->terminal)
		return;
	take_terminal(console);
	wake(console);
}

void console_restore_terminal(void)
{
	terminal_restore();
}

uint64_t console_dropped_bytes(struct console *console)
{
	if (console == NULL)
		return 0;
	pthread_mutex_lock(&console->mutex);
	uint64_t dropped = console->dropped_bytes;

	pthread_mutex_unlock(&console->mutex);
	return dropped;
}
