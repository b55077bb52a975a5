/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An event loop: one epoll descriptor, functions to call while descriptors are
 * readable. One thread runs it; any thread may add and remove.
 *
 * After evloop_remove() in another thread the function may still be running,
 * or run once more; so its argument must live as long as the loop.
 */
#pragma once

#include "base/util.h"

struct evloop;

MUST_CHECK int evloop_create(struct evloop **ret_loop);
void evloop_free(struct evloop *loop);

/* Calls `function` while `fd` is readable or hung up. 0 or -errno. */
MUST_CHECK int evloop_add(
	struct evloop *loop, int fd, void (*function)(void *argument), void *argument);
void evloop_remove(struct evloop *loop, int fd);

/*
 * Makes the epoll descriptor, if it is not there yet, and tells it: readable
 * when evloop_run_once() would not wait. Not made before it is needed, because
 * a VM's start counts its system calls. 0 or -errno.
 */
MUST_CHECK int evloop_open(struct evloop *loop, int *ret_fd);

/* Waits for events and calls the functions of those that came. 0 or -errno. */
MUST_CHECK int evloop_run_once(struct evloop *loop);
/*
 * The same without waiting: for who saw the descriptor readable, which it may
 * no longer be when another thread took what was there.
 */
MUST_CHECK int evloop_run_ready(struct evloop *loop);
