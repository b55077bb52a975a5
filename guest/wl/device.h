/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A driver for virtio-wayland in user space, for kernels that have none: by
 * uio_pci_generic, with rings in a huge page and the device's shared memory by
 * /dev/mem. Needs root. One thread. Functions that fail say why on stderr.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WL_FDS_MAX = 28, WL_DATA_MAX = 4000, WL_READ = 2, WL_WRITE = 1 };

struct device;

/* What the device says. */
struct device_event {
	enum { EVENT_NEW, EVENT_DATA, EVENT_HUP } kind;
	uint32_t vfd;
	uint32_t flags; /* NEW: WL_READ, WL_WRITE: what the guest may do */
	uint64_t pfn;
	uint32_t size;  /* bytes; 0: it is a pipe, or nothing if there are no flags */
	unsigned count; /* DATA: vfds, then bytes */
	uint32_t ids[WL_FDS_MAX];
	const uint8_t *data;
	size_t data_size;
};

/* The machine's wayland device, for the rest of the process; NULL: none, or another process has it.
 */
struct device *device_open(void);
/* It forgets all that it was told, and writes to memory no more. */
void device_stop(struct device *device);
/* Readable when device_next_event() may have something; then call device_rearm(). */
int device_fd(const struct device *device);
void device_rearm(struct device *device);
/* Valid until the next call. False: none. */
bool device_next_event(struct device *device, struct device_event *ret_event);

/* All of these ask the device and wait for its answer, which is soon. A vfd, or 0. */
uint32_t device_new_context(struct device *device);
uint32_t device_new_pipe(struct device *device, unsigned direction);
uint32_t device_new_memory(struct device *device, uint32_t size, uint64_t *ret_pfn);
void device_close_vfd(struct device *device, uint32_t vfd);

/* Busy is a pipe whose reader is behind: nothing was taken. Refused is all that has an end. */
enum sent { SENT, SEND_BUSY, SEND_REFUSED };
enum sent device_send(struct device *device, uint32_t vfd, const void *data, size_t size,
	const uint32_t *ids, unsigned count);

/* A view of a vfd's memory; NULL: none. munmap() it. */
void *device_map(const struct device *device, uint64_t pfn, size_t size, bool writable);
