// SPDX-License-Identifier: BSD-3-Clause
/* The ring of coalesced writes, filled as the kernel fills it: order, its end, and that none is
 * done before it is. */
#include "unit/unit.h"

#include <linux/kvm.h>
#include <string.h>

#include "kvm/coalesced.h"

enum { PAGE_SIZE = 4096, ENTRIES = KVM_COALESCED_MMIO_MAX };

static union {
	uint8_t page[PAGE_SIZE];
	struct kvm_coalesced_mmio_ring ring;
} shared;

static int set_up(void **state)
{
	(void)state;
	memset(&shared, 0, sizeof(shared));
	return 0;
}

static void kernel_keeps(uint16_t port, uint32_t size, uint32_t value)
{
	struct kvm_coalesced_mmio *entry = &shared.ring.coalesced_mmio[shared.ring.last];

	entry->phys_addr = port;
	entry->len = size;
	entry->pio = 1;
	memcpy(entry->data, &value, size);
	shared.ring.last = (shared.ring.last + 1) % ENTRIES;
}

static void holds(unsigned index, uint16_t port, uint32_t size, uint32_t value)
{
	struct vcpu_exit exit;
	uint32_t found = 0;

	kvm_coalesced_get(&shared.ring, index, &exit);
	assert_int_equal(exit.kind, VCPU_EXIT_PORT);
	assert_true(exit.is_write);
	assert_int_equal(exit.address, port);
	assert_int_equal(exit.size, size);
	assert_int_equal(exit.count, 1);
	memcpy(&found, exit.data, size);
	assert_int_equal(found, value);
}

static void an_empty_ring_has_none(void **state)
{
	(void)state;
	assert_int_equal(kvm_coalesced_count(&shared.ring), 0);
}

static void writes_come_in_their_order(void **state)
{
	(void)state;
	kernel_keeps(0x70, 1, 0x0a);
	kernel_keeps(0x3fb, 1, 0x83);
	kernel_keeps(0x3fa, 2, 0x0307);
	assert_int_equal(kvm_coalesced_count(&shared.ring), 3);
	holds(0, 0x70, 1, 0x0a);
	holds(1, 0x3fb, 1, 0x83);
	holds(2, 0x3fa, 2, 0x0307);
	kvm_coalesced_done(&shared.ring, 2);
	holds(0, 0x3fa, 2, 0x0307);
	kvm_coalesced_done(&shared.ring, 1);
	assert_int_equal(kvm_coalesced_count(&shared.ring), 0);
}

static void a_write_is_there_until_it_is_done(void **state)
{
	(void)state;
	kernel_keeps(0x70, 1, 1);
	holds(0, 0x70, 1, 1);
	assert_int_equal(kvm_coalesced_count(&shared.ring), 1);
	holds(0, 0x70, 1, 1);
	kvm_coalesced_done(&shared.ring, 1);
	assert_int_equal(kvm_coalesced_count(&shared.ring), 0);
}

static void the_ring_goes_round(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 3 * ENTRIES; i++) {
		kernel_keeps(0x70, 1, i % 256);
		holds(0, 0x70, 1, i % 256);
		assert_int_equal(kvm_coalesced_count(&shared.ring), 1);
		kvm_coalesced_done(&shared.ring, 1);
	}
}

static void a_full_ring_is_counted(void **state)
{
	(void)state;
	shared.ring.first = shared.ring.last = ENTRIES / 2;
	for (uint32_t i = 0; i < ENTRIES - 1; i++) /* the kernel leaves one free */
		kernel_keeps(0x70, 1, i % 256);
	assert_int_equal(kvm_coalesced_count(&shared.ring), ENTRIES - 1);
	holds(0, 0x70, 1, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(an_empty_ring_has_none, set_up),
		cmocka_unit_test_setup(writes_come_in_their_order, set_up),
		cmocka_unit_test_setup(a_write_is_there_until_it_is_done, set_up),
		cmocka_unit_test_setup(the_ring_goes_round, set_up),
		cmocka_unit_test_setup(a_full_ring_is_counted, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
