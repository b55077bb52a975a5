// SPDX-License-Identifier: BSD-3-Clause
/*
 * crosvm device: the options of a device that runs alone. Its kinds are the
 * lines of devices.def, its words are those of the option of the same name of
 * crosvm run.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/unix_listener.h"
#include "cli/commands.h"
#include "cli/device_options.h"
#include "vm/device_server.h"
#include "vm/exit_status.h"

struct device_request {
	const char *name;
	char *spec; /* of argv, which is ours to change; NULL: none */
	const char *socket_path;
	struct device_jail jail;
};

static int apply_positional(void *target, const char *value)
{
	struct device_request *request = target;

	if (request->name == NULL) {
		request->name = value;
	} else if (request->spec == NULL) {
		request->spec = (char *)value;
	} else {
		log_error("device %s: '%s' is one argument too many", request->name, value);
		return -EINVAL;
	}
	return 0;
}

static int apply_socket_path(void *target, const char *value)
{
	((struct device_request *)target)->socket_path = value;
	return unix_check_path("--socket-path", value);
}

static int apply_jail(void *target, const char *value)
{
	return device_options_parse_jail(value, &((struct device_request *)target)->jail);
}

static int apply_log_failures(void *target, const char *value)
{
	(void)value;
	((struct device_request *)target)->jail.log_violations = true;
	return 0;
}

static int apply_policy_dir(void *target, const char *value)
{
	((struct device_request *)target)->jail.policy_dir = value;
	return 0;
}

static const struct option options[] = {
	{ "jail", 0, "HOW", "strict (default), or best-effort: without what the host refuses",
		false, apply_jail },
	{ "log-level", 0, "LEVEL", "error, warn, info (default) or debug", false,
		option_apply_log_level },
	{ "seccomp-log-failures", 0, NULL, "forbidden system calls are logged and made", false,
		apply_log_failures },
	{ "seccomp-policy-dir", 0, "DIR", "NAME_device.policy there, not our own", false,
		apply_policy_dir },
	{ "socket-path", 0, "PATH", "the socket to listen on; removed at the end", false,
		apply_socket_path },
};

#define DEVICE(name, ...) " " #name
const struct option_set device_options = {
	.command = "crosvm device",
	.positional = "NAME [SPEC]",
	.summary = "Runs a device alone, for a VMM that connects by vhost-user. SPEC is as for "
		   "'crosvm run --NAME'.\nNAME is one of"
#include "virtio/devices.def"
		   ".",
	.options = options,
	.count = ARRAY_SIZE(options),
	.apply_positional = apply_positional,
};
#undef DEVICE

/* The exit status. */
static int run(const struct device_request *request)
{
	const struct device_class *class =
		request->name != NULL ? device_options_find_class(request->name) : NULL;
	void *device = NULL;

	if (request->name == NULL) {
		log_error("no device; usage: crosvm device NAME --socket-path PATH [SPEC]");
		return STATUS_USAGE;
	}
	if (class == NULL) {
		log_error(
			"device '%s' is not known; 'crosvm help device' lists them", request->name);
		return STATUS_USAGE;
	}
	if (request->spec != NULL && class->suboption_count == 0) {
		log_error("device %s: it takes no SPEC ('%s')", request->name, request->spec);
		return STATUS_USAGE;
	}
	if (request->socket_path == NULL) {
		log_error("device %s: no socket; pass --socket-path PATH", request->name);
		return STATUS_USAGE;
	}
	char label[OPTION_LABEL_SIZE];

	snprintf(label, sizeof(label), "device %s", request->name);
	if (device_options_make(label, class, request->spec, &device) < 0)
		return STATUS_USAGE;
	enum exit_status status = STATUS_USAGE;

	if (device_class_ops(class, device) != class->ops)
		log_error("device %s: that is for 'crosvm run'; its --vhost-user shows the "
			  "guest a plain one",
			request->name);
	else if (device_class_has_back_end(class, device))
		log_error("device %s: another program would serve it, by vhost-user as well: start "
			  "that one",
			request->name);
	else if (device_server_run(class, device, request->socket_path, &request->jail) < 0)
		status = STATUS_HOST;
	else
		status = STATUS_OK;
	free(device);
	return status;
}

int command_device(int argc, char **argv)
{
	struct device_request request = { 0 };
	int r = options_parse(&device_options, argc, argv, &request);

	if (r == OPTIONS_HELP) {
		options_print_help(&device_options, stdout);
		return STATUS_OK;
	}
	return r == 0 ? run(&request) : STATUS_USAGE;
}
