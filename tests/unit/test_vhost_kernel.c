// SPDX-License-Identifier: BSD-3-Clause
/*
 * The kernel's backend against a kernel of ours: ioctl() below takes the place
 * of libc's in this program. It writes down what it is asked, and may refuse
 * any request.
 */
#include "unit/unit.h"

#include <errno.h>
#include <linux/vhost.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "unit/virtio_driver.h"
#include "virtio/vhost_kernel.h"

enum { FD = 1000, QUEUES = 3, SERVED = 2, KNOWN = 5, ONLY_OURS = 6, CALLS_MAX = 64, SIZE = 8 };

#define BIT(feature) (UINT64_C(1) << (feature))

/* What the kernel was asked; run_queue counts as a request of its own. */
enum { RUN = 1, HALT = 2 };

struct call {
	unsigned long request;
	unsigned index;
	int64_t value; /* of a state or a file */
};

struct kernel {
	uint64_t features;     /* on offer */
	uint64_t taken;        /* by VHOST_SET_FEATURES */
	unsigned long refuses; /* this request, with EIO */
	struct call calls[CALLS_MAX];
	unsigned count;
	struct vhost_vring_addr addresses;
	struct vhost_memory memory;
	struct vhost_memory_region regions[GUEST_MEMORY_FILES_MAX];
};

static struct kernel kernel;

struct device {
	int fail_start;
	unsigned starts, stops, frees;
	uint64_t features;
};

static int note(unsigned long request, unsigned index, int64_t value)
{
	assert_true(kernel.count < CALLS_MAX);
	kernel.calls[kernel.count++] = (struct call){ request, index, value };
	if (kernel.refuses != request)
		return 0;
	errno = EIO;
	return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list list;

	va_start(list, request);
	void *argument = va_arg(list, void *);

	va_end(list);
	assert_int_equal(fd, FD);
	const struct vhost_vring_file *file = argument;
	struct vhost_vring_state *of_ring = argument;

	switch (request) {
	case VHOST_SET_OWNER:
		return note(request, 0, 0);
	case VHOST_GET_FEATURES:
		*(uint64_t *)argument = kernel.features;
		return note(request, 0, 0);
	case VHOST_SET_FEATURES:
		kernel.taken = *(uint64_t *)argument;
		return note(request, 0, 0);
	case VHOST_SET_MEM_TABLE:
		memcpy(&kernel.memory, argument, sizeof(kernel.memory));
		assert_true(kernel.memory.nregions <= ARRAY_SIZE(kernel.regions));
		memcpy(kernel.regions, (uint8_t *)argument + sizeof(kernel.memory),
			kernel.memory.nregions * sizeof(kernel.regions[0]));
		return note(request, 0, 0);
	case VHOST_SET_VRING_ADDR:
		kernel.addresses = *(struct vhost_vring_addr *)argument;
		return note(request, kernel.addresses.index, 0);
	case VHOST_GET_VRING_BASE:
		of_ring->num = 77;
		return note(request, of_ring->index, 0);
	case VHOST_SET_VRING_NUM:
	case VHOST_SET_VRING_BASE:
		return note(request, of_ring->index, of_ring->num);
	case VHOST_SET_VRING_KICK:
	case VHOST_SET_VRING_CALL:
	case VHOST_SET_VRING_ERR:
		return note(request, file->index, file->fd);
	default:
		fail_msg("unknown request %lx", request);
		return -1;
	}
}

/* ---- a device whose first two rings are the kernel's ---- */

static unsigned fake_queue_count(const struct device *device)
{
	(void)device;
	return QUEUES;
}

static uint64_t fake_features(const struct device *device)
{
	(void)device;
	return BIT(KNOWN) | BIT(ONLY_OURS);
}

static void fake_config_read(struct device *device, uint32_t offset, uint8_t *data, uint32_t size)
{
	(void)device;
	memset(data, (int)(0xc0 + offset), size);
}

static int fake_start(struct device *device, uint64_t features)
{
	device->starts++;
	device->features = features;
	return device->fail_start;
}

static void fake_stop(struct device *device)
{
	device->stops++;
}

static void fake_free(struct device *device)
{
	device->frees++;
}

static int fake_fd(const struct device *device)
{
	(void)device;
	return FD;
}

static int fake_run_queue(struct device *device, unsigned index, bool run)
{
	(void)device;
	return note(run ? RUN : HALT, index, 0) < 0 ? -errno : 0;
}

static const struct device_kernel_ops fake_kernel_ops = {
	.queues = SERVED,
	.features = BIT(KNOWN),
	.fd = fake_fd,
	.run_queue = fake_run_queue,
};

static const struct device_ops fake_ops = {
	.name = "fake",
	.queue_size = SIZE,
	.config_size = 6,
	.queue_count = fake_queue_count,
	.features = fake_features,
	.config_read = fake_config_read,
	.start = fake_start,
	.stop = fake_stop,
	.kernel = &fake_kernel_ops,
	.free = fake_free,
};

static struct vhost *new_vhost(struct guest_memory *memory, struct device *device)
{
	struct vhost *vhost;

	memset(&kernel, 0, sizeof(kernel));
	*device = (struct device){ 0 };
	assert_int_equal(vhost_kernel_create(&fake_ops, device, memory, &vhost), 0);
	assert_int_equal(vhost->ops->set_error_fd(vhost, 30), 0);
	return vhost;
}

static struct vhost_ring ring_at(uint64_t used)
{
	return (struct vhost_ring){ .size = SIZE,
		.base = 5,
		.desc = DRIVER_DESC,
		.avail = DRIVER_AVAIL,
		.used = used,
		.kick_fd = 10,
		.call_fd = 20 };
}

static void assert_calls(const struct call *calls, unsigned count)
{
	assert_int_equal(kernel.count, count);
	for (unsigned i = 0; i < count; i++)
		if (kernel.calls[i].request != calls[i].request ||
			kernel.calls[i].index != calls[i].index ||
			kernel.calls[i].value != calls[i].value)
			fail_msg("call %u: %lx of ring %u with %ld", i, kernel.calls[i].request,
				kernel.calls[i].index, (long)kernel.calls[i].value);
	kernel.count = 0;
}

/* ---- tests ---- */

static void the_kernel_learns_of_all_memory(void **state)
{
	static const struct call calls[] = { { VHOST_SET_OWNER, 0, 0 },
		{ VHOST_SET_MEM_TABLE, 0, 0 } };
	struct device device;
	struct vhost *vhost = new_vhost(*state, &device);

	assert_calls(calls, ARRAY_SIZE(calls));
	assert_int_equal(kernel.memory.nregions, 2);
	assert_int_equal(kernel.regions[0].guest_phys_addr, LOW_GPA);
	assert_int_equal(kernel.regions[0].memory_size, LOW_SIZE);
	assert_int_equal(kernel.regions[1].guest_phys_addr, HIGH_GPA);
	assert_int_equal(kernel.regions[1].memory_size, HIGH_SIZE);
	assert_ptr_equal((void *)(uintptr_t)kernel.regions[1].userspace_addr,
		guest_memory_at(*state, HIGH_GPA, HIGH_SIZE));
	vhost->ops->free(vhost);
	assert_int_equal(device.frees, 1);
}

/* As of a jailed device, whose front end brings the memory. */
static void memory_comes_and_goes(void **state)
{
	static const struct call calls[] = { { VHOST_SET_MEM_TABLE, 0, 0 } };
	const struct vhost_ring ring = ring_at(DRIVER_USED);
	struct device device;
	struct vhost *vhost = new_vhost(NULL, &device);
	uint16_t base;

	assert_int_equal(kernel.count, 1); /* its owner */
	assert_int_equal(vhost->ops->set_vring(vhost, 1, &ring), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(vhost->ops->start_vring(vhost, 1), -EFAULT);
		kernel.count = 0;
		assert_int_equal(vhost->ops->set_memory(vhost, *state), 0);
		assert_calls(calls, ARRAY_SIZE(calls));
		assert_int_equal(kernel.memory.nregions, 2);
		assert_int_equal(vhost->ops->start_vring(vhost, 1), 0);
		assert_int_equal(vhost->ops->stop_vring(vhost, 1, &base), 0);
		kernel.count = 0;
		assert_int_equal(vhost->ops->set_memory(vhost, NULL), 0);
		assert_calls(calls, ARRAY_SIZE(calls));
		assert_int_equal(kernel.memory.nregions, 0);
	}
	kernel.refuses = VHOST_SET_MEM_TABLE;
	assert_int_equal(vhost->ops->set_memory(vhost, *state), -EIO);
	vhost->ops->free(vhost);
}

/* As of another front end, whose memory lies in more pieces than ours. */
static void memory_has_as_many_regions_as_a_front_end_sends(void **state)
{
	enum { REGION = 4096, FAR = 0x100000 };
	struct guest_memory_file files[GUEST_MEMORY_FILES_MAX];
	CLEANUP_FD int fd = memfd_create("guest", MFD_CLOEXEC);
	struct guest_memory *memory;
	struct device device;
	struct vhost *vhost = new_vhost(NULL, &device);

	(void)state;
	assert_int_equal(ftruncate(fd, ARRAY_SIZE(files) * REGION), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
		files[i] = (struct guest_memory_file){ i * (uint64_t)FAR, REGION,
			i * (uint64_t)REGION, fd };
	assert_int_equal(guest_memory_create_from_files(files, ARRAY_SIZE(files), &memory), 0);
	assert_int_equal(vhost->ops->set_memory(vhost, memory), 0);
	assert_int_equal(kernel.memory.nregions, ARRAY_SIZE(files));
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		assert_int_equal(kernel.regions[i].guest_phys_addr, i * (uint64_t)FAR);
		assert_int_equal(kernel.regions[i].memory_size, REGION);
	}
	vhost->ops->free(vhost);
	guest_memory_free(memory);
}

static void a_kernel_that_refuses_costs_no_device(void **state)
{
	static const unsigned long requests[] = { VHOST_SET_OWNER, VHOST_SET_MEM_TABLE };

	for (unsigned i = 0; i < ARRAY_SIZE(requests); i++) {
		struct device device = { 0 };
		struct vhost *vhost = NULL;

		memset(&kernel, 0, sizeof(kernel));
		kernel.refuses = requests[i];
		assert_int_equal(vhost_kernel_create(&fake_ops, &device, *state, &vhost), -EIO);
		assert_null(vhost);
		assert_int_equal(device.frees, 1);
		assert_int_equal(device.stops, 0);
	}
}

/* Of what the kernel must know, only what it knows is on offer; of the rest it hears nothing. */
static void features_are_shared(void **state)
{
	const uint64_t version = BIT(VIRTIO_F_VERSION_1);
	struct device device;
	struct vhost *vhost = new_vhost(*state, &device);
	uint64_t features;

	kernel.features = version | BIT(KNOWN) | BIT(40);
	assert_int_equal(vhost->ops->get_features(vhost, &features), 0);
	assert_int_equal(features, version | BIT(KNOWN) | BIT(ONLY_OURS));
	kernel.features = version | BIT(VIRTIO_RING_F_EVENT_IDX);
	assert_int_equal(vhost->ops->get_features(vhost, &features), 0);
	assert_int_equal(features, version | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(ONLY_OURS));
	assert_int_equal(vhost->ops->set_features(vhost, version | BIT(ONLY_OURS) | BIT(KNOWN)), 0);
	assert_int_equal(kernel.taken, version | BIT(KNOWN));
	kernel.refuses = VHOST_GET_FEATURES;
	features = 1234;
	assert_int_equal(vhost->ops->get_features(vhost, &features), -EIO);
	assert_int_equal(features, 1234);
	vhost->ops->free(vhost);
}

static const struct call start_calls[] = { { VHOST_SET_VRING_NUM, 1, SIZE },
	{ VHOST_SET_VRING_BASE, 1, 5 }, { VHOST_SET_VRING_ADDR, 1, 0 },
	{ VHOST_SET_VRING_CALL, 1, 20 }, { VHOST_SET_VRING_ERR, 1, 30 },
	{ VHOST_SET_VRING_KICK, 1, 10 }, { RUN, 1, 0 } };

static void a_ring_runs_and_stops(void **state)
{
	static const struct call stop_calls[] = { { HALT, 1, 0 }, { VHOST_SET_VRING_KICK, 1, -1 },
		{ VHOST_SET_VRING_CALL, 1, -1 }, { VHOST_SET_VRING_ERR, 1, -1 },
		{ VHOST_GET_VRING_BASE, 1, 0 } };
	const struct vhost_ring ring = ring_at(DRIVER_USED);
	struct device device;
	struct vhost *vhost = new_vhost(*state, &device);
	uint16_t base = 0;

	assert_int_equal(vhost->ops->set_features(vhost, BIT(ONLY_OURS)), 0);
	assert_int_equal(vhost->ops->set_vring(vhost, 1, &ring), 0);
	kernel.count = 0;
	assert_int_equal(vhost->ops->start_vring(vhost, 1), 0);
	assert_calls(start_calls, ARRAY_SIZE(start_calls));
	assert_ptr_equal((void *)(uintptr_t)kernel.addresses.used_user_addr,
		guest_memory_at(*state, DRIVER_USED, 6 + 8 * SIZE));
	assert_int_equal(device.features, BIT(ONLY_OURS));
	assert_int_equal(vhost->ops->start_vring(vhost, 1), -EINVAL);
	assert_int_equal(vhost->ops->set_vring(vhost, 1, &ring), -EINVAL);
	assert_int_equal(vhost->ops->stop_vring(vhost, 1, &base), 0);
	assert_calls(stop_calls, ARRAY_SIZE(stop_calls));
	assert_int_equal(base, 77);
	assert_int_equal(vhost->ops->stop_vring(vhost, 1, &base), -EINVAL);
	assert_int_equal(device.starts, 1);
	assert_int_equal(device.stops, 1);
	vhost->ops->free(vhost);
}

/* What lies in the ring since a pause: its driver has kicked for that already. */
static void a_ring_that_starts_is_looked_at(void **state)
{
	struct vhost_ring ring = ring_at(DRIVER_USED);
	struct device device;
	struct vhost *vhost = new_vhost(*state, &device);
	uint16_t base;

	ring.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(vhost->ops->set_vring(vhost, 1, &ring), 0);
	kernel.refuses = RUN;
	assert_int_equal(vhost->ops->start_vring(vhost, 1), -EIO);
	assert_false(fd_take_event(ring.kick_fd));
	kernel.refuses = 0;
	assert_int_equal(vhost->ops->start_vring(vhost, 1), 0);
	assert_true(fd_take_event(ring.kick_fd));
	assert_int_equal(vhost->ops->stop_vring(vhost, 1, &base), 0);
	vhost->ops->free(vhost);
	close(ring.kick_fd);
}

/* The last ring is nobody's, and those beyond it are none. */
static void the_kernel_hears_of_its_rings_only(void **state)
{
	const struct vhost_ring ring = ring_at(DRIVER_USED);
	struct vhost_ring large = ring;
	struct device device;
	struct vhost *vhost = new_vhost(*state, &device);
	uint16_t base = 0;

	kernel.count = 0;
	large.size = SIZE * 2;
	assert_int_equal(vhost->ops->set_vring(vhost, 2, &large), -EINVAL);
	assert_int_equal(vhost->ops->set_vring(vhost, QUEUES, &ring), -EINVAL);
	assert_int_equal(vhost->ops->start_vring(vhost, QUEUES), -EINVAL);
	assert_int_equal(vhost->ops->stop_vring(vhost, QUEUES, &base), -EINVAL);
	assert_int_equal(vhost->ops->set_vring(vhost, 2, &ring), 0);
	assert_int_equal(vhost->ops->start_vring(vhost, 2), 0);
	assert_int_equal(vhost->ops->stop_vring(vhost, 2, &base), 0);
	assert_int_equal(base, 5);
	assert_int_equal(kernel.count, 0);
	assert_int_equal(device.stops, 1);
	vhost->ops->free(vhost);
}

/* Rings that are not wholly in guest memory: no address of ours gets out. */
static void a_ring_outside_of_memory_is_refused(void **state)
{
	static const uint64_t places[] = { LOW_SIZE - 8, HIGH_END - 8, UINT64_MAX - 3, LOW_SIZE };
	struct device device;
	struct vhost *vhost = new_vhost(*state, &device);

	for (unsigned i = 0; i < 3 * ARRAY_SIZE(places); i++) {
		struct vhost_ring ring = ring_at(DRIVER_USED);
		uint64_t *fields[] = { &ring.desc, &ring.avail, &ring.used };

		*fields[i % 3] = places[i / 3];
		assert_int_equal(vhost->ops->set_vring(vhost, 0, &ring), 0);
		kernel.count = 0;
		assert_int_equal(vhost->ops->start_vring(vhost, 0), -EFAULT);
		for (unsigned k = 0; k < kernel.count; k++)
			assert_true(kernel.calls[k].request != VHOST_SET_VRING_ADDR &&
				    kernel.calls[k].request != RUN);
		assert_int_equal(device.stops, i + 1);
	}
	vhost->ops->free(vhost);
}

/* A start that fails at any step leaves no eventfd in the kernel and no started device. */
static void a_start_may_fail_anywhere(void **state)
{
	const struct vhost_ring ring = ring_at(DRIVER_USED);

	for (unsigned i = 0; i < ARRAY_SIZE(start_calls); i++) {
		struct device device;
		struct vhost *vhost = new_vhost(*state, &device);
		uint16_t base = 0;

		assert_int_equal(vhost->ops->set_vring(vhost, 1, &ring), 0);
		kernel.count = 0;
		kernel.refuses = start_calls[i].request;
		assert_int_equal(vhost->ops->start_vring(vhost, 1), -EIO);
		assert_int_equal(kernel.count, i + 1 + 3);
		for (unsigned k = 0; k < 3; k++)
			assert_int_equal(kernel.calls[i + 1 + k].value, -1);
		assert_int_equal(device.starts, 1);
		assert_int_equal(device.stops, 1);
		assert_int_equal(vhost->ops->stop_vring(vhost, 1, &base), -EINVAL);
		kernel.refuses = 0;
		assert_int_equal(vhost->ops->start_vring(vhost, 1), 0);
		vhost->ops->free(vhost);
		assert_int_equal(device.stops, 2);
	}
}

static void a_device_that_did_not_start_is_not_stopped(void **state)
{
	const struct vhost_ring ring = ring_at(DRIVER_USED);
	struct device device;
	struct vhost *vhost = new_vhost(*state, &device);

	assert_int_equal(vhost->ops->set_vring(vhost, 0, &ring), 0);
	kernel.count = 0;
	device.fail_start = -ENODEV;
	assert_int_equal(vhost->ops->start_vring(vhost, 0), -ENODEV);
	assert_int_equal(device.stops, 0);
	assert_int_equal(kernel.count, 0);
	vhost->ops->free(vhost);
}

static void config_has_bounds(void **state)
{
	uint8_t byte = 0;
	struct device device;
	struct vhost *vhost = new_vhost(*state, &device);

	assert_int_equal(vhost->ops->get_config(vhost, 5, &byte, 1), 0);
	assert_int_equal(byte, 0xc5);
	assert_int_equal(vhost->ops->get_config(vhost, 6, &byte, 1), -EINVAL);
	assert_int_equal(vhost->ops->get_config(vhost, 1, &byte, UINT32_MAX), -EINVAL);
	assert_int_equal(vhost->ops->set_config(vhost, 0, &byte, 1), -EINVAL);
	vhost->ops->free(vhost);
}

#define TEST(function)                                                                             \
	cmocka_unit_test_setup_teardown(function, driver_make_memory, driver_free_memory)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_kernel_learns_of_all_memory),
		TEST(memory_comes_and_goes),
		TEST(memory_has_as_many_regions_as_a_front_end_sends),
		TEST(a_kernel_that_refuses_costs_no_device),
		TEST(features_are_shared),
		TEST(a_ring_runs_and_stops),
		TEST(a_ring_that_starts_is_looked_at),
		TEST(the_kernel_hears_of_its_rings_only),
		TEST(a_ring_outside_of_memory_is_refused),
		TEST(a_start_may_fail_anywhere),
		TEST(a_device_that_did_not_start_is_not_stopped),
		TEST(config_has_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
