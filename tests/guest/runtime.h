/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a freestanding test guest has instead of a C library: port and MMIO
 * access, output on COM1, the kernel command line. The guest is one source
 * file; this header brings its entry, start.inc, which calls guest_main() in
 * user mode.
 *
 * Here the guest is on our side: the tests lie to the VMM, the VMM does not
 * lie to them.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

__asm__(".include \"tests/guest/start.inc\"");

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* The entry of the C part. */
_Noreturn void guest_main(const uint8_t *zero_page);

/* ---- hardware ---------------------------------------------------------------- */

static inline void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void out16(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t in8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline uint16_t in16(uint16_t port)
{
	uint16_t value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline uint32_t in32(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline void in8_string(uint16_t port, void *buffer, size_t count)
{
	__asm__ volatile("rep insb" : "+D"(buffer), "+c"(count) : "d"(port) : "memory");
}

static inline void out8_string(uint16_t port, const void *buffer, size_t count)
{
	__asm__ volatile("rep outsb" : "+S"(buffer), "+c"(count) : "d"(port) : "memory");
}

/* The CPUID leaves that the tests look at; start.inc fills them in before main(). */
struct cpuid {
	uint32_t function, index;
	uint32_t eax, ebx, ecx, edx;
};

struct cpuid cpuid_leaves[] = {
	{ .function = 0 },
	{ .function = 1 },
	{ .function = 0xb, .index = 0 },
	{ .function = 0xb, .index = 1 },
	{ .function = 0xb, .index = 2 },
	{ .function = 0x40000000 },
	{ .function = UINT32_MAX },
};

static inline struct cpuid cpuid(uint32_t function, uint32_t index)
{
	const struct cpuid *leaf = cpuid_leaves;

	while (leaf->function != UINT32_MAX && (leaf->function != function || leaf->index != index))
		leaf++;
	return *leaf;
}

/* An exception without an IDT, in user mode or not, is a triple fault. */
static inline _Noreturn void triple_fault(void)
{
	for (;;)
		__asm__ volatile("ud2");
}

/* ---- memory above 4 GiB -------------------------------------------------------- */

enum { HIGH_GIBS = 24, PAGE_ENTRIES = 512 };

extern volatile uint64_t page_map_1g[PAGE_ENTRIES];

/* Maps the GiB around a gpa below 512 GiB. False when too many were mapped. */
static inline bool map_high(uint64_t gpa)
{
	static volatile uint64_t maps[HIGH_GIBS][PAGE_ENTRIES] __attribute__((aligned(4096)));
	static unsigned used;
	unsigned gib = (unsigned)(gpa >> 30);

	if (page_map_1g[gib] != 0)
		return true;
	if (used == HIGH_GIBS)
		return false;
	for (uint64_t i = 0; i < PAGE_ENTRIES; i++)
		maps[used][i] = (uint64_t)gib << 30 | i << 21 | 0x87;
	page_map_1g[gib] = (uintptr_t)maps[used++] | 7;
	return true;
}

/* ---- memory: the compiler may call these -------------------------------------- */

void *memset(void *target, int value, size_t size);
void *memcpy(void *target, const void *source, size_t size);

void *memset(void *target, int value, size_t size)
{
	void *end = target;

	__asm__ volatile("rep stosb" : "+D"(end), "+c"(size) : "a"(value) : "memory");
	return target;
}

void *memcpy(void *target, const void *source, size_t size)
{
	void *end = target;

	__asm__ volatile("rep movsb" : "+D"(end), "+S"(source), "+c"(size) : : "memory");
	return target;
}

static inline bool memory_equal(const void *a, const void *b, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (((const uint8_t *)a)[i] != ((const uint8_t *)b)[i])
			return false;
	return true;
}

static inline bool text_equal(const char *a, const char *b)
{
	while (*a != '\0' && *a == *b)
		a++, b++;
	return *a == *b;
}

/* ---- output on COM1 ------------------------------------------------------------ */

enum { COM1 = 0x3f8, UART_DATA = 0, UART_LSR = 5, UART_LSR_READY = 0x01, UART_LSR_EMPTY = 0x20 };

static inline void print_char(char c)
{
	while ((in8(COM1 + UART_LSR) & UART_LSR_EMPTY) == 0)
		;
	out8(COM1 + UART_DATA, (uint8_t)c);
}

static inline void print_string(const char *text)
{
	while (*text != '\0')
		print_char(*text++);
}

static inline void print_number(uint64_t number, unsigned base)
{
	char digits[65];
	unsigned at = sizeof(digits) - 1;

	digits[at] = '\0';
	do {
		digits[--at] = "0123456789abcdef"[number % base];
		number /= base;
	} while (number != 0);
	print_string(&digits[at]);
}

/* %s, %u (uint64_t, decimal) and %x (uint64_t, hex); nothing else. */
static inline void print(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	for (; *format != '\0'; format++) {
		if (*format != '%') {
			print_char(*format);
			continue;
		}
		format++;
		if (*format == 's')
			print_string(va_arg(args, const char *));
		else
			print_number(va_arg(args, uint64_t), *format == 'x' ? 16 : 10);
	}
	va_end(args);
}

/* ---- the boot protocol's data -------------------------------------------------- */

static inline uint64_t load(const void *address, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)((const uint8_t *)address)[i] << (8 * i);
	return value;
}

static inline const char *command_line(const uint8_t *zero_page)
{
	return (const char *)(load(zero_page + 0x228, 4) | load(zero_page + 0xc8, 4) << 32);
}

/* Copies what follows `name` up to the next blank; false when it is not there or too long. */
static inline bool find_param(const char *line, const char *name, char *ret_value, size_t size)
{
	for (; *line != '\0'; line++) {
		size_t i = 0;

		while (name[i] != '\0' && line[i] == name[i])
			i++;
		if (name[i] != '\0')
			continue;
		for (line += i, i = 0; line[i] != '\0' && line[i] != ' '; i++) {
			if (i + 1 >= size)
				return false;
			ret_value[i] = line[i];
		}
		ret_value[i] = '\0';
		return true;
	}
	return false;
}

static inline uint64_t find_number(const char *line, const char *name, uint64_t otherwise)
{
	char text[24];
	uint64_t number = 0;

	if (!find_param(line, name, text, sizeof(text)))
		return otherwise;
	for (const char *c = text; *c >= '0' && *c <= '9'; c++)
		number = number * 10 + (unsigned)(*c - '0');
	return number;
}
