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

/* vda to vdz, then vdaa, as the kernel counts them. Writes after "vd". */
static void name_disk(unsigned index, char *ret_letters, size_t size)
{
	char reversed[8];
	size_t n = 0;

	do {
		reversed[n++] = (char)('a' + index % 26);
		index = index / 26;
	} while (index-- > 0 && n < sizeof(reversed));
	for (size_t i = 0; i < n && i + 1 < size; i++)
		ret_letters[i] = reversed[n - 1 - i];
	ret_letters[n < size ? n : size - 1] = '\0';
}

static void make_root_param(const struct vm_config *config, char *ret_param, size_t size)
{
	char letters[8];

	*ret_param = '\0';
	if (config->root_disk < 0)
		return;
	name_disk((unsigned)config->root_disk, letters, sizeof(letters));
	snprintf(ret_param, size, " root=/dev/vd%s %s", letters,
		config->disks[config->root_disk].read_only ? "ro" : "rw");
}

int cmdline_make(const struct vm_config *config, uint64_t max, char *ret_line, size_t size)
{
	bool has_console = config->serial.kind != CONSOLE_NULL;
	int r = check_params(config->params);

	if (r < 0)
		return r;
	char root_param[32];

	make_root_param(config, root_param, sizeof(root_param));
	int length = snprintf(ret_line, size, "%s%s%s%s%s", has_console ? console_param : "",
		end_params, root_param, *config->params != '\0' ? " " : "", config->params);

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
