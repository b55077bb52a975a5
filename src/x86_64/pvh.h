/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The start of day structure of the PVH boot protocol, version 1: what ebx
 * points to when a kernel is entered at its PVH note.
 *
 * Source: Xen's public/arch-x86/hvm/start_info.h. Main thread.
 */
#pragma once

#include "x86_64/boot.h"

/* Writes hvm_start_info and what it points to at LAYOUT_PVH_INFO. 0 or -EFAULT. */
MUST_CHECK int pvh_write_start_info(
	const struct guest_memory *memory, const struct boot_request *request);
