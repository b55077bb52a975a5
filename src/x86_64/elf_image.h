/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ELF kernels: vmlinux, kernels with a PVH note (Linux, FreeBSD, NetBSD, small
 * test guests), and Linux's arch/x86/boot/compressed/vmlinux, which is linked
 * at 0 and decompresses itself.
 */
#pragma once

#include "x86_64/image_file.h"

bool elf_image_matches(const struct image_file *file);
/* 0, or an error as of kernel_image_load(), logged. */
MUST_CHECK int elf_image_load(const struct image_file *file, struct kernel_image *ret_image);
