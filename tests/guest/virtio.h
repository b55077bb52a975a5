/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A virtio-pci driver that can be told to break every rule, for freestanding
 * guests: config space by ECAM, registers in BAR 0, one split ring of queue 0 or
 * another, polled.
 *
 * A victim is a queue of a device under test. What a good request to it is, and
 * how all devices are asked whether they are good, is in victims.h.
 */
#pragma once

#include "smp.h"

/* ---- what the machine and the specification say ------------------------------ */

enum { ECAM = 0xe0000000, FUNCTIONS = 256, CONFIG_BYTES = 256, BAR_BYTES = 0x8000 };
enum { CONFIG_ID = 0, CONFIG_COMMAND = 4, CONFIG_BAR = 0x10, CONFIG_CAPABILITIES = 0x34 };
enum { COMMAND_MEMORY = 2, COMMAND_MASTER = 4, COMMAND_NO_INTX = 0x400 };
enum { CAP_MSIX = 0x11, CAP_VENDOR = 9 };
enum { CFG_COMMON = 1, CFG_NOTIFY, CFG_ISR, CFG_DEVICE, CFG_PCI };
/* The common configuration. */
enum {
	OFFERED_SELECT = 0,
	OFFERED = 4,
	ACCEPTED_SELECT = 8,
	ACCEPTED = 12,
	CONFIG_VECTOR = 16,
	QUEUE_COUNT = 18,
	STATUS = 20,
	GENERATION = 21,
	QUEUE_SELECT = 22,
	QUEUE_SIZE = 24,
	QUEUE_VECTOR = 26,
	QUEUE_ENABLE = 28,
	QUEUE_DESC = 32,
	QUEUE_AVAIL = 40,
	QUEUE_USED = 48,
	COMMON_BYTES = 60
};
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 };
enum { RUNNING = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
#define FEATURE_INDIRECT  (UINT64_C(1) << 28)
#define FEATURE_EVENT_IDX (UINT64_C(1) << 29)
#define FEATURE_VERSION_1 (UINT64_C(1) << 32)

enum { QUEUE_SIZE_MAX = 256, TIMEOUT_TICKS = 8 * PM_TIMER_HZ };

struct descriptor {
	uint64_t gpa;
	uint32_t length;
	uint16_t flags, next;
};

/* The rings of one queue, with what nobody may write in between. */
struct rings {
	uint8_t guard0[256];
	volatile struct descriptor desc[QUEUE_SIZE_MAX] __attribute__((aligned(16)));
	uint8_t guard1[256];
	struct {
		volatile uint16_t flags, idx, ring[QUEUE_SIZE_MAX + 1]; /* with used_event */
	} avail;
	uint8_t guard2[256] __attribute__((aligned(4)));
	struct {
		volatile uint16_t flags, idx;
		volatile struct {
			uint32_t id, length;
		} ring[QUEUE_SIZE_MAX];
		volatile uint16_t avail_event;
	} used;
	uint8_t guard3[256];
};

/* A request's memory, likewise. */
struct buffers {
	uint8_t guard0[512];
	uint8_t data[16384] __attribute__((aligned(64)));
	uint8_t guard1[512];
	uint8_t header[16];
	uint8_t guard2[64];
	uint8_t status;
	uint8_t guard3[512];
};

struct victim {
	const char *name;
	const struct kind *kind;  /* of victims.h, which alone sets it, or NULL */
	struct victim *companion; /* a queue without which the device gives no answers, or NULL */
	uint16_t pci_id;
	uint16_t queue; /* which of the device's; several victims may share one device */
	uint16_t queue_size;
	unsigned devfn;
	uint64_t bar;
	uint64_t common, notify, isr, config; /* gpas */
	struct rings *rings;
	struct buffers *buffers;
	uint16_t used_seen; /* used entries that were looked at */
};

enum { GUARD = 0x5a };
enum {
	PCI_NET = 0x1041,
	PCI_BLOCK = 0x1042,
	PCI_RNG = 0x1044,
	PCI_BALLOON = 0x1045,
	PCI_VSOCK = 0x1053,
	PCI_WL = 0x105e,
	VICTIMS_MAX = 20
};

/* Where the pointers go beyond the victims' own memory, this is it. */
static struct rings all_rings[VICTIMS_MAX] __attribute__((aligned(4096)));
static struct buffers all_buffers[VICTIMS_MAX];
static struct victim victims[VICTIMS_MAX];
static unsigned victim_count;
static const char *row = "start"; /* of a table, for messages */

#define fail_row(...)                                                                              \
	do {                                                                                       \
		print("\nFAIL %s, %s: ", current->name, row);                                      \
		print(__VA_ARGS__);                                                                \
		print("\n");                                                                       \
		power_off();                                                                       \
	} while (0)

/* ---- registers ---------------------------------------------------------------- */

static inline uint64_t read_at(uint64_t gpa, unsigned size)
{
	switch (size) {
	case 1:
		return *(volatile uint8_t *)at(gpa);
	case 2:
		return *(volatile uint16_t *)at(gpa);
	case 4:
		return *(volatile uint32_t *)at(gpa);
	default:
		return *(volatile uint64_t *)at(gpa);
	}
}

static inline void write_at(uint64_t gpa, unsigned size, uint64_t value)
{
	switch (size) {
	case 1:
		*(volatile uint8_t *)at(gpa) = (uint8_t)value;
		return;
	case 2:
		*(volatile uint16_t *)at(gpa) = (uint16_t)value;
		return;
	case 4:
		*(volatile uint32_t *)at(gpa) = (uint32_t)value;
		return;
	default:
		*(volatile uint64_t *)at(gpa) = value;
	}
}

static inline uint64_t config_gpa(const struct victim *victim, unsigned offset)
{
	return ECAM + ((uint64_t)victim->devfn << 12) + offset;
}

static inline uint32_t get_config(const struct victim *victim, unsigned offset, unsigned size)
{
	return (uint32_t)read_at(config_gpa(victim, offset), size);
}

static inline void put_config(
	const struct victim *victim, unsigned offset, unsigned size, uint32_t value)
{
	write_at(config_gpa(victim, offset), size, value);
}

static inline uint64_t get(const struct victim *victim, unsigned offset, unsigned size)
{
	return read_at(victim->common + offset, size);
}

static inline void put(const struct victim *victim, unsigned offset, unsigned size, uint64_t value)
{
	write_at(victim->common + offset, size, value);
}

/* ---- finding devices ------------------------------------------------------------ */

/* Finds a capability: vendor-specific of a cfg_type, or another kind with cfg_type 0. 0: none. */
static inline unsigned find_capability(const struct victim *victim, uint8_t id, uint8_t cfg_type)
{
	unsigned offset = get_config(victim, CONFIG_CAPABILITIES, 1);

	for (unsigned i = 0; offset != 0 && i < 48; i++) {
		if (get_config(victim, offset, 1) == id &&
			(cfg_type == 0 || get_config(victim, offset + 3, 1) == cfg_type))
			return offset;
		offset = get_config(victim, offset + 1, 1);
	}
	return 0;
}

static inline uint64_t find_region(const struct victim *victim, uint8_t cfg_type)
{
	unsigned offset = find_capability(victim, CAP_VENDOR, cfg_type);

	return offset != 0 ? victim->bar + get_config(victim, offset + 8, 4) : 0;
}

/* Where in config space the BAR is that has the registers; of ours always the first. */
static inline unsigned find_bar(const struct victim *victim)
{
	unsigned capability = find_capability(victim, CAP_VENDOR, CFG_COMMON);

	return CONFIG_BAR + 4 * get_config(victim, capability + 4, 1);
}

static inline void find_regions(struct victim *victim)
{
	unsigned bar = find_bar(victim);

	victim->bar = (get_config(victim, bar, 4) & ~0xfu) |
		      (uint64_t)get_config(victim, bar + 4, 4) << 32;
	if (!map_high(victim->bar))
		fail("too few page tables");
	put_config(
		victim, CONFIG_COMMAND, 2, get_config(victim, CONFIG_COMMAND, 2) | COMMAND_MEMORY);
	victim->common = find_region(victim, CFG_COMMON);
	victim->notify = find_region(victim, CFG_NOTIFY);
	victim->isr = find_region(victim, CFG_ISR);
	victim->config = find_region(victim, CFG_DEVICE);
}

static inline const char *kind_name(uint16_t pci_id)
{
	static const struct {
		uint16_t pci_id;
		const char *name;
	} names[] = { { PCI_NET, "net" }, { PCI_BLOCK, "blk" }, { PCI_RNG, "rng" },
		{ PCI_BALLOON, "balloon" }, { PCI_VSOCK, "vsock" }, { PCI_WL, "wl" } };

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].pci_id == pci_id)
			return names[i].name;
	return "unknown";
}

/* All devices of a kind, in their order on the bus. */
static inline void add_devices(uint16_t pci_id)
{
	for (unsigned devfn = 0; devfn < FUNCTIONS && victim_count < VICTIMS_MAX; devfn += 8) {
		struct victim *victim = &victims[victim_count];

		victim->devfn = devfn;
		victim->pci_id = (uint16_t)get_config(victim, CONFIG_ID + 2, 2);
		if (get_config(victim, CONFIG_ID, 2) != 0x1af4 || victim->pci_id != pci_id)
			continue;
		victim->name = kind_name(victim->pci_id);
		victim->rings = &all_rings[victim_count];
		victim->buffers = &all_buffers[victim_count];
		find_regions(victim);
		victim_count++;
	}
}

/* Makes a victim that stands for a device stand for another queue than its first. */
static inline void choose_queue(struct victim *victim, uint16_t queue)
{
	enum { NOTIFY_MULTIPLIER = 16 };
	unsigned capability = find_capability(victim, CAP_VENDOR, CFG_NOTIFY);

	victim->queue = queue;
	victim->notify += queue * get_config(victim, capability + NOTIFY_MULTIPLIER, 4);
}

/* A queue of a device whose regions are known, as a victim of its own. */
static inline void add_queue(const struct victim *device, uint16_t queue)
{
	struct victim *victim = &victims[victim_count];

	if (victim_count == VICTIMS_MAX)
		fail("too many queues");
	*victim = *device;
	victim->rings = &all_rings[victim_count];
	victim->buffers = &all_buffers[victim_count];
	choose_queue(victim, queue);
	victim_count++;
}

/* The one device of a kind, as a victim for each of these queues. */
static inline void find_device(uint16_t pci_id, const uint16_t *queues, unsigned count)
{
	add_devices(pci_id);
	if (victim_count != 1)
		fail("%u devices of %s", (uint64_t)victim_count, kind_name(pci_id));
	const struct victim device = victims[0];

	victim_count = 0;
	for (unsigned i = 0; i < count; i++)
		add_queue(&device, queues[i]);
}

/* ---- rings ------------------------------------------------------------------------ */

static inline bool is_all(const uint8_t *bytes, uint8_t value, size_t size)
{
	size_t same = 0;

	while (same < size && bytes[same] == value)
		same++;
	return same == size;
}

/* Empty rings, and guards around all that the device may write. */
static inline void clear_memory(struct victim *victim)
{
	struct rings *rings = victim->rings;

	memset(rings, 0, sizeof(*rings));
	memset(rings->guard0, GUARD, sizeof(rings->guard0));
	memset(rings->guard1, GUARD, sizeof(rings->guard1));
	memset(rings->guard2, GUARD, sizeof(rings->guard2));
	memset(rings->guard3, GUARD, sizeof(rings->guard3));
	memset(victim->buffers, GUARD, sizeof(*victim->buffers));
	victim->used_seen = 0;
}

static inline void check_guards(const struct victim *victim)
{
	const struct rings *rings = victim->rings;
	const struct buffers *buffers = victim->buffers;
	const struct {
		const uint8_t *bytes;
		size_t size;
	} guards[] = {
		{ rings->guard0, sizeof(rings->guard0) },
		{ rings->guard1, sizeof(rings->guard1) },
		{ rings->guard2, sizeof(rings->guard2) },
		{ rings->guard3, sizeof(rings->guard3) },
		{ buffers->guard0, sizeof(buffers->guard0) },
		{ buffers->guard1, sizeof(buffers->guard1) },
		{ buffers->guard2, sizeof(buffers->guard2) },
		{ buffers->guard3, sizeof(buffers->guard3) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(guards); i++)
		if (!is_all(guards[i].bytes, GUARD, guards[i].size))
			fail_row("%s wrote outside of the buffers, guard %u", victim->name,
				(uint64_t)i);
}

static inline void set_desc(struct victim *victim, unsigned index, uint64_t gpa, uint32_t length,
	uint16_t flags, uint16_t next)
{
	volatile struct descriptor *desc = &victim->rings->desc[index];

	desc->gpa = gpa;
	desc->length = length;
	desc->flags = flags;
	desc->next = next;
}

/* A chain of the first `count` descriptors, each of the same buffer. */
static inline void set_repeated(
	struct victim *victim, unsigned count, uint64_t gpa, uint32_t length, uint16_t flags)
{
	for (uint16_t i = 0; i < count; i++)
		set_desc(victim, i, gpa, length, flags | (i + 1u < count ? NEXT : 0), i + 1);
}

static inline void kick(const struct victim *victim)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	write_at(victim->notify, 2, victim->queue);
}

static inline void offer(struct victim *victim, uint16_t head)
{
	uint16_t idx = victim->rings->avail.idx;

	victim->rings->avail.ring[idx % victim->queue_size] = head;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	victim->rings->avail.idx = (uint16_t)(idx + 1);
}

/* Waits for `count` more used entries. False when the device needs a reset, or time is over. */
static inline bool wait_used(struct victim *victim, uint16_t count)
{
	uint32_t start = in32(PORT_PM_TIMER);

	for (unsigned i = 0; (uint16_t)(victim->rings->used.idx - victim->used_seen) < count; i++) {
		__asm__ volatile("pause");
		if (i % 4096 != 4095)
			continue;
		if ((get(victim, STATUS, 1) & NEEDS_RESET) != 0 ||
			in32(PORT_PM_TIMER) - start > TIMEOUT_TICKS)
			return false;
	}
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return true;
}

/* The length of the next used entry, which must be of that head. */
static inline uint32_t take_used(struct victim *victim, uint16_t head)
{
	unsigned slot = victim->used_seen++ % victim->queue_size;
	uint32_t id = victim->rings->used.ring[slot].id;

	if (id != head)
		fail_row(
			"%s gave back head %u, not %u", victim->name, (uint64_t)id, (uint64_t)head);
	return victim->rings->used.ring[slot].length;
}

/* Offers a chain and waits: how many bytes were written. Fails when it does not come back. */
static inline uint32_t submit(struct victim *victim, uint16_t head)
{
	offer(victim, head);
	kick(victim);
	if (!wait_used(victim, 1))
		fail_row("%s does not answer; status %x", victim->name, get(victim, STATUS, 1));
	return take_used(victim, head);
}

/* ---- the driver ------------------------------------------------------------------- */

static inline void reset(const struct victim *victim)
{
	put(victim, STATUS, 1, 0);
	if (get(victim, STATUS, 1) != 0)
		fail_row(
			"%s: the status is %x after a reset", victim->name, get(victim, STATUS, 1));
}

static inline uint64_t get_offered(const struct victim *victim)
{
	put(victim, OFFERED_SELECT, 4, 1);
	uint64_t high = get(victim, OFFERED, 4);

	put(victim, OFFERED_SELECT, 4, 0);
	return high << 32 | get(victim, OFFERED, 4);
}

static inline void accept(const struct victim *victim, uint64_t features)
{
	for (unsigned half = 0; half < 2; half++) {
		put(victim, ACCEPTED_SELECT, 4, half);
		put(victim, ACCEPTED, 4, (uint32_t)(features >> half * 32));
	}
}

/* Up to FEATURES_OK, from whatever state. */
static inline void negotiate(const struct victim *victim, uint64_t features)
{
	reset(victim);
	put(victim, STATUS, 1, ACKNOWLEDGE);
	put(victim, STATUS, 1, ACKNOWLEDGE | DRIVER);
	accept(victim, features | FEATURE_VERSION_1);
	put(victim, STATUS, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK);
	if (get(victim, STATUS, 1) != (ACKNOWLEDGE | DRIVER | FEATURES_OK))
		fail_row("%s takes no features; status %x", victim->name, get(victim, STATUS, 1));
}

/* Its queue at these places. */
static inline void place_queue(
	const struct victim *victim, uint64_t desc, uint64_t avail, uint64_t used)
{
	put(victim, QUEUE_SELECT, 2, victim->queue);
	put(victim, QUEUE_DESC, 8, desc);
	put(victim, QUEUE_AVAIL, 8, avail);
	put(victim, QUEUE_USED, 8, used);
	put(victim, QUEUE_ENABLE, 2, 1);
}

static inline void place_rings(const struct victim *victim)
{
	struct rings *rings = victim->rings;

	place_queue(
		victim, (uintptr_t)rings->desc, (uintptr_t)&rings->avail, (uintptr_t)&rings->used);
}

/* Its queue, with empty rings. */
static inline void prepare_queue(struct victim *victim)
{
	put(victim, QUEUE_SELECT, 2, victim->queue);
	victim->queue_size = (uint16_t)get(victim, QUEUE_SIZE, 2);
	if (victim->queue_size > QUEUE_SIZE_MAX) { /* none of ours */
		put(victim, QUEUE_SIZE, 2, QUEUE_SIZE_MAX);
		victim->queue_size = QUEUE_SIZE_MAX;
	}
	if (victim->queue_size == 0)
		fail_row("%s has a queue %u of size %u", victim->name, (uint64_t)victim->queue,
			(uint64_t)victim->queue_size);
	clear_memory(victim);
	place_rings(victim);
}

/* One device from FEATURES_OK to DRIVER_OK, with the queues of these victims. */
static inline void bring_up(struct victim *first, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		prepare_queue(&first[i]);
	put(first, STATUS, 1, RUNNING);
}

static inline void expect_running(const struct victim *victim)
{
	if (get(victim, STATUS, 1) != RUNNING)
		fail_row("%s does not start; status %x", victim->name, get(victim, STATUS, 1));
}

/* From whatever state. It may need a reset at once. */
static inline void try_queues(struct victim *first, unsigned count, uint64_t features)
{
	negotiate(first, features);
	bring_up(first, count);
}

static inline void start_queues(struct victim *first, unsigned count, uint64_t features)
{
	try_queues(first, count, features);
	expect_running(first);
}

/* Up to FEATURES_OK, with all that is needed beside its own queue. */
static inline void negotiate_victim(const struct victim *victim, uint64_t features)
{
	negotiate(victim, features);
	if (victim->companion != NULL)
		prepare_queue(victim->companion);
}

static inline void start_victim(struct victim *victim, uint64_t features)
{
	negotiate_victim(victim, features);
	bring_up(victim, 1);
	expect_running(victim);
}

/* ---- what comes of it, and rest ----------------------------------------------------- */

/* The device must say that it needs a reset, and touch its used ring no more. */
static inline void expect_needs_reset(const struct victim *victim)
{
	uint32_t begin = in32(PORT_PM_TIMER);
	uint16_t used = victim->rings->used.idx;

	while ((get(victim, STATUS, 1) & NEEDS_RESET) == 0)
		if (in32(PORT_PM_TIMER) - begin > TIMEOUT_TICKS)
			fail_row("%s does not say that it needs a reset", victim->name);
	if (victim->rings->used.idx != used)
		fail_row("%s goes on after its queue broke", victim->name);
}

/* For a byte, by which the test says that it has done its part. */
static inline void wait_for_host(void)
{
	while ((in8(COM1 + UART_LSR) & UART_LSR_READY) == 0)
		__asm__ volatile("pause");
	in8(COM1);
}

/* The host counts our threads and descriptors, while all devices are at rest. */
static inline void rest(const char *text)
{
	for (unsigned i = 0; i < victim_count; i++)
		reset(&victims[i]);
	print("%s\n", text);
	wait_for_host();
}

/* Of long loops, each Nth round with the parameter every=N. */
static inline unsigned every(void)
{
	return (unsigned)find_number(params, "every=", 1);
}
