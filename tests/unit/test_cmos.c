// SPDX-License-Identifier: BSD-3-Clause
/*
 * cmos: the time in all four formats, a clock that stands while SET, alarms,
 * plain storage, and every value at every index.
 */
#include "unit/unit.h"

#include <stdlib.h>
#include <time.h>

#include "bus/cmos.h"

enum { A = 0x0a, B = 0x0b, C = 0x0c, D = 0x0d };
enum { B_24_HOURS = 2, B_BINARY = 4, B_ALARM = 0x20, B_SET = 0x80 };
enum { C_ALARM = 0x20, C_IRQ = 0x80, ANY = 0xc0, HOUR_S = 3600 };

struct machine {
	struct bus *bus;
	struct cmos *cmos;
	bool irq;
	unsigned interrupts;
	time_t alarm; /* what the timer is set to */
};

static void set_irq(void *owner, bool asserted)
{
	struct machine *machine = owner;

	assert_int_not_equal(asserted, machine->irq);
	machine->irq = asserted;
	machine->interrupts += asserted;
}

static void set_timer(void *owner, time_t when)
{
	((struct machine *)owner)->alarm = when;
}

static void machine_up(struct machine *machine, uint64_t low, uint64_t high)
{
	const struct irq_line irq = { set_irq, machine };
	const struct cmos_timer timer = { set_timer, machine };

	*machine = (struct machine){ 0 };
	assert_int_equal(cmos_create(low, high, irq, timer, &machine->cmos), 0);
	assert_int_equal(bus_create(&machine->bus), 0);
	assert_int_equal(
		bus_add(machine->bus, "cmos", 0x70, CMOS_PORT_SIZE, &cmos_bus_ops, machine->cmos),
		0);
}

static void machine_down(struct machine *machine)
{
	bus_free(machine->bus);
	cmos_free(machine->cmos);
}

static void put(struct machine *machine, uint8_t index, uint8_t value)
{
	bus_write(machine->bus, 0x70, &index, 1);
	bus_write(machine->bus, 0x71, &value, 1);
}

static uint8_t get(struct machine *machine, uint8_t index)
{
	uint8_t value;

	bus_write(machine->bus, 0x70, &index, 1);
	bus_read(machine->bus, 0x71, &value, 1);
	return value;
}

static int decode(uint8_t value, bool binary)
{
	return binary ? value : (value >> 4) * 10 + (value & 0x0f);
}

static int decode_hours(uint8_t value, uint8_t format)
{
	if (format & B_24_HOURS)
		return decode(value, format & B_BINARY);
	return decode(value & 0x7f, format & B_BINARY) % 12 + (value & 0x80 ? 12 : 0);
}

/* As the device sees it; time() is late by a tick of the kernel's. */
static time_t seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec;
}

/* As a careful driver reads it: again if an update came in between. */
static time_t read_clock(struct machine *machine, uint8_t format)
{
	bool binary = (format & B_BINARY) != 0;
	struct tm utc = { 0 };
	int seconds, weekday;

	do {
		while (get(machine, A) & 0x80)
			;
		seconds = decode(get(machine, 0), binary);
		utc.tm_sec = seconds;
		utc.tm_min = decode(get(machine, 2), binary);
		utc.tm_hour = decode_hours(get(machine, 4), format);
		weekday = decode(get(machine, 6), binary);
		utc.tm_mday = decode(get(machine, 7), binary);
		utc.tm_mon = decode(get(machine, 8), binary) - 1;
		utc.tm_year = decode(get(machine, 9), binary) - 1900;
		utc.tm_year += decode(get(machine, 0x32), binary) * 100;
	} while (decode(get(machine, 0), binary) != seconds);
	time_t now = timegm(&utc);

	assert_int_equal(utc.tm_wday + 1, weekday);
	return now;
}

static void the_time_is_right_in_every_format(void **state)
{
	static const uint8_t formats[] = { 0, B_24_HOURS, B_BINARY, B_BINARY | B_24_HOURS };
	struct machine machine;

	(void)state;
	machine_up(&machine, 0, 0);
	assert_int_equal(get(&machine, B), B_24_HOURS); /* at power on: BCD */
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		time_t before = seconds_now();

		put(&machine, B, formats[i]);
		time_t shown = read_clock(&machine, formats[i]);

		assert_in_range(shown, before, seconds_now());
	}
	machine_down(&machine);
}

static void the_guest_cannot_set_the_clock(void **state)
{
	struct machine machine;
	time_t before = seconds_now();

	(void)state;
	machine_up(&machine, 0, 0);
	put(&machine, 9, 0x70); /* lost: the clock runs */
	put(&machine, B, B_SET | B_24_HOURS);
	put(&machine, 9, 0x71);
	put(&machine, 0x32, 0x99);
	assert_int_equal(get(&machine, 9), 0x71);
	assert_int_equal(get(&machine, 0x32), 0x99);
	put(&machine, B, B_24_HOURS);
	time_t shown = read_clock(&machine, B_24_HOURS);

	assert_in_range(shown, before, seconds_now());
	machine_down(&machine);
}

static void set_stops_the_clock(void **state)
{
	static const struct timespec pause = { .tv_sec = 1, .tv_nsec = 100000000 };
	struct machine machine;

	(void)state;
	machine_up(&machine, 0, 0);
	put(&machine, B, B_SET | B_24_HOURS);
	uint8_t seconds = get(&machine, 0);
	time_t shown = read_clock(&machine, B_24_HOURS);

	assert_in_range(seconds_now() - shown, 0, 5);
	nanosleep(&pause, NULL);
	assert_int_equal(get(&machine, 0), seconds);
	assert_int_equal(get(&machine, A) & 0x80, 0);
	machine_down(&machine);
}

/* ---- alarms: the timer is set to real seconds, but comes when the test says so ---- */

static void set_alarm(struct machine *machine, uint8_t hours, uint8_t minutes, uint8_t seconds)
{
	put(machine, 5, hours);
	put(machine, 3, minutes);
	put(machine, 1, seconds);
}

static void timer_comes(struct machine *machine)
{
	time_t alarm = machine->alarm;

	assert_int_not_equal(alarm, 0);
	machine->alarm = 0;
	cmos_timer_expired(machine->cmos, alarm);
}

/* Not before an hour from now, so that no real second gets in a test's way. */
static struct tm later(time_t *ret_when)
{
	struct tm utc;

	*ret_when = seconds_now() + HOUR_S + 65;
	assert_non_null(gmtime_r(ret_when, &utc));
	return utc;
}

static void later_alarm(struct machine *machine, time_t *ret_when)
{
	struct tm utc = later(ret_when);

	put(machine, B, B_24_HOURS | B_BINARY);
	set_alarm(machine, (uint8_t)utc.tm_hour, (uint8_t)utc.tm_min, (uint8_t)utc.tm_sec);
	put(machine, B, B_24_HOURS | B_BINARY | B_ALARM);
	assert_int_equal(machine->alarm, *ret_when);
}

static void an_alarm_interrupts_until_c_is_read(void **state)
{
	struct machine machine;
	time_t when;

	(void)state;
	machine_up(&machine, 0, 0);
	later_alarm(&machine, &when);
	assert_false(machine.irq);
	timer_comes(&machine);
	assert_true(machine.irq);
	assert_int_equal(machine.alarm, 0); /* nothing until the guest saw it */
	assert_int_equal(get(&machine, C), C_IRQ | C_ALARM);
	assert_false(machine.irq);
	assert_int_equal(machine.alarm, when); /* by the real clock it is still to come */
	assert_int_equal(get(&machine, C), 0);
	assert_int_equal(machine.interrupts, 1);
	machine_down(&machine);
}

static void any_time_is_the_next_second(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine, 0, 0);
	set_alarm(&machine, ANY, 0xff, ANY | 5);
	assert_int_equal(machine.alarm, 0);
	time_t before = seconds_now();

	put(&machine, B, B_24_HOURS | B_ALARM);
	assert_in_range(machine.alarm, before + 1, seconds_now() + 1);
	machine_down(&machine);
}

static void any_hour_and_minute(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine, 0, 0);
	put(&machine, B, B_24_HOURS | B_BINARY | B_ALARM);
	time_t when = seconds_now() + 50;

	set_alarm(&machine, ANY, ANY, (uint8_t)(when % 60));
	assert_int_equal(machine.alarm, when);
	machine_down(&machine);
}

static uint8_t encode(int value, uint8_t format)
{
	return (uint8_t)(format & B_BINARY ? value : value / 10 * 16 + value % 10);
}

static uint8_t encode_hours(int hours, uint8_t format)
{
	if (format & B_24_HOURS)
		return encode(hours, format);
	return encode((hours + 11) % 12 + 1, format) | (hours >= 12 ? 0x80 : 0);
}

static void alarms_have_the_format_of_the_clock(void **state)
{
	static const uint8_t formats[] = { 0, B_24_HOURS, B_BINARY, B_BINARY | B_24_HOURS };
	struct machine machine;
	struct tm utc;

	(void)state;
	machine_up(&machine, 0, 0);
	for (size_t i = 0; i < ARRAY_SIZE(formats) * 23; i++) {
		uint8_t format = formats[i % ARRAY_SIZE(formats)];
		time_t when = seconds_now() + 65 + (time_t)(i / ARRAY_SIZE(formats)) * HOUR_S;

		assert_non_null(gmtime_r(&when, &utc));
		put(&machine, B, format);
		set_alarm(&machine, encode_hours(utc.tm_hour, format), encode(utc.tm_min, format),
			encode(utc.tm_sec, format));
		put(&machine, B, format | B_ALARM);
		assert_int_equal(machine.alarm, when);
	}
	machine_down(&machine);
}

static void no_alarm_without_aie_and_while_set(void **state)
{
	static const uint8_t formats[] = { B_24_HOURS | B_BINARY,
		B_24_HOURS | B_BINARY | B_ALARM | B_SET };
	struct machine machine;
	time_t when;

	(void)state;
	machine_up(&machine, 0, 0);
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		later_alarm(&machine, &when);
		put(&machine, B, formats[i]);
		assert_int_equal(machine.alarm, 0);
		cmos_timer_expired(machine.cmos, when); /* it was on its way */
		assert_int_equal(get(&machine, C), 0);
	}
	later_alarm(&machine, &when);
	set_alarm(&machine, 24, 0, 0); /* an hour that never comes */
	assert_int_equal(machine.alarm, 0);
	assert_int_equal(machine.interrupts, 0);
	machine_down(&machine);
}

static void aie_gates_the_line_and_not_the_flag(void **state)
{
	struct machine machine;
	time_t when;

	(void)state;
	machine_up(&machine, 0, 0);
	later_alarm(&machine, &when);
	timer_comes(&machine);
	put(&machine, B, B_24_HOURS | B_BINARY);
	assert_false(machine.irq);
	put(&machine, B, B_24_HOURS | B_BINARY | B_ALARM);
	assert_true(machine.irq);
	put(&machine, B, B_24_HOURS | B_BINARY);
	assert_int_equal(get(&machine, C), C_ALARM);
	assert_false(machine.irq);
	machine_down(&machine);
}

static void an_early_timer_is_set_again(void **state)
{
	struct machine machine;
	time_t when;

	(void)state;
	machine_up(&machine, 0, 0);
	later_alarm(&machine, &when);
	machine.alarm = 0;
	cmos_timer_expired(machine.cmos, when - 1);
	assert_false(machine.irq);
	assert_int_equal(machine.alarm, when);
	machine_down(&machine);
}

/* Who sees the alarm's second on the clock sees the flag, however late the timer is. */
static void a_late_timer_is_not_waited_for(void **state)
{
	static const struct timespec pause = { .tv_sec = 1, .tv_nsec = 100000000 };
	struct machine machine;

	(void)state;
	machine_up(&machine, 0, 0);
	set_alarm(&machine, ANY, ANY, ANY);
	put(&machine, B, B_24_HOURS | B_ALARM);
	time_t first = machine.alarm;

	nanosleep(&pause, NULL);
	assert_int_equal(get(&machine, C), C_IRQ | C_ALARM);
	assert_in_range(machine.alarm, first + 1, seconds_now() + 1);
	cmos_timer_expired(machine.cmos, first);
	assert_int_equal(machine.interrupts, 0);
	machine_down(&machine);
}

static void read_only_bits_stay(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine, 0, 0);
	put(&machine, C, 0xff);
	assert_int_equal(get(&machine, C), 0);
	put(&machine, D, 0);
	assert_int_equal(get(&machine, D), 0x80);
	put(&machine, B, B_SET);
	put(&machine, A, 0xff);
	assert_int_equal(get(&machine, A), 0x7f);
	machine_down(&machine);
}

static void memory_sizes_saturate(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine, 16 * MIB + 0x12340000, UINT64_C(0x1234560000));
	assert_int_equal(get(&machine, 0x34), 0x34);
	assert_int_equal(get(&machine, 0x35), 0x12);
	assert_int_equal(get(&machine, 0x5b), 0x56);
	assert_int_equal(get(&machine, 0x5c), 0x34);
	assert_int_equal(get(&machine, 0x5d), 0x12);
	machine_down(&machine);
	machine_up(&machine, UINT64_MAX, UINT64_MAX);
	for (uint8_t index = 0x34; index <= 0x35; index++)
		assert_int_equal(get(&machine, index), 0xff);
	for (uint8_t index = 0x5b; index <= 0x5d; index++)
		assert_int_equal(get(&machine, index), 0xff);
	machine_down(&machine);
	machine_up(&machine, 8 * MIB, 0);
	assert_int_equal(get(&machine, 0x34), 0);
	machine_down(&machine);
}

/* Bit 7 of the index masks the NMI: 0x80 to 0xff are the same bytes again. */
static void every_index_and_value(void **state)
{
	struct machine machine;

	(void)state;
	machine_up(&machine, 0, 0);
	put(&machine, 0x8f, 0x5a);
	assert_int_equal(get(&machine, 0x0f), 0x5a);
	for (unsigned index = 0; index < 0x100; index++) {
		for (unsigned value = 0; value < 0x100; value++) {
			put(&machine, (uint8_t)index, (uint8_t)value);
			uint8_t back = get(&machine, (uint8_t)index);

			if ((index & 0x7f) > D && (index & 0x7f) != 0x32)
				assert_int_equal(back, value);
		}
	}
	machine_down(&machine);
}

static void wide_accesses_are_two_bytes(void **state)
{
	static const uint8_t index_and_data[4] = { 0x40, 0x5a, 0, 0 };
	struct machine machine;
	uint8_t data[4];

	(void)state;
	machine_up(&machine, 0, 0);
	bus_write(machine.bus, 0x70, index_and_data, 2);
	assert_int_equal(get(&machine, 0x40), 0x5a);
	bus_read(machine.bus, 0x70, data, 2);
	assert_int_equal(data[0], 0xff);
	assert_int_equal(data[1], 0x5a);
	assert_int_equal(get(&machine, 0x41), 0);
	bus_write(machine.bus, 0x70, index_and_data, 4); /* reaches outside */
	bus_write(machine.bus, 0x71, index_and_data, 2);
	assert_int_equal(get(&machine, 0x41), 0);
	machine_down(&machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_time_is_right_in_every_format),
		cmocka_unit_test(the_guest_cannot_set_the_clock),
		cmocka_unit_test(set_stops_the_clock),
		cmocka_unit_test(an_alarm_interrupts_until_c_is_read),
		cmocka_unit_test(any_time_is_the_next_second),
		cmocka_unit_test(any_hour_and_minute),
		cmocka_unit_test(alarms_have_the_format_of_the_clock),
		cmocka_unit_test(no_alarm_without_aie_and_while_set),
		cmocka_unit_test(aie_gates_the_line_and_not_the_flag),
		cmocka_unit_test(an_early_timer_is_set_again),
		cmocka_unit_test(a_late_timer_is_not_waited_for),
		cmocka_unit_test(read_only_bits_stay),
		cmocka_unit_test(memory_sizes_saturate),
		cmocka_unit_test(every_index_and_value),
		cmocka_unit_test(wide_accesses_are_two_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
