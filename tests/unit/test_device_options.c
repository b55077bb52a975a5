// SPDX-License-Identifier: BSD-3-Clause
/*
 * The device options: what each spec of a disk makes, the defaults, and every
 * bad value with its message. A refused device leaves the configuration as it
 * was.
 */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"
#include "cli/device_options.h"
#include "virtio/block_options.h"

struct setup {
	struct vm_config config;
	char *texts[8];
	unsigned text_count;
};

static struct setup new_setup(void)
{
	return (struct setup){ .text_count = 0 };
}

static void free_setup(struct setup *setup)
{
	vm_config_free_devices(&setup->config);
	for (unsigned i = 0; i < setup->text_count; i++)
		free(setup->texts[i]);
}

static int add(struct setup *setup, const char *spec)
{
	char *text = strdup(spec);

	assert_non_null(text);
	assert_true(setup->text_count < ARRAY_SIZE(setup->texts));
	setup->texts[setup->text_count++] = text;
	return device_options_add(&setup->config, "--block", &block_device_class, text);
}

static int add_path(struct setup *setup, const char *option, const char *path)
{
	bool root = strstr(option, "root") != NULL;

	return device_options_add_disk(
		&setup->config, option, path, strncmp(option, "--rw", 4) != 0, root);
}

static const struct block_options *disk_of(const struct setup *setup, unsigned index)
{
	assert_ptr_equal(setup->config.devices[index].class, &block_device_class);
	return setup->config.devices[index].options;
}

static void a_path_gives_a_writable_disk_with_defaults(void **state)
{
	static const char *const specs[] = { "a.img", "path=a.img", "path=a.img,ro=false",
		"a.img,root=false,direct=false,sparse=true,engine=uring,queues=1,block-size=512" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(specs); i++) {
		struct setup setup = new_setup();

		assert_int_equal(add(&setup, specs[i]), 0);
		assert_int_equal(setup.config.device_count, 1);
		const struct block_options *disk = disk_of(&setup, 0);

		assert_string_equal(disk->path, "a.img");
		assert_false(disk->read_only || disk->direct || disk->raw || disk->no_discard ||
			     disk->sync_engine || disk->root);
		assert_int_equal(disk->block_size, 512);
		assert_int_equal(disk->queues, 1);
		assert_string_equal(disk->id, "");
		free_setup(&setup);
	}
}

static void every_word_arrives(void **state)
{
	struct setup setup = new_setup();

	(void)state;
	assert_int_equal(add(&setup, "ro,root,direct,sparse=false,block-size=4096,"
				     "id=12345678901234567890,queues=16,format=raw,engine=sync,"
				     "path=./x=y"),
		0);
	const struct block_options *disk = disk_of(&setup, 0);

	assert_string_equal(disk->path, "./x=y");
	assert_true(disk->read_only && disk->direct && disk->raw && disk->no_discard &&
		    disk->sync_engine);
	assert_int_equal(disk->block_size, 4096);
	assert_int_equal(disk->queues, 16);
	assert_string_equal(disk->id, "12345678901234567890");
	assert_true(disk->root);
	free_setup(&setup);
}

static const struct {
	const char *spec;
	const char *message;
} bad[] = {
	{ "", "no path" },
	{ "ro", "no path" },
	{ "path", "needs a value" },
	{ "path=", "needs a value" },
	{ "a,unknown", "unknown word 'unknown'" },
	{ "a,b", "unknown word 'b'; the manual lists them, and a path with a comma in it needs "
		 "--disk" },
	{ "a,path=b", "'path' is given twice" },
	{ "a,ro,ro", "'ro' is given twice" },
	{ "a,", "unknown word ''" },
	{ "a,ro=yes", "ro=yes" },
	{ "a,ro=", "neither true nor false" },
	{ "a,root=2", "root=2" },
	{ "a,direct=on", "direct=on" },
	{ "a,sparse=no", "sparse=no" },
	{ "a,block-size", "needs a value" },
	{ "a,block-size=0", "'0' is not a number from 512 to 4096" },
	{ "a,block-size=511", "not a number from 512" },
	{ "a,block-size=513", "not a power of two" },
	{ "a,block-size=4095", "not a power of two" },
	{ "a,block-size=4097", "not a number from 512" },
	{ "a,block-size=8192", "not a number from 512" },
	{ "a,block-size=4k", "not a number" },
	{ "a,block-size=-512", "not a number" },
	{ "a,block-size=18446744073709552128", "not a number" },
	{ "a,id", "needs a value" },
	{ "a,id=123456789012345678901", "longer than 20" },
	{ "a,queues=0", "--block: queues: '0' is not a number from 1 to 16" },
	{ "a,queues=17", "not a number from 1 to 16" },
	{ "a,queues=x", "not a number" },
	{ "a,queues=4294967297", "not a number" },
	{ "a,queues= 4", "not a number" },
	{ "a,queues", "needs a value" },
	{ "a,format=qcow2", "only raw" },
	{ "a,format=RAW", "only raw" },
	{ "a,format", "needs a value" },
	{ "a,engine=aio", "neither uring nor sync" },
	{ "a,engine=", "needs a value" },
};

static void bad_specs_are_refused_in_one_line(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct setup setup = new_setup();
		struct capture capture;

		capture_begin(&capture);
		int r = add(&setup, bad[i].spec);

		capture_end(&capture);
		if (r != -EINVAL || strstr(capture.text, bad[i].message) == NULL ||
			capture_lines(&capture) != 1)
			fail_msg("'%s': %d, %s", bad[i].spec, r, capture.text);
		assert_int_equal(setup.config.device_count, 0);
		free_setup(&setup);
	}
}

static void context_ids_of_the_host_are_refused(void **state)
{
	static const struct {
		const char *spec;
		const char *message;
	} cases[] = {
		{ "0", "pass a number from 3 to 4294967294" },
		{ "cid=0", "context id 0 is reserved for the hypervisor" },
		{ "cid=1", "context id 1 is each machine's own loopback" },
		{ "cid=2", "context id 2 is the host" },
		{ "cid=4294967295", "context id 4294967295 stands for any machine" },
		{ "cid=4294967296", "'4294967296' is not a number from 3 to 4294967294" },
		{ "cid=x", "'x' is not a number" },
		{ "cid=", "needs a value" },
		{ "3,sock=x", "unknown word 'sock'" },
		{ "3,socket=", "needs a value" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vm_config config = { .device_count = 0 };
		struct capture capture;
		char spec[64];

		snprintf(spec, sizeof(spec), "%s", cases[i].spec);
		capture_begin(&capture);
		assert_int_equal(
			device_options_add(&config, "--vsock", &vsock_device_class, spec), -EINVAL);
		capture_end(&capture);
		if (strstr(capture.text, cases[i].message) == NULL)
			fail_msg("'%s': says %s", cases[i].spec, capture.text);
		assert_int_equal(config.device_count, 0);
	}
}

/* Devices of which there is one: what several options say comes together, once each. */
static void single_devices_are_gathered(void **state)
{
	static const struct {
		const struct device_class *class;
		const char *first, *second;
		const char *message; /* NULL: accepted */
	} cases[] = {
		{ &vsock_device_class, "3", "socket=/v", NULL },
		{ &vsock_device_class, "socket=/v", "3", NULL },
		{ &vsock_device_class, "cid=4,socket=/v", "cid=5,socket=/w",
			"--thing: 'cid' is given twice" },
		{ &vsock_device_class, "3", "cid=3", "--thing: 'cid' is given twice" },
		{ &vsock_device_class, "socket=/v", NULL, "--thing: no context id" },
		{ &balloon_device_class, "size=1", "reporting", NULL },
		{ &balloon_device_class, "size=1", "size=2", "--thing: 'size' is given twice" },
		{ &balloon_device_class, "256", NULL, NULL },
		{ &balloon_device_class, "reporting", "257",
			"--balloon: size=257 is more than the guest has: 256 MiB" },
		{ &wl_device_class, "/p,id=63", "/q,name=x,id=63", NULL },
		{ &wl_device_class, "/dev", NULL, "--thing: '/dev' is no socket" },
		{ &wl_device_class, "/nowhere/wayland-0", "/dev/null,name=x",
			"--thing: '/dev/null' is no socket" },
		{ &wl_device_class, "/p", "/q", "--thing: two sockets with the name ''" },
		{ &wl_device_class, "/p,name=x,name=y", NULL, "--thing: 'name' is given twice" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vm_config config = { .memory_size = 256 * MIB };
		struct capture capture;
		char first[64], second[64];

		snprintf(first, sizeof(first), "%s", cases[i].first);
		capture_begin(&capture);
		int r = device_options_add(&config, "--thing", cases[i].class, first);

		if (r == 0 && cases[i].second != NULL) {
			snprintf(second, sizeof(second), "%s", cases[i].second);
			r = device_options_add(&config, "--thing", cases[i].class, second);
		}
		if (r == 0)
			r = device_options_check(&config);
		capture_end(&capture);
		if (r != (cases[i].message == NULL ? 0 : -EINVAL))
			fail_msg("%s %s: %d, %s", first, second, r, capture.text);
		if (cases[i].message == NULL)
			assert_int_equal(config.device_count, 1);
		else if (strstr(capture.text, cases[i].message) == NULL)
			fail_msg("says %s", capture.text);
		vm_config_free_devices(&config);
	}
}

/* That one has its own options, which are not ours to add to. */
static void a_foreign_device_is_not_added_to(void **state)
{
	struct vm_config config = { .device_count = 0 };
	char foreign[] = "type=vsock,socket=/v", ours[] = "cid=3";

	(void)state;
	assert_int_equal(device_options_add_foreign(&config, "--vhost-user", foreign), 0);
	assert_int_equal(device_options_add(&config, "--vsock", &vsock_device_class, ours), 0);
	assert_int_equal(device_options_check(&config), 0);
	assert_int_equal(config.device_count, 2);
	vm_config_free_devices(&config);
}

static void disks_keep_their_order(void **state)
{
	struct setup setup = new_setup();
	struct capture capture;

	(void)state;
	assert_int_equal(add(&setup, "a"), 0);
	assert_int_equal(add_path(&setup, "--disk", "b"), 0);
	assert_int_equal(add_path(&setup, "--rwroot", "c"), 0);
	assert_int_equal(add(&setup, "d,ro"), 0);
	capture_begin(&capture);
	assert_int_equal(add_path(&setup, "--disk", ""), -EINVAL);
	capture_end(&capture);
	assert_non_null(strstr(capture.text, "--disk: no path; pass that of an image"));
	assert_int_equal(setup.config.device_count, 4);
	for (unsigned i = 0; i < 4; i++) {
		const char name[] = { (char)('a' + i), '\0' };
		const struct block_options *disk = disk_of(&setup, i);

		assert_string_equal(disk->path, name);
		assert_int_equal(disk->read_only, i == 1 || i == 3);
		assert_int_equal(disk->root, i == 2);
		assert_int_equal(disk->block_size, 512);
		assert_int_equal(disk->queues, 1);
	}
	assert_int_equal(device_options_check(&setup.config), 0);
	free_setup(&setup);
}

static void one_disk_is_root(void **state)
{
	static const char *const options[] = { "--root", "--rwroot" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		struct setup setup = new_setup();
		struct capture capture;

		assert_int_equal(add(&setup, "a,root"), 0);
		assert_int_equal(
			device_options_add(&setup.config, "--rng", &rng_device_class, NULL), 0);
		assert_int_equal(device_options_check(&setup.config), 0);
		assert_int_equal(add_path(&setup, options[i], "b"), 0);
		capture_begin(&capture);
		assert_int_equal(device_options_check(&setup.config), -EINVAL);
		capture_end(&capture);
		assert_non_null(strstr(capture.text, "two root disks, 'a' and 'b'"));
		assert_int_equal(capture_lines(&capture), 1);
		free_setup(&setup);
	}
}

static void root_names_the_disk_as_linux_does(void **state)
{
	static const struct {
		unsigned index;
		bool read_only;
		const char *text;
	} cases[] = {
		{ 0, false, " root=/dev/vda rw" },
		{ 25, true, " root=/dev/vdz ro" },
		{ 26, true, " root=/dev/vdaa ro" },
		{ 199, false, " root=/dev/vdgr rw" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct block_options options = { .root = true, .read_only = cases[i].read_only };
		char text[64];

		block_kernel_params(&options, cases[i].index, text, sizeof(text));
		assert_string_equal(text, cases[i].text);
		options.root = false;
		block_kernel_params(&options, cases[i].index, text, sizeof(text));
		assert_string_equal(text, "");
	}
}

static void too_many_devices(void **state)
{
	struct setup setup = new_setup();
	struct capture capture;

	(void)state;
	for (unsigned i = 0; i < VM_DEVICES_MAX; i++)
		assert_int_equal(add_path(&setup, "--disk", "a"), 0);
	capture_begin(&capture);
	assert_int_equal(add_path(&setup, "--disk", "a"), -EINVAL);
	capture_end(&capture);
	assert_non_null(strstr(capture.text, "more than"));
	assert_int_equal(setup.config.device_count, VM_DEVICES_MAX);
	free_setup(&setup);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_path_gives_a_writable_disk_with_defaults),
		cmocka_unit_test(every_word_arrives),
		cmocka_unit_test(bad_specs_are_refused_in_one_line),
		cmocka_unit_test(context_ids_of_the_host_are_refused),
		cmocka_unit_test(single_devices_are_gathered),
		cmocka_unit_test(a_foreign_device_is_not_added_to),
		cmocka_unit_test(disks_keep_their_order),
		cmocka_unit_test(one_disk_is_root),
		cmocka_unit_test(root_names_the_disk_as_linux_does),
		cmocka_unit_test(too_many_devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
