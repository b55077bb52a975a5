// SPDX-License-Identifier: BSD-3-Clause
/*
 * PCI functions by a driver that writes what it likes where it likes: config
 * space, BARs moved onto RAM and each other, MSI-X, the common registers, the
 * status machine, the configuration access capability. Parameter victim= says
 * whose; afterwards its config space is put back and it works again.
 */
#include "victims.h"

/* ---- config space as firmware left it ------------------------------------------------- */

static uint32_t saved_bar[2];

static void save_config(const struct victim *victim)
{
	saved_bar[0] = get_config(victim, CONFIG_BAR, 4);
	saved_bar[1] = get_config(victim, CONFIG_BAR + 4, 4);
}

static void restore_config(const struct victim *victim)
{
	put_config(victim, CONFIG_COMMAND, 2, 0);
	put_config(victim, CONFIG_BAR, 4, saved_bar[0]);
	put_config(victim, CONFIG_BAR + 4, 4, saved_bar[1]);
	put_config(victim, find_capability(victim, CAP_MSIX, 0) + 2, 2, 0);
	put_config(victim, CONFIG_COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER);
}

static void check_restored(struct victim *victim)
{
	restore_config(victim);
	check_victim(victim);
}

/* ---- config space ------------------------------------------------------------------------ */

/* What identifies a device, and the list of capabilities, cannot be written. */
static void check_identity(const struct victim *victim)
{
	if (get_config(victim, CONFIG_ID, 2) != 0x1af4 ||
		get_config(victim, CONFIG_ID + 2, 2) != victim->pci_id ||
		find_capability(victim, CAP_MSIX, 0) == 0 ||
		find_capability(victim, CAP_VENDOR, CFG_PCI) == 0)
		fail_row("%s is no longer what it was", victim->name);
}

static void run_config_space(void)
{
	static const uint64_t values[] = { 0, UINT64_MAX, 0x5a17c3e996b2d04f, 4, 0xfee00004 };

	begin();
	struct victim *victim = chosen();

	save_config(victim);
	row = "every register, width and value";
	for (unsigned v = 0; v < ARRAY_SIZE(values); v++)
		for (unsigned size = 1; size <= 8; size *= 2)
			for (unsigned offset = 0; offset < CONFIG_BYTES + 8; offset++) {
				uint64_t gpa = config_gpa(victim, offset);

				write_at(gpa, size, values[v]);
				(void)read_at(gpa, size);
			}
	check_identity(victim);
	row = "behind the 256 bytes";
	for (unsigned offset = CONFIG_BYTES; offset < 4096; offset += 4)
		write_at(config_gpa(victim, offset), 4, UINT32_MAX);
	check_identity(victim);
	check_restored(victim);
	row = "functions that are not there";
	for (uint64_t devfn = 0; devfn < FUNCTIONS; devfn += 3)
		if ((devfn & 7) != 0)
			for (unsigned offset = 0; offset < 4096; offset += 60) {
				uint64_t gpa = ECAM + (devfn << 12) + offset;

				write_at(gpa, 4, UINT32_MAX);
				uint64_t value = read_at(gpa, 4);

				if (value != 0 && value != UINT32_MAX)
					fail_row("%x reads %x", gpa, value);
			}
	check_restored(victim);
	end();
}

/* ---- BARs ---------------------------------------------------------------------------------- */

static void move_bar(const struct victim *victim, uint64_t gpa)
{
	put_config(victim, CONFIG_BAR, 4, (uint32_t)gpa);
	put_config(victim, CONFIG_BAR + 4, 4, (uint32_t)(gpa >> 32));
}

static void run_bar_sizing(void)
{
	begin();
	struct victim *victim = chosen();

	save_config(victim);
	row = "sizing with memory on";
	for (unsigned i = 0; i < 50; i++) {
		move_bar(victim, UINT64_MAX);
		uint64_t mask = get_config(victim, CONFIG_BAR, 4) |
				(uint64_t)get_config(victim, CONFIG_BAR + 4, 4) << 32;

		if ((~(mask & ~UINT64_C(15)) + 1) != BAR_BYTES)
			fail_row("the mask is %x", mask);
		if (read_at(victim->common, 4) != UINT32_MAX)
			fail_row("the BAR answers where it was");
		restore_config(victim);
	}
	check_restored(victim);
	end();
}

/* Each time also half-way, since the two halves are written one after the other. */
static void run_bar_moves(void)
{
	uint64_t elsewhere[] = { 0, 0x8000, 0x1000000, 0xd0000000, ECAM, 0xfec00000, LAPIC,
		UINT64_C(1) << 46, UINT64_C(1) << 63, (uint64_t)-BAR_BYTES, 0, 0, 0, 0 };
	static uint8_t copy[4096];

	begin();
	struct victim *victim = chosen();
	/* The one that would lose: of two at one place, the first on the bus answers. */
	const struct victim *other = &victims[victim_count - 1];

	if (victim == other)
		other = &victims[0];
	uint64_t window = victim->bar & ~UINT64_C(0xffffffff);

	elsewhere[10] = other->bar;
	elsewhere[11] = window + (UINT64_C(4) << 30);
	elsewhere[12] = window - BAR_BYTES;
	elsewhere[13] = other->bar | 0xf;
	save_config(victim);
	memcpy(copy, at(0x1000000), sizeof(copy));
	for (unsigned i = 0; i < ARRAY_SIZE(elsewhere); i++)
		for (unsigned running = 0; running < 2; running++) {
			row = running ? "while it runs" : "while it is stopped";
			start_victim(victim, 0);
			if (!running)
				reset(victim);
			move_bar(victim, elsewhere[i]);
			if (!memory_equal(copy, at(0x1000000), sizeof(copy)))
				fail_row("the BAR at %x is in front of RAM", elsewhere[i]);
			if (read_at(victim->common, 4) != UINT32_MAX)
				fail_row("the BAR answers where it was before %x", elsewhere[i]);
			check_others(victim);
			check_restored(victim);
		}
	row = "to a good place";
	move_bar(victim, victim->bar + 0x10000000);
	find_regions(victim);
	check_victim(victim);
	check_identity(victim);
	restore_config(victim);
	find_regions(victim);
	check_victim(victim);
	end();
}

static void run_memory_enable(void)
{
	begin();
	struct victim *victim = chosen();

	row = "stopped";
	reset(victim);
	for (unsigned i = 0; i < 10000; i++)
		put_config(victim, CONFIG_COMMAND, 2,
			(i & 1) != 0   ? COMMAND_MEMORY
			: (i & 2) != 0 ? COMMAND_NO_INTX
				       : 0);
	put_config(victim, CONFIG_COMMAND, 2, COMMAND_MEMORY);
	row = "running";
	start_victim(victim, 0);
	for (unsigned i = 0; i < 100; i++) {
		put_config(victim, CONFIG_COMMAND, 2, 0);
		kick(victim);
		if (get(victim, STATUS, 1) != 0xff)
			fail_row("the BAR answers");
		put_config(victim, CONFIG_COMMAND, 2, COMMAND_MEMORY);
		good_request(victim);
	}
	check_victim(victim);
	end();
}

/* ---- another vCPU at the configuration space -------------------------------------------- */

enum { CHANGES = 10000, DONE = 0x1ff00 };

/*
 * Another vCPU changes a byte of the configuration space: `value` and `value` without these bits
 * in turn, CHANGES times. Then it says so at DONE. 16-bit protected mode, for ECAM's address.
 */
static void start_changes(const struct victim *victim, unsigned offset, uint8_t value, uint8_t bits)
{
	enum { ADDRESS_AT = 37, GDTR_AT = 0x78, GDT_AT = 0x80 };
	static const uint8_t change[] = {
		0xfa,                                           /* cli */
		0x66, 0x2e, 0x0f, 0x01, 0x16, GDTR_AT, 0x00,    /* lgdt cs:[GDTR_AT] */
		0x0f, 0x20, 0xc0,                               /* mov eax, cr0 */
		0x0c, 0x01,                                     /* or al, 1 */
		0x0f, 0x22, 0xc0,                               /* mov cr0, eax */
		0xea, 0x15, 0x00, 0x10, 0x00,                   /* jmp 0x10:1f */
		0xb8, 0x08, 0x00,                               /* 1: mov ax, 8 */
		0x8e, 0xd8,                                     /* mov ds, ax */
		0xb9, CHANGES & 0xff, CHANGES >> 8,             /* mov cx, CHANGES */
		0xb3, 0x00,                                     /* mov bl, value */
		0x80, 0xf3, 0x00,                               /* 2: xor bl, bits */
		0x67, 0x88, 0x1d, 0, 0, 0, 0,                   /* mov [address], bl */
		0xe2, 0xf4,                                     /* loop 2b */
		0x67, 0xc6, 0x05, 0x00, 0xff, 0x01, 0x00, 0x01, /* mov byte [DONE], 1 */
		0xf4,                                           /* hlt */
	};
	static const struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) gdtr = { 23, TRAMPOLINE + GDT_AT };
	/* None; all of memory; the trampoline. */
	static const uint64_t gdt[] = { 0, 0x00cf93000000ffff, 0x00009b008000ffff };
	const uint32_t address = (uint32_t)config_gpa(victim, offset);
	uint8_t code[GDT_AT + sizeof(gdt)] = { 0 };

	memcpy(code, change, sizeof(change));
	memcpy(&code[ADDRESS_AT], &address, sizeof(address));
	code[ADDRESS_AT - 7] = value;
	code[ADDRESS_AT - 4] = bits;
	memcpy(&code[GDTR_AT], &gdtr, sizeof(gdtr));
	memcpy(&code[GDT_AT], gdt, sizeof(gdt));
	*(volatile uint8_t *)at(DONE) = 0;
	start_others(code, sizeof(code));
}

static bool is_done(void)
{
	return *(volatile uint8_t *)at(DONE) != 0;
}

/* The BAR comes and goes while this vCPU reads it. */
static void run_memory_enable_race(void)
{
	unsigned seen = 0, missed = 0;

	begin();
	struct victim *victim = chosen();

	row = "toggled by another vCPU";
	reset(victim);
	start_changes(victim, CONFIG_COMMAND, COMMAND_MEMORY, COMMAND_MEMORY);
	while (!is_done()) {
		uint64_t status = get(victim, STATUS, 1);

		if (status != 0 && status != 0xff)
			fail_row("the status is %x", status);
		seen += status == 0;
		missed += status == 0xff;
		kick(victim);
	}
	print("there %u times, not there %u times\n", (uint64_t)seen, (uint64_t)missed);
	if (seen == 0 || missed == 0)
		fail_row("it was always the same");
	check_victim(victim);
	end();
}

/* ---- the BAR ------------------------------------------------------------------------------- */

/* Regions one after the other, so that junk in one meets what junk left in the others. */
static void run_bar_space(void)
{
	static const uint64_t values[] = { 0, 1, UINT64_MAX, 0x0f0f0f0f0f0f0f0f };

	begin();
	struct victim *victim = chosen();

	save_config(victim);
	for (unsigned v = 0; v < ARRAY_SIZE(values); v++)
		for (unsigned size = 1; size <= 8; size *= 2) {
			row = "every offset, width and value";
			for (uint64_t offset = 0; offset < BAR_BYTES; offset++) {
				if (offset % 0x1000 == 0x100)
					offset += 0x1000 - 0x100 - 16; /* over the border, too */
				(void)read_at(victim->bar + offset, size);
				write_at(victim->bar + offset, size, values[v]);
			}
			check_restored(victim);
		}
	end();
}

static void run_queue_select(void)
{
	static const uint16_t queues[] = { 1, 2, 15, 16, 17, 255, 256, 0x7fff, 0x8000, 0xfffe,
		0xffff };

	begin();
	struct victim *victim = chosen();

	for (unsigned i = 0; i < ARRAY_SIZE(queues); i++) {
		row = "a queue that is not there";
		start_victim(victim, 0);
		if (queues[i] < get(victim, QUEUE_COUNT, 2))
			continue;
		put(victim, QUEUE_SELECT, 2, queues[i]);
		if (get(victim, QUEUE_SIZE, 2) != 0 || get(victim, QUEUE_ENABLE, 2) != 0 ||
			get(victim, QUEUE_VECTOR, 2) != 0xffff)
			fail_row("queue %u is there", (uint64_t)queues[i]);
		for (unsigned size = 1; size <= 8; size *= 2)
			for (unsigned offset = QUEUE_SIZE; offset + size <= COMMON_BYTES;
				offset++) {
				(void)get(victim, offset, size);
				put(victim, offset, size, 1);
			}
		for (unsigned size = 1; size <= 4; size *= 2)
			write_at(victim->notify + queues[i] * 4, size, queues[i]);
		good_request(victim);
		check_victim(victim);
	}
	end();
}

static void run_device_config(void)
{
	begin();
	struct victim *victim = chosen();
	uint64_t gpa = victim->config != 0 ? victim->config : victim->bar + 0x2000;

	row = "every offset at first, and width";
	for (unsigned running = 0; running < 2; running++) {
		start_victim(victim, 0);
		if (!running)
			reset(victim);
		uint64_t before = read_at(gpa, 8);

		for (unsigned size = 1; size <= 8; size *= 2)
			for (uint64_t offset = 0; offset + size <= 4096;
				offset += offset < CONFIG_BYTES ? 1 : 13) {
				(void)read_at(gpa + offset, size);
				write_at(gpa + offset, size, UINT64_MAX);
			}
		if (read_at(gpa, 8) != before)
			fail_row("the first field changed from %x", before);
		check_victim(victim);
	}
	end();
}

/*
 * Another vCPU writes a field by the configuration access capability, while this one reads it where
 * it is: of what the driver itself writes the generation says nothing, nor can it be written.
 */
static void run_generation(void)
{
	enum { WCE = 32 };
	const uint64_t features = UINT64_C(1) << 9 | UINT64_C(1) << 11; /* FLUSH, CONFIG_WCE */
	unsigned seen[2] = { 0 };

	begin();
	struct victim *victim = chosen();
	unsigned capability = find_capability(victim, CAP_VENDOR, CFG_PCI);

	row = "written by another vCPU";
	start_victim(victim, features);
	uint64_t before = get(victim, GENERATION, 1);

	put_config(victim, capability + 4, 1, 0);
	put_config(victim, capability + 8, 4, (uint32_t)(victim->config - victim->bar) + WCE);
	put_config(victim, capability + 12, 4, 1);
	start_changes(victim, capability + 16, 1, 1);
	while (!is_done()) {
		uint64_t value = read_at(victim->config + WCE, 1);

		if (value > 1)
			fail_row("the field is %x", value);
		seen[value]++;
		put(victim, GENERATION, 1, ~before);
		if (get(victim, GENERATION, 1) != before)
			fail_row("the generation is %x", get(victim, GENERATION, 1));
		good_request(victim);
	}
	if (seen[0] == 0 || seen[1] == 0)
		fail_row("it was always the same");
	check_victim(victim);
	end();
}

/* ---- status -------------------------------------------------------------------------------- */

static void run_status(void)
{
	static const uint64_t bad[] = { 0, FEATURE_EVENT_IDX, FEATURE_VERSION_1 | UINT64_C(1) << 63,
		FEATURE_VERSION_1 | UINT64_C(1) << 33, UINT64_MAX };

	begin();
	struct victim *victim = chosen();

	row = "any byte after any";
	for (unsigned first = 0; first < 256; first += 11 * every())
		for (unsigned second = 1; second < 256; second += 7) {
			reset(victim);
			place_queue(victim, 16, 2, 4);
			accept(victim, FEATURE_VERSION_1);
			put(victim, STATUS, 1, first);
			uint64_t before = get(victim, STATUS, 1);

			put(victim, STATUS, 1, second);
			/* DRIVER_OK only after FEATURES_OK, and nothing is taken back but all. */
			uint64_t status = get(victim, STATUS, 1);

			if (((status & DRIVER_OK) != 0 && (status & FEATURES_OK) == 0) ||
				(before & ~status) != 0 ||
				((before & ~second) != 0 && status != before))
				fail_row("%x, then %x: %x", (uint64_t)first, (uint64_t)second,
					status);
		}
	check_victim(victim);
	row = "features that are none";
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		reset(victim);
		put(victim, STATUS, 1, ACKNOWLEDGE);
		put(victim, STATUS, 1, ACKNOWLEDGE | DRIVER);
		accept(victim, bad[i]);
		put(victim, STATUS, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK);
		if ((get(victim, STATUS, 1) & FEATURES_OK) != 0)
			fail_row("%x are accepted", bad[i]);
		put(victim, STATUS, 1, RUNNING);
		kick(victim);
		if ((get(victim, STATUS, 1) & DRIVER_OK) != 0)
			fail_row("it runs with %x", bad[i]);
	}
	check_victim(victim);
	row = "features after FEATURES_OK";
	start_victim(victim, 0);
	accept(victim, UINT64_MAX);
	put(victim, ACCEPTED_SELECT, 4, UINT32_MAX);
	put(victim, ACCEPTED, 4, UINT32_MAX);
	put(victim, OFFERED_SELECT, 4, UINT32_MAX);
	if (get(victim, OFFERED, 4) != 0)
		fail_row("there are features beyond 64");
	good_request(victim);
	check_victim(victim);
	end();
}

/* ---- MSI-X ----------------------------------------------------------------------------------- */

static uint64_t msix_region(const struct victim *victim, unsigned offset)
{
	unsigned capability = find_capability(victim, CAP_MSIX, 0);

	return victim->bar + (get_config(victim, capability + offset, 4) & ~7u);
}

static void enable_msix(const struct victim *victim, uint32_t control)
{
	put_config(victim, find_capability(victim, CAP_MSIX, 0) + 2, 2, control);
}

/* Messages to where no LAPIC is: whatever KVM makes of them, not writes to RAM. */
static void run_msix_messages(void)
{
	static const uint64_t addresses[] = { 0, 0x1000, UINT64_MAX, 0xfee00000, 0xfeeff000,
		0xfec00000, ECAM, UINT64_C(1) << 32, UINT64_C(0xfee00000) << 32 };

	begin();
	struct victim *victim = chosen();
	uint64_t copy = read_at(0x1000, 8);

	save_config(victim);
	for (unsigned i = 0; i < ARRAY_SIZE(addresses) * 2; i++) {
		uint64_t table = msix_region(victim, 4);

		row = "messages to anywhere";
		enable_msix(victim, 0x8000);
		start_victim(victim, 0);
		for (unsigned vector = 0; vector < 2; vector++) {
			write_at(table + vector * 16, 8, addresses[i / 2]);
			write_at(table + vector * 16 + 8, 4, (i & 1) != 0 ? UINT32_MAX : 0);
			write_at(table + vector * 16 + 12, 4, 0);
		}
		put(victim, QUEUE_VECTOR, 2, 0);
		put(victim, CONFIG_VECTOR, 2, 1);
		for (unsigned n = 0; n < 20; n++)
			good_request(victim);
		/* The configuration's as well. */
		offer(victim, 65535);
		kick(victim);
		expect_needs_reset(victim);
		if (read_at(0x1000, 8) != copy)
			fail_row("a message to %x is in RAM", addresses[i / 2]);
		check_restored(victim);
	}
	end();
}

static void run_msix_registers(void)
{
	static const uint16_t vectors[] = { 2, 16, 17, 18, 0x7fff, 0x8000, 0xfffe };

	begin();
	struct victim *victim = chosen();

	save_config(victim);
	row = "vectors that are not there";
	for (unsigned i = 0; i < ARRAY_SIZE(vectors); i++) {
		enable_msix(victim, 0x8000);
		start_victim(victim, 0);
		uint64_t count =
			get_config(victim, find_capability(victim, CAP_MSIX, 0) + 2, 2) & 0x7ff;

		put(victim, QUEUE_VECTOR, 2, vectors[i]);
		put(victim, CONFIG_VECTOR, 2, vectors[i]);
		if (vectors[i] > count && (get(victim, QUEUE_VECTOR, 2) != 0xffff ||
						  get(victim, CONFIG_VECTOR, 2) != 0xffff))
			fail_row("vector %u of %u is taken", (uint64_t)vectors[i], count + 1);
		good_request(victim);
		check_restored(victim);
	}
	row = "table and pending bits, every offset and width";
	enable_msix(victim, 0x8000);
	start_victim(victim, 0);
	for (unsigned size = 1; size <= 8; size *= 2)
		for (uint64_t offset = 0; offset + size <= 0x400; offset++) {
			write_at(msix_region(victim, 4) + offset, size, UINT64_MAX);
			(void)read_at(msix_region(victim, 4) + offset, size);
			write_at(msix_region(victim, 8) + offset, size, UINT64_MAX);
			(void)read_at(msix_region(victim, 8) + offset, size);
		}
	good_request(victim);
	check_restored(victim);
	row = "a storm of masks";
	start_victim(victim, 0);
	write_at(msix_region(victim, 4), 8, 0xfee00000);
	put(victim, QUEUE_VECTOR, 2, 0);
	for (unsigned i = 0; i < 300; i++) {
		enable_msix(victim, i % 4 << 14);
		write_at(msix_region(victim, 4) + 12, 4, i & 1);
		good_request(victim);
	}
	check_restored(victim);
	end();
}

/* ---- the configuration access capability ------------------------------------------------ */

static void run_pci_cfg(void)
{
	static const uint32_t offsets[] = { 0, 1, 3, 20, 0xffe, 0xfff, 0x1000, 0x3000, 0x4000,
		0x5004, 0x7ffc, 0x7fff, 0x8000, 0x7ffffffc, 0x80000000, 0xfffffffc, 0xffffffff };
	static const uint32_t lengths[] = { 0, 1, 2, 3, 4, 5, 8, 0x80000000, 0xffffffff };

	begin();
	struct victim *victim = chosen();
	unsigned capability = find_capability(victim, CAP_VENDOR, CFG_PCI);

	save_config(victim);
	row = "lies about bar, offset and length";
	for (unsigned bar = 0; bar < 256; bar += 51)
		for (unsigned o = 0; o < ARRAY_SIZE(offsets); o++)
			for (unsigned l = 0; l < ARRAY_SIZE(lengths); l++) {
				put_config(victim, capability + 4, 1, bar);
				put_config(victim, capability + 8, 4, offsets[o]);
				put_config(victim, capability + 12, 4, lengths[l]);
				put_config(victim, capability + 16, 4, UINT32_MAX);
				(void)get_config(victim, capability + 16, 4);
				(void)get_config(victim, capability + 17, 1);
			}
	check_restored(victim);
	row = "the truth";
	put_config(victim, capability + 4, 1, 0);
	put_config(victim, capability + 8, 4, STATUS);
	put_config(victim, capability + 12, 4, 1);
	if (get_config(victim, capability + 16, 1) != RUNNING)
		fail_row("the status is %x", (uint64_t)get_config(victim, capability + 16, 1));
	put_config(victim, capability + 16, 1, 0);
	if (get(victim, STATUS, 1) != 0)
		fail_row("it cannot be reset");
	check_victim(victim);
	end();
}

const struct test_case cases[] = {
	{ "config-space", run_config_space },
	{ "bar-sizing", run_bar_sizing },
	{ "bar-moves", run_bar_moves },
	{ "memory-enable", run_memory_enable },
	{ "memory-enable-race", run_memory_enable_race },
	{ "bar-space", run_bar_space },
	{ "queue-select", run_queue_select },
	{ "device-config", run_device_config },
	{ "generation", run_generation },
	{ "status", run_status },
	{ "msix-messages", run_msix_messages },
	{ "msix-registers", run_msix_registers },
	{ "pci-cfg", run_pci_cfg },
	{ NULL, NULL },
};
