// SPDX-License-Identifier: BSD-3-Clause
/* Maps files of a device into the guest. Offset, size and file are the device's word. */
#include "vm/window.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "virtio/window_channel.h"

enum { END_S = 1 };

struct mapping {
	void *hva; /* NULL: the slot is free */
	uint64_t offset;
	uint64_t size;
	bool is_left; /* KVM had no memory to take it away: the guest still has it */
};

struct vm_window {
	struct window window;
	const struct kvm_machine *machine;
	unsigned first_slot;
	pthread_mutex_t lock; /* all below */
	unsigned used;        /* no mapping from here on */
	struct mapping mappings[VM_WINDOW_MAPPINGS_MAX];

	/* For a device in another process; the thread only reads them. */
	int socket; /* -1: there is none */
	bool is_served;
	pthread_t thread;
	sem_t ended;
	const struct sandbox *sandbox;
	struct device_loss loss;
};

/* 0, or -EINVAL for a file whose pages could go away under the guest. */
static int check_file(int fd, uint64_t size)
{
	struct stat st;
	struct statfs fs;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return -EINVAL;
	/* Not huge pages: of those the host may have none left when one is touched. */
	if (fs.f_type != TMPFS_MAGIC || size > align_up((uint64_t)st.st_size, WINDOW_PAGE))
		return -EINVAL;
	return 0;
}

static bool is_range(const struct vm_window *window, uint64_t offset, uint64_t size)
{
	uint64_t limit = window->window.size;

	return size != 0 && (offset | size) % WINDOW_PAGE == 0 && size <= limit &&
	       offset <= limit - size;
}

/* A free slot for the range. -EEXIST, -ENOSPC. */
static int find_slot(const struct vm_window *window, uint64_t offset, uint64_t size)
{
	int slot = -ENOSPC;

	for (unsigned i = 0; i < window->used; i++) {
		const struct mapping *mapping = &window->mappings[i];

		if (mapping->hva == NULL)
			slot = (int)i;
		else if (offset < mapping->offset + mapping->size &&
			 mapping->offset < offset + size)
			return -EEXIST;
	}
	if (slot < 0 && window->used < VM_WINDOW_MAPPINGS_MAX)
		slot = (int)window->used;
	return slot;
}

static int set_slot(
	const struct vm_window *window, unsigned slot, const struct mapping *mapping, bool writable)
{
	unsigned number = window->first_slot + slot;
	uint64_t gpa = window->window.gpa + mapping->offset;

	return writable ? kvm_machine_add_memory(
				  window->machine, number, gpa, mapping->size, mapping->hva)
			: kvm_machine_add_readonly_memory(
				  window->machine, number, gpa, mapping->size, mapping->hva);
}

static int add_mapping(
	struct vm_window *window, uint64_t offset, uint64_t size, int fd, bool writable)
{
	int slot = find_slot(window, offset, size);

	if (slot < 0)
		return slot;
	int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
	void *hva = mmap(NULL, size, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (hva == MAP_FAILED)
		return -errno;
	const struct mapping mapping = { .hva = hva, .offset = offset, .size = size };
	int r = set_slot(window, (unsigned)slot, &mapping, writable);

	if (r < 0) {
		munmap(hva, size);
		return r;
	}
	window->mappings[slot] = mapping;
	if ((unsigned)slot == window->used)
		window->used++;
	return 0;
}

/* What the guest sees stays mapped: else it would see what comes to lie there next. */
static void remove_mapping(struct vm_window *window, struct mapping *mapping)
{
	const struct mapping gone = { .offset = mapping->offset };
	int r = set_slot(window, (unsigned)(mapping - window->mappings), &gone, false);

	mapping->is_left = r < 0;
	if (r < 0)
		return;
	munmap(mapping->hva, mapping->size);
	mapping->hva = NULL;
	while (window->used > 0 && window->mappings[window->used - 1].hva == NULL)
		window->used--;
}

static void remove_what_was_left(struct vm_window *window)
{
	for (unsigned i = 0; i < window->used; i++)
		if (window->mappings[i].hva != NULL && window->mappings[i].is_left)
			remove_mapping(window, &window->mappings[i]);
}

static int map(void *owner, uint64_t offset, uint64_t size, int fd, bool writable)
{
	struct vm_window *window = owner;

	if (!is_range(window, offset, size))
		return -EINVAL;
	int r = check_file(fd, size);

	if (r < 0)
		return r;
	pthread_mutex_lock(&window->lock);
	remove_what_was_left(window);
	r = add_mapping(window, offset, size, fd, writable);
	pthread_mutex_unlock(&window->lock);
	return r;
}

static int unmap(void *owner, uint64_t offset, uint64_t size)
{
	struct vm_window *window = owner;
	int r = -ENOENT;

	pthread_mutex_lock(&window->lock);
	for (unsigned i = 0; r < 0 && i < window->used; i++) {
		struct mapping *mapping = &window->mappings[i];

		if (mapping->hva == NULL || mapping->is_left || mapping->offset != offset ||
			mapping->size != size)
			continue;
		remove_mapping(window, mapping);
		r = 0;
	}
	pthread_mutex_unlock(&window->lock);
	return r;
}

static const struct window_ops window_ops = { .map = map, .unmap = unmap };

int vm_window_create(const struct kvm_machine *machine, unsigned first_slot, uint64_t gpa,
	uint64_t size, struct vm_window **ret_window)
{
	struct vm_window *window = calloc(1, sizeof(*window));

	if (window == NULL)
		return -ENOMEM;
	window->window = (struct window){
		.ops = &window_ops,
		.owner = window,
		.gpa = gpa,
		.size = size,
		.fd = -1,
	};
	window->socket = -1;
	window->machine = machine;
	window->first_slot = first_slot;
	pthread_mutex_init(&window->lock, NULL);
	*ret_window = window;
	return 0;
}

static void *serve(void *argument)
{
	struct vm_window *window = argument;
	int r = sandbox_enter(window->sandbox, "main_window");

	if (r == 0)
		r = window_channel_serve(window->socket, &window->window);
	if (r < 0) {
		log_error("a device asks for shared memory, and breaks the protocol: %s",
			strerror(-r));
		window->loss.lost(window->loss.owner);
	}
	sem_post(&window->ended);
	return NULL;
}

int vm_window_serve(struct vm_window *window, int socket, const struct sandbox *sandbox,
	const struct device_loss *loss)
{
	window->socket = socket;
	window->sandbox = sandbox;
	window->loss = *loss;
	sem_init(&window->ended, 0, 0);
	int r = thread_start(&window->thread, serve, window);

	window->is_served = r == 0;
	if (r < 0)
		log_error("cannot start the thread that shows a device's memory: %s; check the "
			  "limit on processes",
			strerror(-r));
	return r;
}

void vm_window_hang_up(struct vm_window *window)
{
	if (window != NULL && window->socket >= 0)
		(void)shutdown(window->socket, SHUT_RDWR);
}

/* Whether it has ended. */
static bool end_thread(struct vm_window *window)
{
	struct timespec deadline;

	vm_window_hang_up(window);
	(void)clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += END_S;
	if (sem_clockwait(&window->ended, CLOCK_MONOTONIC, &deadline) < 0)
		return false;
	pthread_join(window->thread, NULL);
	return true;
}

bool vm_window_free(struct vm_window *window)
{
	if (window == NULL)
		return true;
	if (window->is_served && !end_thread(window))
		return false;
	fd_close(&window->socket);
	for (unsigned i = 0; i < VM_WINDOW_MAPPINGS_MAX; i++)
		if (window->mappings[i].hva != NULL)
			remove_mapping(window, &window->mappings[i]);
	pthread_mutex_destroy(&window->lock);
	free(window);
	return true;
}

const struct window *vm_window_get(const struct vm_window *window)
{
	return &window->window;
}
