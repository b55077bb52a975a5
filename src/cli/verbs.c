// SPDX-License-Identifier: BSD-3-Clause
/*
 * The subcommands that speak to running VMs, as one table: all do the same
 * with each socket that they are given, and differ in the verb and in what
 * they make of the reply. Replies are checked: what is missing is not shown.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/option_values.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "vm/exit_status.h"
#include "vm/lifecycle.h"

/* How long a VM may take to flush its disks and end. */
enum { END_TIMEOUT_MS = 60000 };
/* How long a guest may take for its statistics: 3 s in all. */
enum { STATS_PAUSE_MS = 20, STATS_PAUSES = 150 };

struct verb_request {
	const char **paths; /* owned array of arguments */
	unsigned path_count;
	bool json;
	unsigned words; /* taken of those before the sockets */
	json_t *fields; /* owned; what the request has beside its verb. NULL: nothing */
};

struct verb {
	const char *name;
	const struct option_set *options;
	unsigned sockets_max;
	/* What to do after a good reply; NULL: nothing. 0 or -errno, logged. */
	int (*finish)(const struct verb_request *request, const char *path, int fd, json_t **reply);
	const char *protocol; /* the verb's name in the protocol; NULL: the same */
};

static int take_path(void *target, const char *value)
{
	struct verb_request *request = target;

	request->paths[request->path_count++] = value;
	return 0;
}

/* The first argument is a number, the others are sockets. */
static int take_size_or_path(void *target, const char *value)
{
	struct verb_request *request = target;
	uint64_t size_mib;

	if (request->fields != NULL)
		return take_path(target, value);
	int r = option_parse_number("balloon", value, 0, INT32_MAX, &size_mib);

	if (r < 0)
		return r;
	request->fields = json_pack("{s:I}", "size_mib", (json_int_t)size_mib);
	return request->fields != NULL ? 0 : -ENOMEM;
}

/* A number of bytes, or of K, M, G or T of them. */
static int parse_size(const char *text, uint64_t *ret_size)
{
	static const char units[] = "KMGT";
	size_t digits = strspn(text, "0123456789");
	const char *unit =
		text[digits] != '\0' ? strchr(units, toupper((unsigned char)text[digits])) : NULL;
	unsigned shift = unit != NULL ? 10 * (unsigned)(unit - units + 1) : 0;
	bool ends = text[digits] == '\0' || (unit != NULL && text[digits + 1] == '\0');

	errno = 0;
	unsigned long long number = strtoull(text, NULL, 10);

	if (digits == 0 || !ends || errno != 0 || number > (unsigned long long)INT64_MAX >> shift) {
		log_error("disk resize: '%s' is not a size, as 1073741824 or 1G", text);
		return -EINVAL;
	}
	*ret_size = (uint64_t)number << shift;
	return 0;
}

static int add_field(struct verb_request *request, const char *name, uint64_t value)
{
	if (request->fields == NULL)
		request->fields = json_object();
	return json_object_set_new(request->fields, name, json_integer((json_int_t)value)) < 0
		       ? -ENOMEM
		       : 0;
}

/* "resize", the disk's number, its size, and then sockets. */
static int take_disk_word(void *target, const char *value)
{
	struct verb_request *request = target;
	uint64_t number;
	int r;

	switch (request->words++) {
	case 0:
		if (strcmp(value, "resize") == 0)
			return 0;
		log_error("disk: unknown word '%s'; usage: crosvm disk resize INDEX SIZE SOCKET...",
			value);
		return -EINVAL;
	case 1:
		r = option_parse_number("disk resize", value, 0, UINT16_MAX, &number);
		return r < 0 ? r : add_field(request, "index", number);
	case 2:
		r = parse_size(value, &number);
		return r < 0 ? r : add_field(request, "size", number);
	default:
		return take_path(target, value);
	}
}

static int take_json(void *target, const char *value)
{
	(void)value;
	((struct verb_request *)target)->json = true;
	return 0;
}

static const struct option json_options[] = {
	{ "json", 0, NULL, "the reply as it came, one line for each VM", false, take_json },
};

#define VERB_OPTIONS(name, sockets, text, ...)                                                     \
	{                                                                                          \
		.command = "crosvm " name, .positional = (sockets), .summary = (text),             \
		.apply_positional = take_path, __VA_ARGS__                                         \
	}

const struct option_set balloon_options = {
	.command = "crosvm balloon",
	.positional = "MIB SOCKET...",
	.summary = "Makes guests give up this much of their memory, from now on; 0 gives all back.",
	.apply_positional = take_size_or_path,
};
const struct option_set balloon_stats_options =
	VERB_OPTIONS("balloon_stats", "SOCKET...", "Says how guests use their memory.",
		.options = json_options, .count = ARRAY_SIZE(json_options));
const struct option_set disk_options = {
	.command = "crosvm disk",
	.positional = "resize INDEX SIZE SOCKET...",
	.summary =
		"Makes a disk of VMs bigger or smaller, disk 0 being the first; SIZE as 512M, 10G.",
	.apply_positional = take_disk_word,
};
const struct option_set events_options = VERB_OPTIONS("events", "SOCKET",
	"Prints what happens to a VM, one line of JSON for each event, until it ends.");
const struct option_set powerbtn_options = VERB_OPTIONS("powerbtn", "SOCKET...",
	"Presses the power button of VMs: the guest shuts down by itself.");
const struct option_set resume_options =
	VERB_OPTIONS("resume", "SOCKET...", "Lets suspended VMs run on.");
const struct option_set status_options = VERB_OPTIONS("status", "SOCKET...", "Says how VMs are.",
	.options = json_options, .count = ARRAY_SIZE(json_options));
const struct option_set stop_options = VERB_OPTIONS("stop", "SOCKET...",
	"Ends VMs in good order, disks flushed, without asking the guest; returns when they "
	"ended.");
const struct option_set suspend_options =
	VERB_OPTIONS("suspend", "SOCKET...", "Holds the vCPUs and devices of VMs.");
const struct option_set version_options =
	VERB_OPTIONS("version", "[SOCKET...]", "Prints the version, or those of running VMs.");

/* ---- replies ---- */

static void print_json(const json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT);

	if (text != NULL)
		puts(text);
	free(text);
}

static int finish_version(
	const struct verb_request *request, const char *path, int fd, json_t **reply)
{
	const char *version = json_string_value(json_object_get(*reply, "crosvm"));

	(void)request;
	(void)fd;
	printf("%s: crosvm %s\n", path, version != NULL ? version : "?");
	return 0;
}

static int64_t member(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

static void print_devices(const json_t *devices)
{
	const json_t *device;
	size_t i;

	json_array_foreach(devices, i, device)
	{
		const char *name = json_string_value(json_object_get(device, "name"));

		printf("  device %zu: %s", i, name != NULL ? name : "?");
		if (member(device, "pid") != 0)
			printf(", process %" PRId64, member(device, "pid"));
		putchar('\n');
	}
}

static int finish_status(
	const struct verb_request *request, const char *path, int fd, json_t **reply)
{
	const char *state = json_string_value(json_object_get(*reply, "state"));
	json_t *exits = json_object_get(*reply, "exits");
	const json_t *kind;
	const char *name;

	(void)fd;
	if (request->json) {
		(void)json_object_set_new(*reply, "socket", json_string(path));
		print_json(*reply);
		return 0;
	}
	printf("%s: %s, process %" PRId64 ", up %" PRId64 ".%03" PRId64 " s\n", path,
		state != NULL ? state : "?", member(*reply, "pid"),
		member(*reply, "uptime_ms") / 1000, member(*reply, "uptime_ms") % 1000);
	printf("  vCPUs %" PRId64 ", memory %" PRId64 " MiB\n", member(*reply, "vcpus"),
		member(*reply, "memory_mib"));
	print_devices(json_object_get(*reply, "devices"));
	json_object_foreach(exits, name, kind)
	{
		printf("  exits, %s: %" JSON_INTEGER_FORMAT "\n", name, json_integer_value(kind));
	}
	return 0;
}

static bool is_answered(const json_t *reply, int64_t asked)
{
	return (int32_t)(member(reply, "answered") - asked) >= 0;
}

/*
 * The first reply has what was known; the guest's driver was asked for more, and
 * is given a while. Each further question asks it again, so few of them.
 */
static int await_stats(const char *path, int fd, json_t **reply)
{
	const struct timespec pause = { .tv_nsec = STATS_PAUSE_MS * 1000000L };
	int64_t asked = member(*reply, "asked");

	for (unsigned i = 0; i < STATS_PAUSES && !is_answered(*reply, asked); i++) {
		json_t *next;

		nanosleep(&pause, NULL);
		int r = client_ask(path, fd, "balloon_stats", NULL, &next);

		if (r < 0)
			return r;
		json_decref(*reply);
		*reply = next;
	}
	if (is_answered(*reply, asked))
		return 0;
	log_error("%s: the guest does not answer; it may have no balloon driver, or be suspended",
		path);
	return -ETIMEDOUT;
}

static int finish_balloon_stats(
	const struct verb_request *request, const char *path, int fd, json_t **reply)
{
	const json_t *value;
	const char *name;
	int r = await_stats(path, fd, reply);

	if (r < 0)
		return r;
	if (request->json) {
		(void)json_object_set_new(*reply, "socket", json_string(path));
		print_json(*reply);
		return 0;
	}
	printf("%s: %" PRId64 " of %" PRId64 " MiB given up\n", path, member(*reply, "actual_mib"),
		member(*reply, "target_mib"));
	json_object_foreach(json_object_get(*reply, "stats"), name, value)
	{
		printf("  %s: %" JSON_INTEGER_FORMAT "\n", name, json_integer_value(value));
	}
	return 0;
}

/* The VM closes the connection when all is done. */
static int finish_stop(const struct verb_request *request, const char *path, int fd, json_t **reply)
{
	json_t *message;
	int r;

	(void)request;
	(void)reply;
	while ((r = client_receive(fd, END_TIMEOUT_MS, &message)) == 0)
		json_decref(message);
	if (r == -ENODATA)
		return 0;
	log_error("%s: the VM was told to end and has not yet: %s", path,
		r == -ETIMEDOUT ? "60 s have passed; its disks may be slow" : strerror(-r));
	return r;
}

static bool is_end(const json_t *event)
{
	const char *name = json_string_value(json_object_get(event, "event"));

	return name != NULL && vm_end_has_event(name);
}

static int finish_events(
	const struct verb_request *request, const char *path, int fd, json_t **reply)
{
	json_t *message;
	bool ended = false;
	int r;

	(void)request;
	(void)reply;
	while ((r = client_await(fd, STDOUT_FILENO)) == 0 &&
		(r = client_receive(fd, 0, &message)) == 0) {
		print_json(message);
		ended = is_end(message);
		json_decref(message);
		if (fflush(stdout) != 0)
			return 0; /* main() says so */
	}
	if (r == -EPIPE) {
		/* As for a program that writes there: mostly it ends without a word. */
		(void)raise(SIGPIPE);
		// cppcheck-suppress unreachableCode ; it is reached where that is ignored
		log_error("cannot write to stdout: %s", strerror(EPIPE));
		return r;
	}
	if (r == -ENODATA && ended)
		return 0;
	log_error("%s: %s", path,
		r == -ENODATA ? "no more events, and no end of the VM; it was killed, or did not "
				"wait for us to read them"
			      : strerror(-r));
	return r;
}

static const struct verb verbs[] = {
	{ "balloon", &balloon_options, UINT32_MAX, NULL },
	{ "balloon_stats", &balloon_stats_options, UINT32_MAX, finish_balloon_stats },
	{ "disk", &disk_options, UINT32_MAX, NULL, .protocol = "disk_resize" },
	{ "events", &events_options, 1, finish_events },
	{ "powerbtn", &powerbtn_options, UINT32_MAX, NULL },
	{ "resume", &resume_options, UINT32_MAX, NULL },
	{ "status", &status_options, UINT32_MAX, finish_status },
	{ "stop", &stop_options, UINT32_MAX, finish_stop },
	{ "suspend", &suspend_options, UINT32_MAX, NULL },
	{ "version", &version_options, UINT32_MAX, finish_version },
};

/* ---- the command ---- */

static int do_one(const struct verb *verb, const struct verb_request *request, const char *path)
{
	CLEANUP_FD int fd = -1;
	json_t *reply = NULL;
	int r = client_connect(path, &fd);

	if (r == 0)
		r = client_ask(path, fd, verb->protocol != NULL ? verb->protocol : verb->name,
			request->fields, &reply);
	if (r < 0)
		return r;
	if (verb->finish != NULL)
		r = verb->finish(request, path, fd, &reply);
	json_decref(reply);
	return r;
}

/* One that fails does not keep the others from being served. */
static int do_all(const struct verb *verb, const struct verb_request *request)
{
	int status = STATUS_OK;

	for (unsigned i = 0; i < request->path_count; i++)
		if (do_one(verb, request, request->paths[i]) < 0)
			status = STATUS_HOST;
	return status;
}

static int run_verb(const struct verb *verb, int argc, char **argv, struct verb_request *request)
{
	int r = options_parse(verb->options, argc, argv, request);

	if (r == OPTIONS_HELP) {
		options_print_help(verb->options, stdout);
		return STATUS_OK;
	}
	if (r < 0)
		return STATUS_USAGE;
	if (request->path_count == 0 || request->path_count > verb->sockets_max) {
		log_error("%s socket; usage: %s %s",
			request->path_count == 0 ? "no" : "more than one", verb->options->command,
			verb->options->positional);
		return STATUS_USAGE;
	}
	return do_all(verb, request);
}

int command_verb(int argc, char **argv)
{
	const struct verb *verb = verbs;
	struct verb_request request = { .paths = calloc((size_t)argc, sizeof(char *)) };

	/* main() calls us for names of this table only. */
	while (verb < &verbs[ARRAY_SIZE(verbs) - 1] && strcmp(verb->name, argv[0]) != 0)
		verb++;
	if (request.paths == NULL)
		return STATUS_HOST;
	int status = run_verb(verb, argc, argv, &request);

	json_decref(request.fields);
	free(request.paths);
	return status;
}
