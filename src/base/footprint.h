/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How much of our own program stays mapped.
 *
 * The kernel maps the file 64 KiB at a time around what is touched, so that
 * after the start nearly all of it is counted as ours, though a running VM
 * uses a few pages of it.
 */
#pragma once

/*
 * Drops the mappings of our code and constants; what runs comes back from the
 * page cache when it is next touched. Any thread, any time; cannot fail.
 */
void footprint_drop_program(void);
