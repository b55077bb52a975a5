// SPDX-License-Identifier: BSD-3-Clause
/* Which resolv.conf leaves a guest of passt without a resolver. */
#include "unit/unit.h"

#include "virtio/net_resolver.h"

static const struct {
	const char *text;
	bool is_local;
} rows[] = {
	{ "nameserver 127.0.0.53\n", true },
	{ "nameserver 127.0.0.1", true },
	{ "# by dnsmasq\nsearch a b\nnameserver\t127.0.1.1\noptions edns0\n", true },
	{ "nameserver 127.0.0.53\nnameserver ::1\n", true },
	{ "nameserver 2001:db8::1\nnameserver 127.0.0.53 \n", true },
	{ "nameserver 127.0.0.53\nnameserver 192.0.2.1\n", false },
	{ "nameserver 192.0.2.1\n", false },
	{ "nameserver ::1\n", false },
	{ "#nameserver 127.0.0.1\n", false },
	{ "options a nameserver 127.0.0.1\n", false },
	{ "nameserver\n127.0.0.1\n", false },
	{ "nameserver 127.0.0\n", false },
	{ "\n\n", false },
	{ "", false },
};

static void resolvers_on_the_loopback_are_local(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (net_resolver_text_is_local(rows[i].text) != rows[i].is_local)
			fail_msg("%s", rows[i].text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(resolvers_on_the_loopback_are_local),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
