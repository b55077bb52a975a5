// SPDX-License-Identifier: BSD-3-Clause
/*
 * Keeps all devices started, with all of their queues, for tests that look at
 * who serves them or end it: at rest, or with one request after the other; or
 * counts on a disk, for tests that look at the disk afterwards; or reads from
 * a disk and counts, for benchmarks. It never ends by itself.
 */
#include "disk.h"
#include "virtio.h"

enum { WRITTEN_SECTORS = 64, READ_SIZE = 4096, READS_A_LINE = 1000 };

/* What each kind is asked under load, and in which queue: next to nothing, which it answers. */
enum { BALLOON_INFLATE = 0, VSOCK_TRANSMIT = 1, WL_OUT = 1 };
enum { VSOCK_HEADER = 44, VSOCK_OP_AT = 30, VSOCK_RST = 3 };
enum { WL_CLOSE = 0x101, WL_CLOSE_SIZE = 12, WL_ANSWER_SIZE = 4 };
enum { PAGE = 4096 };

static uint8_t given[PAGE] __attribute__((aligned(PAGE)));

/* The queues of a device stand behind each other. */
static void start_device(unsigned devfn)
{
	struct victim device = { .devfn = devfn };
	struct victim *first = &victims[victim_count];

	if (get_config(&device, CONFIG_ID, 2) != 0x1af4)
		return;
	device.pci_id = (uint16_t)get_config(&device, CONFIG_ID + 2, 2);
	device.name = kind_name(device.pci_id);
	find_regions(&device);
	unsigned count = (unsigned)get(&device, QUEUE_COUNT, 2);

	for (uint16_t queue = 0; queue < count; queue++)
		add_queue(&device, queue);
	start_queues(first, count, 0);
}

static void start_all(void)
{
	for (unsigned devfn = 0; devfn < FUNCTIONS; devfn += 8)
		start_device(devfn);
}

static void run_rest(void)
{
	start_all();
	print("serving\n");
	for (;;)
		__asm__ volatile("pause");
}

/* What is in the buffer, and where there is room for an answer. */
static void ask(struct victim *victim, uint32_t size, uint32_t room)
{
	uint8_t *data = victim->buffers->data;

	set_desc(victim, 0, (uintptr_t)data, size, room != 0 ? NEXT : 0, 1);
	set_desc(victim, 1, (uintptr_t)data + size, room, WRITE, 0);
	(void)submit(victim, 0);
}

static void ask_balloon(struct victim *victim)
{
	const uint32_t pfn = (uint32_t)((uintptr_t)given / PAGE);

	memcpy(victim->buffers->data, &pfn, sizeof(pfn));
	ask(victim, sizeof(pfn), 0);
}

/* The reset of a connection that is none. */
static void ask_vsock(struct victim *victim)
{
	memset(victim->buffers->data, 0, VSOCK_HEADER);
	victim->buffers->data[VSOCK_OP_AT] = VSOCK_RST;
	ask(victim, VSOCK_HEADER, 0);
}

static void ask_rng(struct victim *victim)
{
	ask(victim, 0, 64);
}

/* The end of a file that is none. */
static void ask_wl(struct victim *victim)
{
	const uint32_t words[] = { WL_CLOSE, 0, 7 };

	memcpy(victim->buffers->data, words, WL_CLOSE_SIZE);
	ask(victim, WL_CLOSE_SIZE, WL_ANSWER_SIZE);
}

static void ask_net(struct victim *victim)
{
	set_desc(victim, 0, (uintptr_t)victim->buffers->data, 2048, WRITE, 0);
	offer(victim, 0); /* which nobody fills here */
	kick(victim);
}

static void read_first_sector(struct victim *victim)
{
	set_header(victim, BLK_IN, 0);
	set_request(victim, SECTOR, true);
	(void)submit(victim, 0);
}

static const struct {
	uint16_t pci_id, queue;
	void (*ask)(struct victim *victim);
} kinds[] = {
	{ PCI_BLOCK, 0, read_first_sector },
	{ PCI_RNG, 0, ask_rng },
	{ PCI_NET, 0, ask_net },
	{ PCI_BALLOON, BALLOON_INFLATE, ask_balloon },
	{ PCI_VSOCK, VSOCK_TRANSMIT, ask_vsock },
	{ PCI_WL, WL_OUT, ask_wl },
};

static void work(struct victim *victim)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		if (victim->pci_id == kinds[i].pci_id && victim->queue == kinds[i].queue)
			kinds[i].ask(victim);
}

static void run_load(void)
{
	start_all();
	for (unsigned round = 0;; round++) {
		if (round == 1)
			print("serving\n");
		for (unsigned i = 0; i < victim_count; i++)
			work(&victims[i]);
	}
}

/* Writes `number` all over a sector, or makes what was written last. */
static void ask_block(struct victim *victim, uint32_t type, uint64_t number)
{
	uint64_t *words = (uint64_t *)(void *)victim->buffers->data;
	bool writes = type == BLK_OUT;

	for (unsigned i = 0; writes && i < SECTOR / sizeof(*words); i++)
		words[i] = number;
	set_header(victim, type, writes ? number % WRITTEN_SECTORS : 0);
	set_request(victim, writes ? SECTOR : 0, false);
	if (submit(victim, 0) != 1 || victim->buffers->status != S_OK)
		fail_row("request %u of the disk fails", (uint64_t)type);
}

/* Counts on the disk, and says which numbers will last. */
static void run_write(void)
{
	add_devices(PCI_BLOCK);
	for (unsigned i = 0; i < victim_count; i++)
		start_victim(&victims[i], 0);
	for (uint64_t number = 1;; number++)
		for (unsigned i = 0; i < victim_count; i++) {
			ask_block(&victims[i], BLK_OUT, number);
			ask_block(&victims[i], BLK_FLUSH, 0);
			print("wrote %u\n", number);
		}
}

/* Without an exit: how long it waits must not count. */
static void wait_for_disk(struct victim *victim)
{
	while ((uint16_t)(victim->rings->used.idx - victim->used_seen) == 0)
		__asm__ volatile("pause");
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
}

/* One read after the other. */
static void run_reads(void)
{
	struct victim *victim = &victims[0];

	add_devices(PCI_BLOCK);
	if (victim_count == 0)
		fail("no disk");
	start_victim(victim, 0);
	victim->rings->avail.flags = 1; /* no interrupt: it looks by itself */
	for (uint64_t reads = 0;; reads++) {
		set_header(victim, BLK_IN, 0);
		set_request(victim, READ_SIZE, true);
		offer(victim, 0);
		kick(victim);
		wait_for_disk(victim);
		if (take_used(victim, 0) != READ_SIZE + 1)
			fail_row("read %u fails", reads);
		if (reads % READS_A_LINE == 0)
			print("read %u\n", reads);
	}
}

const struct test_case cases[] = { { "rest", run_rest }, { "load", run_load },
	{ "write", run_write }, { "reads", run_reads }, { NULL, NULL } };
