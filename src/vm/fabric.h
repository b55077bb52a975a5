/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bus/fabric.h on top of KVM and the control loop's event loop.
 */
#pragma once

#include "base/evloop.h"
#include "bus/fabric.h"
#include "kvm/machine.h"

struct vm_fabric;

/* Keeps pointers to both. 0 or -errno. Free after all devices. */
MUST_CHECK int vm_fabric_create(
	const struct kvm_machine *machine, struct evloop *loop, struct vm_fabric **ret_fabric);
void vm_fabric_free(struct vm_fabric *fabric);

/*
 * Lets the guest read `size` bytes of PCI config space at `gpa` by itself, in
 * memory slot `slot`, if KVM can. Before the vCPUs.
 */
void vm_fabric_map_config(
	struct vm_fabric *fabric, unsigned slot, uint64_t gpa, uint64_t size, void *hva);

/* What devices get. */
struct fabric vm_fabric_get(struct vm_fabric *fabric);
