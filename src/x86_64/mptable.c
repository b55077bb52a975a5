// SPDX-License-Identifier: BSD-3-Clause
/* The MP table. Its only input is the number of vCPUs, which is checked. */
#include "x86_64/mptable.h"

#include <errno.h>
#include <string.h>

#include "x86_64/checksum.h"
#include "x86_64/layout.h"

#define PACKED __attribute__((packed))

enum { MP_VCPUS_MAX = 255, ISA_IRQS = 16 };

struct PACKED mp_pointer {
	char signature[4];
	uint32_t table_gpa;
	uint8_t length; /* in units of 16 bytes */
	uint8_t version;
	uint8_t checksum;
	uint8_t features[5];
};

struct PACKED mp_header {
	char signature[4];
	uint16_t length;
	uint8_t version;
	uint8_t checksum;
	char oem_id[8];
	char product_id[12];
	uint32_t oem_table;
	uint16_t oem_table_size;
	uint16_t entries;
	uint32_t lapic_gpa;
	uint32_t extended;
};

struct PACKED mp_processor {
	uint8_t type, apic_id, apic_version, flags;
	uint32_t signature, features;
	uint32_t reserved[2];
};

struct PACKED mp_bus {
	uint8_t type, id;
	char name[6];
};

struct PACKED mp_ioapic {
	uint8_t type, id, version, flags;
	uint32_t gpa;
};

struct PACKED mp_interrupt {
	uint8_t type, kind;
	uint16_t flags;
	uint8_t source_bus, source_irq, target_id, target_pin;
};

enum { MP_PROCESSOR, MP_BUS, MP_IOAPIC, MP_IO_INTERRUPT, MP_LOCAL_INTERRUPT };
enum { MP_CPU_ENABLED = 1, MP_CPU_BOOTSTRAP = 2, MP_IOAPIC_ENABLED = 1 };
enum { MP_INT_VECTORED, MP_INT_NMI = 1, MP_INT_EXTINT = 3 };
enum { MP_ALL_LAPICS = 0xff, APIC_VERSION = 0x14, IOAPIC_VERSION = 0x11 };

struct PACKED mp_table {
	struct mp_header header;
	/* The processors vary in number, so they are written apart. */
	struct mp_processor processors[MP_VCPUS_MAX];
};

/* What follows the processors. */
struct PACKED mp_tail {
	struct mp_bus isa;
	struct mp_ioapic ioapic;
	struct mp_interrupt irqs[ISA_IRQS];
	struct mp_interrupt lint0, lint1;
};

enum { MP_TAIL_ENTRIES = 2 + ISA_IRQS + 2 };

static struct mp_tail make_tail(unsigned vcpus)
{
	/* IOAPIC and LAPIC ids must differ where the ids allow it. */
	uint8_t ioapic_id = vcpus < MP_VCPUS_MAX ? (uint8_t)vcpus : 0;
	struct mp_tail tail = {
		.isa = { .type = MP_BUS, .name = { 'I', 'S', 'A', ' ', ' ', ' ' } },
		.ioapic = { MP_IOAPIC, ioapic_id, IOAPIC_VERSION, MP_IOAPIC_ENABLED,
			LAYOUT_IOAPIC },
		.lint0 = { .type = MP_LOCAL_INTERRUPT, .kind = MP_INT_EXTINT },
		.lint1 = { .type = MP_LOCAL_INTERRUPT,
			.kind = MP_INT_NMI,
			.target_id = MP_ALL_LAPICS,
			.target_pin = 1 },
	};

	for (unsigned irq = 0; irq < ISA_IRQS; irq++)
		tail.irqs[irq] = (struct mp_interrupt){
			.type = MP_IO_INTERRUPT,
			.kind = MP_INT_VECTORED,
			.source_irq = (uint8_t)irq,
			.target_id = ioapic_id,
			.target_pin = (uint8_t)irq,
		};
	return tail;
}

static int write_pointer(const struct guest_memory *memory)
{
	struct mp_pointer pointer = {
		.signature = { '_', 'M', 'P', '_' },
		.table_gpa = LAYOUT_MPTABLE,
		.length = 1,
		.version = 4,
	};

	pointer.checksum = table_checksum(&pointer, sizeof(pointer));
	return guest_memory_write(memory, LAYOUT_EBDA, &pointer, sizeof(pointer));
}

int mptable_write(const struct guest_memory *memory, unsigned vcpus)
{
	unsigned listed = vcpus < MP_VCPUS_MAX ? vcpus : MP_VCPUS_MAX;
	size_t processors_size = listed * sizeof(struct mp_processor);
	size_t length = sizeof(struct mp_header) + processors_size + sizeof(struct mp_tail);
	struct mp_table *table = guest_memory_at(memory, LAYOUT_MPTABLE, length);
	const struct mp_tail tail = make_tail(listed);

	/* 255 processors fit: a check of the constants, not of any input. */
	if (table == NULL || LAYOUT_MPTABLE + length > LAYOUT_BIOS_END)
		return -ENOSPC;
	table->header = (struct mp_header){
		.signature = { 'P', 'C', 'M', 'P' },
		.length = (uint16_t)length,
		.version = 4,
		.oem_id = { 'C', 'R', 'O', 'S', 'V', 'M', ' ', ' ' },
		.product_id = { 'C', 'R', 'O', 'S', 'V', 'M', ' ', ' ', ' ', ' ', ' ', ' ' },
		.entries = (uint16_t)(listed + MP_TAIL_ENTRIES),
		.lapic_gpa = LAYOUT_LAPIC,
	};
	for (unsigned id = 0; id < listed; id++)
		table->processors[id] = (struct mp_processor){
			.type = MP_PROCESSOR,
			.apic_id = (uint8_t)id,
			.apic_version = APIC_VERSION,
			.flags = MP_CPU_ENABLED | (id == 0 ? MP_CPU_BOOTSTRAP : 0),
			.features = 0x201, /* FPU and APIC */
		};
	memcpy((uint8_t *)table->processors + processors_size, &tail, sizeof(tail));
	table->header.checksum = table_checksum(table, length);
	return write_pointer(memory);
}
