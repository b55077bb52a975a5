// SPDX-License-Identifier: BSD-3-Clause
/*
 * The kernel's command line. The user's part may be anything; the kernel would
 * cut what is too long, so it is refused here.
 */
#include "vm/cmdline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

/*
 * The console only where there is one: a byte on it costs the guest an exit.
 * A panic resets at once, so that the VM ends; the warm reset after a panic
 * (unlike the cold one of a reboot) is how vm/platform.c tells them apart.
 */
static const char console_param[] = "console=ttyS0 ";
static const char end_params[] = "panic=-1 reboot=panic_warm";

static int check_params(const char *params)
{
	for (const char *c = params; *c != '\0'; c++) {
		if ((unsigned char)*c >= ' ' && *c != 0x7f)
			continue;
		log_error("--params: control character 0x%02x at byte %zu; "
			  "a kernel command line is one line of text",
			(unsigned char)*c, (size_t)(c - params));
		return -EINVAL;
	}
	return 0;
}

/* What the devices need the kernel to know. */
static void add_device_params(const struct vm_config *config, char *ret_text, size_t size)
{
	size_t used = 0;

	*ret_text = '\0';
	for (unsigned i = 0; i < config->device_count && used < size; i++) {
		const struct vm_device *device = &config->devices[i];
		unsigned index = 0;

		if (device->class->kernel_params == NULL || device->foreign_path != NULL)
			continue;
		for (unsigned j = 0; j < i; j++)
			index += config->devices[j].class == device->class;
		device->class->kernel_params(device->options, index, ret_text + used, size - used);
		used += strlen(ret_text + used);
	}
}

int cmdline_make(const struct vm_config *config, uint64_t max, char *ret_line, size_t size)
{
	bool has_console = config->serial.kind != CONSOLE_NULL;
	int r = check_params(config->params);

	if (r < 0)
		return r;
	char device_params[256];

	add_device_params(config, device_params, sizeof(device_params));
	int length = snprintf(ret_line, size, "%s%s%s%s%s", has_console ? console_param : "",
		end_params, device_params, *config->params != '\0' ? " " : "", config->params);

	if (length < 0)
		return -EINVAL;
	if ((size_t)length >= size || (uint64_t)length > max) {
		log_error("the kernel command line has %d bytes, this kernel takes %" PRIu64
			  "; shorten --params",
			length, min_u64(max, size - 1));
		return -E2BIG;
	}
	return 0;
}
