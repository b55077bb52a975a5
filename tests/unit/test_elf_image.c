// SPDX-License-Identifier: BSD-3-Clause
/* ELF kernels: what is loaded, where it is entered, and every lie refused by its name. */
#include "unit.h"

#include "images.h"

struct lie {
	const char *name;
	struct patch patches[3];
	int error;
	const char *message;
};

static const struct lie lies[] = {
	/* what it is */
	{ "class 32", { { EI_CLASS, 1, ELFCLASS32 } }, -ENOEXEC, "a 32-bit ELF file" },
	{ "class 0", { { EI_CLASS, 1, 0 } }, -ENOEXEC, "class, byte order or version" },
	{ "big endian", { { EI_DATA, 1, ELFDATA2MSB } }, -ENOEXEC, "a big-endian ELF file" },
	{ "data 7", { { EI_DATA, 1, 7 } }, -ENOEXEC, "class, byte order or version" },
	{ "version", { { EI_VERSION, 1, 2 } }, -ENOEXEC, "class, byte order or version" },
	{ "arm64", { { EHDR(e_machine), EM_AARCH64 } }, -ENOEXEC, "an ELF file for arm64" },
	{ "machine 9999", { { EHDR(e_machine), 9999 } }, -ENOEXEC, "for another machine" },
	{ "module", { { EHDR(e_type), ET_REL } }, -ENOEXEC, "a kernel module" },
	{ "core", { { EHDR(e_type), ET_CORE } }, -ENOEXEC, "a core dump" },
	{ "type 77", { { EHDR(e_type), 77 } }, -ENOEXEC, "its type is unknown" },
	{ "program", { { PHDR(2, p_type), PT_INTERP }, { PHDR(2, p_filesz), 0 } }, -ENOEXEC,
		"a program, not a kernel" },
	{ "shared library", { { PHDR(2, p_type), PT_DYNAMIC }, { EHDR(e_type), ET_DYN } }, -ENOEXEC,
		"a shared library" },
	{ "glibc program", { { ELF_NOTES + 24 + 12, 4, 0x554e47 }, { ELF_NOTES + 24 + 8, 4, 1 } },
		-ENOEXEC, "a program, not a kernel" },

	/* segment headers */
	{ "no segments", { { EHDR(e_phnum), 0 } }, -ENOEXEC, "no segments" },
	{ "65 segments", { { EHDR(e_phnum), 65 } }, -ENOEXEC, "more than 64 segments" },
	{ "PN_XNUM", { { EHDR(e_phnum), PN_XNUM } }, -ENOEXEC, "more than 64 segments" },
	{ "phentsize", { { EHDR(e_phentsize), 55 } }, -ENOEXEC, "the wrong size" },
	{ "phentsize 0", { { EHDR(e_phentsize), 0 } }, -ENOEXEC, "the wrong size" },
	{ "phoff at the end", { { EHDR(e_phoff), ELF_FILE_SIZE - 167 } }, -ENOEXEC,
		"truncated: 1 bytes are missing" },
	{ "phoff wraps", { { EHDR(e_phoff), UINT64_MAX - 100 } }, -ENOEXEC,
		"segment headers lie outside" },
	{ "phoff negative", { { EHDR(e_phoff), UINT64_C(1) << 63 } }, -ENOEXEC,
		"segment headers lie outside" },
	{ "nothing to load", { { PHDR(0, p_type), PT_NULL }, { PHDR(1, p_type), PT_NULL } },
		-ENOEXEC, "nothing to load" },
	{ "only empty segments",
		{ { PHDR(0, p_type), PT_NULL }, { PHDR(1, p_memsz), 0 }, { PHDR(1, p_filesz), 0 } },
		-ENOEXEC, "nothing to load" },

	/* segments in the file */
	{ "filesz > memsz", { { PHDR(0, p_filesz), ELF_TEXT_SIZE + 1 } }, -ENOEXEC,
		"larger in the file than in memory" },
	{ "one byte beyond the file", { { PHDR(1, p_offset), ELF_DATA + 1 } }, -ENOEXEC,
		"truncated: 1 bytes are missing" },
	{ "offset beyond the file", { { PHDR(1, p_offset), 0x100000 } }, -ENOEXEC, "truncated" },
	{ "offset wraps", { { PHDR(1, p_offset), UINT64_MAX - 0x10 } }, -ENOEXEC,
		"a segment lies outside of the file" },
	{ "offset + filesz is 0", { { PHDR(1, p_offset), -(uint64_t)ELF_DATA_SIZE } }, -ENOEXEC,
		"a segment lies outside of the file" },
	{ "offset negative", { { PHDR(1, p_offset), UINT64_C(1) << 63 } }, -ENOEXEC,
		"a segment lies outside of the file" },
	{ "all sizes huge", { { PHDR(1, p_filesz), UINT64_MAX }, { PHDR(1, p_memsz), UINT64_MAX } },
		-ENOEXEC, "a segment is out of range" },

	/* segments in memory */
	{ "beyond RAM", { { PHDR(1, p_memsz), 0x3000000 } }, -ENOMEM, "pass --mem 65 or more" },
	{ "one byte beyond RAM", { { PHDR(1, p_memsz), 0x4000000 - ELF_LOAD_DATA + 1 } }, -ENOMEM,
		"pass --mem 65 or more" },
	{ "after RAM", { { PHDR(1, p_paddr), 0x8000000 } }, -ENOMEM, "pass --mem 129 or more" },
	{ "in the hole", { { PHDR(1, p_paddr), 0xc0000000 } }, -ENOEXEC, "where no guest has" },
	{ "into the hole", { { PHDR(1, p_paddr), 0xbffff000 } }, -ENOEXEC, "where no guest has" },
	{ "above 4 GiB", { { PHDR(1, p_paddr), 0x100000000 } }, -ENOEXEC, "where no guest has" },
	{ "virtual address", { { PHDR(1, p_paddr), 0xffffffff81002000 } }, -ENOEXEC,
		"where no guest has" },
	{ "paddr wraps", { { PHDR(1, p_paddr), UINT64_MAX - 0x1000 } }, -ENOEXEC,
		"a segment is out of range" },
	{ "memsz wraps", { { PHDR(1, p_memsz), UINT64_MAX - ELF_LOAD_DATA + 1 } }, -ENOEXEC,
		"a segment is out of range" },
	{ "memsz to the top", { { PHDR(1, p_memsz), UINT64_MAX - ELF_LOAD_DATA } }, -ENOEXEC,
		"where no guest has" },
	{ "at 0", { { PHDR(1, p_paddr), 0 } }, -ENOEXEC, "below the 1 MiB" },
	{ "below 1 MiB", { { PHDR(1, p_paddr), 0xfffff } }, -ENOEXEC, "below the 1 MiB" },
	{ "same place", { { PHDR(1, p_paddr), ELF_LOAD } }, -ENOEXEC, "two segments overlap" },
	{ "last byte shared", { { PHDR(1, p_paddr), ELF_LOAD + ELF_TEXT_SIZE - 1 } }, -ENOEXEC,
		"two segments overlap" },
	{ "overlap by .bss", { { PHDR(0, p_memsz), 0x2001 } }, -ENOEXEC, "two segments overlap" },
	{ "one in the other", { { PHDR(0, p_paddr), ELF_LOAD_DATA + 0x1000 } }, -ENOEXEC,
		"two segments overlap" },

	/* entry */
	{ "no entry", { { EHDR(e_entry), 0xffffffff81000000 }, { PHDR(2, p_type), PT_NULL } },
		-ENOEXEC, "without a 64-bit (physical) or PVH entry" },
	{ "entry in .bss",
		{ { EHDR(e_entry), ELF_LOAD_DATA + ELF_DATA_SIZE }, { PHDR(2, p_type), PT_NULL } },
		-ENOEXEC, "without a 64-bit" },
	{ "entry after the end",
		{ { EHDR(e_entry), ELF_LOAD_DATA + ELF_DATA_MEMORY },
			{ PHDR(2, p_type), PT_NULL } },
		-ENOEXEC, "without a 64-bit" },
	{ "PVH entry outside", { { EHDR(e_entry), 0 }, { ELF_NOTES + 40, 8, 0x100 } }, -ENOEXEC,
		"PVH entry point lies outside" },
	{ "PVH entry above 4 GiB",
		{ { EHDR(e_entry), 0 }, { ELF_NOTES + 40, 8, UINT64_C(0x100000000) + ELF_LOAD } },
		-ENOEXEC, "PVH entry point lies outside" },

	/* notes */
	{ "notes beyond the file", { { PHDR(2, p_offset), ELF_FILE_SIZE - 0x3f } }, -ENOEXEC,
		"truncated: 1 bytes are missing" },
	{ "notes wrap", { { PHDR(2, p_offset), UINT64_MAX - 1 } }, -ENOEXEC,
		"its notes lie outside" },
	{ "note name huge", { { EHDR(e_entry), 0 }, { ELF_NOTES, 4, UINT32_MAX } }, -ENOEXEC,
		"without a 64-bit" },
	{ "note description huge", { { EHDR(e_entry), 0 }, { ELF_NOTES + 4, 4, UINT32_MAX } },
		-ENOEXEC, "without a 64-bit" },
	{ "PVH description of 9", { { EHDR(e_entry), 0 }, { ELF_NOTES + 28, 4, 9 } }, -ENOEXEC,
		"without a 64-bit" },
	{ "PVH description of 0", { { EHDR(e_entry), 0 }, { ELF_NOTES + 28, 4, 0 } }, -ENOEXEC,
		"without a 64-bit" },
	{ "PVH description cut", { { EHDR(e_entry), 0 }, { PHDR(2, p_filesz), 47 } }, -ENOEXEC,
		"without a 64-bit" },
	{ "another owner's note", { { EHDR(e_entry), 0 }, { ELF_NOTES + 36, 4, 0x6e6559 } },
		-ENOEXEC, "without a 64-bit" },
};

static void test_lies(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct test_file file;

		test_make_elf(&file);
		for (size_t j = 0; j < 3 && lies[i].patches[j].width != 0; j++)
			test_patch(&file, &lies[i].patches[j]);
		test_refused(lies[i].name, &file, lies[i].error, lies[i].message);
	}
}

static void test_truncated(void **state)
{
	struct test_file file;

	(void)state;
	test_make_elf(&file);
	for (file.size = 4; file.size < ELF_FILE_SIZE; file.size += file.size < 256 ? 1 : 128)
		test_refused("truncated ELF", &file, -ENOEXEC, "bytes are missing");
}

static void test_long_mode(void **state)
{
	struct kernel_image image;
	struct guest_memory *memory = NULL;
	struct setup_header header;
	struct test_file file;

	(void)state;
	test_make_elf(&file);
	test_accepted("vmlinux", &file, &image, &memory);
	assert_int_equal(image.entry_kind, KERNEL_ENTRY_LONG_MODE);
	assert_int_equal(image.entry, ELF_LOAD);
	assert_int_equal(image.start, ELF_LOAD);
	assert_int_equal(image.end, ELF_LOAD_DATA + ELF_DATA_MEMORY);
	assert_true(image.initrd_max == UINT64_MAX);
	assert_int_equal(image.cmdline_max, 2047);
	assert_memory_equal(guest_memory_at(memory, ELF_LOAD, ELF_TEXT_SIZE), file.bytes + ELF_TEXT,
		ELF_TEXT_SIZE);
	assert_memory_equal(guest_memory_at(memory, ELF_LOAD_DATA, ELF_DATA_SIZE),
		file.bytes + ELF_DATA, ELF_DATA_SIZE);
	const uint8_t *bss = guest_memory_at(
		memory, ELF_LOAD_DATA + ELF_DATA_SIZE, ELF_DATA_MEMORY - ELF_DATA_SIZE);

	for (size_t i = 0; i < ELF_DATA_MEMORY - ELF_DATA_SIZE; i++)
		assert_int_equal(bss[i], 0);
	assert_true(image.setup_header_size >= sizeof(header));
	memcpy(&header, image.setup_header, sizeof(header));
	assert_int_equal(header.boot_flag, 0xaa55);
	assert_int_equal(header.header, 0x53726448);
	assert_int_equal(header.version, 0x20c);
	assert_int_equal(header.kernel_alignment, 0x1000000);
	assert_int_equal(header.initrd_addr_max, UINT32_MAX);
	assert_int_equal(header.cmdline_size, 2047);
	assert_int_equal(header.type_of_loader, 0);
	guest_memory_free(memory);
}

/* What must load although it looks odd. */
static const struct {
	const char *name;
	struct patch patches[3];
	enum kernel_entry kind;
	uint64_t entry;
} oddities[] = {
	{ "virtual entry", { { EHDR(e_entry), 0xffffffff81000000 } }, KERNEL_ENTRY_PVH,
		ELF_PVH_ENTRY },
	{ "entry is the PVH one", { { EHDR(e_entry), ELF_PVH_ENTRY } }, KERNEL_ENTRY_PVH,
		ELF_PVH_ENTRY },
	{ "PVH description of 4 bytes", { { EHDR(e_entry), 0 }, { ELF_NOTES + 28, 4, 4 } },
		KERNEL_ENTRY_PVH, ELF_PVH_ENTRY },
	{ "no notes", { { PHDR(2, p_type), PT_NULL } }, KERNEL_ENTRY_LONG_MODE, ELF_LOAD },
	{ "more notes than are looked at", { { PHDR(2, p_filesz), ELF_FILE_SIZE - ELF_NOTES } },
		KERNEL_ENTRY_LONG_MODE, ELF_LOAD },
	{ "damaged notes", { { ELF_NOTES, 4, UINT32_MAX } }, KERNEL_ENTRY_LONG_MODE, ELF_LOAD },
	{ "position independent", { { EHDR(e_type), ET_DYN } }, KERNEL_ENTRY_LONG_MODE, ELF_LOAD },
	{ "last byte of the text", { { EHDR(e_entry), ELF_LOAD + ELF_TEXT_SIZE - 1 } },
		KERNEL_ENTRY_LONG_MODE, ELF_LOAD + ELF_TEXT_SIZE - 1 },
	{ "at 1 MiB", { { PHDR(1, p_paddr), 0x100000 } }, KERNEL_ENTRY_LONG_MODE, ELF_LOAD },
	{ "to the end of RAM", { { PHDR(1, p_memsz), 0x4000000 - ELF_LOAD_DATA } },
		KERNEL_ENTRY_LONG_MODE, ELF_LOAD },
	{ "segments touch", { { PHDR(0, p_memsz), 0x2000 } }, KERNEL_ENTRY_LONG_MODE, ELF_LOAD },
	{ "empty segment anywhere",
		{ { PHDR(1, p_memsz), 0 }, { PHDR(1, p_filesz), 0 },
			{ PHDR(1, p_paddr), UINT64_MAX } },
		KERNEL_ENTRY_LONG_MODE, ELF_LOAD },
};

static void test_oddities(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(oddities); i++) {
		struct kernel_image image;
		struct test_file file;

		test_make_elf(&file);
		for (size_t j = 0; j < 3 && oddities[i].patches[j].width != 0; j++)
			test_patch(&file, &oddities[i].patches[j]);
		test_accepted(oddities[i].name, &file, &image, NULL);
		if (image.entry_kind != oddities[i].kind || image.entry != oddities[i].entry)
			fail_msg("%s: entry %d at 0x%" PRIx64, oddities[i].name, image.entry_kind,
				image.entry);
		if (image.entry_kind == KERNEL_ENTRY_PVH) {
			assert_int_equal(image.setup_header_size, 0);
			assert_true(image.initrd_max == UINT32_MAX);
		}
	}
}

/* Notes that are aligned to 8 bytes: the descriptions move. */
static void test_notes_aligned_to_8(void **state)
{
	const uint32_t notes[] = { 4, 4, 6, 0x6e6558, 1, 2, /* the second */ 4, 8, 18, 0x6e6558,
		ELF_PVH_ENTRY, 0 };
	const struct patch patches[] = { { PHDR(2, p_align), 8 }, { EHDR(e_entry), 0 } };
	struct kernel_image image;
	struct test_file file;

	(void)state;
	test_make_elf(&file);
	memcpy(file.bytes + ELF_NOTES, notes, sizeof(notes));
	for (size_t i = 0; i < ARRAY_SIZE(patches); i++)
		test_patch(&file, &patches[i]);
	test_accepted("8-byte notes", &file, &image, NULL);
	assert_int_equal(image.entry, ELF_PVH_ENTRY);
}

/* Segment headers need not be in the first page. */
static void test_headers_far_away(void **state)
{
	struct kernel_image image;
	struct test_file file;

	(void)state;
	test_make_elf(&file);
	memcpy(file.bytes + file.size, file.bytes + ELF_PHDRS, 3 * sizeof(Elf64_Phdr));
	memset(file.bytes + ELF_PHDRS, 0xee, 3 * sizeof(Elf64_Phdr));
	test_patch(&file, &(struct patch){ EHDR(e_phoff), file.size });
	file.size += 3 * sizeof(Elf64_Phdr);
	test_accepted("headers at the end", &file, &image, NULL);
	assert_int_equal(image.entry, ELF_LOAD);
	assert_int_equal(image.end, ELF_LOAD_DATA + ELF_DATA_MEMORY);
}

/* ---- arch/x86/boot/compressed/vmlinux ---- */

enum {
	ZO_SECTIONS = 0x2800,
	ZO_NAMES = 0x2900,
	ZO_OUTPUT_SIZE = 0x200000,
	ZO_INPUT_SIZE = 0xc00,
	ZO_END = 0x5000,
};

#define SHDR(index, field)                                                                         \
	ZO_SECTIONS + (index) * sizeof(Elf64_Shdr) + offsetof(Elf64_Shdr, field),                  \
		sizeof(((Elf64_Shdr *)0)->field)

static const char zo_names[] = "\0.shstrtab\0.rodata..compressed";

static void make_compressed(struct test_file *file)
{
	const Elf64_Shdr sections[] = {
		{ 0 },
		{ .sh_name = 11,
			.sh_type = SHT_PROGBITS,
			.sh_offset = 0x1300,
			.sh_size = ZO_INPUT_SIZE },
		{ .sh_name = 1,
			.sh_type = SHT_STRTAB,
			.sh_offset = ZO_NAMES,
			.sh_size = sizeof(zo_names) },
	};
	const struct patch patches[] = {
		{ EHDR(e_type), ET_DYN },
		{ EHDR(e_entry), 0x200 },
		{ EHDR(e_shoff), ZO_SECTIONS },
		{ EHDR(e_shnum), ARRAY_SIZE(sections) },
		{ EHDR(e_shentsize), sizeof(sections[0]) },
		{ EHDR(e_shstrndx), 2 },
		{ PHDR(0, p_paddr), 0 },
		{ PHDR(1, p_paddr), 0x2000 },
		{ PHDR(2, p_type), PT_GNU_STACK },
		{ 0x1300 + ZO_INPUT_SIZE - 4, 4, ZO_OUTPUT_SIZE },
	};

	test_make_elf(file);
	file->size = 0x2a00;
	memcpy(file->bytes + ZO_SECTIONS, sections, sizeof(sections));
	memcpy(file->bytes + ZO_NAMES, zo_names, sizeof(zo_names));
	for (size_t i = 0; i < ARRAY_SIZE(patches); i++)
		test_patch(file, &patches[i]);
}

static void check_compressed(
	const char *name, const struct test_file *file, uint64_t least, uint64_t most)
{
	struct kernel_image image;
	struct guest_memory *memory = NULL;
	struct setup_header header;

	test_accepted(name, file, &image, &memory);
	memcpy(&header, image.setup_header, sizeof(header));
	assert_int_equal(image.entry_kind, KERNEL_ENTRY_LONG_MODE);
	assert_int_equal(image.entry, 0x1000200);
	assert_int_equal(image.start, 0x1000000);
	assert_in_range(header.init_size, least, most);
	assert_in_range(image.end, 0x1000000 + header.init_size, TEST_MEMORY_MIB * MIB);
	assert_int_equal(header.kernel_alignment, 0x1000000);
	assert_memory_equal(guest_memory_at(memory, 0x1000000, ELF_TEXT_SIZE),
		file->bytes + ELF_TEXT, ELF_TEXT_SIZE);
	assert_memory_equal(guest_memory_at(memory, 0x1002000, ELF_DATA_SIZE),
		file->bytes + ELF_DATA, ELF_DATA_SIZE);
	guest_memory_free(memory);
}

static void test_compressed(void **state)
{
	/* header.S: _end + align(output + output / 256 + 128 KiB - input) */
	const uint64_t init_size =
		ZO_END +
		((ZO_OUTPUT_SIZE + ZO_OUTPUT_SIZE / 256 + 0x20000 - ZO_INPUT_SIZE + 0xfff) &
			~UINT64_C(0xfff));
	struct test_file file;

	(void)state;
	make_compressed(&file);
	check_compressed("compressed vmlinux", &file, init_size, init_size);
	test_patch(&file, &(struct patch){ EHDR(e_entry), 0 });
	check_compressed("with a 32-bit entry", &file, init_size, init_size);

	/* Without section headers it is a guess: several times the file, in RAM. */
	make_compressed(&file);
	test_patch(&file, &(struct patch){ EHDR(e_shnum), 0 });
	check_compressed("without section headers", &file, 8 * ZO_END, 16 * ZO_END);
	make_compressed(&file);
	test_patch(&file, &(struct patch){ SHDR(1, sh_name), 1 });
	check_compressed("without the section", &file, 8 * ZO_END, 16 * ZO_END);
	make_compressed(&file);
	test_patch(&file, &(struct patch){ SHDR(1, sh_name), sizeof(zo_names) - 5 });
	check_compressed("with half a name", &file, 8 * ZO_END, 16 * ZO_END);
	test_patch(&file, &(struct patch){ SHDR(1, sh_name), UINT32_MAX });
	check_compressed("with a name that is nowhere", &file, 8 * ZO_END, 16 * ZO_END);
	make_compressed(&file);
	test_patch(&file, &(struct patch){ EHDR(e_shoff), ELF_TEXT });
	test_patch(&file, &(struct patch){ EHDR(e_shnum), 65 });
	check_compressed("with more sections than are looked at", &file, 8 * ZO_END, 16 * ZO_END);
}

/* Its section headers and their names come last. */
static void test_compressed_truncated(void **state)
{
	struct test_file file;

	(void)state;
	make_compressed(&file);
	for (file.size = 512; file.size <= ZO_NAMES; file.size += 128)
		test_refused("truncated compressed vmlinux", &file, -ENOEXEC, "bytes are missing");
	file.size = ZO_NAMES + sizeof(zo_names) - 1;
	test_refused("all but one byte", &file, -ENOEXEC, "truncated: 1 bytes are missing");
}

static const struct lie compressed_lies[] = {
	{ "huge output", { { 0x1300 + ZO_INPUT_SIZE - 4, 4, UINT32_MAX } }, -ENOEXEC,
		"where no guest has" },
	{ "output larger than RAM", { { 0x1300 + ZO_INPUT_SIZE - 4, 4, 0x3000000 } }, -ENOMEM,
		"pass --mem 65 or more" },
	{ "section beyond the file", { { SHDR(1, sh_offset), 0x2a00 } }, -ENOEXEC,
		"truncated: 3072 bytes are missing" },
	{ "section wraps", { { SHDR(1, sh_offset), UINT64_MAX } }, -ENOEXEC,
		"compressed data lies outside" },
	{ "section of 3 bytes", { { SHDR(1, sh_size), 3 } }, -ENOEXEC, "no compressed data" },
	{ "names beyond the file", { { SHDR(2, sh_offset), 0x2a00 } }, -ENOEXEC, "truncated" },
	{ "names wrap", { { SHDR(2, sh_offset), UINT64_MAX } }, -ENOEXEC, "section names lie" },
	{ "sections beyond the file", { { EHDR(e_shoff), 0x2a00 } }, -ENOEXEC, "truncated" },
	{ "sections wrap", { { EHDR(e_shoff), UINT64_MAX } }, -ENOEXEC, "section headers lie" },
	{ "no entry code", { { PHDR(0, p_filesz), 0x200 } }, -ENOEXEC, "without a 64-bit" },
	{ "32-bit entry but no section", { { EHDR(e_entry), 0 }, { EHDR(e_shnum), 0 } }, -ENOEXEC,
		"below the 1 MiB" },
	{ "library at 0",
		{ { EHDR(e_entry), 0 }, { EHDR(e_shnum), 0 }, { PHDR(2, p_type), PT_DYNAMIC } },
		-ENOEXEC, "a shared library" },
	{ "larger than memory", { { PHDR(1, p_memsz), 0x20000000 } }, -ENOMEM, "--mem" },
	{ "wraps at its base", { { PHDR(1, p_paddr), UINT64_MAX - 0x1000 } }, -ENOEXEC,
		"out of range" },
};

static void test_compressed_lies(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(compressed_lies); i++) {
		struct test_file file;

		make_compressed(&file);
		for (size_t j = 0; j < 3 && compressed_lies[i].patches[j].width != 0; j++)
			test_patch(&file, &compressed_lies[i].patches[j]);
		test_refused(compressed_lies[i].name, &file, compressed_lies[i].error,
			compressed_lies[i].message);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_long_mode),
		cmocka_unit_test(test_oddities),
		cmocka_unit_test(test_notes_aligned_to_8),
		cmocka_unit_test(test_headers_far_away),
		cmocka_unit_test(test_compressed),
		cmocka_unit_test(test_compressed_truncated),
		cmocka_unit_test(test_compressed_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
