// SPDX-License-Identifier: BSD-3-Clause
/*
 * Joins eventfds with KVM. Called for whatever the guest does with MSI-X and
 * BARs, from all vCPU threads; one mutex serialises the routing table.
 */
#include "vm/fabric.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "kvm/irq.h"

struct vm_fabric {
	const struct kvm_machine *machine;
	struct evloop *loop;
	pthread_mutex_t lock; /* all below */
	struct kvm_routes *routes;
	bool config_mapped;
	unsigned config_slot;
	uint64_t config_gpa;
};

static int allocate_gsis(void *owner, unsigned count, unsigned *ret_gsi)
{
	struct vm_fabric *fabric = owner;

	pthread_mutex_lock(&fabric->lock);
	int r = kvm_routes_allocate(fabric->routes, count, ret_gsi);

	pthread_mutex_unlock(&fabric->lock);
	return r;
}

static void set_message(void *owner, unsigned gsi, uint64_t address, uint32_t data)
{
	struct vm_fabric *fabric = owner;

	pthread_mutex_lock(&fabric->lock);
	kvm_routes_set(fabric->routes, gsi, address, data);
	pthread_mutex_unlock(&fabric->lock);
}

static int commit_messages(void *owner)
{
	struct vm_fabric *fabric = owner;

	pthread_mutex_lock(&fabric->lock);
	int r = kvm_routes_commit(fabric->routes);

	pthread_mutex_unlock(&fabric->lock);
	return r;
}

static int attach_interrupt(void *owner, unsigned gsi, int eventfd)
{
	return kvm_machine_irqfd(((struct vm_fabric *)owner)->machine, gsi, eventfd, true);
}

static int detach_interrupt(void *owner, unsigned gsi, int eventfd)
{
	return kvm_machine_irqfd(((struct vm_fabric *)owner)->machine, gsi, eventfd, false);
}

static int attach_doorbell(void *owner, uint64_t gpa, int eventfd)
{
	return kvm_machine_ioeventfd(((struct vm_fabric *)owner)->machine, gpa, eventfd, true);
}

static int detach_doorbell(void *owner, uint64_t gpa, int eventfd)
{
	return kvm_machine_ioeventfd(((struct vm_fabric *)owner)->machine, gpa, eventfd, false);
}

static int watch(void *owner, int eventfd, void (*function)(void *argument), void *argument)
{
	return evloop_add(((struct vm_fabric *)owner)->loop, eventfd, function, argument);
}

static void unwatch(void *owner, int eventfd)
{
	evloop_remove(((struct vm_fabric *)owner)->loop, eventfd);
}

static void trap_config_reads(void *owner)
{
	struct vm_fabric *fabric = owner;

	pthread_mutex_lock(&fabric->lock);
	if (fabric->config_mapped)
		(void)!kvm_machine_add_readonly_memory(
			fabric->machine, fabric->config_slot, fabric->config_gpa, 0, NULL);
	fabric->config_mapped = false;
	pthread_mutex_unlock(&fabric->lock);
}

void vm_fabric_map_config(
	struct vm_fabric *fabric, unsigned slot, uint64_t gpa, uint64_t size, void *hva)
{
	fabric->config_slot = slot;
	fabric->config_gpa = gpa;
	fabric->config_mapped =
		kvm_machine_add_readonly_memory(fabric->machine, slot, gpa, size, hva) == 0;
}

static const struct fabric_ops vm_fabric_ops = {
	.allocate_gsis = allocate_gsis,
	.set_message = set_message,
	.commit_messages = commit_messages,
	.attach_interrupt = attach_interrupt,
	.detach_interrupt = detach_interrupt,
	.attach_doorbell = attach_doorbell,
	.detach_doorbell = detach_doorbell,
	.watch = watch,
	.unwatch = unwatch,
	.trap_config_reads = trap_config_reads,
};

int vm_fabric_create(
	const struct kvm_machine *machine, struct evloop *loop, struct vm_fabric **ret_fabric)
{
	struct vm_fabric *fabric = calloc(1, sizeof(*fabric));

	if (fabric == NULL)
		return -ENOMEM;
	fabric->machine = machine;
	fabric->loop = loop;
	int r = kvm_routes_create(machine, &fabric->routes);

	if (r < 0) {
		free(fabric);
		return r;
	}
	pthread_mutex_init(&fabric->lock, NULL);
	*ret_fabric = fabric;
	return 0;
}

void vm_fabric_free(struct vm_fabric *fabric)
{
	if (fabric == NULL)
		return;
	kvm_routes_free(fabric->routes);
	pthread_mutex_destroy(&fabric->lock);
	free(fabric);
}

struct fabric vm_fabric_get(struct vm_fabric *fabric)
{
	return (struct fabric){ .ops = &vm_fabric_ops, .owner = fabric };
}
