// SPDX-License-Identifier: BSD-3-Clause
/*
 * Proofs of bus/pci_host.c, for a bus of two functions with BARs of any size
 * that is a power of two, anywhere.
 *
 *  K19  a BAR that fits is in the window and shares no byte with another one
 *  K20  an access of the window reaches a BAR only wholly inside of it
 *  K21  an access of ECAM reaches a register only wholly inside of config space
 */
#include <stdint.h>

#include "bus/pci_host.h"

/* Loops over functions are the same for two of them. */
#define PCI_FUNCTIONS 2
#include "bus/pci_host.c"

bool nondet_bool(void);
unsigned nondet_unsigned(void);
uint64_t nondet_u64(void);

#define ASSUME(condition)      __CPROVER_assume(condition)
#define PROVE(name, condition) __CPROVER_assert(condition, name)

enum { PROVED_FUNCTIONS = 2, PROVED_BARS = 6 };

static struct pci_device model_devices[PROVED_FUNCTIONS];
static struct pci_host model_host;

static bool is_power_of_two(uint64_t value)
{
	return value != 0 && (value & (value - 1)) == 0;
}

/* Any BARs where update_bar() may have left them: in the window or nowhere. */
static void any_host(void)
{
	model_host.next_devfn = PROVED_FUNCTIONS;
	model_host.window_gpa = nondet_u64();
	model_host.window_size = nondet_u64();
	ASSUME(model_host.window_gpa != 0);
	ASSUME(model_host.window_gpa <= UINT64_MAX - model_host.window_size);
	for (unsigned f = 0; f < PROVED_FUNCTIONS; f++) {
		for (unsigned bar = 0; bar < PROVED_BARS; bar++) {
			uint64_t size = bar % 2 == 0 ? nondet_u64() : 0;
			uint64_t gpa = size != 0 ? nondet_u64() : 0;

			ASSUME(size == 0 || (is_power_of_two(size) && size >= 16));
			ASSUME(size <= model_host.window_size);
			ASSUME(gpa == 0 || (gpa >= model_host.window_gpa &&
						   gpa - model_host.window_gpa <=
							   model_host.window_size - size));
			model_devices[f].bar_sizes[bar] = size;
			model_devices[f].bar_gpas[bar] = gpa;
		}
		model_host.devices[f] = f == 0 || nondet_bool() ? &model_devices[f] : NULL;
	}
}

static bool has_byte(const struct pci_device *device, unsigned bar, uint64_t byte)
{
	uint64_t base = device->bar_gpas[bar];

	return base != 0 && byte >= base && byte - base < device->bar_sizes[bar];
}

void prove_bar_fits(void)
{
	unsigned bar = nondet_unsigned(), other = nondet_unsigned(), other_bar = nondet_unsigned();
	uint64_t gpa = nondet_u64(), byte = nondet_u64();

	any_host();
	ASSUME(bar < PROVED_BARS && other < PROVED_FUNCTIONS && other_bar < PROVED_BARS);
	struct pci_device *device = &model_devices[0];
	uint64_t size = device->bar_sizes[bar];

	ASSUME(size != 0 && gpa % size == 0);
	bool fits = bar_fits(&model_host, device, bar, gpa);

	ASSUME(byte < size);
	PROVE("K19 in the window",
		!fits || (gpa >= model_host.window_gpa && gpa + byte >= gpa &&
				 gpa + byte - model_host.window_gpa < model_host.window_size));
	if (model_host.devices[other] == NULL || (other == 0 && other_bar == bar))
		return;
	PROVE("K19 on no other",
		!fits || !has_byte(model_host.devices[other], other_bar, gpa + byte));
}

/* The other way round: what is free and in the window is not refused. */
void prove_bar_is_not_refused(void)
{
	unsigned bar = nondet_unsigned();
	uint64_t gpa = nondet_u64();

	any_host();
	ASSUME(bar < PROVED_BARS);
	struct pci_device *device = &model_devices[0];
	uint64_t size = device->bar_sizes[bar];

	ASSUME(size != 0 && gpa >= model_host.window_gpa);
	ASSUME(gpa - model_host.window_gpa <= model_host.window_size - size);
	for (unsigned f = 0; f < PROVED_FUNCTIONS; f++)
		for (unsigned i = 0; i < PROVED_BARS; i++)
			ASSUME(model_host.devices[f] == NULL || (f == 0 && i == bar) ||
				model_devices[f].bar_gpas[i] == 0 ||
				(model_devices[f].bar_gpas[i] > gpa
						? model_devices[f].bar_gpas[i] - gpa >= size
						: gpa - model_devices[f].bar_gpas[i] >=
							  model_devices[f].bar_sizes[i]));
	PROVE("K19 a free place is taken", bar_fits(&model_host, device, bar, gpa));
}

void prove_find_bar(void)
{
	uint64_t window_offset = nondet_u64(), offset = 0;
	unsigned bar = 0;
	unsigned size = 1u << (nondet_unsigned() & 3);

	any_host();
	ASSUME(size <= model_host.window_size && window_offset <= model_host.window_size - size);
	struct pci_device *device = find_bar(&model_host, window_offset, size, &bar, &offset);

	if (device == NULL)
		return;
	PROVE("K20 a BAR", bar < PROVED_BARS && device->bar_sizes[bar] != 0);
	PROVE("K20 inside of it",
		offset < device->bar_sizes[bar] && size <= device->bar_sizes[bar] - offset);
	PROVE("K20 the right byte",
		device->bar_gpas[bar] + offset == model_host.window_gpa + window_offset);
}

void prove_find_config(void)
{
	uint64_t offset = nondet_u64();
	unsigned size = 1u << (nondet_unsigned() & 3), reg = 0;

	any_host();
	/* The bus lets nothing else through: an access of the range that was added. */
	ASSUME(offset <= PROVED_FUNCTIONS * PCI_ECAM_FUNCTION_SIZE - size);
	const struct pci_device *device = find_config(&model_host, offset, size, &reg);

	PROVE("K21 inside of config space",
		device == NULL || (reg < PCI_CONFIG_SIZE && size <= PCI_CONFIG_SIZE - reg));
}
