// SPDX-License-Identifier: BSD-3-Clause
/* The devices of a configuration. They are the user's choice, in any number. */
#include "vm/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static int append(struct vm_config *config, const char *option, const struct vm_device *device)
{
	if (config->device_count == VM_DEVICES_MAX) {
		log_error("%s: more than %d devices", option, VM_DEVICES_MAX);
		return -EINVAL;
	}
	struct vm_device *devices =
		realloc(config->devices, (config->device_count + 1) * sizeof(config->devices[0]));

	if (devices == NULL) {
		log_error("%s: %s", option, strerror(ENOMEM));
		return -ENOMEM;
	}
	devices[config->device_count++] = *device;
	config->devices = devices;
	return 0;
}

int vm_config_add_device(struct vm_config *config, const char *option,
	const struct device_class *class, const void *options)
{
	struct vm_device device = { .option = option, .class = class };

	if (class->options_size > 0) {
		device.options = malloc(class->options_size);
		if (device.options == NULL) {
			log_error("%s: %s", option, strerror(ENOMEM));
			return -ENOMEM;
		}
		memcpy(device.options, options, class->options_size);
	}
	int r = append(config, option, &device);

	if (r < 0)
		free(device.options);
	return r;
}

int vm_config_add_foreign(struct vm_config *config, const char *option,
	const struct device_class *class, const char *path)
{
	const struct vm_device device = {
		.option = option,
		.class = class,
		.foreign_path = path,
	};

	return append(config, option, &device);
}

bool vm_config_shares_memory(const struct vm_config *config)
{
	bool shares = config->multiprocess;

	for (unsigned i = 0; i < config->device_count; i++) {
		const struct vm_device *device = &config->devices[i];

		shares = shares || device->foreign_path != NULL ||
			 device_class_has_back_end(device->class, device->options);
	}
	return shares;
}

void vm_config_free_devices(struct vm_config *config)
{
	for (unsigned i = 0; i < config->device_count; i++)
		free(config->devices[i].options);
	free(config->devices);
	config->devices = NULL;
	config->device_count = 0;
}
