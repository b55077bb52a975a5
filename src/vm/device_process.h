/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device in a jailed process of its own: made before the machine exists, and
 * hostile once a guest talks to it. In `crosvm run` it is reached by vhost-user
 * over a socket pair; in `crosvm device` it serves what connects. Main thread.
 */
#pragma once

#include "jail/jail.h"
#include "memory/guest_memory.h"
#include "virtio/device.h"
#include "virtio/vhost.h"
#include "virtio/vhost_user_message.h"

/* How device processes are jailed: what the user asked for. */
struct device_jail {
	bool best_effort;       /* go on with what the host refuses */
	bool log_violations;    /* a forbidden system call is logged and made */
	const char *policy_dir; /* with seccomp policies instead of the embedded; NULL: none */
};

struct device_process {
	struct jail_process jail;   /* pid 0: there is none */
	struct jail_process helper; /* of ops->helper; pid 0: there is none */
	int socket;                 /* owned until it is behind the contract; -1 */
	/* What the device offers, from when it was still here. */
	uint64_t features;
	unsigned queues;
	uint8_t config[VHOST_USER_CONFIG_MAX];
};

/* What the new process finds in its copy of our memory. */
struct device_birth {
	const struct device_ops *ops;
	struct device *device;
	int socket; /* its end of the pair */
};

/* In the new process: the device behind the contract, without memory, which it owns from now on
 * also on failure. 0 or -errno. */
MUST_CHECK int device_process_back(const struct device_birth *birth, struct vhost **ret_vhost);

/* The life of a device process: its exit status. With a stream socket: serves the one front end. */
int device_process_serve(const struct device_birth *birth);

/* Two connected unix sockets, for a device and who is in front of it. 0 or -errno, logged. */
MUST_CHECK int device_process_make_pair(const char *name, int type, int ret_ends[2]);

/* Who is told, from any thread, that a device broke the protocol, hung up or did not answer. */
struct device_loss {
	void (*lost)(void *owner);
	void *owner;
};

/*
 * Jails a process around an open device, which runs `main` there. `type` is that
 * of the socket pair. `device` stays the caller's, of whom it lets go: its files
 * are the process's alone then. While the caller has one thread. 0 or -errno, logged.
 */
MUST_CHECK int device_process_start(const struct device_jail *jail, const struct device_ops *ops,
	struct device *device, int type, int (*main)(const struct device_birth *birth),
	struct device_process *ret_process);

/* Lets it begin, if it has not: until then it does nothing. See jail_release(). */
void device_process_release(struct device_process *process);

/* Waits until the jail is complete. 0 or -errno, logged. */
MUST_CHECK int device_process_wait(struct device_process *process, const struct device_ops *ops);

/*
 * Puts it behind the contract, without waiting for it: what it offers is known.
 * What it is asked before its jail is complete waits. 0 or -errno, logged; the
 * back half is freed before device_process_end().
 */
MUST_CHECK int device_process_connect(struct device_process *process, const struct device_ops *ops,
	const struct guest_memory *memory, const struct device_loss *loss,
	struct vhost **ret_vhost);

/*
 * Logs how the device's process or its helper ended, if there was one and it has.
 * Whether that tells why the device is lost: with status 0, one followed another.
 */
bool device_process_report(const struct jail_process *process, const char *name);

/* Ends it, and leaves none. A process that was never started is fine. */
void device_process_end(struct device_process *process);
