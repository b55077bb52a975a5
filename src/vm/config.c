// SPDX-License-Identifier: BSD-3-Clause
/* The devices of a configuration. They are the user's choice, in any number. */
#include "vm/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static int copy_device(
	struct vm_device *ret_device, const struct device_class *class, const void *options)
{
	void *copy = NULL;

	if (class->options_size > 0) {
		copy = malloc(class->options_size);
		if (copy == NULL)
			return -ENOMEM;
		memcpy(copy, options, class->options_size);
	}
	*ret_device = (struct vm_device){ .class = class, .options = copy };
	return 0;
}

int vm_config_add_device(struct vm_config *config, const char *option,
	const struct device_class *class, const void *options)
{
	if (config->device_count == VM_DEVICES_MAX) {
		log_error("--%s: more than %d devices", option, VM_DEVICES_MAX);
		return -EINVAL;
	}
	struct vm_device *devices =
		realloc(config->devices, (config->device_count + 1) * sizeof(config->devices[0]));
	int r = -ENOMEM;

	if (devices != NULL) {
		config->devices = devices;
		r = copy_device(&devices[config->device_count], class, options);
	}
	if (r < 0)
		log_error("--%s: %s", option, strerror(-r));
	else
		config->device_count++;
	return r;
}

void vm_config_free_devices(struct vm_config *config)
{
	for (unsigned i = 0; i < config->device_count; i++)
		free(config->devices[i].options);
	free(config->devices);
	config->devices = NULL;
	config->device_count = 0;
}
