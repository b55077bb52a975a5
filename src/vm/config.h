/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the user asked for. Filled by cli/run.c from the command line, read by
 * vm.c; strings belong to the command line or to cli/run.c and outlive the VM.
 */
#pragma once

#include "base/util.h"
#include "memory/guest_memory.h"
#include "virtio/device.h"
#include "vm/console.h"
#include "vm/device_process.h"

/* The smallest guest that boot data and a kernel fit in, and the largest that we lay out. */
enum { MEMORY_MIB_MIN = 16, MEMORY_MIB_MAX = 64 << 20 };

/* What the user may ask for; PCI has room for a few more. */
enum { VM_DEVICES_MAX = 200 };

struct vm_device {
	const char *option; /* the first that asked for it, for messages */
	const struct device_class *class;
	void *options;            /* owned; class->options_size bytes; NULL for a foreign one */
	uint64_t words;           /* that were given, a bit for each of class->suboptions */
	const char *foreign_path; /* the socket of its back end (--vhost-user); NULL: ours */
};

struct vm_config {
	const char *kernel_path;
	const char *initrd_path; /* NULL: none */
	const char *params;      /* what -p gave, joined by spaces; "" without */
	uint64_t memory_size;    /* bytes, a multiple of 1 MiB */
	unsigned memory_flags;   /* enum guest_memory_flags, as the user wants it */
	unsigned vcpus;
	struct console_config serial; /* COM1 */
	bool multiprocess;            /* each device in a jailed process */
	struct device_jail jail;      /* and how */
	bool sandbox_off;             /* the main process keeps all its rights */
	const char *socket_path;      /* of the control socket; NULL: none */
	struct vm_device *devices;    /* owned; disks in the order of /dev/vda, vdb, ... */
	unsigned device_count;
};

/*
 * Adds a device with a copy of `options`. 0, or -EINVAL when there are too many
 * or -ENOMEM, both logged; `option` is for messages, and kept.
 */
MUST_CHECK int vm_config_add_device(struct vm_config *config, const char *option,
	const struct device_class *class, const void *options);
/* The same for a device that a vhost-user back end at `path` serves. */
MUST_CHECK int vm_config_add_foreign(struct vm_config *config, const char *option,
	const struct device_class *class, const char *path);
/* Whether another process maps the guest's memory. */
bool vm_config_shares_memory(const struct vm_config *config);
void vm_config_free_devices(struct vm_config *config);
