/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ports and interrupt lines of the platform devices. The ACPI tables tell the
 * guest, vm/platform.c puts the devices there, and dsdt.asl repeats the ones
 * it names: change them together.
 */
#pragma once

enum platform_port {
	PORT_CMOS = 0x70,
	PORT_I8042_DATA = 0x60,
	PORT_I8042_COMMAND = 0x64,
	PORT_COM1 = 0x3f8,
	PORT_ACPI_PM = 0x600, /* 16 bytes: PM1a event, PM1a control, PM timer */
	PORT_ACPI_RESET = 0xcf9,
};

enum platform_gsi {
	GSI_COM1 = 4,
	GSI_RTC = 8,
	GSI_SCI = 9,
	GSI_PCI_FIRST = 16, /* INTA of slot n pulls GSI 16 + n % 8 */
	GSI_PCI_COUNT = 8,
};

/* What to write to PORT_ACPI_RESET, and the sleep type that means power off. */
enum { ACPI_RESET_VALUE = 0x06, ACPI_SLEEP_TYPE_OFF = 5 };
