// SPDX-License-Identifier: BSD-3-Clause
/*
 * Loads ELF kernels: checks all headers, then reads each segment straight into
 * guest memory. Whoever wrote the file may lie in all of them; the headers are
 * read once, and only the copies are used.
 *
 * Sources: System V ABI; Xen's elfnote.h (PVH entry); the kernel's
 * arch/x86/boot/compressed (head_64.S, misc.c) and boot/header.S for the ELF
 * that decompresses itself.
 */
#include "x86_64/elf_image.h"

#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "x86_64/layout.h"

enum {
	SEGMENTS_MAX = 64,
	SECTIONS_MAX = 64, /* the compressed vmlinux has about 12 */
	NOTES_SIZE_MAX = 4096,
	NAMES_SIZE_MAX = 4096,
	XEN_ELFNOTE_PHYS32_ENTRY = 18,
	COMMAND_LINE_MAX = 2047, /* Linux's COMMAND_LINE_SIZE without the NUL */
	ENTRY_64 = 0x200,        /* of the compressed vmlinux, from its start: ABI */
	BOOT_FLAG = 0xaa55,
	PROTOCOL_VERSION = 0x20c,
	EM_LOONGARCH_64 = 258,
};

/* Where the compressed vmlinux goes: what it asks for when it is in a bzImage. */
#define COMPRESSED_BASE UINT64_C(0x1000000)

struct elf_image {
	Elf64_Ehdr header;
	Elf64_Phdr segments[SEGMENTS_MAX];
	size_t count;
	uint64_t base;      /* added to every p_paddr */
	uint64_t init_size; /* compressed vmlinux: what it uses from base on; else 0 */
	uint64_t start;     /* of all segments in guest memory */
	uint64_t end;
	uint64_t pvh_entry; /* 0: none */
	bool is_program;    /* linked for an operating system, not to be one */
	bool is_dynamic;
};

static int refuse_damaged(const struct image_file *file, const char *why)
{
	return image_refuse(file, "a damaged ELF file (%s); " IMAGE_PASS_KERNEL, why);
}

bool elf_image_matches(const struct image_file *file)
{
	return file->head_size >= SELFMAG && memcmp(file->head, ELFMAG, SELFMAG) == 0;
}

/* Checks that a table or segment lies in the file; a file that ends too early is named so. */
static int check_in_file(
	const struct image_file *file, uint64_t offset, uint64_t size, const char *what)
{
	uint64_t end;

	if (__builtin_add_overflow(offset, size, &end) || end > INT64_MAX)
		return refuse_damaged(file, what);
	if (end > file->size)
		return image_refuse_truncated(file, "an ELF file", end - file->size);
	return 0;
}

/* Reads a part of the file that one of its headers names. */
static int read_named(
	const struct image_file *file, void *buffer, size_t size, uint64_t offset, const char *what)
{
	int r = check_in_file(file, offset, size, what);

	return r < 0 ? r : image_read(file, buffer, size, offset);
}

/* ---- headers ----------------------------------------------------------------- */

static const char *machine_name(unsigned machine)
{
	static const struct {
		unsigned machine;
		const char *name;
	} names[] = {
		{ EM_386, "i386" },
		{ EM_AARCH64, "arm64" },
		{ EM_ARM, "arm" },
		{ EM_RISCV, "RISC-V" },
		{ EM_PPC64, "ppc64" },
		{ EM_S390, "s390x" },
		{ EM_MIPS, "MIPS" },
		{ EM_LOONGARCH_64, "LoongArch" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].machine == machine)
			return names[i].name;
	return "another machine";
}

static int check_ident(const struct image_file *file, const Elf64_Ehdr *header)
{
	if (header->e_ident[EI_CLASS] == ELFCLASS32)
		return image_refuse(file, "a 32-bit ELF file; " IMAGE_PASS_KERNEL);
	if (header->e_ident[EI_DATA] == ELFDATA2MSB)
		return image_refuse(
			file, "a big-endian ELF file for another machine; " IMAGE_PASS_KERNEL);
	if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
		header->e_ident[EI_VERSION] != EV_CURRENT)
		return refuse_damaged(file, "its class, byte order or version is unknown");
	if (header->e_machine != EM_X86_64)
		return image_refuse(file, "an ELF file for %s; " IMAGE_PASS_KERNEL,
			machine_name(header->e_machine));
	return 0;
}

static int check_type(const struct image_file *file, unsigned type)
{
	switch (type) {
	case ET_EXEC:
	case ET_DYN:
		return 0;
	case ET_REL:
		return image_refuse(file, "an ELF object file, such as a kernel module; pass the "
					  "kernel's vmlinux or bzImage");
	case ET_CORE:
		return image_refuse(file, "a core dump; " IMAGE_PASS_KERNEL);
	default:
		return refuse_damaged(file, "its type is unknown");
	}
}

static int read_segment_headers(const struct image_file *file, struct elf_image *image)
{
	const Elf64_Ehdr *header = &image->header;
	size_t size = (size_t)header->e_phnum * sizeof(Elf64_Phdr);

	if (header->e_phnum == 0)
		return refuse_damaged(file, "it has no segments");
	if (header->e_phnum > SEGMENTS_MAX)
		return refuse_damaged(file, "it has more than 64 segments");
	if (header->e_phentsize != sizeof(Elf64_Phdr))
		return refuse_damaged(file, "its segment headers have the wrong size");
	int r = check_in_file(
		file, header->e_phoff, size, "its segment headers lie outside of the file");

	if (r < 0)
		return r;
	image->count = header->e_phnum;
	if (is_within(header->e_phoff, size, file->head_size)) {
		memcpy(image->segments, file->head + header->e_phoff, size);
		return 0;
	}
	return image_read(file, image->segments, size, header->e_phoff);
}

static int read_headers(const struct image_file *file, struct elf_image *image)
{
	if (file->head_size < sizeof(image->header))
		return image_refuse_truncated(
			file, "an ELF file", sizeof(image->header) - file->head_size);
	memcpy(&image->header, file->head, sizeof(image->header));

	int r = check_ident(file, &image->header);

	if (r == 0)
		r = check_type(file, image->header.e_type);
	if (r == 0)
		r = read_segment_headers(file, image);
	return r;
}

/* ---- notes ------------------------------------------------------------------- */

/* One note; `description` was checked to hold description_size bytes. */
static void take_note(struct elf_image *image, const Elf64_Nhdr *note, const char *name,
	const uint8_t *description)
{
	static const char xen_name[] = "Xen";
	static const char gnu_name[] = "GNU";

	if (note->n_namesz != sizeof(xen_name))
		return;
	if (memcmp(name, gnu_name, sizeof(gnu_name)) == 0 && note->n_type == NT_GNU_ABI_TAG)
		image->is_program = true;
	if (memcmp(name, xen_name, sizeof(xen_name)) != 0 ||
		note->n_type != XEN_ELFNOTE_PHYS32_ENTRY)
		return;
	image->pvh_entry = 0;
	if (note->n_descsz == sizeof(uint32_t) || note->n_descsz == sizeof(uint64_t))
		memcpy(&image->pvh_entry, description, note->n_descsz);
}

/* Walks `size` bytes of notes and stops at the first that does not fit. */
static void take_notes(
	struct elf_image *image, const uint8_t *notes, size_t size, uint64_t alignment)
{
	size_t offset = 0;

	while (size - offset >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr note;

		memcpy(&note, notes + offset, sizeof(note));
		/* 32-bit lengths in 64-bit sums cannot wrap. */
		uint64_t name = offset + sizeof(note);
		uint64_t description = align_up(name + note.n_namesz, alignment);
		uint64_t next = align_up(description + note.n_descsz, alignment);

		if (description + note.n_descsz > size)
			return;
		take_note(image, &note, (const char *)notes + name, notes + description);
		if (next > size)
			return;
		offset = next;
	}
}

static int scan_segment_kinds(const struct image_file *file, struct elf_image *image)
{
	uint8_t notes[NOTES_SIZE_MAX];

	for (size_t i = 0; i < image->count; i++) {
		const Elf64_Phdr *segment = &image->segments[i];

		if (segment->p_type == PT_INTERP)
			image->is_program = true;
		if (segment->p_type == PT_DYNAMIC)
			image->is_dynamic = true;
		if (segment->p_type != PT_NOTE)
			continue;
		/* Kernels have a few hundred bytes; what lies beyond the bound is not looked at. */
		size_t size = min_u64(segment->p_filesz, sizeof(notes));
		int r = read_named(
			file, notes, size, segment->p_offset, "its notes lie outside of the file");

		if (r < 0)
			return r;
		take_notes(image, notes, size, segment->p_align == 8 ? 8 : 4);
	}
	return 0;
}

/* Programs load as well as kernels do, and then crash: say what they are. */
static int check_is_kernel(const struct image_file *file, const struct elf_image *image)
{
	if (image->pvh_entry != 0)
		return 0;
	if (image->is_program)
		return image_refuse(file, "a program, not a kernel; " IMAGE_PASS_KERNEL);
	if (image->is_dynamic && image->header.e_type == ET_DYN && image->base == 0)
		return image_refuse(file, "a shared library or a program; " IMAGE_PASS_KERNEL);
	return 0;
}

/* ---- compressed vmlinux -------------------------------------------------------- */

struct section_table {
	Elf64_Shdr headers[SECTIONS_MAX];
	size_t count;
	char names[NAMES_SIZE_MAX];
	size_t names_size;
};

/* 0, -ENOENT when there is no table, or an error that was logged. */
static int read_sections(
	const struct image_file *file, const Elf64_Ehdr *header, struct section_table *table)
{
	if (header->e_shnum == 0 || header->e_shnum > SECTIONS_MAX ||
		header->e_shentsize != sizeof(Elf64_Shdr) || header->e_shstrndx >= header->e_shnum)
		return -ENOENT;
	table->count = header->e_shnum;
	int r = read_named(file, table->headers, table->count * sizeof(Elf64_Shdr), header->e_shoff,
		"its section headers lie outside of the file");

	if (r < 0)
		return r;
	const Elf64_Shdr *names = &table->headers[header->e_shstrndx];

	table->names_size = min_u64(names->sh_size, sizeof(table->names));
	return read_named(file, table->names, table->names_size, names->sh_offset,
		"its section names lie outside of the file");
}

/* Finds the section with the compressed kernel. Errors as of read_sections(). */
static int find_compressed(
	const struct image_file *file, const Elf64_Ehdr *header, Elf64_Shdr *ret_section)
{
	static const char wanted[] = ".rodata..compressed";
	struct section_table table = { 0 };
	int r = read_sections(file, header, &table);

	if (r < 0)
		return r;
	for (size_t i = 0; i < table.count; i++) {
		uint32_t name = table.headers[i].sh_name;

		if (is_within(name, sizeof(wanted), table.names_size) &&
			memcmp(table.names + name, wanted, sizeof(wanted)) == 0) {
			*ret_section = table.headers[i];
			return 0;
		}
	}
	return -ENOENT;
}

/*
 * The decompressor copies itself to base + init_size - _end and decompresses
 * to base, so that the output never overtakes the input. This is the formula
 * of header.S (ZO_INIT_SIZE); the kernel's own .bss may be larger and is
 * counted in find_end().
 */
static int measure_section(const struct image_file *file, const Elf64_Shdr *section, uint64_t end,
	uint64_t *ret_init_size)
{
	uint32_t output = 0;
	int r = check_in_file(file, section->sh_offset, section->sh_size,
		"its compressed data lies outside of the file");

	if (r < 0)
		return r;
	if (section->sh_size < sizeof(output))
		return refuse_damaged(file, "it has no compressed data");
	/* mkpiggy.c: the last four bytes say how long the output is. */
	r = image_read(file, &output, sizeof(output),
		section->sh_offset + section->sh_size - sizeof(output));
	if (r < 0)
		return r;
	uint64_t extra = (output >> 8) + 128 * KIB;

	if (output > section->sh_size)
		extra += output - section->sh_size;
	*ret_init_size = align_up(end, 4 * KIB) + align_up(extra, 4 * KIB);
	return 0;
}

/*
 * Without section headers the output's length is unknown. Kernels shrink to an
 * eighth at best (xz); memory beyond what is needed costs nothing, but leave
 * some for the initrd.
 */
static uint64_t estimate_init_size(const struct image_file *file, uint64_t end)
{
	uint64_t ram_end = guest_memory_region(file->memory, 0)->size;
	uint64_t room = ram_end > COMPRESSED_BASE ? ram_end - COMPRESSED_BASE : 0;

	return align_up(max_u64(4 * end, min_u64(12 * end, room / 4 * 3)), 4 * KIB);
}

/* Finds out whether this is the compressed vmlinux, which is linked at 0, and places it. */
static int place_compressed(const struct image_file *file, struct elf_image *image)
{
	uint64_t lowest = UINT64_MAX;
	uint64_t end = 0;
	Elf64_Shdr section = { 0 };

	for (size_t i = 0; i < image->count; i++) {
		const Elf64_Phdr *segment = &image->segments[i];
		uint64_t segment_end;

		if (segment->p_type != PT_LOAD)
			continue;
		if (__builtin_add_overflow(segment->p_paddr, segment->p_memsz, &segment_end))
			return refuse_damaged(file, "a segment is out of range");
		lowest = min_u64(lowest, segment->p_paddr);
		end = max_u64(end, segment_end);
	}
	/* Before 2.6.24 or so its entry was the 32-bit one, at 0. */
	if (lowest != 0 || end > GIB ||
		(image->header.e_entry != ENTRY_64 && image->header.e_entry != 0))
		return 0;
	int r = find_compressed(file, &image->header, &section);

	if (r == 0)
		r = measure_section(file, &section, end, &image->init_size);
	else if (r == -ENOENT && image->header.e_entry == 0)
		return 0;
	else if (r == -ENOENT) {
		image->init_size = estimate_init_size(file, end);
		r = 0;
	}
	if (r < 0)
		return r;
	image->base = COMPRESSED_BASE;
	image->header.e_entry = COMPRESSED_BASE + ENTRY_64;
	return 0;
}

/* ---- segments ------------------------------------------------------------------ */

static bool is_loaded(const Elf64_Phdr *segment)
{
	return segment->p_type == PT_LOAD && segment->p_memsz != 0;
}

/* Moves the segment to its place in guest memory and checks it, but for overlaps. */
static int check_segment(const struct image_file *file, struct elf_image *image, size_t index)
{
	Elf64_Phdr *segment = &image->segments[index];
	uint64_t end;

	if (segment->p_filesz > segment->p_memsz)
		return refuse_damaged(file, "a segment is larger in the file than in memory");
	if (__builtin_add_overflow(segment->p_paddr, image->base, &segment->p_paddr) ||
		__builtin_add_overflow(segment->p_paddr, segment->p_memsz, &end))
		return refuse_damaged(file, "a segment is out of range");
	int r = check_in_file(
		file, segment->p_offset, segment->p_filesz, "a segment lies outside of the file");

	if (r == 0)
		r = image_check_range(file, segment->p_paddr, end);
	if (r < 0)
		return r;
	image->start = min_u64(image->start, segment->p_paddr);
	image->end = max_u64(image->end, end);
	return 0;
}

static bool overlap(const Elf64_Phdr *a, const Elf64_Phdr *b)
{
	return a->p_paddr < b->p_paddr + b->p_memsz && b->p_paddr < a->p_paddr + a->p_memsz;
}

/* Fresh guest memory is zero, so .bss needs no work; but then no two may share bytes. */
static int check_segments(const struct image_file *file, struct elf_image *image)
{
	image->start = UINT64_MAX;
	for (size_t i = 0; i < image->count; i++) {
		if (!is_loaded(&image->segments[i]))
			continue;
		int r = check_segment(file, image, i);

		if (r < 0)
			return r;
		for (size_t j = 0; j < i; j++)
			if (is_loaded(&image->segments[j]) &&
				overlap(&image->segments[i], &image->segments[j]))
				return refuse_damaged(file, "two segments overlap");
	}
	if (image->end == 0)
		return refuse_damaged(file, "it has nothing to load");
	if (image->init_size == 0)
		return 0;
	return image_check_range(file, image->base, image->base + image->init_size);
}

/* Whether the file gives the guest a byte at `gpa`: there is no code in .bss. */
static bool has_code_at(const struct elf_image *image, uint64_t gpa)
{
	for (size_t i = 0; i < image->count; i++) {
		const Elf64_Phdr *segment = &image->segments[i];

		if (is_loaded(segment) && gpa >= segment->p_paddr &&
			gpa - segment->p_paddr < segment->p_filesz)
			return true;
	}
	return false;
}

static int load_segments(const struct image_file *file, const struct elf_image *image)
{
	for (size_t i = 0; i < image->count; i++) {
		const Elf64_Phdr *segment = &image->segments[i];
		int r = 0;

		if (is_loaded(segment))
			r = image_load(
				file, segment->p_paddr, segment->p_offset, segment->p_filesz);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- result -------------------------------------------------------------------- */

/* The setup header that a boot loader would have found in the bzImage. */
static void make_setup_header(const struct elf_image *image, struct kernel_image *result)
{
	const struct setup_header header = {
		.boot_flag = BOOT_FLAG,
		.header = 0x53726448, /* "HdrS" */
		.version = PROTOCOL_VERSION,
		.loadflags = LOADED_HIGH,
		.initrd_addr_max = UINT32_MAX,
		/* The largest that Linux can be built for; the base is aligned to it. */
		.kernel_alignment = COMPRESSED_BASE,
		.relocatable_kernel = 1,
		.xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
		.cmdline_size = COMMAND_LINE_MAX,
		.pref_address = image->start,
		.init_size = (uint32_t)image->init_size,
	};

	_Static_assert(sizeof(header) <= SETUP_HEADER_MAX, "it fits");
	memcpy(result->setup_header, &header, sizeof(header));
	result->setup_header_size = sizeof(header);
}

/*
 * The end of what the kernel uses before it reads the memory map. A compressed
 * vmlinux does not say how large the .bss of the kernel in it is (a third of
 * it at most, in the distributions' kernels): keep the initrd away.
 */
static uint64_t find_end(const struct image_file *file, const struct elf_image *image)
{
	uint64_t ram_end = guest_memory_region(file->memory, 0)->size;

	if (image->init_size == 0)
		return image->end;
	return min_u64(
		image->base + image->init_size + align_up(image->init_size / 2, 4 * KIB), ram_end);
}

/*
 * Linux's e_entry is physical and 64-bit, better than its PVH entry: it takes
 * an initrd anywhere. Other kernels have a virtual one, for their own loader.
 */
static int choose_entry(
	const struct image_file *file, const struct elf_image *image, struct kernel_image *result)
{
	result->start = image->start;
	result->end = find_end(file, image);
	result->cmdline_max = COMMAND_LINE_MAX;
	if (has_code_at(image, image->header.e_entry) &&
		image->header.e_entry != image->pvh_entry) {
		result->entry_kind = KERNEL_ENTRY_LONG_MODE;
		result->entry = image->header.e_entry;
		result->initrd_max = UINT64_MAX;
		make_setup_header(image, result);
		return 0;
	}
	if (image->pvh_entry == 0)
		return image_refuse(file, "an ELF file without a 64-bit (physical) or PVH entry "
					  "point; " IMAGE_PASS_KERNEL);
	if (!has_code_at(image, image->pvh_entry))
		return refuse_damaged(file, "its PVH entry point lies outside of its segments");
	result->entry_kind = KERNEL_ENTRY_PVH;
	result->entry = image->pvh_entry;
	/* Linux takes 32 bits of the initrd's address there. */
	result->initrd_max = UINT32_MAX;
	return 0;
}

int elf_image_load(const struct image_file *file, struct kernel_image *ret_image)
{
	struct elf_image image = { 0 };
	struct kernel_image result = { 0 };
	int r = read_headers(file, &image);

	if (r == 0)
		r = scan_segment_kinds(file, &image);
	if (r == 0)
		r = place_compressed(file, &image);
	if (r == 0)
		r = check_is_kernel(file, &image);
	if (r == 0)
		r = check_segments(file, &image);
	if (r == 0)
		r = choose_entry(file, &image, &result);
	if (r == 0)
		r = load_segments(file, &image);
	if (r == 0)
		*ret_image = result;
	return r;
}
