/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A console with a UART and, in the place of a guest, the test itself; and
 * what console tests need to stand in for the other end. Every wait has a
 * time-out that only a fault reaches.
 */
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bus/serial.h"
#include "vm/console.h"

enum { PATIENCE_MS = 20000 };

struct guest {
	struct console *console;
	struct serial *serial;
	atomic_uint quits;
	int saved_stdio[2];
};

static inline void guest_count_quit(void *owner, bool failed)
{
	(void)failed;
	struct guest *guest = owner;

	atomic_fetch_add(&guest->quits, 1);
}

/* Makes `in` and `out` stdin and stdout until guest_down(); the caller keeps its own. */
static inline void guest_take_stdio(struct guest *guest, int in, int out)
{
	guest->saved_stdio[0] = dup(STDIN_FILENO);
	guest->saved_stdio[1] = dup(STDOUT_FILENO);
	assert_int_equal(dup2(in, STDIN_FILENO), STDIN_FILENO);
	assert_int_equal(dup2(out, STDOUT_FILENO), STDOUT_FILENO);
}

static inline void guest_give_stdio_back(struct guest *guest)
{
	for (int i = 0; i < 2; i++) {
		if (guest->saved_stdio[i] < 0)
			continue;
		dup2(guest->saved_stdio[i], i);
		close(guest->saved_stdio[i]);
		guest->saved_stdio[i] = -1;
	}
}

static inline void guest_init(struct guest *guest)
{
	memset(guest, 0, sizeof(*guest));
	guest->saved_stdio[0] = guest->saved_stdio[1] = -1;
}

static inline void guest_up(struct guest *guest, enum console_kind kind, const char *path)
{
	const struct console_config config = { .kind = kind, .path = path };

	assert_int_equal(console_open(&config, guest_count_quit, guest, &guest->console), 0);
	assert_int_equal(serial_create(console_serial_backend(guest->console),
				 (struct irq_line){ 0 }, &guest->serial),
		0);
	uint8_t enable_fifo = 1;

	serial_bus_ops.write(guest->serial, 2, &enable_fifo, 1);
	assert_int_equal(console_start(guest->console, guest->serial, NULL), 0);
}

static inline void guest_down(struct guest *guest)
{
	console_stop(guest->console);
	guest_give_stdio_back(guest);
	serial_free(guest->serial);
	console_free(guest->console);
}

static inline void sleep_ms(long ms)
{
	const struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&pause, NULL);
}

static inline uint64_t clock_ms(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Waits until the expression holds. */
#define wait_until(expression)                                                                     \
	do {                                                                                       \
		for (int waited_ms = 0; !(expression); waited_ms += 5) {                           \
			assert_in_range(waited_ms, 0, PATIENCE_MS);                                \
			sleep_ms(5);                                                               \
		}                                                                                  \
	} while (0)

/* The guest sends without looking whether there is room. */
static inline void guest_send(struct guest *guest, const void *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		serial_bus_ops.write(guest->serial, 0, (const uint8_t *)data + i, 1);
}

/* The guest sends as a driver does that waits for an empty transmitter. */
static inline void guest_send_politely(struct guest *guest, const void *data, size_t size)
{
	uint8_t status;

	for (size_t i = 0; i < size; i++) {
		do {
			serial_bus_ops.read(guest->serial, 5, &status, 1);
		} while ((status & 0x20) == 0);
		guest_send(guest, (const uint8_t *)data + i, 1);
	}
}

/* The guest reads exactly `size` bytes. */
static inline void guest_receive(struct guest *guest, void *data, size_t size)
{
	uint8_t status = 0;

	for (size_t i = 0; i < size; i++) {
		wait_until((serial_bus_ops.read(guest->serial, 5, &status, 1), status & 1));
		serial_bus_ops.read(guest->serial, 0, (uint8_t *)data + i, 1);
	}
}

static inline void guest_expect(struct guest *guest, const char *text)
{
	char data[256] = { 0 };

	assert_true(strlen(text) < sizeof(data));
	guest_receive(guest, data, strlen(text));
	assert_string_equal(data, text);
}

/* The other end gets exactly `size` bytes. */
static inline void read_exactly(int fd, void *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		struct pollfd wait = { .fd = fd, .events = POLLIN };

		assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
		ssize_t n = read(fd, (uint8_t *)data + done, size - done);

		assert_true(n > 0);
		done += (size_t)n;
	}
}

static inline void expect_text(int fd, const char *text)
{
	char data[256] = { 0 };

	assert_true(strlen(text) < sizeof(data));
	read_exactly(fd, data, strlen(text));
	assert_string_equal(data, text);
}

static inline void write_text(int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* A pipe whose ends a child process does not inherit. */
static inline void new_pipe(int fds[2])
{
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
}

/* Nobody has anything to do for a while: the process must not use the CPU. */
static inline void expect_idle(void)
{
	uint64_t before = clock_ms(CLOCK_PROCESS_CPUTIME_ID);

	sleep_ms(300);
	assert_in_range(clock_ms(CLOCK_PROCESS_CPUTIME_ID) - before, 0, 100);
}
