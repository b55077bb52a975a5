/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The back half of a device in another process, behind the vhost contract: the
 * front end of the vhost-user protocol.
 *
 * The other process is hostile. Each answer is checked for its form and for
 * what may be in it, and waited for no longer than the device has credit
 * (below). At the first violation, time-out or hang-up the connection is shut
 * down for good: every call then fails at once with -ENOTCONN, the contract's
 * event_fd is readable, the driver sees DEVICE_NEEDS_RESET, and no other device
 * notices. What such a process can still do is read and write guest memory,
 * which it was given, and signal the eventfds that it was given.
 *
 * Credit: a device may let its callers wait VHOST_USER_CREDIT_MS in all; what
 * it used comes back at an eighth of the time that passes. So one that stops is
 * found out after that time, and one that answers everything at the last moment
 * cannot hold a vCPU for more than an eighth of its time. The price: a disk that
 * needs longer than that to finish what is in flight, when its driver resets
 * it, is taken for dead. Who stops it otherwise looks first (device_ops.busy_offset).
 *
 * Ring addresses are user addresses in this protocol, relative to the user
 * addresses in the memory table. Ours are gpas in both places: the other
 * process learns nothing of our address space.
 *
 * The configuration space is kept here. Reads are answered from that copy; it
 * is fetched again at the next read after something that may have changed it: a
 * write of the driver, start, stop and reset of the device.
 *
 * Called with the device's lock held, as the contract says; create and free
 * from the main thread. Source: the vhost-user specification.
 */
#pragma once

#include "memory/guest_memory.h"
#include "virtio/vhost.h"
#include "virtio/vhost_user_credit.h"

enum { VHOST_USER_SETTLE_MS = 500 };

/* What a device offers, where that is known before it is asked. */
struct vhost_user_offer {
	uint64_t features;
	const uint8_t *config; /* config_size bytes; only for the call */
};

/* What is behind the socket, as far as we decide it. */
struct vhost_user_peer {
	const char *name; /* for messages; lives as long as the backend */
	int socket;       /* connected unix stream socket; ownership goes with the call */
	/* Called once when the connection is given up, from any thread that uses it; NULL: nobody.
	 */
	void (*lost)(void *owner);
	void *owner;
	uint16_t queue_size;   /* the most entries of a queue */
	uint32_t config_size;  /* with the next, VHOST_USER_CONFIG_MAX at most */
	uint32_t control_size; /* struct device_ops */
	bool has_window;       /* the device shows files to the guest: vhost_ops.set_window */
	/* It is ours: the VMM may change the space (vhost_ops.change_config), refusals say why. */
	bool takes_changes;
	/* Likewise: it makes durable what the driver wrote before it hangs up. */
	bool syncs;
	/* How much of it there is with these features, zeros after that; NULL: all. */
	uint32_t (*config_used)(uint64_t features);
	/* How many queues it must have, or 0: as many as it says, of which DEVICE_QUEUES_MAX are
	 * used. */
	unsigned queues;
	/* What the space says of queues that are not used does not get to the driver. NULL:
	 * nothing. */
	void (*fit_config)(uint8_t *config, unsigned queues);
	/*
	 * It may stop a ring with work in flight, as qemu-storage-daemon does against
	 * the specification: the ring gets VHOST_USER_SETTLE_MS to come to rest first.
	 */
	bool drops_work;
	unsigned queues_min; /* with 0 above: the fewest, and how many when it does not say */
	/*
	 * For one that keeps no configuration space (no PROTOCOL_F_CONFIG): the device
	 * features that need none. 0: it must have one.
	 */
	uint64_t features_without_config;
	/* The space of such a one and the features that stand in it, of which it hears nothing.
	 * NULL: zeros, and none. */
	const struct vhost_user_offer *own;
	/*
	 * It is ours and speaks all that we do: what it offers, with `queues`, which is
	 * not asked then, so that nothing waits for its process. NULL: it is asked.
	 */
	const struct vhost_user_offer *known;
};

/*
 * Greets the other process and learns what it offers, or tells it what was agreed on. `memory` must
 * outlive the backend. 0, or -errno after logging why: -EPROTO when the other side is no device
 * that we can drive, -ETIMEDOUT, -ENOTCONN, -ENOMEM. Free with
 * (*ret_vhost)->ops->free(), which lets the device finish what is in flight
 * and sync, within its credit.
 */
MUST_CHECK int vhost_user_frontend_create(const struct vhost_user_peer *peer,
	const struct guest_memory *memory, struct vhost **ret_vhost);
