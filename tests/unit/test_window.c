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
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

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
	vm_window_free(*state);
	return used_slots == 0 ? 0 : -1;
}

static int map(const struct vm_window *window, uint64_t offset, uint64_t size, int fd, bool write)
{
	const struct window *w = vm_window_get(window);

	return w->ops->map(w->owner, offset, size, fd, write);
}

static int unmap(const struct vm_window *window, uint64_t offset)
{
	const struct window *w = vm_window_get(window);

	return w->ops->unmap(w->owner, offset);
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
		assert_int_equal(unmap(*state, 4096 * (i % 5)), 0);
		assert_int_equal(used_slots, 0);
	}
	for (unsigned i = 0; i < VM_WINDOW_MAPPINGS_MAX; i++)
		assert_int_equal(map(*state, UINT64_C(4096) * i, 4096, fd, true), 0);
	assert_int_equal(
		map(*state, UINT64_C(4096) * VM_WINDOW_MAPPINGS_MAX, 4096, fd, true), -ENOSPC);
	assert_int_equal(unmap(*state, 4096 * 17), 0);
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
	assert_int_equal(unmap(*state, 0), 0);
	assert_int_equal(unmap(*state, 0), -ENOENT);
	assert_int_equal(msync((void *)hva, 4096, MS_ASYNC), 0); /* ENOMEM: nothing is there */
	assert_int_equal(map(*state, 0, 4096, fd, true), -EEXIST);
	kvm_says_of_removal = 0;
	assert_int_equal(map(*state, 0, 4096, fd, true), 0);
	assert_int_equal(used_slots, 1);
	assert_int_equal(unmap(*state, 0), 0);
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
	assert_int_equal(unmap(*state, 4096 * 6), -ENOENT);
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

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(vm_window_serve(window, ends[0], &no_sandbox, &loss), 0);
	window_channel_init(&channel, ends[1], GPA, SIZE);
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
	assert_int_equal(ops->map(&channel, 0x30000, 4096, -1, true), -EINVAL);
	assert_int_equal(ops->map(&channel, SIZE, 4096, good, true), -EINVAL);
	assert_int_equal(ops->unmap(&channel, 0x30000), -ENOENT);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(ops->map(&channel, 0x30000, 4096, good, true), 0);
		assert_int_equal(ops->unmap(&channel, 0x30000), 0);
	}
	assert_int_equal(used_slots, 2);
	assert_int_equal(ops->unmap(&channel, 0x10000), 0);
	close(channel.window.fd); /* it ends, which is no fault */
	vm_window_free(*state);
	*state = NULL;
	assert_int_equal(used_slots, 0);
	assert_int_equal(lost, 0);
	close(good);
	close(shrinkable);
}

/* A process that a guest owns: what is no request is its last; a VMM that is gone is an error. */
static void a_message_that_is_none_ends_it(void **state)
{
	int good = file_of(8192, 0, F_SEAL_SHRINK);
	static const char bytes[100];

	for (size_t size = 1; size <= sizeof(bytes); size += 33) {
		_Atomic int lost = 0;
		struct window_channel channel = serve(*state, &lost);

		assert_int_equal(channel.window.ops->map(&channel, 0, 4096, good, true), 0);
		assert_int_equal(send(channel.window.fd, bytes, size, 0), (ssize_t)size);
		await_loss(&lost);
		vm_window_free(*state);
		assert_true(channel.window.ops->map(&channel, 8192, 4096, good, true) < 0);
		assert_int_equal(used_slots, 0);
		close(channel.window.fd);
		assert_int_equal(make(state), 0);
	}
	close(good);
}

/* It never reads an answer: that is no reason to wait at the end. */
static void a_device_that_does_not_read_holds_nobody(void **state)
{
	const uint64_t request[3] = { 0, 0, 0 };
	_Atomic int lost = 0;
	struct window_channel channel = serve(*state, &lost);

	while (send(channel.window.fd, request, sizeof(request), MSG_DONTWAIT) > 0)
		;
	assert_int_equal(errno, EAGAIN);
	vm_window_free(*state);
	*state = NULL;
	assert_int_equal(lost, 0);
	close(channel.window.fd);
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
		TEST(a_message_that_is_none_ends_it),
		TEST(a_device_that_does_not_read_holds_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
