/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bzImage, by the 64-bit boot protocol of Documentation/arch/x86/boot.rst:
 * version 2.12 or later with a 64-bit entry, which every x86-64 Linux since
 * 3.8 (2013) has.
 */
#pragma once

#include "x86_64/image_file.h"

bool bzimage_matches(const struct image_file *file);
/* 0, or an error as of kernel_image_load(), logged. */
MUST_CHECK int bzimage_load(const struct image_file *file, struct kernel_image *ret_image);
