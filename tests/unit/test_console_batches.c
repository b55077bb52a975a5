// SPDX-License-Identifier: BSD-3-Clause
/*
 * Bytes that KVM keeps: the console takes them though the guest never exits, keeps
 * no longer when the guest is quiet, and again when it prints.
 */
#include "unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "base/clock.h"
#include "unit/capture.h"
#include "unit/console_guest.h"

/* In the place of KVM: what the guest prints waits here. */
struct kept {
	struct guest guest;
	pthread_mutex_t mutex; /* guards what follows */
	bool keeps;
	int failure;
	unsigned changes, looks, last_looks; /* the last: when nothing is kept any more */
	char bytes[64];
	size_t count;
	int out[2];
};

static int keep(void *owner, bool on)
{
	struct kept *kept = owner;

	pthread_mutex_lock(&kept->mutex);
	kept->changes++;
	if (kept->failure == 0)
		kept->keeps = on;
	int r = kept->failure;

	pthread_mutex_unlock(&kept->mutex);
	return r;
}

static void take(void *owner)
{
	struct kept *kept = owner;

	pthread_mutex_lock(&kept->mutex);
	guest_send(&kept->guest, kept->bytes, kept->count);
	kept->count = 0;
	kept->looks++;
	kept->last_looks += !kept->keeps;
	pthread_mutex_unlock(&kept->mutex);
}

static bool is_keeping(struct kept *kept)
{
	pthread_mutex_lock(&kept->mutex);
	bool keeps = kept->keeps;

	pthread_mutex_unlock(&kept->mutex);
	return keeps;
}

static unsigned count_of(struct kept *kept, const unsigned *counter)
{
	pthread_mutex_lock(&kept->mutex);
	unsigned value = *counter;

	pthread_mutex_unlock(&kept->mutex);
	return value;
}

/* The guest prints, and does not exit if it is kept. */
static void print(struct kept *kept, const char *text)
{
	pthread_mutex_lock(&kept->mutex);
	bool keeps = kept->keeps;

	if (keeps) {
		memcpy(kept->bytes + kept->count, text, strlen(text));
		kept->count += strlen(text);
	}
	pthread_mutex_unlock(&kept->mutex);
	if (!keeps)
		guest_send(&kept->guest, text, strlen(text));
}

static void up(struct kept *kept, int failure, uint64_t quiet_ns)
{
	const struct console_batching batching = { keep, take, kept, quiet_ns };
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	*kept = (struct kept){ .mutex = PTHREAD_MUTEX_INITIALIZER, .failure = failure };
	new_pipe(kept->out);
	guest_init(&kept->guest);
	guest_take_stdio(&kept->guest, null, kept->out[1]);
	close(null);
	close(kept->out[1]);
	guest_up(&kept->guest, CONSOLE_STDIO, NULL);
	console_batch(kept->guest.console, &batching);
}

static void down(struct kept *kept)
{
	guest_down(&kept->guest);
	close(kept->out[0]);
}

static void what_is_kept_is_printed(void **state)
{
	struct kept kept;

	(void)state;
	up(&kept, 0, 1000 * NS_PER_S);
	wait_until(is_keeping(&kept));
	print(&kept, "no exit");
	expect_text(kept.out[0], "no exit");
	print(&kept, " comes");
	expect_text(kept.out[0], " comes");
	assert_true(is_keeping(&kept));
	assert_int_equal(count_of(&kept, &kept.changes), 1);
	down(&kept);
}

static void a_quiet_guest_costs_nothing(void **state)
{
	struct kept kept;

	(void)state;
	up(&kept, 0, 50 * NS_PER_MS);
	wait_until(count_of(&kept, &kept.changes) == 2);
	assert_false(is_keeping(&kept));
	wait_until(count_of(&kept, &kept.last_looks) >= 1);
	unsigned looks = count_of(&kept, &kept.looks);

	sleep_ms(300);
	assert_int_equal(count_of(&kept, &kept.looks), looks);
	print(&kept, "again");
	expect_text(kept.out[0], "again");
	wait_until(count_of(&kept, &kept.changes) >= 3);
	down(&kept);
}

/* A socket that nobody is connected to: what is printed is lost, but costs no exit for each byte.
 */
static void nobody_listens_and_it_is_kept_again(void **state)
{
	char path[64];
	struct kept kept = { .mutex = PTHREAD_MUTEX_INITIALIZER };
	const struct console_batching batching = { keep, take, &kept, 50 * NS_PER_MS };

	(void)state;
	snprintf(path, sizeof(path), "/tmp/crosvm-kept-%d", (int)getpid());
	guest_init(&kept.guest);
	guest_up(&kept.guest, CONSOLE_UNIX, path);
	console_batch(kept.guest.console, &batching);
	wait_until(count_of(&kept, &kept.changes) == 2);
	/* Again, as it may not rest yet, and hears nothing of what is lost anyway. */
	wait_until((print(&kept, "lost"), count_of(&kept, &kept.changes) >= 3));
	guest_down(&kept.guest);
}

/* Before it is turned off for good: what came in between is taken. */
static void nothing_is_left_when_it_ends(void **state)
{
	enum { ROUNDS = 40 };
	struct kept kept;

	(void)state;
	up(&kept, 0, 1);
	for (unsigned i = 0; i < ROUNDS; i++) {
		print(&kept, "x");
		expect_text(kept.out[0], "x");
	}
	down(&kept);
}

static void a_host_that_cannot_is_asked_once(void **state)
{
	struct kept kept;

	(void)state;
	up(&kept, -ENOSPC, 1000 * NS_PER_S);
	wait_until(count_of(&kept, &kept.changes) == 1);
	print(&kept, "byte by byte");
	expect_text(kept.out[0], "byte by byte");
	assert_int_equal(count_of(&kept, &kept.changes), 1);
	down(&kept);
}

/* A reader that is stuck keeps nothing busy: the guest's silence counts. */
static void a_reader_that_is_stuck_does_not_keep_it_on(void **state)
{
	static const char block[4096];
	struct kept kept;

	(void)state;
	up(&kept, 0, 50 * NS_PER_MS);
	for (unsigned i = 0; i < 64; i++)
		guest_send(&kept.guest, block, sizeof(block));
	wait_until(count_of(&kept, &kept.changes) >= 2 && !is_keeping(&kept));
	down(&kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_kept_is_printed),
		cmocka_unit_test(a_quiet_guest_costs_nothing),
		cmocka_unit_test(nobody_listens_and_it_is_kept_again),
		cmocka_unit_test(nothing_is_left_when_it_ends),
		cmocka_unit_test(a_host_that_cannot_is_asked_once),
		cmocka_unit_test(a_reader_that_is_stuck_does_not_keep_it_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
