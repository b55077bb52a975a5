// SPDX-License-Identifier: BSD-3-Clause
/*
 * ACPI fixed hardware. Every register fits in bytes, so an access of any width
 * is a read of an image of all registers, or a write of one byte after the
 * other. Offsets, widths and values come from the guest.
 */
#include "bus/acpi_pm.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

enum {
	/* PM1 status and enable: the same bits */
	PM1_TIMER = 1 << 0,
	PM1_GLOBAL = 1 << 5,
	PM1_POWER_BUTTON = 1 << 8,
	PM1_SLEEP_BUTTON = 1 << 9,
	PM1_RTC = 1 << 10,
	PM1_ENABLE_MASK = PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC,
	/* PM1 control */
	PM1_SCI_EN = 1 << 0,
	/* the high byte of PM1 control */
	PM1_SLP_TYP_SHIFT = 2,
	PM1_SLP_TYP_MASK = 7,
	PM1_SLP_EN = 1 << 5,
	SLEEP_TYPE_OFF = 5, /* _S5 in the DSDT */

	RESET_CPU = 1 << 2,
};

#define PM_TIMER_HZ 3579545

struct acpi_pm {
	struct irq_line sci;
	struct power_sink power;
	uint64_t created_ns;
	pthread_mutex_t mutex; /* guards what follows */
	uint16_t status;
	uint16_t enable;
	bool sci_level;
	bool ended; /* power off or reset was requested */
	bool bad_sleep_logged;
};

/* Seconds and the rest apart, for the product of both would not fit. */
static uint32_t timer_ticks(uint64_t ns)
{
	return (uint32_t)(ns / NS_PER_S * PM_TIMER_HZ + ns % NS_PER_S * PM_TIMER_HZ / NS_PER_S);
}

static void update_sci(struct acpi_pm *pm)
{
	bool level = (pm->status & pm->enable) != 0;

	if (level == pm->sci_level)
		return;
	pm->sci_level = level;
	irq_line_set(&pm->sci, level);
}

static void request_once(struct acpi_pm *pm, enum power_request request)
{
	if (pm->ended)
		return;
	pm->ended = true;
	pm->power.request(pm->power.owner, request);
}

static void enter_sleep(struct acpi_pm *pm, unsigned type)
{
	if (type == SLEEP_TYPE_OFF) {
		request_once(pm, POWER_OFF);
		return;
	}
	if (!pm->bad_sleep_logged)
		log_debug("the guest asked for sleep type %u, which there is not", type);
	pm->bad_sleep_logged = true;
}

static void acpi_pm_read(void *device, uint64_t offset, uint8_t *data, unsigned size)
{
	struct acpi_pm *pm = device;
	uint8_t image[ACPI_PM_PORT_SIZE] = { 0 };
	uint16_t control = PM1_SCI_EN;

	if (offset >= sizeof(image) || size > sizeof(image) - offset)
		return;
	uint32_t ticks = timer_ticks(clock_monotonic_ns() - pm->created_ns);

	pthread_mutex_lock(&pm->mutex);
	memcpy(image + ACPI_PM_EVENT, &pm->status, sizeof(pm->status));
	memcpy(image + ACPI_PM_EVENT + 2, &pm->enable, sizeof(pm->enable));
	pthread_mutex_unlock(&pm->mutex);
	memcpy(image + ACPI_PM_CONTROL, &control, sizeof(control));
	memcpy(image + ACPI_PM_TIMER, &ticks, sizeof(ticks));
	memcpy(data, image + offset, size);
}

static void write_byte(struct acpi_pm *pm, uint64_t offset, uint8_t value)
{
	uint16_t in_place = (uint16_t)(value << 8 * (offset % 2));
	uint16_t byte_mask = (uint16_t)(0xff << 8 * (offset % 2));

	switch (offset) {
	case ACPI_PM_EVENT:
	case ACPI_PM_EVENT + 1:
		pm->status &= (uint16_t)~in_place; /* a 1 clears */
		break;
	case ACPI_PM_EVENT + 2:
	case ACPI_PM_EVENT + 3:
		pm->enable = (pm->enable & (uint16_t)~byte_mask) | (in_place & PM1_ENABLE_MASK);
		break;
	case ACPI_PM_CONTROL + 1:
		if (value & PM1_SLP_EN)
			enter_sleep(pm, value >> PM1_SLP_TYP_SHIFT & PM1_SLP_TYP_MASK);
		break;
	default:
		break;
	}
}

static void acpi_pm_write(void *device, uint64_t offset, const uint8_t *data, unsigned size)
{
	struct acpi_pm *pm = device;

	pthread_mutex_lock(&pm->mutex);
	for (unsigned i = 0; i < size; i++)
		write_byte(pm, offset + i, data[i]);
	update_sci(pm);
	pthread_mutex_unlock(&pm->mutex);
}

static void reset_read(void *device, uint64_t offset, uint8_t *data, unsigned size)
{
	(void)device;
	(void)offset;
	(void)size;
	*data = 0;
}

static void reset_write(void *device, uint64_t offset, const uint8_t *data, unsigned size)
{
	struct acpi_pm *pm = device;

	(void)offset;
	(void)size;
	if ((*data & RESET_CPU) == 0)
		return;
	pthread_mutex_lock(&pm->mutex);
	request_once(pm, POWER_RESET);
	pthread_mutex_unlock(&pm->mutex);
}

const struct bus_ops acpi_pm_bus_ops = {
	.read = acpi_pm_read,
	.write = acpi_pm_write,
};

const struct bus_ops acpi_reset_bus_ops = {
	.read = reset_read,
	.write = reset_write,
	.byte_registers = true,
};

int acpi_pm_create(struct irq_line sci, struct power_sink power, struct acpi_pm **ret_acpi_pm)
{
	struct acpi_pm *pm = calloc(1, sizeof(*pm));

	if (pm == NULL)
		return -ENOMEM;
	pm->sci = sci;
	pm->power = power;
	pm->created_ns = clock_monotonic_ns();
	pthread_mutex_init(&pm->mutex, NULL);
	*ret_acpi_pm = pm;
	return 0;
}

void acpi_pm_free(struct acpi_pm *acpi_pm)
{
	if (acpi_pm == NULL)
		return;
	pthread_mutex_destroy(&acpi_pm->mutex);
	free(acpi_pm);
}

void acpi_pm_press_power_button(struct acpi_pm *acpi_pm)
{
	pthread_mutex_lock(&acpi_pm->mutex);
	acpi_pm->status |= PM1_POWER_BUTTON;
	update_sci(acpi_pm);
	pthread_mutex_unlock(&acpi_pm->mutex);
}
