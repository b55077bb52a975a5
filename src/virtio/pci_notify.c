// SPDX-License-Identifier: BSD-3-Clause
/*
 * How a virtio PCI function and its guest hear of each other: doorbells and
 * the INTx line; and what the control loop does when an eventfd of the back
 * half is signalled. The back half may be another process, and hostile.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "base/fd.h"
#include "base/log_limit.h"
#include "virtio/pci_regs.h"

/*
 * Both follow the ISR register, and neither does while MSI-X is enabled (virtio
 * 1.2, 4.1.4.5.1). The status register shows a pending interrupt also while the
 * driver has disabled the line (PCI 3.0, 6.2.3).
 */
void virtio_pci_update_line(struct virtio_pci *device)
{
	uint8_t *status = device->pci.config + PCI_STATUS;
	bool pending = device->isr != 0 && !device->msix.enabled;
	bool asserted = pending && !device->intx_disabled;

	if (pending)
		(void)__atomic_fetch_or(status, PCI_STATUS_INTERRUPT, __ATOMIC_RELAXED);
	else
		(void)__atomic_fetch_and(status, (uint8_t)~PCI_STATUS_INTERRUPT, __ATOMIC_RELAXED);
	if (asserted == device->intx_asserted)
		return;
	device->intx_asserted = asserted;
	irq_line_set(&device->intx, asserted);
}

/*
 * A vCPU that has the lock may be waiting for a device process that does not
 * answer. The control loop does not wait with it: the descriptor that called
 * it is still readable, so it comes again, after a rest that keeps it from
 * spinning as long as that takes.
 */
enum { LOOP_REST_MS = 1 };

bool virtio_pci_lock_in_loop(struct virtio_pci *device)
{
	bool is_ours = pthread_mutex_trylock(&device->lock) == 0;

	if (!is_ours)
		(void)poll(NULL, 0, LOOP_REST_MS);
	return is_ours;
}

/* Runs in the control loop while the driver uses INTx: a call eventfd was signalled. */
static void on_call(void *argument)
{
	struct virtio_pci *device = argument;

	if (!virtio_pci_lock_in_loop(device))
		return;
	for (unsigned i = 0; device->watching && i < device->queue_count; i++)
		if (fd_take_event(device->queues[i].call_fd))
			device->isr |= ISR_QUEUE;
	if (device->watching && fd_take_event(device->config_fd))
		device->isr |= ISR_CONFIG;
	virtio_pci_update_line(device);
	pthread_mutex_unlock(&device->lock);
}

uint8_t virtio_pci_take_isr(struct virtio_pci *device)
{
	uint8_t isr = device->isr;

	device->isr = 0;
	virtio_pci_update_line(device);
	return isr;
}

/* Without MSI-X somebody must turn call eventfds into INTx: the control loop. */
static void update_watch(struct virtio_pci *device)
{
	bool watch = virtio_pci_is_running(device) && !device->msix.enabled;

	if (watch == device->watching)
		return;
	device->watching = watch;
	for (unsigned i = 0; i <= device->queue_count; i++) {
		int fd = i < device->queue_count ? device->queues[i].call_fd : device->config_fd;

		if (watch)
			(void)!device->fabric.ops->watch(device->fabric.owner, fd, on_call, device);
		else
			device->fabric.ops->unwatch(device->fabric.owner, fd);
	}
}

static void detach_doorbells(struct virtio_pci *device)
{
	for (unsigned i = 0; device->doorbells_gpa != 0 && i < device->queue_count; i++)
		(void)device->fabric.ops->detach_doorbell(device->fabric.owner,
			device->doorbells_gpa + i * NOTIFY_STRIDE, device->queues[i].kick_fd);
	device->doorbells_gpa = 0;
}

/* A doorbell that cannot be attached still works: its write comes to the BAR. */
static void update_doorbells(struct virtio_pci *device)
{
	uint64_t bar = virtio_pci_is_running(device) ? device->bar_gpa : 0;
	uint64_t gpa = bar != 0 ? bar + REGION_NOTIFY : 0;

	if (gpa == device->doorbells_gpa)
		return;
	detach_doorbells(device);
	for (unsigned i = 0; gpa != 0 && i < device->queue_count; i++)
		(void)device->fabric.ops->attach_doorbell(
			device->fabric.owner, gpa + i * NOTIFY_STRIDE, device->queues[i].kick_fd);
	device->doorbells_gpa = gpa;
}

void virtio_pci_update_notifications(struct virtio_pci *device)
{
	update_doorbells(device);
	update_watch(device);
	virtio_pci_update_line(device);
	msix_update(&device->msix);
}

void virtio_pci_need_reset(struct virtio_pci *device)
{
	device->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if ((device->status & VIRTIO_CONFIG_S_DRIVER_OK) == 0)
		return;
	/* The bit comes before the message, and with MSI-X as well. */
	device->isr |= ISR_CONFIG;
	virtio_pci_update_line(device);
	if (device->msix.enabled)
		(void)eventfd_write(device->config_fd, 1);
	if (device->on_failure != NULL)
		device->on_failure(device->failure_owner);
}

/* Runs in the control loop: the back half found a queue broken. */
static void on_error(void *argument)
{
	struct virtio_pci *device = argument;

	if (!virtio_pci_lock_in_loop(device))
		return;
	if (fd_take_event(device->error_fd) && virtio_pci_is_running(device))
		virtio_pci_need_reset(device);
	pthread_mutex_unlock(&device->lock);
}

static void forget_back(struct virtio_pci *device)
{
	if (device->event_fd >= 0)
		device->fabric.ops->unwatch(device->fabric.owner, device->event_fd);
	device->event_fd = -1;
}

/* Runs in the control loop: the back half may be gone. */
static void on_event(void *argument)
{
	struct virtio_pci *device = argument;

	if (!virtio_pci_lock_in_loop(device))
		return;
	if (device->event_fd >= 0 && virtio_pci_back(device)->handle_event(device->vhost) < 0) {
		forget_back(device);
		if (virtio_pci_is_running(device))
			virtio_pci_need_reset(device);
	}
	pthread_mutex_unlock(&device->lock);
}

int virtio_pci_watch_back(struct virtio_pci *device)
{
	if (device->event_fd >= 0)
		return 0;
	int fd = virtio_pci_back(device)->event_fd != NULL
			 ? virtio_pci_back(device)->event_fd(device->vhost)
			 : -1;
	int r = fd < 0 ? 0 : device->fabric.ops->watch(device->fabric.owner, fd, on_event, device);

	if (r == 0)
		device->event_fd = fd;
	return r;
}

static int need_eventfd(int *fd)
{
	if (*fd < 0)
		*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return *fd < 0 ? -errno : 0;
}

static int create_eventfds(struct virtio_pci *device)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < device->queue_count; i++) {
		r = need_eventfd(&device->queues[i].kick_fd);
		if (r == 0)
			r = need_eventfd(&device->queues[i].call_fd);
		msix_set_source(&device->msix, i, device->queues[i].call_fd);
	}
	if (r == 0)
		r = need_eventfd(&device->config_fd);
	if (r == 0)
		r = need_eventfd(&device->error_fd);
	msix_set_source(&device->msix, device->queue_count, device->config_fd);
	return r;
}

void virtio_pci_close_eventfds(struct virtio_pci *device)
{
	for (unsigned i = 0; i < device->queue_count; i++) {
		fd_close(&device->queues[i].kick_fd);
		fd_close(&device->queues[i].call_fd);
	}
	fd_close(&device->config_fd);
	fd_close(&device->error_fd);
	for (unsigned i = 0; i < device->msix.vectors; i++)
		msix_set_source(&device->msix, i, -1);
}

/* The back half learns of the error eventfd last, so that it never holds one that was closed. */
static int watch_errors(struct virtio_pci *device)
{
	const struct fabric *fabric = &device->fabric;
	int r = fabric->ops->watch(fabric->owner, device->error_fd, on_error, device);

	if (r < 0)
		return r;
	r = virtio_pci_back(device)->set_error_fd(device->vhost, device->error_fd);
	if (r < 0)
		fabric->ops->unwatch(fabric->owner, device->error_fd);
	return r;
}

/*
 * At the first start: a device that no driver takes costs the VM's start
 * nothing. All or nothing, so that the next start tries again.
 */
int virtio_pci_need_eventfds(struct virtio_pci *device)
{
	if (device->error_fd >= 0)
		return 0;
	int r = create_eventfds(device);

	if (r == 0)
		r = virtio_pci_watch_back(device);
	if (r == 0)
		r = watch_errors(device);
	if (r < 0) {
		forget_back(device);
		virtio_pci_close_eventfds(device);
	}
	return r;
}
