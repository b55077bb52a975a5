// SPDX-License-Identifier: BSD-3-Clause
//
// The devices that a kernel cannot find by probing, and the sleep state that
// means power off. Ports and interrupts are those of platform.h.
DefinitionBlock ("", "DSDT", 2, "CROSVM", "CROSVM", 0x00000001)
{
	Name (\_S5, Package () { 0x05, 0x00, 0x00, 0x00 })

	Scope (\_SB)
	{
		// 16550A serial ports
		Device (COM1)
		{
			Name (_HID, EisaId ("PNP0501"))
			Name (_UID, One)
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08)
				IRQNoFlags () {4}
			})
		}

		Device (COM2)
		{
			Name (_HID, EisaId ("PNP0501"))
			Name (_UID, 0x02)
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x02F8, 0x02F8, 0x01, 0x08)
				IRQNoFlags () {3}
			})
		}

		Device (COM3)
		{
			Name (_HID, EisaId ("PNP0501"))
			Name (_UID, 0x03)
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x03E8, 0x03E8, 0x01, 0x08)
				IRQNoFlags () {4}
			})
		}

		Device (COM4)
		{
			Name (_HID, EisaId ("PNP0501"))
			Name (_UID, 0x04)
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x02E8, 0x02E8, 0x01, 0x08)
				IRQNoFlags () {3}
			})
		}

		// Real-time clock, without an interrupt: it has no alarms
		Device (RTC)
		{
			Name (_HID, EisaId ("PNP0B00"))
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x0070, 0x0070, 0x01, 0x02)
			})
		}

		// Ports that no driver claims: ACPI power management and reset
		Device (MBRD)
		{
			Name (_HID, EisaId ("PNP0C02"))
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x0600, 0x0600, 0x01, 0x10)
				IO (Decode16, 0x0CF9, 0x0CF9, 0x01, 0x01)
			})
		}
	}
}
