/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A 16550A UART. What it sends goes to a backend byte by byte, what it
 * receives waits in its 16-byte FIFO; it holds no more than that, and it is
 * up to the backend to keep the rest where it came from.
 *
 * vCPU threads bring register accesses, one other thread the backend's calls.
 * It has a lock of its own, taken before any lock of the backend. Registers
 * are those of the National Semiconductor PC16550D data sheet.
 */
#pragma once

#include "base/util.h"
#include "bus/bus.h"
#include "bus/irq.h"

enum {
	SERIAL_PORT_SIZE = 8,  /* registers, one byte each */
	SERIAL_FIFO_SIZE = 16, /* bytes, in each direction */
};

/*
 * What is at the other end of the line. The UART calls these from a vCPU
 * thread with its lock held: they must not block and must not call back.
 */
struct serial_backend {
	/* Takes a byte that the guest sent. False: no room, the byte is lost. */
	bool (*transmit)(void *owner, uint8_t byte);
	/*
	 * Whether there is room for SERIAL_FIFO_SIZE more bytes. After a false
	 * one the backend must call serial_transmit_ready() when there is.
	 */
	bool (*transmit_room)(void *owner);
	/* The guest made room after serial_receive() had taken less than it was given. */
	void (*receive_ready)(void *owner);
	void *owner;
};

struct serial;

/*
 * Makes a UART. It copies `irq`; `backend` must outlive it, and NULL means a
 * line that leads nowhere: it sends without waiting and receives nothing.
 * 0 or -ENOMEM.
 */
MUST_CHECK int serial_create(
	const struct serial_backend *backend, struct irq_line irq, struct serial **ret_serial);
void serial_free(struct serial *serial);

/* For a bus range of SERIAL_PORT_SIZE; the device is the struct serial. */
extern const struct bus_ops serial_bus_ops;

/*
 * Puts up to `size` received bytes into the FIFO and returns how many it took.
 * If fewer than `size`, it calls the backend's receive_ready() once it has
 * become empty. Any thread.
 */
MUST_CHECK size_t serial_receive(struct serial *serial, const uint8_t *data, size_t size);

/*
 * The backend has made room after transmit_room() had returned false. Until
 * then the UART shows a busy transmitter, so that an interrupt-driven driver
 * waits and loses nothing. A guest that polls must not hang on our reader,
 * though: after 100 ms without this call the transmitter shows ready, and what
 * the backend does not take is lost. Any thread.
 */
void serial_transmit_ready(struct serial *serial);

/* How many bytes the guest sent in vain because the backend had no room. */
uint64_t serial_dropped_bytes(struct serial *serial);
