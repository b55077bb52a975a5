// SPDX-License-Identifier: BSD-3-Clause
/*
 * The event loop. An event names its entry by place and age, so that an event
 * for an entry that was removed meanwhile finds out and does nothing.
 */
#include "base/evloop.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/fd.h"

struct entry {
	int fd; /* -1: free */
	uint32_t age;
	void (*function)(void *argument);
	void *argument;
};

struct evloop {
	int epoll_fd;
	pthread_mutex_t lock; /* entries */
	struct entry *entries;
	uint32_t count;
};

int evloop_create(struct evloop **ret_loop)
{
	struct evloop *loop = calloc(1, sizeof(*loop));

	if (loop == NULL)
		return -ENOMEM;
	loop->epoll_fd = -1;
	pthread_mutex_init(&loop->lock, NULL);
	*ret_loop = loop;
	return 0;
}

void evloop_free(struct evloop *loop)
{
	if (loop == NULL)
		return;
	fd_close(&loop->epoll_fd);
	pthread_mutex_destroy(&loop->lock);
	free(loop->entries);
	free(loop);
}

/* The place of the entry with this fd, or `count`. */
static uint32_t find(const struct evloop *loop, int fd)
{
	uint32_t place = 0;

	while (place < loop->count && loop->entries[place].fd != fd)
		place++;
	return place;
}

/* A free place; the array grows by one when there is none. -ENOMEM. */
static int take_place(struct evloop *loop, uint32_t *ret_place)
{
	uint32_t place = find(loop, -1);

	if (place == loop->count) {
		struct entry *entries =
			realloc(loop->entries, (loop->count + 1) * sizeof(entries[0]));

		if (entries == NULL)
			return -ENOMEM;
		loop->entries = entries;
		loop->entries[loop->count++] = (struct entry){ .fd = -1 };
	}
	*ret_place = place;
	return 0;
}

/* Gives an entry to epoll; before evloop_open() it waits for that. */
static int watch_entry(struct evloop *loop, uint32_t place)
{
	const struct entry *entry = &loop->entries[place];
	struct epoll_event event = {
		.events = EPOLLIN,
		.data.u64 = (uint64_t)entry->age << 32 | place,
	};

	if (loop->epoll_fd < 0)
		return 0;
	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, entry->fd, &event) < 0 ? -errno : 0;
}

int evloop_add(struct evloop *loop, int fd, void (*function)(void *argument), void *argument)
{
	uint32_t place = 0;

	if (fd < 0)
		return -EBADF;
	pthread_mutex_lock(&loop->lock);
	int r = find(loop, fd) < loop->count ? -EEXIST : take_place(loop, &place);

	if (r == 0) {
		struct entry *entry = &loop->entries[place];

		*entry = (struct entry){ fd, entry->age + 1, function, argument };
		r = watch_entry(loop, place);
		if (r < 0)
			entry->fd = -1;
	}
	pthread_mutex_unlock(&loop->lock);
	return r;
}

int evloop_open(struct evloop *loop, int *ret_fd)
{
	int r = 0;

	pthread_mutex_lock(&loop->lock);
	if (loop->epoll_fd < 0) {
		loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
		r = loop->epoll_fd < 0 ? -errno : 0;
		for (uint32_t i = 0; r == 0 && i < loop->count; i++)
			if (loop->entries[i].fd >= 0)
				r = watch_entry(loop, i);
	}
	*ret_fd = loop->epoll_fd;
	pthread_mutex_unlock(&loop->lock);
	return r;
}

void evloop_remove(struct evloop *loop, int fd)
{
	pthread_mutex_lock(&loop->lock);
	uint32_t place = find(loop, fd);

	if (fd >= 0 && place < loop->count) {
		if (loop->epoll_fd >= 0)
			(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		loop->entries[place].fd = -1;
	}
	pthread_mutex_unlock(&loop->lock);
}

static void dispatch(struct evloop *loop, uint64_t event_data)
{
	uint32_t place = (uint32_t)event_data;
	struct entry entry;

	pthread_mutex_lock(&loop->lock);
	entry = loop->entries[place];
	pthread_mutex_unlock(&loop->lock);
	if (entry.fd >= 0 && entry.age == event_data >> 32)
		entry.function(entry.argument);
}

static int run(struct evloop *loop, int timeout_ms)
{
	struct epoll_event events[16];
	int epoll_fd;
	int r = evloop_open(loop, &epoll_fd);

	if (r < 0)
		return r;
	int n = epoll_wait(epoll_fd, events, ARRAY_SIZE(events), timeout_ms);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < n; i++)
		dispatch(loop, events[i].data.u64);
	return 0;
}

int evloop_run_once(struct evloop *loop)
{
	return run(loop, -1);
}

int evloop_run_ready(struct evloop *loop)
{
	return run(loop, 0);
}
