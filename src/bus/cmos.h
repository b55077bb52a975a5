/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The CMOS RAM of a PC and its clock, an MC146818 without interrupt line.
 *
 * The clock shows the host's UTC. The guest can change how it reads (BCD or
 * binary, 12 or 24 hours) but not set it: while SET in register B is 1 the
 * clock registers stand still and can be written, and when SET goes back to 0
 * they show the host's time again. Update-in-progress is shown in the last
 * millisecond of each second, so a reader that honours it never sees half an
 * update. Alarms are plain storage.
 *
 * vCPU threads bring the accesses; it has a lock of its own.
 */
#pragma once

#include "base/util.h"
#include "bus/bus.h"

enum { CMOS_PORT_SIZE = 2 }; /* index and data */

struct cmos;

/*
 * `ram_below_4gib` and `ram_above_4gib`, in bytes, are what the memory size
 * registers say; 0 leaves them 0. 0 or -ENOMEM.
 */
MUST_CHECK int cmos_create(
	uint64_t ram_below_4gib, uint64_t ram_above_4gib, struct cmos **ret_cmos);
void cmos_free(struct cmos *cmos);

/* For a bus range of CMOS_PORT_SIZE; the device is the struct cmos. */
extern const struct bus_ops cmos_bus_ops;
