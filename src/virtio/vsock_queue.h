/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the vsock device, shared by vsock.c (what it is) and
 * vsock_queue.c (its rings, where the kernel does not serve them).
 *
 * One thread does it all, that of the receive queue: a packet of one direction
 * mostly has an answer in the other, and waking a thread for it costs more than
 * the packet. The thread of the transmit queue lends its queue, waits for its
 * end and takes it back; struct vsock_host is under its lock for that.
 */
#pragma once

#include "virtio/device.h"
#include "virtio/vsock_protocol.h"

enum { VSOCK_RX, VSOCK_TX, VSOCK_EVENT, VSOCK_QUEUES };

struct device {
	uint64_t cid;
	int fd;                  /* /dev/vhost-vsock; -1: `host` does it */
	unsigned running;        /* a bit for each of the kernel's queues */
	struct vsock_host *host; /* or NULL */
};

/* Listens at `path`, which stays the caller's as long as that. 0 or -errno, logged. */
MUST_CHECK int vsock_host_open(const char *path, uint64_t cid, struct vsock_host **ret_host);
/* The descriptors that it needs in a jail. How many. */
unsigned vsock_host_fds(const struct vsock_host *host, int ret_fds[DEVICE_FDS_MAX]);
/* Who connects for it there, see connector.h; borrowed. */
void vsock_host_attach(struct vsock_host *host, int connector_fd);
const char *vsock_host_path(const struct vsock_host *host);
/* Another process has them and listens on; only its path and free are left here. */
void vsock_host_let_go(struct vsock_host *host);
void vsock_host_free(struct vsock_host *host);
/* All serve functions have returned. */
void vsock_host_stop(struct vsock_host *host);

/* The serve functions of each queue; see device.h. */
MUST_CHECK int vsock_serve_receive(struct device_queue *queue);
MUST_CHECK int vsock_serve_transmit(struct device_queue *queue);
MUST_CHECK int vsock_serve_event(struct device_queue *queue);
