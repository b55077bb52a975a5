// SPDX-License-Identifier: BSD-3-Clause
/*
 * What no well-behaved kernel does: every port in every width, registers with
 * every value, addresses where nothing is. A case passes when the serial port
 * still answers afterwards, since its PASS line comes that way; and where the
 * machine promises something (nothing there reads as all ones), that holds.
 */
#include "cases.h"

enum {
	UART_IER = 1,
	UART_FCR = 2,
	UART_LCR = 3,
	UART_MCR = 4,
	UART_MSR = 6,
	UART_SCRATCH = 7,
	UART_LCR_DLAB = 0x80,
	UART_MCR_LOOP = 0x10,
	UART_PORTS = 8
};

static uint8_t buffer[64 * 1024];

/* As a driver does at its start, from whatever state. */
static void reset_uart(uint16_t base)
{
	out8(base + UART_LCR, UART_LCR_DLAB);
	out8(base, 1);
	out8(base + UART_IER, 0);
	out8(base + UART_LCR, 3);
	out8(base + UART_IER, 0);
	out8(base + UART_FCR, 7);
	out8(base + UART_MCR, 3);
	while (in8(base + UART_LSR) & UART_LSR_READY)
		in8(base);
}

static void write_port(uint16_t port, unsigned size, uint32_t value)
{
	if (size == 1)
		out8(port, (uint8_t)value);
	else if (size == 2)
		out16(port, (uint16_t)value);
	else
		out32(port, value);
}

static uint32_t read_port(uint16_t port, unsigned size)
{
	if (size == 1)
		return in8(port);
	return size == 2 ? in16(port) : in32(port);
}

/* ---- every port ------------------------------------------------------------------ */

static void run_ports_read(void)
{
	for (unsigned size = 1; size <= 4; size *= 2)
		for (unsigned port = 0; port <= 0xffff; port++)
			read_port((uint16_t)port, size);
	reset_uart(COM1);
}

/* Zero ends the VM nowhere: no reset bit, no sleep, no keyboard command. */
static void run_ports_zero(void)
{
	for (unsigned size = 1; size <= 4; size *= 2)
		for (unsigned port = 0; port <= 0xffff; port++)
			write_port((uint16_t)port, size, 0);
	reset_uart(COM1);
}

static bool overlaps(unsigned port, unsigned size, unsigned start, unsigned end)
{
	return port < end && port + size > start;
}

/* All ones do, in the reset register; the sleep type is not that of power off. */
static void run_ports_ones(void)
{
	for (unsigned size = 1; size <= 4; size *= 2)
		for (unsigned port = 0; port <= 0xffff; port++)
			if (!overlaps(port, size, PORT_RESET, PORT_RESET + 1))
				write_port((uint16_t)port, size, UINT32_MAX);
	reset_uart(COM1);
}

static void run_ports_unclaimed(void)
{
	static const uint16_t ports[] = { 0x80, 0x300, 0x400, 0x5ff, 0x610, 0x1000, 0x8000,
		0xfffc };

	for (size_t i = 0; i < ARRAY_SIZE(ports); i++)
		for (unsigned size = 1; size <= 4; size *= 2) {
			uint32_t ones = (uint32_t)((UINT64_C(1) << size * 8) - 1);
			uint32_t value = read_port(ports[i], size);

			if (value != ones)
				fail("port %x, %u bytes: %x", (uint64_t)ports[i], (uint64_t)size,
					(uint64_t)value);
		}
}

/* As much as a count can be useful for, where nothing, a device or KVM itself answers. */
static void run_strings(void)
{
	static const uint16_t all[] = { 0x1000, COM1 + UART_LSR };
	static const uint16_t ports[] = { 0x2f8, 0x2fa, 0x2fb, COM1, 0x40, 0x42, 0x60, 0x64, 0x70,
		0x71, PORT_PM1_STATUS, PORT_PM_TIMER, 0xffff };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		in8_string(all[i], buffer, sizeof(buffer));
		out8_string(all[i], buffer, sizeof(buffer));
	}
	/* The content is zeros: they end the VM nowhere, see above. */
	memset(buffer, 0, sizeof(buffer));
	for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
		out8_string(ports[i], buffer, 1000);
		in8_string(ports[i], buffer + sizeof(buffer) / 2, 1000);
	}
	in8_string(0x1000, buffer, 1000);
	for (size_t i = 0; i < 1000; i++)
		if (buffer[i] != 0xff)
			fail("byte %u of a string from nowhere is %x", (uint64_t)i,
				(uint64_t)buffer[i]);
	reset_uart(COM1);
}

/* ---- MMIO ------------------------------------------------------------------------- */

static void poke(uint64_t gpa)
{
	volatile uint8_t *byte = at(gpa);
	volatile uint16_t *word = at(gpa);
	volatile uint32_t *dword = at(gpa);
	volatile uint64_t *qword = at(gpa);

	*byte = 0x55;
	*word = 0x5555;
	*dword = 0x55555555;
	*qword = 0x5555555555555555;
	if (*byte != 0xff || *word != 0xffff || *dword != UINT32_MAX || *qword != UINT64_MAX)
		fail("address %x reads %x", gpa, *qword);
}

/* Needs a guest with less than 512 MiB, so that all of this is behind its memory. */
static void run_mmio(void)
{
	/* For one GiB after the other: what was not there before needs no flush. */
	static volatile uint64_t map[PAGE_ENTRIES] __attribute__((aligned(4096)));

	for (uint64_t gpa = 512 << 20; gpa < 0xc0000000; gpa += 128 << 20)
		poke(gpa);
	for (uint64_t gib = 8; gib < PAGE_ENTRIES; gib++) {
		uint64_t gpa = gib << 30;

		if (page_map_1g[gib] != 0)
			fail("GiB %u is mapped", gib);
		map[0] = gpa | 0x87;
		map[PAGE_ENTRIES - 1] = (gpa + (511 << 21)) | 0x87;
		page_map_1g[gib] = (uintptr_t)map | 7;
		poke(gpa);
		poke(gpa + 0x3ffff001);
		poke(gpa + 0x3ffffff8);
		page_map_1g[gib] = 0;
	}
}

/* Across the border of two pages: KVM makes two accesses of odd sizes of it. */
static void run_mmio_straddle(void)
{
	for (unsigned offset = 1; offset < 8; offset++) {
		poke(0x90000000 - offset);
		poke(0x90001000 - offset);
	}
}

static void stir(uint64_t gpa)
{
	volatile uint8_t *byte = at(gpa);
	volatile uint16_t *word = at(gpa);
	volatile uint32_t *dword = at(gpa);
	volatile uint64_t *qword = at(gpa);

	*byte = *byte;
	*word = *word;
	*dword = ~*dword;
	*qword = ~*qword;
}

/* The windows of the devices: whatever is there, or nothing, must only survive. */
static void run_mmio_window(void)
{
	for (uint64_t gpa = 0xc0000000; gpa < 0xfec00000; gpa += 4 << 20) {
		stir(gpa);
		stir(gpa + 0xffc);
	}
	for (uint64_t gpa = UINT64_C(4) << 30; gpa < UINT64_C(8) << 30; gpa += 512 << 20) {
		if (!map_high(gpa))
			fail("too few page tables");
		for (uint64_t offset = 0; offset < 0x9000; offset += 0x7c)
			stir(gpa + offset);
	}
}

/* ---- serial port ------------------------------------------------------------------ */

/* All values of one register, in order and then mixed with DLAB on. */
static void run_uart_registers(void)
{
	static const uint8_t registers[] = { UART_FCR, UART_LCR, UART_IER, UART_MCR, UART_LSR,
		UART_MSR, UART_SCRATCH };

	for (size_t i = 0; i < ARRAY_SIZE(registers); i++) {
		for (unsigned value = 0; value < 256; value++) {
			out8(COM1 + registers[i], (uint8_t)value);
			for (uint16_t r = 1; r < UART_PORTS; r++)
				in8(COM1 + r);
		}
		reset_uart(COM1);
	}
	for (unsigned value = 0; value < 256; value++) {
		out8(COM1 + UART_LCR, UART_LCR_DLAB);
		out8(COM1, (uint8_t)value);
		out8(COM1 + UART_IER, (uint8_t)~value);
		out8(COM1 + UART_LCR, (uint8_t)value);
	}
	reset_uart(COM1);
	out8(COM1 + UART_SCRATCH, 0xa5);
	if (in8(COM1 + UART_SCRATCH) != 0xa5)
		fail("the scratch register does not keep its value");
	if ((in8(COM1 + UART_LSR) & 0x60) != 0x60)
		fail("the transmitter is not empty");
}

static void run_uart_divisor(void)
{
	out8(COM1 + UART_LCR, UART_LCR_DLAB | 3);
	out8(COM1, 0);
	out8(COM1 + UART_IER, 0);
	if (in8(COM1) != 0 || in8(COM1 + UART_IER) != 0)
		fail("the divisor does not keep 0");
	out8(COM1 + UART_LCR, 3);
	print("divisor 0\n");
	reset_uart(COM1);
}

/* In loopback nothing may get out, and no amount of bytes may do harm. */
static void run_uart_loopback(void)
{
	uint64_t writes = find_number(params, "count=", 100000);

	out8(COM1 + UART_MCR, UART_MCR_LOOP);
	for (uint64_t i = 0; i < writes; i++)
		out8(COM1, 'L');
	for (unsigned i = 0; in8(COM1 + UART_LSR) & UART_LSR_READY; i++) {
		uint8_t byte = in8(COM1);

		if (byte != 'L' || i > 4096)
			fail("byte %u of the loopback is %x", (uint64_t)i, (uint64_t)byte);
	}
	out8(COM1, 0x5a);
	if ((in8(COM1 + UART_LSR) & UART_LSR_READY) == 0 || in8(COM1) != 0x5a)
		fail("the loopback lost a byte");
	reset_uart(COM1);
}

/* Interrupts come and go with nobody to take them. */
static void run_uart_interrupts(void)
{
	for (unsigned i = 0; i < 20000; i++) {
		out8(COM1 + UART_IER, (uint8_t)(i & 0xf));
		in8(COM1 + UART_FCR);
	}
	reset_uart(COM1);
}

static void run_uart_widths(void)
{
	for (uint16_t port = COM1 - 3; port < COM1 + UART_PORTS; port++) {
		in16(port);
		in32(port);
		out16(port, 0);
		out32(port, 0);
	}
	reset_uart(COM1);
	if (in32(COM1 + UART_PORTS - 2) != UINT32_MAX)
		fail("an access across the end of the ports is answered");
}

/* ---- the other devices ------------------------------------------------------------- */

static void run_i8042(void)
{
	for (unsigned command = 0; command < 256; command++) {
		/* 0xf0 to 0xff pulse lines; an even one pulses that of the reset. */
		if (command >= 0xf0 && (command & 1) == 0)
			continue;
		out8(PORT_I8042, (uint8_t)command);
		out8(PORT_I8042 - 4, (uint8_t)command);
		for (unsigned i = 0; i < 4; i++)
			in8(PORT_I8042 - 4);
		in8(PORT_I8042);
		out16(PORT_I8042, 0xffff);
		in32(PORT_I8042 - 4);
	}
}

/* Each value of each index with the parameter every=1. */
static void run_cmos(void)
{
	unsigned every = (unsigned)find_number(params, "every=", 5);

	for (unsigned index = 0; index < 256; index++)
		for (unsigned value = 0; value < 256; value += every) {
			out8(PORT_CMOS, (uint8_t)index);
			out8(PORT_CMOS + 1, (uint8_t)value);
			out8(PORT_CMOS, (uint8_t)index);
			in8(PORT_CMOS + 1);
		}
	for (unsigned value = 0; value < 65536; value += 7) {
		out16(PORT_CMOS, (uint16_t)value);
		in16(PORT_CMOS);
		in32(PORT_CMOS);
	}
	out8(PORT_CMOS, 0x0d);
	if ((in8(PORT_CMOS + 1) & 0x80) == 0)
		fail("the clock's battery is empty after junk");
}

/* Odd widths and places; sleep types other than power off are not for us. */
static void run_acpi(void)
{
	for (unsigned size = 1; size <= 4; size *= 2)
		for (uint16_t port = PORT_PM1_STATUS - 3; port <= PORT_PM1_STATUS + 16; port++) {
			write_port(port, size, UINT32_MAX);
			write_port(port, size, 0);
			read_port(port, size);
		}
	for (unsigned type = 0; type < 8; type++)
		if (type != SLEEP_TYPE_OFF)
			out16(PORT_PM1_CONTROL, (uint16_t)(type << 10 | SLEEP_ENABLE));
	out16(PORT_PM1_CONTROL, SLEEP_TYPE_OFF << 10); /* without the enable bit */
	out8(PORT_RESET, 0x02);                        /* without the reset bit */
	in16(PORT_RESET);
	in32(PORT_RESET - 1);
}

/* KVM's own; its mode port is write-only. */
static void run_pit(void)
{
	for (unsigned mode = 0; mode < 256; mode++) {
		out8(0x43, (uint8_t)mode);
		for (uint16_t port = 0x40; port <= 0x43; port++) {
			out8(port, (uint8_t)mode);
			in8(port);
			in16(port);
			in32(port);
		}
	}
}

/* ---- input and output ---------------------------------------------------------------- */

/* Sends back what comes, until bytes= bytes have, or 0x04 if there is no such number. */
static void run_echo(void)
{
	uint64_t bytes = find_number(params, "bytes=", UINT64_MAX);

	print("echo\n");
	for (uint64_t i = 0; i < bytes; i++) {
		while ((in8(COM1 + UART_LSR) & UART_LSR_READY) == 0)
			__asm__ volatile("pause");
		uint8_t byte = in8(COM1);

		if (bytes == UINT64_MAX && byte == 4)
			break;
		out8(COM1, byte);
	}
}

/* Prints bytes= bytes, waiting for the transmitter as a driver does. */
static void run_flood(void)
{
	uint64_t bytes = find_number(params, "bytes=", UINT64_MAX);

	for (uint64_t i = 0; i < bytes; i++)
		print_char("0123456789abcdef"[i % 16]);
}

/* The same without waiting: most of it may be lost. */
static void run_flood_blind(void)
{
	uint64_t bytes = find_number(params, "bytes=", UINT64_MAX);

	for (uint64_t i = 0; i < bytes; i++)
		out8(COM1, "0123456789abcdef"[i % 16]);
}

const struct test_case cases[] = {
	{ "ports-read", run_ports_read },
	{ "ports-zero", run_ports_zero },
	{ "ports-ones", run_ports_ones },
	{ "ports-unclaimed", run_ports_unclaimed },
	{ "strings", run_strings },
	{ "mmio", run_mmio },
	{ "mmio-straddle", run_mmio_straddle },
	{ "mmio-window", run_mmio_window },
	{ "uart-registers", run_uart_registers },
	{ "uart-divisor", run_uart_divisor },
	{ "uart-loopback", run_uart_loopback },
	{ "uart-interrupts", run_uart_interrupts },
	{ "uart-widths", run_uart_widths },
	{ "i8042", run_i8042 },
	{ "cmos", run_cmos },
	{ "acpi", run_acpi },
	{ "pit", run_pit },
	{ "echo", run_echo },
	{ "flood", run_flood },
	{ "flood-blind", run_flood_blind },
	{ NULL, NULL },
};
