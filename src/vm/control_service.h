/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the control socket's verbs do to a VM, and the events that it tells of.
 * Who connects is trusted with the VM (control_socket.h says who that is), but
 * not to be well: requests may be anything.
 *
 * All functions are for the main thread, and take NULL for a VM without a
 * control socket.
 */
#pragma once

#include "base/evloop.h"
#include "vm/config.h"
#include "vm/devices.h"
#include "vm/lifecycle.h"
#include "vm/platform.h"
#include "vm/vcpu.h"

struct control_service;

/* The parts of a VM that verbs work on. All borrowed. */
struct control_parts {
	const struct vm_config *config;
	struct lifecycle *lifecycle;
	struct platform *platform;
	struct devices *devices;
	struct vcpu_set *vcpus;
};

/*
 * Listens at the path (control_socket_open()); clients wait until the VM runs.
 * With NULL as path there is no service: *ret_service is NULL. 0 or -errno, logged.
 */
MUST_CHECK int control_service_open(const char *path, struct control_service **ret_service);
/* Of its socket; NULL without a service. */
const char *control_service_path(const struct control_service *service);

/* Once all parts are there and before the guest runs: its failures are watched. 0 or -errno,
 * logged. */
MUST_CHECK int control_service_start(
	struct control_service *service, const struct control_parts *parts, struct evloop *loop);

/* Tells those who listen how the VM ended. Its parts are not looked at any more. */
void control_service_end(struct control_service *service, enum vm_end end);
/* Last of all: that its connection closes tells a client that the VM is gone. */
void control_service_free(struct control_service *service);
