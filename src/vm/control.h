/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control loop: the main thread while the VM runs. It waits for the end of
 * the VM and for signals; SIGTERM, SIGINT and SIGHUP stop the VM in good order.
 */
#pragma once

#include "base/evloop.h"
#include "base/util.h"
#include "vm/console.h"
#include "vm/lifecycle.h"

struct control {
	int signalfd;        /* owned; -1 until the loop runs: signals wait */
	struct evloop *loop; /* owned; other things to watch */
};

/*
 * Blocks the signals that the loop takes, and SIGPIPE and SIGXFSZ, in this
 * thread and in all threads that it starts later. Must come before the first thread. 0 or -errno.
 */
MUST_CHECK int control_init(struct control *control);
void control_destroy(struct control *control);

/* Returns when the VM has ended. */
enum vm_end control_run(
	struct control *control, struct lifecycle *lifecycle, struct console *console);
