/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Other vCPUs and the passing of time, for tests that need more than one
 * thread of execution. Other vCPUs run in real mode, so what they touch lies
 * in the first MiB.
 */
#pragma once

#include "cases.h"

enum {
	LAPIC = 0xfee00000,
	LAPIC_ICR = 0x300,
	ICR_INIT_OTHERS = 0xc4500,
	ICR_STARTUP_OTHERS = 0xc4600,
	TRAMPOLINE = 0x8000
};

/* Starts all other vCPUs in real mode at `code`, with CS at TRAMPOLINE. */
static inline void start_others(const uint8_t *code, size_t size)
{
	volatile uint32_t *icr = at(LAPIC + LAPIC_ICR);

	memcpy(at(TRAMPOLINE), code, size);
	*icr = ICR_INIT_OTHERS;
	*icr = ICR_STARTUP_OTHERS | TRAMPOLINE >> 12;
}

static inline void wait_ticks(uint32_t ticks)
{
	uint32_t start = in32(PORT_PM_TIMER);

	while (in32(PORT_PM_TIMER) - start < ticks)
		__asm__ volatile("pause");
}
