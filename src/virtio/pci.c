// SPDX-License-Identifier: BSD-3-Clause
/*
 * The life of a virtio PCI function: status, start, stop, reset, and how
 * queues are joined with the guest. The driver may do all of it in any order
 * and at any time; the status machine lets through what the specification
 * allows and ignores the rest.
 */
#include "virtio/pci.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/fd.h"
#include "base/log_limit.h"
#include "virtio/pci_regs.h"

#define TRANSPORT_FEATURES (UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_F_RING_RESET)

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
	int r = virtio_pci_back(device)->set_vring(device->vhost, index, &ring);

	if (r == 0)
		r = virtio_pci_back(device)->start_vring(device->vhost, index);
	queue->running = r == 0;
	return r;
}

static void stop_queue(struct virtio_pci *device, unsigned index)
{
	struct pci_queue *queue = &device->queues[index];
	uint16_t base;

	if (queue->running && !queue->held)
		(void)!virtio_pci_back(device)->stop_vring(device->vhost, index, &base);
	queue->running = queue->held = false;
	queue->base = 0;
	/* What was signalled to the old queue is not the new one's. */
	(void)fd_take_event(queue->kick_fd);
	(void)fd_take_event(queue->call_fd);
}

static void start_device(struct virtio_pci *device)
{
	int r = virtio_pci_need_eventfds(device);

	if (r == 0)
		r = virtio_pci_back(device)->set_features(
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
	virtio_pci_need_reset(device);
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
	(void)!virtio_pci_back(device)->reset(device->vhost);
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
	if (!device->is_barred && start_queue(device, index) < 0)
		virtio_pci_need_reset(device);
}

static int hold_queue(struct virtio_pci *device, unsigned index)
{
	struct pci_queue *queue = &device->queues[index];

	if (!queue->running || queue->held)
		return 0;
	int r = virtio_pci_back(device)->stop_vring(device->vhost, index, &queue->base);

	queue->held = r == 0;
	return r;
}

bool virtio_pci_has_driver(struct virtio_pci *device)
{
	/* Who holds it is a vCPU, and so a driver: it may wait for the back half, and the loop must
	 * not. */
	if (!virtio_pci_lock_in_loop(device))
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
		virtio_pci_need_reset(device);
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
 * bit when its file closes, and so does Linux before kexec. Rings and buffers may
 * be others' memory from then on, and who comes next sets the bit before it
 * resets the device: so they stay as they are until then. A driver that never
 * set it is served all the same.
 */
void virtio_pci_set_master(struct virtio_pci *device, bool is_master)
{
	if (device->is_master && !is_master && virtio_pci_is_running(device)) {
		device->is_barred = true;
		if (hold_queues(device) < 0)
			virtio_pci_need_reset(device);
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
	if (virtio_pci_back(device)->change_config == NULL)
		return -EOPNOTSUPP;
	int r = virtio_pci_back(device)->change_config(device->vhost, offset, data, size);

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
	int r = virtio_pci_back(device)->get_config(device->vhost, offset, ret_data, size);

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
	virtio_pci_close_eventfds(device);
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
