// SPDX-License-Identifier: BSD-3-Clause
//
// The devices that a kernel cannot find by probing, and the sleep state that
// means power off. Ports and interrupts are those of platform.h.
DefinitionBlock ("", "DSDT", 2, "CROSVM", "CROSVM", 0x00000001)
{
	Name (\_S5, Package () { 0x05, 0x00, 0x00, 0x00 })

	Scope (\_SB)
	{
		// 16550A serial port
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

		// Real-time clock; its interrupt is the alarm's
		Device (RTC)
		{
			Name (_HID, EisaId ("PNP0B00"))
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x0070, 0x0070, 0x01, 0x02)
				IRQNoFlags () {8}
			})
		}

		// PCI bus 0. Its window lies above the RAM; acpi.c leaves word where
		OperationRegion (PRMS, SystemMemory, 0x000E0000, 0x18)
		Field (PRMS, QWordAcc, NoLock, Preserve)
		{
			WMIN, 64,
			WMAX, 64,
			WLEN, 64
		}

		Device (PCI0)
		{
			Name (_HID, EisaId ("PNP0A03"))
			Name (_UID, Zero)
			Name (RSRC, ResourceTemplate ()
			{
				WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
					0x0000, 0x0000, 0x0000, 0x0000, 0x0001)
				QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed,
					Prefetchable, ReadWrite, 0x0000000000000000,
					0x0000000100000000, 0x00000001FFFFFFFF, 0x0000000000000000,
					0x0000000100000000, , , WIND)
			})

			Method (_CRS, 0, Serialized)
			{
				CreateQWordField (RSRC, ^WIND._MIN, CMIN)
				CreateQWordField (RSRC, ^WIND._MAX, CMAX)
				CreateQWordField (RSRC, ^WIND._LEN, CLEN)
				CMIN = WMIN
				CMAX = WMAX
				CLEN = WLEN
				Return (RSRC)
			}

			// INTA of slot n is GSI 16 + n % 8
			Name (_PRT, Package ()
			{
				Package () { 0x0000FFFF, 0, Zero, 0x10 },
				Package () { 0x0001FFFF, 0, Zero, 0x11 },
				Package () { 0x0002FFFF, 0, Zero, 0x12 },
				Package () { 0x0003FFFF, 0, Zero, 0x13 },
				Package () { 0x0004FFFF, 0, Zero, 0x14 },
				Package () { 0x0005FFFF, 0, Zero, 0x15 },
				Package () { 0x0006FFFF, 0, Zero, 0x16 },
				Package () { 0x0007FFFF, 0, Zero, 0x17 },
				Package () { 0x0008FFFF, 0, Zero, 0x10 },
				Package () { 0x0009FFFF, 0, Zero, 0x11 },
				Package () { 0x000AFFFF, 0, Zero, 0x12 },
				Package () { 0x000BFFFF, 0, Zero, 0x13 },
				Package () { 0x000CFFFF, 0, Zero, 0x14 },
				Package () { 0x000DFFFF, 0, Zero, 0x15 },
				Package () { 0x000EFFFF, 0, Zero, 0x16 },
				Package () { 0x000FFFFF, 0, Zero, 0x17 },
				Package () { 0x0010FFFF, 0, Zero, 0x10 },
				Package () { 0x0011FFFF, 0, Zero, 0x11 },
				Package () { 0x0012FFFF, 0, Zero, 0x12 },
				Package () { 0x0013FFFF, 0, Zero, 0x13 },
				Package () { 0x0014FFFF, 0, Zero, 0x14 },
				Package () { 0x0015FFFF, 0, Zero, 0x15 },
				Package () { 0x0016FFFF, 0, Zero, 0x16 },
				Package () { 0x0017FFFF, 0, Zero, 0x17 },
				Package () { 0x0018FFFF, 0, Zero, 0x10 },
				Package () { 0x0019FFFF, 0, Zero, 0x11 },
				Package () { 0x001AFFFF, 0, Zero, 0x12 },
				Package () { 0x001BFFFF, 0, Zero, 0x13 },
				Package () { 0x001CFFFF, 0, Zero, 0x14 },
				Package () { 0x001DFFFF, 0, Zero, 0x15 },
				Package () { 0x001EFFFF, 0, Zero, 0x16 },
				Package () { 0x001FFFFF, 0, Zero, 0x17 }
			})
		}

		// What no driver claims: ACPI power management and reset, ECAM
		Device (MBRD)
		{
			Name (_HID, EisaId ("PNP0C02"))
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, 0x0600, 0x0600, 0x01, 0x10)
				IO (Decode16, 0x0CF9, 0x0CF9, 0x01, 0x01)
				Memory32Fixed (ReadWrite, 0xE0000000, 0x00100000)
			})
		}
	}
}
