/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ACPI tables: RSDP, XSDT, FADT, FACS, MADT and the DSDT that iasl
 * compiled from dsdt.asl. They describe the fixed platform of platform.h and
 * `vcpus` processors, in the BIOS area below 1 MiB.
 *
 * The machine is always in ACPI mode (no SMI command). Main thread, before any
 * vCPU runs. Source: ACPI specification 6.4, chapter 5.
 */
#pragma once

#include "memory/guest_memory.h"

/* 0 and the RSDP's gpa, or -ENOSPC (never with the vCPUs that KVM allows). */
MUST_CHECK int acpi_write(
	const struct guest_memory *memory, unsigned vcpus, uint64_t *ret_rsdp_gpa);
