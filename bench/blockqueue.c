// SPDX-License-Identifier: BSD-3-Clause
/*
 * A driver of our own at one queue of the block device, without a guest: 4 KiB
 * reads at random places of a file, or with -s 128 KiB reads in pages one after
 * the other; a fixed number of them in flight. Prints
 * what one request costs the queue's thread: system calls, kicks, calls; and
 * how many requests a second.
 *
 *	blockqueue [-d] [-i] [-s] [-e sync] [-q DEPTH] [-n REQUESTS] FILE
 *
 * Rings with event indices, as Linux drives them: a kick and a call only where
 * the other side asked for one. System calls are counted by perf's tracepoint,
 * which needs the right to use it; without, there is no count. With -i the
 * thread is traced, instruction by instruction, so that those in user space
 * are counted as well: exact on any machine, and some thousand times slower.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/reg.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver.h"
#include "memory/guest_memory.h"
#include "virtio/block_options.h"
#include "virtio/device.h"
#include "virtio/vhost_thread.h"

enum {
	QUEUE_SIZE = 256,
	PAGE = 4096,
	PAGES_MAX = 32,
	HEADERS_AT = DRIVER_RINGS_END,
	DATA_AT = 0x200000
};

struct request {
	struct vring_desc table[PAGES_MAX + 2];
	struct virtio_blk_outhdr header;
	uint8_t status;
	uint8_t padding[63];
};

struct driver {
	struct guest_memory *memory;
	struct vhost *vhost;
	struct driver_queue queue;
	uint64_t sectors;
	uint64_t random;
	uint64_t next;  /* sector of a sequential read */
	unsigned pages; /* of a read */
	uint64_t failed;
};

static void *at(const struct driver *driver, uint64_t gpa, uint64_t size)
{
	return driver_at(driver->memory, gpa, size);
}

static uint64_t choose_sector(struct driver *driver)
{
	uint64_t size = driver->pages * PAGE / 512;

	driver->random = driver->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
	if (driver->pages == 1)
		return (driver->random >> 33) % (driver->sectors / size) * size;
	driver->next = driver->next + size <= driver->sectors - size ? driver->next + size : 0;
	return driver->next;
}

static void offer(struct driver *driver, unsigned n)
{
	uint64_t gpa = HEADERS_AT + n * sizeof(struct request);
	struct request *request = at(driver, gpa, sizeof(*request));
	unsigned last = driver->pages + 1;

	request->header = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_IN,
		.sector = choose_sector(driver) };
	request->status = 0xee;
	request->table[0] = (struct vring_desc){ gpa + offsetof(struct request, header),
		sizeof(request->header), VRING_DESC_F_NEXT, 1 };
	for (unsigned i = 1; i < last; i++)
		request->table[i] =
			(struct vring_desc){ DATA_AT + (n * PAGES_MAX + i - 1) * (uint64_t)PAGE,
				PAGE, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, (uint16_t)(i + 1) };
	request->table[last] = (struct vring_desc){ gpa + offsetof(struct request, status), 1,
		VRING_DESC_F_WRITE, 0 };
	driver->queue.desc[n] = (struct vring_desc){ gpa,
		(uint32_t)((last + 1) * sizeof(request->table[0])), VRING_DESC_F_INDIRECT, 0 };
	driver_offer(&driver->queue, (uint16_t)n);
}

/* Takes answers, at least one, and offers as many anew. */
static void turn(struct driver *driver, uint64_t *left)
{
	for (uint16_t ready = driver_await(&driver->queue, 1); ready > 0; ready--) {
		unsigned n = driver_take(&driver->queue);
		struct request *request =
			at(driver, HEADERS_AT + n * sizeof(*request), sizeof(*request));

		driver->failed += request->status != VIRTIO_BLK_S_OK;
		if (*left > 0) {
			offer(driver, n);
			--*left;
		}
	}
	driver_kick(&driver->queue);
}

static void start(struct driver *driver, const struct block_options *options)
{
	const struct guest_memory_range range = { 0, DATA_AT + QUEUE_SIZE * PAGES_MAX * PAGE };
	struct virtio_blk_config config;
	struct device *device;

	check(guest_memory_create(&range, 1, 0, &driver->memory) == 0, "memory");
	check(block_device_class.open(options, &device) == 0, "open");
	check(vhost_thread_create(block_device_class.ops, device, driver->memory, &driver->vhost) ==
			0,
		"device");
	const uint64_t features =
		UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC |
		UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX | UINT64_C(1) << VIRTIO_BLK_F_FLUSH;

	check(driver->vhost->ops->get_config(
		      driver->vhost, 0, (uint8_t *)&config, sizeof(config)) == 0,
		"configuration");
	driver->sectors = config.capacity;
	check(driver->sectors >= PAGES_MAX * PAGE / 512, "the file is too small");
	check(driver->vhost->ops->set_features(driver->vhost, features) == 0, "features");
	driver_start(&driver->queue, driver->vhost, driver->memory, 0, QUEUE_SIZE);
}

static void run(struct driver *driver, unsigned depth, uint64_t requests)
{
	uint64_t left = requests - depth;

	for (unsigned n = 0; n < depth; n++)
		offer(driver, n);
	driver_kick(&driver->queue);
	while (left > 0 || driver->queue.seen != driver->queue.offered)
		turn(driver, &left);
}

struct cost {
	uint64_t requests;
	double seconds;
	uint64_t instructions; /* 0: not counted */
	uint64_t system_calls;
	bool calls_counted;
};

static void stop(struct driver *driver)
{
	uint16_t base;

	check(driver->vhost->ops->stop_vring(driver->vhost, 0, &base) == 0, "stop");
	driver->vhost->ops->free(driver->vhost);
	guest_memory_free(driver->memory);
	errno = EIO;
	check(driver->failed == 0, "reads failed");
}

/* Runs the requests, and counts where we may. */
static void measure(struct driver *driver, unsigned depth, struct cost *cost)
{
	int counter = count_system_calls(last_thread());
	double begin = seconds();

	run(driver, depth, cost->requests);
	cost->seconds = seconds() - begin;
	if (counter >= 0 &&
		read(counter, &cost->system_calls, sizeof(uint64_t)) == sizeof(uint64_t))
		cost->calls_counted = true;
}

static void print(const struct driver *driver, unsigned depth, const struct cost *cost)
{
	double requests = (double)cost->requests;

	printf("{\"requests\": %lu, \"depth\": %u, ", cost->requests, depth);
	if (cost->instructions != 0)
		printf("\"instructions\": %.4f, ", (double)cost->instructions / requests);
	else
		printf("\"per_second\": %.0f, ", requests / cost->seconds);
	if (cost->calls_counted)
		printf("\"system_calls\": %.4f, ", (double)cost->system_calls / requests);
	printf("\"kicks\": %.4f, \"calls\": %.4f}\n", (double)driver->queue.kicks / requests,
		(double)driver->queue.calls / requests);
}

/* Steps through a thread until it ends; `go` lets its process begin. */
static void count_steps(int thread, int go, struct cost *cost)
{
	int status = 0;

	check(ptrace(PTRACE_SEIZE, thread, 0, 0) == 0 &&
			ptrace(PTRACE_INTERRUPT, thread, 0, 0) == 0 &&
			waitpid(thread, &status, __WALL) == thread,
		"trace");
	check(write(go, &thread, sizeof(thread)) == sizeof(thread), "go");
	while (ptrace(PTRACE_SINGLESTEP, thread, 0, 0) == 0 &&
		waitpid(thread, &status, __WALL) == thread && !WIFEXITED(status)) {
		cost->instructions++;
		/* The number of the system call that was stepped over, or -1. */
		long number = ptrace(PTRACE_PEEKUSER, thread, sizeof(long) * ORIG_RAX, 0);

		cost->system_calls += number >= 0;
	}
	cost->calls_counted = true;
}

/* A step is two switches between the tracer and the thread: on one processor some times cheaper. */
static void stay_on_one_processor(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned)sched_getcpu(), &set);
	check(sched_setaffinity(0, sizeof(set), &set) == 0, "sched_setaffinity");
}

/* The driver and the device are in a process of their own, for none can trace itself. */
static void measure_steps(const struct block_options *options, struct driver *driver,
	unsigned depth, struct cost *cost)
{
	int told[2];
	int go[2];
	int thread;

	stay_on_one_processor();
	check(pipe(told) == 0 && pipe(go) == 0, "pipe");
	pid_t child = fork();

	check(child >= 0, "fork");
	if (child == 0) {
		start(driver, options);
		run(driver, 1, 1); /* the thread has made its ring, and waits */
		thread = last_thread();
		check(write(told[1], &thread, sizeof(thread)) == sizeof(thread) &&
				read(go[0], &thread, sizeof(thread)) == sizeof(thread),
			"go");
		driver->queue.kicks = driver->queue.calls = 0;
		run(driver, depth, cost->requests);
		check(write(told[1], driver, sizeof(*driver)) == sizeof(*driver), "tell");
		stop(driver);
		_exit(0);
	}
	check(read(told[0], &thread, sizeof(thread)) == sizeof(thread), "start");
	count_steps(thread, go[1], cost);
	check(read(told[0], driver, sizeof(*driver)) == sizeof(*driver), "tell");
	check(waitpid(child, NULL, 0) == child, "end");
}

int main(int argc, char **argv)
{
	struct block_options options = block_default_options;
	struct driver driver = { .random = 1, .pages = 1 };
	struct cost cost = { .requests = 100000 };
	bool steps = false;
	unsigned depth = 1;
	int option;

	while ((option = getopt(argc, argv, "de:iq:n:s")) != -1)
		switch (option) {
		case 'd':
			options.direct = true;
			break;
		case 'e':
			options.sync_engine = strcmp(optarg, "sync") == 0;
			break;
		case 'i':
			steps = true;
			break;
		case 'q':
			depth = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 's':
			driver.pages = PAGES_MAX;
			break;
		case 'n':
			cost.requests = strtoull(optarg, NULL, 10);
			break;
		default:
			return 2;
		}
	if (optind != argc - 1 || depth == 0 || depth > QUEUE_SIZE || cost.requests < depth) {
		fprintf(stderr,
			"usage: blockqueue [-d] [-i] [-s] [-e sync] [-q DEPTH] [-n REQUESTS] "
			"FILE\n");
		return 2;
	}
	options.path = argv[optind];
	options.read_only = true;
	if (steps) {
		measure_steps(&options, &driver, depth, &cost);
	} else {
		start(&driver, &options);
		measure(&driver, depth, &cost);
		stop(&driver);
	}
	print(&driver, depth, &cost);
	return 0;
}
