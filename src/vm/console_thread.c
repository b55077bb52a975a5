// SPDX-License-Identifier: BSD-3-Clause
/*
 * Moves bytes between a UART and the host. The guest may send without end and
 * never read; the other end may be stuck, gone, full, or send without end too.
 * Both sides' bytes wait in buffers of fixed size.
 */
#include "vm/console_thread.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

enum {
	WRITE_MAX = 4096, /* what POLLOUT on a pipe promises room for */
	CTRL_A = 1,
};

#define STALL_NS        NS_PER_S         /* a guest that took no input for so long hangs */
#define FULL_RETRY_NS   NS_PER_S         /* between attempts to write to a full disk */
#define ACCEPT_RETRY_NS NS_PER_S         /* between attempts to let a client in */
#define REST_MAX_NS     (20 * NS_PER_MS) /* between two loads of input */
#define TAKE_MIN_NS     (5 * NS_PER_MS) /* between two looks at what is kept, after the last byte */
#define TAKE_MAX_NS     NS_PER_S
#define NEVER           UINT64_MAX

enum { POLL_WAKE, POLL_INPUT, POLL_OUTPUT, POLL_LISTEN, POLL_COUNT };

/* ---- output: the thread ---- */

/* Takes `size` bytes off the ring, because they were written or are given up. */
static void consume_output(struct console *console, size_t size, bool lost)
{
	pthread_mutex_lock(&console->mutex);
	console->output_start = (console->output_start + size) % CONSOLE_OUTPUT_SIZE;
	console->output_count -= size;
	if (lost && console->kind != CONSOLE_UNIX)
		console->dropped_bytes += size;
	bool tell = console->room_refused && !console->stop &&
		    CONSOLE_OUTPUT_SIZE - console->output_count >= SERIAL_FIFO_SIZE;

	if (tell)
		console->room_refused = false;
	pthread_mutex_unlock(&console->mutex);
	if (tell)
		serial_transmit_ready(console->serial);
}

static size_t pending_output(struct console *console)
{
	pthread_mutex_lock(&console->mutex);
	size_t count = console->output_count;

	pthread_mutex_unlock(&console->mutex);
	return count;
}

static void set_discard(struct console *console, bool discard)
{
	pthread_mutex_lock(&console->mutex);
	console->discard = discard;
	pthread_mutex_unlock(&console->mutex);
}

/* From now on nobody takes output. */
void console_end_output(struct console *console)
{
	console->output_fd = -1;
	set_discard(console, true);
	consume_output(console, pending_output(console), true);
}

static void close_client(struct console *console)
{
	console->input_fd = -1;
	console->input_count = 0;
	console->input_eof = false;
	console->input_hung_up = false;
	console_end_output(console);
	fd_close(&console->owned_fd);
}

static const char *output_name(const struct console *console)
{
	return console->kind == CONSOLE_FILE ? console->path : "stdout";
}

static void output_failed(struct console *console, int error)
{
	switch (error) {
	case EINTR:
	case EAGAIN:
		return;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		if (!console->full_logged)
			log_warn("cannot write the serial console to %s: %s; its output is lost "
				 "until there is space",
				output_name(console), strerror(error));
		console->full_logged = true;
		console->full_until_ns = clock_monotonic_ns() + FULL_RETRY_NS;
		return;
	default:
		break;
	}
	if (console->kind == CONSOLE_UNIX) {
		close_client(console);
		return;
	}
	log_warn("cannot write the serial console to %s: %s; the VM goes on, its output is lost",
		output_name(console), strerror(error));
	console_end_output(console);
}

/* After POLLOUT. Only this thread moves the start, so it reads the ring without the lock. */
static void write_output(struct console *console)
{
	size_t count = pending_output(console);
	size_t start = console->output_start;
	size_t size = min_u64(min_u64(count, WRITE_MAX), CONSOLE_OUTPUT_SIZE - start);
	ssize_t n;

	if (count == 0)
		return;
	if (clock_monotonic_ns() < console->full_until_ns) {
		consume_output(console, count, true);
		return;
	}
	if (console->kind == CONSOLE_UNIX)
		n = send(console->output_fd, console->output + start, size,
			MSG_NOSIGNAL | MSG_DONTWAIT);
	else
		n = write(console->output_fd, console->output + start, size);
	if (n < 0)
		output_failed(console, errno);
	else
		consume_output(console, (size_t)n, false);
}

/* ---- batches: the thread ---- */

static void set_batched(
	struct console *console, const struct console_batching *batching, bool batched)
{
	int r = batching->set(batching->owner, batched);

	console->batched = batched;
	if (!batched)
		batching->take(batching->owner);
	if (r == 0)
		return;
	log_debug("the console's bytes exit one by one: %s", strerror(-r));
	pthread_mutex_lock(&console->mutex);
	console->batching = (struct console_batching){ 0 };
	pthread_mutex_unlock(&console->mutex);
	console->batched = false;
}

/* Takes what is kept, and decides whether more shall be. */
static void tend_batches(struct console *console)
{
	uint64_t now = clock_monotonic_ns();

	pthread_mutex_lock(&console->mutex);
	struct console_batching batching = console->batching;

	pthread_mutex_unlock(&console->mutex);
	if (batching.set == NULL)
		return;
	if (console->batched)
		batching.take(batching.owner);
	pthread_mutex_lock(&console->mutex);
	bool printed = console->taken_bytes != console->printed_bytes || console->printed_ns == 0;

	console->printed_bytes = console->taken_bytes;
	pthread_mutex_unlock(&console->mutex);
	if (printed)
		console->printed_ns = now;
	bool printing = now - console->printed_ns < batching.quiet_ns;

	if (printing != console->batched)
		set_batched(console, &batching, printing);
}

/* The longer it has printed nothing, the less often. */
static uint64_t next_take_ns(const struct console *console)
{
	uint64_t now = clock_monotonic_ns();
	uint64_t wait_ns = (now - console->printed_ns) / 8;

	return now + (wait_ns < TAKE_MIN_NS ? TAKE_MIN_NS : min_u64(wait_ns, TAKE_MAX_NS));
}

/* ---- input: the thread ---- */

/*
 * A guest that gets input as fast as it reads does nothing else: its interrupt
 * handler finds more each time it looks, and Linux on one vCPU stays in there
 * for as long as somebody pours. So after a load that filled the UART the line
 * rests for as long as the guest took to empty it.
 */
void console_input_wanted(struct console *console)
{
	uint64_t now = clock_monotonic_ns();

	pthread_mutex_lock(&console->mutex);
	console->feed_after_ns = now + min_u64(now - console->fed_ns, REST_MAX_NS);
	pthread_mutex_unlock(&console->mutex);
}

/* The UART counts as full until it says otherwise, which it may before we know how much it took. */
static bool begin_load(struct console *console)
{
	uint64_t now = clock_monotonic_ns();

	pthread_mutex_lock(&console->mutex);
	bool due = console->input_count > 0 && now >= console->feed_after_ns;

	if (due) {
		console->fed_ns = now;
		console->feed_after_ns = NEVER;
	}
	pthread_mutex_unlock(&console->mutex);
	return due;
}

static void feed_serial(struct console *console)
{
	if (!begin_load(console))
		return;
	size_t taken = serial_receive(console->serial, console->input, console->input_count);

	console->input_count -= taken;
	memmove(console->input, console->input + taken, console->input_count);
	if (taken > 0)
		console->input_progress_ns = clock_monotonic_ns();
	if (console->input_count > 0)
		return;
	pthread_mutex_lock(&console->mutex);
	console->feed_after_ns = 0;
	pthread_mutex_unlock(&console->mutex);
}

/* Full means that the guest hangs; then only the escape is of interest. */
static void append_input(struct console *console, uint8_t byte)
{
	if (console->input_count < CONSOLE_INPUT_SIZE)
		console->input[console->input_count++] = byte;
}

static void print_help(void)
{
	static const char help[] = "crosvm: Ctrl-a x  ends the VM\n"
				   "crosvm: Ctrl-a Ctrl-a  (or Ctrl-a a)  sends Ctrl-a\n"
				   "crosvm: Ctrl-a h  prints this\n";

	(void)!write(STDERR_FILENO, help, sizeof(help) - 1);
}

/* A key on the terminal. */
static void take_key(struct console *console, uint8_t key)
{
	if (!console->escape) {
		console->escape = key == CTRL_A;
		if (!console->escape)
			append_input(console, key);
		return;
	}
	console->escape = false;
	switch (key) {
	case 'x':
		console->quit(console->quit_owner, false);
		break;
	case 'a':
	case CTRL_A:
		append_input(console, CTRL_A);
		break;
	case 'h':
	case '?':
		print_help();
		break;
	default:
		break; /* as with other programs that have such a key: both are lost */
	}
}

static void end_input(struct console *console, bool failed)
{
	if (console->kind != CONSOLE_UNIX)
		console->input_fd = -1;
	else if (failed)
		close_client(console);
	else
		console->input_eof = true;
}

static bool stopping(struct console *console)
{
	pthread_mutex_lock(&console->mutex);
	bool stop = console->stop;

	pthread_mutex_unlock(&console->mutex);
	return stop;
}

static void read_input(struct console *console)
{
	uint8_t bytes[CONSOLE_INPUT_SIZE];
	size_t room = CONSOLE_INPUT_SIZE - console->input_count;
	ssize_t n = read(console->input_fd, bytes, room > 0 ? room : CONSOLE_INPUT_SIZE);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		end_input(console, n < 0);
		return;
	}
	/* It may have come back after a long time, when nobody wants it any more. */
	if (stopping(console))
		return;
	if (console->input_count == 0)
		console->input_progress_ns = clock_monotonic_ns();
	for (ssize_t i = 0; i < n; i++) {
		if (console->terminal)
			take_key(console, bytes[i]);
		else
			append_input(console, bytes[i]);
	}
}

/* Whether input has waited so long that the guest hangs, or when it will have: *ret_ns. */
static bool input_stalled(const struct console *console, uint64_t *ret_ns)
{
	uint64_t stall_ns = console->input_progress_ns + STALL_NS;
	bool stalled = clock_monotonic_ns() >= stall_ns;

	*ret_ns = stalled ? NEVER : stall_ns;
	return stalled;
}

/*
 * What to wait for on the input. Something that waits for the guest already
 * stops us from reading more, with two exceptions. A terminal is read on until
 * the buffer is full, and after that once the guest hangs, for the escape must
 * work. And a client that goes while the guest hangs must make way for the next.
 */
static struct pollfd poll_input(struct console *console, uint64_t *ret_deadline_ns)
{
	struct pollfd wait = { .fd = console->input_fd, .events = POLLIN };
	bool waiting = console->input_count > 0;

	if (console->terminal) {
		if (console->input_count == CONSOLE_INPUT_SIZE &&
			!input_stalled(console, ret_deadline_ns))
			wait.fd = -1;
	} else if (console->kind == CONSOLE_UNIX) {
		if (waiting && console->input_hung_up) {
			if (input_stalled(console, ret_deadline_ns))
				close_client(console);
			wait.fd = -1;
		}
		if (waiting || console->input_eof)
			wait.events = 0; /* only POLLHUP, which comes unasked */
	} else if (waiting) {
		wait.fd = -1;
	}
	return wait;
}

static void handle_input(struct console *console, const struct pollfd *polled)
{
	if (polled->events != 0)
		read_input(console);
	else if (console->input_count > 0)
		console->input_hung_up = true;
	else
		close_client(console);
}

/* ---- the thread ---- */

static void accept_client(struct console *console)
{
	// cppcheck-suppress nullPointer ; accept4() takes NULL where nobody asks for the address
	int fd = accept4(console->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		log_debug("accept on %s: %s", console->path, strerror(errno));
		console->busy_until_ns = clock_monotonic_ns() + ACCEPT_RETRY_NS;
		return;
	}
	console->owned_fd = fd;
	console->input_fd = fd;
	console->output_fd = fd;
	set_discard(console, false);
}

/* The listening socket, or -1: a client at a time. */
static int listening_fd(const struct console *console, uint64_t *ret_deadline_ns)
{
	if (console->listener.fd < 0 || console->owned_fd >= 0)
		return -1;
	if (clock_monotonic_ns() >= console->busy_until_ns)
		return console->listener.fd;
	*ret_deadline_ns = min_u64(*ret_deadline_ns, console->busy_until_ns);
	return -1;
}

/* Fills in what to wait for, and until when. False: the thread is done. */
static bool prepare_poll(struct console *console, struct pollfd *fds, uint64_t *ret_deadline_ns)
{
	*ret_deadline_ns = NEVER;
	fds[POLL_WAKE] = (struct pollfd){ .fd = console->wake_fd, .events = POLLIN };
	fds[POLL_INPUT] = poll_input(console, ret_deadline_ns);
	fds[POLL_LISTEN] = (struct pollfd){
		.fd = listening_fd(console, ret_deadline_ns),
		.events = POLLIN,
	};

	pthread_mutex_lock(&console->mutex);
	bool pending = console->output_count > 0;
	bool stop = console->stop;

	/* What nobody takes is of interest where it may be batched, and is not. */
	console->idle = !pending &&
			(!console->discard || (console->batching.set != NULL && !console->batched));
	if (console->terminal && !console->terminal_ours)
		fds[POLL_INPUT].fd = -1;
	if (console->input_count > 0)
		*ret_deadline_ns = min_u64(*ret_deadline_ns, console->feed_after_ns);
	if (console->batched)
		*ret_deadline_ns = min_u64(*ret_deadline_ns, next_take_ns(console));
	pthread_mutex_unlock(&console->mutex);

	fds[POLL_OUTPUT] =
		(struct pollfd){ .fd = pending ? console->output_fd : -1, .events = POLLOUT };
	if (!stop)
		return true;
	fds[POLL_INPUT].fd = -1;
	fds[POLL_LISTEN].fd = -1;
	*ret_deadline_ns = console->stop_deadline_ns;
	return pending && clock_monotonic_ns() < console->stop_deadline_ns;
}

static int poll_until(struct pollfd *fds, nfds_t count, uint64_t deadline_ns)
{
	uint64_t now = clock_monotonic_ns();
	uint64_t wait_ns = deadline_ns > now ? deadline_ns - now : 0;
	const struct timespec wait = {
		.tv_sec = (time_t)(wait_ns / NS_PER_S),
		.tv_nsec = (long)(wait_ns % NS_PER_S),
	};

	return ppoll(fds, count, deadline_ns == NEVER ? NULL : &wait, NULL);
}

/*
 * A write to a pipe without reader or beyond a size limit fails here and kills
 * nobody. What is left open are faults of our own, and the signal that
 * console_stop() may need.
 */
static void block_signals(void)
{
	static const int open_signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP,
		SIGSYS, SIGUSR2 };
	sigset_t set;

	sigfillset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(open_signals); i++)
		sigdelset(&set, open_signals[i]);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
}

/*
 * What the guest said before there was a thread need not wait for that to enter
 * its sandbox as well, which takes longer than all else at its start. If it
 * cannot be written without a wait, or not at all, the loop sees to it.
 */
static void write_first(struct console *console)
{
	const struct iovec iov = { console->output, min_u64(pending_output(console), WRITE_MAX) };
	ssize_t n = -1;

	if (iov.iov_len > 0 && console->output_fd >= 0)
		n = pwritev2(console->output_fd, &iov, 1, -1, RWF_NOWAIT);
	if (n > 0)
		consume_output(console, (size_t)n, false);
}

void *console_thread(void *argument)
{
	struct console *console = argument;
	struct pollfd fds[POLL_COUNT];
	eventfd_t count;
	uint64_t deadline_ns;

	block_signals();
	write_first(console);
	if (console->sandbox != NULL && sandbox_enter(console->sandbox, "main_console") < 0) {
		console->quit(console->quit_owner, true);
		return NULL;
	}
	while (prepare_poll(console, fds, &deadline_ns)) {
		if (poll_until(fds, POLL_COUNT, deadline_ns) < 0)
			continue; /* EINTR */
		if (fds[POLL_WAKE].revents != 0)
			(void)eventfd_read(console->wake_fd, &count);
		if (!stopping(console))
			tend_batches(console);
		if (fds[POLL_OUTPUT].revents != 0)
			write_output(console);
		/* Writing may have found out that the client is gone. */
		if (fds[POLL_INPUT].revents != 0 && console->input_fd >= 0)
			handle_input(console, &fds[POLL_INPUT]);
		if (fds[POLL_LISTEN].revents != 0)
			accept_client(console);
		if (!stopping(console))
			feed_serial(console);
	}
	return NULL;
}
