/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finds out when a device's process is lost: when it ends, or somebody stops
 * it for longer than WATCH_STOPPED_MS. Either is the end of the VM, since a guest
 * cannot go on without its disk. Costs nothing while all is well: the kernel
 * tells of ends by pidfds, of stops by SIGCHLD. For the main thread.
 */
#pragma once

#include "base/evloop.h"
#include "jail/jail.h"
#include "vm/lifecycle.h"

enum { WATCH_STOPPED_MS = 4000, WATCH_MAX = 256 };

struct device_watch;

/* Blocks SIGCHLD in this thread and those that it makes. Before the first process. 0 or -errno. */
MUST_CHECK int device_watch_create(struct lifecycle *lifecycle, struct device_watch **ret_watch);

/* From now on. All are borrowed until device_watch_free(). 0 or -errno. */
MUST_CHECK int device_watch_start(struct device_watch *watch, struct evloop *loop);
MUST_CHECK int device_watch_add(
	struct device_watch *watch, const struct jail_process *process, const char *name);

/* At the end of a VM that lost a process: logs how each ended that did. */
void device_watch_report(struct device_watch *watch);

/* Before the loop and the processes. NULL is fine. */
void device_watch_free(struct device_watch *watch);
