// SPDX-License-Identifier: BSD-3-Clause
/*
 * Loads a bzImage: the setup header decides where the protected-mode part goes
 * and how much memory the kernel needs until it can read the memory map. The
 * header may lie; it is copied once, checked, and only the copy is used.
 *
 * Source: Documentation/arch/x86/boot.rst, "64-bit boot protocol".
 */
#include "x86_64/bzimage.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "x86_64/layout.h"

enum {
	SECTOR_SIZE = 512,
	PARAGRAPH_SIZE = 16,
	BOOT_FLAG = 0xaa55,
	SIGNATURE_OFFSET =
		0x202,          /* "HdrS"; the byte before says how long the header is from here */
	HEADER_END_MIN = 0x264, /* after init_size, the last field that we need */
	HEADER_END_MAX = SETUP_HEADER_OFFSET + SETUP_HEADER_MAX,
	VERSION_MIN = 0x20c, /* the first with xloadflags */
	SETUP_SECTORS_DEFAULT = 4,
	ENTRY_64 = 0x200,
};

static const char signature[4] = "HdrS";

_Static_assert(offsetof(struct setup_header, header) == SIGNATURE_OFFSET - SETUP_HEADER_OFFSET &&
		       offsetof(struct setup_header, handover_offset) ==
			       HEADER_END_MIN - SETUP_HEADER_OFFSET,
	"struct setup_header is not what boot.rst says");

/* The parts of the file, in bytes. */
struct bzimage {
	struct setup_header header;
	size_t header_size;
	uint64_t payload_offset;
	uint64_t payload_size;
};

bool bzimage_matches(const struct image_file *file)
{
	return file->head_size >= SIGNATURE_OFFSET + sizeof(signature) &&
	       file->head[0x1fe] == (BOOT_FLAG & 0xff) && file->head[0x1ff] == BOOT_FLAG >> 8 &&
	       memcmp(file->head + SIGNATURE_OFFSET, signature, sizeof(signature)) == 0;
}

/* How much is missing of a file that ends before what its header promises. */
static uint64_t missing_bytes(const struct image_file *file, const struct bzimage *bzimage)
{
	uint64_t end = bzimage->payload_offset + (uint64_t)bzimage->header.syssize * PARAGRAPH_SIZE;

	return end > file->size ? end - file->size : 0;
}

static int refuse_header(const struct image_file *file, const char *why)
{
	return image_refuse(file, "a damaged bzImage (%s); pass the file as it was built", why);
}

/* Copies the header and finds the two parts of the file. */
static int parse(const struct image_file *file, struct bzimage *bzimage)
{
	size_t end = SIGNATURE_OFFSET + file->head[SIGNATURE_OFFSET - 1];

	if (end > HEADER_END_MAX)
		end = HEADER_END_MAX;
	if (end > file->head_size)
		return image_refuse_truncated(file, "a bzImage", end - file->head_size);
	bzimage->header_size = end - SETUP_HEADER_OFFSET;
	memcpy(&bzimage->header, file->head + SETUP_HEADER_OFFSET,
		min_u64(bzimage->header_size, sizeof(bzimage->header)));

	unsigned sectors = bzimage->header.setup_sects;

	if (sectors == 0)
		sectors = SETUP_SECTORS_DEFAULT;
	bzimage->payload_offset = (uint64_t)(sectors + 1) * SECTOR_SIZE;
	return 0;
}

static int check_protocol(const struct image_file *file, const struct bzimage *bzimage)
{
	const struct setup_header *header = &bzimage->header;

	if (bzimage->header_size < offsetof(struct setup_header, realmode_swtch))
		return refuse_header(file, "its setup header is too short for a version");
	if (header->version < VERSION_MIN)
		return image_refuse(file,
			"a 32-bit or very old kernel (boot protocol %u.%02u, 2.12 is "
			"needed); " IMAGE_PASS_KERNEL,
			header->version >> 8, header->version & 0xff);
	if (bzimage->header_size + SETUP_HEADER_OFFSET < HEADER_END_MIN)
		return refuse_header(file, "its setup header is too short for its version");
	if ((header->xloadflags & XLF_KERNEL_64) == 0)
		return image_refuse(
			file, "a 32-bit kernel (no 64-bit entry point); " IMAGE_PASS_KERNEL);
	if ((header->loadflags & LOADED_HIGH) == 0)
		return image_refuse(file, "a zImage, which runs below 1 MiB; " IMAGE_PASS_KERNEL);
	return 0;
}

/* Finds the payload. A file may be longer (a signature follows), or lack the last padding. */
static int check_payload(const struct image_file *file, struct bzimage *bzimage)
{
	uint64_t size = (uint64_t)bzimage->header.syssize * PARAGRAPH_SIZE;

	if (missing_bytes(file, bzimage) >= PARAGRAPH_SIZE)
		return image_refuse_truncated(file, "a bzImage", missing_bytes(file, bzimage));
	if (size <= ENTRY_64)
		return refuse_header(file, "it has no code at its 64-bit entry point");
	if (size > bzimage->header.init_size)
		return refuse_header(file, "its init_size is smaller than the kernel");
	bzimage->payload_size = min_u64(size, file->size - bzimage->payload_offset);
	return 0;
}

/*
 * The kernel runs from pref_address even when it is loaded elsewhere, unless
 * that is lower, so it is always loaded there, relocatable or not.
 */
static int check_place(const struct image_file *file, const struct setup_header *header)
{
	uint64_t alignment = header->kernel_alignment;
	uint64_t end;

	if (__builtin_add_overflow(header->pref_address, header->init_size, &end))
		return refuse_header(file, "its pref_address is out of range");
	if (alignment == 0 || (alignment & (alignment - 1)) != 0)
		return refuse_header(file, "its kernel_alignment is not a power of two");
	if (header->relocatable_kernel != 0 && header->pref_address % alignment != 0)
		return refuse_header(file, "its pref_address is not aligned");
	return image_check_range(file, header->pref_address, end);
}

static void fill_image(const struct image_file *file, const struct bzimage *bzimage,
	struct kernel_image *ret_image)
{
	const struct setup_header *header = &bzimage->header;
	bool above_4g = (header->xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G) != 0;

	*ret_image = (struct kernel_image){
		.entry_kind = KERNEL_ENTRY_LONG_MODE,
		.entry = header->pref_address + ENTRY_64,
		.start = header->pref_address,
		.end = header->pref_address + header->init_size,
		/* initrd_addr_max only spares old boot loaders their bugs when the flag is set. */
		.initrd_max = above_4g ? UINT64_MAX : header->initrd_addr_max,
		.cmdline_max = header->cmdline_size,
		.setup_header_size = bzimage->header_size,
	};
	memcpy(ret_image->setup_header, file->head + SETUP_HEADER_OFFSET, bzimage->header_size);
}

int bzimage_load(const struct image_file *file, struct kernel_image *ret_image)
{
	struct bzimage bzimage = { 0 };
	int r = parse(file, &bzimage);

	if (r == 0)
		r = check_protocol(file, &bzimage);
	if (r == 0)
		r = check_payload(file, &bzimage);
	if (r == 0)
		r = check_place(file, &bzimage.header);
	if (r == 0)
		r = image_load(file, bzimage.header.pref_address, bzimage.payload_offset,
			bzimage.payload_size);
	if (r == 0)
		fill_image(file, &bzimage, ret_image);
	return r;
}
