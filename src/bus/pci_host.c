// SPDX-License-Identifier: BSD-3-Clause
/*
 * Bus 0. The guest writes any register with any value at any time, from all
 * vCPUs: BARs may be moved out of the window or onto each other, and then they
 * answer nowhere until their place is good.
 */
#include "bus/pci_host.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HEADER_MULTIFUNCTION = 0x80 };
/* Slot 0 is where others have a bridge to look at; ours is in ACPI alone, and costs no exit. */
enum { FIRST_DEVFN = 8 };

struct pci_host {
	uint64_t window_gpa;
	uint64_t window_size;
	uint64_t window_used; /* bytes handed out to BARs at start */
	uint8_t *ecam;        /* PCI_ECAM_SIZE bytes; only pages of devices are touched */
	unsigned stride;      /* from one device's devfn to the next */
	unsigned next_devfn;  /* behind all devices */
	struct pci_device *devices[PCI_FUNCTIONS]; /* by devfn; NULL: nothing there */
	/* Order: config_lock, then window_lock. Devices' own locks come after both. */
	pthread_mutex_t config_lock;  /* config registers and their side effects */
	pthread_rwlock_t window_lock; /* bar_gpas of all devices */
};

int pci_host_create(
	uint64_t window_gpa, uint64_t window_size, unsigned devices, struct pci_host **ret_host)
{
	struct pci_host *host = calloc(1, sizeof(*host));

	if (host == NULL)
		return -ENOMEM;
	host->ecam = mmap(NULL, PCI_ECAM_SIZE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (host->ecam == MAP_FAILED) {
		int error = errno;

		free(host);
		return -error;
	}
	host->window_gpa = window_gpa;
	host->window_size = window_size;
	pthread_mutex_init(&host->config_lock, NULL);
	pthread_rwlock_init(&host->window_lock, NULL);
	host->stride = devices < PCI_SLOTS ? 8 : 1;
	host->next_devfn = FIRST_DEVFN;
	/* The guest reads this by itself: nobody there. It asks for no more of the slot then. */
	memset(host->ecam, 0xff, PCI_CONFIG_SIZE);
	*ret_host = host;
	return 0;
}

void pci_host_free(struct pci_host *host)
{
	if (host == NULL)
		return;
	munmap(host->ecam, PCI_ECAM_SIZE);
	pthread_mutex_destroy(&host->config_lock);
	pthread_rwlock_destroy(&host->window_lock);
	free(host);
}

static void set_bar_register(struct pci_device *device, unsigned bar, uint64_t gpa)
{
	unsigned offset = PCI_BASE_ADDRESS_0 + bar * 4;

	pci_set32(device->config, offset,
		(uint32_t)gpa | PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH);
	pci_set32(device->config, offset + 4, (uint32_t)(gpa >> 32));
}

static uint64_t get_bar_register(const struct pci_device *device, unsigned bar)
{
	unsigned offset = PCI_BASE_ADDRESS_0 + bar * 4;

	return ((uint64_t)pci_get32(device->config, offset + 4) << 32 |
		       pci_get32(device->config, offset)) &
	       ~UINT64_C(0xf);
}

/*
 * The address bits of a BAR above its size are writable, so that sizing works. It
 * does not answer yet: a driver turns that on, and Linux would turn it off and on
 * again for each BAR whose size it asks.
 */
static void place_bar(struct pci_host *host, struct pci_device *device, unsigned bar)
{
	uint64_t size = device->bar_sizes[bar];
	unsigned offset = PCI_BASE_ADDRESS_0 + bar * 4;

	host->window_used = align_up(host->window_used, size);
	set_bar_register(device, bar, host->window_gpa + host->window_used);
	host->window_used += size;
	pci_set32(device->writable, offset, (uint32_t) ~(size - 1));
	pci_set32(device->writable, offset + 4, (uint32_t)(~(size - 1) >> 32));
}

int pci_host_add(struct pci_host *host, struct pci_device *device, unsigned *ret_devfn)
{
	unsigned devfn = host->next_devfn;
	uint64_t needed = 0;

	for (unsigned bar = 0; bar < PCI_BARS; bar++)
		needed += 2 * device->bar_sizes[bar]; /* with the worst alignment */
	if (devfn >= PCI_FUNCTIONS || needed > host->window_size - host->window_used)
		return -ENOSPC;
	device->config = host->ecam + (size_t)devfn * PCI_ECAM_FUNCTION_SIZE;
	for (unsigned bar = 0; bar < PCI_BARS; bar++)
		if (device->bar_sizes[bar] != 0)
			place_bar(host, device, bar);
	pci_set16(device->writable, PCI_COMMAND,
		PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	device->writable[PCI_INTERRUPT_LINE] = 0xff;
	if (devfn % 8 != 0)
		host->devices[devfn & ~7u]->config[PCI_HEADER_TYPE] |= HEADER_MULTIFUNCTION;
	host->devices[devfn] = device;
	host->next_devfn += host->stride;
	*ret_devfn = devfn;
	return 0;
}

uint8_t *pci_host_ecam(struct pci_host *host, uint64_t *ret_size)
{
	unsigned devfn = PCI_FUNCTIONS;

	while (devfn > 0 && host->devices[devfn - 1] == NULL)
		devfn--;
	*ret_size = (uint64_t)devfn * PCI_ECAM_FUNCTION_SIZE;
	return host->ecam;
}

/* The config register that an ECAM offset means, or NULL where there is none. */
static struct pci_device *find_config(
	struct pci_host *host, uint64_t ecam_offset, unsigned size, unsigned *ret_register)
{
	uint64_t offset = ecam_offset % PCI_ECAM_FUNCTION_SIZE;

	if (offset >= PCI_CONFIG_SIZE || size > PCI_CONFIG_SIZE - offset)
		return NULL;
	*ret_register = (unsigned)offset;
	return host->devices[ecam_offset / PCI_ECAM_FUNCTION_SIZE];
}

static void ecam_read(void *owner, uint64_t offset, uint8_t *data, unsigned size)
{
	struct pci_host *host = owner;
	unsigned reg;
	struct pci_device *device = find_config(host, offset, size, &reg);

	if (device == NULL)
		return; /* the bus has filled in ones */
	pthread_mutex_lock(&host->config_lock);
	if (device->ops->config_read != NULL)
		device->ops->config_read(device->owner, reg, size);
	/* Its owner changes read-only bytes at any time (PCI_STATUS), with its own lock. */
	for (unsigned i = 0; i < size; i++)
		data[i] = __atomic_load_n(&device->config[reg + i], __ATOMIC_RELAXED);
	pthread_mutex_unlock(&host->config_lock);
}

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b ? b - a < a_size : a - b < b_size;
}

/* Whether a BAR may answer at `gpa`: inside the window and on no other BAR. */
static bool bar_fits(
	struct pci_host *host, const struct pci_device *device, unsigned bar, uint64_t gpa)
{
	uint64_t size = device->bar_sizes[bar];

	if (gpa < host->window_gpa || gpa - host->window_gpa > host->window_size ||
		size > host->window_size - (gpa - host->window_gpa))
		return false;
	for (unsigned devfn = 0; devfn < host->next_devfn; devfn++) {
		const struct pci_device *other = host->devices[devfn];

		for (unsigned i = 0; other != NULL && i < PCI_BARS; i++)
			if ((other != device || i != bar) && other->bar_gpas[i] != 0 &&
				overlap(gpa, size, other->bar_gpas[i], other->bar_sizes[i]))
				return false;
	}
	return true;
}

/*
 * Lets a BAR answer where its register says, if the guest enabled it and the
 * place is good. True when that is somewhere else than before.
 */
static bool update_bar(struct pci_host *host, struct pci_device *device, unsigned bar)
{
	bool enabled = (pci_get16(device->config, PCI_COMMAND) & PCI_COMMAND_MEMORY) != 0;
	uint64_t gpa = get_bar_register(device, bar);
	uint64_t before = device->bar_gpas[bar];

	if (!enabled || (gpa != before && !bar_fits(host, device, bar, gpa)))
		gpa = 0;
	if (gpa == before)
		return false;
	pthread_rwlock_wrlock(&host->window_lock);
	device->bar_gpas[bar] = gpa;
	pthread_rwlock_unlock(&host->window_lock);
	if (device->ops->bar_moved != NULL)
		device->ops->bar_moved(device->owner, bar, gpa);
	return true;
}

static bool update_bars(struct pci_host *host, struct pci_device *device)
{
	bool moved = false;

	for (unsigned bar = 0; bar < PCI_BARS; bar++)
		if (device->bar_sizes[bar] != 0 && update_bar(host, device, bar))
			moved = true;
	return moved;
}

/* The place that a BAR left may be what another one waits for. */
static void update_all_bars(struct pci_host *host)
{
	for (unsigned devfn = 0; devfn < host->next_devfn; devfn++)
		if (host->devices[devfn] != NULL)
			(void)update_bars(host, host->devices[devfn]);
}

static void ecam_write(void *owner, uint64_t offset, const uint8_t *data, unsigned size)
{
	struct pci_host *host = owner;
	unsigned reg;
	struct pci_device *device = find_config(host, offset, size, &reg);

	if (device == NULL)
		return;
	pthread_mutex_lock(&host->config_lock);
	for (unsigned i = 0; i < size; i++) {
		uint8_t mask = device->writable[reg + i];

		if (mask != 0)
			device->config[reg + i] =
				(uint8_t)((device->config[reg + i] & ~mask) | (data[i] & mask));
	}
	if (update_bars(host, device))
		update_all_bars(host);
	if (device->ops->config_written != NULL)
		device->ops->config_written(device->owner, reg, size);
	pthread_mutex_unlock(&host->config_lock);
}

const struct bus_ops pci_ecam_bus_ops = { .read = ecam_read, .write = ecam_write };

/* The device and BAR that answer at an address of the window; the lock is not kept. */
static struct pci_device *find_bar(struct pci_host *host, uint64_t window_offset, unsigned size,
	unsigned *ret_bar, uint64_t *ret_offset)
{
	uint64_t gpa = host->window_gpa + window_offset;
	struct pci_device *found = NULL;

	pthread_rwlock_rdlock(&host->window_lock);
	for (unsigned devfn = 0; found == NULL && devfn < host->next_devfn; devfn++) {
		struct pci_device *device = host->devices[devfn];

		for (unsigned bar = 0; device != NULL && bar < PCI_BARS; bar++) {
			uint64_t base = device->bar_gpas[bar];
			uint64_t bar_size = device->bar_sizes[bar];

			if (base == 0 || gpa < base || gpa - base >= bar_size ||
				size > bar_size - (gpa - base))
				continue;
			found = device;
			*ret_bar = bar;
			*ret_offset = gpa - base;
		}
	}
	pthread_rwlock_unlock(&host->window_lock);
	return found;
}

static void window_read(void *owner, uint64_t offset, uint8_t *data, unsigned size)
{
	unsigned bar = 0;
	uint64_t bar_offset = 0;
	struct pci_device *device = find_bar(owner, offset, size, &bar, &bar_offset);

	if (device != NULL)
		device->ops->bar_read(device->owner, bar, bar_offset, data, size);
}

static void window_write(void *owner, uint64_t offset, const uint8_t *data, unsigned size)
{
	unsigned bar = 0;
	uint64_t bar_offset = 0;
	struct pci_device *device = find_bar(owner, offset, size, &bar, &bar_offset);

	if (device != NULL)
		device->ops->bar_write(device->owner, bar, bar_offset, data, size);
}

const struct bus_ops pci_window_bus_ops = { .read = window_read, .write = window_write };
