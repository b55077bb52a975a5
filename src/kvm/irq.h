/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Interrupt messages and eventfds of a KVM machine: GSI routes for MSIs,
 * irqfds, ioeventfds. The routes of the PIC's and the IOAPIC's pins are always
 * there; messages get GSIs above them.
 *
 * Not locked: the caller sees to that. Source: Documentation/virt/kvm/api.rst,
 * KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_IOEVENTFD.
 */
#pragma once

#include "kvm/machine.h"

struct kvm_routes;

MUST_CHECK int kvm_routes_create(const struct kvm_machine *machine, struct kvm_routes **ret_routes);
void kvm_routes_free(struct kvm_routes *routes);

/* Reserves `count` GSIs in a row. 0 or -ENOSPC, -ENOMEM. */
MUST_CHECK int kvm_routes_allocate(struct kvm_routes *routes, unsigned count, unsigned *ret_gsi);
/* What the GSI sends after the next commit. */
void kvm_routes_set(struct kvm_routes *routes, unsigned gsi, uint64_t address, uint32_t data);
MUST_CHECK int kvm_routes_commit(struct kvm_routes *routes);

/* A signal of the eventfd raises the GSI, from now on or no longer. */
MUST_CHECK int kvm_machine_irqfd(
	const struct kvm_machine *machine, unsigned gsi, int eventfd, bool attach);
/* A write of any size at `gpa` signals the eventfd, from now on or no longer. */
MUST_CHECK int kvm_machine_ioeventfd(
	const struct kvm_machine *machine, uint64_t gpa, int eventfd, bool attach);
