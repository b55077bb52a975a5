/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ACPI tables: RSDP, XSDT, FADT, FACS, MADT, MCFG and the DSDT that iasl
 * compiled from dsdt.asl. They describe the fixed platform of platform.h and
 * the processors, in the BIOS area below 1 MiB.
 *
 * The machine is always in ACPI mode (no SMI command). Main thread, before any
 * vCPU runs. Source: ACPI specification 6.4, chapter 5.
 */
#pragma once

#include "memory/guest_memory.h"

struct acpi_request {
	unsigned vcpus;
	uint64_t pci_window_gpa; /* where the PCI BARs are */
	uint64_t pci_window_size;
};

/* 0 and the RSDP's gpa, or -ENOSPC (never with the vCPUs that KVM allows). */
MUST_CHECK int acpi_write(const struct guest_memory *memory, const struct acpi_request *request,
	uint64_t *ret_rsdp_gpa);
