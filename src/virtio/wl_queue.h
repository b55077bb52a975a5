/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rings of the wayland device, shared by wl.c (what it is) and wl_queue.c.
 * The thread of the in queue reads from the compositor and fills the guest's
 * buffers; that of the out queue takes commands and sends what was pending.
 * Each holds the host's lock for one message or command.
 */
#pragma once

#include "virtio/device.h"
#include "virtio/wl_host.h"

enum { WL_IN, WL_OUT, WL_QUEUES };
enum { WL_QUEUE_SIZE = 64 };

struct device {
	struct wl_host *host;
	uint8_t command[WL_COMMAND_MAX]; /* the out queue's copy of a command */
};

/* The serve functions of each queue; see device.h. */
MUST_CHECK int wl_serve_in(struct device_queue *queue);
MUST_CHECK int wl_serve_out(struct device_queue *queue);
