/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Why a host refuses namespaces, and which knob allows them. Looks at the
 * host's sysctls, which are true; that none of them explains an error only
 * means that something else does.
 */
#pragma once

#include "base/util.h"

/*
 * What to do about `error` (a positive errno) of making a namespace or of what
 * a new user namespace must allow. `proc_sys` is "/proc/sys" but in tests. The
 * text is constant.
 */
const char *jail_advice(const char *proc_sys, int error);
