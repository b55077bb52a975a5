// SPDX-License-Identifier: BSD-3-Clause
/*
 * A device's window (virtio/window.h) across vhost-user: the front end gives a
 * channel and says where the window is, the device asks by it; and front ends
 * that give none, two, or one before it was agreed on.
 */
#include "unit/unit.h"

#include <fcntl.h>

#include "unit/vhost_user_front.h"
#include "virtio/window_channel.h"

enum { WINDOW_SIZE = 1 << 20, CONFIG_OF_ALL = CONFIG_SIZE + (int)sizeof(uint64_t) };
#define WINDOW_GPA UINT64_C(0x4000000000)
#define WITH_WINDOW                                                                                \
	(ALL_PROTOCOL | BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |                                   \
		BIT(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD) | BIT(VHOST_USER_PROTOCOL_F_SHMEM))

/* What the device, the one of a test, was given. */
static const struct window *_Atomic given;
static atomic_uint checks; /* done: a socket orders them too, but ThreadSanitizer does not see it */
static atomic_uint times_given;
static _Atomic uint64_t told_gpa;

static void take_window(struct device *device, const struct window *window)
{
	(void)device;
	(void)atomic_load(&checks);
	given = window;
	times_given++;
}

static void read_nothing(struct device *device, uint32_t offset, uint8_t *data, uint32_t size)
{
	(void)device, (void)offset;
	memset(data, 0, size);
}

static int take_gpa(struct device *device, uint32_t offset, const uint8_t *data, uint32_t size)
{
	uint64_t gpa;

	(void)device;
	if (offset != CONFIG_SIZE || size != sizeof(gpa))
		return -EINVAL;
	memcpy(&gpa, data, sizeof(gpa));
	told_gpa = gpa;
	return 0;
}

static struct device_ops ops;

static void serve_device(struct rig *rig)
{
	rig_init(rig);
	given = NULL;
	times_given = 0;
	told_gpa = 0;
	ops = copier_ops;
	ops.window_size = WINDOW_SIZE;
	ops.control_size = sizeof(told_gpa);
	ops.config_read = read_nothing;
	ops.config_change = take_gpa;
	ops.set_window = take_window;
	rig_serve(rig, &ops);
}

/* ---- the VMM's side of the window: it remembers what it was asked ---- */

struct asked {
	_Atomic uint64_t offset, size;
	atomic_bool writable;
	atomic_int result; /* to say */
};

static int note(struct asked *asked, uint64_t offset, uint64_t size, bool writable)
{
	asked->offset = offset;
	asked->size = size;
	asked->writable = writable;
	return asked->result;
}

static int note_map(void *owner, uint64_t offset, uint64_t size, int fd, bool writable)
{
	return fcntl(fd, F_GETFD) == FD_CLOEXEC ? note(owner, offset, size, writable) : -EBADF;
}

static int note_unmap(void *owner, uint64_t offset, uint64_t size)
{
	return note(owner, offset, size, false);
}

static const struct window_ops note_ops = { .map = note_map, .unmap = note_unmap };

struct window_server {
	struct window window;
	struct asked asked;
	int ends[2];
	int result;
	pthread_t thread;
};

static void *serve_window(void *argument)
{
	struct window_server *server = argument;

	server->result = window_channel_serve(server->ends[0], &server->window);
	return NULL;
}

static void start_window(struct window_server *server)
{
	*server = (struct window_server){
		.window = { &note_ops, &server->asked, WINDOW_GPA, WINDOW_SIZE, -1 },
	};
	make_sockets(&server->ends[0], &server->ends[1]);
	server->window.fd = server->ends[1];
	assert_int_equal(pthread_create(&server->thread, NULL, serve_window, server), 0);
}

/* As the VMM does it, whose copy of the device's end closes once it was sent. */
static void give_to(struct window_server *server, struct vhost *vhost)
{
	assert_int_equal(vhost->ops->set_window(vhost, &server->window), 0);
	fd_close(&server->ends[1]);
	for (unsigned ms = 0; told_gpa == 0 && ms < 20000; ms++)
		(void)poll(NULL, 0, 1);
}

/* After the device is gone, or has been told that there is no window. */
static void end_window(struct window_server *server)
{
	fd_close(&server->ends[1]);
	pthread_join(server->thread, NULL);
	assert_int_equal(server->result, 0);
	fd_close(&server->ends[0]);
}

static struct vhost *connect_front(struct rig *rig, const struct vhost_user_offer *known)
{
	const struct vhost_user_peer peer = {
		.name = "copier",
		.socket = fd_steal(&rig->socket),
		.queue_size = SIZE,
		.config_size = CONFIG_SIZE,
		.control_size = sizeof(told_gpa),
		.has_window = true,
		.queues = QUEUES,
		.known = known,
	};
	struct vhost *vhost;

	assert_int_equal(vhost_user_frontend_create(&peer, rig->memory, &vhost), 0);
	return vhost;
}

static void check_window(struct window_server *server)
{
	const struct window *window = given;
	struct asked *asked = &server->asked;

	assert_non_null(window);
	assert_int_equal(window->size, WINDOW_SIZE);
	assert_int_equal(told_gpa, WINDOW_GPA);
	assert_int_equal(window->ops->map(window->owner, 0x3000, 0x2000, STDERR_FILENO, true), 0);
	assert_true(asked->offset == 0x3000 && asked->size == 0x2000 && asked->writable);
	asked->result = -ENOSPC;
	assert_int_equal(
		window->ops->map(window->owner, 0x5000, 0x1000, STDERR_FILENO, false), -ENOSPC);
	assert_true(asked->offset == 0x5000 && asked->size == 0x1000 && !asked->writable);
	asked->result = 0;
	assert_int_equal(window->ops->unmap(window->owner, 0x3000, 0x2000), 0);
	assert_true(asked->offset == 0x3000 && asked->size == 0x2000);
	checks++;
}

/* One that is asked what it offers, and one of which that is known. */
static void a_device_asks_by_the_channel(void **state)
{
	static const uint8_t config[CONFIG_OF_ALL] = { 0 };
	static const struct vhost_user_offer known = { WANTED | 0x30, config };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct rig rig;
		struct window_server server;

		serve_device(&rig);
		struct vhost *vhost = connect_front(&rig, i == 0 ? NULL : &known);

		start_window(&server);
		give_to(&server, vhost);
		check_window(&server);
		vhost->ops->free(vhost);
		assert_int_equal(end_serving(&rig.served), 0);
		assert_null(given); /* what it points to is gone */
		end_window(&server);
		rig_free(&rig);
	}
}

/* The size of the one that there is, and nothing that nobody agreed on. */
static void the_device_tells_of_its_window(void **state)
{
	struct rig rig;

	(void)state;
	serve_device(&rig);
	assert_int_equal(
		ask(&rig, front_empty(VHOST_USER_GET_PROTOCOL_FEATURES), 8).u64, WITH_WINDOW);
	put(&rig, front_u64(VHOST_USER_SET_PROTOCOL_FEATURES, WITH_WINDOW));
	const struct vhost_user_windows windows =
		ask(&rig, front_empty(VHOST_USER_GET_SHMEM_CONFIG), sizeof(windows)).windows;

	assert_int_equal(windows.count, 1);
	assert_int_equal(windows.sizes[0], WINDOW_SIZE);
	for (unsigned i = 1; i < VHOST_USER_WINDOWS_MAX; i++)
		assert_int_equal(windows.sizes[i], 0);
	assert_int_equal(front_end(&rig), 0);
}

static struct vhost_user_message channel_message(int fd)
{
	struct vhost_user_message message = front_empty(VHOST_USER_SET_BACKEND_REQ_FD);

	message.fd_count = 1;
	message.fds[0] = fd;
	return message;
}

/* An older front end gives a channel to whoever can have one, and serves nothing of this. */
static void a_channel_for_something_else_is_left_alone(void **state)
{
	static const uint64_t missing[] = { BIT(VHOST_USER_PROTOCOL_F_SHMEM),
		BIT(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD), BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(missing); i++) {
		struct rig rig;

		serve_device(&rig);
		put(&rig, front_u64(VHOST_USER_SET_PROTOCOL_FEATURES, WITH_WINDOW & ~missing[i]));
		put(&rig, channel_message(rig.call_fd));
		assert_int_equal(ask(&rig, front_empty(VHOST_USER_GET_QUEUE_NUM), 8).u64, QUEUES);
		assert_int_equal(times_given, 0);
		assert_int_equal(front_end(&rig), 0);
	}
}

/* One that agreed to windows alone is told of them. */
static void who_only_asks_is_told(void **state)
{
	struct rig rig;

	(void)state;
	serve_device(&rig);
	put(&rig, front_u64(VHOST_USER_SET_PROTOCOL_FEATURES, BIT(VHOST_USER_PROTOCOL_F_SHMEM)));
	assert_int_equal(ask(&rig, front_empty(VHOST_USER_GET_SHMEM_CONFIG),
				 sizeof(struct vhost_user_windows))
				 .windows.count,
		1);
	assert_int_equal(front_end(&rig), 0);
}

static void without_agreement_there_is_none(void **state)
{
	static const uint32_t requests[] = { VHOST_USER_GET_SHMEM_CONFIG,
		VHOST_USER_SET_BACKEND_REQ_FD };

	(void)state;
	for (unsigned has_window = 0; has_window < 2; has_window++)
		for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
			struct rig rig;
			struct vhost_user_message message = front_empty(requests[i]);

			if (has_window)
				serve_device(&rig);
			else
				front_connect(&rig);
			put(&rig, front_u64(VHOST_USER_SET_PROTOCOL_FEATURES, ALL_PROTOCOL));
			message.fd_count = requests[i] == VHOST_USER_SET_BACKEND_REQ_FD;
			message.fds[0] = rig.call_fd;
			put(&rig, message);
			assert_int_equal(front_end(&rig), -EPROTO);
			assert_null(given);
		}
	struct rig rig;

	front_connect(&rig); /* the plain device does not offer it */
	assert_int_equal(
		ask(&rig, front_empty(VHOST_USER_GET_PROTOCOL_FEATURES), 8).u64, ALL_PROTOCOL);
	put(&rig, front_u64(VHOST_USER_SET_PROTOCOL_FEATURES, WITH_WINDOW));
	assert_int_equal(front_end(&rig), -EINVAL);
}

/* A second channel is refused, the first goes on; the device sees it while no ring runs. */
static void there_is_one_channel(void **state)
{
	struct rig rig;
	struct window_server server;
	struct vhost_user_message place =
		front_config(VHOST_USER_SET_CONFIG, CONFIG_SIZE, sizeof(told_gpa));
	const uint64_t gpa = WINDOW_GPA;

	(void)state;
	serve_device(&rig);
	start_window(&server);
	front_greet(&rig);
	put(&rig, front_u64(VHOST_USER_SET_PROTOCOL_FEATURES, WITH_WINDOW));
	front_place(&rig);
	assert_int_equal(front_enable(&rig, 1), 0);
	assert_int_equal(try(&rig, channel_message(server.ends[1])), 0);
	fd_close(&server.ends[1]);
	place.config.flags = VHOST_USER_CONFIG_BY_VMM;
	memcpy(place.config.data, &gpa, sizeof(gpa));
	assert_int_equal(try(&rig, place), 0);
	assert_int_equal(try(&rig, channel_message(rig.call_fd)), EBUSY);
	assert_int_equal(times_given, 1);
	check_window(&server);
	offer_copy(&rig, 0, 1); /* the ring runs */
	wait_for_used(&rig, 1);
	fd_close(&rig.socket);
	assert_int_equal(end_serving(&rig.served), 0);
	end_window(&server);
	rig_free(&rig);
}

/* The device asks in its queue's thread. */
static uint32_t map_something(struct device *device, const struct virtqueue_chain *chain)
{
	const struct window *window = given;

	(void)chain;
	device->served++;
	return window->ops->map(window->owner, 0, 0x1000, STDERR_FILENO, true) < 0 ? 0 : 1;
}

static int serve_mapping(struct device_queue *queue)
{
	return device_serve_chains(queue, map_something);
}

static void give_channel(struct rig *rig, int fd)
{
	put(rig, front_u64(VHOST_USER_SET_PROTOCOL_FEATURES, WITH_WINDOW));
	assert_int_equal(try(rig, channel_message(fd)), 0);
}

/* A front end that goes, whose channel somebody still has and nobody serves. */
static void who_is_gone_is_not_waited_for(void **state)
{
	struct rig rig;
	int ends[2];

	(void)state;
	serve_device(&rig);
	make_sockets(&ends[0], &ends[1]);
	ops.serve = serve_mapping;
	front_greet(&rig);
	give_channel(&rig, ends[1]);
	front_place(&rig);
	assert_int_equal(front_enable(&rig, 1), 0);
	offer_copy(&rig, 0, 1);
	assert_true(wait_readable(ends[0], 20000)); /* the request, which gets no answer */
	fd_close(&rig.socket);
	assert_int_equal(end_serving(&rig.served), 0);
	assert_int_equal(rig.device.served, 1);
	fd_close(&ends[0]);
	fd_close(&ends[1]);
	rig_free(&rig);
}

/* What is no socket, or not that of a front end, costs the device its memory and nothing else. */
static void strange_channels(void **state)
{
	int ends[2], packets[2], event = eventfd(0, EFD_CLOEXEC);

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, packets), 0);
	const int channels[] = { ends[0], ends[1], event, packets[0] };

	fd_close(&packets[1]);
	for (size_t i = 0; i < ARRAY_SIZE(channels); i++) {
		struct rig rig;

		serve_device(&rig);
		ops.serve = serve_mapping;
		front_greet(&rig);
		give_channel(&rig, channels[i]);
		front_place(&rig);
		assert_int_equal(front_enable(&rig, 1), 0);
		offer_copy(&rig, 0, 1);
		wait_for_used(&rig, 1);
		assert_int_equal(front_end(&rig), 0);
	}
	fd_close(&ends[0]);
	fd_close(&ends[1]);
	fd_close(&packets[0]);
	fd_close(&event);
}

/* Each with a channel of its own. */
static void one_front_end_after_the_other(void **state)
{
	struct rig rig;

	(void)state;
	serve_device(&rig);
	for (unsigned i = 0; i < 3; i++) {
		struct window_server server;
		struct vhost *vhost = connect_front(&rig, NULL);

		start_window(&server);
		told_gpa = 0;
		give_to(&server, vhost);
		check_window(&server);
		vhost->ops->free(vhost);
		pthread_join(rig.served.thread, NULL);
		assert_null(given);
		end_window(&server);
		if (i == 2)
			break;
		make_sockets(&rig.socket, &rig.served.socket);
		start_serving(&rig.served);
	}
	rig.served.vhost->ops->free(rig.served.vhost);
	rig_free(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_asks_by_the_channel),
		cmocka_unit_test(the_device_tells_of_its_window),
		cmocka_unit_test(a_channel_for_something_else_is_left_alone),
		cmocka_unit_test(who_only_asks_is_told),
		cmocka_unit_test(without_agreement_there_is_none),
		cmocka_unit_test(there_is_one_channel),
		cmocka_unit_test(who_is_gone_is_not_waited_for),
		cmocka_unit_test(strange_channels),
		cmocka_unit_test(one_front_end_after_the_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
