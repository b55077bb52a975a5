// SPDX-License-Identifier: BSD-3-Clause
/* Small threads. The host may refuse to make more of them. */
#include "base/thread.h"

#include <errno.h>

/* Our deepest call chain, with a line of the log on it, needs far less than half. */
#ifdef SANITIZED
static const size_t stack_size = 1 << 20;
#else
static const size_t stack_size = 64 << 10;
#endif

int thread_start(pthread_t *ret_thread, void *(*function)(void *argument), void *argument)
{
	pthread_attr_t attributes;
	int error = pthread_attr_init(&attributes);

	if (error != 0)
		return -error;
	error = pthread_attr_setstacksize(&attributes, stack_size);
	if (error == 0) {
		errno = 0;
		error = pthread_create(ret_thread, &attributes, function, argument);
		/* Of either limit the C library says EAGAIN; errno is what the kernel said. */
		if (error == EAGAIN && errno == ENOMEM)
			error = ENOMEM;
	}
	pthread_attr_destroy(&attributes);
	return -error;
}

void thread_await(sem_t *semaphore)
{
	while (sem_wait(semaphore) < 0)
		;
}
