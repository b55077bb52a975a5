// SPDX-License-Identifier: BSD-3-Clause
/*
 * GSI routes, irqfds and ioeventfds. Addresses and data of messages are the
 * guest's; KVM copes with any that kvm_routes_set() makes of them.
 */
#include "kvm/irq.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>

enum { PIC_PINS = 8, IOAPIC_PINS = 24, PIN_ROUTES = 2 * PIC_PINS + IOAPIC_PINS };
/* KVM takes 4096 GSIs. */
enum { FIRST_MESSAGE_GSI = IOAPIC_PINS, GSIS_MAX = 4096 };
/*
 * Bits 8 to 14 of a destination are bits 5 to 11 of a message's address, for guests that know
 * KVM_FEATURE_MSI_EXT_DEST_ID; KVM wants them in the upper half, from bit 8 on, and refuses the
 * whole table when other bits of that half are set. A PC's messages have none there.
 * Sources: Documentation/virt/kvm/x86/cpuid.rst, api.rst (KVM_CAP_X2APIC_API)
 */
enum { EXT_DEST_MASK = 0xfe0, EXT_DEST_SHIFT = 3 };

struct kvm_routes {
	const struct kvm_machine *machine;
	unsigned messages;             /* reserved GSIs from FIRST_MESSAGE_GSI on */
	struct kvm_irq_routing *table; /* pins, then the messages */
};

static struct kvm_irq_routing_entry pin_route(unsigned gsi, uint32_t chip, uint32_t pin)
{
	return (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { .irqchip = chip, .pin = pin },
	};
}

/* The routes that KVM_CREATE_IRQCHIP makes, which our table replaces. */
static void add_pins(struct kvm_irq_routing *table)
{
	for (unsigned i = 0; i < 2 * PIC_PINS; i++)
		table->entries[table->nr++] =
			pin_route(i, i < PIC_PINS ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
				i % PIC_PINS);
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		table->entries[table->nr++] = pin_route(i, KVM_IRQCHIP_IOAPIC, i);
}

static size_t table_size(unsigned messages)
{
	return sizeof(struct kvm_irq_routing) +
	       (PIN_ROUTES + messages) * sizeof(struct kvm_irq_routing_entry);
}

int kvm_routes_create(const struct kvm_machine *machine, struct kvm_routes **ret_routes)
{
	struct kvm_routes *routes = calloc(1, sizeof(*routes));
	struct kvm_irq_routing *table = calloc(1, table_size(0));

	if (routes == NULL || table == NULL) {
		free(routes);
		free(table);
		return -ENOMEM;
	}
	add_pins(table);
	*routes = (struct kvm_routes){ .machine = machine, .table = table };
	*ret_routes = routes;
	return 0;
}

void kvm_routes_free(struct kvm_routes *routes)
{
	if (routes == NULL)
		return;
	free(routes->table);
	free(routes);
}

int kvm_routes_allocate(struct kvm_routes *routes, unsigned count, unsigned *ret_gsi)
{
	unsigned messages = routes->messages + count;

	if (FIRST_MESSAGE_GSI + messages > GSIS_MAX)
		return -ENOSPC;
	struct kvm_irq_routing *table = realloc(routes->table, table_size(messages));

	if (table == NULL)
		return -ENOMEM;
	routes->table = table;
	*ret_gsi = FIRST_MESSAGE_GSI + routes->messages;
	for (unsigned i = 0; i < count; i++)
		table->entries[table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = *ret_gsi + i,
			.type = KVM_IRQ_ROUTING_MSI,
		};
	routes->messages = messages;
	return 0;
}

void kvm_routes_set(struct kvm_routes *routes, unsigned gsi, uint64_t address, uint32_t data)
{
	struct kvm_irq_routing_entry *entry =
		&routes->table->entries[PIN_ROUTES + gsi - FIRST_MESSAGE_GSI];

	entry->u.msi.address_lo = (uint32_t)address & ~EXT_DEST_MASK;
	entry->u.msi.address_hi = ((uint32_t)address & EXT_DEST_MASK) << EXT_DEST_SHIFT;
	entry->u.msi.data = data;
}

int kvm_routes_commit(struct kvm_routes *routes)
{
	return ioctl(routes->machine->fd, KVM_SET_GSI_ROUTING, routes->table) < 0 ? -errno : 0;
}

int kvm_machine_irqfd(const struct kvm_machine *machine, unsigned gsi, int eventfd, bool attach)
{
	struct kvm_irqfd irqfd = {
		.fd = (uint32_t)eventfd,
		.gsi = gsi,
		.flags = attach ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	return ioctl(machine->fd, KVM_IRQFD, &irqfd) < 0 ? -errno : 0;
}

int kvm_machine_ioeventfd(const struct kvm_machine *machine, uint64_t gpa, int eventfd, bool attach)
{
	/* Length 0: any size and value, which KVM answers without decoding the instruction. */
	struct kvm_ioeventfd ioeventfd = {
		.addr = gpa,
		.fd = eventfd,
		.flags = attach ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
	};

	return ioctl(machine->fd, KVM_IOEVENTFD, &ioeventfd) < 0 ? -errno : 0;
}
