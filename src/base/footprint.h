/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How much of our own program stays in memory.
 *
 * The kernel maps the file 64 KiB at a time around what is touched, so that
 * after the start nearly all of it is counted as ours, though a running VM
 * uses a few pages of it. The same holds for the main thread's stack, of which a
 * start uses ten pages and a rest three.
 */
#pragma once

/* How long a process's main thread waits for something to do before it lets its code go. */
enum { FOOTPRINT_FIRST_MS = 1000, FOOTPRINT_STEADY_MS = 64000 };

/*
 * Nothing came for *timeout_ms: what the start needed, or work that is over, is
 * of no use. Drops the mappings of our code and constants, which come back from
 * the page cache when they are next touched, and on the main thread what earlier
 * calls left on its stack. The next time is to be twice as late, up to
 * FOOTPRINT_STEADY_MS. Any thread, any time; cannot fail.
 */
void footprint_drop_program(int *timeout_ms);
