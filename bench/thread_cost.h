/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the benches of a device's queue share: how a thread's system calls are
 * counted, and an end with one line when something cannot be done. Included by
 * one program each.
 */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline void check(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

/* The newest thread of this process: the queue's. */
static inline int last_thread(void)
{
	DIR *dir = opendir("/proc/self/task");
	const struct dirent *entry;
	int last = 0;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
		if (atoi(entry->d_name) > last)
			last = atoi(entry->d_name);
	if (dir != NULL)
		closedir(dir);
	return last;
}

/* Counts a thread's system calls; -1: we may not. */
static inline int count_system_calls(int thread)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr) };
	FILE *file = fopen("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id", "re");
	unsigned id;

	if (file == NULL)
		return -1;
	int found = fscanf(file, "%u", &id);

	fclose(file);
	attr.config = id;
	return found == 1 ? (int)syscall(SYS_perf_event_open, &attr, thread, -1, -1, 0) : -1;
}
