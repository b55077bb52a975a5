/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of a console, for console.c and console_thread.c only: who owns
 * which part of it, and the thread's entry. The main thread opens and closes,
 * vCPU threads fill the output ring, the console's thread does the rest.
 */
#pragma once

#include <pthread.h>

#include "base/unix_listener.h"
#include "base/util.h"
#include "bus/serial.h"
#include "vm/console.h"

enum {
	CONSOLE_OUTPUT_SIZE = 64 << 10,
	CONSOLE_INPUT_SIZE = 1 << 10,
};

struct console {
	enum console_kind kind;
	const char *path;
	void (*quit)(void *owner, bool failed);
	void *quit_owner;
	struct serial_backend backend;
	struct serial *serial;
	const struct sandbox *sandbox; /* NULL: none */
	struct unix_listener listener;
	_Atomic int wake_fd; /* eventfd that ends the thread's poll(); -1 before it starts */
	int owned_fd;        /* the file or the connected client; -1 */

	pthread_t thread;
	bool running;
	bool terminal;  /* stdin is one */
	bool abandoned; /* the host never let go of the thread */

	/* The thread's own; -1 when there is none (any more). */
	int input_fd;
	int output_fd;
	uint8_t input[CONSOLE_INPUT_SIZE]; /* read and not yet taken by the UART */
	size_t input_count;
	uint64_t input_progress_ns; /* when the UART last took some, or there was none */
	bool input_eof;             /* the client sends no more, but may still read */
	bool input_hung_up;         /* the client went while its input waits */
	bool escape;                /* the last key was Ctrl-a */
	bool full_logged;
	uint64_t full_until_ns; /* no attempt to write before this */
	uint64_t busy_until_ns; /* no client is let in before this: there was no descriptor for one
				 */

	bool batched;           /* what the guest prints is kept for us */
	uint64_t printed_ns;    /* when it was last seen to print, or could first be batched */
	uint64_t printed_bytes; /* by then */

	pthread_mutex_t mutex;            /* guards what follows; taken after the UART's */
	struct console_batching batching; /* none before console_batch(), or where it failed */
	bool idle;                        /* the thread sleeps and does not watch the output */
	bool stop;
	bool discard;      /* nobody takes output */
	bool room_refused; /* the UART waits for serial_transmit_ready() */
	bool terminal_ours;
	uint64_t stop_deadline_ns;
	uint64_t fed_ns;        /* when the UART was last given a load of input */
	uint64_t feed_after_ns; /* no load before this; UINT64_MAX: the UART is full */
	uint64_t taken_bytes;   /* that the guest printed, lost ones too */
	uint64_t dropped_bytes;
	size_t output_start;
	size_t output_count;
	uint8_t output[CONSOLE_OUTPUT_SIZE]; /* last: not initialised */
};

/* The thread; its argument is the console. Runs until `stop` and no output is pending or its
 * deadline is over. */
void *console_thread(void *argument);
/* The guest has emptied the UART that the last load filled. For the UART, on a vCPU thread. */
void console_input_wanted(struct console *console);
/* Nobody takes output any more: gives up what is pending. */
void console_end_output(struct console *console);
