/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtio over PCI, modern only: the front half of every virtio device.
 *
 * One BAR holds five regions: common configuration, ISR, device configuration,
 * notifications (one address a queue) and MSI-X. A driver negotiates features,
 * places its queues and sets DRIVER_OK; from then on kicks and interrupts pass
 * by eventfds and none of this code runs.
 *
 * Register accesses come from vCPU threads, error and INTx notices from the
 * control loop; one mutex a device. Source: virtio 1.2, sections 2.1, 3.1, 4.1.
 */
#pragma once

#include "bus/fabric.h"
#include "bus/irq.h"
#include "bus/pci_host.h"
#include "virtio/vhost.h"

struct virtio_pci;

/* What kind of device it is. */
struct virtio_pci_identity {
	const char *name;    /* for messages */
	uint32_t virtio_id;  /* virtio 1.2, section 5 */
	uint16_t pci_class;  /* class and subclass */
	uint16_t queue_size; /* the most entries of a queue */
	uint32_t config_size;
};

/*
 * Takes ownership of `vhost` also when it fails. 0 or -errno; -EINVAL when it
 * has more than DEVICE_QUEUES_MAX queues. The function must be on the host's
 * bus before it is freed, and be freed after the vCPUs and the control loop
 * have stopped.
 */
MUST_CHECK int virtio_pci_create(const struct virtio_pci_identity *identity, struct vhost *vhost,
	struct pci_host *host, const struct fabric *fabric, struct virtio_pci **ret_device);
void virtio_pci_free(struct virtio_pci *device);

/*
 * Stops all queues that run: what they took is done and given back when it
 * returns. While the vCPUs are held and do not get here; the driver sees
 * nothing of it. 0 or -errno; then some queues are held, some not.
 */
MUST_CHECK int virtio_pci_suspend(struct virtio_pci *device);
/* Lets the queues go on where they were. One that cannot is a failure. */
void virtio_pci_resume(struct virtio_pci *device);

/*
 * Sees the end of a back half that is another's program before a driver runs it, too; else it is
 * seen from the first start on. Before the vCPUs. 0 or -errno.
 */
MUST_CHECK int virtio_pci_watch_back(struct virtio_pci *device);

/* Whether a driver runs it at the moment. In any thread. */
bool virtio_pci_has_driver(struct virtio_pci *device);

/*
 * Calls `function` each time that the device comes to need a reset, in a vCPU
 * thread or the control loop, with the device's lock held. Before the vCPUs.
 */
void virtio_pci_on_failure(struct virtio_pci *device, void (*function)(void *owner), void *owner);

/*
 * The VMM's side of the device configuration space, with the part that no
 * driver sees (vhost_ops.change_config). A change of the driver's part is told
 * to the driver by the configuration interrupt. Any thread; waits for no
 * driver. 0, -EINVAL outside of it, -EOPNOTSUPP when the device takes none.
 */
MUST_CHECK int virtio_pci_change_config(
	struct virtio_pci *device, uint32_t offset, const void *data, uint32_t size);
MUST_CHECK int virtio_pci_read_config(
	struct virtio_pci *device, uint32_t offset, void *ret_data, uint32_t size);

/* The slot * 8 + function that it got, and the line that INTA pulls. */
unsigned virtio_pci_devfn(const struct virtio_pci *device);
void virtio_pci_set_intx(struct virtio_pci *device, struct irq_line line);
