/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whole numbers as the kernel writes and reads them in /proc. Not by scanf() and
 * printf(): a process that has just been cloned pays for each 64 KiB of the
 * program that it touches, and those two lie in nine.
 */
#pragma once

#include "base/util.h"

/*
 * Reads the number at *text, with or without a '-' before it, and moves *text
 * behind it. False, with *text and the number untouched, where there is none or
 * it has more than 18 digits, which nothing has that is read by this.
 */
MUST_CHECK bool decimal_take(const char **text, int64_t *ret_number);

enum { DECIMAL_SIZE = 21 }; /* room for any number and the end of the string */

/* Writes it to `at`, with the string's end, and returns where that is. */
char *decimal_put(char *at, int64_t number);
