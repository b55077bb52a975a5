/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads with small stacks, because a VM has many and its memory is counted.
 */
#pragma once

#include <pthread.h>
#include <semaphore.h>

#include "base/util.h"

/*
 * Starts a thread that blocks every signal which the calling thread blocks.
 * 0 or -errno. Join it with pthread_join().
 */
MUST_CHECK int thread_start(
	pthread_t *ret_thread, void *(*function)(void *argument), void *argument);

/* Waits for a post, however often a signal comes between. */
void thread_await(sem_t *semaphore);
