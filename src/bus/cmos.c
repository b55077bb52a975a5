// SPDX-License-Identifier: BSD-3-Clause
/*
 * 128 bytes of storage, of which the first fourteen and the century are a
 * clock. Index and values come from the guest; every one of them is harmless.
 */
#include "bus/cmos.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum {
	CMOS_SIZE = 128, /* a power of two: index bit 7 masks the NMI */

	RTC_SECONDS = 0x00,
	RTC_MINUTES = 0x02,
	RTC_HOURS = 0x04,
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
	RTC_B_SET = 1 << 7,
	RTC_D_VALID = 1 << 7,
	RTC_HOUR_PM = 1 << 7,
};

#define UPDATE_START_NS 999000000

struct cmos {
	pthread_mutex_t mutex; /* guards what follows */
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

static uint8_t read_register(struct cmos *cmos, uint8_t index)
{
	struct timespec now;
	bool running = (cmos->bytes[RTC_B] & RTC_B_SET) == 0;

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
	struct timespec now;
	bool running = (cmos->bytes[RTC_B] & RTC_B_SET) == 0;

	switch (index) {
	case RTC_A:
		cmos->bytes[RTC_A] = value & (uint8_t)~RTC_A_UPDATING;
		return;
	case RTC_B:
		/* What SET stops must be the time of now, not of the last read. */
		if (running && (value & RTC_B_SET)) {
			clock_gettime(CLOCK_REALTIME, &now);
			update_clock(cmos, now.tv_sec);
		}
		break;
	case RTC_C:
	case RTC_D:
		return;
	default:
		if (running && is_time(index))
			return;
		break;
	}
	cmos->bytes[index] = value;
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

int cmos_create(uint64_t ram_below_4gib, uint64_t ram_above_4gib, struct cmos **ret_cmos)
{
	struct cmos *cmos = calloc(1, sizeof(*cmos));

	if (cmos == NULL)
		return -ENOMEM;
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
