// SPDX-License-Identifier: BSD-3-Clause
/* What a client's messages are about. Ids and sizes are the client's, who may send any. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proxy.h"

enum { OBJECTS_MAX = 1 << 16 }; /* ids that a client uses: it takes the lowest free */

struct object *find_object(const struct client *client, uint32_t id)
{
	if (id >= client->object_count || client->objects[id].kind == NOTHING)
		return NULL;
	return &client->objects[id];
}

void forget_object(struct proxy *proxy, const struct client *client, uint32_t id)
{
	struct object *object = find_object(client, id);

	if (object == NULL)
		return;
	release_pool(proxy, object->pool);
	*object = (struct object){ .kind = NOTHING };
}

static bool make_room(struct client *client, uint32_t id)
{
	if (id >= OBJECTS_MAX)
		return false;
	if (id < client->object_count)
		return true;
	unsigned count = 2 * id + 64;
	struct object *more = realloc(client->objects, count * sizeof(*more));

	if (more == NULL)
		return false;
	memset(more + client->object_count, 0, (count - client->object_count) * sizeof(*more));
	client->objects = more;
	client->object_count = count;
	return true;
}

struct object *new_object(struct proxy *proxy, struct client *client, uint32_t id, enum kind kind)
{
	if (!make_room(client, id))
		return NULL;
	forget_object(proxy, client, id);
	client->objects[id].kind = kind;
	return &client->objects[id];
}

/* To map fills page tables at once, so it is for what there is and not for the room. */
static bool map_twin(const struct proxy *proxy, struct pool *pool, uint32_t size)
{
	uint8_t *twin = device_map(proxy->device, pool->pfn, size, true);

	if (twin == NULL)
		return false;
	if (pool->twin != NULL)
		munmap(pool->twin, pool->size);
	pool->twin = twin;
	pool->size = size;
	return true;
}

static uint32_t room_to_grow(uint32_t size)
{
	uint64_t room = (uint64_t)size * POOL_GROWTH;

	if (room < POOL_ROOM_MIN)
		return POOL_ROOM_MIN;
	return room < POOL_ROOM_MAX ? (uint32_t)room : POOL_ROOM_MAX;
}

/* Its memory is sparse, so that room costs only addresses of the device. The more of these are
 * taken, by us or by others, the less is left to grow. */
static bool make_twin(struct proxy *proxy, struct pool *pool, uint32_t size)
{
	const uint32_t rooms[] = { room_to_grow(size), POOL_ROOM_MIN, size };
	const size_t count = sizeof(rooms) / sizeof(rooms[0]);

	for (size_t i = proxy->room >= ROOM_PLENTY; pool->vfd == 0 && i < count; i++) {
		pool->room = rooms[i] > size ? rooms[i] : size;
		pool->vfd = device_new_memory(proxy->device, pool->room, &pool->pfn);
	}
	if (pool->vfd == 0)
		return false;
	if (!map_twin(proxy, pool, size)) {
		device_close_vfd(proxy->device, pool->vfd);
		return false;
	}
	proxy->room += pool->room;
	return true;
}

struct pool *make_pool(struct proxy *proxy, int fd, uint32_t size)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (pool == NULL)
		return NULL;
	pool->references = 1;
	pool->fd = fd;
	if (make_twin(proxy, pool, size))
		return pool;
	free(pool);
	return NULL;
}

/* Beyond the room the client is ended: the compositor's pool is of the twin's file, which cannot
 * grow, and no message gives a pool another one. */
bool resize_pool(struct proxy *proxy, struct pool *pool, uint32_t size)
{
	if (size > pool->room)
		return false;
	/* Pools only grow; the compositor says so to the client. */
	return size <= pool->size || map_twin(proxy, pool, size);
}

void release_pool(struct proxy *proxy, struct pool *pool)
{
	if (pool == NULL || --pool->references > 0)
		return;
	munmap(pool->twin, pool->size);
	device_close_vfd(proxy->device, pool->vfd);
	proxy->room -= pool->room;
	close(pool->fd);
	free(pool);
}

/* The pump of a pipe that the host never got. */
static void end_unsent(struct proxy *proxy, uint32_t vfd)
{
	struct pump *pump = find_pump(proxy, vfd);

	if (pump != NULL)
		end_pump(proxy, pump);
}

static void drop_descriptors(struct proxy *proxy, struct client *client)
{
	for (unsigned i = 0; i < client->held_count; i++)
		if (client->held[i].fd >= 0)
			close(client->held[i].fd);
		else
			end_unsent(proxy, client->held[i].vfd);
	/* Pools are among these, too. */
	for (unsigned i = 0; i < client->batch_count; i++)
		end_unsent(proxy, client->batch_ids[i]);
	for (unsigned i = 0; i < client->fd_count; i++)
		close(client->fds[i]);
}

void drop_client(struct proxy *proxy, struct client *client)
{
	for (unsigned i = 0; i < client->object_count; i++)
		release_pool(proxy, client->objects[i].pool);
	drop_descriptors(proxy, client);
	device_close_vfd(proxy->device, client->vfd);
	close(client->fd);
	free(client->in.data);
	free(client->out.data);
	free(client->unsent.data);
	free(client->batch.data);
	free(client->objects);
	*client = (struct client){ .fd = -1 };
}
