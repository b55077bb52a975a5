// SPDX-License-Identifier: BSD-3-Clause
/* What KVM is told of a guest's messages: ioctl() below takes the place of libc's in this program.
 */
#include "unit/unit.h"

#include <linux/kvm.h>
#include <stdarg.h>
#include <sys/ioctl.h>

#include "kvm/irq.h"

static struct kvm_irq_routing_entry last; /* of the last table */

int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;

	va_start(arguments, request);
	const struct kvm_irq_routing *table = va_arg(arguments, const struct kvm_irq_routing *);

	va_end(arguments);
	assert_int_equal(fd, 7);
	assert_int_equal(request, KVM_SET_GSI_ROUTING);
	last = table->entries[table->nr - 1];
	return 0;
}

static void assert_route(
	struct kvm_routes *routes, unsigned gsi, uint64_t address, uint32_t low, uint32_t high)
{
	kvm_routes_set(routes, gsi, address, 0x4041);
	assert_int_equal(kvm_routes_commit(routes), 0);
	assert_int_equal(last.gsi, gsi);
	assert_int_equal(last.type, KVM_IRQ_ROUTING_MSI);
	assert_int_equal(last.u.msi.address_lo, low);
	assert_int_equal(last.u.msi.address_hi, high);
	assert_int_equal(last.u.msi.data, 0x4041);
}

static void messages_go_to_any_of_many_cpus(void **state)
{
	const struct kvm_machine machine = { .fd = 7 };
	struct kvm_routes *routes;
	unsigned gsi;

	(void)state;
	assert_int_equal(kvm_routes_create(&machine, &routes), 0);
	assert_int_equal(kvm_routes_allocate(routes, 1, &gsi), 0);
	assert_route(routes, gsi, 0xfee00000 | 1 << 12, 0xfee01000, 0);
	assert_route(routes, gsi, 0xfee00000 | 0xff << 12 | 1 << 3, 0xfeeff008, 0);
	/* Of 32768 at most: bits 8 to 14 of the number are bits 5 to 11 of the address. */
	assert_route(routes, gsi, 0xfee00000 | 1 << 12 | 1 << 5, 0xfee01000, 1 << 8);
	assert_route(routes, gsi, 0xfee00000 | 0xff << 12 | 0x7f << 5, 0xfeeff000, 0x7f00);
	/* KVM would refuse the table of all devices. */
	assert_route(routes, gsi, UINT64_C(0xdeadbeeffee01000), 0xfee01000, 0);
	kvm_routes_free(routes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_go_to_any_of_many_cpus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
