/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A guest of test cases: the kernel parameter test=NAME chooses one, which
 * prints "PASS NAME" or "FAIL NAME: why" and powers off. A case returns when
 * it passed, calls fail() when not, and may end the VM itself.
 */
#pragma once

#include "runtime.h"

enum {
	PORT_PM1_STATUS = 0x600,
	PORT_PM1_ENABLE = 0x602,
	PORT_PM1_CONTROL = 0x604,
	PORT_PM_TIMER = 0x608,
	PORT_RESET = 0xcf9,
	PORT_I8042 = 0x64,
	PORT_CMOS = 0x70
};
enum { SLEEP_TYPE_OFF = 5, SLEEP_ENABLE = 1 << 13, PM_TIMER_HZ = 3579545 };

struct test_case {
	const char *name;
	void (*run)(void);
};

/* Defined by the guest; ends with an empty row. */
extern const struct test_case cases[];

static const uint8_t *zero_page;
static const char *params;
static const struct test_case *current;

/* A gpa as a pointer that the compiler knows nothing about, not even that it is not NULL. */
static inline void *at(uint64_t gpa)
{
	__asm__("" : "+r"(gpa));
	return (void *)gpa;
}

static inline _Noreturn void power_off(void)
{
	out16(PORT_PM1_CONTROL, SLEEP_TYPE_OFF << 10 | SLEEP_ENABLE);
	print("\nFAIL: the VM runs on after power off\n");
	triple_fault();
}

#define fail(...)                                                                                  \
	do {                                                                                       \
		print("\nFAIL %s: ", current->name);                                               \
		print(__VA_ARGS__);                                                                \
		print("\n");                                                                       \
		power_off();                                                                       \
	} while (0)

_Noreturn void guest_main(const uint8_t *boot_params)
{
	char name[32];

	zero_page = boot_params;
	params = command_line(boot_params);
	if (!find_param(params, "test=", name, sizeof(name)))
		name[0] = '\0';
	for (current = cases; current->name != NULL; current++) {
		if (!text_equal(name, current->name))
			continue;
		current->run();
		print("\nPASS %s\n", current->name);
		power_off();
	}
	print("\nFAIL %s: there is no such case\n", name);
	power_off();
}
