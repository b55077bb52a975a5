// SPDX-License-Identifier: BSD-3-Clause
/*
 * Pipes between a client and the host (the clipboard, drag and drop): one end
 * is a file of the guest, the other a vfd. Nothing waits for a client's end, so
 * who never reads or writes holds up nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxy.h"

enum { WRITE_MAX = 65536 };

struct pump *find_pump(struct proxy *proxy, uint32_t vfd)
{
	for (unsigned i = 0; i < PUMPS; i++)
		if (proxy->pumps[i].vfd == vfd)
			return &proxy->pumps[i];
	return NULL;
}

void end_pump(struct proxy *proxy, struct pump *pump)
{
	device_close_vfd(proxy->device, pump->vfd);
	close(pump->fd);
	free(pump->unsent.data);
	spool_end(&pump->spool);
	*pump = (struct pump){ .fd = -1 };
}

/*
 * Whether calls wait is said in the description, which the client has too and
 * can change. A pipe is opened anew, as what only we have, and for the side that
 * we use; a socket is told with each call. For a terminal there is only the flag.
 */
static int make_ours(int fd, mode_t type, bool to_host)
{
	int mode = to_host ? O_RDONLY : O_WRONLY;
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int ours = S_ISFIFO(type) ? open(path, mode | O_NONBLOCK | O_CLOEXEC) : -1;

	if (ours >= 0) {
		close(fd);
		return ours;
	}
	if (!S_ISSOCK(type))
		(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	return fd;
}

uint32_t pump_to_host(struct proxy *proxy, int fd)
{
	struct pump *pump = find_pump(proxy, 0);
	/* Who can read from the client's end writes to the host's. */
	bool to_host = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
	struct stat st;

	if (pump == NULL || fstat(fd, &st) < 0)
		return 0;
	uint32_t vfd = device_new_pipe(proxy->device, to_host ? WL_WRITE : WL_READ);

	if (vfd == 0)
		return 0;
	*pump = (struct pump){ .vfd = vfd,
		.fd = make_ours(fd, st.st_mode, to_host),
		.is_socket = S_ISSOCK(st.st_mode),
		.to_host = to_host,
		.spool = { .fd = -1 } };
	return vfd;
}

int pump_to_client(struct proxy *proxy, const struct device_event *news)
{
	struct pump *pump = find_pump(proxy, 0);
	bool to_host = (news->flags & WL_WRITE) != 0;
	int ends[2];

	if (pump == NULL || pipe2(ends, O_CLOEXEC) < 0)
		return -1;
	int ours = to_host ? ends[0] : ends[1];

	(void)fcntl(ours, F_SETFL, O_NONBLOCK);
	*pump = (struct pump){ .vfd = news->vfd,
		.fd = ours,
		.to_host = to_host,
		.is_passed = true,
		.spool = { .fd = -1 } };
	return to_host ? ends[1] : ends[0];
}

void send_pump(struct proxy *proxy, struct pump *pump)
{
	enum sent sent = device_send(
		proxy->device, pump->vfd, pump->unsent.data, pump->unsent.size, NULL, 0);

	if (sent == SENT)
		pump->unsent.size = 0;
	else if (sent == SEND_REFUSED)
		end_pump(proxy, pump);
}

/* Nothing is unsent. */
static void read_client(struct proxy *proxy, struct pump *pump)
{
	uint8_t data[WL_DATA_MAX];
	ssize_t n = pump->is_socket ? recv(pump->fd, data, sizeof(data), MSG_DONTWAIT)
				    : read(pump->fd, data, sizeof(data));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0 && add_bytes(&pump->unsent, data, (size_t)n))
		send_pump(proxy, pump);
	else
		end_pump(proxy, pump);
}

/* How much the client took, which may be nothing; -1: it is gone. */
static ssize_t write_some(const struct pump *pump, const void *data, size_t size)
{
	ssize_t n = pump->is_socket ? send(pump->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
				    : write(pump->fd, data, size);

	return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : n;
}

static void write_client(struct proxy *proxy, struct pump *pump)
{
	uint8_t data[WRITE_MAX];
	size_t size = spool_peek(&pump->spool, data, sizeof(data));
	ssize_t n = write_some(pump, data, size);

	if (n > 0)
		spool_drop(&pump->spool, (size_t)n);
	if (n < 0 || (pump->is_ended && spool_size(&pump->spool) == 0))
		end_pump(proxy, pump);
}

/* What the client does not take is kept, because the device cannot be told to wait. */
static bool give_client(struct pump *pump, const uint8_t *data, size_t size)
{
	ssize_t n = spool_size(&pump->spool) > 0 ? 0 : write_some(pump, data, size);

	if (n < 0)
		return false;
	if ((size_t)n == size || spool_add(&pump->spool, data + n, size - (size_t)n))
		return true;
	fputs("crosvm-wl: what a program does not read of the clipboard is too much\n", stderr);
	return false;
}

void run_pump(struct proxy *proxy, struct pump *pump, int events)
{
	if (pump->to_host)
		read_client(proxy, pump);
	else if ((events & POLLOUT) != 0)
		write_client(proxy, pump);
	else
		end_pump(proxy, pump); /* nobody reads */
}

void tell_pump(struct proxy *proxy, struct pump *pump, const struct device_event *event)
{
	bool good = true;

	if (event->kind != EVENT_DATA)
		pump->is_ended = true;
	else if (!pump->to_host)
		good = give_client(pump, event->data, event->data_size);
	/* Nobody reads what the client writes, or the client has all. */
	if (!good || (pump->is_ended && (pump->to_host || spool_size(&pump->spool) == 0)))
		end_pump(proxy, pump);
}
