// SPDX-License-Identifier: BSD-3-Clause
/*
 * bus: who answers at an address, what happens at edges and holes, and how
 * wide accesses reach devices whose registers are bytes.
 */
#include "unit/unit.h"

#include <errno.h>
#include <string.h>

#include "bus/bus.h"

/* A device that remembers how it was called. */
struct recorder {
	unsigned calls;
	uint64_t last_offset;
	unsigned last_size;
	uint8_t bytes[16];
};

static void record_read(void *device, uint64_t offset, uint8_t *data, unsigned size)
{
	struct recorder *recorder = device;

	recorder->calls++;
	recorder->last_offset = offset;
	recorder->last_size = size;
	memcpy(data, recorder->bytes + offset, size);
}

static void record_write(void *device, uint64_t offset, const uint8_t *data, unsigned size)
{
	struct recorder *recorder = device;

	recorder->calls++;
	recorder->last_offset = offset;
	recorder->last_size = size;
	memcpy(recorder->bytes + offset, data, size);
}

static const struct bus_ops wide_ops = { record_read, record_write, false };
static const struct bus_ops byte_ops = { record_read, record_write, true };

static struct bus *new_bus(void)
{
	struct bus *bus;

	assert_int_equal(bus_create(&bus), 0);
	return bus;
}

static void holes_read_as_ones(void **state)
{
	struct bus *bus = new_bus();
	uint8_t data[8] = { 0 };
	static const uint8_t ones[8] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	(void)state;
	bus_read(bus, 0, data, 8);
	assert_memory_equal(data, ones, 8);
	bus_write(bus, UINT64_MAX, data, 1);
	bus_read(bus, UINT64_MAX, data, 8);
	bus_free(bus);
}

static void ranges_do_not_overlap(void **state)
{
	struct bus *bus = new_bus();
	struct recorder recorder = { 0 };

	(void)state;
	assert_int_equal(bus_add(bus, "a", 0x100, 0x10, &wide_ops, &recorder), 0);
	assert_int_equal(bus_add(bus, "same", 0x100, 0x10, &wide_ops, &recorder), -EEXIST);
	assert_int_equal(bus_add(bus, "head", 0xf1, 0x10, &wide_ops, &recorder), -EEXIST);
	assert_int_equal(bus_add(bus, "tail", 0x10f, 1, &wide_ops, &recorder), -EEXIST);
	assert_int_equal(bus_add(bus, "around", 0, 0x1000, &wide_ops, &recorder), -EEXIST);
	assert_int_equal(bus_add(bus, "before", 0xf0, 0x10, &wide_ops, &recorder), 0);
	assert_int_equal(bus_add(bus, "after", 0x110, 1, &wide_ops, &recorder), 0);
	assert_int_equal(bus_add(bus, "last", UINT64_MAX, 1, &wide_ops, &recorder), 0);
	bus_free(bus);
}

static void bad_ranges_are_refused(void **state)
{
	struct bus *bus = new_bus();
	struct recorder recorder = { 0 };

	(void)state;
	assert_int_equal(bus_add(bus, "empty", 1, 0, &wide_ops, &recorder), -EINVAL);
	assert_int_equal(bus_add(bus, "wraps", UINT64_MAX, 2, &wide_ops, &recorder), -EINVAL);
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < 1000; i++)
		r = bus_add(bus, "many", i * 2, 1, &wide_ops, &recorder);
	assert_int_equal(r, -ENOSPC);
	bus_free(bus);
}

static void accesses_must_lie_inside(void **state)
{
	struct bus *bus = new_bus();
	struct recorder recorder = { .bytes = { [15] = 0x5a } };
	uint8_t data[4];

	(void)state;
	assert_int_equal(bus_add(bus, "a", 0x100, 16, &wide_ops, &recorder), 0);
	bus_read(bus, 0x10f, data, 1);
	assert_int_equal(data[0], 0x5a);
	assert_int_equal(recorder.calls, 1);
	assert_int_equal(recorder.last_offset, 15);
	bus_read(bus, 0x10f, data, 2); /* half outside: nobody answers */
	assert_int_equal(data[0], 0xff);
	bus_write(bus, 0x10d, data, 4);
	bus_read(bus, 0xff, data, 2);
	bus_read(bus, 0x110, data, 1);
	assert_int_equal(recorder.calls, 1);
	bus_free(bus);
}

static void byte_registers_split_wide_accesses(void **state)
{
	struct bus *bus = new_bus();
	struct recorder wide = { 0 }, narrow = { 0 };
	static const uint8_t data[4] = { 1, 2, 3, 4 };
	uint8_t back[4];

	(void)state;
	assert_int_equal(bus_add(bus, "wide", 0, 16, &wide_ops, &wide), 0);
	assert_int_equal(bus_add(bus, "narrow", 16, 16, &byte_ops, &narrow), 0);
	bus_write(bus, 4, data, 4);
	assert_int_equal(wide.calls, 1);
	assert_int_equal(wide.last_size, 4);
	bus_write(bus, 20, data, 4);
	assert_int_equal(narrow.calls, 4);
	assert_int_equal(narrow.last_offset, 7);
	assert_int_equal(narrow.last_size, 1);
	bus_read(bus, 20, back, 4);
	assert_memory_equal(back, data, 4);
	bus_free(bus);
}

/* Added in any order, found in every place. */
static void lookup_finds_each_of_many(void **state)
{
	enum { COUNT = 40 };
	struct bus *bus = new_bus();
	struct recorder recorders[COUNT] = { 0 };

	(void)state;
	for (unsigned i = 0; i < COUNT; i++) {
		unsigned at = i * 7 % COUNT;

		assert_int_equal(bus_add(bus, "device", at * 32, 16, &wide_ops, &recorders[at]), 0);
	}
	for (unsigned i = 0; i < COUNT; i++) {
		uint8_t value = (uint8_t)i, back;

		bus_write(bus, i * 32 + 3, &value, 1);
		assert_int_equal(recorders[i].calls, 1);
		assert_int_equal(recorders[i].bytes[3], i);
		bus_read(bus, i * 32 + 16, &back, 1);
		assert_int_equal(back, 0xff);
	}
	bus_log_statistics(bus, "test");
	bus_free(bus);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holes_read_as_ones),
		cmocka_unit_test(ranges_do_not_overlap),
		cmocka_unit_test(bad_ranges_are_refused),
		cmocka_unit_test(accesses_must_lie_inside),
		cmocka_unit_test(byte_registers_split_wide_accesses),
		cmocka_unit_test(lookup_finds_each_of_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
