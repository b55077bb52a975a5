// SPDX-License-Identifier: BSD-3-Clause
/*
 * The window in which a device shows files to the guest: each mapping is a
 * memory slot, slots are used again, and a device that asks for what it must
 * not have gets nothing, also when it asks from another process. KVM is a fake
 * that remembers slots.
 */
#include "unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "unit/count_entries.h"
#include "virtio/vhost_user_message.h"
#include "virtio/window_channel.h"
#include "vm/window.h"

enum { FIRST_SLOT = 3, SLOTS = FIRST_SLOT + VM_WINDOW_MAPPINGS_MAX };
#define GPA  UINT64_C(0x4000000000)
#define SIZE (16 * GIB)

static struct {
	uint64_t gpa, size;
	bool writable;
	const uint8_t *hva;
} slots[SLOTS];
static unsigned used_slots;
static int kvm_says;
static int kvm_says_of_removal;

static int set_slot(unsigned slot, uint64_t gpa, uint64_t size, const void *hva, bool writable)
{
	assert_in_range(slot, FIRST_SLOT, SLOTS - 1);
	if (kvm_says < 0 && size > 0)
		return kvm_says;
	if (kvm_says_of_removal < 0 && size == 0)
		return kvm_says_of_removal;
	assert_true((slots[slot].size == 0) == (size > 0));
	used_slots += size > 0 ? 1u : -1u;
	slots[slot].gpa = gpa;
	slots[slot].size = size;
	slots[slot].writable = writable;
	slots[slot].hva = hva;
	return 0;
}

int kvm_machine_add_memory(
	const struct kvm_machine *machine, unsigned slot, uint64_t gpa, uint64_t size, void *hva)
{
	(void)machine;
	return set_slot(slot, gpa, size, hva, true);
}

int kvm_machine_add_readonly_memory(
	const struct kvm_machine *machine, unsigned slot, uint64_t gpa, uint64_t size, void *hva)
{
	(void)machine;
	return set_slot(slot, gpa, size, hva, false);
}

static int file_of(size_t size, unsigned flags, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int make(void **state)
{
	static const struct kvm_machine machine = { .fd = -1 };

	kvm_says = 0;
	return vm_window_create(&machine, FIRST_SLOT, GPA, SIZE, (struct vm_window **)state);
}

static int unmake(void **state)
{
	assert_true(vm_window_free(*state));
	return used_slots == 0 ? 0 : -1;
}

static int map(const struct vm_window *window, uint64_t offset, uint64_t size, int fd, bool write)
{
	const struct window *w = vm_window_get(window);

	return w->ops->map(w->owner, offset, size, fd, write);
}

static int unmap(const struct vm_window *window, uint64_t offset, uint64_t size)
{
	const struct window *w = vm_window_get(window);

	return w->ops->unmap(w->owner, offset, size);
}

static void a_file_is_a_slot(void **state)
{
	int fd = file_of(8192, 0, F_SEAL_SHRINK);
	uint8_t byte = 7;

	assert_int_equal(map(*state, 0x10000, 8192, fd, true), 0);
	assert_int_equal(slots[FIRST_SLOT].gpa, GPA + 0x10000);
	assert_int_equal(slots[FIRST_SLOT].size, 8192);
	assert_true(slots[FIRST_SLOT].writable);
	assert_int_equal(pwrite(fd, &byte, 1, 8191), 1);
	assert_int_equal(slots[FIRST_SLOT].hva[8191], 7);
	assert_int_equal(map(*state, 0x20000, 4096, fd, false), 0);
	assert_false(slots[FIRST_SLOT + 1].writable);
	/* What is left when the window goes, goes with it: unmake(). */
	close(fd);
}

static void slots_are_used_again(void **state)
{
	int fd = file_of(4096, 0, F_SEAL_SHRINK);

	for (unsigned i = 0; i < 3000; i++) {
		assert_int_equal(map(*state, 4096 * (i % 5), 4096, fd, true), 0);
		assert_int_equal(slots[FIRST_SLOT].size, 4096);
		assert_int_equal(unmap(*state, 4096 * (i % 5), 4096), 0);
		assert_int_equal(used_slots, 0);
	}
	for (unsigned i = 0; i < VM_WINDOW_MAPPINGS_MAX; i++)
		assert_int_equal(map(*state, UINT64_C(4096) * i, 4096, fd, true), 0);
	assert_int_equal(
		map(*state, UINT64_C(4096) * VM_WINDOW_MAPPINGS_MAX, 4096, fd, true), -ENOSPC);
	assert_int_equal(unmap(*state, 4096 * 17, 4096), 0);
	assert_int_equal(map(*state, 4096 * 17, 4096, fd, true), 0);
	close(fd);
}

/* What KVM does not take away stays mapped, until it does. */
static void what_the_guest_still_has_is_kept(void **state)
{
	int fd = file_of(4096, 0, F_SEAL_SHRINK);

	assert_int_equal(map(*state, 0, 4096, fd, true), 0);
	const uint8_t *hva = slots[FIRST_SLOT].hva;

	kvm_says_of_removal = -ENOMEM;
	assert_int_equal(unmap(*state, 0, 4096), 0);
	assert_int_equal(unmap(*state, 0, 4096), -ENOENT);
	assert_int_equal(msync((void *)hva, 4096, MS_ASYNC), 0); /* ENOMEM: nothing is there */
	assert_int_equal(map(*state, 0, 4096, fd, true), -EEXIST);
	kvm_says_of_removal = 0;
	assert_int_equal(map(*state, 0, 4096, fd, true), 0);
	assert_int_equal(used_slots, 1);
	assert_int_equal(unmap(*state, 0, 4096), 0);
	close(fd);
}

static void a_device_cannot_map_what_it_must_not(void **state)
{
	int good = file_of(8192, 0, F_SEAL_SHRINK);
	int shrinkable = file_of(8192, 0, F_SEAL_GROW);
	int kernels = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	const struct {
		uint64_t offset, size;
		int fd, error;
	} cases[] = {
		{ 0, 0, good, -EINVAL },
		{ 1, 4096, good, -EINVAL },
		{ 0, 4095, good, -EINVAL },
		{ 0, 12288, good, -EINVAL },
		{ SIZE, 4096, good, -EINVAL },
		{ SIZE - 4096, 8192, good, -EINVAL },
		{ UINT64_MAX - 4095, 8192, good, -EINVAL },
		{ 0, UINT64_MAX - 4095, good, -EINVAL },
		{ 0, 4096, shrinkable, -EINVAL },
		{ 0, 4096, kernels, -EINVAL },
		{ 0, 4096, -1, -EINVAL },
		{ 4096 * 4, 8192, good, -EEXIST },
		{ 4096 * 6, 8192, good, -EEXIST },
	};

	assert_int_equal(map(*state, 4096 * 5, 8192, good, true), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(map(*state, cases[i].offset, cases[i].size, cases[i].fd, true),
			cases[i].error);
	assert_int_equal(unmap(*state, 4096 * 6, 4096), -ENOENT);
	assert_int_equal(unmap(*state, 4096 * 5, 4096), -ENOENT);
	kvm_says = -ENOMEM;
	assert_int_equal(map(*state, 0, 4096, good, true), -ENOMEM);
	assert_int_equal(used_slots, 1);
	kvm_says = 0;
	assert_int_equal(map(*state, 0, 4096, good, true), 0);
	close(good);
	close(shrinkable);
	close(kernels);
}

/* ---- a device in another process ---- */

static const struct sandbox no_sandbox = { .on = false };

static void lose(void *lost)
{
	++*(_Atomic int *)lost;
}

/* The device's half, of a window that is served. */
static struct window_channel serve(struct vm_window *window, _Atomic int *lost)
{
	const struct device_loss loss = { lose, lost };
	struct window_channel channel;
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(vm_window_serve(window, ends[0], &no_sandbox, &loss), 0);
	window_channel_init(&channel, ends[1], SIZE);
	return channel;
}

static void await_loss(const _Atomic int *lost)
{
	for (int i = 0; i < 10000 && *lost == 0; i++)
		(void)poll(NULL, 0, 1);
	assert_int_equal(*lost, 1);
}

static void another_process_maps_by_its_channel(void **state)
{
	int good = file_of(8192, 0, F_SEAL_SHRINK), shrinkable = file_of(8192, 0, F_SEAL_GROW);
	_Atomic int lost = 0;
	struct window_channel channel = serve(*state, &lost);
	const struct window_ops *ops = channel.window.ops;

	assert_int_equal(ops->map(&channel, 0x10000, 8192, good, true), 0);
	assert_int_equal(slots[FIRST_SLOT].gpa, GPA + 0x10000);
	assert_true(slots[FIRST_SLOT].writable);
	assert_int_equal(ops->map(&channel, 0x20000, 4096, good, false), 0);
	assert_false(slots[FIRST_SLOT + 1].writable);
	assert_int_equal(ops->map(&channel, 0x11000, 4096, good, true), -EEXIST);
	assert_int_equal(ops->map(&channel, 0x30000, 4096, shrinkable, true), -EINVAL);
	assert_int_equal(ops->map(&channel, 0x30000, 0, good, true), -EINVAL);
	assert_int_equal(ops->map(&channel, 0x30000, 4096, -1, true), -EBADF);
	assert_int_equal(ops->map(&channel, SIZE, 4096, good, true), -EINVAL);
	assert_int_equal(ops->unmap(&channel, 0x30000, 4096), -ENOENT);
	unsigned fds = count_fds();

	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(ops->map(&channel, 0x30000, 4096, good, true), 0);
		assert_int_equal(ops->unmap(&channel, 0x30000, 4096), 0);
	}
	assert_int_equal(count_fds(), fds);
	assert_int_equal(used_slots, 2);
	assert_int_equal(ops->unmap(&channel, 0x10000, 8192), 0);
	close(channel.socket); /* it ends, which is no fault */
	assert_true(vm_window_free(*state));
	*state = NULL;
	assert_int_equal(used_slots, 0);
	assert_int_equal(lost, 0);
	close(good);
	close(shrinkable);
}

/* A good request, for tests that spoil it. */
static struct vhost_user_message request_to_map(int fd)
{
	return (struct vhost_user_message){
		.request = VHOST_USER_BACKEND_SHMEM_MAP,
		.flags = VHOST_USER_VERSION | VHOST_USER_FLAG_NEED_REPLY,
		.size = sizeof(struct vhost_user_mapping),
		.mapping = { .size = 4096, .flags = 1 },
		.fd_count = 1,
		.fds = { fd },
	};
}

/* What of the form may be, but is not done here. */
static void what_no_device_of_ours_asks_is_refused(void **state)
{
	int good = file_of(8192, 0, F_SEAL_SHRINK);
	_Atomic int lost = 0;
	struct window_channel channel = serve(*state, &lost);
	struct vhost_user_message spoilt[] = { request_to_map(good), request_to_map(good),
		request_to_map(good) };
	struct vhost_user_message reply;

	spoilt[0].mapping.shmid = 1;
	spoilt[1].mapping.fd_offset = 4096;
	spoilt[2].mapping.flags = 2;
	for (size_t i = 0; i < ARRAY_SIZE(spoilt); i++) {
		assert_int_equal(vhost_user_send(channel.socket, &spoilt[i], UINT64_MAX), 0);
		assert_int_equal(vhost_user_receive_reply(channel.socket, spoilt[i].request,
					 sizeof(reply.u64), &reply, UINT64_MAX),
			0);
		assert_int_equal(reply.u64, EINVAL);
	}
	/* Who asks for no answer gets none: the next one is the next request's. */
	struct vhost_user_message quiet = request_to_map(good);

	quiet.flags = VHOST_USER_VERSION;
	assert_int_equal(vhost_user_send(channel.socket, &quiet, UINT64_MAX), 0);
	assert_int_equal(channel.window.ops->map(&channel, 0, 4096, good, true), -EEXIST);
	assert_int_equal(channel.window.ops->unmap(&channel, 0, 4096), 0);
	assert_int_equal(lost, 0);
	close(channel.socket);
	close(good);
}

/* What is no request: each is a good one with another word. */
static const struct {
	uint32_t request, flags, size;
	unsigned fd_count;
} none[] = {
	{ 0, 9, 40, 1 },
	{ VHOST_USER_BACK_REQUESTS, 9, 40, 1 },
	{ VHOST_USER_GET_CONFIG, 9, 40, 1 },
	{ VHOST_USER_BACKEND_SHMEM_UNMAP, 9, 40, 1 },
	{ VHOST_USER_BACKEND_SHMEM_MAP, 10, 40, 1 },
	{ VHOST_USER_BACKEND_SHMEM_MAP, 9, 41, 1 },
	{ VHOST_USER_BACKEND_SHMEM_MAP, 9, 39, 1 },
	{ VHOST_USER_BACKEND_SHMEM_MAP, 9, 40, 0 },
	{ VHOST_USER_BACKEND_SHMEM_MAP, 9, 40, 2 },
};

/* A process that a guest owns: that is its last; a VMM that is gone is an error. */
static void a_message_that_is_none_ends_it(void **state)
{
	int good = file_of(8192, 0, F_SEAL_SHRINK);

	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		_Atomic int lost = 0;
		struct window_channel channel = serve(*state, &lost);
		const struct vhost_user_message message = {
			.request = none[i].request,
			.flags = none[i].flags,
			.size = none[i].size,
			.fd_count = none[i].fd_count,
			.fds = { good, good },
		};

		assert_int_equal(channel.window.ops->map(&channel, 0, 4096, good, true), 0);
		assert_int_equal(vhost_user_send(channel.socket, &message, UINT64_MAX), 0);
		await_loss(&lost);
		assert_true(vm_window_free(*state));
		assert_true(channel.window.ops->map(&channel, 8192, 4096, good, true) < 0);
		assert_int_equal(used_slots, 0);
		close(channel.socket);
		assert_int_equal(make(state), 0);
	}
	close(good);
}

/* It hangs up in the middle of a message. */
static void half_a_message_ends_it(void **state)
{
	for (size_t size = 1; size < 52; size++) {
		_Atomic int lost = 0;
		struct window_channel channel = serve(*state, &lost);
		const struct vhost_user_message message = request_to_map(-1);

		assert_int_equal(send(channel.socket, &message, min_u64(size, 12), 0),
			(ssize_t)min_u64(size, 12));
		if (size > 12)
			assert_int_equal(send(channel.socket, &message.mapping, size - 12, 0),
				(ssize_t)size - 12);
		close(channel.socket);
		await_loss(&lost);
		assert_true(vm_window_free(*state));
		assert_int_equal(make(state), 0);
	}
}

/* A TCP connection that waits half a minute, when it is closed, for a peer that does not read. */
static int lingering_socket(int *ret_peer)
{
	const struct linger linger = { .l_onoff = 1, .l_linger = 30 };
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	static const char bytes[65536];

	assert_int_equal(bind(listener, (const void *)&address, size), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (void *)&address, &size), 0);
	assert_int_equal(connect(fd, (const void *)&address, size), 0);
	*ret_peer = accept4(listener, (void *)&address, &size, SOCK_CLOEXEC);
	assert_true(*ret_peer >= 0);
	close(listener);
	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	return fd;
}

/* The last of a file's owners may wait in close(). */
static void a_file_that_is_long_to_close_holds_nobody(void **state)
{
	_Atomic int lost = 0;
	const struct device_loss loss = { lose, &lost };
	int ends[2], peer, fd = lingering_socket(&peer);
	const struct vhost_user_message message = request_to_map(fd);
	struct vm_window *window = *state;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(vhost_user_send(ends[1], &message, UINT64_MAX), 0);
	close(fd); /* not the last, so it does not wait */
	assert_int_equal(vm_window_serve(window, ends[0], &no_sandbox, &loss), 0);
	uint64_t begin_ns = clock_monotonic_ns();

	assert_false(vm_window_free(window));
	*state = NULL;
	assert_true(clock_monotonic_ns() - begin_ns < 20 * NS_PER_S);
	assert_int_equal(lost, 0);
	close(ends[1]);
	close(peer); /* which ends the wait */
	while (!vm_window_free(window))
		;
}

/* It never reads an answer: that is no reason to wait at the end. */
static void a_device_that_does_not_read_holds_nobody(void **state)
{
	const struct vhost_user_message request = {
		.request = VHOST_USER_BACKEND_SHMEM_UNMAP,
		.flags = VHOST_USER_VERSION | VHOST_USER_FLAG_NEED_REPLY,
		.size = sizeof(struct vhost_user_mapping),
	};
	_Atomic int lost = 0;
	struct window_channel channel = serve(*state, &lost);

	while (vhost_user_send(channel.socket, &request, clock_monotonic_ns() + 200 * NS_PER_MS) ==
		0)
		;
	assert_true(vm_window_free(*state));
	*state = NULL;
	assert_int_equal(lost, 0);
	close(channel.socket);
}

/* ---- to a VMM that is none ---- */

/* A front end of `crosvm device` may answer anything: that is an error, and no more. */
static void answers_that_are_none_are_errors(void **state)
{
	static const struct {
		struct vhost_user_message message;
		int result;
	} cases[] = {
		{ { .request = 9, .flags = 5, .size = 8, .u64 = 0 }, 0 },
		{ { .request = 9, .flags = 5, .size = 8, .u64 = EEXIST }, -EEXIST },
		{ { .request = 9, .flags = 5, .size = 8, .u64 = 4096 }, -EIO },
		{ { .request = 9, .flags = 5, .size = 8, .u64 = UINT64_MAX }, -EIO },
		{ { .request = 10, .flags = 5, .size = 8, .u64 = 0 }, -EPROTO },
		{ { .request = 9, .flags = 1, .size = 8, .u64 = 0 }, -EPROTO },
		{ { .request = 9, .flags = 5, .size = 16, .u64 = 0 }, -EPROTO },
		{ { .request = 9, .flags = 5, .size = 8, .fd_count = 1, .fds = { 0 } }, -EPROTO },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct window_channel channel;
		int ends[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
		window_channel_init(&channel, ends[1], SIZE);
		assert_int_equal(vhost_user_send(ends[0], &cases[i].message, UINT64_MAX), 0);
		assert_int_equal(channel.window.ops->map(&channel, 0, 4096, STDERR_FILENO, true),
			cases[i].result);
		close(ends[0]);
		assert_int_equal(channel.window.ops->unmap(&channel, 0, 4096), -ENOTCONN);
		close(ends[1]);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, unmake)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_file_is_a_slot),
		TEST(slots_are_used_again),
		TEST(what_the_guest_still_has_is_kept),
		TEST(a_device_cannot_map_what_it_must_not),
		TEST(another_process_maps_by_its_channel),
		TEST(what_no_device_of_ours_asks_is_refused),
		TEST(a_message_that_is_none_ends_it),
		TEST(half_a_message_ends_it),
		TEST(a_device_that_does_not_read_holds_nobody),
		TEST(a_file_that_is_long_to_close_holds_nobody),
		cmocka_unit_test(answers_that_are_none_are_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
