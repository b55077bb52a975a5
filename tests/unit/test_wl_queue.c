// SPDX-License-Identifier: BSD-3-Clause
/*
 * The wayland device on its rings: a driver that has no buffers for a while
 * loses nothing, one whose buffers are bad hurts itself, and a command whose
 * answer overwrites it is done all the same.
 */
#include "unit/unit.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "unit/virtio_driver.h"
#include "unit/wl_rig.h"
#include "virtio/vhost_thread.h"
#include "virtio/wl_options.h"
#include "virtio/wl_queue.h"

enum { SIZE = 16, SLOT = 8192, PATIENCE_MS = 20000, CTX = 1 };

struct ring {
	struct vring_desc *desc;
	uint16_t *avail;
	uint8_t *used;
	uint64_t data;
	uint16_t offered, seen;
	int kick_fd, call_fd;
};

struct rig {
	struct wl_rig host; /* its window and compositor; its device stays idle */
	struct guest_memory *memory;
	struct vhost *vhost;
	struct ring rings[WL_QUEUES];
};

static void *at(const struct rig *rig, uint64_t gpa)
{
	return guest_memory_at(rig->memory, gpa, 1);
}

static void start(struct rig *rig)
{
	for (unsigned i = 0; i < WL_QUEUES; i++) {
		struct ring *ring = &rig->rings[i];
		uint64_t gpa = 0x1000 + i * UINT64_C(0x3000);
		const struct vhost_ring place = { .size = SIZE,
			.desc = gpa,
			.avail = gpa + 0x1000,
			.used = gpa + 0x2000,
			.kick_fd = ring->kick_fd,
			.call_fd = ring->call_fd };

		memset(at(rig, gpa), 0, 0x3000);
		ring->desc = at(rig, place.desc);
		ring->avail = at(rig, place.avail);
		ring->used = at(rig, place.used);
		ring->data = 0x10000 + i * UINT64_C(0x20000);
		ring->offered = ring->seen = 0;
		assert_int_equal(rig->vhost->ops->set_vring(rig->vhost, i, &place), 0);
		assert_int_equal(rig->vhost->ops->start_vring(rig->vhost, i), 0);
	}
}

static int make(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct wl_options options = { .socket_count = 1 };
	struct device *device;

	assert_non_null(rig);
	rig_open(&rig->host);
	rig->memory = driver_memory();
	options.sockets[0] = rig->host.sockets[0];
	assert_int_equal(wl_device_class.open(&options, &device), 0);
	assert_int_equal(
		vhost_thread_create(wl_device_class.ops, device, rig->memory, &rig->vhost), 0);
	assert_int_equal(rig->vhost->ops->set_window(rig->vhost, &rig->host.window), 0);
	for (unsigned i = 0; i < WL_QUEUES; i++) {
		rig->rings[i].kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		rig->rings[i].call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
	start(rig);
	*state = rig;
	return 0;
}

static int unmake(void **state)
{
	struct rig *rig = *state;

	rig->vhost->ops->free(rig->vhost);
	for (unsigned i = 0; i < WL_QUEUES; i++) {
		close(rig->rings[i].kick_fd);
		close(rig->rings[i].call_fd);
	}
	rig_close(&rig->host);
	guest_memory_free(rig->memory);
	free(rig);
	return 0;
}

static void offer(struct ring *ring, unsigned head)
{
	ring->avail[2 + ring->offered % SIZE] = (uint16_t)head;
	__atomic_store_n(&ring->avail[1], ++ring->offered, __ATOMIC_RELEASE);
	(void)eventfd_write(ring->kick_fd, 1);
}

static void offer_in(struct ring *ring, uint32_t size)
{
	unsigned slot = ring->offered % SIZE;

	ring->desc[slot] =
		(struct vring_desc){ ring->data + slot * SLOT, size, VRING_DESC_F_WRITE, 0 };
	offer(ring, slot);
}

/* The length of the next used buffer, which *ret_bytes points to. */
static uint32_t wait_used(const struct rig *rig, struct ring *ring, void **ret_bytes)
{
	struct pollfd call = { .fd = ring->call_fd, .events = POLLIN };
	eventfd_t count;

	while (__atomic_load_n((uint16_t *)(void *)(ring->used + 2), __ATOMIC_ACQUIRE) ==
		ring->seen) {
		assert_int_equal(poll(&call, 1, PATIENCE_MS), 1);
		(void)eventfd_read(ring->call_fd, &count);
	}
	const uint32_t *entry = (const void *)(ring->used + 4 + ring->seen++ % SIZE * 8);

	*ret_bytes = at(rig, ring->desc[entry[0]].addr);
	return entry[1];
}

/* The command and its answer lie in the same place, as the driver has it. */
static uint32_t command(
	struct rig *rig, const uint32_t *words, uint32_t size, uint32_t room, uint32_t *ret_length)
{
	struct ring *ring = &rig->rings[WL_OUT];
	void *bytes;

	memcpy(at(rig, ring->data), words, size);
	ring->desc[0] = (struct vring_desc){ ring->data, size, VRING_DESC_F_NEXT, 1 };
	ring->desc[1] = (struct vring_desc){ ring->data, room, VRING_DESC_F_WRITE, 0 };
	if (room == 0)
		ring->desc[0].flags = 0;
	offer(ring, 0);
	*ret_length = wait_used(rig, ring, &bytes);
	return *(const uint32_t *)bytes;
}

static int connect_context(struct rig *rig)
{
	uint32_t length;

	assert_int_equal(
		command(rig, (const uint32_t[]){ WL_NEW_CTX, 0, CTX }, 12, 64, &length), WL_OK_NEW);
	assert_int_equal(length, WL_NEW_SIZE);
	int fd = rig_accept(rig->host.listeners[0]);

	assert_true(fd >= 0);
	return fd;
}

static void a_starved_guest_loses_nothing(void **state)
{
	struct rig *rig = *state;
	struct ring *in = &rig->rings[WL_IN];
	int compositor = connect_context(rig);
	uint32_t value = 0, expected = 0;

	/* More than the buffers hold; what is beyond stays in the socket. */
	while (value < 20000) {
		uint32_t part[1000];

		for (unsigned i = 0; i < ARRAY_SIZE(part); i++)
			part[i] = value++;
		assert_true(rig_send(compositor, part, sizeof(part), NULL, 0));
	}
	shutdown(compositor, SHUT_WR);
	for (bool ended = false; !ended;) {
		uint32_t *message;
		void *bytes;

		if (in->offered == in->seen)
			for (unsigned i = 0; i < 3; i++)
				offer_in(in, WL_MESSAGE_MAX);
		uint32_t length = wait_used(rig, in, &bytes);

		message = bytes;
		assert_int_equal(message[2], CTX);
		ended = message[0] == WL_HUP;
		for (uint32_t n = 16; !ended && n < length; n += 4)
			assert_int_equal(message[n / 4], expected++);
	}
	assert_int_equal(expected, value);
	close(compositor);
}

static void a_small_buffer_goes_back_empty(void **state)
{
	struct rig *rig = *state;
	struct ring *in = &rig->rings[WL_IN];
	int compositor = connect_context(rig);
	void *bytes;

	assert_true(rig_send(compositor, "12345678", 8, NULL, 0));
	offer_in(in, 16);
	assert_int_equal(wait_used(rig, in, &bytes), 0);
	offer_in(in, WL_MESSAGE_MAX);
	assert_int_equal(wait_used(rig, in, &bytes), 24);
	assert_memory_equal((uint8_t *)bytes + 16, "12345678", 8);
	close(compositor);
}

static void bad_command_buffers_are_given_back(void **state)
{
	static const uint32_t new[16] = { WL_NEW, 0, 2, 3, 0, 0, 4096 };
	struct rig *rig = *state;
	struct ring *out = &rig->rings[WL_OUT];
	uint32_t length;
	void *bytes;

	(void)command(rig, new, 28, 0, &length);
	assert_int_equal(length, 0);
	(void)command(rig, new, 28, 3, &length);
	assert_int_equal(length, 0);
	assert_int_equal(command(rig, new, 28, 8, &length), WL_ERR);
	assert_int_equal(length, WL_ANSWER_SIZE);
	/* Longer than any command. */
	out->desc[0] = (struct vring_desc){ LOW_GPA, 0x10000, VRING_DESC_F_NEXT, 1 };
	out->desc[1] = (struct vring_desc){ LOW_GPA, 1, VRING_DESC_F_NEXT, 2 };
	out->desc[2] = (struct vring_desc){ out->data, 4, VRING_DESC_F_WRITE, 0 };
	offer(out, 0);
	assert_int_equal(wait_used(rig, out, &bytes), WL_ANSWER_SIZE);
	assert_int_equal(*(const uint32_t *)at(rig, out->data), WL_ERR);
	assert_int_equal(rig->host.mapped, 0);
	assert_int_equal(command(rig, new, 28, 64, &length), WL_OK_NEW);
	assert_int_equal(rig->host.mapped, 1);
}

/* As later drivers gather what is longer than a page: of odd sizes, and cut within an id. */
static void a_command_in_three_pieces(void **state)
{
	enum { DATA = 6000, SENT = 16 + 4 + DATA };
	static const uint32_t new[7] = { WL_NEW, 0, 2, 3, 0, 0, 4096 };
	static const uint32_t pieces[] = { 17, 4096, SENT - 17 - 4096 };
	struct rig *rig = *state;
	struct ring *out = &rig->rings[WL_OUT];
	int compositor = connect_context(rig);
	uint8_t sent[SENT], heard[SENT];
	uint32_t length, done = 0;
	int fds[64] = { -1 };
	unsigned count;
	void *bytes;

	assert_int_equal(command(rig, new, sizeof(new), 64, &length), WL_OK_NEW);
	for (unsigned i = 0; i < SENT; i++)
		sent[i] = (uint8_t)(i % 251);
	memcpy(sent, (const uint32_t[]){ WL_SEND, 0, CTX, 1, 2 }, 20);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t gpa = out->data + (uint64_t)i * SLOT;

		memcpy(at(rig, gpa), sent + done, pieces[i]);
		out->desc[i] =
			(struct vring_desc){ gpa, pieces[i], VRING_DESC_F_NEXT, (uint16_t)(i + 1) };
		done += pieces[i];
	}
	out->desc[3] = (struct vring_desc){ out->data, 4, VRING_DESC_F_WRITE, 0 };
	offer(out, 0);
	assert_int_equal(wait_used(rig, out, &bytes), WL_ANSWER_SIZE);
	assert_int_equal(*(const uint32_t *)bytes, WL_OK);
	assert_int_equal(rig_receive(compositor, heard, sizeof(heard), fds, &count), DATA);
	assert_memory_equal(heard, sent + 20, DATA);
	assert_int_equal(count, 1);
	close(fds[0]);
	close(compositor);
}

static void reset(struct rig *rig)
{
	uint16_t base;

	for (unsigned i = 0; i < WL_QUEUES; i++)
		assert_int_equal(rig->vhost->ops->stop_vring(rig->vhost, i, &base), 0);
	assert_int_equal(rig->vhost->ops->reset(rig->vhost), 0);
}

/* A driver that accepts none has the first driver's flags, and one that does the later one's. */
static void features_decide_what_flags_mean(void **state)
{
	static const uint32_t new[7] = { WL_NEW, 0, 2, 0, 0, 0, 4096 };
	static const uint32_t flagged[7] = { WL_NEW, 0, 3, 3, 0, 0, 4096 };
	struct rig *rig = *state;
	uint64_t features;
	uint32_t length;

	assert_int_equal(rig->vhost->ops->get_features(rig->vhost, &features), 0);
	/* TRANS_FLAGS and SEND_FENCES; not USE_SHMEM (3), nor the bit that nobody has (0). */
	assert_int_equal(features & 0xffffff, 1 << 1 | 1 << 2);
	assert_int_equal(command(rig, flagged, sizeof(new), 64, &length), WL_OK_NEW);
	reset(rig);
	assert_int_equal(
		rig->vhost->ops->set_features(rig->vhost, UINT64_C(1) << WL_F_TRANS_FLAGS), 0);
	start(rig);
	assert_int_equal(command(rig, flagged, sizeof(new), 64, &length), WL_INVALID_FLAGS);
	assert_int_equal(command(rig, new, sizeof(new), 64, &length), WL_OK_NEW);
}

/* A suspended guest finds its connection again, a driver that resets has none. */
static void a_stop_keeps_and_a_reset_drops(void **state)
{
	struct rig *rig = *state;
	int compositor = connect_context(rig);
	uint16_t base[WL_QUEUES];
	uint32_t length;
	uint8_t byte;

	for (unsigned i = 0; i < WL_QUEUES; i++)
		assert_int_equal(rig->vhost->ops->stop_vring(rig->vhost, i, &base[i]), 0);
	start(rig);
	assert_int_equal(
		command(rig, (const uint32_t[]){ WL_SEND, 0, CTX, 0, 5 }, 20, 64, &length), WL_OK);
	assert_int_equal(recv(compositor, &byte, 1, 0), 1);
	reset(rig);
	while (recv(compositor, &byte, 1, 0) > 0)
		;
	start(rig);
	assert_int_equal(command(rig, (const uint32_t[]){ WL_CLOSE, 0, CTX }, 12, 64, &length),
		WL_INVALID_ID);
	close(compositor);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, unmake)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_starved_guest_loses_nothing),
		TEST(a_small_buffer_goes_back_empty),
		TEST(bad_command_buffers_are_given_back),
		TEST(a_command_in_three_pieces),
		TEST(features_decide_what_flags_mean),
		TEST(a_stop_keeps_and_a_reset_drops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
