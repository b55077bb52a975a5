/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What to do about an error of the host's, for the end of a message. It knows
 * the error only: who knows more, says more. Texts are constant.
 */
#pragma once

#include "base/util.h"

/* What to do when a file that the user named cannot be opened; `error` is a positive errno. */
const char *advice_open(int error);

/* When a limit of this process or its user is the reason: which. NULL: it is not. */
const char *advice_limit(int error);
