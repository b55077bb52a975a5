// SPDX-License-Identifier: BSD-3-Clause
/*
 * Keeps block, entropy and network devices started, for tests that look at who
 * serves them or end it: at rest, or with one request after the other. It never
 * ends by itself.
 */
#include "virtio.h"

enum { PCI_NET = 0x1041 };

/* Queue 0 of the network card takes buffers, which nobody fills here. */
static void find_net(void)
{
	for (unsigned devfn = 0; devfn < FUNCTIONS && victim_count < VICTIMS_MAX; devfn += 8) {
		struct victim *victim = &victims[victim_count];

		victim->devfn = devfn;
		victim->pci_id = (uint16_t)get_config(victim, CONFIG_ID + 2, 2);
		if (get_config(victim, CONFIG_ID, 2) != 0x1af4 || victim->pci_id != PCI_NET)
			continue;
		victim->name = "net";
		victim->rings = &all_rings[victim_count];
		victim->buffers = &all_buffers[victim_count];
		find_regions(victim);
		victim_count++;
	}
}

static void start_all(void)
{
	find_victims();
	find_net();
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
	case PCI_NET:
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

const struct test_case cases[] = { { "rest", run_rest }, { "load", run_load }, { NULL, NULL } };
