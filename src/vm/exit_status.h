/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Exit statuses of crosvm: interface, documented in crosvm(1). A number never
 * changes its meaning.
 */
#pragma once

enum exit_status {
	STATUS_OK = 0,     /* the guest powered off or rebooted, or the VM was told to stop */
	STATUS_HOST = 1,   /* the host lacks something or failed: KVM, memory, files */
	STATUS_USAGE = 2,  /* the command line is wrong */
	STATUS_IMAGE = 3,  /* the kernel or the initrd was refused */
	STATUS_CRASH = 4,  /* the guest crashed: kernel panic or triple fault */
	STATUS_KVM = 5,    /* KVM could not go on with the guest */
	STATUS_DEVICE = 6, /* with -u: a device's process ended, stopped or broke the protocol */
};
