/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * MSI-X of one PCI function: the vector table, the pending bits, and which
 * eventfd sends which message.
 *
 * A source is an eventfd that asks for an interrupt (a queue's call eventfd,
 * the config change). While the device runs and the source's vector is
 * unmasked, the eventfd is attached to the vector's GSI and never seen here; a
 * masked vector's eventfd simply stays readable, and that is its pending bit.
 *
 * The owner's lock is held around every call.
 * Source: PCI Local Bus 3.0, section 6.8.2.
 */
#pragma once

#include "base/log_limit.h"
#include "base/util.h"
#include "bus/fabric.h"

enum {
	MSIX_VECTORS_MAX = 17,
	MSIX_ENTRY_SIZE = 16,
	MSIX_NO_VECTOR = 0xffff, /* VIRTIO_MSI_NO_VECTOR */
};

struct msix_vector {
	uint32_t words[4]; /* address low, high, data, control (bit 0: masked) */
	bool changed;      /* since its message was given to the fabric */
};

struct msix_source {
	int eventfd;     /* borrowed */
	uint16_t vector; /* or MSIX_NO_VECTOR */
	bool attached;
	unsigned gsi; /* it is attached to */
};

struct msix {
	struct fabric fabric;
	unsigned vectors;
	unsigned first_gsi;
	bool enabled;                /* message control, bit 15 */
	bool function_mask;          /* bit 14 */
	bool running;                /* the device is at DRIVER_OK */
	struct log_limit complaints; /* about the host, but the driver can repeat them */
	struct msix_vector table[MSIX_VECTORS_MAX];
	struct msix_source sources[MSIX_VECTORS_MAX];
};

/* One vector for each source. 0 or -errno of reserving the GSIs. */
MUST_CHECK int msix_init(struct msix *msix, const struct fabric *fabric, unsigned vectors);

/* A source's eventfd; its vector is MSIX_NO_VECTOR until set. */
void msix_set_source(struct msix *msix, unsigned source, int eventfd);
/* False when there is no such vector; then the source has none. */
bool msix_set_vector(struct msix *msix, unsigned source, uint16_t vector);

/* Attaches and detaches what must be after any change of the fields above. */
void msix_update(struct msix *msix);

/* Accesses to the table and the pending bits. Rules as in struct bus_ops. */
void msix_table_read(struct msix *msix, uint64_t offset, uint8_t *data, unsigned size);
void msix_table_write(struct msix *msix, uint64_t offset, const uint8_t *data, unsigned size);
void msix_pending_read(struct msix *msix, uint64_t offset, uint8_t *data, unsigned size);
