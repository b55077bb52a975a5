// SPDX-License-Identifier: BSD-3-Clause
/*
 * virtio-wayland: the guest's windows on the host's compositor. The device of
 * ChromeOS, which has no number of its own in virtio: 30 is what the first
 * drivers look for, 63 what later ones do. What the guest sends to the
 * compositor is between the two; see SECURITY.md.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/connector.h"
#include "base/log.h"
#include "virtio/wl_options.h"
#include "virtio/wl_queue.h"

enum { ID_FIRST = 30, ID_LATER = 63 };

static unsigned wl_queue_count(const struct device *device)
{
	(void)device;
	return WL_QUEUES;
}

static uint64_t wl_features(const struct device *device)
{
	(void)device;
	return UINT64_C(1) << WL_F_TRANS_FLAGS | UINT64_C(1) << WL_F_SEND_FENCES;
}

static void wl_config_read(struct device *device, uint32_t offset, uint8_t *data, uint32_t size)
{
	(void)device, (void)offset;
	memset(data, 0, size);
}

static void wl_set_window(struct device *device, const struct window *window)
{
	device->host->table.window = window;
	device->host->table.window_gpa = window != NULL ? window->gpa : 0;
}

/*
 * All that the VMM says is where the window is, when that came by a message: vhost-user has no
 * other way to say it.
 */
static int wl_config_change(
	struct device *device, uint32_t offset, const uint8_t *data, uint32_t size)
{
	struct wl_host *host = device->host;
	uint64_t gpa;

	if (offset != 0 || size != sizeof(gpa))
		return -EINVAL;
	memcpy(&gpa, data, sizeof(gpa));
	pthread_mutex_lock(&host->lock);
	host->table.window_gpa = gpa;
	pthread_mutex_unlock(&host->lock);
	return 0;
}

static int wl_start(struct device *device, uint64_t features)
{
	device->host->trans_flags = (features >> WL_F_TRANS_FLAGS & 1) != 0;
	return 0;
}

static int wl_serve(struct device_queue *queue)
{
	return queue->index == WL_IN ? wl_serve_in(queue) : wl_serve_out(queue);
}

static void wl_stop(struct device *device)
{
	wl_host_reset(device->host);
}

static void wl_let_go(struct device *device)
{
	wl_host_let_go(device->host);
}

static void wl_free_device(struct device *device)
{
	wl_host_free(device->host);
	free(device);
}

static unsigned wl_fds(const struct device *device, int ret_fds[DEVICE_FDS_MAX])
{
	const struct wl_host *host = device->host;
	unsigned count = 0;

	ret_fds[count++] = host->in_epoll_fd;
	ret_fds[count++] = host->out_epoll_fd;
	if (host->connector_fd >= 0)
		ret_fds[count++] = host->connector_fd;
	return count;
}

/* ---- the helper, which connects to the sockets by their index ---- */

/* One directory is what it sees. */
static int wl_helper_directory(const struct device *device, char *ret_path, size_t size)
{
	const struct wl_host *host = device->host;
	char other[WL_PATH_MAX + 1];
	int r = connector_directory(host->sockets[0].path, ret_path, size);

	for (unsigned i = 1; r > 0 && i < host->socket_count; i++) {
		r = connector_directory(host->sockets[i].path, other, sizeof(other));
		if (r > 0 && strcmp(other, ret_path) != 0) {
			log_error("wl: the sockets '%s' and '%s' lie in two directories, and a "
				  "device in a jail has one; leave one socket out, or do without "
				  "--multiprocess",
				host->sockets[0].path, host->sockets[i].path);
			r = -EINVAL;
		}
	}
	return r;
}

static int connect_socket(const void *owner, uint32_t index, int *ret_fd)
{
	const struct wl_host *host = owner;
	char inside[WL_PATH_MAX + 2]; /* a '/' may come before it */

	if (index >= host->socket_count)
		return -EINVAL;
	snprintf(inside, sizeof(inside), "/%s", connector_name(host->sockets[index].path));
	return connector_connect(inside, ret_fd);
}

static int wl_helper_serve(struct device *device, int socket)
{
	return connector_serve(socket, connect_socket, device->host);
}

static void wl_helper_attach(struct device *device, int socket)
{
	device->host->connector_fd = socket;
}

static const struct device_helper_ops wl_helper_ops = {
	.name = "wl-to",
	.policy = "connector",
	.directory = wl_helper_directory,
	.serve = wl_helper_serve,
	.attach = wl_helper_attach,
};

/* What it holds at once, what a message or a command adds before it is counted, the window's. */
enum { SPARE_FDS = WL_DESCRIPTORS_MAX + WL_FDS_MAX + 4 + 1 };

#define WL_OPS(id)                                                                                 \
	{                                                                                          \
		.name = "wl", .virtio_id = (id), .pci_class = 0x0780, .queue_size = WL_QUEUE_SIZE, \
		.window_size = WL_WINDOW_SIZE, .control_size = sizeof(uint64_t),                   \
		.queue_count = wl_queue_count, .config_change = wl_config_change,                  \
		.features = wl_features, .config_read = wl_config_read,                            \
		.set_window = wl_set_window, .start = wl_start, .serve = wl_serve,                 \
		.let_go = wl_let_go, .fds = wl_fds, .spare_fds = SPARE_FDS,                        \
		.helper = &wl_helper_ops, .stop = wl_stop, .free = wl_free_device,                 \
	}

static const struct device_ops wl_ops = WL_OPS(ID_FIRST);
static const struct device_ops wl_ops_later = WL_OPS(ID_LATER);

static const struct device_ops *choose_ops(const void *options)
{
	return ((const struct wl_options *)options)->id_63 ? &wl_ops_later : &wl_ops;
}

static int copy_text(
	const char *option, const char *word, const char *value, char *ret, size_t size)
{
	size_t length = strlen(value);

	if (length == 0 || length >= size) {
		log_error("%s: %s is 1 to %zu characters", option, word, size - 1);
		return -EINVAL;
	}
	memcpy(ret, value, length + 1);
	return 0;
}

static int apply_path(void *target, const char *option, const char *value)
{
	struct wl_options *options = target;

	if (options->socket_count == WL_SOCKETS_MAX) {
		log_error("%s: more than %d sockets", option, WL_SOCKETS_MAX);
		return -EINVAL;
	}
	struct wl_socket *socket = &options->sockets[options->socket_count];
	int r = copy_text(option, "a path", value, socket->path, sizeof(socket->path));

	if (r == 0)
		options->socket_count++;
	return r;
}

static int apply_name(void *target, const char *option, const char *value)
{
	struct wl_options *options = target;

	if (options->socket_count == 0) {
		log_error("%s: name= comes after the path that it names", option);
		return -EINVAL;
	}
	struct wl_socket *socket = &options->sockets[options->socket_count - 1];

	return copy_text(option, "name=", value, socket->name, sizeof(socket->name));
}

static int apply_id(void *target, const char *option, const char *value)
{
	bool later = strcmp(value, "63") == 0;

	if (!later && strcmp(value, "30") != 0) {
		log_error("%s: id= is %d or %d", option, ID_FIRST, ID_LATER);
		return -EINVAL;
	}
	((struct wl_options *)target)->id_63 = later;
	return 0;
}

static const struct suboption suboptions[] = {
	{ "path", true, apply_path }, /* first: a value without a name */
	{ "name", true, apply_name },
	{ "id", true, apply_id },
};

static const struct wl_options default_options = { .socket_count = 0 };

static int check_name(const char *option, const struct wl_options *options, unsigned index)
{
	const char *name = options->sockets[index].name;

	for (unsigned i = 0; i < index; i++)
		if (strcmp(name, options->sockets[i].name) == 0) {
			log_error("%s: two sockets with the name '%s'; pass name=N", option, name);
			return -EINVAL;
		}
	return 0;
}

/* It may come and go, but what is something else will not become one. */
static int check_compositor(const char *option, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0) {
		log_warn("%s: no compositor at '%s': %s; the guest's programs find none until "
			 "there is one",
			option, path, strerror(errno));
		return 0;
	}
	if (S_ISSOCK(st.st_mode))
		return 0;
	log_error("%s: '%s' is no socket; pass that of a Wayland compositor", option, path);
	return -EINVAL;
}

static int check_options(const char *option, const void *opaque_options)
{
	const struct wl_options *options = opaque_options;
	int r = 0;

	if (options->socket_count == 0) {
		log_error("%s: no socket; pass that of a Wayland compositor", option);
		return -EINVAL;
	}
	for (unsigned i = 0; r == 0 && i < options->socket_count; i++)
		r = check_name(option, options, i);
	for (unsigned i = 0; r == 0 && i < options->socket_count; i++)
		r = check_compositor(option, options->sockets[i].path);
	return r;
}

int wl_find_session(const char *runtime, const char *display, struct wl_socket *ret_socket)
{
	struct wl_socket socket = { .name = "" };
	struct stat st;

	if (runtime == NULL || *runtime == '\0')
		return -ENOENT;
	if (display == NULL || *display == '\0')
		display = "wayland-0";
	bool absolute = *display == '/';
	int length = snprintf(socket.path, sizeof(socket.path), "%s%s%s", absolute ? "" : runtime,
		absolute ? "" : "/", display);

	if (length < 0 || (size_t)length >= sizeof(socket.path))
		return -ENAMETOOLONG;
	*ret_socket = socket;
	return stat(socket.path, &st) == 0 && S_ISSOCK(st.st_mode) ? 0 : -ECONNREFUSED;
}

static int wl_open(const void *opaque_options, struct device **ret_device)
{
	const struct wl_options *options = opaque_options;
	struct device *device = calloc(1, sizeof(*device));

	if (device == NULL)
		return -ENOMEM;
	int r = wl_host_create(options->sockets, options->socket_count, &device->host);

	if (r < 0) {
		log_error("wl: cannot wait for sockets: %s", strerror(-r));
		free(device);
		return r;
	}
	*ret_device = device;
	return 0;
}

const struct device_class wl_device_class = {
	.ops = &wl_ops,
	.choose_ops = choose_ops,
	.once = true,
	.gathers = true,
	.suboptions = suboptions,
	.suboption_count = ARRAY_SIZE(suboptions),
	.defaults = &default_options,
	.options_size = sizeof(struct wl_options),
	.check = check_options,
	.open = wl_open,
};
