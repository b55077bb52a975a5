// SPDX-License-Identifier: BSD-3-Clause
/*
 * From a client to the host: its messages pass verbatim, in batches; of them
 * only those are understood that share memory. A pool gets a twin in the
 * host's shared memory, and each commit copies the attached buffer there.
 *
 * Clients may send anything; what is wrong ends their own connection.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxy.h"

enum { READ_MAX = 65536 };

/* ---- to the host ---- */

/* The host has what the batch names, pools among it. */
static void pass_batch(struct proxy *proxy, struct client *client)
{
	for (unsigned i = 0; i < client->batch_count; i++) {
		struct pump *pump = find_pump(proxy, client->batch_ids[i]);

		if (pump != NULL)
			pump->is_passed = true;
	}
	client->batch_count = 0;
}

static bool flush_batch(struct proxy *proxy, struct client *client)
{
	size_t done = 0;

	while (done < client->batch.size) {
		size_t part = client->batch.size - done;

		if (part > WL_DATA_MAX)
			part = WL_DATA_MAX;
		client->is_refused =
			device_send(proxy->device, client->vfd, client->batch.data + done, part,
				client->batch_ids, client->batch_count) != SENT;
		if (client->is_refused)
			return false;
		pass_batch(proxy, client);
		done += part;
	}
	client->batch.size = 0;
	return true;
}

/* A vfd cannot go alone: a batch that is full of them, without a byte to go with, is no client's
 * that could be served. */
static bool add_id(struct proxy *proxy, struct client *client, uint32_t vfd)
{
	if (client->batch_count == WL_FDS_MAX && !flush_batch(proxy, client))
		return false;
	if (client->batch_count == WL_FDS_MAX)
		return false;
	client->batch_ids[client->batch_count++] = vfd;
	return true;
}

static void drop_held(struct client *client)
{
	client->held_count--;
	memmove(client->held, client->held + 1, client->held_count * sizeof(client->held[0]));
}

/* Sends on what stands before the next pool in the client's order. */
static bool pass_pipes(struct proxy *proxy, struct client *client)
{
	while (client->held_count > 0 && client->held[0].fd < 0) {
		if (!add_id(proxy, client, client->held[0].vfd))
			return false;
		drop_held(client);
	}
	return true;
}

/* ---- what is understood ---- */

/* wl_shm.create_pool: id, the file, size. */
static bool create_pool(struct proxy *proxy, struct client *client, const uint8_t *m)
{
	if (!pass_pipes(proxy, client) || client->held_count == 0)
		return false;
	int fd = client->held[0].fd;
	struct pool *pool = make_pool(proxy, fd, word(m, 3));

	drop_held(client);
	if (pool == NULL) {
		close(fd);
		return false;
	}
	struct object *object = new_object(proxy, client, word(m, 2), POOL);

	if (object == NULL || !add_id(proxy, client, pool->vfd)) {
		release_pool(proxy, pool);
		return false;
	}
	object->pool = pool;
	return true;
}

/* Formats with several planes, by their names in the message: a message tells of the first plane
 * only. All planes have so many halves of it, those of a quarter rounded up. */
static const struct {
	char name[5];
	unsigned halves;
} planar[] = { { "YUV9", 3 }, { "YVU9", 3 }, { "YU11", 3 }, { "YV11", 3 }, { "YU12", 3 },
	{ "YV12", 3 }, { "YU16", 4 }, { "YV16", 4 }, { "YU24", 6 }, { "YV24", 6 }, { "NV12", 3 },
	{ "NV21", 3 }, { "NV16", 4 }, { "NV61", 4 }, { "NV24", 6 }, { "NV42", 6 }, { "NV15", 3 },
	{ "NV20", 4 }, { "NV30", 6 }, { "P010", 3 }, { "P012", 3 }, { "P016", 3 }, { "P030", 3 },
	{ "P210", 4 }, { "Q410", 6 }, { "Q401", 6 } };

static unsigned halves_of(const uint8_t *format)
{
	for (size_t i = 0; i < sizeof(planar) / sizeof(planar[0]); i++)
		if (memcmp(format, planar[i].name, 4) == 0)
			return planar[i].halves;
	return 2;
}

/* wl_shm_pool.create_buffer: id, offset, width, height, stride, format. */
static bool create_buffer(
	struct proxy *proxy, struct client *client, struct pool *pool, const uint8_t *m)
{
	uint32_t offset = word(m, 3);
	uint64_t height = word(m, 5), stride = word(m, 6);

	/* What the compositor would refuse too. */
	if (offset > pool->size || stride * height > pool->size - offset)
		return false;
	uint64_t size = stride * ((height * halves_of(m + 4 * 7) + 1) / 2);

	/* Where the other planes lie is between the client and the compositor. */
	if (size > pool->size - offset)
		size = pool->size - offset;
	pool->references++; /* first: the new object may take the pool's id */
	struct object *buffer = new_object(proxy, client, word(m, 2), BUFFER);

	if (buffer == NULL) {
		release_pool(proxy, pool);
		return false;
	}
	buffer->pool = pool;
	buffer->offset = offset;
	buffer->size = (uint32_t)size;
	return true;
}

/* wl_surface.attach: buffer, x, y. */
static void attach(
	struct proxy *proxy, const struct client *client, struct object *surface, const uint8_t *m)
{
	const struct object *buffer = find_object(client, word(m, 2));

	release_pool(proxy, surface->pool);
	surface->pool = NULL;
	if (buffer == NULL || buffer->kind != BUFFER)
		return;
	buffer->pool->references++;
	surface->pool = buffer->pool;
	surface->offset = buffer->offset;
	surface->size = buffer->size;
}

/* By pread() and not by a mapping: a client that shrinks its file hurts nobody so. */
static void commit(struct proxy *proxy, struct object *surface)
{
	struct pool *pool = surface->pool;
	uint32_t done = 0;

	if (pool == NULL)
		return;
	while (done < surface->size) {
		uint32_t at = surface->offset + done;
		ssize_t n = pread(pool->fd, pool->twin + at, surface->size - done, at);

		if (n <= 0)
			break;
		done += (uint32_t)n;
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	release_pool(proxy, pool);
	surface->pool = NULL;
}

/* wl_registry.bind: name, interface as a text, version, id. */
static bool bind_global(struct proxy *proxy, struct client *client, const uint8_t *m, size_t size)
{
	static const struct {
		const char *interface;
		enum kind kind;
	} known[] = { { "wl_compositor", COMPOSITOR }, { "wl_shm", SHM } };
	const char *interface = message_text(m, size, 3);

	if (interface == NULL || 4 * (behind_text(m, 3) + 2) > size)
		return false;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(interface, known[i].interface) == 0)
			return new_object(proxy, client, word(m, behind_text(m, 3) + 1),
				       known[i].kind) != NULL;
	return true;
}

static bool make_object(
	struct proxy *proxy, struct client *client, const uint8_t *m, size_t size, enum kind kind)
{
	return size >= 12 && new_object(proxy, client, word(m, 2), kind) != NULL;
}

static bool understand_pool(struct proxy *proxy, struct client *client, struct pool *pool,
	const uint8_t *m, size_t size)
{
	enum { CREATE_BUFFER = 0, RESIZE = 2 };
	uint32_t op = word(m, 1) & 0xffff;

	if (op == CREATE_BUFFER)
		return size >= 32 && create_buffer(proxy, client, pool, m);
	return op != RESIZE || (size >= 12 && resize_pool(proxy, pool, word(m, 2)));
}

static bool understand_surface(struct proxy *proxy, const struct client *client,
	struct object *surface, const uint8_t *m, size_t size)
{
	enum { ATTACH = 1, COMMIT = 6 };
	uint32_t op = word(m, 1) & 0xffff;

	if (op == COMMIT)
		commit(proxy, surface);
	if (op != ATTACH)
		return true;
	if (size < 12)
		return false;
	attach(proxy, client, surface, m);
	return true;
}

/* False: it is no message of a client that we could serve. */
static bool understand(struct proxy *proxy, struct client *client, const uint8_t *m, size_t size)
{
	enum { DISPLAY = 1, GET_REGISTRY = 1 };
	uint32_t id = word(m, 0), op = word(m, 1) & 0xffff;
	struct object *object = find_object(client, id);

	if (id == DISPLAY && op == GET_REGISTRY)
		return make_object(proxy, client, m, size, REGISTRY);
	if (object == NULL)
		return true;
	switch (object->kind) {
	case REGISTRY:
		return op != 0 || bind_global(proxy, client, m, size);
	case COMPOSITOR:
		return op != 0 || make_object(proxy, client, m, size, SURFACE);
	case SHM:
		return op != 0 || (size >= 16 && create_pool(proxy, client, m));
	case POOL:
		return understand_pool(proxy, client, object->pool, m, size);
	case SURFACE:
		return understand_surface(proxy, client, object, m, size);
	default:
		return true;
	}
}

static bool process_requests(struct proxy *proxy, struct client *client)
{
	size_t size, done = 0;
	struct bytes rest = client->in;

	while ((size = message_size(&rest)) != 0) {
		if (size == SIZE_MAX || !understand(proxy, client, rest.data, size) ||
			!add_bytes(&client->batch, rest.data, size))
			return false;
		rest.data += size;
		rest.size -= size;
		done += size;
	}
	drop_bytes(&client->in, done);
	/* Their messages may be among these. */
	if (client->batch.size > 0 && !pass_pipes(proxy, client))
		return false;
	return flush_batch(proxy, client);
}

/* ---- from the client ---- */

/* A file waits for its create_pool; what else it is goes to the host as a pipe. */
static bool hold(struct proxy *proxy, struct client *client, int fd)
{
	struct held held = { .fd = fd };
	struct stat st;

	if (client->held_count == FDS_HELD || fstat(fd, &st) < 0)
		goto refuse;
	if (!S_ISREG(st.st_mode)) {
		held = (struct held){ .fd = -1, .vfd = pump_to_host(proxy, fd) };
		if (held.vfd == 0)
			goto refuse;
	}
	client->held[client->held_count++] = held;
	return true;
refuse:
	close(fd);
	return false;
}

static bool take_fds(struct proxy *proxy, struct client *client, struct msghdr *message)
{
	bool good = (message->msg_flags & MSG_CTRUNC) == 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			good = hold(proxy, client, fd) && good;
		}
	}
	return good;
}

bool hear_client(struct proxy *proxy, struct client *client)
{
	uint8_t data[READ_MAX];
	union {
		struct cmsghdr align;
		uint8_t bytes[CMSG_SPACE(WL_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = { data, sizeof(data) };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	/* Not read, it is heard of when it hangs up. */
	if (client->is_refused)
		return false;
	ssize_t n = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	bool good = take_fds(proxy, client, &message) && n > 0 &&
		    add_bytes(&client->in, data, (size_t)n) && process_requests(proxy, client);

	/* What the compositor said before it closed ends with the HUP of the context. */
	return good || client->is_refused;
}
