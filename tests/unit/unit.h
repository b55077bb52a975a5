/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every unit test includes first: cmocka wants these headers before its
 * own. A test program is one test_*.c, linked with everything but cli/main.c.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
