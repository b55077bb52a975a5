/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ACPI power management: the fixed registers that the FADT names (ACPI 6.4,
 * 4.8.3), with a power button, power off, the timer and the reset register.
 * The machine is always in ACPI mode. The timer counts all 32 bits from 0 at
 * creation and never raises an interrupt.
 *
 * vCPU threads bring the accesses, any thread presses the button; it has a
 * lock of its own.
 */
#pragma once

#include "base/util.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "bus/power.h"

/* Where the blocks lie in the range, for the FADT. */
enum {
	ACPI_PM_EVENT = 0,   /* PM1a_EVT_BLK, 4 bytes: status, enable */
	ACPI_PM_CONTROL = 4, /* PM1a_CNT_BLK, 2 bytes */
	ACPI_PM_TIMER = 8,   /* PM_TMR_BLK, 4 bytes */
	ACPI_PM_PORT_SIZE = 16,
};

struct acpi_pm;

/*
 * `sci` is the level-triggered system control interrupt. The guest's first
 * power off or reset is requested from `power`; later ones do nothing. Both
 * are copied. 0 or -ENOMEM.
 */
MUST_CHECK int acpi_pm_create(
	struct irq_line sci, struct power_sink power, struct acpi_pm **ret_acpi_pm);
void acpi_pm_free(struct acpi_pm *acpi_pm);

/* A range of ACPI_PM_PORT_SIZE; the device is the struct acpi_pm. */
extern const struct bus_ops acpi_pm_bus_ops;
/* A range of one port, the reset register: a write with bit 2 set resets. Same device. */
extern const struct bus_ops acpi_reset_bus_ops;

/* Presses the power button; the guest's OS decides what it does about it. */
void acpi_pm_press_power_button(struct acpi_pm *acpi_pm);
