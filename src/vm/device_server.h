/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One device alone, as a vhost-user back end on a socket that a VMM connects
 * to: what `crosvm device` runs. Main thread; the rings have theirs.
 */
#pragma once

#include "virtio/device.h"

/*
 * Opens the device and listens; serves one front end after the other until
 * SIGTERM, SIGINT or SIGHUP, and removes the socket. 0 or -errno, logged. A
 * device that the kernel would serve is -EINVAL.
 */
MUST_CHECK int device_server_run(
	const struct device_class *class, const void *options, const char *socket_path);
