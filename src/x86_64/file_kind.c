// SPDX-License-Identifier: BSD-3-Clause
/*
 * Names files that people pass instead of a kernel, by their signatures. The
 * file may pretend to be anything: the answer only goes into a message.
 *
 * Rows are tried in order, the longest and surest signatures first.
 */
#include "x86_64/file_kind.h"

#include <string.h>
#include <sys/types.h>

#include "base/fd.h"

#define UNPACK_IT "decompress it and pass the vmlinux or bzImage; an initrd goes with --initrd"
#define AS_INITRD "pass it with --initrd, and a vmlinux or bzImage as the kernel"
#define AS_DISK   "pass a vmlinux or bzImage as the kernel, and the disk with --root"
#define TAKE_OUT  "unpack it and pass the vmlinux or bzImage in it"

struct signature {
	uint32_t offset;
	uint8_t length;
	char bytes[13];
	const char *what;
	const char *remedy;
};

#define SIGNATURE(offset, bytes, what, remedy)                                                     \
	{                                                                                          \
		offset, sizeof(bytes) - 1, bytes, what, remedy                                     \
	}

static const struct signature signatures[] = {
	/* Kernels for other machines; some of them begin like a PE file. */
	SIGNATURE(0x38, "ARM\x64", "an arm64 kernel Image", IMAGE_PASS_KERNEL),
	SIGNATURE(0x38, "RSC\x05", "a RISC-V kernel Image", IMAGE_PASS_KERNEL),
	SIGNATURE(4, "zimg", "a compressed EFI kernel (zboot) of another architecture",
		IMAGE_PASS_KERNEL),
	SIGNATURE(0, "ANDROID!", "an Android boot image", TAKE_OUT),
	SIGNATURE(0, "\x27\x05\x19\x56", "a U-Boot image", TAKE_OUT),
	SIGNATURE(0, "\xd0\x0d\xfe\xed", "a device tree or FIT image", IMAGE_PASS_KERNEL),

	SIGNATURE(0, "\x1f\x8b", "gzip compressed data", UNPACK_IT),
	SIGNATURE(0, "\x28\xb5\x2f\xfd", "zstd compressed data", UNPACK_IT),
	SIGNATURE(0, "\xfd\x37zXZ\0", "xz compressed data", UNPACK_IT),
	SIGNATURE(0, "\x04\x22\x4d\x18", "lz4 compressed data", UNPACK_IT),
	SIGNATURE(0, "\x02\x21\x4c\x18", "lz4 compressed data", UNPACK_IT),
	SIGNATURE(0, "BZh", "bzip2 compressed data", UNPACK_IT),
	SIGNATURE(0, "\x89LZO\0\r\n\x1a\n", "lzop compressed data", UNPACK_IT),
	SIGNATURE(0, "\x5d\0\0", "lzma compressed data", UNPACK_IT),

	SIGNATURE(0, "070701", "a cpio archive, that is an initrd", AS_INITRD),
	SIGNATURE(0, "070702", "a cpio archive, that is an initrd", AS_INITRD),
	SIGNATURE(0, "070707", "a cpio archive, that is an initrd", AS_INITRD),
	SIGNATURE(0, "\xc7\x71", "a cpio archive, that is an initrd", AS_INITRD),
	SIGNATURE(0, "!<arch>\n", "an ar archive or Debian package", TAKE_OUT),
	SIGNATURE(0, "\xed\xab\xee\xdb", "an RPM package", TAKE_OUT),
	SIGNATURE(0, "PK\x03\x04", "a zip archive", TAKE_OUT),
	SIGNATURE(257, "ustar", "a tar archive", TAKE_OUT),

	SIGNATURE(0, "QFI\xfb", "a qcow2 disk image", AS_DISK),
	SIGNATURE(0, "KDMV", "a VMDK disk image", AS_DISK),
	SIGNATURE(0, "vhdxfile", "a VHDX disk image", AS_DISK),
	SIGNATURE(0x40, "\x7f\x10\xda\xbe", "a VDI disk image", AS_DISK),
	SIGNATURE(0, "LUKS\xba\xbe", "a LUKS encrypted disk", AS_DISK),
	SIGNATURE(0, "hsqs", "a squashfs file system", AS_DISK),
	SIGNATURE(0, "XFSB", "an XFS file system", AS_DISK),
	SIGNATURE(1024, "\xe2\xe1\xf5\xe0", "an EROFS file system", AS_DISK),
	SIGNATURE(1024, "\x10\x20\xf5\xf2", "an F2FS file system", AS_DISK),
	SIGNATURE(0x10040, "_BHRfS_M", "a btrfs file system", AS_DISK),
	SIGNATURE(0x8001, "CD001", "an ISO 9660 image", AS_DISK),
	SIGNATURE(512, "EFI PART", "a disk image with a GPT", AS_DISK),
	SIGNATURE(4096, "EFI PART", "a disk image with a GPT", AS_DISK),
	SIGNATURE(0x438, "\x53\xef", "an ext2, ext3 or ext4 file system", AS_DISK),

	SIGNATURE(0, "#!", "a script", IMAGE_PASS_KERNEL),
};

static bool signature_matches(const struct image_file *file, const struct signature *signature)
{
	uint64_t end = (uint64_t)signature->offset + signature->length;
	char found[sizeof(signature->bytes)];

	if (end > file->size)
		return false;
	if (end <= file->head_size)
		return memcmp(file->head + signature->offset, signature->bytes,
			       signature->length) == 0;
	ssize_t n = fd_pread_most(file->fd, found, signature->length, signature->offset);

	return n == signature->length && memcmp(found, signature->bytes, signature->length) == 0;
}

/* An EFI application; a UKI has the bzImage in a section that its table names. */
static struct file_kind guess_pe(const struct image_file *file)
{
	static const char linux_section[8] = ".linux";

	if (file->size <= 0x290)
		return (struct file_kind){ "only the first sector of a bzImage or EFI application",
			"pass the whole file" };
	if (memmem(file->head, file->head_size, linux_section, sizeof(linux_section)) != NULL)
		return (struct file_kind){ "a unified kernel image (UKI)",
			"pass the bzImage in it: objcopy -O binary --only-section=.linux UKI "
			"BZIMAGE" };
	return (struct file_kind){ "an EFI application or another PE file", IMAGE_PASS_KERNEL };
}

static bool is_text(const struct image_file *file)
{
	for (size_t i = 0; i < file->head_size; i++) {
		uint8_t c = file->head[i];

		if ((c < ' ' && strchr("\t\n\f\r", c) == NULL) || c == '\0' || c == 0x7f)
			return false;
	}
	return true;
}

static bool is_zero(const struct image_file *file)
{
	for (size_t i = 0; i < file->head_size; i++)
		if (file->head[i] != 0)
			return false;
	return true;
}

struct file_kind file_kind_guess(const struct image_file *file)
{
	for (size_t i = 0; i < ARRAY_SIZE(signatures); i++)
		if (signature_matches(file, &signatures[i]))
			return (struct file_kind){ signatures[i].what, signatures[i].remedy };
	if (file->head_size >= 2 && memcmp(file->head, "MZ", 2) == 0)
		return guess_pe(file);
	if (file->head_size >= 512 && file->head[510] == 0x55 && file->head[511] == 0xaa)
		return (struct file_kind){ "a boot sector, perhaps of a disk image", AS_DISK };
	if (is_text(file))
		return (struct file_kind){ "a text file", IMAGE_PASS_KERNEL };
	if (is_zero(file))
		return (struct file_kind){ "a file that begins with zeroes, perhaps a disk image",
			AS_DISK };
	return (struct file_kind){ "not a kernel that crosvm knows", IMAGE_PASS_KERNEL };
}
