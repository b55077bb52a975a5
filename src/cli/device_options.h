/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device options of `crosvm run`: --NAME for each line of devices.def, and
 * the short forms for disks that the first crosvm had. Each adds a device to
 * the configuration, in the order given. `option` is what messages name, "--block".
 */
#pragma once

#include "vm/config.h"

/* The device of that name, a line of devices.def; NULL: there is none. */
const struct device_class *device_options_find_class(const char *name);

/*
 * The options that `spec` asks for, in memory to be freed. `spec` is changed and
 * stays in use; NULL: all by default. 0, or -errno, logged.
 */
MUST_CHECK int device_options_make(
	const char *option, const struct device_class *class, char *spec, void **ret_options);
/* `spec` is changed and stays in use; NULL: an option without value. 0, or -errno, logged. */
MUST_CHECK int device_options_add(
	struct vm_config *config, const char *option, const struct device_class *class, char *spec);
/* A disk with all else by default. 0, or -errno, logged. */
MUST_CHECK int device_options_add_disk(
	struct vm_config *config, const char *option, const char *path, bool read_only, bool root);
/* --host_ip, --netmask and --mac, NULL where not given: all three or none. 0, or -errno, logged. */
MUST_CHECK int device_options_add_seed_net(
	struct vm_config *config, const char *host_ip, const char *netmask, const char *mac);
/* "type=T,socket=PATH": a device that another program serves. 0, or -errno, logged. */
MUST_CHECK int device_options_add_foreign(struct vm_config *config, const char *option, char *spec);
/* The value of --jail. 0, or -EINVAL, logged. */
MUST_CHECK int device_options_parse_jail(const char *value, struct device_jail *jail);
/*
 * The compositor of the user's session, if there is one and no other was named; a session
 * without one is a warning. Not in a jail. 0, or -errno, logged.
 */
MUST_CHECK int device_options_add_session(struct vm_config *config);
/* All of them together, and those that several options are about: at most one disk is the root, and
 * the console's file is another. 0, or -EINVAL, logged. */
MUST_CHECK int device_options_check(const struct vm_config *config);
