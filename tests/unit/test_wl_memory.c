// SPDX-License-Identifier: BSD-3-Clause
/*
 * The memory that a wayland device gives its guest: addresses, and how much of
 * the host's is in use. fstat() is ours, so that no test has to use 2 GiB.
 */
#include "unit/wl_commands.h"

#include <sys/stat.h>
#include <sys/syscall.h>

static uint64_t used_bytes; /* of each file; 0: as much as there is */

int fstat(int fd, struct stat *buf)
{
	int r = (int)syscall(SYS_fstat, fd, buf);

	if (r == 0 && used_bytes != 0)
		buf->st_blocks = (blkcnt_t)(used_bytes / 512);
	return r;
}

static void addresses_are_used_again(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t answer[8];

	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(
			DO(rig, answer, WL_NEW, 0, MEMORY, 3, 0, 0, 4096 * (i % 7 + 1)), WL_OK_NEW);
		assert_int_equal(answer[4], RIG_WINDOW_GPA / 4096);
		must_close(rig, MEMORY);
	}
	assert_int_equal(rig->map_calls, 1000);
	/* A gap is found. */
	for (unsigned id = 1; id <= 3; id++)
		new_memory(rig, id, 8192);
	must_close(rig, 2);
	new_memory(rig, 4, 12288);
	assert_int_equal(DO(rig, answer, WL_NEW, 0, 5, 3, 0, 0, 4096), WL_OK_NEW);
	assert_int_equal(answer[4], RIG_WINDOW_GPA / 4096 + 2);
}

/* foot makes four of them; the window has room for 32. */
static void large_memory_is_sparse(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t answer[8];
	struct stat st;

	for (uint32_t id = 1; id <= 32; id++)
		new_memory(rig, id, 512 << 20);
	assert_int_equal(DO(rig, answer, WL_NEW, 0, 33, 3, 0, 0, 512 << 20), WL_OUT_OF_MEMORY);
	assert_int_equal(fstat(rig->host->table.mapped->fd, &st), 0);
	assert_int_equal(st.st_blocks, 0);
}

static uint32_t ask_for_memory(struct wl_rig *rig, uint32_t id)
{
	uint32_t answer[8];

	return DO(rig, answer, WL_NEW, 0, id, 3, 0, 0, 4096);
}

/* What is granted can be filled, and takes it over the limit; what the compositor sent counts, too.
 */
static void memory_in_use_is_limited(void **state)
{
	struct wl_rig *rig = *state;
	uint32_t words[1024];
	int compositor = connect_context(rig, CTX);
	int file = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	used_bytes = WL_COMMITTED_MAX / 2 - 512;
	assert_int_equal(ask_for_memory(rig, 2), WL_OK_NEW);
	assert_int_equal(ask_for_memory(rig, 3), WL_OK_NEW);
	assert_int_equal(ask_for_memory(rig, 4), WL_OK_NEW);
	assert_int_equal(ask_for_memory(rig, 5), WL_OUT_OF_MEMORY);
	assert_int_equal(rig->mapped, 3);
	must_close(rig, 4);
	used_bytes = WL_COMMITTED_MAX / 2;
	assert_int_equal(ask_for_memory(rig, 5), WL_OUT_OF_MEMORY);
	must_close(rig, 3);
	assert_int_equal(ftruncate(file, 4096), 0);
	assert_int_equal(fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_true(rig_send(compositor, "x", 1, &file, 1));
	assert_int_equal(next(rig, words), WL_NEW_SIZE);
	assert_int_equal(ask_for_memory(rig, 5), WL_OUT_OF_MEMORY);
	must_close(rig, WL_HOST_ID);
	assert_int_equal(ask_for_memory(rig, 5), WL_OK_NEW);
	used_bytes = 0;
	close(file);
	close(compositor);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(addresses_are_used_again),
		TEST(large_memory_is_sparse),
		TEST(memory_in_use_is_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
