/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of a virtio PCI function, shared by pci.c (life and status),
 * pci_notify.c (doorbells, INTx, the control loop's eventfds), pci_common.c
 * (the common configuration registers) and pci_config.c (PCI config space and
 * the BAR). Nobody else includes it.
 */
#pragma once

#include <pthread.h>

#include "base/log_limit.h"
#include "virtio/device.h"
#include "virtio/msix.h"
#include "virtio/pci.h"

/* The regions of BAR 0. */
enum {
	REGION_COMMON = 0x0000,
	REGION_ISR = 0x1000,
	REGION_DEVICE = 0x2000,
	REGION_NOTIFY = 0x3000,
	REGION_MSIX_TABLE = 0x4000,
	REGION_MSIX_PENDING = 0x5000,
	REGION_SIZE = 0x1000,
	BAR_SIZE = 0x8000,
	NOTIFY_STRIDE = 4,
};

/* Registers that Debian 12's <linux/virtio_pci.h> does not know yet. */
#ifndef VIRTIO_F_RING_RESET
#define VIRTIO_F_RING_RESET 40
#endif
enum { COMMON_QUEUE_RESET = 0x3a, COMMON_SIZE = 0x3c };

/* VIRTIO_CONFIG_S_* are the status bits; ISR bits are these. */
enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

struct pci_queue {
	uint16_t size;
	bool enabled;
	bool running; /* started in the back half, or held */
	bool held;    /* stopped by virtio_pci_suspend(), to go on at `base` */
	uint16_t base;
	uint64_t desc, avail, used;
	int kick_fd; /* owned */
	int call_fd; /* owned */
};

struct virtio_pci {
	struct virtio_pci_identity identity;
	struct vhost *vhost;
	struct fabric fabric;
	struct irq_line intx;
	struct pci_device pci;
	unsigned devfn;

	pthread_mutex_t lock; /* all below */
	uint64_t offered;     /* feature bits */
	uint64_t accepted;
	uint32_t offered_select, accepted_select;
	uint16_t queue_select;
	uint8_t status;
	uint8_t generation; /* of the device configuration */
	uint8_t isr;
	bool intx_disabled; /* by the driver, in the command register */
	bool is_master;     /* likewise: of the bus, it may reach memory */
	bool is_barred;     /* it was, and its driver took that away: no queue runs */
	bool intx_asserted;
	bool watching;          /* call eventfds, for INTx */
	uint64_t bar_gpa;       /* 0: nowhere */
	uint64_t doorbells_gpa; /* where they are attached; 0: nowhere */
	unsigned queue_count;
	struct pci_queue queues[DEVICE_QUEUES_MAX];
	void (*on_failure)(void *owner);
	void *failure_owner;
	int config_fd;               /* owned; raises the configuration interrupt */
	int error_fd;                /* owned; the back half signals a broken queue */
	int event_fd;                /* the back half's own; -1: not watched, or it is gone */
	struct msix msix;            /* source q is queue q, the last one the configuration */
	struct log_limit complaints; /* about the driver */
};

static inline bool virtio_pci_is_running(const struct virtio_pci *device)
{
	return device->msix.running;
}

static inline const struct vhost_ops *virtio_pci_back(const struct virtio_pci *device)
{
	return device->vhost->ops;
}

/* pci.c */
void virtio_pci_set_status(struct virtio_pci *device, uint8_t status);
void virtio_pci_reset_queue(struct virtio_pci *device, unsigned index);
void virtio_pci_restart_queue(struct virtio_pci *device, unsigned index);
/* The driver has set or cleared bus mastering. */
void virtio_pci_set_master(struct virtio_pci *device, bool is_master);

/* pci_notify.c */
/* Attaches doorbells and interrupts as state, BAR and MSI-X say. */
void virtio_pci_update_notifications(struct virtio_pci *device);
/* Pulls the INTx line or lets go of it, after any change of ISR, MSI-X or INTx disable. */
void virtio_pci_update_line(struct virtio_pci *device);
uint8_t virtio_pci_take_isr(struct virtio_pci *device);
/* The device is broken until its driver resets it: tells the driver, if there is one, and the VMM.
 */
void virtio_pci_need_reset(struct virtio_pci *device);
/* For the control loop, which must not wait: false when a vCPU has the lock. */
bool virtio_pci_lock_in_loop(struct virtio_pci *device);
/* Makes what is not there yet. 0 or -errno, and then there are none. */
MUST_CHECK int virtio_pci_need_eventfds(struct virtio_pci *device);
void virtio_pci_close_eventfds(struct virtio_pci *device);

/* pci_common.c. Rules as in struct bus_ops. */
void virtio_pci_common_read(
	struct virtio_pci *device, uint64_t offset, uint8_t *data, unsigned size);
void virtio_pci_common_write(
	struct virtio_pci *device, uint64_t offset, const uint8_t *data, unsigned size);

/* pci_config.c */
extern const struct pci_device_ops virtio_pci_device_ops;
void virtio_pci_fill_config(struct virtio_pci *device);
