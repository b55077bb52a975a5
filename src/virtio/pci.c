// SPDX-License-Identifier: BSD-3-Clause
/*
 * The life of a virtio PCI function: status, start, stop, reset, and how
 * queues are joined with the guest. The driver may do all of it in any order
 * and at any time; the status machine lets through what the specification
 * allows and ignores the rest.
 */
#include "virtio/pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/fd.h"
#include "base/log_limit.h"
#include "virtio/pci_regs.h"

#define TRANSPORT_FEATURES (UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_F_RING_RESET)

static const struct vhost_ops *back(const struct virtio_pci *device)
{
	return device->vhost->ops;
}

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
 * it is still readable, so it comes again.
 */
static bool lock_in_loop(struct virtio_pci *device)
{
	return pthread_mutex_trylock(&device->lock) == 0;
}

/* Runs in the control loop while the driver uses INTx: a call eventfd was signalled. */
static void on_call(void *argument)
{
	struct virtio_pci *device = argument;

	if (!lock_in_loop(device))
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

static int start_queue(struct virtio_pci *device, unsigned index)
{
	struct pci_queue *queue = &device->queues[index];
	const struct vhost_ring ring = {
		.size = queue->size,
		.base = queue->base,
		.desc = queue->desc,
		.avail = queue->avail,
		.used = queue->used,
		.kick_fd = queue->kick_fd,
		.call_fd = queue->call_fd,
	};
	int r = back(device)->set_vring(device->vhost, index, &ring);

	if (r == 0)
		r = back(device)->start_vring(device->vhost, index);
	queue->running = r == 0;
	return r;
}

static void stop_queue(struct virtio_pci *device, unsigned index)
{
	struct pci_queue *queue = &device->queues[index];
	uint16_t base;

	if (queue->running && !queue->held)
		(void)!back(device)->stop_vring(device->vhost, index, &base);
	queue->running = queue->held = false;
	queue->base = 0;
	/* What was signalled to the old queue is not the new one's. */
	(void)fd_take_event(queue->kick_fd);
	(void)fd_take_event(queue->call_fd);
}

static void need_reset(struct virtio_pci *device)
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

	if (!lock_in_loop(device))
		return;
	if (fd_take_event(device->error_fd) && virtio_pci_is_running(device))
		need_reset(device);
	pthread_mutex_unlock(&device->lock);
}

/* Runs in the control loop: the back half may be gone. */
static void on_event(void *argument)
{
	struct virtio_pci *device = argument;

	if (!lock_in_loop(device))
		return;
	if (device->event_fd >= 0 && back(device)->handle_event(device->vhost) < 0) {
		device->fabric.ops->unwatch(device->fabric.owner, device->event_fd);
		device->event_fd = -1;
		if (virtio_pci_is_running(device))
			need_reset(device);
	}
	pthread_mutex_unlock(&device->lock);
}

static int watch_back(struct virtio_pci *device)
{
	if (back(device)->event_fd == NULL)
		return 0;
	device->event_fd = back(device)->event_fd(device->vhost);
	if (device->event_fd < 0)
		return 0;
	return device->fabric.ops->watch(device->fabric.owner, device->event_fd, on_event, device);
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

static void close_eventfds(struct virtio_pci *device)
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
	r = back(device)->set_error_fd(device->vhost, device->error_fd);
	if (r < 0)
		fabric->ops->unwatch(fabric->owner, device->error_fd);
	return r;
}

/*
 * At the first start: a device that no driver takes costs the VM's start
 * nothing. All or nothing, so that the next start tries again.
 */
static int need_eventfds(struct virtio_pci *device)
{
	if (device->error_fd >= 0)
		return 0;
	int r = create_eventfds(device);

	if (r == 0)
		r = watch_errors(device);
	if (r == 0)
		r = watch_back(device);
	if (r < 0)
		close_eventfds(device);
	return r;
}

static void start_device(struct virtio_pci *device)
{
	int r = need_eventfds(device);

	if (r == 0)
		r = back(device)->set_features(
			device->vhost, device->accepted & ~(UINT64_C(1) << VIRTIO_F_RING_RESET));
	if (r == 0) {
		device->msix.running = true;
		virtio_pci_update_notifications(device);
	}
	for (unsigned i = 0; r == 0 && i < device->queue_count; i++)
		if (device->queues[i].enabled)
			r = start_queue(device, i);
	if (r == 0)
		return;
	log_warn_limited(&device->complaints,
		"%s: the driver's queues cannot be used: %s; the device waits for a reset",
		device->identity.name, strerror(-r));
	need_reset(device);
}

static void stop_device(struct virtio_pci *device)
{
	for (unsigned i = 0; i < device->queue_count; i++)
		stop_queue(device, i);
	device->msix.running = false;
	virtio_pci_update_notifications(device);
	(void)fd_take_event(device->error_fd);
	(void)fd_take_event(device->config_fd);
}

static void reset_queue_registers(struct virtio_pci *device, struct pci_queue *queue)
{
	queue->size = device->identity.queue_size;
	queue->enabled = false;
	queue->desc = queue->avail = queue->used = 0;
}

static void reset_device(struct virtio_pci *device)
{
	if (virtio_pci_is_running(device))
		stop_device(device);
	(void)!back(device)->reset(device->vhost);
	device->status = 0;
	device->is_barred = false;
	device->accepted = 0;
	device->offered_select = device->accepted_select = 0;
	device->queue_select = 0;
	for (unsigned i = 0; i < device->queue_count; i++)
		reset_queue_registers(device, &device->queues[i]);
	for (unsigned i = 0; i <= device->queue_count; i++)
		(void)msix_set_vector(&device->msix, i, MSIX_NO_VECTOR);
	(void)virtio_pci_take_isr(device);
}

static bool features_are_good(const struct virtio_pci *device)
{
	return (device->accepted & ~device->offered) == 0 &&
	       ((device->accepted >> VIRTIO_F_VERSION_1) & 1) != 0;
}

/*
 * The driver sets one bit after the other and takes none back. A step whose
 * condition does not hold is left out of the status, which the driver sees.
 */
void virtio_pci_set_status(struct virtio_pci *device, uint8_t status)
{
	uint8_t before = device->status;
	uint8_t set = status & (uint8_t)~before;

	if (status == 0) {
		reset_device(device);
		return;
	}
	if ((before & ~status & ~VIRTIO_CONFIG_S_NEEDS_RESET) != 0)
		return; /* bits taken back */
	set &= VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |
	       VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED;
	if ((set & VIRTIO_CONFIG_S_DRIVER) != 0 && !(status & VIRTIO_CONFIG_S_ACKNOWLEDGE))
		set &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER;
	if ((set & VIRTIO_CONFIG_S_FEATURES_OK) != 0 &&
		(!((before | set) & VIRTIO_CONFIG_S_DRIVER) || !features_are_good(device)))
		set &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
	if ((set & VIRTIO_CONFIG_S_DRIVER_OK) != 0 &&
		!((before | set) & VIRTIO_CONFIG_S_FEATURES_OK))
		set &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER_OK;
	device->status |= set;
	if ((set & VIRTIO_CONFIG_S_DRIVER_OK) != 0)
		start_device(device);
}

void virtio_pci_reset_queue(struct virtio_pci *device, unsigned index)
{
	stop_queue(device, index);
	reset_queue_registers(device, &device->queues[index]);
}

void virtio_pci_restart_queue(struct virtio_pci *device, unsigned index)
{
	device->queues[index].enabled = true;
	if (start_queue(device, index) < 0)
		need_reset(device);
}

static int hold_queue(struct virtio_pci *device, unsigned index)
{
	struct pci_queue *queue = &device->queues[index];

	if (!queue->running || queue->held)
		return 0;
	int r = back(device)->stop_vring(device->vhost, index, &queue->base);

	queue->held = r == 0;
	return r;
}

bool virtio_pci_has_driver(struct virtio_pci *device)
{
	/* Who holds it is a vCPU, and so a driver: it may wait for the back half, and the loop must
	 * not. */
	if (!lock_in_loop(device))
		return true;
	bool has = virtio_pci_is_running(device);

	pthread_mutex_unlock(&device->lock);
	return has;
}

static int hold_queues(struct virtio_pci *device)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < device->queue_count; i++)
		r = hold_queue(device, i);
	return r;
}

int virtio_pci_suspend(struct virtio_pci *device)
{
	pthread_mutex_lock(&device->lock);
	int r = hold_queues(device);

	pthread_mutex_unlock(&device->lock);
	return r;
}

/* Nothing is lost between: kicks and calls wait in their eventfds. */
static int release_queue(struct virtio_pci *device, unsigned index)
{
	struct pci_queue *queue = &device->queues[index];

	if (!queue->held)
		return 0;
	queue->held = false;
	int r = start_queue(device, index);

	queue->base = 0;
	return r;
}

static void release_queues(struct virtio_pci *device)
{
	int r = 0;

	for (unsigned i = 0; i < device->queue_count; i++) {
		int released = release_queue(device, i);

		r = released < 0 ? released : r;
	}
	if (r < 0) {
		log_warn_limited(&device->complaints,
			"%s: a queue cannot go on: %s; the device waits for a reset",
			device->identity.name, strerror(-r));
		need_reset(device);
	}
}

void virtio_pci_resume(struct virtio_pci *device)
{
	pthread_mutex_lock(&device->lock);
	if (!device->is_barred)
		release_queues(device);
	pthread_mutex_unlock(&device->lock);
}

/*
 * A driver in user space that died has no other way: uio_pci_generic clears the
 * bit when its file closes. One that never set it is served all the same.
 */
void virtio_pci_set_master(struct virtio_pci *device, bool is_master)
{
	if (device->is_master && !is_master) {
		device->is_barred = true;
		if (hold_queues(device) < 0)
			need_reset(device);
	} else if (device->is_barred && is_master) {
		device->is_barred = false;
		release_queues(device);
	}
	device->is_master = is_master;
}

void virtio_pci_on_failure(struct virtio_pci *device, void (*function)(void *owner), void *owner)
{
	device->on_failure = function;
	device->failure_owner = owner;
}

static int change_config(
	struct virtio_pci *device, uint32_t offset, const void *data, uint32_t size)
{
	if (back(device)->change_config == NULL)
		return -EOPNOTSUPP;
	int r = back(device)->change_config(device->vhost, offset, data, size);

	if (r == 0 && offset < device->identity.config_size) {
		device->generation++;
		if (virtio_pci_is_running(device))
			(void)eventfd_write(device->config_fd, 1);
	}
	return r;
}

int virtio_pci_change_config(
	struct virtio_pci *device, uint32_t offset, const void *data, uint32_t size)
{
	pthread_mutex_lock(&device->lock);
	int r = change_config(device, offset, data, size);

	pthread_mutex_unlock(&device->lock);
	return r;
}

int virtio_pci_read_config(
	struct virtio_pci *device, uint32_t offset, void *ret_data, uint32_t size)
{
	pthread_mutex_lock(&device->lock);
	int r = back(device)->get_config(device->vhost, offset, ret_data, size);

	pthread_mutex_unlock(&device->lock);
	return r;
}

int virtio_pci_create(const struct virtio_pci_identity *identity, struct vhost *vhost,
	struct pci_host *host, const struct fabric *fabric, struct virtio_pci **ret_device)
{
	unsigned queue_count = vhost->ops->queue_count(vhost);
	/* A back half in another process may claim any number. */
	bool good = queue_count <= DEVICE_QUEUES_MAX;
	struct virtio_pci *device = good ? calloc(1, sizeof(*device)) : NULL;

	if (device == NULL) {
		vhost->ops->free(vhost);
		return good ? -ENOMEM : -EINVAL;
	}
	device->identity = *identity;
	device->vhost = vhost;
	device->fabric = *fabric;
	device->config_fd = device->error_fd = device->event_fd = -1;
	for (unsigned i = 0; i < DEVICE_QUEUES_MAX; i++)
		device->queues[i].kick_fd = device->queues[i].call_fd = -1;
	pthread_mutex_init(&device->lock, NULL);
	device->queue_count = queue_count;
	for (unsigned i = 0; i < device->queue_count; i++)
		reset_queue_registers(device, &device->queues[i]);
	device->pci.ops = &virtio_pci_device_ops;
	device->pci.owner = device;
	device->pci.bar_sizes[0] = BAR_SIZE;
	int r = msix_init(&device->msix, fabric, device->queue_count + 1);

	if (r == 0)
		r = vhost->ops->get_features(vhost, &device->offered);
	if (r == 0)
		r = pci_host_add(host, &device->pci, &device->devfn);
	if (r < 0) {
		virtio_pci_free(device);
		return r;
	}
	device->offered |= TRANSPORT_FEATURES;
	device->bar_gpa = device->pci.bar_gpas[0];
	virtio_pci_fill_config(device);
	*ret_device = device;
	return 0;
}

void virtio_pci_free(struct virtio_pci *device)
{
	if (device == NULL)
		return;
	device->vhost->ops->free(device->vhost);
	close_eventfds(device);
	pthread_mutex_destroy(&device->lock);
	free(device);
}

unsigned virtio_pci_devfn(const struct virtio_pci *device)
{
	return device->devfn;
}

void virtio_pci_set_intx(struct virtio_pci *device, struct irq_line line)
{
	device->intx = line;
}
