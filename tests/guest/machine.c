// SPDX-License-Identifier: BSD-3-Clause
/*
 * What a well-behaved kernel needs of the machine: the ways to end it, the
 * memory map, the ACPI and MP tables, CPUID, the clocks, the other vCPUs.
 * Prints what only the host can judge; tests/kvm compares.
 */
#include "smp.h"

/* ---- ends ---------------------------------------------------------------------- */

static void run_poweroff(void)
{
	power_off();
}

static void run_reset(void)
{
	out8(PORT_RESET, 0x06);
	fail("the VM runs on after the reset register");
}

static void run_reset_i8042(void)
{
	out8(PORT_I8042, 0xfe);
	fail("the VM runs on after the keyboard controller's reset");
}

static void run_triple_fault(void)
{
	triple_fault();
}

static void run_spin(void)
{
	print("spinning\n");
	for (;;)
		__asm__ volatile("pause");
}

/* What Linux leaves in the BIOS data area when it resets after a panic. */
static void run_panic(void)
{
	*(volatile uint16_t *)at(0x472) = 0x1234;
	out8(PORT_RESET, 0x06);
	fail("the VM runs on after the reset register");
}

/* ---- other vCPUs --------------------------------------------------------------- */

/* The others count themselves; param cpus= says how many vCPUs there are. */
static void run_smp(void)
{
	/* lock inc word cs:[0x100]; cli; hlt */
	static const uint8_t count_me[] = { 0x2e, 0xf0, 0xff, 0x06, 0x00, 0x01, 0xfa, 0xf4 };
	volatile uint16_t *count = at(TRAMPOLINE + 0x100);
	uint64_t others = find_number(params, "cpus=", 1) - 1;

	*count = 0;
	start_others(count_me, sizeof(count_me));
	for (unsigned i = 0; i < 500 && *count < others; i++)
		wait_ticks(PM_TIMER_HZ / 100);
	wait_ticks(PM_TIMER_HZ / 100);
	if (*count != others)
		fail("%u of %u other vCPUs started", (uint64_t)*count, others);
}

/* Every vCPU resets the machine for ever; it must end once. */
static void run_reset_storm(void)
{
	/* mov al, 0xfe; 1: out 0x64, al; jmp 1b */
	static const uint8_t storm[] = { 0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfc };

	start_others(storm, sizeof(storm));
	for (;;)
		out8(PORT_I8042, 0xfe);
}

/* ---- memory map ---------------------------------------------------------------- */

enum { ZERO_PAGE_E820_ENTRIES = 0x1e8, ZERO_PAGE_E820 = 0x2d0, E820_SIZE = 20 };

static void run_e820(void)
{
	unsigned count = zero_page[ZERO_PAGE_E820_ENTRIES];
	uint64_t previous_end = 0;

	for (unsigned i = 0; i < count; i++) {
		const uint8_t *entry = zero_page + ZERO_PAGE_E820 + i * E820_SIZE;
		uint64_t gpa = load(entry, 8);
		uint64_t size = load(entry + 8, 8);
		uint64_t type = load(entry + 16, 4);

		print("e820 %x %x %u\n", gpa, size, type);
		if (gpa < previous_end || size == 0)
			fail("entry %u is empty or overlaps", (uint64_t)i);
		previous_end = gpa + size;
	}
}

/* Are the first and the last word of each RAM range there? */
static void run_ram(void)
{
	for (unsigned i = 0; i < zero_page[ZERO_PAGE_E820_ENTRIES]; i++) {
		const uint8_t *entry = zero_page + ZERO_PAGE_E820 + i * E820_SIZE;
		uint64_t gpa = load(entry, 8);
		uint64_t end = gpa + load(entry + 8, 8);

		/* Below 1 MiB lies what we boot from, and at 1 MiB nothing. */
		if (load(entry + 16, 4) != 1 || gpa < 0x100000)
			continue;
		if (!map_high(gpa) || !map_high(end - 8))
			fail("too much RAM for this test");
		volatile uint64_t *first = at(gpa);
		volatile uint64_t *last = at(end - 8);

		*first = ~gpa;
		*last = ~end;
		if (*first != ~gpa || *last != ~end)
			fail("no RAM from %x to %x", gpa, end);
	}
}

/* ---- ACPI and MP tables --------------------------------------------------------- */

enum { ZERO_PAGE_RSDP = 0x70, RSDP_SIZE = 36, ACPI_HEADER_SIZE = 36 };

static void check_sum(const char *what, const uint8_t *table, uint64_t size)
{
	uint8_t sum = 0;

	for (uint64_t i = 0; i < size; i++)
		sum = (uint8_t)(sum + table[i]);
	if (sum != 0)
		fail("the checksum of %s is wrong by %u", what, (uint64_t)sum);
}

static const uint8_t *check_table(const char *signature, uint64_t gpa)
{
	const uint8_t *table = at(gpa);

	if (!memory_equal(table, signature, 4))
		fail("no %s at %x", signature, gpa);
	check_sum(signature, table, load(table + 4, 4));
	return table;
}

static const uint8_t *find_rsdp(void)
{
	const uint8_t *rsdp = at(load(zero_page + ZERO_PAGE_RSDP, 8));

	if (!memory_equal(rsdp, "RSD PTR ", 8))
		fail("boot_params has no RSDP");
	check_sum("the RSDP's first part", rsdp, 20);
	check_sum("the RSDP", rsdp, load(rsdp + 20, 4));
	return rsdp;
}

/* A table that the XSDT names; fails when there is none. */
static const uint8_t *find_table(const char *signature)
{
	const uint8_t *xsdt = check_table("XSDT", load(find_rsdp() + 24, 8));
	uint64_t size = load(xsdt + 4, 4);

	for (uint64_t i = ACPI_HEADER_SIZE; i < size; i += 8) {
		const uint8_t *table = at(load(xsdt + i, 8));

		if (memory_equal(table, signature, 4))
			return check_table(signature, load(xsdt + i, 8));
	}
	fail("the XSDT has no %s", signature);
}

static void check_value(const char *what, uint64_t value, uint64_t expected)
{
	if (value != expected)
		fail("%s is %x, not %x", what, value, expected);
}

static void check_fadt(const uint8_t *fadt)
{
	const uint8_t *facs = at(load(fadt + 36, 4));

	check_value("PM1a event", load(fadt + 56, 4), PORT_PM1_STATUS);
	check_value("PM1a control", load(fadt + 64, 4), PORT_PM1_CONTROL);
	check_value("PM timer", load(fadt + 76, 4), PORT_PM_TIMER);
	check_value("reset flag", load(fadt + 112, 4) >> 10 & 1, 1);
	check_value("reset register", load(fadt + 120, 8), PORT_RESET);
	check_value("reset value", fadt[128], 6);
	check_value("DSDT", load(fadt + 140, 8), load(fadt + 40, 4));
	check_table("DSDT", load(fadt + 40, 4));
	if (!memory_equal(facs, "FACS", 4) || load(facs + 4, 4) != 64 || (uint64_t)facs % 64 != 0)
		fail("no FACS at %x", (uint64_t)facs);
}

/* Enabled LAPIC (type 0) and x2APIC (type 9) entries. */
static uint64_t count_madt_cpus(const uint8_t *madt)
{
	uint64_t count = 0;
	uint64_t size = load(madt + 4, 4);

	for (uint64_t i = 44; i < size; i += madt[i + 1]) {
		if (madt[i + 1] < 2 || madt[i + 1] > size - i)
			fail("MADT entry at %u has %u bytes", i, (uint64_t)madt[i + 1]);
		if (madt[i] == 0 && (madt[i + 4] & 1))
			count++;
		if (madt[i] == 9 && (madt[i + 8] & 1))
			count++;
	}
	return count;
}

static void run_acpi(void)
{
	check_fadt(find_table("FACP"));
	print("cpus %u\n", count_madt_cpus(find_table("APIC")));
}

static const uint8_t *find_mp_table(void)
{
	const uint8_t *ebda = at(load(at(0x40e), 2) << 4);

	for (unsigned i = 0; i < 1024; i += 16) {
		if (!memory_equal(ebda + i, "_MP_", 4))
			continue;
		check_sum("the MP pointer", ebda + i, 16);
		return at(load(ebda + i + 4, 4));
	}
	fail("no MP pointer in the EBDA at %x", (uint64_t)ebda);
}

static void run_mptable(void)
{
	const uint8_t *table = find_mp_table();
	uint64_t size = load(table + 4, 2);
	uint64_t entries = load(table + 34, 2);
	uint64_t cpus = 0;
	uint64_t offset = 44;

	if (!memory_equal(table, "PCMP", 4))
		fail("no MP table at %x", (uint64_t)table);
	check_sum("the MP table", table, size);
	for (uint64_t i = 0; i < entries; i++) {
		cpus += table[offset] == 0 && (table[offset + 3] & 1);
		offset += table[offset] == 0 ? 20 : 8;
	}
	check_value("the MP table's length", size, offset);
	print("cpus %u\n", cpus);
}

static void dump(const char *name, const uint8_t *table)
{
	uint64_t size = load(table + 4, 4);

	print("table %s ", name);
	for (uint64_t i = 0; i < size; i++) {
		print_char("0123456789abcdef"[table[i] >> 4]);
		print_char("0123456789abcdef"[table[i] & 15]);
	}
	print("\n");
}

static void run_dump(void)
{
	const uint8_t *fadt = find_table("FACP");
	const uint8_t *xsdt = at(load(find_rsdp() + 24, 8));
	uint64_t size = load(xsdt + 4, 4);

	dump("XSDT", xsdt);
	dump("DSDT", at(load(fadt + 40, 4)));
	dump("FACS", at(load(fadt + 36, 4)));
	for (uint64_t i = ACPI_HEADER_SIZE; i < size; i += 8) {
		const uint8_t *table = at(load(xsdt + i, 8));
		char name[5] = { 0 };

		memcpy(name, table, 4);
		dump(name, table);
	}
}

/* ---- CPUID ---------------------------------------------------------------------- */

static void run_cpuid(void)
{
	struct cpuid basic = cpuid(1, 0);
	struct cpuid kvm = cpuid(0x40000000, 0);

	if ((basic.ecx & 1u << 31) == 0)
		fail("no hypervisor bit");
	if (basic.ebx >> 24 != 0)
		fail("vCPU 0 has APIC id %u", (uint64_t)(basic.ebx >> 24));
	if (!memory_equal(&kvm.ebx, "KVMK", 4) || !memory_equal(&kvm.ecx, "VMKV", 4) ||
		kvm.edx != 'M')
		fail("no KVM signature");
	print("htt %u\n", (uint64_t)(basic.edx >> 28 & 1));
	print("ids %u\n", (uint64_t)(basic.ebx >> 16 & 0xff));
	if (cpuid(0, 0).eax < 0xb) {
		print("topology none\n");
		return;
	}
	struct cpuid thread = cpuid(0xb, 0);
	struct cpuid package = cpuid(0xb, 1);

	check_value("leaf 0xb's APIC id", thread.edx, 0);
	check_value("type of level 0", thread.ecx >> 8, 1);
	check_value("type of level 1", package.ecx >> 8, 2);
	check_value("type of level 2", cpuid(0xb, 2).ecx >> 8, 0);
	print("topology %u %u %u\n", (uint64_t)(thread.ebx & 0xffff),
		(uint64_t)(package.ebx & 0xffff), (uint64_t)(package.eax & 0x1f));
}

/* ---- clocks ----------------------------------------------------------------------- */

static uint8_t read_cmos(uint8_t index)
{
	out8(PORT_CMOS, index);
	return in8(PORT_CMOS + 1);
}

static uint64_t read_cmos_number(uint8_t index, bool binary)
{
	uint8_t value = read_cmos(index);

	return binary ? value : (value >> 4) * 10u + (value & 15u);
}

static void run_cmos(void)
{
	uint8_t status_b = read_cmos(0x0b);
	bool binary = status_b & 4;

	if ((status_b & 2) == 0)
		fail("the clock is not in 24 hours mode, which this test needs");
	if ((read_cmos(0x0d) & 0x80) == 0)
		fail("the clock says that its battery is empty");
	for (unsigned i = 0; read_cmos(0x0a) & 0x80; i++)
		if (i == 1000000)
			fail("update in progress for ever");
	print("clock %u%u", read_cmos_number(0x32, binary), read_cmos_number(0x09, binary));
	for (unsigned i = 0; i < 5; i++)
		print(" %u", read_cmos_number((uint8_t[]){ 8, 7, 4, 2, 0 }[i], binary));
	print("\n");
}

static void run_pm_timer(void)
{
	uint32_t before = in32(PORT_PM_TIMER);

	for (unsigned i = 0; i < 100000; i++) {
		uint32_t now = in32(PORT_PM_TIMER);

		if (now - before >= 1u << 31)
			fail("it went back from %x to %x", (uint64_t)before, (uint64_t)now);
		before = now;
	}
	print("start\n");
	wait_ticks(PM_TIMER_HZ / 2);
	print("half a second\n");
}

/* Counts, a number each 5 ms, for as long as it runs; says how the clock went on each time. */
static void run_count(void)
{
	uint32_t last = in32(PORT_PM_TIMER);

	for (uint64_t number = 0;; number++) {
		wait_ticks(PM_TIMER_HZ / 200);
		uint32_t now = in32(PORT_PM_TIMER);

		print("%u %u\n", number, (uint64_t)(now - last) * 1000 / PM_TIMER_HZ);
		last = now;
	}
}

/* Waits for the power button, as ACPI's driver does but without the interrupt, and clears it. */
static void run_power_button(void)
{
	enum { POWER_BUTTON = 1 << 8 };

	out16(PORT_PM1_ENABLE, POWER_BUTTON);
	if ((in16(PORT_PM1_STATUS) & POWER_BUTTON) != 0)
		fail("it is pressed from the start");
	print("waiting\n");
	while ((in16(PORT_PM1_STATUS) & POWER_BUTTON) == 0)
		__asm__ volatile("pause");
	out16(PORT_PM1_STATUS, POWER_BUTTON);
	if ((in16(PORT_PM1_STATUS) & POWER_BUTTON) != 0)
		fail("it cannot be cleared");
}

/* What is on bus 0: "pci DEVFN VENDOR:DEVICE CLASS" for each function, in hexadecimal. */
static void run_pci(void)
{
	enum { ECAM = 0xe0000000, FUNCTIONS = 256, HEADER_TYPE = 14, MULTI_FUNCTION = 0x80 };

	for (uint64_t devfn = 0; devfn < FUNCTIONS; devfn++) {
		const volatile uint32_t *config = at(ECAM + (devfn << 12));
		const volatile uint8_t *device = at(ECAM + (devfn / 8 * 8 << 12));
		uint32_t id = config[0];

		/* A device without the bit has function 0 only. */
		if ((uint16_t)id == 0xffff ||
			(devfn % 8 != 0 && !(device[HEADER_TYPE] & MULTI_FUNCTION)))
			continue;
		print("pci %x %x:%x %x\n", devfn, (uint64_t)(uint16_t)id, (uint64_t)(id >> 16),
			(uint64_t)(config[2] >> 16));
	}
}

const struct test_case cases[] = {
	{ "poweroff", run_poweroff },
	{ "reset", run_reset },
	{ "reset-i8042", run_reset_i8042 },
	{ "reset-storm", run_reset_storm },
	{ "triple-fault", run_triple_fault },
	{ "panic", run_panic },
	{ "spin", run_spin },
	{ "smp", run_smp },
	{ "e820", run_e820 },
	{ "ram", run_ram },
	{ "acpi", run_acpi },
	{ "mptable", run_mptable },
	{ "dump", run_dump },
	{ "cpuid", run_cpuid },
	{ "cmos", run_cmos },
	{ "pm-timer", run_pm_timer },
	{ "pci", run_pci },
	{ "count", run_count },
	{ "power-button", run_power_button },
	{ NULL, NULL },
};
