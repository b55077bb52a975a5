// SPDX-License-Identifier: BSD-3-Clause
/* bzImages: what is loaded where, and every lie of a setup header refused by its name. */
#include "unit.h"

#include "images.h"

static const struct {
	const char *name;
	struct patch patches[3];
	int error;
	const char *message;
} lies[] = {
	/* protocol */
	{ "version 2.11", { { BZ(version), 0x20b } }, -ENOEXEC, "boot protocol 2.11, 2.12 is" },
	{ "version 0", { { BZ(version), 0 } }, -ENOEXEC, "32-bit or very old kernel" },
	{ "32-bit", { { BZ(xloadflags), XLF_CAN_BE_LOADED_ABOVE_4G } }, -ENOEXEC,
		"a 32-bit kernel" },
	{ "zImage", { { BZ(loadflags), 0 } }, -ENOEXEC, "a zImage" },
	{ "header of 0 bytes", { { BZ_JUMP, 1, 0 } }, -ENOEXEC, "setup header is too short" },
	{ "header without init_size", { { BZ_JUMP, 1, 0x263 - 0x202 } }, -ENOEXEC,
		"setup header is too short" },
	{ "no HdrS", { { BZ(header), 0 } }, -ENOEXEC, "an EFI application" },
	{ "no boot flag", { { BZ(boot_flag), 0 } }, -ENOEXEC, "an EFI application" },

	/* sizes in the file */
	{ "setup_sects one too many", { { BZ(setup_sects), BZ_SETUP_SECTORS + 1 } }, -ENOEXEC,
		"truncated: 512 bytes are missing" },
	{ "setup_sects 255", { { BZ(setup_sects), 255 } }, -ENOEXEC, "truncated" },
	{ "setup_sects 0 means 4", { { BZ(setup_sects), 0 } }, -ENOEXEC,
		"truncated: 512 bytes are missing" },
	{ "syssize one too many", { { BZ(syssize), BZ_PAYLOAD_SIZE / 16 + 1 } }, -ENOEXEC,
		"truncated: 16 bytes are missing" },
	{ "syssize huge", { { BZ(syssize), UINT32_MAX } }, -ENOEXEC, "truncated" },
	{ "syssize of 4 GiB and a bit", { { BZ(syssize), 0x10000040 } }, -ENOEXEC, "truncated" },
	{ "syssize 0", { { BZ(syssize), 0 } }, -ENOEXEC, "no code at its 64-bit entry" },
	{ "no code at the entry", { { BZ(syssize), 0x200 / 16 } }, -ENOEXEC,
		"no code at its 64-bit entry" },

	/* sizes and places in memory */
	{ "init_size 0", { { BZ(init_size), 0 } }, -ENOEXEC, "init_size is smaller" },
	{ "init_size one too few", { { BZ(init_size), BZ_PAYLOAD_SIZE - 1 } }, -ENOEXEC,
		"init_size is smaller" },
	{ "init_size beyond RAM", { { BZ(init_size), 0x3000001 } }, -ENOMEM,
		"pass --mem 65 or more" },
	{ "init_size into the hole", { { BZ(init_size), 0xbf000001 } }, -ENOEXEC,
		"where no guest has" },
	{ "init_size 4 GiB", { { BZ(init_size), UINT32_MAX } }, -ENOEXEC, "where no guest has" },
	{ "at 0", { { BZ(pref_address), 0 } }, -ENOEXEC, "below the 1 MiB" },
	{ "below 1 MiB", { { BZ(pref_address), 0x90000 }, { BZ(relocatable_kernel), 0 } }, -ENOEXEC,
		"below the 1 MiB" },
	{ "beyond RAM", { { BZ(pref_address), 0x4000000 } }, -ENOMEM, "pass --mem 65 or more" },
	{ "in the hole", { { BZ(pref_address), 0xc0000000 } }, -ENOEXEC, "where no guest has" },
	{ "above 4 GiB", { { BZ(pref_address), 0x100000000 } }, -ENOEXEC, "where no guest has" },
	{ "wraps", { { BZ(pref_address), -(uint64_t)0x200000 }, { BZ(init_size), 0x200000 } },
		-ENOEXEC, "pref_address is out of range" },
	{ "nearly wraps", { { BZ(pref_address), -(uint64_t)0x200000 } }, -ENOEXEC,
		"where no guest has" },
	{ "not aligned", { { BZ(pref_address), BZ_LOAD + 0x1000 } }, -ENOEXEC, "is not aligned" },
	{ "alignment 0", { { BZ(kernel_alignment), 0 } }, -ENOEXEC, "not a power of two" },
	{ "alignment odd", { { BZ(kernel_alignment), 0x200001 } }, -ENOEXEC, "not a power of two" },
};

static void test_lies(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct test_file file;

		test_make_bzimage(&file);
		for (size_t j = 0; j < 3 && lies[i].patches[j].width != 0; j++)
			test_patch(&file, &lies[i].patches[j]);
		test_refused(lies[i].name, &file, lies[i].error, lies[i].message);
	}
}

/* A user who passes what the message names is not sent away again, nor has to pass more. */
static void test_least_memory(void **state)
{
	static const uint32_t init_sizes[] = { 0x3000001, 0x30fffff, 0x3100000, 0x3100001,
		0x7000000, 0x7ffffff };
	static const char before[] = "pass --mem ";
	struct kernel_image image;
	struct capture capture;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(init_sizes); i++) {
		struct test_file file;

		test_make_bzimage(&file);
		test_patch(&file, &(struct patch){ BZ(init_size), init_sizes[i] });
		assert_int_equal(
			test_load(&file, TEST_MEMORY_MIB, &image, &capture, NULL), -ENOMEM);
		const char *number = strstr(capture.text, before);

		assert_non_null(number);
		uint64_t mib = strtoull(number + sizeof(before) - 1, NULL, 10);

		assert_int_equal(test_load(&file, mib, &image, &capture, NULL), 0);
		assert_int_equal(test_load(&file, mib - 1, &image, &capture, NULL), -ENOMEM);
	}
}

/* At every sector, and around every place where a header could be half there. */
static void test_truncated(void **state)
{
	struct test_file file;

	(void)state;
	test_make_bzimage(&file);
	const size_t full = file.size;

	for (file.size = 0; file.size < full; file.size += 512)
		test_refused("truncated bzImage", &file, -ENOEXEC,
			file.size == 0     ? "an empty file"
			: file.size <= 512 ? "only the first sector of a bzImage"
					   : "bytes are missing");
	for (file.size = 0x1f0; file.size < 0x300; file.size++)
		test_refused("cut header", &file, -ENOEXEC, "");
	file.size = full - 16;
	test_refused("one paragraph", &file, -ENOEXEC, "truncated: 16 bytes are missing");
}

static void test_load_all(void **state)
{
	struct kernel_image image;
	struct guest_memory *memory = NULL;
	struct test_file file;

	(void)state;
	test_make_bzimage(&file);
	test_accepted("bzImage", &file, &image, &memory);
	assert_int_equal(image.entry_kind, KERNEL_ENTRY_LONG_MODE);
	assert_int_equal(image.entry, BZ_LOAD + 0x200);
	assert_int_equal(image.start, BZ_LOAD);
	assert_int_equal(image.end, BZ_LOAD + BZ_INIT_SIZE);
	assert_true(image.initrd_max == UINT64_MAX);
	assert_int_equal(image.cmdline_max, 2047);
	assert_int_equal(image.setup_header_size, BZ_HEADER_END - SETUP_HEADER_OFFSET);
	assert_memory_equal(image.setup_header, file.bytes + SETUP_HEADER_OFFSET,
		BZ_HEADER_END - SETUP_HEADER_OFFSET);
	assert_memory_equal(guest_memory_at(memory, BZ_LOAD, BZ_PAYLOAD_SIZE),
		file.bytes + BZ_PAYLOAD, BZ_PAYLOAD_SIZE);
	guest_memory_free(memory);
}

/* A signature may follow the kernel, and the last paragraph may be short. */
static void test_file_sizes(void **state)
{
	struct kernel_image image;
	struct guest_memory *memory = NULL;
	struct test_file file;

	(void)state;
	test_make_bzimage(&file);
	memset(file.bytes + file.size, 0xee, 1000);
	file.size += 1000;
	test_accepted("signed", &file, &image, &memory);
	assert_memory_equal(guest_memory_at(memory, BZ_LOAD, BZ_PAYLOAD_SIZE),
		file.bytes + BZ_PAYLOAD, BZ_PAYLOAD_SIZE);
	assert_int_equal(*(uint8_t *)guest_memory_at(memory, BZ_LOAD + BZ_PAYLOAD_SIZE, 1), 0);
	guest_memory_free(memory);

	test_make_bzimage(&file);
	file.size -= 15;
	test_accepted("short paragraph", &file, &image, NULL);
}

/* The setup header in the result never holds more than there is room for. */
static void test_header_length(void **state)
{
	struct kernel_image image;
	struct test_file file;

	(void)state;
	test_make_bzimage(&file);
	test_patch(&file, &(struct patch){ BZ_JUMP, 1, 0xff });
	test_accepted("long header", &file, &image, NULL);
	assert_int_equal(image.setup_header_size, SETUP_HEADER_MAX);
	test_patch(&file, &(struct patch){ BZ_JUMP, 1, 0x291 - 0x202 });
	test_accepted("one byte too long", &file, &image, NULL);
	assert_int_equal(image.setup_header_size, SETUP_HEADER_MAX);
	test_patch(&file, &(struct patch){ BZ_JUMP, 1, 0x264 - 0x202 });
	test_accepted("short header", &file, &image, NULL);
	assert_int_equal(image.setup_header_size, 0x264 - SETUP_HEADER_OFFSET);
}

static void test_flags(void **state)
{
	struct kernel_image image;
	struct test_file file;

	(void)state;
	test_make_bzimage(&file);
	test_patch(&file, &(struct patch){ BZ(xloadflags), XLF_KERNEL_64 });
	test_accepted("not above 4 GiB", &file, &image, NULL);
	assert_int_equal(image.initrd_max, 0x7fffffff);

	/* A kernel that cannot move needs no alignment but its own. */
	test_make_bzimage(&file);
	test_patch(&file, &(struct patch){ BZ(relocatable_kernel), 0 });
	test_patch(&file, &(struct patch){ BZ(pref_address), 0x101000 });
	test_accepted("not relocatable", &file, &image, NULL);
	assert_int_equal(image.entry, 0x101200);

	/* To the last byte of RAM. */
	test_make_bzimage(&file);
	test_patch(&file, &(struct patch){ BZ(init_size), 0x3000000 });
	test_accepted("all of RAM", &file, &image, NULL);
	assert_int_equal(image.end, TEST_MEMORY_MIB * MIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_least_memory),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_load_all),
		cmocka_unit_test(test_file_sizes),
		cmocka_unit_test(test_header_length),
		cmocka_unit_test(test_flags),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
