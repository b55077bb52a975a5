/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The disk options of `crosvm run`: --block and the short forms that the first
 * crosvm had. Each adds a disk to the configuration, in the order given.
 */
#pragma once

#include "vm/config.h"

/* 0, or -EINVAL, logged. `spec` is changed and stays in use. */
MUST_CHECK int disks_add_block(struct vm_config *config, char *spec);
/* A disk with all else by default; `option` is for messages. */
MUST_CHECK int disks_add_path(
	struct vm_config *config, const char *option, const char *path, bool read_only, bool root);
