// SPDX-License-Identifier: BSD-3-Clause
/*
 * console on pipes, files and unix sockets: bytes arrive, and whatever the
 * other end does - stalls, leaves, fills up, floods - no vCPU waits, memory
 * stays bounded and nothing spins. Terminals are in test_console_terminal.c.
 */
#include "unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "unit/capture.h"
#include "unit/console_guest.h"

struct pipes {
	int in[2];
	int out[2];
};

static void up_on_pipes(struct guest *guest, struct pipes *pipes)
{
	new_pipe(pipes->in);
	new_pipe(pipes->out);
	guest_init(guest);
	guest_take_stdio(guest, pipes->in[0], pipes->out[1]);
	/* The console's are the only ones, so that closing ours is the end of it. */
	close(pipes->in[0]);
	close(pipes->out[1]);
	guest_up(guest, CONSOLE_STDIO, NULL);
}

static void down_on_pipes(struct guest *guest, struct pipes *pipes)
{
	guest_down(guest);
	close(pipes->in[1]);
	close(pipes->out[0]);
}

static void a_null_console_is_nothing(void **state)
{
	const struct console_config config = { .kind = CONSOLE_NULL };
	struct console *console = (struct console *)state;

	assert_int_equal(console_open(&config, NULL, NULL, &console), 0);
	assert_null(console);
	assert_null(console_serial_backend(console));
	assert_int_equal(console_start(console, NULL, NULL), 0);
	console_resume_terminal(console);
	console_restore_terminal();
	assert_int_equal(console_dropped_bytes(console), 0);
	console_stop(console);
	console_free(console);
}

static void bytes_go_both_ways(void **state)
{
	struct guest guest;
	struct pipes pipes;

	(void)state;
	up_on_pipes(&guest, &pipes);
	guest_send(&guest, "hello\r\n", 7);
	expect_text(pipes.out[0], "hello\r\n");
	write_text(pipes.in[1], "root\n");
	guest_expect(&guest, "root\n");
	/* No terminal, no escape. */
	write_text(pipes.in[1], "\001x");
	guest_expect(&guest, "\001x");
	assert_int_equal(guest.quits, 0);
	down_on_pipes(&guest, &pipes);
}

static void long_input_arrives_complete(void **state)
{
	enum { SIZE = 6000 }; /* more than the console holds */
	uint8_t *data = malloc(SIZE), *back = malloc(SIZE);
	struct guest guest;
	struct pipes pipes;

	(void)state;
	for (size_t i = 0; i < SIZE; i++)
		data[i] = (uint8_t)(i % 251);
	up_on_pipes(&guest, &pipes);
	assert_int_equal(write(pipes.in[1], data, SIZE), SIZE);
	close(pipes.in[1]); /* the end must not overtake the data */
	guest_receive(&guest, back, SIZE);
	assert_memory_equal(back, data, SIZE);
	pipes.in[1] = -1;
	down_on_pipes(&guest, &pipes);
	free(data);
	free(back);
}

static void the_end_of_stdin_ends_nothing_else(void **state)
{
	struct guest guest;
	struct pipes pipes;

	(void)state;
	up_on_pipes(&guest, &pipes);
	close(pipes.in[1]);
	pipes.in[1] = -1;
	expect_idle();
	guest_send(&guest, "still here", 10);
	expect_text(pipes.out[0], "still here");
	down_on_pipes(&guest, &pipes);
}

static void dev_null_and_files_are_fine_as_stdin(void **state)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	struct guest guest;

	(void)state;
	guest_init(&guest);
	guest_take_stdio(&guest, null, null);
	guest_up(&guest, CONSOLE_STDIO, NULL);
	guest_send(&guest, "x", 1);
	expect_idle();
	guest_down(&guest);

	write_text(file, "from a file");
	lseek(file, 0, SEEK_SET);
	guest_init(&guest);
	guest_take_stdio(&guest, file, null);
	guest_up(&guest, CONSOLE_STDIO, NULL);
	guest_expect(&guest, "from a file");
	expect_idle();
	guest_down(&guest);
	close(file);
	close(null);
}

/* The rest stays in the pipe, and whoever fills it waits. */
static void a_flood_of_input_is_not_read(void **state)
{
	static const char block[4096];
	struct guest guest;
	struct pipes pipes;
	size_t written = 0;

	(void)state;
	up_on_pipes(&guest, &pipes);
	assert_int_equal(fcntl(pipes.in[1], F_SETFL, O_NONBLOCK), 0);
	for (unsigned i = 0; i < 25000; i++) { /* 100 MB, given the chance */
		ssize_t n = write(pipes.in[1], block, sizeof(block));

		written += n > 0 ? (size_t)n : 0;
	}
	assert_in_range(written, 1, 72 << 10); /* the pipe's 64 KiB and our 1 KiB */
	expect_idle();
	down_on_pipes(&guest, &pipes);
}

/* Else a guest that handles an interrupt for each load would do nothing but that. */
static void the_line_rests_between_loads(void **state)
{
	enum { READ_MS = 15 };
	uint8_t load[SERIAL_FIFO_SIZE], status = 0;
	struct guest guest;
	struct pipes pipes;

	(void)state;
	up_on_pipes(&guest, &pipes);
	write_text(pipes.in[1], "one load and the other, and a third");
	wait_until((serial_bus_ops.read(guest.serial, 5, &status, 1), status & 1));
	sleep_ms(READ_MS);
	uint64_t before = clock_ms(CLOCK_MONOTONIC); /* the rest begins in the next call */

	guest_receive(&guest, load, sizeof(load));
	do {
		serial_bus_ops.read(guest.serial, 5, &status, 1);
	} while ((status & 1) == 0);
	/* The clocks' milliseconds need not begin together. */
	assert_true(clock_ms(CLOCK_MONOTONIC) - before >= READ_MS - 2);
	guest_expect(&guest, " other, and a third");
	down_on_pipes(&guest, &pipes);
}

static void a_blocked_reader_holds_nobody(void **state)
{
	enum { SIZE = 1 << 20 };
	struct capture capture;
	struct guest guest;
	struct pipes pipes;
	uint64_t before = clock_ms(CLOCK_MONOTONIC);
	uint8_t got[1000];

	(void)state;
	capture_begin(&capture);
	up_on_pipes(&guest, &pipes);
	for (unsigned i = 0; i < SIZE; i++)
		guest_send_politely(&guest, &(uint8_t){ (uint8_t)(i % 251) }, 1);
	assert_in_range(clock_ms(CLOCK_MONOTONIC) - before, 0, PATIENCE_MS);
	assert_true(console_dropped_bytes(guest.console) > SIZE / 2);
	expect_idle();
	/* What was not dropped is what was sent first, in its order. */
	read_exactly(pipes.out[0], got, sizeof(got));
	for (unsigned i = 0; i < sizeof(got); i++)
		assert_int_equal(got[i], i % 251);
	before = clock_ms(CLOCK_MONOTONIC);
	down_on_pipes(&guest, &pipes);
	/* Stopping waits a second for the reader, and that is it. */
	assert_in_range(clock_ms(CLOCK_MONOTONIC) - before, 0, PATIENCE_MS);
	capture_end(&capture);
	assert_int_equal(capture_lines(&capture), 1);
	assert_non_null(strstr(capture.text, "output were lost"));
}

static void *send_numbers(void *argument)
{
	for (unsigned i = 0; i < 300000; i++)
		guest_send_politely(argument, &(uint8_t){ (uint8_t)(i % 251) }, 1);
	return NULL;
}

/* A reader that keeps reading gets everything, however fast the guest sends. */
static void a_steady_reader_loses_nothing(void **state)
{
	static uint8_t got[300000];
	struct guest guest;
	struct pipes pipes;
	pthread_t vcpu;

	(void)state;
	up_on_pipes(&guest, &pipes);
	assert_int_equal(pthread_create(&vcpu, NULL, send_numbers, &guest), 0);
	read_exactly(pipes.out[0], got, sizeof(got));
	pthread_join(vcpu, NULL);
	for (unsigned i = 0; i < sizeof(got); i++)
		assert_int_equal(got[i], i % 251);
	assert_int_equal(console_dropped_bytes(guest.console), 0);
	down_on_pipes(&guest, &pipes);
}

static void stopping_flushes(void **state)
{
	static uint8_t data[40000], got[40000];
	struct guest guest;
	struct pipes pipes;

	(void)state;
	memset(data, 'f', sizeof(data));
	up_on_pipes(&guest, &pipes);
	guest_send(&guest, data, sizeof(data));
	console_stop(guest.console);
	console_stop(guest.console); /* again: nothing to do */
	guest_send(&guest, "late", 4);
	read_exactly(pipes.out[0], got, sizeof(got));
	assert_memory_equal(got, data, sizeof(got));
	assert_int_equal(console_dropped_bytes(guest.console), 4);
	down_on_pipes(&guest, &pipes);
}

static void a_closed_stdout_is_reported_once(void **state)
{
	struct capture capture;
	struct guest guest;
	struct pipes pipes;

	(void)state;
	capture_begin(&capture);
	up_on_pipes(&guest, &pipes);
	close(pipes.out[0]);
	pipes.out[0] = -1;
	for (unsigned i = 0; i < 100; i++) {
		guest_send(&guest, "lost", 4);
		sleep_ms(1);
	}
	wait_until(console_dropped_bytes(guest.console) == 400);
	write_text(pipes.in[1], "alive");
	guest_expect(&guest, "alive");
	expect_idle();
	down_on_pipes(&guest, &pipes);
	capture_end(&capture);
	assert_non_null(strstr(capture.text, "stdout: Broken pipe; the VM goes on"));
	assert_non_null(strstr(capture.text, "400 bytes"));
	assert_int_equal(capture_lines(&capture), 2);
}

static void a_full_disk_is_reported_once(void **state)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	int space[2];
	char text[8];
	struct capture capture;
	struct guest guest;

	(void)state;
	assert_true(full >= 0);
	capture_begin(&capture);
	guest_init(&guest);
	guest_take_stdio(&guest, null, full);
	guest_up(&guest, CONSOLE_STDIO, NULL);
	for (unsigned i = 0; i < 30; i++) {
		guest_send(&guest, "lost", 4);
		sleep_ms(50); /* long enough to try again */
	}
	wait_until(console_dropped_bytes(guest.console) == 120);
	/* There is space again. */
	assert_int_equal(pipe2(space, O_CLOEXEC), 0);
	assert_int_equal(dup2(space[1], STDOUT_FILENO), STDOUT_FILENO);
	close(space[1]);
	struct pollfd seen = { .fd = space[0], .events = POLLIN };

	for (unsigned i = 0; i < 200 && poll(&seen, 1, 50) == 0; i++)
		guest_send(&guest, "!", 1);
	assert_int_equal(poll(&seen, 1, 0), 1);
	assert_int_equal(read(space[0], text, 1), 1);
	assert_int_equal(text[0], '!');
	guest_down(&guest);
	close(space[0]); /* not before: more than that may have been sent */
	capture_end(&capture);
	assert_non_null(strstr(capture.text, "No space left on device"));
	assert_int_equal(capture_lines(&capture), 2);
	close(full);
	close(null);
}

/* ---- files ---- */

enum { DIRECTORY_SIZE = 32 };

static char *new_directory(char *template)
{
	snprintf(template, DIRECTORY_SIZE, "/tmp/console-test-XXXXXX");
	assert_non_null(mkdtemp(template));
	return template;
}

static void a_file_is_emptied_and_filled(void **state)
{
	char directory[DIRECTORY_SIZE], path[64], text[32] = { 0 };
	struct stat status;
	struct guest guest;

	(void)state;
	snprintf(path, sizeof(path), "%s/log", new_directory(directory));
	for (unsigned run = 0; run < 2; run++) {
		guest_init(&guest);
		guest_up(&guest, CONSOLE_FILE, path);
		guest_send(&guest, run == 0 ? "the first run" : "second", run == 0 ? 13 : 6);
		guest_down(&guest);
	}
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(read(fd, text, sizeof(text)), 6);
	assert_string_equal(text, "second");
	assert_int_equal(fstat(fd, &status), 0);
	mode_t mask = umask(0);

	umask(mask);
	assert_int_equal(status.st_mode & 0777, 0644 & ~mask);
	close(fd);
	unlink(path);
	rmdir(directory);
}

static void bad_files_are_refused(void **state)
{
	char directory[DIRECTORY_SIZE], path[64];
	struct capture capture;
	struct console *console = NULL;
	struct console_config config = { .kind = CONSOLE_FILE, .path = path };

	(void)state;
	new_directory(directory);
	capture_begin(&capture);
	snprintf(path, sizeof(path), "%s", directory);
	assert_int_equal(console_open(&config, NULL, NULL, &console), -EISDIR);
	snprintf(path, sizeof(path), "%s/no/such", directory);
	assert_int_equal(console_open(&config, NULL, NULL, &console), -ENOENT);
	snprintf(path, sizeof(path), "%s/fifo", directory);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(console_open(&config, NULL, NULL, &console), -ENXIO); /* no reader */
	capture_end(&capture);
	assert_int_equal(capture_lines(&capture), 3);
	assert_non_null(strstr(capture.text, "nobody reads from it"));
	assert_null(console);
	unlink(path);
	rmdir(directory);
}

/* A limit on file sizes raises SIGXFSZ, which would end the process. */
static void a_size_limit_kills_nobody(void **state)
{
	char directory[DIRECTORY_SIZE], path[64];
	struct capture capture;
	struct guest guest;

	(void)state;
	snprintf(path, sizeof(path), "%s/log", new_directory(directory));
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	close(fd);
	fflush(NULL); /* the child must not print it again */
	capture_begin(&capture);
	pid_t child = fork();

	if (child == 0) {
		const struct rlimit limit = { 4, RLIM_INFINITY };
		const struct rlimit no_limit = { RLIM_INFINITY, RLIM_INFINITY };

		guest_init(&guest);
		guest_up(&guest, CONSOLE_FILE, path);
		setrlimit(RLIMIT_FSIZE, &limit);
		signal(SIGXFSZ, SIG_DFL);
		guest_send(&guest, "0123456789", 10);
		wait_until(console_dropped_bytes(guest.console) == 6);
		setrlimit(RLIMIT_FSIZE, &no_limit);
		guest_down(&guest);
		_exit(0);
	}
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	capture_end(&capture);
	assert_int_equal(status, 0);
	unlink(path);
	rmdir(directory);
}

/* ---- unix sockets ---- */

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* Talks until the console has noticed that we are there. */
static void say_until_heard(struct guest *guest, int client)
{
	struct pollfd wait = { .fd = client, .events = POLLIN };
	char byte = 0;

	for (unsigned i = 0; i < PATIENCE_MS / 5 && poll(&wait, 1, 5) == 0; i++)
		guest_send(guest, "!", 1);
	do {
		read_exactly(client, &byte, 1);
	} while (poll(&wait, 1, 50) > 0);
	assert_int_equal(byte, '!');
}

static void up_on_socket(struct guest *guest, char *directory, char *path, size_t size)
{
	snprintf(path, size, "%s/com1", new_directory(directory));
	guest_init(guest);
	guest_up(guest, CONSOLE_UNIX, path);
}

static void down_on_socket(struct guest *guest, const char *directory, const char *path)
{
	guest_down(guest);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(rmdir(directory), 0);
}

static void clients_come_and_go(void **state)
{
	char directory[DIRECTORY_SIZE], path[64];
	struct guest guest;

	(void)state;
	up_on_socket(&guest, directory, path, sizeof(path));
	guest_send(&guest, "nobody hears this", 17);
	for (unsigned i = 0; i < 3; i++) {
		int client = connect_to(path);

		say_until_heard(&guest, client);
		guest_send(&guest, "login: ", 7);
		expect_text(client, "login: ");
		write_text(client, "root\n");
		guest_expect(&guest, "root\n");
		close(client);
		expect_idle();
	}
	assert_int_equal(console_dropped_bytes(guest.console), 0); /* unplugged is not lost */
	down_on_socket(&guest, directory, path);
}

static void the_second_client_waits_for_the_first(void **state)
{
	char directory[DIRECTORY_SIZE], path[64];
	struct guest guest;

	(void)state;
	up_on_socket(&guest, directory, path, sizeof(path));
	int first = connect_to(path);
	int second = connect_to(path);

	say_until_heard(&guest, first);
	struct pollfd wait = { .fd = second, .events = POLLIN };

	assert_int_equal(poll(&wait, 1, 50), 0);
	close(first);
	say_until_heard(&guest, second);
	close(second);
	down_on_socket(&guest, directory, path);
}

/* `echo ls | nc -N`: what it sent arrives although it went at once. */
static void a_hasty_client_is_heard(void **state)
{
	char directory[DIRECTORY_SIZE], path[64];
	char data[5000], back[5000];
	struct guest guest;

	(void)state;
	memset(data, 'q', sizeof(data));
	up_on_socket(&guest, directory, path, sizeof(path));
	int client = connect_to(path);

	assert_int_equal(write(client, data, sizeof(data)), sizeof(data));
	close(client);
	guest_receive(&guest, back, sizeof(back));
	assert_memory_equal(back, data, sizeof(back));
	down_on_socket(&guest, directory, path);
}

static void a_client_that_only_listens_stays(void **state)
{
	char directory[DIRECTORY_SIZE], path[64];
	struct guest guest;

	(void)state;
	up_on_socket(&guest, directory, path, sizeof(path));
	int client = connect_to(path);

	say_until_heard(&guest, client);
	assert_int_equal(shutdown(client, SHUT_WR), 0);
	expect_idle();
	guest_send(&guest, "still", 5);
	expect_text(client, "still");
	close(client);
	client = connect_to(path);
	say_until_heard(&guest, client);
	close(client);
	down_on_socket(&guest, directory, path);
}

/* Its input waits for a guest that does not read; the next client must not. */
static void a_lost_client_makes_way(void **state)
{
	static const char flood[4000];
	char directory[DIRECTORY_SIZE], path[64];
	struct guest guest;

	(void)state;
	up_on_socket(&guest, directory, path, sizeof(path));
	int client = connect_to(path);

	assert_int_equal(write(client, flood, sizeof(flood)), sizeof(flood));
	sleep_ms(50);
	expect_idle();
	close(client);
	client = connect_to(path);
	say_until_heard(&guest, client);
	close(client);
	down_on_socket(&guest, directory, path);
}

static void a_client_that_does_not_read_holds_nobody(void **state)
{
	char directory[DIRECTORY_SIZE], path[64];
	struct capture capture;
	struct guest guest;

	(void)state;
	capture_begin(&capture);
	up_on_socket(&guest, directory, path, sizeof(path));
	int client = connect_to(path);

	say_until_heard(&guest, client);
	for (unsigned i = 0; i < 1000000; i++)
		guest_send_politely(&guest, "x", 1);
	assert_true(serial_dropped_bytes(guest.serial) > 0);
	expect_idle();
	close(client);
	client = connect_to(path);
	say_until_heard(&guest, client);
	close(client);
	down_on_socket(&guest, directory, path);
	capture_end(&capture);
	assert_int_equal(capture_lines(&capture), 1);
	assert_non_null(strstr(capture.text, "output were lost"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_null_console_is_nothing),
		cmocka_unit_test(bytes_go_both_ways),
		cmocka_unit_test(long_input_arrives_complete),
		cmocka_unit_test(the_end_of_stdin_ends_nothing_else),
		cmocka_unit_test(dev_null_and_files_are_fine_as_stdin),
		cmocka_unit_test(a_flood_of_input_is_not_read),
		cmocka_unit_test(the_line_rests_between_loads),
		cmocka_unit_test(a_blocked_reader_holds_nobody),
		cmocka_unit_test(a_steady_reader_loses_nothing),
		cmocka_unit_test(stopping_flushes),
		cmocka_unit_test(a_closed_stdout_is_reported_once),
		cmocka_unit_test(a_full_disk_is_reported_once),
		cmocka_unit_test(a_file_is_emptied_and_filled),
		cmocka_unit_test(bad_files_are_refused),
		cmocka_unit_test(a_size_limit_kills_nobody),
		cmocka_unit_test(clients_come_and_go),
		cmocka_unit_test(the_second_client_waits_for_the_first),
		cmocka_unit_test(a_hasty_client_is_heard),
		cmocka_unit_test(a_client_that_only_listens_stays),
		cmocka_unit_test(a_lost_client_makes_way),
		cmocka_unit_test(a_client_that_does_not_read_holds_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
