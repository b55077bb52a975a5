// SPDX-License-Identifier: BSD-3-Clause
/*
 * The life of a VM as one page: the table `stages` below is the order in which
 * it comes to life, with make_machine() beside it, tear_down() the one way in
 * which it goes. Files are opened before anything is made, so that a typing
 * error costs nothing.
 */
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <semaphore.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/advice.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "jail/sandbox.h"
#include "kvm/coalesced.h"
#include "kvm/host.h"
#include "kvm/machine.h"
#include "memory/guest_memory.h"
#include "vm/cmdline.h"
#include "vm/control.h"
#include "vm/control_service.h"
#include "vm/devices.h"
#include "vm/lifecycle.h"
#include "vm/platform.h"
#include "vm/vcpu.h"
#include "x86_64/acpi.h"
#include "x86_64/boot.h"
#include "x86_64/kernel_image.h"
#include "x86_64/layout.h"
#include "x86_64/mptable.h"
#include "x86_64/platform.h"

struct vm {
	const struct vm_config *config;
	int kernel_fd;
	int initrd_fd;
	struct kvm_host host;
	struct sandbox sandbox;
	struct control control;
	struct control_service *service; /* NULL without a control socket */
	struct lifecycle lifecycle;
	struct console *console;
	struct guest_memory *memory;
	struct kernel_image image;
	struct kvm_machine machine;
	struct platform *platform;
	struct devices *devices;
	struct vcpu_set *vcpus;
	/* What the main thread makes while that of vCPU 0 makes the rest. */
	struct cpu_model *cpu_model;
	int load_result;
	sem_t loaded; /* posted when both are there */
};

static int open_file(const char *what, const char *path, int *ret_fd)
{
	/* O_NONBLOCK: a FIFO must not make us wait before it is refused. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0) {
		int error = errno;

		log_error("cannot open the %s '%s': %s; %s", what, path, strerror(error),
			advice_open(error));
		return -error;
	}
	*ret_fd = fd;
	return 0;
}

static int open_images(struct vm *vm)
{
	int r = open_file("kernel", vm->config->kernel_path, &vm->kernel_fd);

	if (r == 0 && vm->config->initrd_path != NULL)
		r = open_file("initrd", vm->config->initrd_path, &vm->initrd_fd);
	return r;
}

static int open_host(struct vm *vm)
{
	int r = kvm_host_open(&vm->host);

	if (r < 0 || vm->config->vcpus == 1)
		return r;
	unsigned max = kvm_host_max_vcpus(&vm->host);

	if (vm->config->vcpus > max) {
		log_error("--cpus %u: this host's KVM takes %u vCPUs at most", vm->config->vcpus,
			max);
		return -EINVAL;
	}
	return 0;
}

static void quit_from_console(void *owner, bool failed)
{
	lifecycle_end(owner, failed ? VM_END_HOST : VM_END_STOPPED);
}

static int open_control(struct vm *vm)
{
	int r = control_init(&vm->control);

	if (r < 0) {
		log_error("cannot set up signals: %s", strerror(-r));
		return r;
	}
	r = control_service_open(vm->config->socket_path, &vm->service);
	if (r == 0)
		r = console_open(
			&vm->config->serial, quit_from_console, &vm->lifecycle, &vm->console);
	return r;
}

static int open_devices(struct vm *vm)
{
	return devices_open(vm->config, &vm->sandbox, &vm->lifecycle, &vm->devices);
}

/*
 * Whether a guest is larger than its host, swap included. Below 1 GiB the answer
 * is not worth a system call; huge pages are had at once or not at all.
 */
static bool exceeds_host(const struct vm_config *config, uint64_t *ret_host_mib)
{
	struct sysinfo info;

	if (config->memory_size < GIB || (config->memory_flags & GUEST_MEMORY_HUGE_PAGES) != 0 ||
		sysinfo(&info) < 0)
		return false;
	*ret_host_mib = ((uint64_t)info.totalram + info.totalswap) * info.mem_unit / MIB;
	return config->memory_size / MIB > *ret_host_mib;
}

static void report_no_memory(const struct vm_config *config, int r)
{
	uint64_t mib = config->memory_size / MIB;

	if ((config->memory_flags & GUEST_MEMORY_HUGE_PAGES) != 0)
		log_error("no %" PRIu64 " huge pages of 2 MiB for the guest: %s; reserve them "
			  "('sudo sysctl vm.nr_hugepages=N'), or leave out --hugepages",
			mib / 2, strerror(-r));
	else
		log_error("no memory for a guest of %" PRIu64 " MiB: %s; pass a smaller --mem", mib,
			strerror(-r));
}

/*
 * Memory comes from the host page by page, so a guest larger than its host may
 * live, until it has touched too much and the host's kernel kills somebody. With
 * --prealloc that would be now.
 */
static int create_memory(struct vm *vm)
{
	struct guest_memory_range ranges[GUEST_MEMORY_REGIONS_MAX];
	size_t count = layout_ram_ranges(vm->config->memory_size, ranges);
	unsigned flags = vm->config->memory_flags |
			 (vm_config_shares_memory(vm->config) ? GUEST_MEMORY_SHARED : 0);
	uint64_t host_mib = 0;
	bool exceeds = exceeds_host(vm->config, &host_mib);
	int r = exceeds && (flags & GUEST_MEMORY_PREALLOCATE) != 0
			? -ENOMEM
			: guest_memory_create(ranges, count, flags, &vm->memory);

	if (r == -EINTR)
		lifecycle_end(&vm->lifecycle, VM_END_STOPPED);
	else if (r < 0)
		report_no_memory(vm->config, r);
	if (r < 0)
		return r;
	if (exceeds)
		log_warn("the guest's memory of %" PRIu64 " MiB is more than the host has, %" PRIu64
			 " MiB with its swap; if it uses it all, the host's kernel kills it: pass "
			 "a smaller --mem",
			vm->config->memory_size / MIB, host_mib);
	return 0;
}

static int load_images(struct vm *vm, struct boot_request *request)
{
	int r = kernel_image_load(vm->kernel_fd, vm->config->kernel_path, vm->memory, &vm->image);

	if (r == 0 && vm->initrd_fd >= 0)
		r = initrd_load(vm->initrd_fd, vm->config->initrd_path, vm->memory, &vm->image,
			&request->initrd_gpa, &request->initrd_size);
	return r;
}

/* Everything that the guest finds in memory. */
static int load_guest(struct vm *vm)
{
	char cmdline[LAYOUT_CMDLINE_SIZE];
	struct boot_request request = { .image = &vm->image, .cmdline = cmdline };
	int r = load_images(vm, &request);

	if (r == 0)
		r = cmdline_make(vm->config, vm->image.cmdline_max, cmdline, sizeof(cmdline));
	if (r < 0)
		return r;
	const struct acpi_request acpi = {
		.vcpus = vm->config->vcpus,
		.pci_window_gpa = layout_pci_window(vm->config->memory_size),
		.pci_window_size = LAYOUT_PCI_WINDOW_SIZE,
	};

	r = acpi_write(vm->memory, &acpi, &request.rsdp_gpa);
	if (r == 0)
		r = mptable_write(vm->memory, vm->config->vcpus);
	if (r == 0)
		r = boot_write(vm->memory, &request);
	if (r < 0)
		log_error("cannot write the guest's boot data: %s", strerror(-r));
	return r;
}

/* Memory slots come first: while nothing else is there, KVM has nobody to wait for. */
static int create_machine(struct vm *vm)
{
	int r = kvm_machine_create(&vm->host, LAYOUT_TSS, &vm->machine);

	for (size_t i = 0; r == 0 && i < guest_memory_region_count(vm->memory); i++) {
		const struct guest_memory_region *region = guest_memory_region(vm->memory, i);

		r = kvm_machine_add_memory(
			&vm->machine, (unsigned)i, region->gpa, region->size, region->hva);
	}
	return r;
}

static int create_devices(struct vm *vm)
{
	int r = platform_create(&vm->machine, vm->memory, &vm->lifecycle,
		console_serial_backend(vm->console), vm->control.loop, &vm->platform);

	if (r < 0) {
		log_error("cannot make the platform devices: %s", strerror(-r));
		return r;
	}
	return devices_attach(vm->devices, &vm->machine, vm->memory, vm->platform, vm->control.loop,
		layout_pci_window(vm->config->memory_size));
}

static int create_vcpus(struct vm *vm)
{
	int r = kvm_machine_add_interrupts(&vm->machine, vm->config->vcpus);

	if (r == 0)
		r = vcpu_set_add_vcpus(vm->vcpus, &vm->host, &vm->machine, vm->platform);
	return r;
}

static int start_service(struct vm *vm)
{
	const struct control_parts parts = {
		.config = vm->config,
		.lifecycle = &vm->lifecycle,
		.platform = vm->platform,
		.devices = vm->devices,
		.vcpus = vm->vcpus,
	};

	return control_service_start(vm->service, &parts, vm->control.loop);
}

/* After the last file was opened and the last process made, before the first thread. */
static int drop_rights(struct vm *vm)
{
	const struct sandbox_wish wish = {
		.off = vm->config->sandbox_off,
		.log_violations = vm->config->jail.log_violations,
	};

	if (wish.off)
		log_warn("the sandbox is off: the main process keeps all rights of its user");
	return sandbox_begin(&wish, &vm->sandbox);
}

static int await_load(struct vm *vm)
{
	thread_await(&vm->loaded);
	if (vm->load_result < 0)
		return vm->load_result;
	int r = vcpu_set_model(vm->vcpus, vm->cpu_model);

	if (r == 0)
		vcpu_set_entry(vm->vcpus, &vm->image);
	return r;
}

/*
 * What takes KVM its time, in the thread of vCPU 0, while the main thread loads the guest.
 * Their results meet in await_load() and in start().
 */
static int make_machine(void *owner)
{
	static int (*const steps[])(struct vm *) = {
		create_machine,
		create_devices,
		create_vcpus,
		start_service,
		await_load,
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(steps); i++)
		r = steps[i](owner);
	return r;
}

static int begin_machine(struct vm *vm)
{
	int r = vcpu_set_create(vm->config->vcpus, &vm->lifecycle, &vm->vcpus);

	if (r == 0)
		r = vcpu_set_start_first(vm->vcpus, &vm->sandbox, make_machine, vm);
	return r;
}

static int describe_cpus(struct vm *vm)
{
	return cpu_model_create(&vm->host, vm->config->vcpus, &vm->cpu_model);
}

static int load(struct vm *vm)
{
	vm->load_result = load_guest(vm);
	sem_post(&vm->loaded);
	return vm->load_result;
}

static int batch_com1(void *owner, bool on)
{
	struct vm *vm = owner;

	return on ? kvm_coalesced_add(&vm->machine, PORT_COM1, 1)
		  : kvm_coalesced_remove(&vm->machine, PORT_COM1, 1);
}

static void take_com1(void *owner)
{
	struct vm *vm = owner;

	vcpu_set_take_writes(vm->vcpus);
}

/* Not before the guest runs: it takes some system calls, and a boot can wait for it. */
static void save_exits(struct vm *vm)
{
	const struct console_batching batching = { batch_com1, take_com1, vm, 60 * NS_PER_S };

	if (vcpu_set_coalesce(vm->vcpus, &vm->host, &vm->machine))
		console_batch(vm->console, &batching);
}

/* The guest goes first: what it prints waits in the console's ring until its thread runs. */
static int start(struct vm *vm)
{
	int r = vcpu_set_start_others(vm->vcpus);

	if (r == 0)
		r = console_start(vm->console, platform_com1(vm->platform), &vm->sandbox);
	if (r == 0)
		r = devices_start(vm->devices);
	if (r == 0)
		save_exits(vm);
	return r;
}

/* The main thread's own part, while the guest runs already: it needs no file but its sockets. */
static int close_sandbox(struct vm *vm)
{
	const char *paths[DEVICE_SOCKETS_MAX + 2];
	size_t count = devices_socket_paths(vm->devices, paths);

	paths[count++] = control_service_path(vm->service);
	paths[count++] = vm->config->serial.kind == CONSOLE_UNIX ? vm->config->serial.path : NULL;
	int r = sandbox_leave_files(&vm->sandbox, paths, count);

	if (r == 0)
		r = sandbox_finish(&vm->sandbox);
	if (r == 0)
		r = sandbox_enter(&vm->sandbox, "main_control");
	return r;
}

static const struct {
	int (*enter)(struct vm *vm);
	enum exit_status failure;
} stages[] = {
	{ open_images, STATUS_IMAGE },
	{ open_control, STATUS_HOST },
	{ open_devices, STATUS_HOST },
	{ open_host, STATUS_HOST },
	{ create_memory, STATUS_HOST },
	{ drop_rights, STATUS_HOST },
	{ begin_machine, STATUS_HOST }, /* the steps of make_machine(), beside the next two */
	{ describe_cpus, STATUS_HOST },
	{ load, STATUS_IMAGE },
	{ start, STATUS_HOST },
	{ close_sandbox, STATUS_HOST },
};

/*
 * Takes down what was made, however far it came. The console late: it may hold
 * output. The control socket last: its end tells that the VM is gone.
 */
static void tear_down(struct vm *vm)
{
	/* When it failed early, somebody may wait for what will not come. */
	sem_post(&vm->loaded);
	devices_give_up(vm->devices);
	vcpu_set_stop(vm->vcpus);
	console_stop(vm->console);
	if (vm->platform != NULL) {
		bus_log_statistics(platform_ports(vm->platform), "port");
		bus_log_statistics(platform_mmio(vm->platform), "mmio");
	}
	devices_free(vm->devices);
	vcpu_set_free(vm->vcpus);
	cpu_model_free(vm->cpu_model);
	platform_free(vm->platform);
	kvm_machine_close(&vm->machine);
	console_free(vm->console);
	guest_memory_free(vm->memory);
	kvm_host_close(&vm->host);
	lifecycle_destroy(&vm->lifecycle);
	control_service_free(vm->service);
	control_destroy(&vm->control);
	sem_destroy(&vm->loaded);
	fd_close(&vm->kernel_fd);
	fd_close(&vm->initrd_fd);
}

enum exit_status vm_run(const struct vm_config *config)
{
	struct vm vm = {
		.config = config,
		.kernel_fd = -1,
		.initrd_fd = -1,
		.host.fd = -1,
		.control.signalfd = -1,
		.lifecycle.eventfd = -1,
		.machine.fd = -1,
		.load_result = -ECANCELED,
	};
	enum exit_status status = STATUS_OK;

	/* One heap: our threads hardly allocate, and each would be given one of its own. */
	mallopt(M_ARENA_MAX, 1);
	sem_init(&vm.loaded, 0, 0);
	for (size_t i = 0; status == STATUS_OK && i < ARRAY_SIZE(stages); i++)
		if (stages[i].enter(&vm) < 0)
			status = stages[i].failure;
	enum vm_end end = VM_RUNNING;

	if (status == STATUS_OK)
		end = control_run(&vm.control, &vm.lifecycle, vm.console);
	else if (lifecycle_get(&vm.lifecycle) == VM_END_STOPPED)
		end = VM_END_STOPPED;
	if (end == VM_END_DEVICE)
		devices_report_lost(vm.devices);
	if (end != VM_RUNNING)
		control_service_end(vm.service, end);
	tear_down(&vm);
	if (end != VM_RUNNING) {
		status = vm_end_status(end);
		log_message(status == STATUS_OK ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, "%s",
			vm_end_text(end));
	}
	return status;
}
