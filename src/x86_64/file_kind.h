/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names what a file is that is not a kernel for us, so that the refusal can
 * say what to pass instead. A guess by signatures, for people only: nothing is
 * ever loaded because of it.
 */
#pragma once

#include "x86_64/image_file.h"

struct file_kind {
	const char *what;   /* "gzip compressed data": completes "it is ..." */
	const char *remedy; /* "decompress it": completes "...; ..." */
};

/* May read the file beyond its head. Never fails: the last resort is "not a kernel ...". */
struct file_kind file_kind_guess(const struct image_file *file);
