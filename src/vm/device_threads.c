// SPDX-License-Identifier: BSD-3-Clause
/* One request at a time, made by vCPU threads and the main thread for a guest's DRIVER_OK. */
#include "vm/device_threads.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/thread.h"
#include "jail/policy.h"

struct request {
	pthread_t *ret_thread;
	void *(*function)(void *argument);
	void *argument;
	int result;
	bool done;
};

struct device_threads {
	const struct sandbox *sandbox;
	struct lifecycle *lifecycle;
	pthread_mutex_t mutex; /* all below */
	pthread_cond_t changed;
	struct request *request; /* that waits or is worked on; its maker waits for it */
	bool closed;             /* no thread is made any more */
	bool running;
	pthread_t thread;
};

int device_threads_create(const struct sandbox *sandbox, struct lifecycle *lifecycle,
	struct device_threads **ret_threads)
{
	struct device_threads *threads = calloc(1, sizeof(*threads));

	if (threads == NULL)
		return -ENOMEM;
	threads->sandbox = sandbox;
	threads->lifecycle = lifecycle;
	pthread_mutex_init(&threads->mutex, NULL);
	pthread_cond_init(&threads->changed, NULL);
	*ret_threads = threads;
	return 0;
}

/* Nobody waits any longer, or ever again. */
static void close_requests(struct device_threads *threads)
{
	pthread_mutex_lock(&threads->mutex);
	threads->closed = true;
	pthread_cond_broadcast(&threads->changed);
	pthread_mutex_unlock(&threads->mutex);
}

static void *make_threads(void *argument)
{
	struct device_threads *threads = argument;
	int r = sandbox_enter(threads->sandbox, "main_starter");

	if (r < 0) {
		lifecycle_end(threads->lifecycle, VM_END_HOST);
		close_requests(threads);
	}
	pthread_mutex_lock(&threads->mutex);
	while (!threads->closed) {
		struct request *request = threads->request;

		if (request == NULL || request->done) {
			pthread_cond_wait(&threads->changed, &threads->mutex);
			continue;
		}
		request->result =
			thread_start(request->ret_thread, request->function, request->argument);
		request->done = true;
		pthread_cond_broadcast(&threads->changed);
	}
	pthread_mutex_unlock(&threads->mutex);
	return NULL;
}

static int start_queue_thread(
	void *owner, pthread_t *ret_thread, void *(*function)(void *argument), void *argument)
{
	struct device_threads *threads = owner;
	struct request request = { ret_thread, function, argument, -ECANCELED, false };

	if (!threads->sandbox->on)
		return thread_start(ret_thread, function, argument);
	pthread_mutex_lock(&threads->mutex);
	while (threads->request != NULL && !threads->closed)
		pthread_cond_wait(&threads->changed, &threads->mutex);
	if (!threads->closed) {
		threads->request = &request;
		pthread_cond_broadcast(&threads->changed);
		while (!request.done && !threads->closed)
			pthread_cond_wait(&threads->changed, &threads->mutex);
		threads->request = NULL;
		pthread_cond_broadcast(&threads->changed);
	}
	pthread_mutex_unlock(&threads->mutex);
	return request.result;
}

/* A device without a policy for threads has what the starter has. */
static int enter_queue_thread(void *owner, const char *device)
{
	const struct device_threads *threads = owner;
	char policy[32];

	snprintf(policy, sizeof(policy), "main_%s", device);
	return jail_policy_find(policy) == NULL ? 0 : sandbox_enter(threads->sandbox, policy);
}

struct queue_threads device_threads_get(struct device_threads *threads)
{
	return (struct queue_threads){ start_queue_thread, enter_queue_thread, threads };
}

int device_threads_start(struct device_threads *threads)
{
	if (!threads->sandbox->on)
		return 0;
	int r = thread_start(&threads->thread, make_threads, threads);

	threads->running = r == 0;
	if (r < 0) {
		close_requests(threads);
		log_error(
			"cannot start the thread that makes devices' threads: %s; check the limit "
			"on processes",
			strerror(-r));
	}
	return r;
}

void device_threads_give_up(struct device_threads *threads)
{
	if (!threads->running)
		close_requests(threads);
}

void device_threads_free(struct device_threads *threads)
{
	if (threads == NULL)
		return;
	close_requests(threads);
	if (threads->running)
		pthread_join(threads->thread, NULL);
	pthread_cond_destroy(&threads->changed);
	pthread_mutex_destroy(&threads->mutex);
	free(threads);
}
