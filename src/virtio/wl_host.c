// SPDX-License-Identifier: BSD-3-Clause
/* What commands do, and what becomes of what the host's programs send. */
#include "virtio/wl_host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/connector.h"
#include "base/fd.h"
#include "virtio/wl_stream.h"

/* How many streams go on in one flush. */
enum { FLUSH_BATCH = 16 };

int wl_host_create(const struct wl_socket *sockets, unsigned count, struct wl_host **ret_host)
{
	struct wl_host *host = calloc(1, sizeof(*host));

	if (host == NULL)
		return -ENOMEM;
	pthread_mutex_init(&host->lock, NULL);
	memcpy(host->sockets, sockets, count * sizeof(*sockets));
	host->socket_count = count;
	host->connector_fd = -1;
	host->in_epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	host->out_epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (host->in_epoll_fd < 0 || host->out_epoll_fd < 0) {
		int error = errno;

		wl_host_free(host);
		return -error;
	}
	*ret_host = host;
	return 0;
}

/* ---- watching and closing ---- */

static int watch_input(struct wl_host *host, const struct wl_vfd *vfd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = vfd->id };

	return epoll_ctl(host->in_epoll_fd, EPOLL_CTL_ADD, vfd->fd, &event) < 0 ? -errno : 0;
}

static int watch_output(struct wl_host *host, struct wl_vfd *vfd)
{
	struct epoll_event event = { .events = EPOLLOUT, .data.ptr = vfd };

	return epoll_ctl(host->out_epoll_fd, EPOLL_CTL_ADD, vfd->fd, &event) < 0 && errno != EEXIST
		       ? -errno
		       : 0;
}

static void unwatch(int epoll_fd, const struct wl_vfd *vfd)
{
	struct epoll_event ignored = { .events = 0 };

	if (vfd->fd >= 0)
		(void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, vfd->fd, &ignored);
}

/* Epoll would go on with a descriptor that another process has, too. */
static void release(struct wl_host *host, struct wl_vfd *vfd)
{
	unwatch(host->in_epoll_fd, vfd);
	unwatch(host->out_epoll_fd, vfd);
	wl_free(&host->table, vfd);
}

static void clear_backlog(struct wl_host *host)
{
	host->backlog.id_count = host->backlog.next_id = host->backlog.size = 0;
}

void wl_host_reset(struct wl_host *host)
{
	struct wl_table *table = &host->table;

	for (unsigned i = 0; i < WL_GUEST_IDS; i++)
		if (table->guest[i] != NULL)
			release(host, table->guest[i]);
	for (unsigned i = 0; i < WL_HOST_VFDS_MAX; i++)
		if (table->host[i] != NULL)
			release(host, table->host[i]);
	while (table->closed != NULL)
		release(host, table->closed);
	table->next_host_id = 0;
	clear_backlog(host);
}

void wl_host_let_go(struct wl_host *host)
{
	fd_close(&host->in_epoll_fd);
	fd_close(&host->out_epoll_fd);
}

void wl_host_free(struct wl_host *host)
{
	if (host == NULL)
		return;
	wl_host_reset(host);
	wl_host_let_go(host);
	pthread_mutex_destroy(&host->lock);
	free(host);
}

/* ---- commands: each WL_OK and its vfd, or an error and no vfd ---- */

static enum wl_answer answer_of(int error)
{
	return error == -ENOMEM || error == -ENOSPC || error == -EMFILE || error == -ENFILE
		       ? WL_OUT_OF_MEMORY
		       : WL_ERR;
}

static int make_memory(struct wl_host *host, struct wl_vfd *vfd, const struct wl_command *command)
{
	vfd->flags = command->vfd_flags;
	return wl_make_memory(&host->table, vfd, command->size);
}

static enum wl_answer check_memory(const struct wl_host *host, const struct wl_command *command)
{
	if (host->trans_flags)
		return command->vfd_flags == 0 ? WL_OK : WL_INVALID_FLAGS;
	return (command->vfd_flags & ~(uint32_t)(WL_FLAG_WRITE | WL_FLAG_MAP)) == 0 ? WL_OK
										    : WL_ERR;
}

static const struct wl_socket *find_socket(const struct wl_host *host, const char *name)
{
	for (unsigned i = 0; i < host->socket_count; i++)
		if (strcmp(host->sockets[i].name, name) == 0)
			return &host->sockets[i];
	return NULL;
}

static int connect_to(struct wl_host *host, const struct wl_socket *to, int *ret_fd)
{
	bool alone = host->connector_fd < 0;
	int r = alone ? connector_connect(to->path, ret_fd)
		      : connector_ask(host->connector_fd, &host->ask_from_ns,
				(uint32_t)(to - host->sockets), ret_fd);

	if (connector_fault(r) != NULL)
		log_warn_limited(&host->complaints, "wl: the helper that connects to '%s' %s",
			to->path, connector_fault(r));
	if (r == -EACCES)
		log_warn_limited(&host->complaints, "wl: cannot connect to '%s': %s%s", to->path,
			strerror(-r),
			alone ? "; with --multiprocess root can, as the user whose it is" : "");
	return r;
}

static int make_context(struct wl_host *host, struct wl_vfd *vfd, const struct wl_command *command)
{
	const struct wl_socket *to = find_socket(host, command->name);
	int fd = -1;
	int r = to != NULL ? connect_to(host, to, &fd) : -ENOENT;

	if (r == 0)
		r = wl_own(&host->table, &vfd->fd, fd);
	if (r < 0)
		return r;
	vfd->is_socket = vfd->can_read = vfd->can_write = true;
	vfd->flags = host->trans_flags ? WL_TRANS_READ | WL_TRANS_WRITE : WL_FLAG_CONTROL;
	return watch_input(host, vfd);
}

static enum wl_answer check_pipe(const struct wl_host *host, const struct wl_command *command)
{
	bool one = command->vfd_flags == WL_TRANS_READ || command->vfd_flags == WL_TRANS_WRITE;

	(void)host;
	return one ? WL_OK : WL_INVALID_FLAGS;
}

static int make_pipe(struct wl_host *host, struct wl_vfd *vfd, const struct wl_command *command)
{
	bool reads = command->vfd_flags == WL_TRANS_READ;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	int ours = reads ? ends[0] : ends[1];
	int r = wl_own(&host->table, &vfd->remote_fd, reads ? ends[1] : ends[0]);

	if (r < 0)
		fd_close(&ours);
	else
		r = wl_own(&host->table, &vfd->fd, ours);
	if (r < 0)
		return r;
	/* Who gets the other end finds it as pipe() makes it. */
	if (fcntl(vfd->fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	vfd->can_read = reads;
	vfd->can_write = !reads;
	vfd->flags = host->trans_flags ? command->vfd_flags : 0;
	return reads ? watch_input(host, vfd) : 0;
}

/* What a vfd of the guest's becomes, by the command that makes it, if its flags are right. */
static const struct {
	uint32_t type;
	enum wl_answer (*check)(const struct wl_host *host, const struct wl_command *command);
	int (*make)(struct wl_host *host, struct wl_vfd *vfd, const struct wl_command *command);
} makers[] = {
	{ WL_NEW, check_memory, make_memory },
	{ WL_NEW_CTX, NULL, make_context },
	{ WL_NEW_CTX_NAMED, NULL, make_context },
	{ WL_NEW_PIPE, check_pipe, make_pipe },
};

static enum wl_answer make_vfd(struct wl_host *host, unsigned maker,
	const struct wl_command *command, struct wl_vfd **ret_vfd)
{
	struct wl_vfd *vfd = NULL;
	enum wl_answer answer =
		makers[maker].check != NULL ? makers[maker].check(host, command) : WL_OK;

	if (answer == WL_OK)
		answer = wl_add_guest(&host->table, command->id, &vfd);
	if (answer != WL_OK)
		return answer;
	int r = makers[maker].make(host, vfd, command);

	if (r < 0) {
		release(host, vfd);
		return answer_of(r);
	}
	*ret_vfd = vfd;
	return WL_OK;
}

/* The guest shall not have to close what it will never hear of. */
static void drop_backlog(struct wl_host *host)
{
	for (unsigned i = 0; i < host->backlog.id_count; i++) {
		struct wl_vfd *vfd = wl_find(&host->table, host->backlog.ids[i]);

		if (vfd != NULL)
			release(host, vfd);
	}
	clear_backlog(host);
}

static enum wl_answer close_vfd(struct wl_host *host, const struct wl_command *command)
{
	struct wl_vfd *vfd = wl_find(&host->table, command->id);

	if (vfd == NULL)
		return WL_INVALID_ID;
	if (host->backlog.size > 0 && host->backlog.from == vfd->id)
		drop_backlog(host);
	if (vfd->pending == NULL) {
		release(host, vfd);
		return WL_OK;
	}
	unwatch(host->in_epoll_fd, vfd);
	wl_close(&host->table, vfd);
	return WL_OK;
}

/* The descriptors that a SEND names. */
static enum wl_answer resolve(
	const struct wl_host *host, const struct wl_command *command, int *ret_fds)
{
	for (unsigned i = 0; i < command->count; i++) {
		const struct wl_vfd *vfd = wl_find(&host->table, command->ids[i]);

		if (vfd == NULL)
			return WL_INVALID_ID;
		/* A pipe has another end for that, once. */
		bool is_ours = command->ids[i] < WL_HOST_ID && !vfd->is_socket &&
			       (vfd->can_read || vfd->can_write);

		ret_fds[i] = is_ours ? vfd->remote_fd : vfd->fd;
		if (ret_fds[i] < 0)
			return WL_INVALID_TYPE;
	}
	return WL_OK;
}

/* Nobody will send on it any more. A socket's end is found by its reader, who tells the guest. */
static void give_up_sending(struct wl_host *host, struct wl_vfd *vfd)
{
	if (vfd->is_socket)
		(void)shutdown(vfd->fd, SHUT_RDWR);
	else
		vfd->is_hung_up = true;
	unwatch(host->out_epoll_fd, vfd);
	wl_drop_pending(&host->table, vfd);
}

static enum wl_answer send_to(struct wl_host *host, struct wl_vfd *target,
	const struct wl_command *command, const int *fds)
{
	/* A pipe's writer can try again; a compositor that does not read is at its end. */
	if (!target->is_socket && !wl_stream_has_room(&host->table, target, command->data_size))
		return WL_OUT_OF_MEMORY;
	int r = wl_stream_send(
		&host->table, target, command->data, command->data_size, fds, command->count);

	if (r == 0)
		r = watch_output(host, target);
	if (r == -ENOBUFS)
		log_warn_limited(&host->complaints,
			"wl: a program of the host does not read; its connection is ended");
	if (r < 0) {
		give_up_sending(host, target);
		return WL_ERR;
	}
	/* Else who reads from the pipe would never see its end. */
	for (unsigned i = 0; i < command->count; i++)
		wl_disown(&host->table, &wl_find(&host->table, command->ids[i])->remote_fd);
	return WL_OK;
}

static enum wl_answer send_command(struct wl_host *host, const struct wl_command *command)
{
	struct wl_vfd *target = wl_find(&host->table, command->id);
	int fds[WL_FDS_MAX];

	if (target == NULL)
		return WL_INVALID_ID;
	enum wl_answer answer = resolve(host, command, fds);

	if (answer != WL_OK)
		return answer;
	if (!target->can_write || target->is_hung_up || (command->count > 0 && !target->is_socket))
		return WL_INVALID_TYPE;
	/* On a stream descriptors need a byte to go with. */
	if (command->data_size == 0)
		return command->count == 0 ? WL_OK : WL_INVALID_TYPE;
	return send_to(host, target, command, fds);
}

uint32_t wl_host_command(struct wl_host *host, const uint8_t *bytes, uint32_t size, uint32_t room,
	uint8_t ret_bytes[WL_NEW_SIZE])
{
	struct wl_command command = { .type = 0 };
	struct wl_vfd *vfd = NULL;
	enum wl_answer answer = wl_parse_command(bytes, size, &command);

	if (answer == WL_OK && wl_answer_size(&command) > room)
		answer = WL_ERR;
	if (answer == WL_OK && command.type == WL_CLOSE)
		answer = close_vfd(host, &command);
	else if (answer == WL_OK && command.type == WL_SEND)
		answer = send_command(host, &command);
	for (unsigned i = 0; answer == WL_OK && i < ARRAY_SIZE(makers); i++)
		if (makers[i].type == command.type)
			answer = make_vfd(host, i, &command, &vfd);
	if (vfd == NULL)
		return wl_build_answer(answer, ret_bytes);
	const struct wl_new new = wl_describe(&host->table, vfd);

	return wl_build_new(WL_OK_NEW, &new, ret_bytes);
}

void wl_host_flush(struct wl_host *host)
{
	for (unsigned n = 0; n < FLUSH_BATCH; n++) {
		struct epoll_event event;

		if (epoll_wait(host->out_epoll_fd, &event, 1, 0) != 1)
			return;
		struct wl_vfd *vfd = event.data.ptr;
		int r = wl_stream_flush(&host->table, vfd);

		if (r == 0)
			continue;
		unwatch(host->out_epoll_fd, vfd);
		if (r < 0)
			give_up_sending(host, vfd);
		if (wl_find(&host->table, vfd->id) != vfd)
			release(host, vfd);
	}
}

/* ---- to the guest ---- */

static void hang_up(struct wl_host *host, struct wl_vfd *vfd)
{
	struct wl_backlog *backlog = &host->backlog;

	vfd->is_hung_up = true;
	unwatch(host->in_epoll_fd, vfd);
	backlog->size = wl_build_hup(vfd->id, backlog->message);
}

/* Makes vfds of all descriptors or of none. */
static int adopt_all(struct wl_host *host, const struct wl_received *received)
{
	struct wl_backlog *backlog = &host->backlog;
	int r = 0;

	for (unsigned i = 0; i < received->fd_count; i++) {
		struct wl_vfd *vfd = NULL;
		int fd = received->fds[i];

		if (r < 0) {
			fd_close(&fd);
			continue;
		}
		r = wl_adopt(&host->table, fd, host->trans_flags, &vfd);
		if (r < 0)
			continue;
		backlog->ids[backlog->id_count++] = vfd->id;
		if (vfd->can_read)
			r = watch_input(host, vfd);
	}
	if (r < 0)
		drop_backlog(host);
	return r;
}

/* Fills the empty backlog with what the vfd has. */
static void receive(struct wl_host *host, struct wl_vfd *vfd)
{
	struct wl_backlog *backlog = &host->backlog;
	struct wl_received received;
	int r = wl_stream_receive(vfd, &received);

	if (r == -EAGAIN)
		return;
	backlog->from = vfd->id;
	if (r == 0 && received.size > 0)
		r = adopt_all(host, &received);
	if (r < 0 || received.size == 0) {
		hang_up(host, vfd);
		return;
	}
	uint32_t head = wl_build_recv(vfd->id, backlog->ids, backlog->id_count, backlog->message);

	memcpy(backlog->message + head, received.data, received.size);
	backlog->size = head + (uint32_t)received.size;
}

static void fill_backlog(struct wl_host *host)
{
	struct epoll_event event;

	if (epoll_wait(host->in_epoll_fd, &event, 1, 0) != 1)
		return;
	struct wl_vfd *vfd = wl_find(&host->table, event.data.u32);

	if (vfd != NULL)
		receive(host, vfd);
}

uint32_t wl_host_next_message(struct wl_host *host, uint8_t ret_bytes[WL_MESSAGE_MAX])
{
	struct wl_backlog *backlog = &host->backlog;

	if (backlog->size == 0)
		fill_backlog(host);
	while (backlog->next_id < backlog->id_count) {
		const struct wl_vfd *vfd = wl_find(&host->table, backlog->ids[backlog->next_id]);

		if (vfd != NULL) {
			const struct wl_new new = wl_describe(&host->table, vfd);

			return wl_build_new(WL_NEW, &new, ret_bytes);
		}
		backlog->next_id++; /* the guest guessed it, and closed it */
	}
	memcpy(ret_bytes, backlog->message, backlog->size);
	return backlog->size;
}

void wl_host_delivered(struct wl_host *host)
{
	struct wl_backlog *backlog = &host->backlog;

	if (backlog->next_id < backlog->id_count)
		backlog->next_id++;
	else
		clear_backlog(host);
}
