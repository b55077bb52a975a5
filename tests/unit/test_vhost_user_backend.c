// SPDX-License-Identifier: BSD-3-Clause
/*
 * Front ends against the back end: one that does what QEMU does, in any order
 * and while rings run; and hostile ones, with messages cut at every byte, wrong
 * sizes, indexes, descriptors and memory. None costs more than its connection,
 * and no descriptor is lost.
 */
#include "unit/unit.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "unit/vhost_user_front.h"

static void a_front_end_like_qemu_is_served(void **state)
{
	struct rig rig;

	(void)state;
	front_connect(&rig);
	uint64_t features = ask(&rig, front_empty(VHOST_USER_GET_FEATURES), 8).u64;

	assert_int_equal(features & (WANTED | 0x30), WANTED | 0x30);
	assert_int_equal(
		ask(&rig, front_empty(VHOST_USER_GET_PROTOCOL_FEATURES), 8).u64, ALL_PROTOCOL);
	front_greet(&rig);
	assert_int_equal(ask(&rig, front_empty(VHOST_USER_GET_QUEUE_NUM), 8).u64, QUEUES);
	front_place(&rig);
	offer_copy(&rig, 0, 1);
	assert_false(wait_readable(rig.call_fd, 50)); /* not enabled */
	assert_int_equal(front_enable(&rig, 1), 0);
	wait_for_used(&rig, 1);
	assert_true(is_copied(&rig, 0));
	struct vhost_user_message base = ask(&rig, front_state(VHOST_USER_GET_VRING_BASE, 0, 0), 8);

	assert_int_equal(base.state.index, 0);
	assert_int_equal(base.state.num, 1);
	(void)fd_take_event(rig.call_fd);
	offer_copy(&rig, 1, 2);
	assert_false(wait_readable(rig.call_fd, 50)); /* without a new kick descriptor */
	assert_int_equal(try(&rig, front_eventfd(VHOST_USER_SET_VRING_KICK, 0, rig.kick_fd)), 0);
	wait_for_used(&rig, 2);
	assert_int_equal(front_end(&rig), 0);
}

/* Without the feature bit rings begin enabled, and nothing is answered that was not agreed on. */
static void an_old_front_end_is_served(void **state)
{
	struct rig rig;

	(void)state;
	front_connect(&rig);
	struct vhost_user_message features =
		front_u64(VHOST_USER_SET_FEATURES, BIT(VIRTIO_F_VERSION_1));

	features.flags |= VHOST_USER_FLAG_NEED_REPLY; /* means nothing yet */
	put(&rig, front_empty(VHOST_USER_SET_OWNER));
	put(&rig, features);
	put(&rig, front_memory(&rig));
	put(&rig, front_state(VHOST_USER_SET_VRING_NUM, 0, SIZE));
	put(&rig, front_address(0));
	put(&rig, front_eventfd(VHOST_USER_SET_VRING_CALL, 0, rig.call_fd));
	put(&rig, front_eventfd(VHOST_USER_SET_VRING_KICK, 0, rig.kick_fd));
	offer_copy(&rig, 0, 1);
	wait_for_used(&rig, 1);
	assert_int_equal(ask(&rig, front_state(VHOST_USER_GET_VRING_BASE, 0, 0), 8).state.num, 1);
	assert_int_equal(front_end(&rig), 0);
}

/* QEMU masks vectors and moves memory while rings run. The device does not notice. */
static void rings_are_moved_while_they_run(void **state)
{
	struct rig rig;
	int fds[2] = { -1, -1 };
	uint16_t done = 0;

	(void)state;
	front_connect(&rig);
	front_greet(&rig);
	front_place(&rig);
	assert_int_equal(front_enable(&rig, 1), 0);
	fds[0] = rig.call_fd;
	fds[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned i = 0; i < 20; i++) {
		offer_copy(&rig, i % 4, (uint8_t)(i + 1)); /* may be in flight */
		rig.call_fd = fds[i % 2];
		assert_int_equal(
			try(&rig, front_eventfd(VHOST_USER_SET_VRING_CALL, 0, rig.call_fd)), 0);
		assert_int_equal(try(&rig, front_memory(&rig)), 0);
		assert_int_equal(
			try(&rig, front_eventfd(VHOST_USER_SET_VRING_ERR, 0, rig.error_fd)), 0);
		if (driver_used_idx(&rig.driver) == done)
			wait_for_used(&rig, (uint16_t)(done + 1));
		done++;
		offer_copy(&rig, i % 4, (uint8_t)(i + 1));
		wait_for_used(&rig, ++done);
		assert_true(is_copied(&rig, i % 4));
	}
	/* The memory alone, of which nothing may be used that was there before. */
	assert_int_equal(try(&rig, front_memory(&rig)), 0);
	offer_copy(&rig, 0, 99);
	wait_for_used(&rig, ++done);
	assert_true(is_copied(&rig, 0));
	assert_int_equal(rig.device.starts, 1);
	assert_int_equal(rig.device.stops, 0);
	/* Other features are another driver. */
	assert_int_equal(try(&rig, front_u64(VHOST_USER_SET_FEATURES, WANTED | 0x10)), 0);
	assert_int_equal(rig.device.starts, 2);
	assert_int_equal(rig.device.stops, 1);
	offer_copy(&rig, 0, 1);
	wait_for_used(&rig, ++done);
	rig.call_fd = fds[0];
	fd_close(&fds[1]);
	assert_int_equal(front_end(&rig), 0);
}

static void a_disabled_ring_rests_and_goes_on(void **state)
{
	struct rig rig;

	(void)state;
	front_connect(&rig);
	front_greet(&rig);
	front_place(&rig);
	for (uint16_t i = 0; i < 5; i++) {
		offer_copy(&rig, i % 4, (uint8_t)(i + 1));
		assert_false(wait_readable(rig.call_fd, 20));
		assert_int_equal(front_enable(&rig, 1), 0);
		assert_int_equal(front_enable(&rig, 1), 0); /* once more changes nothing */
		wait_for_used(&rig, (uint16_t)(i + 1));
		assert_int_equal(front_enable(&rig, 0), 0);
		(void)fd_take_event(rig.call_fd);
	}
	assert_int_equal(front_end(&rig), 0);
}

static void reset_and_status_end_what_runs(void **state)
{
	struct rig rig;

	(void)state;
	front_connect(&rig);
	for (unsigned round = 1; round <= 4; round++) {
		driver_init(&rig.driver, rig.memory, SIZE);
		front_greet(&rig);
		front_place(&rig);
		assert_int_equal(front_enable(&rig, 1), 0);
		offer_copy(&rig, 0, 1);
		wait_for_used(&rig, 1);
		assert_int_equal(try(&rig, front_u64(VHOST_USER_SET_STATUS, 15)), 0);
		assert_int_equal(ask(&rig, front_empty(VHOST_USER_GET_STATUS), 8).u64, 15);
		assert_int_equal(rig.device.stops, round - 1);
		assert_int_equal(round % 2 == 0 ? try(&rig, front_empty(VHOST_USER_RESET_DEVICE))
						: try(&rig, front_u64(VHOST_USER_SET_STATUS, 0)),
			0);
		assert_int_equal(ask(&rig, front_empty(VHOST_USER_GET_STATUS), 8).u64, 0);
		assert_int_equal(rig.device.stops, round);
		(void)fd_take_event(rig.call_fd);
		offer_copy(&rig, 0, 1);
		assert_int_equal(front_enable(&rig, 1), 0);
		assert_false(wait_readable(rig.call_fd, 20)); /* its place is forgotten */
	}
	assert_int_equal(front_end(&rig), 0);
}

static void the_configuration_space_is_bounded(void **state)
{
	struct rig rig;

	(void)state;
	front_connect(&rig);
	memcpy(rig.device.config, "abcdef", 6);
	front_greet(&rig);
	struct vhost_user_message write = front_config(VHOST_USER_SET_CONFIG, 5, 1);

	write.config.data[0] = 'F';
	assert_int_equal(try(&rig, write), 0);
	struct vhost_user_message read =
		ask(&rig, front_config(VHOST_USER_GET_CONFIG, 1, 5), vhost_user_config_payload(5));

	assert_memory_equal(read.config.data, "bcdeF", 5);
	/* A failure has no payload. */
	(void)ask(&rig, front_config(VHOST_USER_GET_CONFIG, 0, CONFIG_SIZE + CONTROL_SIZE + 1), 0);
	(void)ask(&rig, front_config(VHOST_USER_GET_CONFIG, UINT32_MAX, 2), 0);
	assert_int_not_equal(try(&rig, front_config(VHOST_USER_SET_CONFIG, 6, 1)), 0);
	write.config.flags = VHOST_USER_CONFIG_BY_VMM;
	write.config.offset = CONFIG_SIZE;
	assert_int_equal(try(&rig, write), 0);
	assert_int_equal(rig.device.config[CONFIG_SIZE], 'F');
	write.config.flags = 2; /* nobody */
	assert_int_not_equal(try(&rig, write), 0);
	assert_int_equal(front_end(&rig), 0);
}

/* A driver's mistake, seen when the ring starts: the driver is told, the connection lives. */
static void a_ring_outside_of_memory_is_told_of(void **state)
{
	const uint64_t bad[] = { 0, USER_ADDRESS + LOW_SIZE - 8, USER_ADDRESS + LOW_SIZE,
		USER_ADDRESS - 16, USER_ADDRESS + DRIVER_DESC + 1, UINT64_MAX - 15 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct rig rig;

		front_connect(&rig);
		front_greet(&rig);
		front_place(&rig);
		struct vhost_user_message address = front_address(0);

		address.addr.desc_user_addr = bad[i];
		assert_int_equal(try(&rig, address), 0);
		assert_int_not_equal(front_enable(&rig, 1), 0);
		assert_true(wait_readable(rig.error_fd, 0));
		assert_int_equal(try(&rig, front_address(0)), 0);
		offer_copy(&rig, 0, 1);
		wait_for_used(&rig, 1);
		assert_int_equal(front_end(&rig), 0);
	}
}

static void what_cannot_be_done_is_refused(void **state)
{
	struct rig rig;

	(void)state;
	front_connect(&rig);
	front_greet(&rig);
	struct vhost_user_message log = front_address(0);

	log.addr.flags = 1;
	struct vhost_user_message no_kick =
		front_u64(VHOST_USER_SET_VRING_KICK, VHOST_USER_VRING_NO_FD);
	const struct vhost_user_message refused[] = {
		front_u64(VHOST_USER_SET_FEATURES, BIT(VIRTIO_F_RING_PACKED)),
		front_u64(VHOST_USER_SET_PROTOCOL_FEATURES, BIT(1)),
		front_state(VHOST_USER_SET_VRING_NUM, 0, 0),
		front_state(VHOST_USER_SET_VRING_NUM, 0, VIRTQUEUE_SIZE_MAX + 1),
		front_state(VHOST_USER_SET_VRING_NUM, 0, 65536 + SIZE),
		front_state(VHOST_USER_SET_VRING_BASE, 0, 65536),
		front_state(VHOST_USER_SET_VRING_ENABLE, 0, 2),
		front_state(VHOST_USER_SET_VRING_NUM, QUEUES, SIZE),
		front_state(VHOST_USER_SET_VRING_BASE, QUEUES, 0),
		front_state(VHOST_USER_SET_VRING_ENABLE, UINT32_MAX, 1),
		front_address(QUEUES),
		front_address(UINT32_MAX),
		front_eventfd(VHOST_USER_SET_VRING_KICK, QUEUES, rig.kick_fd),
		front_eventfd(VHOST_USER_SET_VRING_CALL, 255, rig.call_fd),
		front_eventfd(VHOST_USER_SET_VRING_ERR, QUEUES, rig.error_fd),
		front_eventfd(VHOST_USER_SET_VRING_CALL, 1u << 9, rig.call_fd),
		front_u64(VHOST_USER_SET_STATUS, 256),
		log,
		no_kick,
	};

	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (try(&rig, refused[i]) == 0)
			fail_msg("%zu is taken", i);
	front_place(&rig); /* and all still works */
	assert_int_equal(front_enable(&rig, 1), 0);
	offer_copy(&rig, 0, 1);
	wait_for_used(&rig, 1);
	assert_int_equal(front_end(&rig), 0);
	/* Where no answer is asked for, the connection's end is one. */
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		struct rig other;

		front_connect(&other);
		front_greet(&other);
		struct vhost_user_message message = refused[i];

		if (message.fd_count > 0)
			message.fds[0] = other.kick_fd;
		put(&other, message);
		assert_true(front_end(&other) < 0);
	}
}

struct bad_table {
	struct vhost_user_region change; /* added to region 1 */
	const char *file;                /* instead of the memfd */
	int flags;
};

static const struct bad_table bad_tables[] = {
	{ .change.size = 1 },
	{ .change.size = 4096 },                    /* beyond the file */
	{ .change.size = UINT64_C(0) - HIGH_SIZE }, /* empty */
	{ .change.size = UINT64_C(1) << 62 },
	{ .change.gpa = 1 },
	{ .change.gpa = UINT64_MAX - HIGH_GPA - 4095 }, /* wraps */
	{ .change.gpa = UINT64_C(0) - HIGH_GPA },       /* on region 0 */
	{ .change.gpa = LOW_SIZE - 4096 - HIGH_GPA },   /* its last page */
	{ .change.offset = 1 },
	{ .change.offset = 4096 },
	{ .change.offset = UINT64_MAX - LOW_SIZE - 4095 },
	{ .change.user_address = UINT64_MAX - USER_ADDRESS - HIGH_GPA - 4095 },
	{ .file = "/dev/zero", .flags = O_RDWR },
	{ .file = "/", .flags = O_RDONLY | O_DIRECTORY },
	{ .file = "/proc/self/exe", .flags = O_RDONLY },
	{ .file = "/proc/self/status", .flags = O_RDONLY },
};

static void bad_memory_is_refused(void **state)
{
	struct rig rig;

	(void)state;
	front_connect(&rig);
	front_greet(&rig);
	front_place(&rig);
	assert_int_equal(front_enable(&rig, 1), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad_tables); i++) {
		struct vhost_user_message message = front_memory(&rig);
		struct vhost_user_region *region = &message.memory.regions[1];

		region->gpa += bad_tables[i].change.gpa;
		region->size += bad_tables[i].change.size;
		region->user_address += bad_tables[i].change.user_address;
		region->offset += bad_tables[i].change.offset;
		const char *file = bad_tables[i].file;
		CLEANUP_FD int fd = file != NULL ? open(file, bad_tables[i].flags | O_CLOEXEC) : -1;

		assert_true((fd >= 0) == (file != NULL));
		if (fd >= 0)
			message.fds[1] = fd;
		if (try(&rig, message) == 0)
			fail_msg("table %zu is taken", i);
	}
	struct vhost_user_message none = front_empty(VHOST_USER_SET_MEM_TABLE);

	none.size = vhost_user_memory_payload(0);
	assert_int_not_equal(try(&rig, none), 0);
	offer_copy(&rig, 0, 1); /* the old one is still there */
	wait_for_used(&rig, 1);
	assert_int_equal(front_end(&rig), 0);
}

/* One good message of each request. */
static unsigned good_messages(const struct rig *rig, struct vhost_user_message messages[32])
{
	const struct vhost_user_message all[] = {
		front_empty(VHOST_USER_GET_FEATURES),
		front_u64(VHOST_USER_SET_FEATURES, WANTED),
		front_empty(VHOST_USER_SET_OWNER),
		front_empty(VHOST_USER_RESET_OWNER),
		front_memory(rig),
		front_state(VHOST_USER_SET_VRING_NUM, 1, SIZE),
		front_address(1),
		front_state(VHOST_USER_SET_VRING_BASE, 1, 0),
		front_state(VHOST_USER_GET_VRING_BASE, 1, 0),
		front_eventfd(VHOST_USER_SET_VRING_KICK, 1, rig->kick_fd),
		front_eventfd(VHOST_USER_SET_VRING_CALL, 1, rig->call_fd),
		front_eventfd(VHOST_USER_SET_VRING_ERR, 1, rig->error_fd),
		front_empty(VHOST_USER_GET_PROTOCOL_FEATURES),
		front_u64(VHOST_USER_SET_PROTOCOL_FEATURES, ALL_PROTOCOL),
		front_empty(VHOST_USER_GET_QUEUE_NUM),
		front_state(VHOST_USER_SET_VRING_ENABLE, 1, 1),
		front_config(VHOST_USER_GET_CONFIG, 0, 4),
		front_config(VHOST_USER_SET_CONFIG, 0, 4),
		front_empty(VHOST_USER_RESET_DEVICE),
		front_u64(VHOST_USER_SET_STATUS, 1),
		front_empty(VHOST_USER_GET_STATUS),
	};

	memcpy(messages, all, sizeof(all));
	return ARRAY_SIZE(all);
}

/* Sends the first bytes of a message, with its descriptors. What it says of its size may be a lie.
 */
static void put_cut(struct rig *rig, const struct vhost_user_message *message, size_t size)
{
	char bytes[sizeof(*message)];
	char control[CMSG_SPACE(sizeof(message->fds))] __attribute__((aligned(8))) = { 0 };
	size_t fds_size = message->fd_count * sizeof(int);
	struct iovec iov = { bytes, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	memcpy(bytes, &message->request, 12);
	memcpy(bytes + 12, &message->u64, size > 12 ? size - 12 : 0);
	if (fds_size > 0) {
		struct cmsghdr *header = (struct cmsghdr *)(void *)control;

		*header = (struct cmsghdr){ CMSG_LEN(fds_size), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(header), message->fds, fds_size);
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(fds_size);
	}
	assert_int_equal(sendmsg(rig->socket, &msg, MSG_NOSIGNAL), size);
}

static void every_message_cut_at_every_byte(void **state)
{
	struct vhost_user_message messages[32] = { 0 };
	unsigned count = 1;

	(void)state;
	for (unsigned i = 0; i < count; i++) {
		for (size_t size = 1; size < 12 + messages[i].size || size == 1; size++) {
			struct rig rig;

			front_connect(&rig);
			front_greet(&rig);
			count = good_messages(&rig, messages);
			put_cut(&rig, &messages[i], size);
			if (front_end(&rig) != -EPROTO)
				fail_msg("request %u cut at %zu", messages[i].request, size);
		}
	}
	assert_int_equal(count, 21);
}

/* What is wrong with a header, or with the descriptors. */
enum fault {
	FAULT_SIZE_LESS,
	FAULT_SIZE_MORE,
	FAULT_SIZE_HUGE,
	FAULT_VERSION_0,
	FAULT_VERSION_2,
	FAULT_REPLY,
	FAULT_UNKNOWN_FLAG,
	FAULT_FD_LESS,
	FAULT_FD_MORE,
	FAULTS,
};

/* False when this message cannot have this fault. */
static bool spoil(struct vhost_user_message *message, enum fault fault)
{
	switch (fault) {
	case FAULT_SIZE_LESS:
		if (message->size == 0)
			return false;
		message->size--;
		break;
	case FAULT_SIZE_MORE:
		message->size++;
		break;
	case FAULT_SIZE_HUGE:
		message->size = UINT32_MAX;
		break;
	case FAULT_VERSION_0:
		message->flags &= ~3u;
		break;
	case FAULT_VERSION_2:
		message->flags = 2;
		break;
	case FAULT_REPLY:
		message->flags |= VHOST_USER_FLAG_REPLY;
		break;
	case FAULT_UNKNOWN_FLAG:
		message->flags |= 1u << 31;
		break;
	case FAULT_FD_LESS:
		if (message->fd_count == 0)
			return false;
		message->fd_count--;
		break;
	case FAULT_FD_MORE:
		message->fds[message->fd_count] = STDERR_FILENO;
		message->fd_count++;
		break;
	case FAULTS:
		break;
	}
	return true;
}

static void every_fault_of_form_is_the_end(void **state)
{
	struct vhost_user_message messages[32] = { 0 };
	unsigned count = 1;

	(void)state;
	for (unsigned i = 0; i < count; i++) {
		for (enum fault fault = 0; fault < FAULTS; fault++) {
			struct rig rig;

			front_connect(&rig);
			front_greet(&rig);
			count = good_messages(&rig, messages);
			struct vhost_user_message message = messages[i];
			bool spoilt = spoil(&message, fault);

			if (spoilt)
				put_cut(&rig, &message, 12 + min_u64(message.size, 200));
			int r = front_end(&rig);

			if (r != (spoilt ? -EPROTO : 0))
				fail_msg(
					"request %u, fault %d: %d", message.request, (int)fault, r);
		}
	}
}

static void requests_that_are_none(void **state)
{
	const uint32_t unknown[] = { 0, 6, 7, 19, 20, 21, 22, 23, 26, 31, 32, 33, 35, 36, 37, 38,
		VHOST_USER_REQUESTS, 0xffffffff };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
		struct rig rig;

		front_connect(&rig);
		front_greet(&rig);
		put(&rig, front_u64(unknown[i], 0));
		assert_int_equal(front_end(&rig), -EPROTO);
	}
}

/* A request of a protocol feature that was not agreed on. */
static void requests_out_of_order(void **state)
{
	const struct vhost_user_message early[] = {
		front_empty(VHOST_USER_GET_QUEUE_NUM),
		front_config(VHOST_USER_GET_CONFIG, 0, 1),
		front_config(VHOST_USER_SET_CONFIG, 0, 1),
		front_empty(VHOST_USER_RESET_DEVICE),
		front_u64(VHOST_USER_SET_STATUS, 0),
		front_empty(VHOST_USER_GET_STATUS),
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(early); i++) {
		struct rig rig;

		front_connect(&rig);
		put(&rig, early[i]);
		assert_int_equal(front_end(&rig), -EPROTO);
	}
}

/* More descriptors than a message can have: the kernel drops the rest and says so. */
static void a_truckload_of_descriptors(void **state)
{
	struct rig rig;
	char control[CMSG_SPACE(253 * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct vhost_user_message message = front_empty(VHOST_USER_SET_OWNER);
	struct iovec iov = { &message.request, 12 };
	const struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&msg);

	(void)state;
	*header = (struct cmsghdr){ CMSG_LEN(253 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	front_connect(&rig);
	for (unsigned i = 0; i < 253; i++)
		memcpy(CMSG_DATA(header) + i * sizeof(int), &rig.kick_fd, sizeof(int));
	assert_int_equal(sendmsg(rig.socket, &msg, 0), 12);
	assert_int_equal(front_end(&rig), -EPROTO);
}

/* A table of eight regions, with so many descriptors. */
static void send_regions(struct rig *rig, unsigned fd_count)
{
	enum { REGIONS = VHOST_USER_REGIONS_MAX, ALL = REGIONS + 1 };
	char control[CMSG_SPACE(ALL * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct vhost_user_message message = front_empty(VHOST_USER_SET_MEM_TABLE);
	const int memory = guest_memory_fd(rig->memory);

	message.size = vhost_user_memory_payload(REGIONS);
	message.memory.count = REGIONS;
	for (unsigned i = 0; i < REGIONS; i++)
		message.memory.regions[i] = (struct vhost_user_region){
			.gpa = i * 4096, .size = 4096, .user_address = i * 4096
		};
	struct iovec iov[] = { { &message.request, 12 }, { &message.u64, message.size } };
	const struct msghdr msg = { .msg_iov = iov,
		.msg_iovlen = 2,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(fd_count * sizeof(int)) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&msg);

	*header = (struct cmsghdr){ CMSG_LEN(fd_count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	for (unsigned i = 0; i < fd_count; i++)
		memcpy(CMSG_DATA(header) + i * sizeof(int), &memory, sizeof(int));
	assert_int_equal(sendmsg(rig->socket, &msg, 0), 12 + message.size);
}

/* A ninth the kernel leaves out, and says so. */
static void one_descriptor_too_many(void **state)
{
	struct rig rig;

	(void)state;
	front_connect(&rig);
	send_regions(&rig, VHOST_USER_REGIONS_MAX);
	assert_int_equal(front_end(&rig), 0);
	front_connect(&rig);
	send_regions(&rig, VHOST_USER_REGIONS_MAX + 1);
	assert_int_equal(front_end(&rig), -EPROTO);
}

/* Descriptors that come beside each single byte of one message. */
static void descriptors_in_portions(void **state)
{
	struct rig rig;

	(void)state;
	front_connect(&rig);
	struct vhost_user_message message = front_memory(&rig);
	struct vhost_user_message piece = message;

	for (unsigned i = 0; i < 12; i++) {
		char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = { 0 };
		struct iovec iov = { (char *)&piece.request + i, 1 };
		const struct msghdr msg = { .msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control) };
		struct cmsghdr *header = CMSG_FIRSTHDR(&msg);

		*header = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(header), &rig.kick_fd, sizeof(int));
		if (sendmsg(rig.socket, &msg, MSG_NOSIGNAL) < 0)
			break; /* it has had enough */
	}
	assert_int_equal(front_end(&rig), -EPROTO);
}

/* Descriptors of the wrong kind do no harm beyond a ring that does not work. */
static void strange_kick_descriptors(void **state)
{
	struct rig rig;

	(void)state;
	front_connect(&rig);
	front_greet(&rig);
	front_place(&rig);
	assert_int_equal(front_enable(&rig, 1), 0);
	CLEANUP_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	CLEANUP_FD int blocking = eventfd(0, EFD_CLOEXEC);
	const int strange[] = { null, guest_memory_fd(rig.memory), blocking };

	for (size_t i = 0; i < ARRAY_SIZE(strange); i++) {
		assert_int_equal(
			try(&rig, front_eventfd(VHOST_USER_SET_VRING_KICK, 0, strange[i])), 0);
		assert_int_equal(try(&rig, front_eventfd(VHOST_USER_SET_VRING_CALL, 0, null)), 0);
	}
	fd_close(&null);
	fd_close(&blocking);
	assert_int_equal(front_end(&rig), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_front_end_like_qemu_is_served),
		cmocka_unit_test(an_old_front_end_is_served),
		cmocka_unit_test(rings_are_moved_while_they_run),
		cmocka_unit_test(a_disabled_ring_rests_and_goes_on),
		cmocka_unit_test(reset_and_status_end_what_runs),
		cmocka_unit_test(the_configuration_space_is_bounded),
		cmocka_unit_test(a_ring_outside_of_memory_is_told_of),
		cmocka_unit_test(what_cannot_be_done_is_refused),
		cmocka_unit_test(bad_memory_is_refused),
		cmocka_unit_test(every_message_cut_at_every_byte),
		cmocka_unit_test(every_fault_of_form_is_the_end),
		cmocka_unit_test(requests_that_are_none),
		cmocka_unit_test(requests_out_of_order),
		cmocka_unit_test(a_truckload_of_descriptors),
		cmocka_unit_test(one_descriptor_too_many),
		cmocka_unit_test(descriptors_in_portions),
		cmocka_unit_test(strange_kick_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
