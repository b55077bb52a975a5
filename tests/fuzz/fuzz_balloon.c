// SPDX-License-Identifier: BSD-3-Clause
/*
 * A program of a hostile driver against the queues of virtio-balloon: lists of
 * pages in pieces, free memory, statistics, raw writes to the rings, and what
 * the VMM's control side asks meanwhile. A model says what becomes of memory and
 * of the configuration space.
 *
 * A ring is served with its stop already there, so it does one round and
 * returns. After that each chain came back unwritten, but for the statistics
 * that the device keeps; the pages that were given are empty, and all others as
 * they were. Memory that is given back is only cleared here: the fuzzer must go
 * on with it, and nothing but the guest's may ever be meant.
 */
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "base/log.h"
#include "memory/guest_memory.h"
#include "virtio/balloon.h"
#include "virtio/device.h"

enum { PAGE = 4096, HIGH_PAGE = 8, REGION_PAGES = 4, PAGES = HIGH_PAGE + REGION_PAGES };
enum { MEMORY_SIZE = PAGES * PAGE, REGION_SIZE = REGION_PAGES * PAGE };
/* The driver's data is in all pages but the last, which has a part for the rings of each queue. */
enum { RINGS_PAGE = PAGES - 1, DATA_PAGES = 2 * REGION_PAGES - 1 };
enum { QUEUES = 4, RING_STRIDE = 0x400, DESC_AT = 0, AVAIL_AT = 0x100, USED_AT = 0x200 };
/* A chain has the descriptors of its slot, so that one that is kept stays as it is. */
enum { QUEUE_SIZE = 16, SLOT = 3, SLOTS = QUEUE_SIZE / SLOT };
enum { NO_PAGE = 0xa5 };                   /* what memory is full of, since zeros name a page */
enum { NAMED_MAX = 1024, STATS_MAX = 64 }; /* of a chain */

enum op {
	OP_CHAIN,
	OP_CHAIN_2,
	OP_PAGES,
	OP_PAGES_2,
	OP_STATS,
	OP_FILL,
	OP_SERVE,
	OP_SERVE_2,
	OP_DRIVER_CONFIG,
	OP_CHANGE,
	OP_RESTART,
	OP_RAW_DESC,
	OP_RAW_AVAIL,
	OPS
};

struct step {
	uint8_t op;
	uint8_t queue;
	uint8_t flags;
	uint8_t page;
	uint16_t length;
	uint16_t seed;
};

struct ring {
	bool broken;
	uint16_t offered, served;
};

struct machine {
	struct guest_memory *memory;
	const struct guest_memory_region *regions[2];
	struct device *device;
	int kick_fd, call_fd, stop_fd;
	uint64_t features;
	bool event_idx;
	bool blind; /* a raw write, or the rings were given away: only bounds are known */
	struct ring rings[QUEUES];
	/* The model: memory by its gpa, with a gap, and the configuration space. */
	uint8_t bytes[MEMORY_SIZE];
	struct balloon_state state;
};

static struct machine machine;

static void require(bool holds)
{
	if (!holds)
		abort();
}

static uint8_t *at(uint64_t gpa, uint64_t size)
{
	uint8_t *hva = guest_memory_at(machine.memory, gpa, size);

	require(hva != NULL);
	return hva;
}

/* In the place of libc's, which src/memory calls: whole pages of one region are cleared. */
/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): libc's has underscores */
int madvise(void *address, size_t size, int advice)
{
	uint8_t *begin = address;
	size_t within = 0;

	if (advice != MADV_DONTNEED && advice != MADV_REMOVE)
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(machine.regions); i++) {
		const struct guest_memory_region *region = machine.regions[i];

		within += begin >= region->hva && begin < region->hva + region->size &&
			  size <= (size_t)(region->hva + region->size - begin);
	}
	require(within == 1 && size > 0 && size % PAGE == 0 && (uintptr_t)begin % PAGE == 0);
	memset(begin, 0, size);
	return 0;
}

/* ---- the driver ---- */

static uint64_t ring_at(unsigned queue, unsigned part)
{
	return RINGS_PAGE * PAGE + queue * RING_STRIDE + part;
}

static uint16_t get_u16(uint64_t gpa)
{
	uint16_t value;

	memcpy(&value, at(gpa, sizeof(value)), sizeof(value));
	return value;
}

static void put_u16(uint64_t gpa, uint16_t value)
{
	memcpy(at(gpa, sizeof(value)), &value, sizeof(value));
}

/* A page, and how many bytes for data begin there. */
static uint64_t data_page(uint8_t choice, uint32_t *ret_room)
{
	uint32_t page = choice % DATA_PAGES;
	bool low = page < REGION_PAGES;

	page += low ? 0 : HIGH_PAGE - REGION_PAGES;
	*ret_room = ((low ? REGION_PAGES : RINGS_PAGE) - page) * PAGE;
	return page * PAGE;
}

/* In memory, and in the model of it. */
static void put_data(uint64_t gpa, const void *data, uint64_t size)
{
	memcpy(at(gpa, size), data, size);
	memcpy(machine.bytes + gpa, data, size);
}

/* A buffer: a few bytes, or many from anywhere in a page. */
static struct vring_desc make_buffer(const struct step *step, unsigned piece)
{
	uint32_t room;
	uint64_t gpa = data_page((uint8_t)(step->page + piece), &room);
	bool large = (step->flags >> (4 + piece) & 1) != 0;
	uint32_t offset = large ? step->seed % PAGE : 0;

	return (struct vring_desc){
		.addr = gpa + offset,
		.len = large ? step->length % (room - offset + 1) : step->length % 32u,
		.flags = (step->flags & 8) != 0 ? VRING_DESC_F_WRITE : 0,
	};
}

static void put_chain(const struct step *step)
{
	unsigned queue = step->queue % QUEUES;
	struct ring *ring = &machine.rings[queue];
	unsigned head = ring->offered % SLOTS * SLOT;
	unsigned pieces = 1 + (step->flags & 7) % SLOT;

	if ((uint16_t)(ring->offered - ring->served) >= SLOTS)
		return;
	for (unsigned i = 0; i < pieces; i++) {
		struct vring_desc desc = make_buffer(step, i);

		if (i + 1 < pieces) {
			desc.flags |= VRING_DESC_F_NEXT;
			desc.next = (uint16_t)(head + i + 1);
		}
		memcpy(at(ring_at(queue, DESC_AT) + (head + i) * sizeof(desc), sizeof(desc)), &desc,
			sizeof(desc));
	}
	put_u16(ring_at(queue, AVAIL_AT) + 4 + ring->offered % QUEUE_SIZE * 2u, (uint16_t)head);
	ring->offered++;
	put_u16(ring_at(queue, AVAIL_AT) + 2, ring->offered);
}

/* Numbers of pages that go up, down or nowhere, from some page of the memory or far behind it. */
static void put_pages(const struct step *step)
{
	static const uint32_t strides[] = { 1, UINT32_MAX, 0, 2 };
	uint32_t room, count = step->length % 64u;
	uint64_t gpa = data_page(step->page, &room) + (step->flags >> 4) * 4u;
	uint32_t pfn = (step->flags & 4) != 0 ? UINT32_MAX - step->seed % 4u : step->seed % 16u;

	for (uint32_t i = 0; i < count; i++, pfn += strides[step->flags % 4])
		put_data(gpa + i * 4, &pfn, sizeof(pfn));
}

static void put_stats(const struct step *step)
{
	uint32_t room, count = step->length % 70u;
	uint64_t gpa = data_page(step->page, &room);

	for (uint32_t i = 0; i < count; i++) {
		const struct virtio_balloon_stat stat = {
			.tag = (uint16_t)((step->seed + i) % 20u),
			.val = (uint64_t)step->seed << i % 48,
		};

		put_data(gpa + i * sizeof(stat), &stat, sizeof(stat));
	}
}

static void fill_page(const struct step *step)
{
	static uint8_t bytes[PAGE];
	uint32_t room;

	memset(bytes, step->seed | 1, PAGE);
	put_data(data_page(step->page, &room), bytes, PAGE);
}

/* ---- the model ---- */

enum role { INFLATE, IGNORE, STATS, REPORT };

static bool has(unsigned bit)
{
	return (machine.features >> bit & 1) != 0;
}

static enum role role_of(unsigned queue)
{
	bool stats = has(VIRTIO_BALLOON_F_STATS_VQ);

	if (queue < 2)
		return queue == 0 ? INFLATE : IGNORE;
	if (stats && queue == 2)
		return STATS;
	return has(VIRTIO_BALLOON_F_REPORTING) && queue == (stats ? 3 : 2) ? REPORT : IGNORE;
}

/* A range of pages, the last one with it, is given back whole or not at all. */
static void expect_gone(uint64_t first, uint64_t last)
{
	bool low = last < REGION_PAGES;
	bool high = first >= HIGH_PAGE && last < PAGES;

	if (!low && !high)
		return;
	memset(machine.bytes + first * PAGE, 0, (last - first + 1) * PAGE);
	machine.blind = machine.blind || last == RINGS_PAGE;
}

static void expect_inflation(const uint32_t *pfns, size_t count)
{
	for (size_t i = 0; i < count;) {
		uint64_t first = pfns[i], last = pfns[i];

		for (i++; i < count; i++) {
			if (pfns[i] == last + 1)
				last++;
			else if (pfns[i] + UINT64_C(1) == first)
				first--;
			else
				break;
		}
		expect_gone(first, last);
	}
}

static void expect_report(const struct vring_desc *desc)
{
	uint64_t first = (desc->addr + PAGE - 1) / PAGE;
	uint64_t end = (desc->addr + desc->len) / PAGE;

	if ((desc->flags & VRING_DESC_F_WRITE) != 0 && first < end)
		expect_gone(first, end - 1);
}

static void expect_stats(const struct virtio_balloon_stat *stats, size_t count)
{
	for (unsigned i = 0; i < BALLOON_STATS; i++)
		machine.state.stats[i] = BALLOON_STAT_UNKNOWN;
	for (size_t i = 0; i < count; i++)
		if (stats[i].tag < BALLOON_STATS)
			machine.state.stats[stats[i].tag] = stats[i].val;
}

/* What one chain does. Its descriptors are as the driver wrote them. */
static void expect_chain(unsigned queue, unsigned head)
{
	union {
		uint8_t bytes[SLOT * REGION_SIZE];
		uint32_t pfns[NAMED_MAX];
		struct virtio_balloon_stat stats[STATS_MAX];
	} read;
	enum role role = role_of(queue);
	struct vring_desc desc;
	size_t size = 0;

	do {
		memcpy(&desc, at(ring_at(queue, DESC_AT) + head++ * sizeof(desc), sizeof(desc)),
			sizeof(desc));
		if ((desc.flags & VRING_DESC_F_WRITE) == 0) {
			memcpy(read.bytes + size, machine.bytes + desc.addr, desc.len);
			size += desc.len;
		} else if (role == REPORT) {
			expect_report(&desc);
		}
	} while ((desc.flags & VRING_DESC_F_NEXT) != 0);
	if (role == INFLATE)
		expect_inflation(read.pfns, min_u64(size / 4, NAMED_MAX));
	else if (role == STATS)
		expect_stats(read.stats, min_u64(size / sizeof(read.stats[0]), STATS_MAX));
}

/* What a round at a queue does. How many of its chains stay with the device. */
static uint16_t expect_round(unsigned queue)
{
	const struct ring *ring = &machine.rings[queue];

	if (machine.blind)
		return 0;
	for (uint16_t i = ring->served; i != ring->offered && !machine.blind; i++)
		expect_chain(queue, i % SLOTS * SLOT);
	/* The newest statistics are kept until they are asked for, which nobody has answered. */
	return role_of(queue) == STATS && ring->served != ring->offered &&
	       machine.state.stats_asked == machine.state.stats_answered;
}

/* Of the data: the rings are looked at by what they say. */
static void check_memory(void)
{
	const struct guest_memory_region *low = machine.regions[0], *high = machine.regions[1];

	require(memcmp(low->hva, machine.bytes + low->gpa, low->size) == 0);
	require(memcmp(high->hva, machine.bytes + high->gpa, high->size - PAGE) == 0);
}

/* After a time in which the model knew nothing. */
static void learn_memory(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(machine.regions); i++)
		memcpy(machine.bytes + machine.regions[i]->gpa, machine.regions[i]->hva,
			machine.regions[i]->size);
}

static void check_used(unsigned queue, uint16_t from, uint16_t to)
{
	require(get_u16(ring_at(queue, USED_AT) + 2) == to);
	for (uint16_t i = from; i != to; i++) {
		uint32_t entry[2];

		memcpy(entry, at(ring_at(queue, USED_AT) + 4 + i % QUEUE_SIZE * 8u, 8), 8);
		require(entry[0] == i % SLOTS * SLOT && entry[1] == 0);
	}
}

static void check_state(void)
{
	struct balloon_state state;

	require(device_get_config(balloon_device_class.ops, machine.device, 0, (uint8_t *)&state,
			sizeof(state)) == 0);
	if (!machine.blind)
		require(memcmp(&state, &machine.state, sizeof(state)) == 0);
	/* After a raw write the device may have been told any statistics, and nothing else. */
	require(memcmp(&state, &machine.state, offsetof(struct balloon_state, stats)) == 0);
}

/* ---- what happens ---- */

static void serve(unsigned queue)
{
	const struct virtqueue_config config = {
		.size = QUEUE_SIZE,
		.desc = ring_at(queue, DESC_AT),
		.avail = ring_at(queue, AVAIL_AT),
		.used = ring_at(queue, USED_AT),
		.event_idx = machine.event_idx,
		.indirect = machine.blind,
	};
	struct device_queue served = {
		.device = machine.device,
		.index = queue,
		.size = QUEUE_SIZE,
		.kick_fd = machine.kick_fd,
		.call_fd = machine.call_fd,
		.stop_fd = machine.stop_fd,
	};
	struct ring *ring = &machine.rings[queue];
	uint16_t from = ring->served;

	if (ring->broken)
		return;
	require(virtqueue_init(&served.vq, machine.memory, &config, from) == 0);
	uint16_t kept = expect_round(queue);
	int r = balloon_device_class.ops->serve(&served);

	ring->broken = r < 0;
	ring->served = virtqueue_base(&served.vq);
	require(r == 0 || (r == -EBADMSG && machine.blind));
	if (machine.blind)
		return;
	require(ring->served == (uint16_t)(ring->offered - kept));
	check_memory();
	check_used(queue, from, ring->served);
}

/* The driver may write the second word of two. */
static void write_config(const struct step *step)
{
	uint32_t offset = step->page % 12u, size = 1u << step->flags % 4;
	uint64_t value = step->seed * UINT64_C(0x1000100010001);
	bool inside = size <= BALLOON_CONFIG_SIZE && offset <= BALLOON_CONFIG_SIZE - size;
	int r = device_set_config(
		balloon_device_class.ops, machine.device, offset, (const uint8_t *)&value, size);

	require(r == (inside ? 0 : -EINVAL));
	if (inside && offset >= offsetof(struct balloon_state, actual_pages))
		memcpy((uint8_t *)&machine.state + offset, &value, size);
}

/* The VMM sets the target, or asks for statistics. */
static void change_config(const struct step *step)
{
	uint32_t offset = step->page % 4u * 4, size = step->flags % 8u == 0 ? 8 : 4;
	uint64_t value = step->seed;
	bool good = size == 4 && (offset == offsetof(struct balloon_state, target_pages) ||
					 offset == offsetof(struct balloon_state, stats_asked));
	int r = device_change_config(
		balloon_device_class.ops, machine.device, offset, (const uint8_t *)&value, size);

	require(r == (good ? 0 : -EINVAL));
	if (good)
		memcpy((uint8_t *)&machine.state + offset, &value, size);
}

/* A reset, and a driver with empty rings and these features. */
static void restart(uint8_t features)
{
	const struct device_ops *ops = balloon_device_class.ops;

	ops->stop(machine.device);
	machine.state.actual_pages = 0;
	expect_stats(NULL, 0);
	machine.features = (features & 1u ? UINT64_C(1) << VIRTIO_BALLOON_F_STATS_VQ : 0) |
			   (features & 2u ? UINT64_C(1) << VIRTIO_BALLOON_F_REPORTING : 0);
	machine.event_idx = (features & 4) != 0;
	if (machine.blind)
		learn_memory();
	machine.blind = false;
	memset(machine.rings, 0, sizeof(machine.rings));
	memset(at(RINGS_PAGE * PAGE, PAGE), 0, PAGE);
	require(ops->start(machine.device, machine.features) == 0);
}

static void raw(const struct step *step)
{
	unsigned queue = step->queue % QUEUES;
	const struct vring_desc desc = {
		.addr = (step->flags & 1) != 0 ? (uint64_t)step->seed << 48 : step->seed,
		.len = (step->flags & 2) != 0 ? (uint32_t)step->length << 16 : step->length,
		.flags = step->flags >> 4,
		.next = step->page / 16,
	};

	machine.blind = true;
	if (step->op % OPS == OP_RAW_AVAIL) {
		put_u16(ring_at(queue, AVAIL_AT) + step->page % (QUEUE_SIZE + 3u) * 2,
			step->length);
		machine.rings[queue].offered = get_u16(ring_at(queue, AVAIL_AT) + 2);
		return;
	}
	memcpy(at(ring_at(queue, DESC_AT) + step->page % QUEUE_SIZE * sizeof(desc), sizeof(desc)),
		&desc, sizeof(desc));
}

static void serve_step(const struct step *step)
{
	serve(step->queue % QUEUES);
}

static void restart_step(const struct step *step)
{
	restart(step->flags);
}

static void run_step(const struct step *step)
{
	static void (*const steps[OPS])(const struct step *step) = {
		[OP_CHAIN] = put_chain,
		[OP_CHAIN_2] = put_chain,
		[OP_PAGES] = put_pages,
		[OP_PAGES_2] = put_pages,
		[OP_STATS] = put_stats,
		[OP_FILL] = fill_page,
		[OP_SERVE] = serve_step,
		[OP_SERVE_2] = serve_step,
		[OP_DRIVER_CONFIG] = write_config,
		[OP_CHANGE] = change_config,
		[OP_RESTART] = restart_step,
		[OP_RAW_DESC] = raw,
		[OP_RAW_AVAIL] = raw,
	};

	steps[step->op % OPS](step);
}

static void open_machine(void)
{
	const struct guest_memory_range ranges[] = { { 0, REGION_SIZE },
		{ HIGH_PAGE * PAGE, REGION_SIZE } };
	const struct device_class *class = &balloon_device_class;
	char words[] = "size=3,reporting";
	uint64_t options[16];

	log_set_level(LOG_LEVEL_NONE);
	require(class->options_size <= sizeof(options));
	memcpy(options, class->defaults, class->options_size);
	require(suboptions_parse("balloon", class->suboptions, class->suboption_count, words, NULL,
			options) == 0);
	require(class->open(options, &machine.device) == 0);
	require(guest_memory_create(ranges, ARRAY_SIZE(ranges), 0, &machine.memory) == 0);
	for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++)
		machine.regions[i] = guest_memory_region(machine.memory, i);
	machine.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	machine.call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	machine.stop_fd = eventfd(1, EFD_CLOEXEC);
}

/* As a new device has it. */
static void begin(uint8_t features)
{
	const uint32_t nothing = 0;
	const uint32_t target = offsetof(struct balloon_state, target_pages);
	const uint32_t asked = offsetof(struct balloon_state, stats_asked);
	const struct device_ops *ops = balloon_device_class.ops;

	require(ops->config_change(machine.device, target, (const void *)&nothing, 4) == 0);
	require(ops->config_change(machine.device, asked, (const void *)&nothing, 4) == 0);
	machine.state = (struct balloon_state){ .target_pages = 0 };
	for (unsigned i = 0; i < ARRAY_SIZE(machine.regions); i++)
		memset(machine.regions[i]->hva, NO_PAGE, REGION_SIZE);
	machine.blind = true; /* until there is a driver */
	restart(features);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct step step;

	if (machine.device == NULL)
		open_machine();
	if (size < 1)
		return 0;
	begin(data[0]);
	for (data++, size--; size >= sizeof(step); data += sizeof(step), size -= sizeof(step)) {
		memcpy(&step, data, sizeof(step));
		run_step(&step);
	}
	for (unsigned queue = 0; queue < QUEUES; queue++)
		if (machine.rings[queue].served != machine.rings[queue].offered)
			serve(queue);
	check_state();
	return 0;
}
