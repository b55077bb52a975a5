/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The CMOS RAM of a PC and its clock, an MC146818.
 *
 * The clock shows the host's UTC. The guest can change how it reads (BCD or
 * binary, 12 or 24 hours) but not set it: while SET in register B is 1 the
 * clock registers stand still and can be written, and when SET goes back to 0
 * they show the host's time again. Update-in-progress is shown in the last
 * millisecond of each second, so a reader that honours it never sees half an
 * update.
 *
 * Of its interrupts it has the alarm's (AIE in register B), which Linux makes
 * update interrupts of too. AF in register C is set only where AIE is. Alarms
 * come when the seconds match, so a guest gets one a second at most.
 *
 * vCPU threads bring the accesses; it has a lock of its own.
 */
#pragma once

#include <time.h>

#include "base/util.h"
#include "bus/bus.h"
#include "bus/irq.h"

enum { CMOS_PORT_SIZE = 2 }; /* index and data */

struct cmos;

/*
 * What the alarm needs of the host: cmos_timer_expired() is to be called once
 * CLOCK_REALTIME has come to `when`, in place of what was set before; 0: not at
 * all. set() is called under the CMOS's lock, in any thread; NULL: no alarms.
 */
struct cmos_timer {
	void (*set)(void *owner, time_t when);
	void *owner;
};

/*
 * `ram_below_4gib` and `ram_above_4gib`, in bytes, are what the memory size
 * registers say; 0 leaves them 0. `irq` is high from an alarm until register C
 * is read. 0 or -ENOMEM.
 */
MUST_CHECK int cmos_create(uint64_t ram_below_4gib, uint64_t ram_above_4gib, struct irq_line irq,
	struct cmos_timer timer, struct cmos **ret_cmos);
void cmos_free(struct cmos *cmos);

/* `now` by CLOCK_REALTIME. Any thread; harmless when the timer was set anew meanwhile. */
void cmos_timer_expired(struct cmos *cmos, time_t now);

/* For a bus range of CMOS_PORT_SIZE; the device is the struct cmos. */
extern const struct bus_ops cmos_bus_ops;
