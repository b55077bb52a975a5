// SPDX-License-Identifier: BSD-3-Clause
/*
 * The words of --net and the first crosvm's --host_ip: what each makes, and
 * every bad value with its message.
 */
#include "unit/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/device_options.h"
#include "unit/capture.h"
#include "virtio/net_options.h"

static int parse(const char *spec, struct net_options *ret_options)
{
	struct vm_config config = { .device_count = 0 };
	static char text[512]; /* the options point into it */

	snprintf(text, sizeof(text), "%s", spec);
	int r = device_options_add(&config, "--net", &net_device_class, text);

	memset(ret_options, 0, sizeof(*ret_options));
	if (r == 0)
		*ret_options = *(const struct net_options *)config.devices[0].options;
	vm_config_free_devices(&config);
	return r;
}

static void a_tap_by_name(void **state)
{
	static const char *const specs[] = { "tap-name=tap0", "tap-name=tap0,user=false",
		"vhost=auto,queues=1,tap-name=tap0" };
	struct net_options options;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(specs); i++) {
		assert_int_equal(parse(specs[i], &options), 0);
		assert_string_equal(options.tap_name, "tap0");
		assert_int_equal(options.tap_fd, -1);
		assert_false(options.has_host_ip || options.has_mac || options.user);
		assert_int_equal(options.vhost, NET_VHOST_AUTO);
		assert_int_equal(options.pairs, 1);
		assert_int_equal(options.mtu, 0);
	}
}

static void every_word_arrives(void **state)
{
	static const uint8_t mac[] = { 0x02, 0xAB, 0xcd, 0, 0x10, 0xff };
	struct net_options options;

	(void)state;
	assert_int_equal(parse("host-ip=10.0.0.1,netmask=255.255.254.0,mac=02:AB:cd:00:10:ff,"
			       "vhost=off,queues=7,mtu=9000,tap-name=x",
				 &options),
		0);
	assert_int_equal(options.host_ip.s_addr, htonl(0x0a000001));
	assert_int_equal(options.netmask.s_addr, htonl(0xfffffe00));
	assert_memory_equal(options.mac, mac, sizeof(mac));
	assert_int_equal(options.vhost, NET_VHOST_OFF);
	assert_int_equal(options.pairs, 7);
	assert_int_equal(options.mtu, 9000);
	assert_int_equal(parse("tap-fd=7,vhost", &options), 0);
	assert_int_equal(options.tap_fd, 7);
	assert_int_equal(options.vhost, NET_VHOST_ON);
	assert_false(net_options_have_back_end(&options));
	assert_int_equal(parse("user,vhost", &options), 0);
	assert_true(net_options_have_back_end(&options));
	assert_int_equal(parse("user", &options), 0);
	assert_false(net_options_have_back_end(&options));
}

static void forwards_become_passts(void **state)
{
	static const struct {
		const char *word;
		bool udp;
		const char *ports;
	} cases[] = {
		{ "tcp:127.0.0.1:8080-:80", false, "127.0.0.1/8080:80" },
		{ "tcp::1-:65535", false, "1:65535" },
		{ "udp::53-:53", true, "53:53" },
		{ "tcp:[::1]:22-:2222", false, "::1/22:2222" },
		{ "udp:[fe80::1]:5-:6", true, "fe80::1/5:6" },
	};
	struct net_options options;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char spec[128];

		snprintf(spec, sizeof(spec), "user,forward=%s,forward=tcp::9-:9", cases[i].word);
		assert_int_equal(parse(spec, &options), 0);
		assert_int_equal(options.forward_count, 2);
		assert_int_equal(options.forwards[0].udp, cases[i].udp);
		assert_string_equal(options.forwards[0].ports, cases[i].ports);
		assert_string_equal(options.forwards[1].ports, "9:9");
		assert_string_equal(options.forwards[1].host, "");
		assert_int_equal(options.forwards[1].port, 9);
	}
}

static const struct {
	const char *spec;
	const char *message;
} bad[] = {
	{ "", "unknown word ''" },
	{ "mac=02:00:00:00:00:01", "say where it leads" },
	{ "queues=2", "say where it leads" },
	{ "tap-name=", "needs a value" },
	{ "tap-name=1234567890123456", "is no name of a network interface" },
	{ "tap-name=a/b", "is no name" },
	{ "tap-name=a%d", "is no name" },
	{ "tap-name=eth0:1", "is no name" },
	{ "tap-name=..", "is no name" },
	{ "tap-fd=x", "not a number" },
	{ "tap-fd=-1", "not a number" },
	{ "tap-fd=4294967296", "not a number" },
	{ "tap-fd=3,tap-name=a", "leave out tap-name" },
	{ "tap-fd=3,queues=2", "one queue" },
	{ "host-ip=10.0.0.1", "belong together" },
	{ "tap-name=t,netmask=255.0.0.0", "belong together" },
	{ "host-ip=10.0.0,netmask=255.0.0.0", "'10.0.0' is not an IPv4 address" },
	{ "host-ip=10.0.0.256,netmask=255.0.0.0", "is not an IPv4 address" },
	{ "host-ip=::1,netmask=255.0.0.0", "is not an IPv4 address" },
	{ "host-ip=0.0.0.0,netmask=255.0.0.0", "0.0.0.0 stands for no machine" },
	{ "host-ip=127.0.0.1,netmask=255.0.0.0", "is the loopback's" },
	{ "host-ip=224.0.0.1,netmask=255.0.0.0", "is a group's" },
	{ "host-ip=239.255.255.255,netmask=255.0.0.0", "is a group's" },
	{ "host-ip=240.0.0.1,netmask=255.0.0.0", "is reserved" },
	{ "host-ip=255.255.255.255,netmask=255.0.0.0", "is reserved" },
	{ "host-ip=1.2.3.4,netmask=255.0.255.0", "'255.0.255.0' is not a netmask" },
	{ "host-ip=1.2.3.4,netmask=24", "is not a netmask" },
	{ "tap-name=t,mac=02:00:00:00:00", "is not a MAC address" },
	{ "tap-name=t,mac=02:00:00:00:00:1", "is not a MAC address" },
	{ "tap-name=t,mac=02:00:00:00:00:0g", "is not a MAC address" },
	{ "tap-name=t,mac=02-00-00-00-00-01", "is not a MAC address" },
	{ "tap-name=t,mac=02:00:00:00:00:01:", "is not a MAC address" },
	{ "tap-name=t,mac=:::::::::::::::::", "is not a MAC address" },
	{ "tap-name=t,mac=2:0:0:0:0:01zzzzz", "is not a MAC address" },
	{ "tap-name=t,mac=03:00:00:00:00:01", "must be even" },
	{ "tap-name=t,mac=ff:ff:ff:ff:ff:ff", "must be even" },
	{ "tap-name=t,mac=00:00:00:00:00:00", "is nobody's address" },
	{ "tap-name=t,vhost=maybe", "vhost=maybe is not" },
	{ "tap-name=t,vhost=on,queues=2", "vhost=on is for one pair" },
	{ "tap-name=t,queues=0", "from 1 to 7" },
	{ "tap-name=t,queues=8", "from 1 to 7" },
	{ "tap-name=t,mtu=67", "from 68 to 65521" },
	{ "tap-name=t,mtu=65522", "from 68 to 65521" },
	{ "tap-name=t,forward=tcp::1-:1", "forward belongs to user" },
	{ "user,tap-name=t", "user has no tap" },
	{ "user,queues=2", "user has no tap" },
	{ "user=1", "neither true nor false" },
	{ "usr", "unknown word 'usr'" },
	{ "user,forward=tcp:1-:1", "is not tcp:HOST" },
	{ "user,forward=sctp::1-:1", "is not tcp:HOST" },
	{ "user,forward=tcp::0-:1", "is not tcp:HOST" },
	{ "user,forward=tcp::1-:65536", "is not tcp:HOST" },
	{ "user,forward=tcp::1-1", "is not tcp:HOST" },
	{ "user,forward=tcp::1-:1x", "is not tcp:HOST" },
	{ "user,forward=tcp::+1-:1", "is not tcp:HOST" },
	{ "user,forward=tcp:1.2.3:1-:1", "is not tcp:HOST" },
	{ "user,forward=tcp:[1:1-:1", "is not tcp:HOST" },
	{ "user,forward=tcp::1", "is not tcp:HOST" },
	{ "user,forward=", "needs a value" },
};

static void bad_specs_are_refused_in_one_line(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct net_options options;
		struct capture capture;

		capture_begin(&capture);
		int r = parse(bad[i].spec, &options);

		capture_end(&capture);
		if (r != -EINVAL || strstr(capture.text, bad[i].message) == NULL ||
			capture_lines(&capture) != 1)
			fail_msg("'%s': %d, %s", bad[i].spec, r, capture.text);
	}
}

static void the_first_crosvms_words_are_three(void **state)
{
	(void)state;
	for (unsigned given = 0; given < 8; given++) {
		struct vm_config config = { .device_count = 0 };
		struct capture capture;

		capture_begin(&capture);
		int r = device_options_add_seed_net(&config, given & 1 ? "10.0.0.1" : NULL,
			given & 2 ? "255.255.255.0" : NULL, given & 4 ? "02:00:00:00:00:01" : NULL);

		capture_end(&capture);
		assert_int_equal(r, given == 0 || given == 7 ? 0 : -EINVAL);
		assert_int_equal(config.device_count, given == 7);
		if (r < 0)
			assert_non_null(strstr(capture.text, "belong together"));
		vm_config_free_devices(&config);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tap_by_name),
		cmocka_unit_test(every_word_arrives),
		cmocka_unit_test(forwards_become_passts),
		cmocka_unit_test(bad_specs_are_refused_in_one_line),
		cmocka_unit_test(the_first_crosvms_words_are_three),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
