// SPDX-License-Identifier: BSD-3-Clause
/*
 * Opens the virtio devices, puts each behind the vhost contract and in front
 * of it a PCI function. The configuration is the user's and was checked.
 */
#include "vm/devices.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/advice.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "bus/pci_host.h"
#include "virtio/device.h"
#include "virtio/pci.h"
#include "virtio/vhost_kernel.h"
#include "virtio/vhost_thread.h"
#include "vm/device_process.h"
#include "vm/device_threads.h"
#include "vm/device_watch.h"
#include "vm/fabric.h"
#include "vm/foreign_device.h"
#include "vm/lifecycle.h"
#include "vm/window.h"
#include "x86_64/layout.h"

/* Those that every VM has. They need no options. */
static const struct device_class *const standard_classes[] = { &rng_device_class };

/* The memory slot of PCI config space; the RAM has those before. */
enum { CONFIG_SLOT = GUEST_MEMORY_REGIONS_MAX, WINDOW_SLOT };

struct device_slot {
	const struct device_ops *ops;
	struct device *device; /* owned until it is behind a vhost backend of this process */
	struct device_process process; /* with -u */
	struct foreign_device foreign;
	const char *socket_path; /* that the device removes, or NULL */
	int program_fd;          /* pidfd, the device's; -1: none */
	struct virtio_pci *pci;
	struct devices *devices;
	_Atomic bool failed; /* since somebody asked */
};

struct devices {
	struct evloop *loop;
	struct lifecycle *lifecycle;
	struct vm_fabric *fabric;
	struct pci_host *host;
	struct device_watch *watch;     /* of the devices' processes; NULL: there are none */
	struct device_threads *threads; /* of the devices in this process; NULL: there are none */
	struct vm_window *window;       /* of the one device that wants it; or NULL */
	int window_socket; /* our end of another process' way to it, until served; -1: none */
	const struct sandbox *sandbox;
	int failure_fd; /* borrowed; -1: nobody asks */
	unsigned count;
	struct device_slot slots[]; /* as many as the configuration has, and the standard ones */
};

static int open_device(struct devices *devices, const struct vm_device *wanted)
{
	struct device_slot slot = {
		.ops = device_class_ops(wanted->class, wanted->options),
		.process.socket = -1,
		.program_fd = -1,
		.devices = devices,
	};
	int r = wanted->foreign_path != NULL
			? foreign_device_open(wanted->class, wanted->foreign_path, &slot.foreign)
			: wanted->class->open(wanted->options, &slot.device);

	if (r < 0)
		return r;
	if (slot.device != NULL && slot.ops->program_fd != NULL)
		slot.program_fd = *slot.ops->program_fd(slot.device);
	if (slot.device != NULL && slot.ops->socket_path != NULL)
		slot.socket_path = slot.ops->socket_path(slot.device);
	if (device_class_has_back_end(wanted->class, wanted->options))
		r = foreign_device_adopt(
			wanted->class, slot.ops->take_back_end(slot.device), &slot.foreign);
	devices->slots[devices->count++] = slot;
	return r;
}

/* All files are open by now, and there is one thread still. */
static int start_processes(
	struct devices *devices, const struct vm_config *config, struct lifecycle *lifecycle)
{
	int r = device_watch_create(lifecycle, &devices->watch);

	if (r < 0)
		log_error("cannot watch devices' processes: %s", strerror(-r));

	for (unsigned i = 0; r == 0 && i < devices->count; i++) {
		struct device_slot *slot = &devices->slots[i];

		/* Another program serves its rings: there is nothing to jail. */
		if (slot->foreign.name == NULL)
			r = device_process_start(&config->jail, slot->ops, slot->device,
				SOCK_STREAM, device_process_serve, &slot->process);
	}
	return r;
}

int devices_open(const struct vm_config *config, const struct sandbox *sandbox,
	struct lifecycle *lifecycle, struct devices **ret_devices)
{
	unsigned count = config->device_count + ARRAY_SIZE(standard_classes);
	struct devices *devices = calloc(1, sizeof(*devices) + count * sizeof(devices->slots[0]));
	int r = 0;

	if (devices == NULL)
		return -ENOMEM;
	devices->failure_fd = devices->window_socket = -1;
	devices->sandbox = sandbox;
	devices->lifecycle = lifecycle;
	for (unsigned i = 0; r == 0 && i < config->device_count; i++)
		r = open_device(devices, &config->devices[i]);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(standard_classes); i++)
		r = open_device(devices, &(struct vm_device){ .class = standard_classes[i] });
	if (r == 0)
		r = config->multiprocess
			    ? start_processes(devices, config, lifecycle)
			    : device_threads_create(sandbox, lifecycle, &devices->threads);
	if (r < 0) {
		devices_free(devices);
		return r;
	}
	*ret_devices = devices;
	return 0;
}

static int create_bus(struct devices *devices, const struct kvm_machine *machine,
	struct platform *platform, struct evloop *loop, uint64_t window_gpa)
{
	int r = vm_fabric_create(machine, loop, &devices->fabric);

	if (r == 0)
		r = pci_host_create(
			window_gpa, LAYOUT_PCI_WINDOW_SIZE, devices->count, &devices->host);
	if (r == 0)
		r = bus_add(platform_mmio(platform), "PCI config", LAYOUT_ECAM, LAYOUT_ECAM_SIZE,
			&pci_ecam_bus_ops, devices->host);
	if (r == 0)
		r = bus_add(platform_mmio(platform), "PCI window", window_gpa,
			LAYOUT_PCI_WINDOW_SIZE, &pci_window_bus_ops, devices->host);
	return r;
}

/* Any thread: a device in another process, ours or not, broke its protocol or is gone. */
static void lose_device(void *lifecycle)
{
	lifecycle_end(lifecycle, VM_END_DEVICE);
}

/*
 * Runs in the control loop: the program of a device has ended. It started side
 * by side with the VM, so this is where its failure to do so shows; later the
 * guest only misses what it did.
 */
static void on_program_end(void *argument)
{
	struct device_slot *slot = argument;
	siginfo_t how = { .si_pid = 0 };

	evloop_remove(slot->devices->loop, slot->program_fd);
	if (waitid(P_PIDFD, (id_t)slot->program_fd, &how, WEXITED | WNOHANG | WNOWAIT) < 0 ||
		how.si_code != CLD_EXITED || how.si_status == 0 || virtio_pci_has_driver(slot->pci))
		return;
	log_error(
		"device %s: its program did not start; its own message tells why", slot->ops->name);
	lifecycle_end(slot->devices->lifecycle, VM_END_HOST);
}

/* Puts the device behind the contract, wherever it runs. */
static int create_vhost(
	struct device_slot *slot, const struct guest_memory *memory, struct vhost **ret_vhost)
{
	const struct device_loss loss = { lose_device, slot->devices->lifecycle };

	if (slot->foreign.name != NULL)
		return foreign_device_greet(&slot->foreign, slot->device, memory, &loss, ret_vhost);
	if (slot->process.jail.pid > 0)
		return device_process_connect(&slot->process, slot->ops, memory, &loss, ret_vhost);
	struct device *device = slot->device;

	slot->device = NULL;
	if (device_is_kernels(slot->ops, device))
		return vhost_kernel_create(slot->ops, device, memory, ret_vhost);
	const struct queue_threads threads = device_threads_get(slot->devices->threads);
	int r = vhost_thread_create(slot->ops, device, memory, ret_vhost);

	if (r == 0)
		vhost_thread_set_threads(*ret_vhost, &threads);
	return r;
}

/* To a device of another process, which gets its end of a window_channel. */
static int send_window(struct devices *devices, const struct device_slot *slot, struct vhost *vhost)
{
	struct window window = *vm_window_get(devices->window);
	int ends[2];
	int r = device_process_make_pair(slot->ops->name, SOCK_STREAM, ends);

	if (r < 0)
		return r;
	devices->window_socket = ends[0];
	window.fd = ends[1];
	r = vhost->ops->set_window(vhost, &window);
	fd_close(&ends[1]);
	return r;
}

/* Takes the back half away again if it cannot have it. */
static int give_window(struct devices *devices, const struct device_slot *slot, struct vhost *vhost)
{
	bool is_here = slot->foreign.name == NULL && slot->process.jail.pid == 0;
	int r = is_here ? vhost->ops->set_window(vhost, vm_window_get(devices->window))
			: send_window(devices, slot, vhost);

	if (r < 0)
		vhost->ops->free(vhost);
	return r;
}

static int attach_device(struct devices *devices, struct device_slot *slot,
	const struct guest_memory *memory, struct platform *platform)
{
	const struct fabric fabric = vm_fabric_get(devices->fabric);
	const struct virtio_pci_identity identity = {
		.name = slot->ops->name,
		.virtio_id = slot->ops->virtio_id,
		.pci_class = slot->ops->pci_class,
		.queue_size = slot->ops->queue_size,
		.config_size = slot->ops->config_size,
	};
	struct vhost *vhost;
	int r = create_vhost(slot, memory, &vhost);

	if (r == 0 && slot->ops->window_size > 0)
		r = give_window(devices, slot, vhost);
	if (r == 0)
		r = virtio_pci_create(&identity, vhost, devices->host, &fabric, &slot->pci);
	if (r == 0)
		virtio_pci_set_intx(
			slot->pci, platform_pci_intx(platform, virtio_pci_devfn(slot->pci) / 8));
	if (r == 0 && slot->foreign.name != NULL) /* others' ends are seen by their pidfds */
		r = virtio_pci_watch_back(slot->pci);
	if (r == 0 && slot->program_fd >= 0)
		r = evloop_add(devices->loop, slot->program_fd, on_program_end, slot);
	return r;
}

int devices_attach(struct devices *devices, const struct kvm_machine *machine,
	const struct guest_memory *memory, struct platform *platform, struct evloop *loop,
	uint64_t pci_window_gpa)
{
	uint64_t config_size;
	int r = create_bus(devices, machine, platform, loop, pci_window_gpa);

	devices->loop = loop;
	if (r == 0 && devices->watch != NULL)
		r = device_watch_start(devices->watch, loop);
	for (unsigned i = 0; r == 0 && i < devices->count; i++)
		if (devices->slots[i].ops->window_size > 0)
			r = vm_window_create(machine, WINDOW_SLOT,
				layout_device_window(pci_window_gpa),
				devices->slots[i].ops->window_size, &devices->window);
	for (unsigned i = 0; r == 0 && i < devices->count; i++)
		r = attach_device(devices, &devices->slots[i], memory, platform);
	if (r < 0) {
		const char *limit = advice_limit(-r);

		log_error("cannot make the virtio devices: %s%s%s", strerror(-r),
			limit != NULL ? "; " : "", limit != NULL ? limit : "");
		return r;
	}
	uint8_t *config = pci_host_ecam(devices->host, &config_size);

	vm_fabric_map_config(devices->fabric, CONFIG_SLOT, LAYOUT_ECAM, config_size, config);
	return 0;
}

/* Without either process the device is of no use. */
static int watch_process(const struct devices *devices, const struct device_slot *slot)
{
	const struct device_process *process = &slot->process;
	int r = device_watch_add(devices->watch, &process->jail, slot->ops->name);

	if (r == 0 && process->helper.pid > 0)
		r = device_watch_add(devices->watch, &process->helper, slot->ops->helper->name);
	return r;
}

/* All enter their jails at the same time. */
static int await_processes(struct devices *devices)
{
	int r = 0;

	for (unsigned i = 0; i < devices->count; i++)
		device_process_release(&devices->slots[i].process);
	for (unsigned i = 0; r == 0 && i < devices->count; i++) {
		struct device_slot *slot = &devices->slots[i];

		if (slot->process.jail.pid == 0)
			continue;
		r = device_process_wait(&slot->process, slot->ops);
		if (r == 0)
			r = watch_process(devices, slot);
	}
	return r;
}

static int serve_window(struct devices *devices)
{
	const struct device_loss loss = { lose_device, devices->lifecycle };

	return devices->window_socket < 0
		       ? 0
		       : vm_window_serve(devices->window, fd_steal(&devices->window_socket),
				 devices->sandbox, &loss);
}

int devices_start(struct devices *devices)
{
	int r = serve_window(devices);

	if (r == 0 && devices->watch != NULL)
		r = await_processes(devices);
	if (r == 0 && devices->threads != NULL)
		r = device_threads_start(devices->threads);
	return r;
}

void devices_give_up(struct devices *devices)
{
	if (devices != NULL && devices->threads != NULL)
		device_threads_give_up(devices->threads);
}

size_t devices_socket_paths(
	const struct devices *devices, const char *ret_paths[DEVICE_SOCKETS_MAX])
{
	size_t count = 0;

	for (unsigned i = 0; i < devices->count && count < DEVICE_SOCKETS_MAX; i++)
		if (devices->slots[i].socket_path != NULL)
			ret_paths[count++] = devices->slots[i].socket_path;
	return count;
}

/* How many requests the host still works on, as the device says. */
static int read_busy(const struct device_slot *slot, uint32_t *ret_busy)
{
	*ret_busy = 0;
	if (slot->ops->busy_offset == 0 || slot->foreign.name != NULL)
		return 0;
	return virtio_pci_read_config(
		slot->pci, slot->ops->busy_offset, ret_busy, sizeof(*ret_busy));
}

/* To stop a queue is to wait for its requests, which with -u is held against it. */
static int await_rest(const struct device_slot *slot, uint64_t deadline_ns)
{
	uint32_t busy;
	int r;

	while ((r = read_busy(slot, &busy)) == 0 && busy != 0) {
		if (clock_monotonic_ns() > deadline_ns)
			return -EBUSY;
		(void)poll(NULL, 0, 1);
	}
	return r;
}

int devices_suspend(struct devices *devices)
{
	uint64_t deadline_ns = clock_monotonic_ns() + DEVICES_REST_MS * NS_PER_MS;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < devices->count; i++) {
		r = await_rest(&devices->slots[i], deadline_ns);
		if (r == 0)
			r = virtio_pci_suspend(devices->slots[i].pci);
		if (r < 0)
			log_warn("%s: cannot be held: %s", devices->slots[i].ops->name,
				strerror(-r));
	}
	if (r < 0)
		devices_resume(devices);
	return r;
}

void devices_resume(struct devices *devices)
{
	for (unsigned i = 0; i < devices->count; i++)
		virtio_pci_resume(devices->slots[i].pci);
}

unsigned devices_count(const struct devices *devices)
{
	return devices->count;
}

struct device_info devices_info(const struct devices *devices, unsigned index)
{
	const struct device_slot *slot = &devices->slots[index];

	return (struct device_info){ .name = slot->ops->name, .pid = slot->process.jail.pid };
}

struct virtio_pci *devices_find(
	const struct devices *devices, const struct device_class *class, uint64_t index)
{
	for (unsigned i = 0; i < devices->count; i++)
		if (devices->slots[i].ops == class->ops && index-- == 0)
			return devices->slots[i].pci;
	return NULL;
}

/* A vCPU thread or the control loop. */
static void note_failure(void *owner)
{
	struct device_slot *slot = owner;

	atomic_store(&slot->failed, true);
	(void)eventfd_write(slot->devices->failure_fd, 1);
}

void devices_watch_failures(struct devices *devices, int eventfd)
{
	devices->failure_fd = eventfd;
	for (unsigned i = 0; i < devices->count; i++)
		virtio_pci_on_failure(devices->slots[i].pci, note_failure, &devices->slots[i]);
}

bool devices_take_failure(struct devices *devices, unsigned *ret_index)
{
	for (unsigned i = 0; i < devices->count; i++) {
		if (!atomic_exchange(&devices->slots[i].failed, false))
			continue;
		*ret_index = i;
		return true;
	}
	return false;
}

void devices_report_lost(struct devices *devices)
{
	if (devices->watch != NULL)
		device_watch_report(devices->watch);
}

/*
 * Of a start that failed. They hear nobody, so none of their devices can be waited for; and each
 * has the sockets of those before it.
 */
static void end_what_never_began(struct devices *devices)
{
	for (unsigned i = 0; i < devices->count; i++)
		if (!devices->slots[i].process.jail.released)
			device_process_end(&devices->slots[i].process);
}

void devices_free(struct devices *devices)
{
	if (devices == NULL)
		return;
	device_watch_free(devices->watch);
	fd_close(&devices->window_socket);
	vm_window_hang_up(devices->window);
	end_what_never_began(devices);
	for (unsigned i = 0; i < devices->count; i++) {
		struct device_slot *slot = &devices->slots[i];

		virtio_pci_free(slot->pci);
		device_process_end(&slot->process);
		foreign_device_close(&slot->foreign);
		if (slot->device != NULL)
			slot->ops->free(slot->device);
	}
	device_threads_free(devices->threads);
	pci_host_free(devices->host);
	(void)vm_window_free(devices->window);
	vm_fabric_free(devices->fabric);
	free(devices);
}
