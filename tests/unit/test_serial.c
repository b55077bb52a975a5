// SPDX-License-Identifier: BSD-3-Clause
/*
 * serial: what drivers rely on (probing, interrupts, FIFO), what a hostile
 * guest or host tries, and the promises to both when the other side is slow.
 */
#include "unit/unit.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "bus/serial.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };
enum { IER_RX = 1, IER_TX = 2, IER_LINE = 4, IER_MODEM = 8 };
enum { OUT2 = 8, LOOP = 0x10 };
enum { READY = 0x60, DATA_READY = 1, OVERRUN = 2 };
enum { BASE = 0x3f8, SENT_MAX = 64 };

struct machine {
	struct bus *bus;
	struct serial *serial;
	struct serial_backend backend;
	bool irq;
	unsigned irq_changes;
	uint8_t sent[SENT_MAX];
	size_t sent_count;
	size_t sent_room; /* how much the backend takes */
	unsigned receive_ready_calls;
};

static bool take(void *owner, uint8_t byte)
{
	struct machine *machine = owner;

	if (machine->sent_count == machine->sent_room)
		return false;
	machine->sent[machine->sent_count++] = byte;
	return true;
}

static bool has_room(void *owner)
{
	struct machine *machine = owner;

	return machine->sent_room - machine->sent_count >= SERIAL_FIFO_SIZE;
}

static void receive_ready(void *owner)
{
	struct machine *machine = owner;

	machine->receive_ready_calls++;
}

static void set_irq(void *owner, bool asserted)
{
	struct machine *machine = owner;

	assert_int_not_equal(machine->irq, asserted); /* only changes are told */
	machine->irq = asserted;
	machine->irq_changes++;
}

static void machine_up_with(struct machine *machine, bool connected)
{
	memset(machine, 0, sizeof(*machine));
	machine->backend = (struct serial_backend){ take, has_room, receive_ready, machine };
	machine->sent_room = SENT_MAX;
	assert_int_equal(serial_create(connected ? &machine->backend : NULL,
				 (struct irq_line){ set_irq, machine }, &machine->serial),
		0);
	assert_int_equal(bus_create(&machine->bus), 0);
	assert_int_equal(bus_add(machine->bus, "COM1", BASE, SERIAL_PORT_SIZE, &serial_bus_ops,
				 machine->serial),
		0);
}

static void machine_up(struct machine *machine)
{
	machine_up_with(machine, true);
}

static void machine_down(struct machine *machine)
{
	bus_free(machine->bus);
	serial_free(machine->serial);
}

static void out(struct machine *machine, unsigned reg, uint8_t value)
{
	bus_write(machine->bus, BASE + reg, &value, 1);
}

static uint8_t in(struct machine *machine, unsigned reg)
{
	uint8_t value;

	bus_read(machine->bus, BASE + reg, &value, 1);
	return value;
}

static size_t receive(struct machine *machine, const char *text)
{
	return serial_receive(machine->serial, (const uint8_t *)text, strlen(text));
}

static void sleep_ms(long ms)
{
	const struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&pause, NULL);
}

/* ---- what drivers do ---- */

/* The steps by which Linux' 8250 driver finds a 16550A. */
static void linux_probe_finds_a_16550a(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	out(&machine, IER, 0);
	assert_int_equal(in(&machine, IER) & 0x0f, 0);
	out(&machine, IER, 0x0f);
	assert_int_equal(in(&machine, IER) & 0x0f, 0x0f);
	out(&machine, IER, 0);
	out(&machine, MCR, LOOP | 0x0a);
	assert_int_equal(in(&machine, MSR) & 0xf0, 0x90);
	out(&machine, MCR, 0);
	assert_int_equal(in(&machine, MSR) & 0xf0, 0xb0);
	out(&machine, LCR, 0xbf);
	assert_int_equal(in(&machine, FCR), 0x01); /* no EFR behind it */
	out(&machine, LCR, 0);
	out(&machine, FCR, 1);
	assert_int_equal(in(&machine, IIR) >> 6, 3);
	out(&machine, FCR, 0);
	assert_int_equal(in(&machine, IIR) >> 6, 0);
	out(&machine, SCR, 0xa5);
	assert_int_equal(in(&machine, SCR), 0xa5);
	machine_down(&machine);
}

/* serial8250_do_startup() takes a UART for broken that fails one of these. */
static void linux_startup_finds_no_bugs(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	for (unsigned i = 0; i < 2; i++) {
		out(&machine, IER, IER_TX);
		assert_int_equal(in(&machine, IIR), 0x02);
		assert_int_equal(in(&machine, IIR), 0x01); /* the read has cleared it */
		out(&machine, IER, 0);
	}
	assert_int_equal(in(&machine, LSR), READY);
	machine_down(&machine);
}

static void sent_bytes_arrive(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	for (const char *c = "hello"; *c != '\0'; c++)
		out(&machine, DATA, (uint8_t)*c);
	assert_int_equal(machine.sent_count, 5);
	assert_memory_equal(machine.sent, "hello", 5);
	assert_int_equal(in(&machine, LSR), READY);
	machine_down(&machine);
}

static void the_divisor_is_not_the_data(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	assert_int_equal(receive(&machine, "x"), 1);
	out(&machine, LCR, 0x83);
	for (unsigned i = 0; i < 2; i++) {
		out(&machine, DATA, 0); /* divisor 0: nothing is divided by it */
		out(&machine, IER, 0);
		assert_int_equal(in(&machine, DATA), 0);
	}
	out(&machine, DATA, 0x34);
	out(&machine, IER, 0x12);
	assert_int_equal(in(&machine, DATA), 0x34);
	assert_int_equal(in(&machine, IER), 0x12);
	out(&machine, LCR, 0x03);
	assert_int_equal(in(&machine, IER), 0);
	assert_int_equal(in(&machine, DATA), 'x');
	assert_int_equal(machine.sent_count, 0);
	machine_down(&machine);
}

static void an_empty_transmitter_interrupts(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	out(&machine, MCR, OUT2);
	assert_false(machine.irq);
	out(&machine, IER, IER_TX);
	assert_true(machine.irq);
	assert_int_equal(in(&machine, IIR), 0x02);
	assert_false(machine.irq);
	out(&machine, IER, IER_TX); /* no change, nothing new */
	assert_false(machine.irq);
	out(&machine, DATA, 'a'); /* sent at once */
	assert_true(machine.irq);
	out(&machine, IER, 0);
	assert_false(machine.irq);
	machine_down(&machine);
}

static void out2_is_the_gate_of_the_interrupt(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	out(&machine, IER, IER_RX);
	assert_int_equal(receive(&machine, "a"), 1);
	assert_false(machine.irq);
	assert_int_equal(in(&machine, IIR), 0x04); /* there all the same */
	out(&machine, MCR, OUT2);
	assert_true(machine.irq);
	out(&machine, MCR, OUT2 | LOOP);
	assert_false(machine.irq);
	out(&machine, MCR, OUT2);
	assert_true(machine.irq);
	assert_int_equal(in(&machine, DATA), 'a');
	assert_false(machine.irq);
	machine_down(&machine);
}

static void received_data_has_two_interrupts(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	out(&machine, MCR, OUT2);
	out(&machine, FCR, 0x81); /* trigger at 8 */
	out(&machine, IER, IER_RX);
	assert_int_equal(receive(&machine, "1234567"), 7);
	assert_true(machine.irq);
	assert_int_equal(in(&machine, IIR), 0xcc); /* fewer: character timeout */
	assert_int_equal(receive(&machine, "8"), 1);
	assert_int_equal(in(&machine, IIR), 0xc4);
	for (const char *c = "12345678"; *c != '\0'; c++) {
		assert_int_equal(in(&machine, LSR), READY | DATA_READY);
		assert_int_equal(in(&machine, DATA), *c);
	}
	assert_int_equal(in(&machine, IIR), 0xc1);
	assert_int_equal(in(&machine, LSR), READY);
	assert_int_equal(in(&machine, DATA), 0);
	assert_false(machine.irq);
	assert_int_equal(machine.irq_changes, 2);
	machine_down(&machine);
}

static void interrupts_have_priorities(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	out(&machine, FCR, 1);
	out(&machine, MCR, LOOP | OUT2); /* DCD stays, DSR and CTS go */
	for (unsigned i = 0; i <= SERIAL_FIFO_SIZE; i++)
		out(&machine, DATA, (uint8_t)i); /* one too many */
	out(&machine, IER, IER_RX | IER_TX | IER_LINE | IER_MODEM);
	assert_int_equal(in(&machine, IIR), 0xc6);
	assert_int_equal(in(&machine, LSR), READY | DATA_READY | OVERRUN);
	assert_int_equal(in(&machine, LSR), READY | DATA_READY); /* the read clears it */
	assert_int_equal(in(&machine, IIR), 0xc4);
	for (unsigned i = 0; i < SERIAL_FIFO_SIZE; i++)
		assert_int_equal(in(&machine, DATA), i); /* the last byte is lost, no other */
	assert_int_equal(in(&machine, IIR), 0xc2);
	assert_int_equal(in(&machine, IIR), 0xc0);
	assert_int_equal(in(&machine, MSR), 0x83);
	assert_int_equal(in(&machine, IIR), 0xc1);
	machine_down(&machine);
}

static void loopback_ties_outputs_to_inputs(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	for (unsigned lines = 0; lines < 16; lines++) {
		unsigned dtr = lines & 1, rts = lines >> 1 & 1, out1 = lines >> 2 & 1,
			 out2 = lines >> 3;

		out(&machine, MCR, (uint8_t)(LOOP | lines));
		assert_int_equal(in(&machine, MSR) >> 4, rts | dtr << 1 | out1 << 2 | out2 << 3);
	}
	assert_int_equal(in(&machine, MSR) & 0x0f, 0); /* changes, cleared by reading */
	out(&machine, MCR, LOOP | OUT2);               /* RI ends, DSR and CTS change */
	assert_int_equal(in(&machine, MSR), 0x87);
	/* The line is cut in both directions. */
	out(&machine, DATA, 'l');
	assert_int_equal(machine.sent_count, 0);
	assert_int_equal(in(&machine, DATA), 'l');
	assert_int_equal(receive(&machine, "x"), 0);
	assert_int_equal(machine.receive_ready_calls, 0);
	out(&machine, MCR, 0);
	assert_int_equal(machine.receive_ready_calls, 1);
	assert_int_equal(receive(&machine, "x"), 1);
	machine_down(&machine);
}

static void without_fifo_it_holds_one_byte(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	assert_int_equal(receive(&machine, "ab"), 1);
	assert_int_equal(in(&machine, DATA), 'a');
	assert_int_equal(machine.receive_ready_calls, 1);
	out(&machine, MCR, LOOP);
	out(&machine, DATA, '1');
	out(&machine, DATA, '2'); /* in the place of the first */
	assert_int_equal(in(&machine, LSR), READY | DATA_READY | OVERRUN);
	assert_int_equal(in(&machine, DATA), '2');
	assert_int_equal(in(&machine, LSR), READY);
	machine_down(&machine);
}

static void fifo_control_clears(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	out(&machine, FCR, 1);
	assert_int_equal(receive(&machine, "abc"), 3);
	out(&machine, FCR, 1); /* no change, no clearing */
	assert_int_equal(in(&machine, LSR), READY | DATA_READY);
	out(&machine, FCR, 1 | 2);
	assert_int_equal(in(&machine, LSR), READY);
	assert_int_equal(receive(&machine, "abc"), 3);
	out(&machine, FCR, 0); /* so does switching it */
	assert_int_equal(in(&machine, LSR), READY);
	machine_down(&machine);
}

/* ---- a host that sends too much ---- */

static void a_guest_that_never_reads_costs_16_bytes(void **state)
{
	struct machine machine;
	size_t taken = 0;

	(void)state;
	machine_up(&machine);
	out(&machine, FCR, 1);
	for (unsigned i = 0; i < 100000; i++)
		taken += receive(&machine, "0123456789");
	assert_int_equal(taken, SERIAL_FIFO_SIZE);
	assert_int_equal(machine.receive_ready_calls, 0);
	for (unsigned i = 0; i < SERIAL_FIFO_SIZE; i++) {
		assert_int_equal(machine.receive_ready_calls, 0); /* once it is empty */
		assert_int_equal(in(&machine, DATA), '0' + i % 10);
	}
	assert_int_equal(machine.receive_ready_calls, 1);
	in(&machine, DATA);
	assert_int_equal(machine.receive_ready_calls, 1); /* nobody waits any more */
	/* Clearing the FIFO makes room too. */
	assert_int_equal(receive(&machine, "01234567890123456"), SERIAL_FIFO_SIZE);
	out(&machine, FCR, 1 | 2);
	assert_int_equal(machine.receive_ready_calls, 2);
	machine_down(&machine);
}

/* ---- a host that reads too little ---- */

static void a_full_backend_makes_the_guest_wait(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	machine.sent_room = 20;
	out(&machine, MCR, OUT2);
	out(&machine, FCR, 1);
	out(&machine, IER, IER_TX);
	assert_int_equal(in(&machine, IIR), 0xc2);
	for (unsigned i = 0; i < 4; i++)
		out(&machine, DATA, (uint8_t)i);
	assert_true(machine.irq); /* room for 16 more */
	assert_int_equal(in(&machine, IIR), 0xc2);
	/* A driver that fills the FIFO after one interrupt loses nothing. */
	for (unsigned i = 0; i < SERIAL_FIFO_SIZE; i++)
		out(&machine, DATA, (uint8_t)(4 + i));
	assert_int_equal(in(&machine, LSR), 0);
	assert_false(machine.irq);
	assert_int_equal(serial_dropped_bytes(machine.serial), 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(machine.sent[i], i);
	machine.sent_room = SENT_MAX;
	serial_transmit_ready(machine.serial);
	assert_true(machine.irq);
	assert_int_equal(in(&machine, IIR), 0xc2);
	assert_int_equal(in(&machine, LSR), READY);
	machine_down(&machine);
}

static void what_does_not_fit_is_counted(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	machine.sent_room = 10;
	for (unsigned i = 0; i < 15; i++)
		out(&machine, DATA, (uint8_t)i);
	assert_int_equal(machine.sent_count, 10);
	assert_int_equal(serial_dropped_bytes(machine.serial), 5);
	machine_down(&machine);
}

static void a_guest_that_polls_does_not_hang(void **state)
{
	struct machine machine;
	unsigned waits = 0;

	(void)state;
	machine_up(&machine);
	machine.sent_room = 10;
	out(&machine, MCR, OUT2);
	uint64_t before_ns = clock_monotonic_ns();

	for (unsigned i = 0; i < 1000; i++) {
		while ((in(&machine, LSR) & READY) == 0) {
			assert_in_range(waits++, 0, 500); /* once 100 ms, with much slack */
			sleep_ms(10);
		}
		out(&machine, DATA, 'x');
	}
	assert_true(waits > 0);
	assert_true(clock_monotonic_ns() - before_ns >= 90 * NS_PER_MS);
	assert_int_equal(serial_dropped_bytes(machine.serial), 990);
	/* Progress: from now on it waits again. */
	machine.sent_count = 0;
	machine.sent_room = SENT_MAX;
	serial_transmit_ready(machine.serial);
	for (unsigned i = 0; i < SENT_MAX; i++)
		out(&machine, DATA, 'y');
	assert_int_equal(in(&machine, LSR), 0);
	assert_int_equal(serial_dropped_bytes(machine.serial), 990);
	machine_down(&machine);
}

static void a_line_that_leads_nowhere(void **state)
{
	struct machine machine;

	(void)state;
	machine_up_with(&machine, false);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(in(&machine, LSR), READY);
		out(&machine, DATA, (uint8_t)i);
	}
	assert_int_equal(serial_dropped_bytes(machine.serial), 0);
	assert_int_equal(receive(&machine, "ab"), 1);
	assert_int_equal(in(&machine, DATA), 'a');
	machine_down(&machine);
	serial_free(NULL);
}

/* ---- a guest that means harm ---- */

static void read_only_registers_ignore_writes(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	out(&machine, SCR, 0x5a);
	for (unsigned value = 0; value < 0x100; value++) {
		out(&machine, LSR, (uint8_t)value);
		out(&machine, MSR, (uint8_t)value);
		assert_int_equal(in(&machine, LSR), READY);
		assert_int_equal(in(&machine, MSR), 0xb0);
	}
	assert_int_equal(in(&machine, SCR), 0x5a);
	machine_down(&machine);
}

static void every_value_in_every_register(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	for (unsigned reg = 0; reg < SERIAL_PORT_SIZE; reg++) {
		for (unsigned value = 0; value < 0x100; value++) {
			out(&machine, reg, (uint8_t)value);
			for (unsigned i = 0; i < SERIAL_PORT_SIZE; i++)
				in(&machine, i);
		}
	}
	/* It still is a UART. */
	out(&machine, LCR, 3);
	out(&machine, MCR, OUT2);
	out(&machine, FCR, 7);
	out(&machine, IER, IER_RX);
	assert_int_equal(receive(&machine, "!"), 1);
	assert_true(machine.irq);
	assert_int_equal(in(&machine, DATA), '!');
	machine_down(&machine);
}

static void loopback_storm(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine);
	out(&machine, FCR, 1);
	out(&machine, MCR, LOOP);
	for (unsigned i = 0; i < 1000000; i++)
		out(&machine, DATA, (uint8_t)i);
	for (unsigned i = 0; i < SERIAL_FIFO_SIZE; i++)
		assert_int_equal(in(&machine, DATA), i);
	assert_int_equal(in(&machine, LSR) & DATA_READY, 0);
	machine_down(&machine);
}

static void wide_accesses_are_bytes(void **state)
{
	static const uint8_t data[4] = { 'a', 0x0f, 0x07, 0x03 };
	struct machine machine;
	uint8_t back[4];

	(void)state;
	machine_up(&machine);
	bus_write(machine.bus, BASE, data, 4);
	assert_int_equal(machine.sent_count, 1);
	assert_int_equal(in(&machine, IER), 0x0f);
	assert_int_equal(in(&machine, LCR), 0x03);
	bus_read(machine.bus, BASE + LSR, back, 2);
	assert_int_equal(back[0], READY);
	assert_int_equal(back[1], 0xb0);
	bus_write(machine.bus, BASE + SCR, data, 2); /* reaches outside */
	assert_int_equal(in(&machine, SCR), 0);
	machine_down(&machine);
}

static void *register_storm(void *argument)
{
	struct machine *machine = argument;

	for (unsigned i = 0; i < 20000; i++) {
		out(machine, i % 8, (uint8_t)(i * 7));
		in(machine, i * 5 % 8);
	}
	return NULL;
}

static void vcpus_and_host_at_once(void **state)
{
	struct machine machine;
	pthread_t vcpus[4];

	(void)state;
	machine_up(&machine);
	for (size_t i = 0; i < ARRAY_SIZE(vcpus); i++)
		assert_int_equal(pthread_create(&vcpus[i], NULL, register_storm, &machine), 0);
	for (unsigned i = 0; i < 20000; i++) {
		(void)!receive(&machine, "storm");
		serial_transmit_ready(machine.serial);
	}
	for (size_t i = 0; i < ARRAY_SIZE(vcpus); i++)
		pthread_join(vcpus[i], NULL);
	machine_down(&machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(linux_probe_finds_a_16550a),
		cmocka_unit_test(linux_startup_finds_no_bugs),
		cmocka_unit_test(sent_bytes_arrive),
		cmocka_unit_test(the_divisor_is_not_the_data),
		cmocka_unit_test(an_empty_transmitter_interrupts),
		cmocka_unit_test(out2_is_the_gate_of_the_interrupt),
		cmocka_unit_test(received_data_has_two_interrupts),
		cmocka_unit_test(interrupts_have_priorities),
		cmocka_unit_test(loopback_ties_outputs_to_inputs),
		cmocka_unit_test(without_fifo_it_holds_one_byte),
		cmocka_unit_test(fifo_control_clears),
		cmocka_unit_test(a_guest_that_never_reads_costs_16_bytes),
		cmocka_unit_test(a_full_backend_makes_the_guest_wait),
		cmocka_unit_test(what_does_not_fit_is_counted),
		cmocka_unit_test(a_guest_that_polls_does_not_hang),
		cmocka_unit_test(a_line_that_leads_nowhere),
		cmocka_unit_test(read_only_registers_ignore_writes),
		cmocka_unit_test(every_value_in_every_register),
		cmocka_unit_test(loopback_storm),
		cmocka_unit_test(wide_accesses_are_bytes),
		cmocka_unit_test(vcpus_and_host_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
