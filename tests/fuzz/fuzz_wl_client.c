// SPDX-License-Identifier: BSD-3-Clause
/*
 * Any client of crosvm-wl, the guest's half of wayland, over a real socket:
 * bytes in any parts, with files and pipes among them. The device is a double.
 * What the client says reaches the host verbatim and in whole messages, with
 * vfds that exist, in parts that the device takes; after the client, no pool is
 * left, and no pipe but those that the host has.
 */
#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../guest/wl/proxy.h"
#include "base/fd_passing.h"

enum {
	VFDS = 4096,
	POOL_MAX = 1 << 24,
	SAID_MAX = 1 << 16,
	GUARD = 4096,
	FILE_SIZE = POOL_MAX + GUARD
};

/* The double: which vfds there are, and what it got. */
struct device {
	bool is_open[VFDS], is_pool[VFDS], is_sent[VFDS];
	uint32_t next;
	unsigned pools;        /* that live */
	uint8_t *guards[VFDS]; /* behind each view that there was */
	unsigned guard_count;
	size_t heard;
	uint8_t data[SAID_MAX];
};

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	(void)fprintf(stderr, "wl client: %s\n", what);
	abort();
}

static uint32_t new_vfd(struct device *device)
{
	if (device->next == VFDS)
		return 0;
	device->is_open[device->next] = true;
	return device->next++;
}

uint32_t device_new_memory(struct device *device, uint32_t size, uint64_t *ret_pfn)
{
	if (size > POOL_MAX)
		return 0;
	uint32_t vfd = new_vfd(device);

	*ret_pfn = 1 << 26;
	device->is_pool[vfd] = vfd != 0;
	device->pools += vfd != 0;
	return vfd;
}

/* Behind it lies what nobody may write to: the client's files are longer than some views. */
void *device_map(const struct device *device, uint64_t pfn, size_t size, bool writable)
{
	struct device *self = (struct device *)(uintptr_t)device;
	size_t room = (size + GUARD - 1) / GUARD * GUARD;

	require(pfn == 1 << 26 && writable, "a view of what is none of ours");
	if (self->guard_count == VFDS)
		return NULL;
	uint8_t *view = mmap(NULL, room + GUARD, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (view == MAP_FAILED)
		return NULL;
	ASAN_POISON_MEMORY_REGION(view + room, GUARD);
	self->guards[self->guard_count++] = view + room;
	return view;
}

static void remove_guards(struct device *device)
{
	while (device->guard_count > 0) {
		uint8_t *guard = device->guards[--device->guard_count];

		ASAN_UNPOISON_MEMORY_REGION(guard, GUARD);
		munmap(guard, GUARD);
	}
}

void device_close_vfd(struct device *device, uint32_t vfd)
{
	require(vfd < VFDS && device->is_open[vfd], "what is not open is closed");
	device->is_open[vfd] = false;
	device->pools -= device->is_pool[vfd];
}

enum sent device_send(struct device *device, uint32_t vfd, const void *data, size_t size,
	const uint32_t *ids, unsigned count)
{
	require(device->is_open[vfd], "the context is closed");
	require(size > 0 && size <= WL_DATA_MAX, "more than the device takes");
	require(count <= WL_FDS_MAX, "more vfds than the device takes");
	for (unsigned i = 0; i < count; i++) {
		require(ids[i] < VFDS && device->is_open[ids[i]], "a vfd that is closed");
		device->is_sent[ids[i]] = true;
	}
	require(size <= SAID_MAX - device->heard, "more than the client said");
	memcpy(device->data + device->heard, data, size);
	device->heard += size;
	return SENT;
}

uint32_t device_new_pipe(struct device *device, unsigned direction)
{
	require(direction == WL_READ || direction == WL_WRITE, "a pipe in no direction");
	return new_vfd(device);
}

static int make_file(uint8_t kind)
{
	int ends[2];

	if (kind % 2 == 0) {
		int fd = memfd_create("client", MFD_CLOEXEC);

		require(fd >= 0 && ftruncate(fd, FILE_SIZE) == 0, "no memory for a file");
		return fd;
	}
	require(pipe(ends) == 0, "no pipe");
	close(ends[1]);
	return ends[0];
}

/* The first byte of a part: its length in words, and whether a descriptor goes with it. */
static size_t say(int socket, const uint8_t *data, size_t size)
{
	size_t part = 4 * (size_t)(data[0] & 0x3f) + 1;
	int fd = data[0] & 0x80 ? make_file(data[0] >> 6) : -1;

	if (part > size - 1)
		part = size - 1;
	require(fd_send(socket, data + 1, part, fd) == 0, "the client cannot speak");
	if (fd >= 0)
		close(fd);
	return part;
}

/* A pipe that the host got outlives who sent it. */
static void end_pumps(struct proxy *proxy)
{
	for (unsigned i = 0; i < PUMPS; i++) {
		if (proxy->pumps[i].vfd == 0)
			continue;
		require(proxy->device->is_sent[proxy->pumps[i].vfd], "a pump outlives its client");
		end_pump(proxy, &proxy->pumps[i]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct device device;
	static struct proxy proxy;
	static uint8_t said[SAID_MAX];
	struct client *client = &proxy.clients[0];
	size_t length = 0;
	int ends[2];

	device = (struct device){ .next = 1 };
	proxy = (struct proxy){ .device = &device };
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "no socket");
	client->fd = ends[0];
	client->vfd = new_vfd(&device);
	for (bool good = true; good && size > 1 && length < SAID_MAX - 256;) {
		size_t part = say(ends[1], data, size);

		memcpy(said + length, data + 1, part);
		length += part;
		data += part + 1;
		size -= part + 1;
		good = hear_client(&proxy, client);
		require(!good || device.heard + client->in.size == length, "bytes are kept back");
	}
	require(memcmp(said, device.data, device.heard) == 0, "it is not what the client said");
	drop_client(&proxy, client);
	require(device.pools == 0, "a pool outlives its client");
	end_pumps(&proxy);
	remove_guards(&device);
	close(ends[1]);
	return 0;
}
