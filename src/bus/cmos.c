// SPDX-License-Identifier: BSD-3-Clause
/*
 * 128 bytes of storage, of which the first fourteen and the century are a
 * clock with an alarm. Index and values come from the guest; every one of them is
 * harmless.
 */
#include "bus/cmos.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum {
	CMOS_SIZE = 128, /* a power of two: index bit 7 masks the NMI */

	RTC_SECONDS = 0x00,
	RTC_SECONDS_ALARM = 0x01,
	RTC_MINUTES = 0x02,
	RTC_MINUTES_ALARM = 0x03,
	RTC_HOURS = 0x04,
	RTC_HOURS_ALARM = 0x05,
	RTC_WEEKDAY = 0x06, /* 1 is Sunday */
	RTC_DAY = 0x07,
	RTC_MONTH = 0x08,
	RTC_YEAR = 0x09,
	RTC_A = 0x0a,
	RTC_B = 0x0b,
	RTC_C = 0x0c,
	RTC_D = 0x0d,
	CMOS_RAM_ABOVE_16MIB = 0x34, /* 2 bytes, in 64 KiB, up to 4 GiB */
	RTC_CENTURY = 0x32,
	CMOS_RAM_ABOVE_4GIB = 0x5b, /* 3 bytes, in 64 KiB */

	RTC_A_UPDATING = 1 << 7,
	RTC_A_DEFAULT = 0x26, /* 32768 Hz oscillator, 1024 Hz rate */
	RTC_B_24_HOURS = 1 << 1,
	RTC_B_BINARY = 1 << 2,
	RTC_B_ALARM = 1 << 5, /* AIE */
	RTC_B_SET = 1 << 7,
	RTC_C_ALARM = 1 << 5, /* AF */
	RTC_C_IRQ = 1 << 7,
	RTC_D_VALID = 1 << 7,
	RTC_HOUR_PM = 1 << 7,
	RTC_ALARM_ANY = 3 << 6, /* an alarm register with both bits matches always */
};

#define UPDATE_START_NS 999000000

enum { MINUTE_S = 60, HOUR_S = 60 * 60, DAY_S = 24 * 60 * 60 };

struct cmos {
	struct irq_line irq;
	struct cmos_timer timer;
	pthread_mutex_t mutex; /* guards what follows */
	time_t alarm;          /* what the timer is set to; 0: not set */
	bool irq_level;
	uint8_t index;
	uint8_t bytes[CMOS_SIZE];
};

static bool is_time(uint8_t index)
{
	switch (index) {
	case RTC_SECONDS:
	case RTC_MINUTES:
	case RTC_HOURS:
	case RTC_WEEKDAY:
	case RTC_DAY:
	case RTC_MONTH:
	case RTC_YEAR:
	case RTC_CENTURY:
		return true;
	default:
		return false;
	}
}

static uint8_t encode(const struct cmos *cmos, unsigned value)
{
	if (cmos->bytes[RTC_B] & RTC_B_BINARY)
		return (uint8_t)value;
	return (uint8_t)(value / 10 % 10 << 4 | value % 10);
}

static uint8_t encode_hours(const struct cmos *cmos, unsigned hours)
{
	if (cmos->bytes[RTC_B] & RTC_B_24_HOURS)
		return encode(cmos, hours);
	return encode(cmos, hours % 12 == 0 ? 12 : hours % 12) | (hours >= 12 ? RTC_HOUR_PM : 0);
}

/* Brings the clock registers up to date. Nothing is kept between reads but what they show. */
static void update_clock(struct cmos *cmos, time_t now)
{
	struct tm utc;

	if (gmtime_r(&now, &utc) == NULL)
		return;
	unsigned year = (unsigned)utc.tm_year + 1900;

	cmos->bytes[RTC_SECONDS] = encode(cmos, (unsigned)utc.tm_sec);
	cmos->bytes[RTC_MINUTES] = encode(cmos, (unsigned)utc.tm_min);
	cmos->bytes[RTC_HOURS] = encode_hours(cmos, (unsigned)utc.tm_hour);
	cmos->bytes[RTC_WEEKDAY] = encode(cmos, (unsigned)utc.tm_wday + 1);
	cmos->bytes[RTC_DAY] = encode(cmos, (unsigned)utc.tm_mday);
	cmos->bytes[RTC_MONTH] = encode(cmos, (unsigned)utc.tm_mon + 1);
	cmos->bytes[RTC_YEAR] = encode(cmos, year % 100);
	cmos->bytes[RTC_CENTURY] = encode(cmos, year / 100 % 100);
}

static bool matches(uint8_t alarm, uint8_t shown)
{
	return (alarm & RTC_ALARM_ANY) == RTC_ALARM_ANY || alarm == shown;
}

/* The first second after `now` that the alarm registers match, or 0. Under 150 steps. */
static time_t next_alarm(const struct cmos *cmos, time_t now)
{
	const uint8_t *bytes = cmos->bytes;

	for (time_t at = now + 1; at <= now + DAY_S;) {
		unsigned of_day = (unsigned)(at % DAY_S);
		unsigned of_hour = of_day % HOUR_S;
		unsigned of_minute = of_day % MINUTE_S;

		if (!matches(bytes[RTC_HOURS_ALARM], encode_hours(cmos, of_day / HOUR_S)))
			at += HOUR_S - of_hour;
		else if (!matches(bytes[RTC_MINUTES_ALARM], encode(cmos, of_hour / MINUTE_S)))
			at += MINUTE_S - of_minute;
		else if (!matches(bytes[RTC_SECONDS_ALARM], encode(cmos, of_minute)))
			at++;
		else
			return at;
	}
	return 0;
}

static time_t seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec;
}

/* An alarm whose time has come is one, also before the timer tells, or after. */
static void take_alarm(struct cmos *cmos, time_t now)
{
	if (cmos->alarm == 0 || now < cmos->alarm)
		return;
	cmos->alarm = 0;
	cmos->bytes[RTC_C] |= RTC_C_ALARM;
}

static bool interrupts(const struct cmos *cmos)
{
	return (cmos->bytes[RTC_B] & RTC_B_ALARM) && (cmos->bytes[RTC_C] & RTC_C_ALARM);
}

/* After the registers changed: the line and the timer as they have it. */
static void update_alarm(struct cmos *cmos)
{
	bool level = interrupts(cmos);
	bool waits = (cmos->bytes[RTC_B] & (RTC_B_ALARM | RTC_B_SET)) == RTC_B_ALARM && !level;
	time_t alarm = waits ? next_alarm(cmos, seconds_now()) : 0;

	if (level != cmos->irq_level) {
		cmos->irq_level = level;
		irq_line_set(&cmos->irq, level);
	}
	if (alarm != cmos->alarm && cmos->timer.set != NULL) {
		cmos->alarm = alarm;
		cmos->timer.set(cmos->timer.owner, alarm);
	}
}

/* It clears what it shows. */
static uint8_t read_flags(struct cmos *cmos)
{
	if (cmos->alarm != 0)
		take_alarm(cmos, seconds_now());
	uint8_t flags = cmos->bytes[RTC_C] | (interrupts(cmos) ? RTC_C_IRQ : 0);

	cmos->bytes[RTC_C] = 0;
	update_alarm(cmos);
	return flags;
}

static uint8_t read_register(struct cmos *cmos, uint8_t index)
{
	struct timespec now;
	bool running = (cmos->bytes[RTC_B] & RTC_B_SET) == 0;

	if (index == RTC_C)
		return read_flags(cmos);
	if (index != RTC_A && !is_time(index))
		return cmos->bytes[index];
	clock_gettime(CLOCK_REALTIME, &now);
	if (index == RTC_A)
		return cmos->bytes[RTC_A] |
		       (running && now.tv_nsec >= UPDATE_START_NS ? RTC_A_UPDATING : 0);
	if (running)
		update_clock(cmos, now.tv_sec);
	return cmos->bytes[index];
}

static void write_register(struct cmos *cmos, uint8_t index, uint8_t value)
{
	bool running = (cmos->bytes[RTC_B] & RTC_B_SET) == 0;

	switch (index) {
	case RTC_A:
		cmos->bytes[RTC_A] = value & (uint8_t)~RTC_A_UPDATING;
		return;
	case RTC_B:
		/* What SET stops must be the time of now, not of the last read. */
		if (running && (value & RTC_B_SET))
			update_clock(cmos, seconds_now());
		break;
	case RTC_C:
	case RTC_D:
		return;
	default:
		if (running && is_time(index))
			return;
		break;
	}
	if (cmos->alarm != 0)
		take_alarm(cmos, seconds_now());
	cmos->bytes[index] = value;
	update_alarm(cmos);
}

static void cmos_read(void *device, uint64_t offset, uint8_t *data, unsigned size)
{
	struct cmos *cmos = device;

	(void)size;
	if (offset == 0)
		return; /* the index is write-only */
	pthread_mutex_lock(&cmos->mutex);
	*data = read_register(cmos, cmos->index);
	pthread_mutex_unlock(&cmos->mutex);
}

static void cmos_write(void *device, uint64_t offset, const uint8_t *data, unsigned size)
{
	struct cmos *cmos = device;

	(void)size;
	pthread_mutex_lock(&cmos->mutex);
	if (offset == 0)
		cmos->index = *data % CMOS_SIZE;
	else
		write_register(cmos, cmos->index, *data);
	pthread_mutex_unlock(&cmos->mutex);
}

const struct bus_ops cmos_bus_ops = {
	.read = cmos_read,
	.write = cmos_write,
	.byte_registers = true,
};

/* Stores a count of 64 KiB units in `width` bytes, or the largest that fits. */
static void store_size(uint8_t *bytes, unsigned width, uint64_t size)
{
	uint64_t units = min_u64(size / (64 * KIB), (UINT64_C(1) << 8 * width) - 1);

	for (unsigned i = 0; i < width; i++)
		bytes[i] = (uint8_t)(units >> 8 * i);
}

int cmos_create(uint64_t ram_below_4gib, uint64_t ram_above_4gib, struct irq_line irq,
	struct cmos_timer timer, struct cmos **ret_cmos)
{
	struct cmos *cmos = calloc(1, sizeof(*cmos));

	if (cmos == NULL)
		return -ENOMEM;
	cmos->irq = irq;
	cmos->timer = timer;
	pthread_mutex_init(&cmos->mutex, NULL);
	cmos->bytes[RTC_A] = RTC_A_DEFAULT;
	cmos->bytes[RTC_B] = RTC_B_24_HOURS;
	cmos->bytes[RTC_D] = RTC_D_VALID;
	store_size(&cmos->bytes[CMOS_RAM_ABOVE_16MIB], 2,
		ram_below_4gib > 16 * MIB ? ram_below_4gib - 16 * MIB : 0);
	store_size(&cmos->bytes[CMOS_RAM_ABOVE_4GIB], 3, ram_above_4gib);
	*ret_cmos = cmos;
	return 0;
}

void cmos_free(struct cmos *cmos)
{
	if (cmos == NULL)
		return;
	pthread_mutex_destroy(&cmos->mutex);
	free(cmos);
}

void cmos_timer_expired(struct cmos *cmos, time_t now)
{
	pthread_mutex_lock(&cmos->mutex);
	take_alarm(cmos, now);
	if (cmos->alarm != 0)
		cmos->timer.set(cmos->timer.owner, cmos->alarm); /* the clock was set back */
	else
		update_alarm(cmos);
	pthread_mutex_unlock(&cmos->mutex);
}
