// SPDX-License-Identifier: BSD-3-Clause
/*
 * Writes the ACPI tables one behind the other. Nothing of the guest's is read;
 * the only input is the number of vCPUs, and room for them is checked.
 */
#include "x86_64/acpi.h"

#include <errno.h>
#include <string.h>

#include "dsdt.h"
#include "x86_64/checksum.h"
#include "x86_64/layout.h"
#include "x86_64/platform.h"

#define PACKED __attribute__((packed))

struct PACKED acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
};

struct PACKED acpi_rsdp {
	char signature[8];
	uint8_t checksum; /* of the first 20 bytes */
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt_gpa;
	uint32_t length;
	uint64_t xsdt_gpa;
	uint8_t extended_checksum;
	uint8_t reserved[3];
};

/* Generic address structure, section 5.2.3.2. */
struct PACKED acpi_address {
	uint8_t space; /* 1: I/O port */
	uint8_t bits;
	uint8_t bit_offset;
	uint8_t access_size; /* 1 byte, 2 word, 3 dword */
	uint64_t address;
};

struct PACKED acpi_fadt {
	struct acpi_header header;
	uint32_t facs;
	uint32_t dsdt;
	uint8_t reserved0;
	uint8_t preferred_profile;
	uint16_t sci_gsi;
	uint32_t smi_command;
	uint8_t acpi_enable, acpi_disable, s4bios, pstate;
	uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control;
	uint32_t pm2_control, pm_timer, gpe0, gpe1;
	uint8_t pm1_event_length, pm1_control_length, pm2_control_length, pm_timer_length;
	uint8_t gpe0_length, gpe1_length, gpe1_base, cstate;
	uint16_t c2_latency, c3_latency, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
	uint16_t boot_flags;
	uint8_t reserved1;
	uint32_t flags;
	struct acpi_address reset;
	uint8_t reset_value;
	uint16_t arm_boot_flags;
	uint8_t minor_revision;
	uint64_t x_facs, x_dsdt;
	struct acpi_address x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control;
	struct acpi_address x_pm2_control, x_pm_timer, x_gpe0, x_gpe1;
	struct acpi_address sleep_control, sleep_status;
	char hypervisor[8];
};
_Static_assert(sizeof(struct acpi_fadt) == 276, "FADT of ACPI 6");

struct PACKED acpi_facs {
	char signature[4];
	uint32_t length;
	uint8_t zero[24];
	uint8_t version;
	uint8_t reserved[31];
};
_Static_assert(sizeof(struct acpi_facs) == 64, "FACS");

/* IA-PC boot architecture flags: legacy devices yes; no 8042, no VGA. */
#define FADT_BOOT_LEGACY_DEVICES (1u << 0)
#define FADT_BOOT_NO_VGA         (1u << 2)
/* Fixed feature flags. The power button is fixed hardware, there is no sleep button. */
#define FADT_WBINVD        (1u << 0)
#define FADT_PROC_C1       (1u << 2)
#define FADT_SLEEP_BUTTON  (1u << 5)
#define FADT_RESET_REG     (1u << 10)
#define FADT_TIMER_32_BITS (1u << 8)

struct PACKED madt_header {
	struct acpi_header header;
	uint32_t lapic_gpa;
	uint32_t flags; /* 1: dual 8259s */
};

struct PACKED madt_lapic {
	uint8_t type, length;
	uint8_t uid, apic_id;
	uint32_t flags;
};

struct PACKED madt_x2apic {
	uint8_t type, length;
	uint16_t reserved;
	uint32_t apic_id, flags, uid;
};

struct PACKED madt_ioapic {
	uint8_t type, length;
	uint8_t id, reserved;
	uint32_t gpa, gsi_base;
};

struct PACKED madt_override {
	uint8_t type, length;
	uint8_t bus, irq;
	uint32_t gsi;
	uint16_t flags;
};

struct PACKED madt_nmi {
	uint8_t type, length;
	uint8_t uid;
	uint16_t flags;
	uint8_t lint;
};

enum { MADT_LAPIC, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_NMI = 4, MADT_X2APIC = 9 };
enum { MADT_ENABLED = 1, MADT_ALL_CPUS = 0xff, MADT_ACTIVE_HIGH_LEVEL = 0xd };

/* The largest id of a LAPIC entry; further vCPUs get x2APIC entries. */
enum { LAPIC_ID_MAX = 254 };

/* What the DSDT reads at the start of the area: where the PCI window is. */
struct PACKED dsdt_parameters {
	uint64_t window_first, window_last, window_size;
	uint64_t reserved;
};

struct PACKED mcfg {
	struct acpi_header header;
	uint8_t reserved0[8];
	uint64_t ecam_gpa;
	uint16_t segment;
	uint8_t first_bus, last_bus;
	uint8_t reserved1[4];
};

/* Where the next table goes, in the guest's BIOS area. */
struct writer {
	uint8_t *base;
	uint64_t used;
	uint64_t room;
	bool overflow;
};

/* Appends bytes; what does not fit is noticed once, at the end. */
static void append(struct writer *writer, const void *bytes, uint64_t size)
{
	if (size > writer->room - writer->used) {
		writer->overflow = true;
		return;
	}
	memcpy(writer->base + writer->used, bytes, size);
	writer->used += size;
}

static uint64_t next_gpa(struct writer *writer, uint64_t alignment)
{
	writer->used = min_u64(align_up(writer->used, alignment), writer->room);
	return LAYOUT_ACPI + writer->used;
}

static struct acpi_header table_header(const char *signature, uint8_t revision, uint64_t length)
{
	struct acpi_header header = {
		.length = (uint32_t)length,
		.revision = revision,
		.oem_id = { 'C', 'R', 'O', 'S', 'V', 'M' },
		.oem_table_id = { 'C', 'R', 'O', 'S', 'V', 'M', ' ', ' ' },
		.oem_revision = 1,
		.creator_id = { 'C', 'V', 'M', 'C' },
		.creator_revision = 1,
	};

	memcpy(header.signature, signature, sizeof(header.signature));
	return header;
}

/* Sets length and checksum of the table that was appended since `start`. */
static void finish_table(struct writer *writer, uint64_t gpa)
{
	uint8_t *table = writer->base + (gpa - LAYOUT_ACPI);
	uint64_t size = LAYOUT_ACPI + writer->used - gpa;
	uint32_t length = (uint32_t)size;
	uint8_t sum;

	if (writer->overflow)
		return;
	memcpy(table + offsetof(struct acpi_header, length), &length, sizeof(length));
	table[offsetof(struct acpi_header, checksum)] = 0;
	sum = table_checksum(table, size);
	table[offsetof(struct acpi_header, checksum)] = sum;
}

static uint64_t write_facs(struct writer *writer)
{
	uint64_t gpa = next_gpa(writer, 64);
	const struct acpi_facs facs = {
		.signature = { 'F', 'A', 'C', 'S' },
		.length = sizeof(facs),
		.version = 2,
	};

	append(writer, &facs, sizeof(facs));
	return gpa;
}

static uint64_t write_dsdt(struct writer *writer)
{
	uint64_t gpa = next_gpa(writer, 16);

	append(writer, dsdt_aml, sizeof(dsdt_aml));
	return gpa;
}

static struct acpi_address port_address(uint16_t port, uint8_t bytes)
{
	return (struct acpi_address){
		.space = 1,
		.bits = (uint8_t)(bytes * 8),
		.access_size = bytes == 4 ? 3 : bytes,
		.address = port,
	};
}

static uint64_t write_fadt(struct writer *writer, uint64_t facs_gpa, uint64_t dsdt_gpa)
{
	uint64_t gpa = next_gpa(writer, 16);
	struct acpi_fadt fadt = {
		.header = table_header("FACP", 6, sizeof(fadt)),
		.facs = (uint32_t)facs_gpa,
		.dsdt = (uint32_t)dsdt_gpa,
		.sci_gsi = GSI_SCI,
		.pm1a_event = PORT_ACPI_PM,
		.pm1a_control = PORT_ACPI_PM + 4,
		.pm_timer = PORT_ACPI_PM + 8,
		.pm1_event_length = 4,
		.pm1_control_length = 2,
		.pm_timer_length = 4,
		/* Latencies above these limits mean that there is no C2 and no C3. */
		.c2_latency = 101,
		.c3_latency = 1001,
		.century = 0x32,
		.boot_flags = FADT_BOOT_LEGACY_DEVICES | FADT_BOOT_NO_VGA,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLEEP_BUTTON | FADT_RESET_REG |
			 FADT_TIMER_32_BITS,
		.reset = port_address(PORT_ACPI_RESET, 1),
		.reset_value = ACPI_RESET_VALUE,
		.minor_revision = 4,
		.x_facs = 0, /* the 32-bit one counts when only it is set */
		.x_dsdt = dsdt_gpa,
		.x_pm1a_event = port_address(PORT_ACPI_PM, 4),
		.x_pm1a_control = port_address(PORT_ACPI_PM + 4, 2),
		.x_pm_timer = port_address(PORT_ACPI_PM + 8, 4),
		.hypervisor = "CROSVM",
	};

	append(writer, &fadt, sizeof(fadt));
	finish_table(writer, gpa);
	return gpa;
}

static void append_madt_vcpu(struct writer *writer, unsigned id)
{
	const struct madt_lapic lapic = {
		.type = MADT_LAPIC,
		.length = sizeof(lapic),
		.uid = (uint8_t)id,
		.apic_id = (uint8_t)id,
		.flags = MADT_ENABLED,
	};
	const struct madt_x2apic x2apic = {
		.type = MADT_X2APIC,
		.length = sizeof(x2apic),
		.apic_id = id,
		.flags = MADT_ENABLED,
		.uid = id,
	};

	if (id <= LAPIC_ID_MAX)
		append(writer, &lapic, sizeof(lapic));
	else
		append(writer, &x2apic, sizeof(x2apic));
}

/* KVM wires ISA IRQ n to GSI n, so only the level-triggered SCI needs an override. */
static void append_madt_interrupts(struct writer *writer)
{
	const struct madt_ioapic ioapic = {
		.type = MADT_IOAPIC, .length = sizeof(ioapic), .gpa = LAYOUT_IOAPIC
	};
	const struct madt_override sci = {
		.type = MADT_OVERRIDE,
		.length = sizeof(sci),
		.irq = GSI_SCI,
		.gsi = GSI_SCI,
		.flags = MADT_ACTIVE_HIGH_LEVEL,
	};
	const struct madt_nmi nmi = {
		.type = MADT_NMI, .length = sizeof(nmi), .uid = MADT_ALL_CPUS, .lint = 1
	};

	append(writer, &ioapic, sizeof(ioapic));
	append(writer, &sci, sizeof(sci));
	append(writer, &nmi, sizeof(nmi));
}

static uint64_t write_madt(struct writer *writer, unsigned vcpus)
{
	uint64_t gpa = next_gpa(writer, 16);
	const struct madt_header header = {
		.header = table_header("APIC", 5, 0),
		.lapic_gpa = LAYOUT_LAPIC,
		.flags = 1,
	};

	append(writer, &header, sizeof(header));
	for (unsigned id = 0; id < vcpus; id++)
		append_madt_vcpu(writer, id);
	append_madt_interrupts(writer);
	finish_table(writer, gpa);
	return gpa;
}

static uint64_t write_mcfg(struct writer *writer)
{
	uint64_t gpa = next_gpa(writer, 16);
	const struct mcfg mcfg = {
		.header = table_header("MCFG", 1, 0),
		.ecam_gpa = LAYOUT_ECAM,
	};

	append(writer, &mcfg, sizeof(mcfg));
	finish_table(writer, gpa);
	return gpa;
}

/* First in the area, where dsdt.asl looks for it. */
static void write_parameters(struct writer *writer, const struct acpi_request *request)
{
	const struct dsdt_parameters parameters = {
		.window_first = request->pci_window_gpa,
		.window_last = request->pci_window_gpa + request->pci_window_size - 1,
		.window_size = request->pci_window_size,
	};

	append(writer, &parameters, sizeof(parameters));
}

static uint64_t write_xsdt(struct writer *writer, const uint64_t *tables, size_t count)
{
	uint64_t gpa = next_gpa(writer, 16);
	const struct acpi_header header = table_header("XSDT", 1, 0);

	append(writer, &header, sizeof(header));
	append(writer, tables, count * sizeof(tables[0]));
	finish_table(writer, gpa);
	return gpa;
}

static uint64_t write_rsdp(struct writer *writer, uint64_t xsdt_gpa)
{
	uint64_t gpa = next_gpa(writer, 16);
	struct acpi_rsdp rsdp = {
		.signature = { 'R', 'S', 'D', ' ', 'P', 'T', 'R', ' ' },
		.oem_id = { 'C', 'R', 'O', 'S', 'V', 'M' },
		.revision = 2,
		.length = sizeof(rsdp),
		.xsdt_gpa = xsdt_gpa,
	};

	rsdp.checksum = table_checksum(&rsdp, 20);
	rsdp.extended_checksum = table_checksum(&rsdp, sizeof(rsdp));
	append(writer, &rsdp, sizeof(rsdp));
	return gpa;
}

int acpi_write(const struct guest_memory *memory, const struct acpi_request *request,
	uint64_t *ret_rsdp_gpa)
{
	struct writer writer = { .room = LAYOUT_ACPI_END - LAYOUT_ACPI };

	writer.base = guest_memory_at(memory, LAYOUT_ACPI, writer.room);
	if (writer.base == NULL)
		return -ENOSPC;
	write_parameters(&writer, request);
	uint64_t facs = write_facs(&writer);
	uint64_t dsdt = write_dsdt(&writer);
	uint64_t tables[] = {
		write_fadt(&writer, facs, dsdt),
		write_madt(&writer, request->vcpus),
		write_mcfg(&writer),
	};
	uint64_t rsdp = write_rsdp(&writer, write_xsdt(&writer, tables, ARRAY_SIZE(tables)));

	if (writer.overflow)
		return -ENOSPC;
	*ret_rsdp_gpa = rsdp;
	return 0;
}
