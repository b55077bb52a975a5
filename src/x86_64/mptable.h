/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The MP table, for kernels without ACPI: the floating pointer in the EBDA,
 * the configuration table behind the ACPI tables' place in the BIOS area.
 *
 * Its APIC ids have 8 bits: of more than 255 vCPUs it lists the first 255.
 * Main thread, before any vCPU runs. Source: Intel MultiProcessor
 * Specification 1.4, chapter 4.
 */
#pragma once

#include "memory/guest_memory.h"

/* 0, or -ENOSPC when there is no memory where it belongs. */
MUST_CHECK int mptable_write(const struct guest_memory *memory, unsigned vcpus);
