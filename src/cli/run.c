// SPDX-License-Identifier: BSD-3-Clause
/*
 * crosvm run: the options, and nothing else; the VM itself is vm/vm.c. Every
 * value is checked here or where it is used, and refused in one line.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/unix_listener.h"
#include "cli/commands.h"
#include "cli/device_options.h"
#include "vm/config.h"
#include "vm/exit_status.h"
#include "vm/vm.h"

enum { DEFAULT_MEMORY_MIB = 256, DEFAULT_VCPUS = 1, VCPUS_MAX = 4096 };

struct run_request {
	struct vm_config config;
	char *params; /* what -p gave so far; owned */
	/* The first crosvm's words for a network; all three or none. */
	const char *host_ip;
	const char *netmask;
	const char *mac;
	const char *jail_option; /* the last that is about jails; NULL: none */
	bool no_wl;
};

static int apply_kernel(void *target, const char *value)
{
	struct run_request *request = target;

	if (request->config.kernel_path != NULL) {
		log_error(
			"two kernels, '%s' and '%s'; give one", request->config.kernel_path, value);
		return -EINVAL;
	}
	request->config.kernel_path = value;
	return 0;
}

static int apply_cpus(void *target, const char *value)
{
	struct run_request *request = target;
	uint64_t vcpus;
	int r = option_parse_number("--cpus", value, 1, VCPUS_MAX, &vcpus);

	if (r == 0)
		request->config.vcpus = (unsigned)vcpus;
	return r;
}

/* MiB by default, as the first crosvm had it; 512M, 1G and 1T as everybody writes it. */
static int apply_mem(void *target, const char *value)
{
	static const struct {
		char suffix;
		uint64_t mib;
	} units[] = { { 'M', 1 }, { 'G', KIB }, { 'T', MIB } };
	struct run_request *request = target;
	size_t length = strlen(value);
	uint64_t unit = 1;
	uint64_t number;
	char digits[24];

	for (size_t i = 0; length > 1 && i < ARRAY_SIZE(units); i++)
		if ((value[length - 1] & ~0x20) == units[i].suffix) {
			unit = units[i].mib;
			length--;
			break;
		}
	snprintf(digits, sizeof(digits), "%.*s", (int)min_u64(length, sizeof(digits)), value);
	if (!option_read_number(digits, &number) || number > MEMORY_MIB_MAX / unit ||
		number * unit < MEMORY_MIB_MIN) {
		log_error("--mem: '%s' is not a size from %d to %d MiB, such as 512, 512M or 1G",
			value, MEMORY_MIB_MIN, MEMORY_MIB_MAX);
		return -EINVAL;
	}
	request->config.memory_size = number * unit * MIB;
	return 0;
}

static int apply_hugepages(void *target, const char *value)
{
	(void)value;
	((struct run_request *)target)->config.memory_flags |= GUEST_MEMORY_HUGE_PAGES;
	return 0;
}

static int apply_prealloc(void *target, const char *value)
{
	(void)value;
	((struct run_request *)target)->config.memory_flags |= GUEST_MEMORY_PREALLOCATE;
	return 0;
}

static int apply_params(void *target, const char *value)
{
	struct run_request *request = target;
	size_t used = request->params != NULL ? strlen(request->params) : 0;
	char *params = realloc(request->params, used + strlen(value) + 2);

	if (params == NULL)
		return -ENOMEM;
	if (used != 0)
		params[used++] = ' ';
	memcpy(params + used, value, strlen(value) + 1);
	request->params = params;
	return 0;
}

static int apply_initrd(void *target, const char *value)
{
	((struct run_request *)target)->config.initrd_path = value;
	return 0;
}

static int apply_serial(void *target, const char *value)
{
	static const struct {
		const char *word;
		enum console_kind kind;
		bool has_path;
	} kinds[] = {
		{ "stdio", CONSOLE_STDIO, false },
		{ "null", CONSOLE_NULL, false },
		{ "file=", CONSOLE_FILE, true },
		{ "unix=", CONSOLE_UNIX, true },
	};
	struct console_config *serial = &((struct run_request *)target)->config.serial;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t length = strlen(kinds[i].word);

		if (strncmp(value, kinds[i].word, length) != 0)
			continue;
		bool has_path = value[length] != '\0';

		if (has_path != kinds[i].has_path)
			continue;
		serial->kind = kinds[i].kind;
		serial->path = has_path ? value + length : NULL;
		return serial->kind == CONSOLE_UNIX ? unix_check_path("--serial", serial->path) : 0;
	}
	log_error("--serial: '%s' is not stdio, file=PATH, unix=PATH or null", value);
	return -EINVAL;
}

/* The value is a string of argv, which is ours to change. */
#define DEVICE(name, ...)                                                                          \
	static int apply_##name(void *target, const char *value)                                   \
	{                                                                                          \
		return device_options_add(&((struct run_request *)target)->config, "--" #name,     \
			&name##_device_class, (char *)value);                                      \
	}
#include "virtio/devices.def"
#undef DEVICE

static int add_disk(void *target, const char *option, const char *path, bool read_only, bool root)
{
	return device_options_add_disk(
		&((struct run_request *)target)->config, option, path, read_only, root);
}

static int apply_disk(void *target, const char *value)
{
	return add_disk(target, "--disk", value, true, false);
}

static int apply_rwdisk(void *target, const char *value)
{
	return add_disk(target, "--rwdisk", value, false, false);
}

static int apply_root(void *target, const char *value)
{
	return add_disk(target, "--root", value, true, true);
}

static int apply_rwroot(void *target, const char *value)
{
	return add_disk(target, "--rwroot", value, false, true);
}

/* As the first crosvm had it. */
static int apply_cid(void *target, const char *value)
{
	return device_options_add(&((struct run_request *)target)->config, "--cid",
		&vsock_device_class, (char *)value);
}

static int apply_vhost_user(void *target, const char *value)
{
	return device_options_add_foreign(
		&((struct run_request *)target)->config, "--vhost-user", (char *)value);
}

static int apply_host_ip(void *target, const char *value)
{
	((struct run_request *)target)->host_ip = value;
	return 0;
}

static int apply_netmask(void *target, const char *value)
{
	((struct run_request *)target)->netmask = value;
	return 0;
}

static int apply_mac(void *target, const char *value)
{
	((struct run_request *)target)->mac = value;
	return 0;
}

/* As the first crosvm had them. */
static int apply_wayland(void *target, const char *value)
{
	return device_options_add(&((struct run_request *)target)->config, "--wayland-sock",
		&wl_device_class, (char *)value);
}

static int apply_no_wl(void *target, const char *value)
{
	(void)value;
	((struct run_request *)target)->no_wl = true;
	return 0;
}

static int apply_socket(void *target, const char *value)
{
	((struct run_request *)target)->config.socket_path = value;
	return unix_check_path("--socket", value);
}

static int apply_multiprocess(void *target, const char *value)
{
	(void)value;
	((struct run_request *)target)->config.multiprocess = true;
	return 0;
}

static int apply_jail(void *target, const char *value)
{
	struct run_request *request = target;

	request->jail_option = "--jail";
	return device_options_parse_jail(value, &request->config.jail);
}

static int apply_log_failures(void *target, const char *value)
{
	(void)value;
	((struct run_request *)target)->config.jail.log_violations = true;
	return 0;
}

static int apply_policy_dir(void *target, const char *value)
{
	struct run_request *request = target;

	request->jail_option = "--seccomp-policy-dir";
	request->config.jail.policy_dir = value;
	return 0;
}

static int apply_disable_sandbox(void *target, const char *value)
{
	(void)value;
	((struct run_request *)target)->config.sandbox_off = true;
	return 0;
}

static const struct option options[] = {
	{ "cid", 0, "N", "the same as --vsock cid=N", false, apply_cid },
	{ "cpus", 'c', "N", "vCPUs (default 1)", false, apply_cpus },
	{ "disk", 'd', "PATH", "a read-only disk; repeatable", true, apply_disk },
	{ "disable-sandbox", 0, NULL, "the main process keeps all its rights", false,
		apply_disable_sandbox },
	{ "hugepages", 0, NULL, "memory from the host's reserved huge pages of 2 MiB", false,
		apply_hugepages },
	{ "host_ip", 0, "A", "a network card on a new tap: its IPv4 address on the host", false,
		apply_host_ip },
	{ "initrd", 'i', "PATH", "initial RAM disk", false, apply_initrd },
	{ "jail", 0, "HOW",
		"with -u: strict (default), or best-effort: without what the host refuses", false,
		apply_jail },
	{ "log-level", 0, "LEVEL", "error, warn, info (default) or debug", false,
		option_apply_log_level },
	{ "mac", 0, "A", "with --host_ip: the guest's MAC address", false, apply_mac },
	{ "mem", 'm', "SIZE", "memory in MiB, or with a suffix M, G, T (default 256)", false,
		apply_mem },
	{ "multiprocess", 'u', NULL, "each virtio device in a jailed process of its own", false,
		apply_multiprocess },
	{ "netmask", 0, "M", "with --host_ip: the network's mask", false, apply_netmask },
	{ "no-wl", 0, NULL, "no wayland device but those that --wl and --wayland-sock ask for",
		false, apply_no_wl },
	{ "params", 'p', "TEXT", "kernel parameters, added to the command line; repeatable", true,
		apply_params },
	{ "prealloc", 0, NULL, "take all memory from the host at the start", false,
		apply_prealloc },
	{ "root", 'r', "PATH", "a read-only disk with the root file system", true, apply_root },
	{ "rwdisk", 0, "PATH", "a writable disk; repeatable", true, apply_rwdisk },
	{ "rwroot", 0, "PATH", "a writable disk with the root file system", true, apply_rwroot },
	{ "seccomp-log-failures", 0, NULL, "forbidden system calls are logged and made", false,
		apply_log_failures },
	{ "seccomp-policy-dir", 0, "DIR", "with -u: NAME_device.policy there, not our own", false,
		apply_policy_dir },
	{ "serial", 0, "WHERE", "COM1: stdio (default), file=PATH, unix=PATH or null", false,
		apply_serial },
	{ "socket", 's', "PATH", "a control socket there, or in that directory (crosvm-PID.sock)",
		false, apply_socket },
	{ "vhost-user", 0, "SPEC",
		"a device that another program serves: type=T,socket=PATH; repeatable", true,
		apply_vhost_user },
	{ "wayland-sock", 0, "SPEC", "the same as --wl: PATH[,name=N]; repeatable", true,
		apply_wayland },
#define DEVICE(name, letter, value, help) { #name, letter, value, help, true, apply_##name },
#include "virtio/devices.def"
#undef DEVICE
};

const struct option_set run_options = {
	.command = "crosvm run",
	.positional = "KERNEL",
	.summary = "Boots KERNEL (bzImage or ELF vmlinux) in a virtual machine until it ends.",
	.options = options,
	.count = ARRAY_SIZE(options),
	.apply_positional = apply_kernel,
};

/* Options that need another. */
static int check_request(const struct run_request *request)
{
	const struct vm_config *config = &request->config;

	if (config->kernel_path == NULL) {
		log_error("no kernel; usage: crosvm run [OPTIONS] KERNEL");
		return -EINVAL;
	}
	if ((config->memory_flags & GUEST_MEMORY_HUGE_PAGES) != 0 &&
		config->memory_size % (2 * MIB) != 0) {
		log_error("--mem: with --hugepages an even number of MiB");
		return -EINVAL;
	}
	if (request->jail_option != NULL && !config->multiprocess) {
		log_error("%s belongs to --multiprocess (-u); add that, or leave it out",
			request->jail_option);
		return -EINVAL;
	}
	return 0;
}

static int complete(struct run_request *request)
{
	int r = check_request(request);

	if (r == 0)
		r = device_options_add_seed_net(
			&request->config, request->host_ip, request->netmask, request->mac);
	if (r == 0 && !request->no_wl)
		r = device_options_add_session(&request->config);
	return r == 0 ? device_options_check(&request->config) : r;
}

int command_run(int argc, char **argv)
{
	struct run_request request = {
		.config = {
			.memory_size = DEFAULT_MEMORY_MIB * MIB,
			.vcpus = DEFAULT_VCPUS,
			.serial.kind = CONSOLE_STDIO,
		},
	};
	int status = STATUS_USAGE;
	int r = options_parse(&run_options, argc, argv, &request);

	if (r == OPTIONS_HELP) {
		options_print_help(&run_options, stdout);
		status = STATUS_OK;
	} else if (r == 0 && complete(&request) == 0) {
		request.config.params = request.params != NULL ? request.params : "";
		status = (int)vm_run(&request.config);
	}
	free(request.params);
	vm_config_free_devices(&request.config);
	return status;
}
