// SPDX-License-Identifier: BSD-3-Clause
/* Adds devices to a configuration. Paths and values are the user's. */
#include "cli/device_options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/unix_listener.h"
#include "virtio/balloon.h"
#include "virtio/block_options.h"
#include "virtio/net_options.h"
#include "virtio/wl_options.h"
#include "vm/foreign_device.h"

static const struct {
	const char *name;
	const struct device_class *class;
} kinds[] = {
#define DEVICE(name, ...) { #name, &name##_device_class },
#include "virtio/devices.def"
#undef DEVICE
};

const struct device_class *device_options_find_class(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return kinds[i].class;
	return NULL;
}

static int parse(const char *option, const struct device_class *class, char *spec, uint64_t *seen,
	void *options)
{
	return spec == NULL ? 0
			    : suboptions_parse(option, class->suboptions, class->suboption_count,
				      spec, seen, options);
}

static int check(const char *option, const struct device_class *class, const void *options)
{
	return class->check != NULL ? class->check(option, options) : 0;
}

static int make_options(const char *option, const struct device_class *class, char *spec,
	uint64_t *ret_seen, void **ret_options)
{
	void *options = malloc(class->options_size + 1);

	if (options == NULL)
		return -ENOMEM;
	if (class->options_size > 0)
		memcpy(options, class->defaults, class->options_size);
	int r = parse(option, class, spec, ret_seen, options);

	/* What may be added to is complete when all was said. */
	if (r == 0 && !class->once)
		r = check(option, class, options);
	if (r < 0) {
		free(options);
		return r;
	}
	*ret_options = options;
	return 0;
}

int device_options_make(
	const char *option, const struct device_class *class, char *spec, void **ret_options)
{
	void *options = NULL;
	uint64_t seen = 0;
	int r = make_options(option, class, spec, &seen, &options);

	if (r == 0 && class->once)
		r = check(option, class, options);
	if (r < 0) {
		free(options);
		return r;
	}
	*ret_options = options;
	return 0;
}

/* Not one that another program serves, whose options are its own. */
static struct vm_device *find_device(
	const struct vm_config *config, const struct device_class *class)
{
	for (unsigned i = 0; i < config->device_count; i++)
		if (config->devices[i].class == class && config->devices[i].options != NULL)
			return &config->devices[i];
	return NULL;
}

/* Also those that other programs serve. */
static unsigned count_devices(const struct vm_config *config, const struct device_class *class)
{
	unsigned count = 0;

	for (unsigned i = 0; i < config->device_count; i++)
		count += config->devices[i].class == class;
	return count;
}

/* To the options that there are. */
static int add_to(struct vm_device *device, const char *option, char *spec)
{
	if (device->class->gathers)
		device->words = 0;
	return parse(option, device->class, spec, &device->words, device->options);
}

int device_options_add_session(struct vm_config *config)
{
	struct wl_options options = { .socket_count = 1 };

	if (count_devices(config, &wl_device_class) > 0)
		return 0;
	int r = wl_find_session(
		getenv("XDG_RUNTIME_DIR"), getenv("WAYLAND_DISPLAY"), &options.sockets[0]);

	if (r == 0)
		return vm_config_add_device(config, "--wayland-sock", &wl_device_class, &options);
	if (r == -ECONNREFUSED)
		log_warn("no Wayland compositor at '%s': the guest has no wayland device; "
			 "--no-wl says that it needs none",
			options.sockets[0].path);
	return 0;
}

int device_options_add(
	struct vm_config *config, const char *option, const struct device_class *class, char *spec)
{
	struct vm_device *device = class->once ? find_device(config, class) : NULL;
	void *options = NULL;
	uint64_t seen = 0;

	if (device != NULL)
		return add_to(device, option, spec);
	int r = make_options(option, class, spec, &seen, &options);

	if (r < 0)
		return r;
	r = vm_config_add_device(config, option, class, options);
	if (r == 0)
		config->devices[config->device_count - 1].words = seen;
	free(options);
	return r;
}

int device_options_add_disk(
	struct vm_config *config, const char *option, const char *path, bool read_only, bool root)
{
	struct block_options options = block_default_options;

	if (*path == '\0') {
		log_error("%s: no path; pass that of an image", option);
		return -EINVAL;
	}
	options.path = path;
	options.read_only = read_only;
	options.root = root;
	return vm_config_add_device(config, option, &block_device_class, &options);
}

int device_options_add_seed_net(
	struct vm_config *config, const char *host_ip, const char *netmask, const char *mac)
{
	struct net_options options = net_default_options;

	if (host_ip == NULL && netmask == NULL && mac == NULL)
		return 0;
	if (host_ip == NULL || netmask == NULL || mac == NULL) {
		log_error("--host_ip, --netmask and --mac belong together; give all three, or "
			  "--net host-ip=A,netmask=M");
		return -EINVAL;
	}
	options.has_host_ip = options.has_netmask = options.has_mac = true;
	int r = net_parse_address("--host_ip", host_ip, &options.host_ip);

	if (r == 0)
		r = net_parse_netmask("--netmask", netmask, &options.netmask);
	if (r == 0)
		r = net_parse_mac("--mac", mac, options.mac);
	return r == 0 ? vm_config_add_device(config, "--host_ip", &net_device_class, &options) : r;
}

/* The words of --vhost-user. */
struct foreign_options {
	const struct device_class *class;
	const char *path;
};

static int apply_type(void *target, const char *option, const char *value)
{
	const struct device_class *class = device_options_find_class(value);

	if (class == NULL || !foreign_device_is_known(class)) {
		log_error("%s: type=%s is no device that a back end may serve; block, net, rng, "
			  "vsock and wl are",
			option, value);
		return -EINVAL;
	}
	((struct foreign_options *)target)->class = class;
	return 0;
}

static int apply_foreign_socket(void *target, const char *option, const char *value)
{
	((struct foreign_options *)target)->path = value;
	return unix_check_path(option, value);
}

int device_options_add_foreign(struct vm_config *config, const char *option, char *spec)
{
	static const struct suboption words[] = {
		{ "type", true, apply_type, .needs_name = true },
		{ "socket", true, apply_foreign_socket },
	};
	struct foreign_options options = { NULL, NULL };
	int r = suboptions_parse(option, words, ARRAY_SIZE(words), spec, NULL, &options);

	if (r < 0)
		return r;
	if (options.class == NULL || options.path == NULL) {
		log_error("%s: say type=T,socket=PATH", option);
		return -EINVAL;
	}
	return vm_config_add_foreign(config, option, options.class, options.path);
}

int device_options_parse_jail(const char *value, struct device_jail *jail)
{
	bool best_effort = strcmp(value, "best-effort") == 0;

	if (!best_effort && strcmp(value, "strict") != 0) {
		log_error("--jail: '%s' is neither strict nor best-effort", value);
		return -EINVAL;
	}
	jail->best_effort = best_effort;
	return 0;
}

static int check_root(const struct vm_config *config)
{
	const struct block_options *root = NULL;

	for (unsigned i = 0; i < config->device_count; i++) {
		const struct block_options *disk = config->devices[i].options;

		if (config->devices[i].class != &block_device_class || disk == NULL || !disk->root)
			continue;
		if (root != NULL) {
			log_error(
				"two root disks, '%s' and '%s'; give one", root->path, disk->path);
			return -EINVAL;
		}
		root = disk;
	}
	return 0;
}

/* Whether there is such a file, by whatever name. */
static bool is_file(const struct stat *file, const char *path)
{
	struct stat other;

	return path != NULL && stat(path, &other) == 0 && other.st_dev == file->st_dev &&
	       other.st_ino == file->st_ino;
}

/* What the machine is made of, and the console would write into. */
static const char *find_use(const struct vm_config *config, const struct stat *file)
{
	if (is_file(file, config->kernel_path))
		return "the kernel";
	if (is_file(file, config->initrd_path))
		return "the initrd";
	for (unsigned i = 0; i < config->device_count; i++) {
		const struct block_options *disk = config->devices[i].options;

		if (config->devices[i].class == &block_device_class && disk != NULL &&
			is_file(file, disk->path))
			return "a disk";
	}
	return NULL;
}

static int check_serial(const struct vm_config *config)
{
	const struct console_config *serial = &config->serial;
	struct stat file;

	if (serial->kind != CONSOLE_FILE || stat(serial->path, &file) < 0)
		return 0;
	const char *use = find_use(config, &file);

	if (use == NULL)
		return 0;
	log_error("--serial: '%s' is %s of this VM; choose another file", serial->path, use);
	return -EINVAL;
}

static int check_balloon(const struct vm_config *config)
{
	const struct vm_device *balloon = find_device(config, &balloon_device_class);
	uint64_t size_mib = balloon != NULL ? balloon_size_mib(balloon->options) : 0;
	uint64_t memory_mib = config->memory_size / MIB;

	if (size_mib <= memory_mib)
		return 0;
	log_error("--balloon: size=%" PRIu64 " is more than the guest has: %" PRIu64
		  " MiB; pass a smaller one, or more --mem",
		size_mib, memory_mib);
	return -EINVAL;
}

/* A VM has one window, beside its memory. */
static int check_window(const struct vm_config *config)
{
	if (count_devices(config, &wl_device_class) <= 1)
		return 0;
	log_error("--vhost-user: a VM has one wl device; several sockets make one of our own");
	return -EINVAL;
}

/* Those that are made of several options. */
static int check_single(const struct vm_config *config)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < config->device_count; i++) {
		const struct vm_device *device = &config->devices[i];

		if (device->class->once && device->options != NULL)
			r = check(device->option, device->class, device->options);
	}
	return r;
}

int device_options_check(const struct vm_config *config)
{
	int r = check_root(config);

	if (r == 0)
		r = check_window(config);
	if (r == 0)
		r = check_single(config);
	if (r == 0)
		r = check_balloon(config);
	return r == 0 ? check_serial(config) : r;
}
