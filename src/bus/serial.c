// SPDX-License-Identifier: BSD-3-Clause
/*
 * The registers of a 16550A. Offsets and values come from the guest, received
 * bytes from the host; nothing that either does can make it hold more than its
 * FIFO, or wait.
 */
#include "bus/serial.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"

enum serial_register {
	REG_DATA = 0,             /* RBR, THR; divisor low with DLAB */
	REG_INTERRUPT_ENABLE = 1, /* IER; divisor high with DLAB */
	REG_INTERRUPT_IDENT = 2,  /* IIR; written it is FCR */
	REG_LINE_CONTROL = 3,     /* LCR */
	REG_MODEM_CONTROL = 4,    /* MCR */
	REG_LINE_STATUS = 5,      /* LSR */
	REG_MODEM_STATUS = 6,     /* MSR */
	REG_SCRATCH = 7,          /* SCR */
};

enum {
	IER_DATA = 1 << 0,
	IER_THR_EMPTY = 1 << 1,
	IER_LINE_STATUS = 1 << 2,
	IER_MODEM_STATUS = 1 << 3,
	IER_MASK = 0x0f,

	IIR_MODEM_STATUS = 0x00,
	IIR_NONE = 0x01,
	IIR_THR_EMPTY = 0x02,
	IIR_DATA = 0x04,
	IIR_LINE_STATUS = 0x06,
	IIR_TIMEOUT = 0x0c,
	IIR_FIFO_ENABLED = 0xc0,

	FCR_ENABLE = 1 << 0,
	FCR_CLEAR_RECEIVE = 1 << 1,
	FCR_TRIGGER_SHIFT = 6,

	LCR_DLAB = 1 << 7,

	MCR_DTR = 1 << 0,
	MCR_RTS = 1 << 1,
	MCR_OUT1 = 1 << 2,
	MCR_OUT2 = 1 << 3,
	MCR_LOOP = 1 << 4,
	MCR_MASK = 0x1f,

	LSR_DATA_READY = 1 << 0,
	LSR_OVERRUN = 1 << 1,
	LSR_THR_EMPTY = 1 << 5,
	LSR_TRANSMITTER_EMPTY = 1 << 6,

	MSR_CTS_CHANGED = 1 << 0,
	MSR_DSR_CHANGED = 1 << 1,
	MSR_RI_ENDED = 1 << 2,
	MSR_DCD_CHANGED = 1 << 3,
	MSR_CHANGES = 0x0f,
	MSR_CTS = 1 << 4,
	MSR_DSR = 1 << 5,
	MSR_RI = 1 << 6,
	MSR_DCD = 1 << 7,
};

/* How long a guest that polls may be kept waiting for our reader. */
#define TRANSMIT_PATIENCE_NS 100000000

struct serial {
	const struct serial_backend *backend; /* or NULL */
	struct irq_line irq;
	pthread_mutex_t mutex; /* guards what follows */

	uint8_t interrupt_enable;
	uint8_t line_control;
	uint8_t modem_control;
	uint8_t modem_status;
	uint8_t scratch;
	uint8_t divisor[2];
	uint8_t trigger; /* bytes in the FIFO that make it IIR_DATA */
	bool fifo_enabled;
	bool overrun;
	bool thr_empty_pending;
	bool irq_level;

	uint8_t fifo[SERIAL_FIFO_SIZE];
	unsigned fifo_start;
	unsigned fifo_count;
	bool receive_refused; /* the backend waits for receive_ready() */

	bool transmit_busy;  /* until serial_transmit_ready(), or ... */
	bool transmit_lossy; /* ... patience ran out: look ready, and drop */
	uint64_t transmit_busy_since_ns;
	uint64_t dropped_bytes;
};

static bool loopback(const struct serial *serial)
{
	return (serial->modem_control & MCR_LOOP) != 0;
}

static bool transmitter_empty(const struct serial *serial)
{
	return !serial->transmit_busy || serial->transmit_lossy || loopback(serial);
}

/* The interrupt of the highest priority that is pending and enabled. */
static uint8_t interrupt_ident(const struct serial *serial)
{
	if ((serial->interrupt_enable & IER_LINE_STATUS) && serial->overrun)
		return IIR_LINE_STATUS;
	if ((serial->interrupt_enable & IER_DATA) && serial->fifo_count > 0)
		/* No byte is on its way, so the timeout for the rest is over at once. */
		return serial->fifo_count >= serial->trigger ? IIR_DATA : IIR_TIMEOUT;
	if ((serial->interrupt_enable & IER_THR_EMPTY) && serial->thr_empty_pending)
		return IIR_THR_EMPTY;
	if ((serial->interrupt_enable & IER_MODEM_STATUS) && (serial->modem_status & MSR_CHANGES))
		return IIR_MODEM_STATUS;
	return IIR_NONE;
}

/*
 * The one place that drives the line. On a PC it goes through a gate that OUT2
 * opens, and loopback takes OUT2 off the pin.
 */
static void update_irq(struct serial *serial)
{
	bool gate = (serial->modem_control & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
	bool level = gate && interrupt_ident(serial) != IIR_NONE;

	if (level == serial->irq_level)
		return;
	serial->irq_level = level;
	irq_line_set(&serial->irq, level);
}

/* ---- receiver ---- */

static unsigned fifo_capacity(const struct serial *serial)
{
	return serial->fifo_enabled ? SERIAL_FIFO_SIZE : 1;
}

/* There is room. */
static void fifo_push(struct serial *serial, uint8_t byte)
{
	serial->fifo[(serial->fifo_start + serial->fifo_count) % SERIAL_FIFO_SIZE] = byte;
	serial->fifo_count++;
}

/* Once it is empty and no sooner, so that the backend is woken once for 16 bytes. */
static void offer_room(struct serial *serial)
{
	if (!serial->receive_refused || serial->fifo_count > 0 || loopback(serial))
		return;
	serial->receive_refused = false;
	serial->backend->receive_ready(serial->backend->owner);
}

static uint8_t read_data(struct serial *serial)
{
	if (serial->fifo_count == 0)
		return 0;
	uint8_t byte = serial->fifo[serial->fifo_start];

	serial->fifo_start = (serial->fifo_start + 1) % SERIAL_FIFO_SIZE;
	serial->fifo_count--;
	offer_room(serial);
	return byte;
}

static void clear_fifo(struct serial *serial)
{
	serial->fifo_start = 0;
	serial->fifo_count = 0;
	offer_room(serial);
}

/* With the FIFO the newest byte is lost, without it the one in the register. */
static void receive_looped(struct serial *serial, uint8_t byte)
{
	if (serial->fifo_count == fifo_capacity(serial)) {
		serial->overrun = true;
		if (serial->fifo_enabled)
			return;
		serial->fifo_count = 0;
	}
	fifo_push(serial, byte);
}

size_t serial_receive(struct serial *serial, const uint8_t *data, size_t size)
{
	size_t taken = 0;

	pthread_mutex_lock(&serial->mutex);
	while (taken < size && serial->fifo_count < fifo_capacity(serial) && !loopback(serial))
		fifo_push(serial, data[taken++]);
	serial->receive_refused = taken < size && serial->backend != NULL;
	update_irq(serial);
	pthread_mutex_unlock(&serial->mutex);
	return taken;
}

/* ---- transmitter ---- */

static void transmit(struct serial *serial, uint8_t byte)
{
	const struct serial_backend *backend = serial->backend;

	if (backend == NULL)
		return;
	if (!backend->transmit(backend->owner, byte))
		serial->dropped_bytes++;
	if (serial->transmit_busy || backend->transmit_room(backend->owner))
		return;
	serial->transmit_busy = true;
	serial->transmit_busy_since_ns = clock_monotonic_ns();
}

static void write_data(struct serial *serial, uint8_t byte)
{
	if (loopback(serial))
		receive_looped(serial, byte);
	else
		transmit(serial, byte);
	/* The byte is sent in no time; the register is empty again, if there is room. */
	serial->thr_empty_pending = transmitter_empty(serial);
}

void serial_transmit_ready(struct serial *serial)
{
	pthread_mutex_lock(&serial->mutex);
	bool was_empty = transmitter_empty(serial);

	serial->transmit_busy = false;
	serial->transmit_lossy = false;
	if (!was_empty)
		serial->thr_empty_pending = true;
	update_irq(serial);
	pthread_mutex_unlock(&serial->mutex);
}

/* Only a guest that looks can be hanging on it, so no timer is needed. */
static void lose_patience(struct serial *serial)
{
	if (!serial->transmit_busy || serial->transmit_lossy ||
		clock_monotonic_ns() - serial->transmit_busy_since_ns < TRANSMIT_PATIENCE_NS)
		return;
	serial->transmit_lossy = true;
	serial->thr_empty_pending = true;
}

uint64_t serial_dropped_bytes(struct serial *serial)
{
	pthread_mutex_lock(&serial->mutex);
	uint64_t dropped = serial->dropped_bytes;

	pthread_mutex_unlock(&serial->mutex);
	return dropped;
}

/* ---- registers ---- */

static void write_interrupt_enable(struct serial *serial, uint8_t value)
{
	bool before = (serial->interrupt_enable & IER_THR_EMPTY) != 0;
	bool after = (value & IER_THR_EMPTY) != 0;

	/* Drivers start sending by enabling this interrupt while there is nothing to send. */
	if (before != after)
		serial->thr_empty_pending = after && transmitter_empty(serial);
	serial->interrupt_enable = value & IER_MASK;
}

static void write_fifo_control(struct serial *serial, uint8_t value)
{
	static const uint8_t triggers[] = { 1, 4, 8, 14 };
	bool enable = (value & FCR_ENABLE) != 0;
	bool clear = enable != serial->fifo_enabled || (enable && (value & FCR_CLEAR_RECEIVE));

	serial->fifo_enabled = enable;
	serial->trigger = enable ? triggers[value >> FCR_TRIGGER_SHIFT] : 1;
	if (clear)
		clear_fifo(serial);
}

/* The modem is there and ready, except in loopback, which ties it to our own outputs. */
static uint8_t modem_inputs(uint8_t control)
{
	if ((control & MCR_LOOP) == 0)
		return MSR_DCD | MSR_DSR | MSR_CTS;
	return (control & MCR_RTS ? MSR_CTS : 0) | (control & MCR_DTR ? MSR_DSR : 0) |
	       (control & MCR_OUT1 ? MSR_RI : 0) | (control & MCR_OUT2 ? MSR_DCD : 0);
}

static void write_modem_control(struct serial *serial, uint8_t value)
{
	uint8_t inputs = modem_inputs(value);
	uint8_t changed = inputs ^ serial->modem_status;
	uint8_t changes = serial->modem_status & MSR_CHANGES;

	changes |= changed & MSR_CTS ? MSR_CTS_CHANGED : 0;
	changes |= changed & MSR_DSR ? MSR_DSR_CHANGED : 0;
	changes |= changed & ~inputs & MSR_RI ? MSR_RI_ENDED : 0;
	changes |= changed & MSR_DCD ? MSR_DCD_CHANGED : 0;
	serial->modem_status = inputs | changes;
	serial->modem_control = value & MCR_MASK;
	offer_room(serial);
}

static uint8_t read_interrupt_ident(struct serial *serial)
{
	uint8_t ident = interrupt_ident(serial);

	if (ident == IIR_THR_EMPTY)
		serial->thr_empty_pending = false;
	return ident | (serial->fifo_enabled ? IIR_FIFO_ENABLED : 0);
}

static uint8_t read_line_status(struct serial *serial)
{
	lose_patience(serial);
	uint8_t status = (serial->fifo_count > 0 ? LSR_DATA_READY : 0) |
			 (serial->overrun ? LSR_OVERRUN : 0) |
			 (transmitter_empty(serial) ? LSR_THR_EMPTY | LSR_TRANSMITTER_EMPTY : 0);

	serial->overrun = false;
	return status;
}

static uint8_t read_modem_status(struct serial *serial)
{
	uint8_t status = serial->modem_status;

	serial->modem_status &= (uint8_t)~MSR_CHANGES;
	return status;
}

static uint8_t read_register(struct serial *serial, enum serial_register reg)
{
	bool divisor = (serial->line_control & LCR_DLAB) != 0;

	switch (reg) {
	case REG_DATA:
		return divisor ? serial->divisor[0] : read_data(serial);
	case REG_INTERRUPT_ENABLE:
		return divisor ? serial->divisor[1] : serial->interrupt_enable;
	case REG_INTERRUPT_IDENT:
		return read_interrupt_ident(serial);
	case REG_LINE_CONTROL:
		return serial->line_control;
	case REG_MODEM_CONTROL:
		return serial->modem_control;
	case REG_LINE_STATUS:
		return read_line_status(serial);
	case REG_MODEM_STATUS:
		return read_modem_status(serial);
	case REG_SCRATCH:
		return serial->scratch;
	}
	return 0xff;
}

static void write_register(struct serial *serial, enum serial_register reg, uint8_t value)
{
	bool divisor = (serial->line_control & LCR_DLAB) != 0;

	if (divisor && (reg == REG_DATA || reg == REG_INTERRUPT_ENABLE)) {
		serial->divisor[reg] = value; /* there is no clock to divide */
		return;
	}
	switch (reg) {
	case REG_DATA:
		write_data(serial, value);
		break;
	case REG_INTERRUPT_ENABLE:
		write_interrupt_enable(serial, value);
		break;
	case REG_INTERRUPT_IDENT:
		write_fifo_control(serial, value);
		break;
	case REG_LINE_CONTROL:
		serial->line_control = value;
		break;
	case REG_MODEM_CONTROL:
		write_modem_control(serial, value);
		break;
	case REG_LINE_STATUS: /* read-only */
	case REG_MODEM_STATUS:
		break;
	case REG_SCRATCH:
		serial->scratch = value;
		break;
	}
}

static void serial_bus_read(void *device, uint64_t offset, uint8_t *data, unsigned size)
{
	struct serial *serial = device;

	(void)size;
	pthread_mutex_lock(&serial->mutex);
	*data = read_register(serial, offset % SERIAL_PORT_SIZE);
	update_irq(serial);
	pthread_mutex_unlock(&serial->mutex);
}

static void serial_bus_write(void *device, uint64_t offset, const uint8_t *data, unsigned size)
{
	struct serial *serial = device;

	(void)size;
	pthread_mutex_lock(&serial->mutex);
	write_register(serial, offset % SERIAL_PORT_SIZE, *data);
	update_irq(serial);
	pthread_mutex_unlock(&serial->mutex);
}

const struct bus_ops serial_bus_ops = {
	.read = serial_bus_read,
	.write = serial_bus_write,
	.byte_registers = true,
};

int serial_create(
	const struct serial_backend *backend, struct irq_line irq, struct serial **ret_serial)
{
	struct serial *serial = calloc(1, sizeof(*serial));

	if (serial == NULL)
		return -ENOMEM;
	serial->backend = backend;
	serial->irq = irq;
	serial->trigger = 1;
	serial->divisor[0] = 12; /* 9600 baud */
	serial->modem_status = modem_inputs(0);
	pthread_mutex_init(&serial->mutex, NULL);
	*ret_serial = serial;
	return 0;
}

void serial_free(struct serial *serial)
{
	if (serial == NULL)
		return;
	pthread_mutex_destroy(&serial->mutex);
	free(serial);
}
