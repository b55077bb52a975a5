// SPDX-License-Identifier: BSD-3-Clause
/*
 * Keeps block, entropy and network devices started, for tests that look at who
 * serves them or end it: at rest, or with one request after the other; or
 * counts on a disk, for tests that look at the disk afterwards; or reads from
 * a disk and counts, for benchmarks. It never ends by itself.
 */
#include "virtio.h"

enum { WRITTEN_SECTORS = 64, READ_SIZE = 4096, READS_A_LINE = 1000 };

static void start_all(void)
{
	find_victims();
	add_victims(PCI_NET, PCI_NET);
	for (unsigned i = 0; i < victim_count; i++)
		start_victim(&victims[i], 0);
}

static void run_rest(void)
{
	start_all();
	print("serving\n");
	for (;;)
		__asm__ volatile("pause");
}

static void work(struct victim *victim)
{
	switch (victim->pci_id) {
	case PCI_RNG:
		get_random(victim);
		break;
	case PCI_NET: /* queue 0 takes buffers, which nobody fills here */
		set_desc(victim, 0, (uintptr_t)victim->buffers->data, 2048, WRITE, 0);
		offer(victim, 0);
		kick(victim);
		break;
	default:
		set_header(victim, BLK_IN, 0);
		set_request(victim, SECTOR, true);
		(void)submit(victim, 0);
	}
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
	find_victims();
	for (unsigned i = 0; i < victim_count; i++)
		if (victims[i].pci_id == PCI_BLOCK)
			start_victim(&victims[i], 0);
	for (uint64_t number = 1;; number++)
		for (unsigned i = 0; i < victim_count; i++) {
			if (victims[i].pci_id != PCI_BLOCK)
				continue;
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
	find_victims();
	for (unsigned i = 0; i < victim_count; i++) {
		struct victim *victim = &victims[i];

		if (victim->pci_id != PCI_BLOCK)
			continue;
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
}

const struct test_case cases[] = { { "rest", run_rest }, { "load", run_load },
	{ "write", run_write }, { "reads", run_reads }, { NULL, NULL } };
