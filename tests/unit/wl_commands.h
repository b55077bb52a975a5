/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Commands to a wayland device's host side and what it says, for the unit
 * tests: each has a rig of its own, which must be empty at the end.
 */
#pragma once

#include "unit/unit.h"

#include "unit/count_entries.h"
#include "unit/wl_rig.h"

enum { CTX = 1, MEMORY = 2, PIPE = 3 };

struct counted_rig {
	struct wl_rig rig; /* first */
	unsigned descriptors;
};

static inline int make(void **state)
{
	struct counted_rig *counted = malloc(sizeof(*counted));

	assert_non_null(counted);
	counted->descriptors = count_fds();
	rig_open(&counted->rig);
	*state = counted;
	return 0;
}

/* Nobody's descriptors are left, the device's or the test's. */
static inline int unmake(void **state)
{
	struct counted_rig *counted = *state;

	rig_close(&counted->rig);
	assert_int_equal(count_fds(), counted->descriptors);
	free(counted);
	return 0;
}

static inline uint32_t do_bytes(
	struct wl_rig *rig, const void *bytes, uint32_t size, uint32_t *ret_words)
{
	memset(ret_words, 0xee, WL_NEW_SIZE);
	return wl_host_command(rig->host, bytes, size, WL_NEW_SIZE, (uint8_t *)ret_words);
}

/* The answer's type; *ret_words is the whole of it. */
static inline uint32_t do_words(
	struct wl_rig *rig, const uint32_t *words, unsigned count, uint32_t ret_words[8])
{
	uint32_t size = do_bytes(rig, words, 4 * count, ret_words);

	assert_int_equal(size, ret_words[0] == WL_OK_NEW ? WL_NEW_SIZE : WL_ANSWER_SIZE);
	return ret_words[0];
}

#define DO(rig, answer, ...)                                                                       \
	do_words(rig, (const uint32_t[]){ __VA_ARGS__ },                                           \
		ARRAY_SIZE(((const uint32_t[]){ __VA_ARGS__ })), answer)

static inline void must_close(struct wl_rig *rig, uint32_t id)
{
	uint32_t answer[8];

	assert_int_equal(DO(rig, answer, WL_CLOSE, 0, id), WL_OK);
}

/* A context and the compositor's end of it. */
static inline int connect_context(struct wl_rig *rig, uint32_t id)
{
	uint32_t answer[8];

	assert_int_equal(DO(rig, answer, WL_NEW_CTX, 0, id), WL_OK_NEW);
	int fd = rig_accept(rig->listeners[0]);

	assert_true(fd >= 0);
	return fd;
}

static inline void new_memory(struct wl_rig *rig, uint32_t id, uint32_t size)
{
	uint32_t answer[8];

	assert_int_equal(DO(rig, answer, WL_NEW, 0, id, 3, 0, 0, size), WL_OK_NEW);
	assert_int_equal(answer[6], align_up(size, 4096));
}

/* The next message as words; its size. */
static inline uint32_t next(struct wl_rig *rig, uint32_t *ret_words)
{
	uint32_t size = wl_host_next_message(rig->host, (uint8_t *)ret_words);

	if (size > 0)
		wl_host_delivered(rig->host);
	return size;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, unmake)
