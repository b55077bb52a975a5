// SPDX-License-Identifier: BSD-3-Clause
/* The verbs of the control socket, one function each. Requests were parsed already. */
#include "vm/control_service.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "virtio/block_options.h"
#include "virtio/device.h"
#include "vm/balloon_control.h"
#include "vm/control_protocol.h"
#include "vm/control_socket.h"

/* How long suspend waits for a vCPU; one that is in a device's register may take a while. */
enum { PAUSE_TIMEOUT_MS = 3000 };

struct control_service {
	struct control_socket *socket;
	struct evloop *loop; /* NULL until started */
	struct control_parts parts;
	uint64_t boot_ns;
	bool suspended;
	int failure_fd;                 /* owned; a device failed */
	char text[CONTROL_MESSAGE_MAX]; /* what is being sent */
};

/* ---- replies and events ---- */

static void reply(struct control_service *service, struct control_client *client, json_t *fields)
{
	size_t size = control_reply_write(fields, service->text, sizeof(service->text));

	control_client_send(client, service->text, size);
}

static void reply_fault(struct control_service *service, struct control_client *client,
	const struct control_fault *fault)
{
	size_t size = control_reply_write_fault(fault, service->text, sizeof(service->text));

	control_client_send(client, service->text, size);
}

static uint64_t uptime_ms(const struct control_service *service)
{
	return (clock_monotonic_ns() - service->boot_ns) / NS_PER_MS;
}

static uint64_t wall_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / NS_PER_MS;
}

/* An event that is `age_ms` old. */
static json_t *make_event(const struct control_service *service, const char *name, uint64_t age_ms)
{
	return json_pack("{s:s, s:I, s:I}", "event", name, "uptime_ms",
		(json_int_t)(uptime_ms(service) - age_ms), "time_ms",
		(json_int_t)(wall_clock_ms() - age_ms));
}

static void publish(struct control_service *service, json_t *event)
{
	size_t size = control_event_write(event, service->text, sizeof(service->text));

	control_socket_publish(service->socket, service->text, size);
}

static void tell(struct control_service *service, struct control_client *client, json_t *event)
{
	size_t size = control_event_write(event, service->text, sizeof(service->text));

	control_client_send(client, service->text, size);
}

static const char *state_name(const struct control_service *service)
{
	return service->suspended ? "suspended" : "running";
}

/* ---- the verbs ---- */

static void reply_state(struct control_service *service, struct control_client *client)
{
	reply(service, client, json_pack("{s:s}", "state", state_name(service)));
}

/* First the past in short, so that it does not matter when a listener comes. */
static void do_events(struct control_service *service, struct control_client *client,
	const struct control_request *request)
{
	(void)request;
	reply_state(service, client);
	tell(service, client, make_event(service, "boot", uptime_ms(service)));
	if (service->suspended)
		tell(service, client, make_event(service, "suspended", 0));
	control_client_subscribe(client);
}

static void do_powerbtn(struct control_service *service, struct control_client *client,
	const struct control_request *request)
{
	(void)request;
	platform_press_power_button(service->parts.platform);
	reply_state(service, client);
}

static void do_stop(struct control_service *service, struct control_client *client,
	const struct control_request *request)
{
	(void)request;
	reply_state(service, client);
	log_debug("the control socket asked for the end");
	lifecycle_end(service->parts.lifecycle, VM_END_STOPPED);
}

static void do_version(struct control_service *service, struct control_client *client,
	const struct control_request *request)
{
	(void)request;
	reply(service, client, json_pack("{s:s}", "crosvm", CROSVM_VERSION));
}

/* First the vCPUs, so that nobody asks the devices for more. */
static int hold_vm(const struct control_parts *parts)
{
	int r = vcpu_set_pause(parts->vcpus, PAUSE_TIMEOUT_MS);

	if (r < 0)
		return r;
	r = devices_suspend(parts->devices);
	if (r < 0)
		vcpu_set_resume(parts->vcpus);
	return r;
}

static void release_vm(const struct control_parts *parts)
{
	devices_resume(parts->devices);
	vcpu_set_resume(parts->vcpus);
}

static const char *explain_hold(int error)
{
	switch (error) {
	case -ETIMEDOUT:
		return "a vCPU waits for its device";
	case -EBUSY:
		return "the host is slow with what is in flight to a disk; try again";
	default:
		return strerror(-error);
	}
}

static void do_suspend(struct control_service *service, struct control_client *client,
	const struct control_request *request)
{
	(void)request;
	struct control_fault fault;
	int r = service->suspended ? 0 : hold_vm(&service->parts);

	if (r < 0) {
		control_fault_set(&fault, "failed", "cannot suspend: %s", explain_hold(r));
		reply_fault(service, client, &fault);
		return;
	}
	if (!service->suspended) {
		service->suspended = true;
		publish(service, make_event(service, "suspended", 0));
	}
	reply_state(service, client);
}

static void do_resume(struct control_service *service, struct control_client *client,
	const struct control_request *request)
{
	(void)request;
	if (service->suspended) {
		release_vm(&service->parts);
		service->suspended = false;
		publish(service, make_event(service, "resumed", 0));
	}
	reply_state(service, client);
}

static json_t *describe_devices(const struct devices *devices)
{
	json_t *array = json_array();

	for (unsigned i = 0; array != NULL && i < devices_count(devices); i++) {
		struct device_info info = devices_info(devices, i);
		json_t *pid = info.pid != 0 ? json_integer(info.pid) : json_null();

		/* Adding NULL, for want of memory, fails as well. */
		if (json_array_append_new(
			    array, json_pack("{s:s, s:o}", "name", info.name, "pid", pid)) < 0) {
			json_decref(array);
			array = NULL;
		}
	}
	return array;
}

static json_t *describe_exits(const struct vcpu_set *vcpus)
{
	uint64_t exits[VCPU_EXIT_KINDS];

	for (unsigned kind = 0; kind < VCPU_EXIT_KINDS; kind++)
		exits[kind] = vcpu_set_exits(vcpus, kind);
	/* The other kinds end the VM. */
	return json_pack("{s:I, s:I, s:I}", "port", (json_int_t)exits[VCPU_EXIT_PORT], "mmio",
		(json_int_t)exits[VCPU_EXIT_MMIO], "interrupted",
		(json_int_t)exits[VCPU_EXIT_INTERRUPTED]);
}

static void do_status(struct control_service *service, struct control_client *client,
	const struct control_request *request)
{
	(void)request;
	const struct control_parts *parts = &service->parts;

	reply(service, client,
		json_pack("{s:s, s:i, s:I, s:i, s:I, s:o, s:o}", "state", state_name(service),
			"pid", (int)getpid(), "uptime_ms", (json_int_t)uptime_ms(service), "vcpus",
			(int)vcpu_set_count(parts->vcpus), "memory_mib",
			(json_int_t)(parts->config->memory_size / MIB), "devices",
			describe_devices(parts->devices), "exits", describe_exits(parts->vcpus)));
}

/* What the guest was asked to give up, and what it says it has. */
static json_t *describe_balloon(const struct balloon_state *state)
{
	return json_pack("{s:i, s:i}", "target_mib",
		(int)(state->target_pages / BALLOON_PAGES_PER_MIB), "actual_mib",
		(int)(state->actual_pages / BALLOON_PAGES_PER_MIB));
}

static void reply_balloon_fault(
	struct control_service *service, struct control_client *client, int error)
{
	struct control_fault fault;

	control_fault_set(&fault, "failed", "the balloon: %s", strerror(-error));
	reply_fault(service, client, &fault);
}

/* NULL after a reply that says so. */
static struct virtio_pci *find_balloon(
	struct control_service *service, struct control_client *client)
{
	struct virtio_pci *balloon = devices_find(service->parts.devices, &balloon_device_class, 0);
	struct control_fault fault;

	if (balloon == NULL) {
		control_fault_set(&fault, "no-device",
			"the VM has no balloon; start it with --balloon size=0");
		reply_fault(service, client, &fault);
	}
	return balloon;
}

static void do_balloon(struct control_service *service, struct control_client *client,
	const struct control_request *request)
{
	uint64_t memory_mib = service->parts.config->memory_size / MIB;
	struct virtio_pci *balloon = find_balloon(service, client);
	struct balloon_state state = { 0 };
	struct control_fault fault;

	if (balloon == NULL)
		return;
	if (request->size_mib > memory_mib) {
		control_fault_set(&fault, "bad-size",
			"the guest has %" PRIu64 " MiB, not %" PRIu64 " to give up", memory_mib,
			request->size_mib);
		reply_fault(service, client, &fault);
		return;
	}
	int r = balloon_set_target(balloon, request->size_mib);

	if (r == 0)
		r = balloon_read_state(balloon, &state);
	if (r < 0)
		reply_balloon_fault(service, client, r);
	else
		reply(service, client, describe_balloon(&state));
}

/* Only what the driver said; the values are 64 bits wide, and a JSON integer has a sign. */
static json_t *describe_stats(const struct balloon_state *state)
{
	json_t *stats = json_object();

	for (unsigned i = 0; i < BALLOON_STATS; i++) {
		uint64_t value = min_u64(state->stats[i], INT64_MAX);

		if (stats == NULL || state->stats[i] == BALLOON_STAT_UNKNOWN)
			continue;
		if (json_object_set_new(
			    stats, balloon_stat_names[i], json_integer((json_int_t)value)) < 0) {
			json_decref(stats);
			stats = NULL;
		}
	}
	return stats;
}

/*
 * Asks the guest for new statistics and replies with those that are there, for
 * nobody here waits for a guest. Two numbers tell who asks how old they are.
 */
static void do_balloon_stats(struct control_service *service, struct control_client *client,
	const struct control_request *request)
{
	struct virtio_pci *balloon = find_balloon(service, client);
	struct balloon_state state = { 0 };
	uint32_t number;

	(void)request;
	if (balloon == NULL)
		return;
	int r = balloon_ask_stats(balloon, &number);

	if (r == 0)
		r = balloon_read_state(balloon, &state);
	if (r < 0) {
		reply_balloon_fault(service, client, r);
		return;
	}
	json_t *fields = describe_balloon(&state);

	if (fields != NULL &&
		(json_object_set_new(fields, "asked", json_integer(number)) < 0 ||
			json_object_set_new(
				fields, "answered", json_integer(state.stats_answered)) < 0 ||
			json_object_set_new(fields, "stats", describe_stats(&state)) < 0)) {
		json_decref(fields);
		fields = NULL;
	}
	reply(service, client, fields);
}

static const char *explain_resize(int error)
{
	switch (error) {
	case -EROFS:
		return "it is read-only";
	case -EOPNOTSUPP:
		return "it is a snapshot, or another program's";
	case -EINVAL:
		return "the size must be a multiple of the disk's block size, and not 0";
	case -ENXIO:
		return "it is a block device of the host, which has another size";
	default:
		return explain_hold(error);
	}
}

/* With the VM held, so that no request that was checked against the old size is in flight. */
static int resize_disk(struct control_service *service, struct virtio_pci *disk, uint64_t sectors)
{
	int r = service->suspended ? 0 : hold_vm(&service->parts);

	if (r < 0)
		return r;
	r = virtio_pci_change_config(
		disk, offsetof(struct virtio_blk_config, capacity), &sectors, sizeof(sectors));
	if (!service->suspended)
		release_vm(&service->parts);
	return r;
}

static void do_disk_resize(struct control_service *service, struct control_client *client,
	const struct control_request *request)
{
	uint64_t sectors = request->size / SECTOR_SIZE;
	struct virtio_pci *disk =
		devices_find(service->parts.devices, &block_device_class, request->index);
	struct control_fault fault;
	int r = request->size % SECTOR_SIZE == 0 ? 0 : -EINVAL;

	if (disk == NULL) {
		control_fault_set(&fault, "no-device", "there is no disk %" PRIu64, request->index);
		reply_fault(service, client, &fault);
		return;
	}
	if (r == 0)
		r = resize_disk(service, disk, sectors);
	if (r < 0) {
		control_fault_set(&fault, "failed", "cannot resize disk %" PRIu64 ": %s",
			request->index, explain_resize(r));
		reply_fault(service, client, &fault);
		return;
	}
	reply(service, client,
		json_pack("{s:I, s:I}", "index", (json_int_t)request->index, "size",
			(json_int_t)request->size));
}

static void (*const verbs[CONTROL_VERBS])(struct control_service *service,
	struct control_client *client, const struct control_request *request) = {
	[CONTROL_BALLOON] = do_balloon,
	[CONTROL_BALLOON_STATS] = do_balloon_stats,
	[CONTROL_DISK_RESIZE] = do_disk_resize,
	[CONTROL_EVENTS] = do_events,
	[CONTROL_POWERBTN] = do_powerbtn,
	[CONTROL_RESUME] = do_resume,
	[CONTROL_STATUS] = do_status,
	[CONTROL_STOP] = do_stop,
	[CONTROL_SUSPEND] = do_suspend,
	[CONTROL_VERSION] = do_version,
};

static void take_message(
	void *owner, struct control_client *client, const struct control_message *message)
{
	struct control_service *service = owner;
	struct control_fault fault;
	struct control_request request;

	if (message->too_long)
		control_fault_set(
			&fault, "too-long", "a request has %d bytes at most", CONTROL_MESSAGE_MAX);
	else if (message->with_descriptors)
		control_fault_set(&fault, "descriptors", "no request takes file descriptors");
	else if (control_request_parse(message->text, message->size, &request, &fault) == 0) {
		verbs[request.verb](service, client, &request);
		return;
	}
	reply_fault(service, client, &fault);
}

static void on_device_failure(void *argument)
{
	struct control_service *service = argument;
	eventfd_t count;
	unsigned index;

	(void)eventfd_read(service->failure_fd, &count);
	while (devices_take_failure(service->parts.devices, &index)) {
		struct device_info info = devices_info(service->parts.devices, index);
		json_t *event = make_event(service, "device-failure", 0);

		if (event != NULL &&
			(json_object_set_new(event, "device", json_string(info.name)) < 0 ||
				json_object_set_new(event, "index", json_integer(index)) < 0)) {
			json_decref(event);
			event = NULL;
		}
		publish(service, event);
	}
}

/* ---- life ---- */

int control_service_open(const char *path, struct control_service **ret_service)
{
	if (path == NULL) {
		*ret_service = NULL;
		return 0;
	}
	struct control_service *service = malloc(sizeof(*service));

	if (service == NULL) {
		log_error("--socket: no memory");
		return -ENOMEM;
	}
	memset(service, 0, offsetof(struct control_service, text));
	service->failure_fd = -1;
	/* The library's hash: in the sandbox it would find /dev/urandom closed, and take the time
	 * of day. */
	json_object_seed(0);
	int r = control_socket_open(path, &service->socket);

	if (r < 0) {
		free(service);
		return r;
	}
	*ret_service = service;
	return 0;
}

int control_service_start(
	struct control_service *service, const struct control_parts *parts, struct evloop *loop)
{
	if (service == NULL)
		return 0;
	service->parts = *parts;
	service->loop = loop;
	service->boot_ns = clock_monotonic_ns();
	service->failure_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = service->failure_fd < 0 ? -errno : 0;

	if (r == 0)
		r = evloop_add(loop, service->failure_fd, on_device_failure, service);
	if (r == 0)
		r = control_socket_start(service->socket, loop, take_message, service);
	if (r < 0)
		log_error("--socket: %s", strerror(-r));
	else
		devices_watch_failures(parts->devices, service->failure_fd);
	return r;
}

const char *control_service_path(const struct control_service *service)
{
	return service != NULL ? control_socket_path(service->socket) : NULL;
}

void control_service_end(struct control_service *service, enum vm_end end)
{
	if (service == NULL)
		return;
	publish(service, make_event(service, vm_end_event(end), 0));
}

void control_service_free(struct control_service *service)
{
	if (service == NULL)
		return;
	if (service->loop != NULL)
		evloop_remove(service->loop, service->failure_fd);
	control_socket_free(service->socket);
	fd_close(&service->failure_fd);
	free(service);
}
