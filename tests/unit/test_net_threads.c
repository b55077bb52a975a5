// SPDX-License-Identifier: BSD-3-Clause
/*
 * Frames in both directions at random paces, by rings with event indices as
 * Linux drives them: each side tells the other only when it asked for it, so a
 * wake-up that is lost stalls the test. Every frame comes through once; but a
 * stop of a full network may lose those that later ones have overtaken.
 *
 * NET_THREADS_FRAMES=20000000 in the environment makes it a long search.
 */
#define NET_RIG_SIZE 256
#include "unit/unit.h"

#include "unit/net_rig.h"
#include "virtio/net_cable.h"

enum { BUFFER = 1536, FRAMES = 20000, STOP_EVERY = 1500 };
#define BUFFER_SIZE UINT64_C(1536)
#define EVENT_IDX   BIT(VIRTIO_RING_F_EVENT_IDX)

struct traffic {
	struct rig *rig;
	uint32_t frames;
	uint64_t random; /* the network's */
	uint8_t *seen;   /* by sequence number; the receiver's */
	uint32_t received;
	atomic_bool ended; /* all that will come is in the socket */
};

static uint32_t draw(uint64_t *random, uint32_t below)
{
	*random = *random * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (uint32_t)(*random >> 33) % below;
}

/* Now and then, so that both sides run dry and overflow. */
static void dawdle(uint64_t *random)
{
	if (draw(random, 64) != 0)
		return;
	const struct timespec pause = { .tv_nsec = (long)draw(random, 200000) };

	nanosleep(&pause, NULL);
}

static uint32_t frame_count(void)
{
	const char *text = getenv("NET_THREADS_FRAMES");

	return text != NULL ? (uint32_t)strtoul(text, NULL, 10) : FRAMES;
}

static void note(struct traffic *traffic, const uint8_t *frame, uint32_t size)
{
	uint32_t sequence;

	memcpy(&sequence, frame + HEADER, sizeof(sequence));
	if (sequence >= traffic->frames || size != HEADER + FRAME + sequence % 1000)
		fail_msg("frame %u of %u bytes", sequence, size);
	for (uint32_t i = HEADER + sizeof(sequence); i < size; i += 97)
		if (frame[i] != (uint8_t)(sequence + i))
			fail_msg("frame %u: byte %u", sequence, i);
	if (traffic->seen[sequence]++ != 0)
		fail_msg("frame %u came twice", sequence);
	traffic->received++;
}

static uint32_t make(uint8_t *frame, uint32_t sequence)
{
	uint32_t size = HEADER + FRAME + sequence % 1000;

	memset(frame, 0, HEADER);
	for (uint32_t i = HEADER; i < size; i++)
		frame[i] = (uint8_t)(sequence + i);
	memcpy(frame + HEADER, &sequence, sizeof(sequence));
	return size;
}

static void *network_sender(void *argument)
{
	struct traffic *traffic = argument;
	uint8_t frame[BUFFER];

	for (uint32_t i = 0; i < traffic->frames; i++) {
		uint32_t size = make(frame, i);

		dawdle(&traffic->random);
		while (send(traffic->rig->network, frame, size, MSG_DONTWAIT) < 0) {
			struct pollfd wait = { .fd = traffic->rig->network, .events = POLLOUT };

			assert_int_equal(errno, EAGAIN);
			assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
		}
	}
	return NULL;
}

static void *network_receiver(void *argument)
{
	struct traffic *traffic = argument;
	struct pollfd wait = { .fd = traffic->rig->network, .events = POLLIN };
	uint8_t frame[BUFFER];

	for (;;) {
		bool ended = traffic->ended;

		dawdle(&traffic->random);
		ssize_t n = recv(traffic->rig->network, frame, sizeof(frame), MSG_DONTWAIT);

		if (n >= 0)
			note(traffic, frame, (uint32_t)n);
		else if (ended)
			return NULL;
		else
			(void)poll(&wait, 1, 10);
	}
}

/* ---- the driver ---- */

struct ends {
	struct traffic traffic;
	uint64_t random; /* the driver's */
	uint16_t seen;   /* of the used ring */
	uint16_t kicked; /* the available idx of the last look at avail_event */
	pthread_t network;
};

static void tell(struct ends *ends)
{
	struct driver *driver = &ends->traffic.rig->driver;
	uint16_t idx = driver_avail_idx(driver);

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (vring_need_event(driver_avail_event(driver), idx, ends->kicked))
		kick(ends->traffic.rig);
	ends->kicked = idx;
}

/* Waits until the used ring has grown by more than `beyond`. */
static void await_used(struct ends *ends, uint16_t beyond)
{
	struct rig *rig = ends->traffic.rig;
	struct pollfd call = { .fd = rig->queue.call_fd, .events = POLLIN };
	eventfd_t count;

	for (;;) {
		driver_set_used_event(&rig->driver, (uint16_t)(ends->seen + beyond));
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if ((uint16_t)(driver_used_idx(&rig->driver) - ends->seen) > beyond)
			return;
		if (poll(&call, 1, PATIENCE_MS) != 1)
			fail_msg("no call: avail %u, used %u, seen %u, avail_event %u",
				driver_avail_idx(&rig->driver), driver_used_idx(&rig->driver),
				ends->seen, driver_avail_event(&rig->driver));
		(void)eventfd_read(rig->queue.call_fd, &count);
	}
}

/* The driver suspends the queue, which goes on where it was. */
static void stop_and_go(struct rig *rig)
{
	eventfd_t count;

	assert_int_equal(end(rig), 0);
	rig->base = virtqueue_base(&rig->queue.vq);
	assert_int_equal(eventfd_read(rig->queue.stop_fd, &count), 0);
	begin(rig);
}

/* Becomes the other queue of a device. */
static void join_device(struct rig *rig, struct rig *other)
{
	eventfd_t count;

	assert_int_equal(end(rig), 0);
	rig->queue.device = &other->device;
	assert_int_equal(dup2(other->network, rig->network), rig->network);
	assert_int_equal(eventfd_read(rig->queue.stop_fd, &count), 0);
	begin(rig);
}

/* On a device of its own, unless there is another ring whose device it shall be. */
static struct ends *begin_traffic(
	unsigned index, uint64_t features, void *(*network)(void *), struct rig *other)
{
	struct ends *ends = calloc(1, sizeof(*ends));

	assert_non_null(ends);
	ends->random = 1;
	ends->traffic = (struct traffic){
		.rig = new_rig(index, features | EVENT_IDX),
		.frames = frame_count(),
		.random = 2,
		.seen = calloc(frame_count(), 1),
	};
	assert_non_null(ends->traffic.seen);
	if (other != NULL)
		join_device(ends->traffic.rig, other);
	assert_int_equal(pthread_create(&ends->network, NULL, network, &ends->traffic), 0);
	return ends;
}

/* At least so many frames have come through. */
static void end_traffic(struct ends *ends, uint32_t expected)
{
	assert_int_equal(end(ends->traffic.rig), 0);
	ends->traffic.ended = true;
	pthread_join(ends->network, NULL);
	assert_in_range(ends->traffic.received, expected, ends->traffic.frames);
	free_rig(ends->traffic.rig);
	free(ends->traffic.seen);
	free(ends);
}

static void offer_again(struct rig *rig, unsigned index)
{
	driver_put(&rig->driver, index, DRIVER_DATA + index * BUFFER_SIZE, BUFFER,
		VRING_DESC_F_WRITE, 0);
	driver_offer(&rig->driver, (uint16_t)index);
}

static void receive_all(struct ends *ends)
{
	struct rig *rig = ends->traffic.rig;

	for (unsigned i = 0; i < SIZE; i++)
		offer_again(rig, i);
	tell(ends);
	while (ends->traffic.received < ends->traffic.frames) {
		await_used(ends, 0);
		dawdle(&ends->random);
		while (driver_used_idx(&rig->driver) != ends->seen) {
			unsigned id = driver_used_id(&rig->driver, ends->seen);
			uint32_t size = driver_used_length(&rig->driver, ends->seen++);

			if (size > 0) /* else it went back at a stop */
				note(&ends->traffic, data_at(rig, id * BUFFER_SIZE), size);
			offer_again(rig, id);
			/* Some at a time, so that the ring runs low. */
			if (draw(&ends->random, 8) == 0)
				tell(ends);
		}
		tell(ends);
		if (draw(&ends->random, STOP_EVERY) == 0)
			stop_and_go(rig);
	}
}

static void all_frames_are_received(void **state)
{
	static const uint64_t features[] = {
		0,
		BIT(VIRTIO_NET_F_MRG_RXBUF),
		/* Room for the largest is held, and most of it is left over. */
		BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_GUEST_TSO4),
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		struct ends *ends = begin_traffic(RECEIVE, features[i], network_sender, NULL);

		receive_all(ends);
		end_traffic(ends, ends->traffic.frames);
	}
}

/* How many may have been lost. */
static uint32_t send_all(struct ends *ends, bool stops)
{
	struct rig *rig = ends->traffic.rig;
	unsigned free_count = SIZE;
	uint16_t free_ids[SIZE];
	uint32_t may_be_lost = 0;

	for (unsigned i = 0; i < SIZE; i++)
		free_ids[i] = (uint16_t)i;
	for (uint32_t sent = 0; sent < ends->traffic.frames; sent++) {
		dawdle(&ends->random);
		if (free_count == 0) {
			tell(ends);
			/* As enable_cb_delayed(): most of what is in flight shall be done. */
			await_used(ends, (uint16_t)draw(&ends->random, SIZE));
		}
		for (; driver_used_idx(&rig->driver) != ends->seen; ends->seen++)
			free_ids[free_count++] = (uint16_t)driver_used_id(&rig->driver, ends->seen);
		uint16_t id = free_ids[--free_count];
		uint64_t offset = id * BUFFER_SIZE;

		driver_put(&rig->driver, id, DRIVER_DATA + offset, make(data_at(rig, offset), sent),
			0, 0);
		driver_offer(&rig->driver, id);
		if (draw(&ends->random, 8) == 0)
			tell(ends);
		if (stops && draw(&ends->random, STOP_EVERY) == 0) {
			stop_and_go(rig);
			may_be_lost += NET_CABLE_FRAMES_MAX;
		}
	}
	tell(ends);
	await_used(ends, (uint16_t)(SIZE - free_count - 1));
	return may_be_lost;
}

static void all_frames_are_sent(void **state)
{
	(void)state;
	for (unsigned stops = 0; stops < 2; stops++) {
		struct ends *ends = begin_traffic(TRANSMIT, 0, network_receiver, NULL);
		uint32_t may_be_lost = send_all(ends, stops == 1);

		end_traffic(ends, ends->traffic.frames - may_be_lost);
	}
}

struct sending {
	struct ends *ends;
	uint32_t may_be_lost;
};

static void *send_with_stops(void *argument)
{
	struct sending *sending = argument;

	sending->may_be_lost = send_all(sending->ends, true);
	return NULL;
}

/* Each stop makes the other queue's thread serve, or takes back what was lent. */
static void both_directions_share_a_thread(void **state)
{
	struct ends *receiving =
		begin_traffic(RECEIVE, BIT(VIRTIO_NET_F_MRG_RXBUF), network_sender, NULL);
	struct rig *rig = receiving->traffic.rig;
	struct sending sending = { begin_traffic(TRANSMIT, 0, network_receiver, rig), 0 };
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, send_with_stops, &sending), 0);
	receive_all(receiving);
	pthread_join(thread, NULL);
	end_traffic(sending.ends, sending.ends->traffic.frames - sending.may_be_lost);
	end_traffic(receiving, receiving->traffic.frames);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_frames_are_received),
		cmocka_unit_test(all_frames_are_sent),
		cmocka_unit_test(both_directions_share_a_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
