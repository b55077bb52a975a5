/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The checksum of firmware tables (ACPI, MP): a byte that makes the sum of all
 * bytes zero. Computed over the table with that byte zero.
 */
#pragma once

#include "base/util.h"

static inline uint8_t table_checksum(const void *table, uint64_t size)
{
	const uint8_t *byte = table;
	unsigned sum = 0;

	for (uint64_t i = 0; i < size; i++)
		sum += byte[i];
	return (uint8_t)(0x100 - (sum & 0xff));
}
