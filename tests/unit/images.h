/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Small kernels made by hand for the loaders' tests, and what every test does
 * with them: change some bytes, load, look at the result and at the one line
 * that a refusal must log. unit.h must be included before.
 */
#pragma once

#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "capture.h"
#include "memory/guest_memory.h"
#include "x86_64/kernel_image.h"

enum { TEST_MEMORY_MIB = 64, TEST_FILE_MAX = 0x8000 };

struct test_file {
	size_t size;
	uint8_t bytes[TEST_FILE_MAX];
};

/* Little-endian bytes to change in a file. width 0 ends a list. */
struct patch {
	size_t offset;
	size_t width;
	uint64_t value;
};

static inline void test_patch(struct test_file *file, const struct patch *patch)
{
	assert_true(patch->width <= 8 && patch->offset + patch->width <= file->size);
	memcpy(file->bytes + patch->offset, &patch->value, patch->width);
}

static inline int test_memfd(const struct test_file *file)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(fd_write_full(fd, file->bytes, file->size), 0);
	return fd;
}

static inline struct guest_memory *test_memory(uint64_t mib)
{
	const struct guest_memory_range range = { 0, mib * MIB };
	struct guest_memory *memory = NULL;

	assert_int_equal(guest_memory_create(&range, 1, 0, &memory), 0);
	return memory;
}

/* Loads into fresh memory, which the caller frees through *ret_memory if it wants it. */
static inline int test_load(const struct test_file *file, uint64_t mib, struct kernel_image *image,
	struct capture *capture, struct guest_memory **ret_memory)
{
	struct guest_memory *memory = test_memory(mib);
	CLEANUP_FD int fd = test_memfd(file);

	capture_begin(capture);
	int r = kernel_image_load(fd, "some/kernel", memory, image);

	capture_end(capture);
	if (ret_memory != NULL)
		*ret_memory = memory;
	else
		guest_memory_free(memory);
	return r;
}

/* The file is refused with one line that has `message`, and nothing is returned. */
static inline void test_refused(
	const char *name, const struct test_file *file, int error, const char *message)
{
	union {
		struct kernel_image image;
		uint8_t bytes[sizeof(struct kernel_image)];
	} result, untouched;
	struct capture capture;

	memset(&result, 0xa5, sizeof(result));
	memset(&untouched, 0xa5, sizeof(untouched));
	int r = test_load(file, TEST_MEMORY_MIB, &result.image, &capture, NULL);

	if (r != error)
		fail_msg("%s: %d, not %d: %s", name, r, error, capture.text);
	if (capture_lines(&capture) != 1 ||
		strstr(capture.text, "crosvm: cannot load kernel 'some/kernel': ") !=
			capture.text ||
		strstr(capture.text, message) == NULL || strstr(capture.text, "; ") == NULL)
		fail_msg("%s: no '%s' in: %s", name, message, capture.text);
	// NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-exp42-c,cert-flp37-c): all
	// bytes
	if (memcmp(result.bytes, untouched.bytes, sizeof(result.bytes)) != 0)
		fail_msg("%s: the result was touched", name);
}

static inline void test_accepted(const char *name, const struct test_file *file,
	struct kernel_image *image, struct guest_memory **ret_memory)
{
	struct capture capture;
	int r = test_load(file, TEST_MEMORY_MIB, image, &capture, ret_memory);

	if (r != 0 || capture.text[0] != '\0')
		fail_msg("%s: %d: %s", name, r, capture.text);
}

static inline void test_fill(uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(i * 7 + (i >> 8) + 1);
}

/* ---- ELF ---- */

enum {
	ELF_PHDRS = 64,
	ELF_NOTES = 0x800,
	ELF_NOTES_SIZE = 0x40,
	ELF_TEXT = 0x1000,
	ELF_TEXT_SIZE = 0x1000,
	ELF_DATA = 0x2000,
	ELF_DATA_SIZE = 0x800,
	ELF_DATA_MEMORY = 0x3000,
	ELF_FILE_SIZE = ELF_DATA + ELF_DATA_SIZE,
	ELF_LOAD = 0x1000000,
	ELF_LOAD_DATA = 0x1002000,
	ELF_PVH_ENTRY = 0x1000010,
};

#define EHDR(field) offsetof(Elf64_Ehdr, field), sizeof(((Elf64_Ehdr *)0)->field)
#define PHDR(index, field)                                                                         \
	ELF_PHDRS + (index) * sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, field),                    \
		sizeof(((Elf64_Phdr *)0)->field)

/* A kernel like vmlinux: text, data with .bss, and a PVH note. */
static inline void test_make_elf(struct test_file *file)
{
	const Elf64_Ehdr header = {
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_entry = ELF_LOAD,
		.e_phoff = ELF_PHDRS,
		.e_ehsize = sizeof(header),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 3,
	};
	const Elf64_Phdr segments[] = {
		{ PT_LOAD, PF_R | PF_X, ELF_TEXT, 0xffffffff81000000, ELF_LOAD, ELF_TEXT_SIZE,
			ELF_TEXT_SIZE, 0x200000 },
		{ PT_LOAD, PF_R | PF_W, ELF_DATA, 0xffffffff81002000, ELF_LOAD_DATA, ELF_DATA_SIZE,
			ELF_DATA_MEMORY, 0x200000 },
		{ PT_NOTE, 0, ELF_NOTES, 0, 0, ELF_NOTES_SIZE, ELF_NOTES_SIZE, 4 },
	};
	/* An unknown note, then the PVH one. */
	const uint32_t notes[ELF_NOTES_SIZE / 4] = { 4, 5, 6, 0x6e6558, 0x11111111, 0x22,
		/* the second */ 4, 8, 18, 0x6e6558, ELF_PVH_ENTRY, 0 };

	memset(file, 0, sizeof(*file));
	file->size = ELF_FILE_SIZE;
	memcpy(file->bytes, &header, sizeof(header));
	memcpy(file->bytes + ELF_PHDRS, segments, sizeof(segments));
	memcpy(file->bytes + ELF_NOTES, notes, sizeof(notes));
	test_fill(file->bytes + ELF_TEXT, file->size - ELF_TEXT);
}

/* ---- bzImage ---- */

enum {
	BZ_SETUP_SECTORS = 3,
	BZ_PAYLOAD = (BZ_SETUP_SECTORS + 1) * 512,
	BZ_PAYLOAD_SIZE = 0x4000,
	BZ_LOAD = 0x1000000,
	BZ_INIT_SIZE = 0x100000,
	BZ_HEADER_END = 0x26c,
	BZ_JUMP = 0x201, /* the byte with the header's length */
};

#define BZ(field)                                                                                  \
	0x1f1 + offsetof(struct setup_header, field), sizeof(((struct setup_header *)0)->field)

static inline void test_make_bzimage(struct test_file *file)
{
	const struct setup_header header = {
		.setup_sects = BZ_SETUP_SECTORS,
		.syssize = BZ_PAYLOAD_SIZE / 16,
		.boot_flag = 0xaa55,
		.jump = 0xeb | (BZ_HEADER_END - 0x202) << 8,
		.header = 0x53726448,
		.version = 0x20f,
		.loadflags = LOADED_HIGH,
		.initrd_addr_max = 0x7fffffff,
		.kernel_alignment = 0x200000,
		.relocatable_kernel = 1,
		.min_alignment = 21,
		.xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
		.cmdline_size = 2047,
		.pref_address = BZ_LOAD,
		.init_size = BZ_INIT_SIZE,
	};

	memset(file, 0, sizeof(*file));
	file->size = BZ_PAYLOAD + BZ_PAYLOAD_SIZE;
	memcpy(file->bytes, "MZ", 2);
	memcpy(file->bytes + 0x1f1, &header, sizeof(header));
	test_fill(file->bytes + BZ_PAYLOAD, BZ_PAYLOAD_SIZE);
}
