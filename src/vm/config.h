/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the user asked for. Filled by cli/run.c from the command line, read by
 * vm.c; strings belong to the command line or to cli/run.c and outlive the VM.
 */
#pragma once

#include "base/util.h"
#include "memory/guest_memory.h"
#include "virtio/block.h"
#include "vm/console.h"

/* The smallest guest that boot data and a kernel fit in, and the largest that we lay out. */
enum { MEMORY_MIB_MIN = 16, MEMORY_MIB_MAX = 64 << 20 };

enum { VM_DISKS_MAX = 200 };

struct vm_config {
	const char *kernel_path;
	const char *initrd_path; /* NULL: none */
	const char *params;      /* what -p gave, joined by spaces; "" without */
	uint64_t memory_size;    /* bytes, a multiple of 1 MiB */
	unsigned memory_flags;   /* enum guest_memory_flags */
	unsigned vcpus;
	struct console_config serial; /* COM1 */
	struct block_options *disks;  /* in the order of /dev/vda, vdb, ... */
	unsigned disk_count;
	int root_disk; /* which of them has the root file system, or -1 */
};
