// SPDX-License-Identifier: BSD-3-Clause
/* The table of vfds. Ids are the guest's or the device's; sizes and files anybody's. */
#include "virtio/wl_vfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

static struct wl_vfd **slot_of(struct wl_table *table, uint32_t id)
{
	if (id < WL_HOST_ID)
		return id < WL_GUEST_IDS ? &table->guest[id] : NULL;
	return &table->host[(id - WL_HOST_ID) % WL_HOST_VFDS_MAX];
}

struct wl_vfd *wl_find(const struct wl_table *table, uint32_t id)
{
	struct wl_vfd **slot = slot_of((struct wl_table *)(uintptr_t)table, id);

	return slot != NULL && *slot != NULL && (*slot)->id == id ? *slot : NULL;
}

static struct wl_vfd *new_vfd(uint32_t id)
{
	struct wl_vfd *vfd = malloc(sizeof(*vfd));

	if (vfd != NULL)
		*vfd = (struct wl_vfd){ .id = id, .fd = -1, .remote_fd = -1 };
	return vfd;
}

enum wl_answer wl_add_guest(struct wl_table *table, uint32_t id, struct wl_vfd **ret_vfd)
{
	if (id == 0 || id >= WL_GUEST_IDS || table->guest[id] != NULL)
		return WL_INVALID_ID;
	table->guest[id] = new_vfd(id);
	if (table->guest[id] == NULL)
		return WL_OUT_OF_MEMORY;
	*ret_vfd = table->guest[id];
	return WL_OK;
}

int wl_add_host(struct wl_table *table, struct wl_vfd **ret_vfd)
{
	for (unsigned n = 0; n < WL_HOST_VFDS_MAX; n++) {
		uint32_t id = WL_HOST_ID + table->next_host_id;
		struct wl_vfd **slot = &table->host[table->next_host_id % WL_HOST_VFDS_MAX];

		/* Bit 31 stays clear. */
		table->next_host_id = (table->next_host_id + 1) % WL_HOST_ID;
		if (*slot != NULL)
			continue;
		*slot = new_vfd(id);
		if (*slot == NULL)
			return -ENOMEM;
		*ret_vfd = *slot;
		return 0;
	}
	return -ENOSPC;
}

int wl_own(struct wl_table *table, int *slot, int fd)
{
	if (table->descriptors == WL_DESCRIPTORS_MAX) {
		fd_close(&fd);
		return -EMFILE;
	}
	table->descriptors++;
	*slot = fd;
	return 0;
}

void wl_disown(struct wl_table *table, int *slot)
{
	if (*slot < 0)
		return;
	fd_close(slot);
	table->descriptors--;
}

/* True: it was there. */
static bool leave_table(struct wl_table *table, const struct wl_vfd *vfd)
{
	struct wl_vfd **slot = slot_of(table, vfd->id);

	if (slot == NULL || *slot != vfd)
		return false;
	*slot = NULL;
	return true;
}

void wl_close(struct wl_table *table, struct wl_vfd *vfd)
{
	if (!leave_table(table, vfd))
		return;
	vfd->next_closed = table->closed;
	table->closed = vfd;
}

static void leave_closed(struct wl_table *table, const struct wl_vfd *vfd)
{
	for (struct wl_vfd **at = &table->closed; *at != NULL; at = &(*at)->next_closed)
		if (*at == vfd) {
			*at = vfd->next_closed;
			return;
		}
}

static void unmap(struct wl_table *table, struct wl_vfd *vfd)
{
	if (vfd->size == 0)
		return;
	for (struct wl_vfd **at = &table->mapped; *at != NULL; at = &(*at)->next_mapped)
		if (*at == vfd) {
			*at = vfd->next_mapped;
			break;
		}
	(void)!table->window->ops->unmap(
		table->window->owner, vfd->offset, align_up(vfd->size, WINDOW_PAGE));
	vfd->size = 0;
}

void wl_drop_pending(struct wl_table *table, struct wl_vfd *vfd)
{
	while (vfd->pending != NULL) {
		struct wl_pending *chunk = vfd->pending;

		vfd->pending = chunk->next;
		while (chunk->fd_count > 0)
			wl_disown(table, &chunk->fds[--chunk->fd_count]);
		free(chunk);
	}
	table->pending_count -= vfd->pending_count;
	vfd->pending_count = 0;
	vfd->last_pending = NULL;
}

void wl_free(struct wl_table *table, struct wl_vfd *vfd)
{
	if (!leave_table(table, vfd))
		leave_closed(table, vfd);
	unmap(table, vfd);
	wl_disown(table, &vfd->fd);
	wl_disown(table, &vfd->remote_fd);
	wl_drop_pending(table, vfd);
	free(vfd);
}

/* ---- shared memory ---- */

/* The first gap of that size; where it is in the list, too. */
static int find_place(
	struct wl_table *table, uint64_t size, uint64_t *ret_offset, struct wl_vfd ***ret_link)
{
	struct wl_vfd **link = &table->mapped;
	uint64_t offset = 0;

	while (*link != NULL && (*link)->offset - offset < size) {
		offset = (*link)->offset + align_up((*link)->size, WINDOW_PAGE);
		link = &(*link)->next_mapped;
	}
	if (offset > table->window->size || size > table->window->size - offset)
		return -ENOSPC;
	*ret_offset = offset;
	*ret_link = link;
	return 0;
}

int wl_map(struct wl_table *table, struct wl_vfd *vfd, uint64_t size, bool writable)
{
	uint64_t length = align_up(size, WINDOW_PAGE);
	struct wl_vfd **link;
	uint64_t offset;

	if (table->window == NULL || table->window_gpa == 0 || size == 0 || length > UINT32_MAX)
		return -ENOSPC;
	int r = find_place(table, length, &offset, &link);

	if (r == 0)
		r = table->window->ops->map(
			table->window->owner, offset, length, vfd->fd, writable);
	if (r < 0)
		return r;
	vfd->offset = offset;
	vfd->size = (uint32_t)size;
	vfd->next_mapped = *link;
	*link = vfd;
	return 0;
}

/* What the guest really uses of its sparse memory. */
static uint64_t committed(const struct wl_table *table)
{
	uint64_t bytes = 0;
	struct stat st;

	for (const struct wl_vfd *vfd = table->mapped; vfd != NULL; vfd = vfd->next_mapped)
		if (fstat(vfd->fd, &st) == 0)
			bytes += (uint64_t)st.st_blocks * 512;
	return bytes;
}

/* Sealed, so that neither the guest's nor the compositor's accesses can fail. */
static int make_memfd(uint64_t size, int *ret_fd)
{
	CLEANUP_FD int fd = memfd_create("crosvm-wl", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return -errno;
	*ret_fd = fd_steal(&fd);
	return 0;
}

int wl_make_memory(struct wl_table *table, struct wl_vfd *vfd, uint32_t size)
{
	uint64_t length = align_up(size, WINDOW_PAGE);
	int fd = -1;

	if (committed(table) >= WL_COMMITTED_MAX)
		return -ENOMEM;
	int r = make_memfd(length, &fd);

	if (r == 0)
		r = wl_own(table, &vfd->fd, fd);
	return r == 0 ? wl_map(table, vfd, length, true) : r;
}

/* ---- what the compositor sent ---- */

static int copy_bytes(int from, int to, uint64_t size)
{
	uint8_t buffer[4096];
	int r = 0;

	for (uint64_t done = 0; r == 0 && done < size; done += sizeof(buffer)) {
		size_t part = min_u64(size - done, sizeof(buffer));

		r = fd_pread_full(from, buffer, part, done);
		if (r == 0 && pwrite(to, buffer, part, (off_t)done) != (ssize_t)part)
			r = -EIO;
	}
	return r;
}

/* A copy for the guest in the file's place, because the owner can shrink that. */
static int adopt_copy(struct wl_table *table, struct wl_vfd *vfd, uint64_t size)
{
	CLEANUP_FD int copy = -1;

	if (size > WL_COPY_MAX)
		return 0;
	int r = make_memfd(size, &copy);

	if (r == 0)
		r = copy_bytes(vfd->fd, copy, size);
	if (r < 0)
		return r;
	wl_disown(table, &vfd->fd);
	r = wl_own(table, &vfd->fd, fd_steal(&copy));
	if (r == 0)
		(void)!wl_map(table, vfd, size, false);
	return r;
}

/*
 * Only memory files, which have seals: to read others could wait. What cannot
 * be mapped is a vfd without memory.
 */
static int adopt_file(struct wl_table *table, struct wl_vfd *vfd, int fd, uint64_t size)
{
	int seals = fcntl(fd, F_GET_SEALS);
	bool writable = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR &&
			(seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) == 0;
	int r = wl_own(table, &vfd->fd, fd);

	if (r < 0 || seals < 0)
		return r;
	if ((seals & F_SEAL_SHRINK) != 0 && wl_map(table, vfd, size, writable) == 0)
		return 0;
	return adopt_copy(table, vfd, size);
}

static int adopt_stream(struct wl_table *table, struct wl_vfd *vfd, int fd, bool is_socket)
{
	int mode = fcntl(fd, F_GETFL);
	int r = wl_own(table, &vfd->fd, fd);

	if (r < 0)
		return r;
	vfd->is_socket = is_socket;
	vfd->can_read = is_socket || (mode & O_ACCMODE) != O_WRONLY;
	vfd->can_write = is_socket || (mode & O_ACCMODE) != O_RDONLY;
	/* Sockets are told with each call not to wait. */
	return is_socket || fcntl(fd, F_SETFL, mode | O_NONBLOCK) == 0 ? 0 : -errno;
}

static uint32_t adopted_flags(const struct wl_vfd *vfd, mode_t mode, bool trans_flags)
{
	if (S_ISREG(mode))
		return trans_flags ? 0 : WL_FLAG_WRITE | WL_FLAG_MAP;
	if (!trans_flags)
		return vfd->is_socket ? WL_FLAG_CONTROL : 0;
	return (vfd->can_read ? WL_TRANS_READ : 0u) | (vfd->can_write ? WL_TRANS_WRITE : 0u);
}

int wl_adopt(struct wl_table *table, int fd, bool trans_flags, struct wl_vfd **ret_vfd)
{
	CLEANUP_FD int owned = fd;
	struct wl_vfd *vfd;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	int r = wl_add_host(table, &vfd);

	if (r < 0)
		return r;
	fd = fd_steal(&owned);
	if (S_ISREG(st.st_mode))
		r = adopt_file(table, vfd, fd, (uint64_t)st.st_size);
	else if (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode))
		r = adopt_stream(table, vfd, fd, S_ISSOCK(st.st_mode));
	else
		r = wl_own(table, &vfd->fd, fd);
	if (r < 0) {
		wl_free(table, vfd);
		return r;
	}
	vfd->flags = adopted_flags(vfd, st.st_mode, trans_flags);
	*ret_vfd = vfd;
	return 0;
}

struct wl_new wl_describe(const struct wl_table *table, const struct wl_vfd *vfd)
{
	uint64_t gpa = vfd->size != 0 ? table->window_gpa + vfd->offset : 0;

	return (struct wl_new){
		.id = vfd->id,
		.flags = vfd->flags,
		.pfn = gpa / WINDOW_PAGE,
		.size = vfd->size,
	};
}
