// SPDX-License-Identifier: BSD-3-Clause
/*
 * console on a terminal: raw while the guest has it and as before afterwards,
 * on every way out; the escape key, also when the guest hangs; and no touching
 * it from the background.
 */
#include "unit/unit.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include "unit/capture.h"
#include "unit/console_guest.h"

struct terminal {
	int master;
	int slave;
	struct termios before;
};

static void terminal_up(struct terminal *terminal)
{
	terminal->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(terminal->master >= 0);
	assert_int_equal(grantpt(terminal->master), 0);
	assert_int_equal(unlockpt(terminal->master), 0);
	terminal->slave = open(ptsname(terminal->master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(terminal->slave >= 0);
	assert_int_equal(tcgetattr(terminal->slave, &terminal->before), 0);
}

static void terminal_down(struct terminal *terminal)
{
	close(terminal->slave);
	close(terminal->master);
}

static bool is_raw(const struct terminal *terminal)
{
	struct termios now;

	assert_int_equal(tcgetattr(terminal->slave, &now), 0);
	assert_true(now.c_oflag & OPOST); /* our own messages need it */
	return (now.c_lflag & (ICANON | ECHO | ISIG | IEXTEN)) == 0 &&
	       (now.c_iflag & (ICRNL | IXON)) == 0;
}

static bool is_as_before(const struct terminal *terminal)
{
	struct termios now;

	assert_int_equal(tcgetattr(terminal->slave, &now), 0);
	return now.c_lflag == terminal->before.c_lflag && now.c_iflag == terminal->before.c_iflag &&
	       now.c_oflag == terminal->before.c_oflag && now.c_cflag == terminal->before.c_cflag &&
	       memcmp(now.c_cc, terminal->before.c_cc, sizeof(now.c_cc)) == 0;
}

static void up_on_terminal(struct guest *guest, struct terminal *terminal)
{
	terminal_up(terminal);
	guest_init(guest);
	guest_take_stdio(guest, terminal->slave, terminal->slave);
	guest_up(guest, CONSOLE_STDIO, NULL);
}

static void down_on_terminal(struct guest *guest, struct terminal *terminal)
{
	guest_down(guest);
	assert_true(is_as_before(terminal));
	terminal_down(terminal);
}

static void it_is_raw_while_the_guest_has_it(void **state)
{
	struct capture capture;
	struct terminal terminal;
	struct guest guest;

	(void)state;
	capture_begin(&capture);
	up_on_terminal(&guest, &terminal);
	assert_true(is_raw(&terminal));
	write_text(terminal.master, "ls\r\003\032\021\023");
	guest_expect(&guest, "ls\r\003\032\021\023"); /* as typed: no signal, no newline */
	guest_send(&guest, "\033[1mbold\r\n", 10);
	expect_text(terminal.master, "\033[1mbold\r");
	down_on_terminal(&guest, &terminal);
	capture_end(&capture);
	assert_int_equal(capture_lines(&capture), 1);
	assert_non_null(strstr(capture.text, "Ctrl-a x ends the VM, Ctrl-a Ctrl-a sends Ctrl-a"));
}

static void the_escape_key(void **state)
{
	struct capture capture;
	struct terminal terminal;
	struct guest guest;

	(void)state;
	capture_begin(&capture);
	up_on_terminal(&guest, &terminal);
	write_text(terminal.master, "a\001\001b\001ac\001");
	guest_expect(&guest, "a\001b\001c");
	write_text(terminal.master, "qd\001h\001?"); /* Ctrl-a q is nothing */
	guest_expect(&guest, "d");
	assert_int_equal(guest.quits, 0);
	write_text(terminal.master, "\001");
	sleep_ms(20);
	write_text(terminal.master, "x");
	wait_until(guest.quits == 1);
	down_on_terminal(&guest, &terminal);
	capture_end(&capture);
	assert_int_equal(capture_lines(&capture), 1 + 2 * 3);
}

/* Type-ahead is kept up to a limit, and then the guest is taken for hung. */
static void the_escape_works_while_the_guest_hangs(void **state)
{
	struct capture capture;
	struct terminal terminal;
	struct guest guest;

	(void)state;
	capture_begin(&capture);
	up_on_terminal(&guest, &terminal);
	for (unsigned i = 0; i < 500; i++)
		write_text(terminal.master, "0123456789");
	write_text(terminal.master, "\001x");
	wait_until(guest.quits == 1);
	expect_idle();
	for (unsigned i = 0; i < 50; i++) /* what it reads when it wakes up is what came first */
		guest_expect(&guest, "0123456789");
	down_on_terminal(&guest, &terminal);
	capture_end(&capture);
}

static void a_slow_guest_gets_a_long_paste(void **state)
{
	struct capture capture;
	struct terminal terminal;
	struct guest guest;

	(void)state;
	capture_begin(&capture);
	up_on_terminal(&guest, &terminal);
	for (unsigned i = 0; i < 300; i++) /* less than a terminal holds */
		write_text(terminal.master, "0123456789");
	for (unsigned i = 0; i < 300; i++) {
		guest_expect(&guest, "0123456789");
		sleep_ms(1);
	}
	down_on_terminal(&guest, &terminal);
	capture_end(&capture);
}

/* As the handlers of fatal signals and SIGCONT do. */
static void it_can_be_given_back_and_taken_again(void **state)
{
	struct capture capture;
	struct terminal terminal;
	struct guest guest;

	(void)state;
	capture_begin(&capture);
	up_on_terminal(&guest, &terminal);
	console_restore_terminal();
	assert_true(is_as_before(&terminal));
	console_restore_terminal();
	console_resume_terminal(guest.console);
	assert_true(is_raw(&terminal));
	write_text(terminal.master, "again");
	guest_expect(&guest, "again");
	down_on_terminal(&guest, &terminal);
	capture_end(&capture);
}

static void a_terminal_that_goes_away(void **state)
{
	struct capture capture;
	struct terminal terminal;
	struct guest guest;

	(void)state;
	capture_begin(&capture);
	up_on_terminal(&guest, &terminal);
	close(terminal.master);
	guest_send(&guest, "into the void", 13);
	wait_until(console_dropped_bytes(guest.console) == 13);
	expect_idle();
	guest_down(&guest);
	close(terminal.slave);
	capture_end(&capture);
}

/*
 * Nobody reads the terminal and a write to it blocks. Neither a vCPU nor the
 * end of the VM waits for that.
 */
static void a_stuck_terminal_is_left(void **state)
{
	static const char flood[100000];
	struct capture capture;
	struct terminal terminal;
	struct guest guest;
	uint64_t before = clock_ms(CLOCK_MONOTONIC);

	(void)state;
	capture_begin(&capture);
	up_on_terminal(&guest, &terminal);
	guest_send(&guest, flood, sizeof(flood));
	assert_true(console_dropped_bytes(guest.console) > 0);
	sleep_ms(50);
	down_on_terminal(&guest, &terminal);
	assert_in_range(clock_ms(CLOCK_MONOTONIC) - before, 0, PATIENCE_MS);
	capture_end(&capture);
}

static int run_in_background(struct terminal *terminal)
{
	struct capture capture;
	struct guest guest;

	capture_begin(&capture);
	guest_init(&guest);
	guest_take_stdio(&guest, terminal->slave, terminal->slave);
	guest_up(&guest, CONSOLE_STDIO, NULL);
	bool untouched = is_as_before(terminal);

	write_text(terminal->master, "for the shell\n");
	sleep_ms(100);
	uint8_t status;

	serial_bus_ops.read(guest.serial, 5, &status, 1);
	guest_down(&guest);
	capture_end(&capture);
	return untouched && (status & 1) == 0 && is_as_before(terminal) &&
			       strstr(capture.text, "in the background") != NULL
		       ? 42
		       : 1;
}

/* The shell of a session, with the VM as a job in the background. */
static int run_session(struct terminal *terminal)
{
	int status;

	if (setsid() < 0 || ioctl(terminal->slave, TIOCSCTTY, 0) < 0)
		return 2;
	pid_t job = fork();

	if (job == 0) {
		setpgid(0, 0);
		_exit(run_in_background(terminal));
	}
	if (waitpid(job, &status, WUNTRACED) != job)
		return 3;
	if (WIFSTOPPED(status)) {
		kill(job, SIGKILL);
		return 4;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 5;
}

static void in_the_background_it_is_not_touched(void **state)
{
	struct terminal terminal;
	int status;

	(void)state;
	terminal_up(&terminal);
	fflush(NULL); /* children must not print it again */
	pid_t session = fork();

	if (session == 0)
		_exit(run_session(&terminal));
	assert_int_equal(waitpid(session, &status, 0), session);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
	terminal_down(&terminal);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_the_background_it_is_not_touched),
		cmocka_unit_test(it_is_raw_while_the_guest_has_it),
		cmocka_unit_test(the_escape_key),
		cmocka_unit_test(the_escape_works_while_the_guest_hangs),
		cmocka_unit_test(a_slow_guest_gets_a_long_paste),
		cmocka_unit_test(it_can_be_given_back_and_taken_again),
		cmocka_unit_test(a_terminal_that_goes_away),
		cmocka_unit_test(a_stuck_terminal_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
