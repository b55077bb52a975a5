// SPDX-License-Identifier: BSD-3-Clause
/*
 * The loop: who has something to say, and who can be told. A round serves
 * everybody a little. Only poll() waits for a client, so none holds up others.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy.h"

/* ---- what the host says ---- */

static void take_event(struct proxy *proxy, const struct device_event *event)
{
	bool is_heard = false;

	if (event->kind == EVENT_NEW) {
		if (proxy->news_count < WL_FDS_MAX)
			proxy->news[proxy->news_count++] = *event;
		return;
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *client = &proxy->clients[i];

		if (client->fd < 0 || client->vfd != event->vfd)
			continue;
		is_heard = true;
		if (!tell_client(proxy, client, event))
			client->is_over = true;
	}
	struct pump *pump = find_pump(proxy, event->vfd);

	if (pump != NULL)
		tell_pump(proxy, pump, event);
	for (unsigned i = 0; !is_heard && i < event->count; i++)
		device_close_vfd(proxy->device, event->ids[i]); /* to a client that is gone */
	proxy->news_count = 0;
}

/* ---- clients ---- */

static void end_client(struct proxy *proxy, struct client *client)
{
	(void)send_client(client);
	drop_client(proxy, client);
}

static struct client *free_client(struct proxy *proxy)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (proxy->clients[i].fd < 0)
			return &proxy->clients[i];
	return NULL;
}

/* Without a place or a compositor the client is sent away. False: there are no descriptors, and it
 * waits. */
static bool accept_client(struct proxy *proxy)
{
	// cppcheck-suppress nullPointer ; accept4() takes NULL where nobody asks for the address
	int fd = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return errno != EMFILE && errno != ENFILE;
	struct client *client = free_client(proxy);
	uint32_t vfd = client == NULL ? 0 : device_new_context(proxy->device);

	if (vfd != 0)
		*client = (struct client){ .fd = fd, .vfd = vfd };
	else
		close(fd);
	return true;
}

/* ---- a round ---- */

enum {
	DEVICE,
	LISTENER,
	SIGNALS,
	FIRST_CLIENT,
	FIRST_PUMP = FIRST_CLIENT + CLIENTS,
	WAITED = FIRST_PUMP + PUMPS
};

static struct pollfd list_client(const struct client *client)
{
	int events = (client->is_refused ? 0 : POLLIN) | (client->unsent.size > 0 ? POLLOUT : 0);

	return (struct pollfd){ .fd = client->fd, .events = (short)events };
}

/* The host does not say when it is busy no more. Till then the client is not read, nor looked at:
 * its end would be told again and again. */
static bool is_busy(const struct pump *pump)
{
	return pump->unsent.size > 0;
}

static struct pollfd list_pump(const struct pump *pump)
{
	bool waits = pump->is_passed && !is_busy(pump);
	/* With no events it is still told when its reader goes. */
	int events = pump->to_host ? POLLIN : spool_size(&pump->spool) > 0 ? POLLOUT : 0;

	return (struct pollfd){ .fd = waits ? pump->fd : -1, .events = (short)events };
}

/* Returns how long to wait, as for poll(). */
static int list_waited(const struct proxy *proxy, struct pollfd fds[static WAITED])
{
	/* It stays readable when the client that is there cannot be taken. */
	int timeout = proxy->listener_rests ? RETRY_MS : -1;
	int listener = proxy->listener_rests ? -1 : proxy->listener;

	fds[DEVICE] = (struct pollfd){ .fd = device_fd(proxy->device), .events = POLLIN };
	fds[LISTENER] = (struct pollfd){ .fd = listener, .events = POLLIN };
	fds[SIGNALS] = (struct pollfd){ .fd = proxy->signals, .events = POLLIN };
	for (unsigned i = 0; i < CLIENTS; i++)
		fds[FIRST_CLIENT + i] = list_client(&proxy->clients[i]);
	for (unsigned i = 0; i < PUMPS; i++) {
		fds[FIRST_PUMP + i] = list_pump(&proxy->pumps[i]);
		if (is_busy(&proxy->pumps[i]))
			timeout = RETRY_MS;
	}
	return timeout;
}

static void run_client(struct proxy *proxy, struct client *client, int events)
{
	if ((events & POLLOUT) != 0 && !send_client(client))
		client->is_over = true;
	if ((events & ~POLLOUT) != 0 && !hear_client(proxy, client))
		client->is_over = true;
	if (client->is_over)
		end_client(proxy, client);
}

/* Pumps come first: who takes the place of one that ended has no events of its own. */
static void run_ready(struct proxy *proxy, const struct pollfd fds[static WAITED])
{
	struct device_event event;

	for (unsigned i = 0; i < PUMPS; i++)
		if (is_busy(&proxy->pumps[i]))
			send_pump(proxy, &proxy->pumps[i]);
		else if (fds[FIRST_PUMP + i].revents != 0)
			run_pump(proxy, &proxy->pumps[i], fds[FIRST_PUMP + i].revents);
	if (fds[DEVICE].revents != 0)
		device_rearm(proxy->device);
	while (device_next_event(proxy->device, &event))
		take_event(proxy, &event);
	for (unsigned i = 0; i < CLIENTS; i++)
		if (proxy->clients[i].fd >= 0)
			run_client(proxy, &proxy->clients[i], fds[FIRST_CLIENT + i].revents);
	proxy->listener_rests = fds[LISTENER].revents != 0 && !accept_client(proxy);
}

int run_round(struct proxy *proxy)
{
	struct pollfd fds[WAITED];
	int timeout = list_waited(proxy, fds);

	if (poll(fds, WAITED, timeout) < 0 && errno != EINTR)
		return -errno;
	if (fds[SIGNALS].revents != 0)
		return 0;
	run_ready(proxy, fds);
	return 1;
}
