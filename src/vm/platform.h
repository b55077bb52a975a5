/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fixed devices of the machine and the two buses they sit on: a serial port,
 * CMOS with the clock, i8042, ACPI power management.
 *
 * Created before any vCPU runs, by the thread of vCPU 0, and freed by the main
 * thread; vCPU threads bring the accesses.
 */
#pragma once

#include "base/evloop.h"
#include "base/util.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "bus/serial.h"
#include "kvm/machine.h"
#include "memory/guest_memory.h"
#include "vm/lifecycle.h"

struct platform;

/*
 * `com1` is what COM1 talks to; NULL makes it a sink. `loop` calls the clock's
 * alarms, and must not run while the platform is freed. The platform keeps pointers to all
 * arguments. 0 or -errno.
 */
MUST_CHECK int platform_create(const struct kvm_machine *machine, const struct guest_memory *memory,
	struct lifecycle *lifecycle, const struct serial_backend *com1, struct evloop *loop,
	struct platform **ret_platform);
void platform_free(struct platform *platform);

struct bus *platform_ports(struct platform *platform);
struct bus *platform_mmio(struct platform *platform);
struct serial *platform_com1(struct platform *platform);

/*
 * Ports whose writing means nothing until another port of the device is
 * accessed, or at all, so that it may wait for the guest's next exit.
 */
struct port_range {
	uint16_t port;
	uint16_t size;
};
const struct port_range *platform_quiet_ports(size_t *ret_count);

/* The interrupt line that INTA of a PCI slot pulls. */
struct irq_line platform_pci_intx(struct platform *platform, unsigned slot);

/* Presses the ACPI power button. Any thread. */
void platform_press_power_button(struct platform *platform);
