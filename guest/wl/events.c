// SPDX-License-Identifier: BSD-3-Clause
/*
 * From the host to a client: messages pass verbatim, but for globals that are
 * hidden because they share memory in ways that cannot work between a guest
 * and its host. Files of the host (keymaps) are copied for the client.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy.h"

/* What uses no descriptors but pools and pipes. */
static const char *const passed[] = { "wl_compositor", "wl_subcompositor", "wl_shm", "wl_seat",
	"wl_output", "wl_data_device_manager", "xdg_wm_base", "wp_viewporter", "wp_presentation",
	"zwp_primary_selection_device_manager_v1", "zxdg_decoration_manager_v1",
	"zxdg_output_manager_v1", "org_kde_kwin_server_decoration_manager", "xdg_activation_v1",
	"wp_fractional_scale_manager_v1", "wp_cursor_shape_manager_v1",
	"wp_single_pixel_buffer_manager_v1", "zwp_pointer_constraints_v1",
	"zwp_relative_pointer_manager_v1", "zwp_pointer_gestures_v1", "zwp_text_input_manager_v3",
	"zwp_idle_inhibit_manager_v1" };

/* ---- to the client ---- */

bool send_client(struct client *client)
{
	union {
		struct cmsghdr align;
		uint8_t bytes[CMSG_SPACE(WL_FDS_MAX * sizeof(int))];
	} control = { .bytes = { 0 } };
	struct iovec iov = { client->unsent.data, client->unsent.size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	unsigned count = client->fd_count;

	if (client->unsent.size == 0)
		return true;
	if (count > WL_FDS_MAX) {
		count = WL_FDS_MAX;
		iov.iov_len = 1; /* the others go with the next ones */
	}
	if (count > 0) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.align), client->fds, count * sizeof(int));
	}
	ssize_t n = sendmsg(client->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	for (unsigned i = 0; i < count; i++)
		close(client->fds[i]);
	client->fd_count -= count;
	memmove(client->fds, client->fds + count, client->fd_count * sizeof(int));
	drop_bytes(&client->unsent, (size_t)n);
	return true;
}

/* wl_registry.global: name, interface as a text, version. */
static bool is_hidden(const uint8_t *m, size_t size)
{
	const char *interface = message_text(m, size, 3);

	for (size_t i = 0; interface != NULL && i < sizeof(passed) / sizeof(passed[0]); i++)
		if (strcmp(interface, passed[i]) == 0)
			return false;
	return true;
}

static bool pass_event(struct proxy *proxy, struct client *client, const uint8_t *m, size_t size)
{
	enum { DISPLAY = 1, DELETE_ID = 1, GLOBAL = 0 };
	uint32_t id = word(m, 0), op = word(m, 1) & 0xffff;
	const struct object *object = find_object(client, id);

	if (object != NULL && object->kind == REGISTRY && op == GLOBAL && is_hidden(m, size))
		return true;
	if (id == DISPLAY && op == DELETE_ID && size >= 12)
		forget_object(proxy, client, word(m, 2)); /* it may be another kind's next */
	return add_bytes(&client->unsent, m, size);
}

static bool process_events(struct proxy *proxy, struct client *client)
{
	size_t size;

	while ((size = message_size(&client->out)) != 0) {
		if (size == SIZE_MAX || !pass_event(proxy, client, client->out.data, size))
			return false;
		drop_bytes(&client->out, size);
	}
	return client->unsent.size <= BACKLOG_MAX && send_client(client);
}

/* ---- from the host ---- */

/* A keymap and the like: the client gets a file of its own. */
static int copy_file(struct proxy *proxy, const struct device_event *news)
{
	void *view = device_map(proxy->device, news->pfn, news->size, false);
	int fd = view == NULL ? -1 : memfd_create("crosvm-wl", MFD_CLOEXEC);

	if (fd >= 0 && write(fd, view, news->size) != (ssize_t)news->size) {
		close(fd);
		fd = -1;
	}
	if (view != NULL)
		munmap(view, news->size);
	return fd;
}

/* What is neither memory nor a stream shows the guest nothing, as the /dev/null that stands for no
 * keymap does, or a file that the device cannot map. */
static int make_fd(struct proxy *proxy, const struct device_event *news)
{
	if (news->size != 0)
		return copy_file(proxy, news);
	if (news->flags != 0)
		return pump_to_client(proxy, news);
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int fd_for_client(struct proxy *proxy, uint32_t vfd)
{
	const struct device_event *news = NULL;

	for (unsigned i = 0; i < proxy->news_count; i++)
		if (proxy->news[i].vfd == vfd)
			news = &proxy->news[i];
	if (news == NULL)
		return -1;
	int fd = make_fd(proxy, news);

	/* Only a pump goes on with it. */
	if (find_pump(proxy, vfd) == NULL)
		device_close_vfd(proxy->device, vfd);
	return fd;
}

bool tell_client(struct proxy *proxy, struct client *client, const struct device_event *event)
{
	bool good = event->kind == EVENT_DATA;

	/* To the end, since each has to be closed; without one the next would stand for it. */
	for (unsigned i = 0; i < event->count; i++) {
		int fd = fd_for_client(proxy, event->ids[i]);

		good = good && fd >= 0 && client->fd_count < FDS_HELD;
		if (good)
			client->fds[client->fd_count++] = fd;
		else if (fd >= 0)
			close(fd);
	}
	return good && add_bytes(&client->out, event->data, event->data_size) &&
	       process_events(proxy, client);
}
