// SPDX-License-Identifier: BSD-3-Clause
/*
 * bus/pci_host: what of config space can be read and written at which width,
 * how BARs are sized, moved, disabled and put on top of each other, and which
 * device answers then.
 */
#include "unit/unit.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "bus/pci_host.h"

#define WINDOW      UINT64_C(0x4000000000)
#define WINDOW_SIZE (16 * MIB)
enum { SMALL_BAR = 0x1000, LARGE_BAR = 0x8000 };

/* A device that remembers what it was asked. */
struct probe {
	struct pci_device pci;
	unsigned devfn;
	unsigned moves;
	uint64_t moved_to[PCI_BARS];
	unsigned accesses; /* atomic */
	unsigned last_bar;
	uint64_t last_offset;
	unsigned written, written_offset, written_size;
};

static void probe_read(void *owner, unsigned bar, uint64_t offset, uint8_t *data, unsigned size)
{
	struct probe *probe = owner;

	if (offset >= probe->pci.bar_sizes[bar] || size > probe->pci.bar_sizes[bar] - offset)
		abort();
	(void)__atomic_add_fetch(&probe->accesses, 1, __ATOMIC_RELAXED);
	memset(data, 0x5a, size);
	data[0] = (uint8_t)probe->devfn;
}

static void probe_write(
	void *owner, unsigned bar, uint64_t offset, const uint8_t *data, unsigned size)
{
	struct probe *probe = owner;

	(void)data;
	(void)size;
	(void)__atomic_add_fetch(&probe->accesses, 1, __ATOMIC_RELAXED);
	probe->last_bar = bar;
	probe->last_offset = offset;
}

static void probe_written(void *owner, unsigned offset, unsigned size)
{
	struct probe *probe = owner;

	probe->written++;
	probe->written_offset = offset;
	probe->written_size = size;
}

static void probe_moved(void *owner, unsigned bar, uint64_t gpa)
{
	struct probe *probe = owner;

	probe->moves++;
	probe->moved_to[bar] = gpa;
}

static const struct pci_device_ops probe_ops = {
	.bar_read = probe_read,
	.bar_write = probe_write,
	.config_written = probe_written,
	.bar_moved = probe_moved,
};

static struct pci_host *new_host(unsigned devices)
{
	struct pci_host *host;

	assert_int_equal(pci_host_create(WINDOW, WINDOW_SIZE, devices, &host), 0);
	return host;
}

static void add_off(struct pci_host *host, struct probe *probe, uint64_t bar0, uint64_t bar2)
{
	*probe = (struct probe){
		.pci = { .ops = &probe_ops, .owner = probe, .bar_sizes = { bar0, 0, bar2 } },
	};
	assert_int_equal(pci_host_add(host, &probe->pci, &probe->devfn), 0);
}

static uint64_t config_read(struct pci_host *host, unsigned devfn, unsigned offset, unsigned size)
{
	uint64_t value = UINT64_MAX;

	pci_ecam_bus_ops.read(host, devfn * UINT64_C(4096) + offset, (uint8_t *)&value, size);
	return size == 8 ? value : value & ((UINT64_C(1) << size * 8) - 1);
}

static void config_write(
	struct pci_host *host, unsigned devfn, unsigned offset, unsigned size, uint64_t value)
{
	pci_ecam_bus_ops.write(
		host, devfn * UINT64_C(4096) + offset, (const uint8_t *)&value, size);
}

static void move_bar(struct pci_host *host, const struct probe *probe, unsigned bar, uint64_t gpa)
{
	config_write(host, probe->devfn, PCI_BASE_ADDRESS_0 + bar * 4, 4, (uint32_t)gpa);
	config_write(host, probe->devfn, PCI_BASE_ADDRESS_0 + bar * 4 + 4, 4, gpa >> 32);
}

static void enable_memory(struct pci_host *host, const struct probe *probe, bool enable)
{
	config_write(host, probe->devfn, PCI_COMMAND, 2, enable ? PCI_COMMAND_MEMORY : 0);
}

/* Whether this device answers at an address of the window. */
static bool answers(struct pci_host *host, const struct probe *probe, uint64_t gpa)
{
	uint8_t data[4] = { 0xff, 0xff, 0xff, 0xff };

	pci_window_bus_ops.read(host, gpa - WINDOW, data, sizeof(data));
	return data[0] == probe->devfn && data[1] == 0x5a;
}

/* As its driver makes it. */
static void add(struct pci_host *host, struct probe *probe, uint64_t bar0, uint64_t bar2)
{
	add_off(host, probe, bar0, bar2);
	enable_memory(host, probe, true);
	probe->moves = 0;
	probe->written = 0;
}

static void a_device_is_off_until_its_driver_comes(void **state)
{
	struct pci_host *host = new_host(1);
	struct probe probe;

	(void)state;
	add_off(host, &probe, SMALL_BAR, 0);
	assert_int_equal(config_read(host, probe.devfn, PCI_COMMAND, 2), 0);
	assert_int_equal(config_read(host, probe.devfn, PCI_BASE_ADDRESS_0 + 4, 4), WINDOW >> 32);
	assert_false(answers(host, &probe, WINDOW));
	assert_int_equal(probe.moves, 0);
	enable_memory(host, &probe, true);
	assert_true(answers(host, &probe, WINDOW));
	assert_int_equal(probe.moves, 1);
	assert_int_equal(probe.moved_to[0], WINDOW);
	pci_host_free(host);
}

static void a_host_without_devices_is_empty(void **state)
{
	struct pci_host *host = new_host(1);
	uint64_t size;

	(void)state;
	(void)pci_host_ecam(host, &size);
	assert_int_equal(size, 0);
	for (unsigned devfn = 0; devfn < PCI_FUNCTIONS; devfn++) {
		assert_int_equal(config_read(host, devfn, PCI_VENDOR_ID, 2), 0xffff);
		config_write(host, devfn, PCI_COMMAND, 4, UINT32_MAX);
	}
	pci_host_free(host);
}

static void few_devices_have_slots_of_their_own(void **state)
{
	static struct probe probes[31];
	struct pci_host *host = new_host(ARRAY_SIZE(probes));
	uint64_t size;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(probes); i++) {
		add(host, &probes[i], SMALL_BAR, 0);
		assert_int_equal(probes[i].devfn, (i + 1) * 8);
		assert_int_equal(config_read(host, probes[i].devfn, PCI_HEADER_TYPE, 1), 0);
	}
	assert_non_null(pci_host_ecam(host, &size));
	assert_int_equal(size, (31 * 8 + 1) * 4096);
	pci_host_free(host);
}

static void many_devices_share_slots(void **state)
{
	static struct probe probes[248];
	struct pci_host *host = new_host(ARRAY_SIZE(probes));
	struct pci_device more = { .ops = &probe_ops, .bar_sizes = { SMALL_BAR } };
	uint64_t size;
	unsigned devfn = 77;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(probes); i++) {
		add(host, &probes[i], SMALL_BAR, 0);
		assert_int_equal(probes[i].devfn, i + 8);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(probes); i++) {
		/* A guest looks behind function 0 only if that says so. */
		assert_int_equal(config_read(host, i + 8, PCI_HEADER_TYPE, 1), i % 8 ? 0 : 0x80);
		assert_true(answers(host, &probes[i], probes[i].pci.bar_gpas[0]));
	}
	assert_int_equal(pci_host_add(host, &more, &devfn), -ENOSPC);
	assert_int_equal(devfn, 77);
	assert_non_null(pci_host_ecam(host, &size));
	assert_int_equal(size, PCI_ECAM_SIZE);
	pci_host_free(host);
}

static void a_full_window_takes_no_more(void **state)
{
	struct pci_host *host;
	struct probe probe;
	struct pci_device large = { .ops = &probe_ops, .bar_sizes = { LARGE_BAR } };
	unsigned devfn;

	(void)state;
	assert_int_equal(pci_host_create(WINDOW, LARGE_BAR * 2, 4, &host), 0);
	add(host, &probe, SMALL_BAR, 0);
	assert_int_equal(pci_host_add(host, &large, &devfn), -ENOSPC);
	add(host, &probe, SMALL_BAR, 0); /* the failure took nothing */
	assert_int_equal(probe.devfn, 16);
	pci_host_free(host);
}

static void bars_begin_placed_and_apart(void **state)
{
	struct pci_host *host = new_host(4);
	struct probe probes[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		add(host, &probes[i], i % 2 ? LARGE_BAR : SMALL_BAR, LARGE_BAR);
		for (unsigned bar = 0; bar < 3; bar += 2) {
			uint64_t gpa = probes[i].pci.bar_gpas[bar];

			assert_int_equal(gpa % probes[i].pci.bar_sizes[bar], 0);
			assert_int_equal(
				config_read(host, probes[i].devfn, PCI_BASE_ADDRESS_0 + bar * 4, 8),
				gpa | 0xc); /* 64 bit, prefetchable */
			assert_true(answers(host, &probes[i], gpa));
			assert_true(
				answers(host, &probes[i], gpa + probes[i].pci.bar_sizes[bar] - 4));
			assert_int_equal(probes[i].moves, 0);
		}
	}
	pci_host_free(host);
}

/* Every register at every width: only what the device declared writable changes. */
static void only_writable_bits_change(void **state)
{
	static const uint64_t values[] = { 0, UINT64_MAX, UINT64_C(0xa55a0ff05aa5f00f) };
	struct pci_host *host = new_host(1);
	struct probe probe;
	uint8_t expected[PCI_CONFIG_SIZE];

	(void)state;
	add(host, &probe, 0, 0);
	for (unsigned i = 0x40; i < PCI_CONFIG_SIZE; i++) {
		probe.pci.writable[i] = (uint8_t)(i * 37);
		probe.pci.config[i] = (uint8_t)(i * 11);
	}
	memcpy(expected, probe.pci.config, sizeof(expected));
	for (unsigned size = 1; size <= 8; size *= 2)
		for (unsigned offset = 0; offset + size <= PCI_CONFIG_SIZE; offset++)
			for (unsigned v = 0; v < ARRAY_SIZE(values); v++) {
				config_write(host, probe.devfn, offset, size, values[v]);
				for (unsigned i = 0; i < size; i++) {
					uint8_t mask = probe.pci.writable[offset + i];
					uint8_t byte = (uint8_t)(values[v] >> i * 8);
					uint8_t *to = &expected[offset + i];

					*to = (uint8_t)((*to & ~mask) | (byte & mask));
				}
				assert_memory_equal(probe.pci.config, expected, sizeof(expected));
				assert_int_equal(probe.written_offset, offset);
				assert_int_equal(probe.written_size, size);
			}
	pci_host_free(host);
}

static void the_rest_of_ecam_is_empty(void **state)
{
	struct pci_host *host = new_host(1);
	struct probe probe;

	(void)state;
	add(host, &probe, SMALL_BAR, 0);
	for (unsigned offset = PCI_CONFIG_SIZE; offset < 4096; offset += 4) {
		assert_int_equal(config_read(host, probe.devfn, offset, 4), UINT32_MAX);
		config_write(host, probe.devfn, offset, 4, 0);
	}
	/* Over its end: as a whole. */
	assert_int_equal(config_read(host, probe.devfn, PCI_CONFIG_SIZE - 1, 2), 0xffff);
	assert_int_equal(config_read(host, probe.devfn, PCI_CONFIG_SIZE - 4, 8), UINT64_MAX);
	assert_int_equal(probe.written, 0);
	/* The last byte there is. */
	assert_int_equal(config_read(host, 255, 4095, 1), 0xff);
	config_write(host, 255, 4095, 1, 0);
	pci_host_free(host);
}

static void bars_tell_their_size(void **state)
{
	struct pci_host *host = new_host(1);
	struct probe probe;
	const unsigned bar2 = PCI_BASE_ADDRESS_0 + 8;

	(void)state;
	add(host, &probe, SMALL_BAR, LARGE_BAR);
	enable_memory(host, &probe, false);
	config_write(host, probe.devfn, bar2, 4, UINT32_MAX);
	config_write(host, probe.devfn, bar2 + 4, 4, UINT32_MAX);
	assert_int_equal(config_read(host, probe.devfn, bar2, 4) & ~0xfu, (uint32_t)-LARGE_BAR);
	assert_int_equal(config_read(host, probe.devfn, bar2 + 4, 4), UINT32_MAX);
	/* One that is not there has no bits, and neither has the ROM. */
	config_write(host, probe.devfn, PCI_BASE_ADDRESS_0 + 16, 8, UINT64_MAX);
	assert_int_equal(config_read(host, probe.devfn, PCI_BASE_ADDRESS_0 + 16, 8), 0);
	config_write(host, probe.devfn, PCI_ROM_ADDRESS, 4, UINT32_MAX);
	assert_int_equal(config_read(host, probe.devfn, PCI_ROM_ADDRESS, 4), 0);
	pci_host_free(host);
}

static void sizing_with_memory_enabled_answers_nowhere_meanwhile(void **state)
{
	struct pci_host *host = new_host(1);
	struct probe probe;

	(void)state;
	add(host, &probe, LARGE_BAR, 0);
	const uint64_t home = probe.pci.bar_gpas[0];

	move_bar(host, &probe, 0, UINT64_MAX);
	assert_int_equal(probe.pci.bar_gpas[0], 0);
	assert_int_equal(probe.moved_to[0], 0);
	assert_false(answers(host, &probe, home));
	move_bar(host, &probe, 0, home);
	assert_int_equal(probe.moved_to[0], home);
	assert_true(answers(host, &probe, home));
	pci_host_free(host);
}

static void bars_answer_in_the_window_only(void **state)
{
	const uint64_t bad[] = { 0, 0x1000000, 0xfec00000, 0xfee00000, WINDOW - LARGE_BAR,
		WINDOW + WINDOW_SIZE, WINDOW + WINDOW_SIZE + LARGE_BAR, UINT64_C(1) << 63,
		UINT64_MAX - LARGE_BAR + 1 };
	const uint64_t good[] = { WINDOW, WINDOW + WINDOW_SIZE / 2,
		WINDOW + WINDOW_SIZE - LARGE_BAR };
	struct pci_host *host = new_host(1);
	struct probe probe;

	(void)state;
	add(host, &probe, LARGE_BAR, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		move_bar(host, &probe, 0, bad[i]);
		assert_int_equal(probe.pci.bar_gpas[0], 0);
		/* The register keeps what was written. */
		assert_int_equal(
			config_read(host, probe.devfn, PCI_BASE_ADDRESS_0, 8) & ~0xfull, bad[i]);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		move_bar(host, &probe, 0, good[i]);
		assert_int_equal(probe.pci.bar_gpas[0], good[i]);
		assert_true(answers(host, &probe, good[i]));
		assert_true(answers(host, &probe, good[i] + LARGE_BAR - 4));
		/* Half outside: nobody. */
		if (good[i] + LARGE_BAR < WINDOW + WINDOW_SIZE)
			assert_false(answers(host, &probe, good[i] + LARGE_BAR - 2));
	}
	pci_host_free(host);
}

static void who_comes_last_to_a_taken_place_answers_nowhere(void **state)
{
	struct pci_host *host = new_host(2);
	struct probe a, b;

	(void)state;
	add(host, &a, LARGE_BAR, SMALL_BAR);
	add(host, &b, LARGE_BAR, 0);
	const uint64_t of_a = a.pci.bar_gpas[0];
	const uint64_t of_b = b.pci.bar_gpas[0];

	move_bar(host, &a, 0, of_b);
	assert_int_equal(a.pci.bar_gpas[0], 0);
	assert_true(answers(host, &b, of_b));
	assert_false(answers(host, &a, of_b));
	/* A BAR inside another one, of the same device too. */
	move_bar(host, &a, 0, of_a);
	move_bar(host, &a, 2, of_a + LARGE_BAR - SMALL_BAR);
	assert_int_equal(a.pci.bar_gpas[2], 0);
	move_bar(host, &a, 2, of_b + SMALL_BAR);
	assert_int_equal(a.pci.bar_gpas[2], 0);
	assert_true(answers(host, &a, of_a));
	/* A BAR around another one, which it begins before. */
	move_bar(host, &a, 2, WINDOW + WINDOW_SIZE - SMALL_BAR);
	move_bar(host, &b, 0, WINDOW + WINDOW_SIZE - LARGE_BAR);
	assert_int_equal(a.pci.bar_gpas[2], WINDOW + WINDOW_SIZE - SMALL_BAR);
	assert_int_equal(b.pci.bar_gpas[0], 0);
	pci_host_free(host);
}

/* As Linux does when it assigns addresses anew: one after the other, each enabled again. */
static void two_bars_can_change_places(void **state)
{
	struct pci_host *host = new_host(2);
	struct probe a, b;

	(void)state;
	add(host, &a, LARGE_BAR, 0);
	add(host, &b, LARGE_BAR, 0);
	const uint64_t of_a = a.pci.bar_gpas[0];
	const uint64_t of_b = b.pci.bar_gpas[0];

	enable_memory(host, &a, false);
	move_bar(host, &a, 0, of_b);
	enable_memory(host, &a, true);
	enable_memory(host, &b, false);
	move_bar(host, &b, 0, of_a);
	enable_memory(host, &b, true);
	assert_true(answers(host, &b, of_a));
	assert_true(answers(host, &a, of_b));
	assert_int_equal(a.moved_to[0], of_b);
	pci_host_free(host);
}

static void without_memory_enabled_no_bar_answers(void **state)
{
	struct pci_host *host = new_host(1);
	struct probe probe;

	(void)state;
	add(host, &probe, SMALL_BAR, LARGE_BAR);
	const uint64_t home = probe.pci.bar_gpas[2];

	enable_memory(host, &probe, false);
	assert_int_equal(probe.moves, 2);
	assert_false(answers(host, &probe, home));
	enable_memory(host, &probe, false);
	assert_int_equal(probe.moves, 2); /* nothing new */
	move_bar(host, &probe, 2, WINDOW + MIB);
	assert_int_equal(probe.moves, 2);
	enable_memory(host, &probe, true);
	assert_int_equal(probe.moves, 4);
	assert_true(answers(host, &probe, WINDOW + MIB));
	pci_host_free(host);
}

static void writes_reach_bar_and_offset(void **state)
{
	struct pci_host *host = new_host(1);
	struct probe probe;
	const uint8_t data[8] = { 0 };

	(void)state;
	add(host, &probe, SMALL_BAR, LARGE_BAR);
	pci_window_bus_ops.write(host, probe.pci.bar_gpas[2] - WINDOW + 0x123, data, 8);
	assert_int_equal(probe.last_bar, 2);
	assert_int_equal(probe.last_offset, 0x123);
	unsigned before = probe.accesses;

	pci_window_bus_ops.write(host, WINDOW_SIZE - 8, data, 8); /* free */
	pci_window_bus_ops.write(host, probe.pci.bar_gpas[0] - WINDOW + SMALL_BAR - 4, data, 8);
	assert_int_equal(probe.accesses, before);
	pci_host_free(host);
}

struct reader {
	struct pci_host *host;
	const struct probe *probe;
	uint64_t gpas[2];
	bool stop; /* atomic */
};

static void *read_all_along(void *argument)
{
	struct reader *reader = argument;
	uint8_t data[8];

	while (!__atomic_load_n(&reader->stop, __ATOMIC_RELAXED)) {
		for (unsigned i = 0; i < 2; i++)
			pci_window_bus_ops.read(reader->host, reader->gpas[i] - WINDOW, data, 4);
		(void)config_read(reader->host, reader->probe->devfn, PCI_COMMAND, 4);
	}
	return NULL;
}

static void bars_may_move_while_another_vcpu_reads(void **state)
{
	struct pci_host *host = new_host(1);
	struct probe probe;
	pthread_t thread;

	(void)state;
	add(host, &probe, LARGE_BAR, 0);
	const uint64_t home = probe.pci.bar_gpas[0];
	struct reader reader = {
		.host = host, .probe = &probe, .gpas = { home, WINDOW + 8 * MIB }
	};

	assert_int_equal(pthread_create(&thread, NULL, read_all_along, &reader), 0);
	for (unsigned i = 0; i < 10000; i++) {
		move_bar(host, &probe, 0, reader.gpas[i % 2]);
		enable_memory(host, &probe, i % 3 != 0);
	}
	__atomic_store_n(&reader.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	move_bar(host, &probe, 0, home);
	enable_memory(host, &probe, true);
	assert_true(answers(host, &probe, home));
	pci_host_free(host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_is_off_until_its_driver_comes),
		cmocka_unit_test(a_host_without_devices_is_empty),
		cmocka_unit_test(few_devices_have_slots_of_their_own),
		cmocka_unit_test(many_devices_share_slots),
		cmocka_unit_test(a_full_window_takes_no_more),
		cmocka_unit_test(bars_begin_placed_and_apart),
		cmocka_unit_test(only_writable_bits_change),
		cmocka_unit_test(the_rest_of_ecam_is_empty),
		cmocka_unit_test(bars_tell_their_size),
		cmocka_unit_test(sizing_with_memory_enabled_answers_nowhere_meanwhile),
		cmocka_unit_test(bars_answer_in_the_window_only),
		cmocka_unit_test(who_comes_last_to_a_taken_place_answers_nowhere),
		cmocka_unit_test(two_bars_can_change_places),
		cmocka_unit_test(without_memory_enabled_no_bar_answers),
		cmocka_unit_test(writes_reach_bar_and_offset),
		cmocka_unit_test(bars_may_move_while_another_vcpu_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
