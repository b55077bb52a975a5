/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One device alone, as a vhost-user back end on a socket that a VMM connects
 * to: what `crosvm device` runs. The device is in a jailed process, the same as
 * with `crosvm run -u`; this one waits for front ends, hands each over when the
 * one before has gone, and looks at nothing that they send. Main thread.
 */
#pragma once

#include "virtio/device.h"
#include "vm/device_process.h"

/*
 * Opens the device, jails it and listens; serves one front end after the other
 * until SIGTERM, SIGINT or SIGHUP, and removes the socket. 0 or -errno, logged.
 * A device that the kernel would serve is -EINVAL; -ECHILD: its process ended.
 */
MUST_CHECK int device_server_run(const struct device_class *class, const void *options,
	const char *socket_path, const struct device_jail *jail);
