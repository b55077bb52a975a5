// SPDX-License-Identifier: BSD-3-Clause
/*
 * Keeps requests of a disk in flight for ever, and prints a dot for each DOT
 * of them that are done: for bench/block, which counts the dots. The same file
 * boots under QEMU's microvm, by PVH.
 *
 * It drives the queue as Linux does, by indirect tables, and kicks only when
 * the device asks for it; but it looks for the answers by itself, without
 * interrupts, since nothing else waits here for the processor.
 */
#include "disk.h"
#include "virtio.h"

__asm__(".include \"tests/guest/pvh.inc\"");

enum { DOT = 64, DEPTH_MAX = 64, BYTES_MAX = 128 << 10 };
enum { FREE_MMIO = 0xc0000000 }; /* of QEMU's microvm, which has no firmware that places BARs */

#define FEATURE_BLK_FLUSH (UINT64_C(1) << 9) /* without it each write must last */

struct request {
	struct descriptor table[3];
	uint32_t type, priority;
	uint64_t sector;
	uint8_t status;
};

static struct request requests[DEPTH_MAX] __attribute__((aligned(4096)));
static uint8_t data[DEPTH_MAX][BYTES_MAX] __attribute__((aligned(4096)));
static uint64_t size, units;
static bool is_random;

static void find_disk(struct victim *disk)
{
	while (get_config(disk, CONFIG_ID, 4) != (PCI_BLOCK << 16 | 0x1af4)) {
		disk->devfn += 8;
		if (disk->devfn >= FUNCTIONS)
			fail("no disk");
	}
	disk->name = kind_name(PCI_BLOCK);
	disk->rings = &all_rings[0];
	disk->buffers = &all_buffers[0];
	unsigned bar = find_bar(disk);

	if ((get_config(disk, bar, 4) & ~0xfu) == 0 && get_config(disk, bar + 4, 4) == 0)
		put_config(disk, bar, 4, FREE_MMIO);
	put_config(disk, CONFIG_COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER);
	find_regions(disk);
}

/* The header, the data and the status of a request, which stay where they are. */
static void prepare_request(struct victim *disk, uint16_t number, uint32_t type)
{
	struct request *request = &requests[number];

	request->type = type;
	request->table[0] = (struct descriptor){ (uintptr_t)&request->type, 16, NEXT, 1 };
	request->table[1] = (struct descriptor){ (uintptr_t)data[number], (uint32_t)size,
		type == BLK_IN ? NEXT | WRITE : NEXT, 2 };
	request->table[2] = (struct descriptor){ (uintptr_t)&request->status, 1, WRITE, 0 };
	set_desc(disk, number, (uintptr_t)request, sizeof(request->table), INDIRECT, 0);
}

/* The next unit of the disk, or any (xorshift). */
static uint64_t choose_unit(void)
{
	static uint64_t state = 88172645463325252, next;

	if (!is_random)
		return next++ % units;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % units;
}

static void put_request(struct victim *disk, uint16_t number)
{
	requests[number].sector = choose_unit() * (size / SECTOR);
	requests[number].status = 0xee;
	offer(disk, number);
}

/* Kicks if the device asked for one of the requests since `before`. */
static void kick_when_asked(struct victim *disk, uint16_t before)
{
	uint16_t idx = disk->rings->avail.idx;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if ((uint16_t)(idx - disk->rings->used.avail_event - 1) < (uint16_t)(idx - before))
		kick(disk);
}

/* Puts each request that is done again. */
static unsigned go_round(struct victim *disk)
{
	uint16_t before = disk->rings->avail.idx;
	unsigned done = 0;

	for (; disk->used_seen != disk->rings->used.idx; done++) {
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		unsigned slot = disk->used_seen++ % disk->queue_size;
		uint16_t number = (uint16_t)disk->rings->used.ring[slot].id;

		if (requests[number].status != S_OK)
			fail("status %u", (uint64_t)requests[number].status);
		put_request(disk, number);
	}
	disk->rings->avail.ring[disk->queue_size] = disk->used_seen - 1u; /* no interrupt */
	if (done != 0)
		kick_when_asked(disk, before);
	return done;
}

static void run_requests(void)
{
	struct victim *disk = &victims[0];
	uint32_t type = (uint32_t)find_number(params, "type=", BLK_IN);
	unsigned depth = (unsigned)find_number(params, "depth=", 1);

	size = find_number(params, "size=", 4096);
	is_random = find_number(params, "random=", 0) != 0;
	if (depth > DEPTH_MAX || size > BYTES_MAX)
		fail("too many or too large");
	find_disk(disk);
	start_victim(disk, FEATURE_BLK_FLUSH | FEATURE_INDIRECT | FEATURE_EVENT_IDX);
	if (disk->queue_size != QUEUE_SIZE_MAX)
		fail("a queue of %u", (uint64_t)disk->queue_size);
	units = read_at(disk->config, 8) * SECTOR / size;
	disk->rings->avail.ring[disk->queue_size] = UINT16_MAX;
	for (uint16_t number = 0; number < depth; number++) {
		prepare_request(disk, number, type);
		put_request(disk, number);
	}
	kick(disk);
	for (unsigned done = 0;;) {
		done += go_round(disk);
		for (; done >= DOT; done -= DOT)
			out8(COM1 + UART_DATA, '.');
		__asm__ volatile("pause");
	}
}

const struct test_case cases[] = { { "requests", run_requests }, { NULL, NULL } };
