// SPDX-License-Identifier: BSD-3-Clause
/*
 * A program of a hostile guest and a hostile host against the platform
 * devices, through the bus: serial ports, CMOS, i8042, ACPI PM and the gaps
 * between them. Besides what the sanitizers find it checks that interrupt
 * lines and power requests are only told when they change, and that the UART
 * keeps to its backend's contract and holds no more than its FIFO.
 */
#include <stdlib.h>
#include <string.h>

#include "bus/acpi_pm.h"
#include "bus/bus.h"
#include "bus/cmos.h"
#include "bus/i8042.h"
#include "bus/serial.h"

enum { BACKEND_SIZE = 24 };

static const struct {
	uint16_t base;
	uint16_t size;
} ranges[] = {
	{ 0x60, 1 },
	{ 0x64, 1 },
	{ 0x70, CMOS_PORT_SIZE },
	{ 0x2f8, SERIAL_PORT_SIZE },
	{ 0x3f8, SERIAL_PORT_SIZE },
	{ 0x600, ACPI_PM_PORT_SIZE },
	{ 0xcf9, 1 },
};

enum op {
	OP_WRITE, /* range, offset, size, value */
	OP_READ,
	OP_RECEIVE,        /* count */
	OP_TRANSMIT_READY, /* how much the host took */
	OP_POWER_BUTTON,
	OP_ALARM,
	OPS,
};

struct machine {
	struct bus *bus;
	struct serial_backend backend;
	struct serial *com1, *com2;
	struct cmos *cmos;
	struct i8042 *i8042;
	struct acpi_pm *pm;
	bool irqs[4];
	time_t alarm; /* what the CMOS waits for */
	unsigned requests;
	size_t pending; /* bytes that the host has not taken */
	uint64_t dropped;
	bool receive_refused;
};

static void require(bool holds)
{
	if (!holds)
		abort();
}

static bool take(void *owner, uint8_t byte)
{
	struct machine *machine = owner;

	(void)byte;
	if (machine->pending == BACKEND_SIZE) {
		machine->dropped++;
		return false;
	}
	machine->pending++;
	return true;
}

static bool has_room(void *owner)
{
	struct machine *machine = owner;

	return BACKEND_SIZE - machine->pending >= SERIAL_FIFO_SIZE;
}

static void receive_ready(void *owner)
{
	struct machine *machine = owner;

	require(machine->receive_refused); /* only who was refused is told, and once */
	machine->receive_refused = false;
}

static void set_irq(void *owner, bool asserted)
{
	bool *level = owner;

	require(*level != asserted);
	*level = asserted;
}

static void set_alarm(void *owner, time_t when)
{
	struct machine *machine = owner;

	require(when == 0 || machine->alarm == 0 || when != machine->alarm);
	machine->alarm = when;
}

static void alarm_comes(struct machine *machine)
{
	time_t when = machine->alarm;

	machine->alarm = 0;
	if (when != 0)
		cmos_timer_expired(machine->cmos, when);
}

static void count_request(void *owner, enum power_request request)
{
	struct machine *machine = owner;

	require(request == POWER_OFF || request == POWER_RESET);
	machine->requests++;
}

static void add(struct machine *machine, size_t index, const struct bus_ops *ops, void *device)
{
	require(bus_add(machine->bus, "fuzz", ranges[index].base, ranges[index].size, ops,
			device) == 0);
}

static void machine_up(struct machine *machine)
{
	const struct power_sink power = { count_request, machine };

	*machine = (struct machine){
		.backend = { take, has_room, receive_ready, machine },
	};
	int r = bus_create(&machine->bus);

	r |= serial_create(
		&machine->backend, (struct irq_line){ set_irq, &machine->irqs[0] }, &machine->com1);
	r |= serial_create(NULL, (struct irq_line){ set_irq, &machine->irqs[1] }, &machine->com2);
	r |= cmos_create(256 * MIB, GIB, (struct irq_line){ set_irq, &machine->irqs[3] },
		(struct cmos_timer){ set_alarm, machine }, &machine->cmos);
	r |= i8042_create(power, &machine->i8042);
	r |= acpi_pm_create((struct irq_line){ set_irq, &machine->irqs[2] }, power, &machine->pm);
	require(r == 0);
	add(machine, 0, &i8042_data_bus_ops, machine->i8042);
	add(machine, 1, &i8042_command_bus_ops, machine->i8042);
	add(machine, 2, &cmos_bus_ops, machine->cmos);
	add(machine, 3, &serial_bus_ops, machine->com2);
	add(machine, 4, &serial_bus_ops, machine->com1);
	add(machine, 5, &acpi_pm_bus_ops, machine->pm);
	add(machine, 6, &acpi_reset_bus_ops, machine->pm);
}

static void machine_down(struct machine *machine)
{
	require(machine->requests <= 2); /* i8042 and ACPI, each once */
	require(serial_dropped_bytes(machine->com1) == machine->dropped);
	bus_free(machine->bus);
	serial_free(machine->com1);
	serial_free(machine->com2);
	cmos_free(machine->cmos);
	i8042_free(machine->i8042);
	acpi_pm_free(machine->pm);
}

/* Offsets reach one byte beyond each range, so accesses also straddle its end. */
static void access_bus(struct machine *machine, bool write, const uint8_t *arguments)
{
	size_t index = arguments[0] % ARRAY_SIZE(ranges);
	uint64_t address = ranges[index].base + arguments[1] % (ranges[index].size + 1u);
	unsigned size = 1u << (arguments[0] >> 6);
	uint8_t data[8];

	memset(data, arguments[2], sizeof(data));
	data[0] = arguments[3];
	if (write)
		bus_write(machine->bus, address, data, size);
	else
		bus_read(machine->bus, address, data, size);
}

static void receive(struct machine *machine, size_t count)
{
	static const uint8_t bytes[256];

	machine->receive_refused = false;
	size_t taken = serial_receive(machine->com1, bytes, count);

	require(taken <= count && taken <= SERIAL_FIFO_SIZE);
	machine->receive_refused = taken < count;
}

static void transmit_ready(struct machine *machine, size_t taken)
{
	machine->pending -= min_u64(taken, machine->pending);
	if (has_room(machine))
		serial_transmit_ready(machine->com1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum { OP_SIZE = 5 };
	struct machine machine;

	machine_up(&machine);
	for (; size >= OP_SIZE; data += OP_SIZE, size -= OP_SIZE) {
		switch ((enum op)(data[0] % OPS)) {
		case OP_WRITE:
		case OP_READ:
			access_bus(&machine, data[0] % OPS == OP_WRITE, data + 1);
			break;
		case OP_RECEIVE:
			receive(&machine, data[1]);
			break;
		case OP_TRANSMIT_READY:
			transmit_ready(&machine, data[1]);
			break;
		case OP_POWER_BUTTON:
			acpi_pm_press_power_button(machine.pm);
			break;
		case OP_ALARM:
			alarm_comes(&machine);
			break;
		case OPS:
			break;
		}
	}
	machine_down(&machine);
	return 0;
}
