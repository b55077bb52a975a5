/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What joins a device's eventfds with the guest, so that a kick and an
 * interrupt pass between guest and device without the main process: message
 * signalled interrupts (irqfds on GSIs) and doorbells (ioeventfds). The vm
 * module supplies it, on top of KVM; devices know only this table.
 *
 * Any thread may call; the owner locks. 0 or -errno.
 */
#pragma once

#include "base/util.h"

struct fabric_ops {
	/* Reserves `count` GSIs for messages; they go on in a row from *ret_gsi. */
	int (*allocate_gsis)(void *owner, unsigned count, unsigned *ret_gsi);
	/* What a GSI sends from the next commit on. */
	void (*set_message)(void *owner, unsigned gsi, uint64_t address, uint32_t data);
	/* Makes all messages set so far take effect, in one system call. */
	int (*commit_messages)(void *owner);
	/*
	 * From now on (or no longer) a signal of the eventfd sends the GSI's
	 * message. An eventfd that is readable when attached sends at once: so
	 * a masked interrupt waits in its eventfd.
	 */
	int (*attach_interrupt)(void *owner, unsigned gsi, int eventfd);
	int (*detach_interrupt)(void *owner, unsigned gsi, int eventfd);
	/* From now on (or no longer) any write of the guest at `gpa` signals the eventfd. */
	int (*attach_doorbell)(void *owner, uint64_t gpa, int eventfd);
	int (*detach_doorbell)(void *owner, uint64_t gpa, int eventfd);
	/*
	 * The control loop calls `function` while the eventfd is readable. After
	 * unwatch it may still run once in another thread.
	 */
	int (*watch)(void *owner, int eventfd, void (*function)(void *argument), void *argument);
	void (*unwatch)(void *owner, int eventfd);
	/* From now on reads of PCI config space exit, so that a device can answer them. */
	void (*trap_config_reads)(void *owner);
};

struct fabric {
	const struct fabric_ops *ops;
	void *owner;
};
