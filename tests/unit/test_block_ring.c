// SPDX-License-Identifier: BSD-3-Clause
/*
 * The rings of the block engine: made before a filter that forbids to make
 * any, used start after start; and one that dies with requests in it.
 */
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "block_rig.h"
#include "capture.h"
#include "jail/policy.h"

enum { MANY = 100 };
/* How a child says that the kernel gives us no rings. */
enum { NO_RINGS = 77 };

/* As a jail does: from now on no ring is made or changed, only enabled. */
static void forbid_rings(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_register, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IORING_REGISTER_ENABLE_RINGS, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { ARRAY_SIZE(code), code };

	assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

/* A stopped queue has left nothing in its ring: the kernel lists what waits there. */
static void assert_nothing_armed(const struct rig *rig)
{
	char path[64];
	char text[8192];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", rig->device->urings.rings[0]->ring_fd);
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd_pread_most(fd, text, sizeof(text) - 1, 0);

	assert_true(n > 0);
	text[n] = '\0';
	assert_non_null(strstr(text, "PollList:"));
	assert_null(strstr(strstr(text, "PollList:"), "op="));
}

static void use_again_and_again(void)
{
	struct rig *rig = new_rig((struct block_options){ .queues = 2 }, "/tmp");
	struct capture capture;

	capture_begin(&capture);
	block_device_class.ops->prepare(rig->device);
	if (rig->device->urings.rings[1] == NULL) {
		capture_end(&capture);
		free_rig(rig);
		_exit(NO_RINGS);
	}
	forbid_rings();
	for (unsigned round = 0; round < 20; round++) {
		start_all(rig, USUAL);
		/* Queue 1 has requests in flight when it is stopped. */
		for (unsigned n = 0; n < 32; n++)
			offer(rig, 1, n, VIRTIO_BLK_T_OUT, 1024 + n * 8, DATA_SIZE);
		kick(rig, 1);
		fill(slot_at(rig, 0, 0), round * DATA_SIZE, DATA_SIZE);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, round * 8, DATA_SIZE), VIRTIO_BLK_S_OK);
		memset(slot_at(rig, 0, 0)->data, 0, DATA_SIZE);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, round * 8, DATA_SIZE), VIRTIO_BLK_S_OK);
		assert_filled(slot_at(rig, 0, 0)->data, round * DATA_SIZE, DATA_SIZE);
		stop_all(rig);
		assert_nothing_armed(rig);
	}
	capture_end(&capture);
	assert_string_equal(capture.text, ""); /* not a word of another engine */
	assert_non_null(rig->device->urings.rings[0]);
	free_rig(rig);
}

/* In a process of its own, as filters stay. */
static void check_in_child(void (*test)(void))
{
	int status = 0;

	(void)fflush(NULL);
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		test();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_RINGS)
		skip();
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_prepared_ring_serves_again_and_again(void **state)
{
	(void)state;
	check_in_child(use_again_and_again);
}

/* Where nothing was to be had, nothing is tried later, nor said again at each reset. */
static void prepared_without_rings_is_served_without(void **state)
{
	struct rig *rig = new_rig((struct block_options){ .queues = 1 }, "/tmp");
	struct capture capture;

	(void)state;
	rig->device->urings.tried[0] = true;
	capture_begin(&capture);
	for (unsigned i = 0; i < 100; i++) {
		start_all(rig, USUAL);
		assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
		stop_all(rig);
		assert_int_equal(rig->vhost->ops->reset(rig->vhost), 0);
	}
	capture_end(&capture);
	assert_non_null(strstr(capture.text, "no io_uring"));
	assert_int_equal(capture_lines(&capture), 1);
	free_rig(rig);
}

/* As drivers without event indices do: the device is told only if it asks for it. */
static void kick_if_asked(struct rig *rig)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if ((__atomic_load_n(&rig->queues[0].used->flags, __ATOMIC_RELAXED) &
		    VRING_USED_F_NO_NOTIFY) == 0)
		kick(rig, 0);
}

/* Whether all that was offered is answered in that time, by a driver that sleeps for nothing. */
static bool are_answered(const struct rig *rig, uint64_t ns)
{
	const struct driver_queue *queue = &rig->queues[0];
	uint64_t end_ns = clock_monotonic_ns() + ns;

	while (__atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE) != queue->avail->idx)
		if (clock_monotonic_ns() > end_ns)
			return false;
	return true;
}

static void pause_for(uint64_t ns)
{
	uint64_t end = clock_monotonic_ns() + ns;

	while (clock_monotonic_ns() < end)
		;
}

/* A thread that no longer looks at what is offered has asked for a kick, whatever it waits for. */
static void who_comes_late_is_seen(void **state)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH };
	struct rig *rig = new_ring_rig(1);
	unsigned random = 1;

	(void)state;
	start_all(rig, USUAL);
	rig->queues[0].avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	for (unsigned round = 0; round < 1000; round++) {
		unsigned count = round % 5 == 0 ? 1 + draw_below(&random, 30) : 1;

		for (unsigned n = 0; n < count; n++) {
			uint32_t type = types[draw_below(&random, 3)];

			offer(rig, 0, n, type, n * 8, type == VIRTIO_BLK_T_FLUSH ? 0 : DATA_SIZE);
			kick_if_asked(rig);
		}
		if (!are_answered(rig, 20 * NS_PER_S))
			fail_msg("%u answers, not %u: the device sleeps", rig->queues[0].used->idx,
				rig->queues[0].avail->idx);
		pause_for(draw_below(&random, 65536));
	}
	stop_all(rig);
	free_rig(rig);
}

/* Descriptors of rings. */
static unsigned find_rings(int *ret_fds, unsigned max)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	char target[64];
	unsigned count = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL && count < max) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		target[n > 0 ? n : 0] = '\0';
		if (strcmp(target, "anon_inode:[io_uring]") == 0)
			ret_fds[count++] = (int)strtol(entry->d_name, NULL, 10);
	}
	closedir(dir);
	return count;
}

static void offer_many(struct rig *rig, unsigned kick_after)
{
	for (unsigned n = 0; n < MANY; n++) {
		bool flush = n % 10 == 9;

		fill(slot_at(rig, 0, n), n * DATA_SIZE, DATA_SIZE);
		offer(rig, 0, n, flush ? VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_OUT, n * 8,
			flush ? 0 : DATA_SIZE);
		if (n == kick_after)
			kick(rig, 0);
	}
}

/* Each has an answer; then all that went well is there. */
static void check_many(struct rig *rig)
{
	for (unsigned n = 0; n < MANY; n++) {
		uint8_t status = slot_at(rig, 0, n)->status;

		assert_true(status == VIRTIO_BLK_S_OK || status == VIRTIO_BLK_S_IOERR);
	}
	for (unsigned n = 0; n < MANY; n++) {
		bool written = n % 10 != 9 && slot_at(rig, 0, n)->status == VIRTIO_BLK_S_OK;

		assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, n * 8, DATA_SIZE), VIRTIO_BLK_S_OK);
		if (written)
			assert_filled(slot_at(rig, 0, 0)->data, n * DATA_SIZE, DATA_SIZE);
	}
}

/* The ring's descriptor becomes one of /dev/null while the ring works. */
static void kill_ring(struct rig *rig, int fd, unsigned kick_after)
{
	CLEANUP_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct capture capture;

	capture_begin(&capture);
	offer_many(rig, kick_after);
	assert_int_equal(dup3(null, fd, O_CLOEXEC), fd);
	kick(rig, 0);
	wait_for(rig, 0, MANY);
	capture_await(&capture); /* all may have been answered before the ring died */
	capture_end(&capture);
	assert_non_null(strstr(capture.text, "io_uring failed: "));
	assert_int_equal(capture_lines(&capture), 1);
}

/* The next start does without a ring, which was said when it died. */
static void start_again(struct rig *rig)
{
	struct capture capture;
	int fd;

	stop_all(rig);
	capture_begin(&capture);
	start_all(rig, USUAL);
	uint8_t status = ask(rig, VIRTIO_BLK_T_IN, 0, 512);

	capture_end(&capture);
	assert_int_equal(status, VIRTIO_BLK_S_OK);
	assert_int_equal(find_rings(&fd, 1), 0);
	assert_string_equal(capture.text, "");
}

/* Offers reads in slots that are free until `many` are in flight. */
static void fill_up(struct rig *rig, bool *busy, unsigned many)
{
	for (unsigned n = 0; n < many; n++)
		if (!busy[n])
			offer(rig, 0, n, VIRTIO_BLK_T_IN, 0, DATA_SIZE);
	memset(busy, true, many);
}

/* Waits for `count` answers, whose slots are free then. */
static void take_answers(struct rig *rig, bool *busy, unsigned count)
{
	const struct driver_queue *queue = &rig->queues[0];

	wait_for(rig, 0, count);
	for (unsigned i = 1; i <= count; i++)
		busy[queue->used->ring[(uint16_t)(queue->seen - i) % QUEUE_SIZE].id] = false;
}

/*
 * Reads of a pipe end when we write to it. However many are left in the kernel, what is done
 * is told: also the last of a batch, and the first of the next.
 */
static void what_is_done_is_told(void **state)
{
	static const unsigned portions[] = { 1, 5, 21, 4, 1, 22, 7, 3, 32, 20, 12 };
	static const uint8_t data[DATA_SIZE];
	struct rig *rig = new_rig((struct block_options){ .queues = 1 }, "/tmp");
	bool busy[32] = { false };
	unsigned left = 0;
	int ends[2];
	int fd;

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	fd = rig->device->image.fd;
	assert_int_equal(dup3(ends[0], fd, O_CLOEXEC), fd);
	start_all(rig, USUAL);
	for (unsigned i = 0; i < ARRAY_SIZE(portions); i++) {
		/* At times only, and with a kick, which need not be asked for. */
		if (i % 2 == 0 || left < portions[i]) {
			fill_up(rig, busy, ARRAY_SIZE(busy));
			left = ARRAY_SIZE(busy);
			kick(rig, 0);
		}
		for (unsigned n = 0; n < portions[i]; n++)
			assert_int_equal(write(ends[1], data, DATA_SIZE), DATA_SIZE);
		take_answers(rig, busy, portions[i]);
		left -= portions[i];
	}
	bool has_rings = find_rings(&fd, 1) != 0;

	close(ends[1]); /* what is left ends as well */
	stop_all(rig);
	close(ends[0]);
	free_rig(rig);
	if (!has_rings)
		skip();
}

/* QEMU's queues have room for more requests than the ring has; all of them wait when it starts. */
static void more_requests_than_the_ring_takes(void **state)
{
	enum { LARGE = 1024 };
	struct rig *rig = new_rig((struct block_options){ .queues = 1 }, "/tmp");
	struct driver_queue *queue = &rig->queues[0];
	const struct vhost_ring ring = { .size = LARGE,
		.desc = QUEUE_AT,
		.avail = QUEUE_AT + 0x4000,
		.used = QUEUE_AT + 0x8000,
		.kick_fd = queue->kick_fd,
		.call_fd = queue->call_fd };

	(void)state;
	start_all(rig, USUAL);
	stop_all(rig);
	offer(rig, 0, 0, VIRTIO_BLK_T_IN, 0, DATA_SIZE);
	for (unsigned n = 0; n < LARGE; n++) {
		queue->desc[n] = queue->desc[0];
		queue->avail->ring[n] = (uint16_t)n;
	}
	__atomic_store_n(&queue->avail->idx, LARGE, __ATOMIC_RELEASE);
	assert_int_equal(rig->vhost->ops->set_vring(rig->vhost, 0, &ring), 0);
	assert_int_equal(rig->vhost->ops->start_vring(rig->vhost, 0), 0);
	wait_for(rig, 0, LARGE);
	assert_int_equal(slot_at(rig, 0, 0)->status, VIRTIO_BLK_S_OK);
	free_rig(rig);
}

/* Whether a request is answered within a moment. */
static bool is_answered(struct rig *rig, bool kicks)
{
	offer(rig, 0, 0, VIRTIO_BLK_T_IN, 0, 512);
	if (kicks)
		kick(rig, 0);
	if (!are_answered(rig, NS_PER_MS))
		return false;
	rig->queues[0].seen++;
	return true;
}

/* Whether one is answered without a kick, after many that came at once. All are, at last. */
static bool need_not_kick(struct rig *rig)
{
	bool answered = true;

	for (unsigned i = 0; i < 32 && answered; i++)
		answered = is_answered(rig, true);
	if (answered && is_answered(rig, false))
		return true;
	kick(rig, 0);
	wait_for(rig, 0, 1);
	return false;
}

/* At some time, which depends on what else the machine does. */
static void a_fast_driver_need_not_kick(void **state)
{
	struct rig *rig = new_ring_rig(1);
	uint64_t end_ns = clock_monotonic_ns() + 30 * NS_PER_S;
	bool found = false;

	(void)state;
	start_all(rig, USUAL);
	while (!found && clock_monotonic_ns() < end_ns)
		found = need_not_kick(rig);
	assert_true(found);
	free_rig(rig);
}

/*
 * io_uring_enter() fails from one moment to the next, with requests in flight
 * and in the queue. A ring for one thread then cannot tell how those in flight
 * end: after a while they are errors.
 */
static void a_dead_ring_loses_no_request(void **state)
{
	struct rig *rig = new_rig((struct block_options){ .queues = 1 }, "/tmp");
	int fd = -1;

	(void)state;
	start_all(rig, USUAL);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	if (find_rings(&fd, 1) == 0) {
		free_rig(rig);
		skip();
		return; /* which tools do not know */
	}
	kill_ring(rig, fd, 30);
	check_many(rig);
	start_again(rig);
	free_rig(rig);
}

/* One that cannot wait for kicks or the stop is of no use: the queue does without, and says so. */
static void a_ring_that_cannot_wait_is_given_up(void **state)
{
	enum { NO_DESCRIPTOR = 900 };
	struct rig *rig = new_rig((struct block_options){ .queues = 1 }, "/tmp");
	struct capture capture;
	int kick_fd = rig->queues[0].kick_fd, fd;

	(void)state;
	start_all(rig, USUAL);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	bool has_rings = find_rings(&fd, 1) != 0;

	stop_all(rig);
	rig->queues[0].kick_fd = NO_DESCRIPTOR;
	capture_begin(&capture);
	start_all(rig, USUAL);
	for (unsigned ms = 0; has_rings && find_rings(&fd, 1) != 0 && ms < 10000; ms++)
		(void)poll(NULL, 0, 1);
	stop_all(rig);
	capture_end(&capture);
	rig->queues[0].kick_fd = kick_fd;
	start_all(rig, USUAL);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	free_rig(rig);
	if (!has_rings)
		skip();
	assert_non_null(strstr(capture.text, "io_uring failed: Bad file descriptor"));
}

static sem_t started;

/* Starts the device by a thread with the filter of a device's process, which the queue's inherits.
 * No thread ends there before the process does. */
static void *start_under_filter(void *argument)
{
	const struct jail_program *program = &jail_policy_find("block_device")->kill;
	struct sock_fprog filter = { program->count, (struct sock_filter *)program->instructions };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
		abort();
	start_all(argument, USUAL);
	sem_post(&started);
	for (;;)
		(void)poll(NULL, 0, -1);
	return NULL;
}

/* A request in the kernel whose data is not there yet: a pipe is its disk. */
static void lose_ring_under_filter(void)
{
	static const uint8_t data[DATA_SIZE];
	struct rig *rig = new_rig((struct block_options){ .queues = 1 }, "/tmp");
	struct capture capture;
	pthread_t starter;
	int ends[2], ring_fd, image_fd = rig->device->image.fd, kept = dup(image_fd);
	CLEANUP_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	block_device_class.ops->prepare(rig->device);
	if (rig->device->urings.rings[0] == NULL)
		_exit(NO_RINGS);
	ring_fd = rig->device->urings.rings[0]->ring_fd;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(dup3(ends[0], image_fd, O_CLOEXEC), image_fd);
	sem_init(&started, 0, 0);
	assert_int_equal(thread_start(&starter, start_under_filter, rig), 0);
	thread_await(&started);

	/* Both are taken at once, so the other is in the kernel when one is answered. */
	offer(rig, 0, 0, VIRTIO_BLK_T_IN, 0, DATA_SIZE);
	offer(rig, 0, 1, VIRTIO_BLK_T_IN, 0, DATA_SIZE);
	kick(rig, 0);
	assert_int_equal(write(ends[1], data, DATA_SIZE), DATA_SIZE);
	wait_for(rig, 0, 1);

	/* Which of the two got the data is the kernel's choice. */
	unsigned first = last_answer(rig, 0).id;

	capture_begin(&capture);
	assert_int_equal(dup3(null, ring_fd, O_CLOEXEC), ring_fd);
	kick(rig, 0);
	capture_await(&capture);
	(void)poll(NULL, 0, 20); /* it waits by now */
	assert_int_equal(write(ends[1], data, DATA_SIZE), DATA_SIZE);
	wait_for(rig, 0, 1);
	capture_end(&capture);
	assert_non_null(strstr(capture.text, "io_uring failed: "));
	assert_int_equal(slot_at(rig, 0, first)->status, VIRTIO_BLK_S_OK);
	assert_int_equal(slot_at(rig, 0, 1 - first)->status, VIRTIO_BLK_S_IOERR);

	assert_int_equal(dup3(kept, image_fd, O_CLOEXEC), image_fd);
	assert_int_equal(ask(rig, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	stop_all(rig);
	assert_int_equal(unlink(rig->path), 0);
}

static void a_jailed_device_survives_its_ring(void **state)
{
	(void)state;
	check_in_child(lose_ring_under_filter);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_prepared_ring_serves_again_and_again),
		cmocka_unit_test(prepared_without_rings_is_served_without),
		cmocka_unit_test(who_comes_late_is_seen),
		cmocka_unit_test(what_is_done_is_told),
		cmocka_unit_test(more_requests_than_the_ring_takes),
		cmocka_unit_test(a_fast_driver_need_not_kick),
		cmocka_unit_test(a_ring_that_cannot_wait_is_given_up),
		cmocka_unit_test(a_dead_ring_loses_no_request),
		cmocka_unit_test(a_jailed_device_survives_its_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
