#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Files that crosvm must refuse as a kernel or an initrd, and the words it must use.

    bad_images.py DIRECTORY            writes them and lists name, options and message
    bad_images.py --seeds DIRECTORY    writes the seeds of the fuzz targets of the loaders

    for case in bad_images.write(directory):
        crosvm run *case.options case.kernel   ->   exit status 3, case.message on stderr

All are made here, byte by byte, so that every lie is visible. Nothing needs root.
"""

import bz2
import gzip
import lzma
import os
import pathlib
import struct
import sys
from typing import NamedTuple

MIB = 1 << 20
LOAD = 16 * MIB


class Case(NamedTuple):
    name: str
    kernel: str  # path of the file to boot
    options: list  # of `crosvm run`, before it
    message: str  # a part of the one line on stderr


# ---- good images, to be made worse ------------------------------------------------


class Segment(NamedTuple):
    kind: int = 1
    offset: int = 0x400
    vaddr: int = 0xFFFFFFFF81000000
    paddr: int = LOAD
    filesz: int = 0x100
    memsz: int = 0x200
    align: int = 4096


TEXT = Segment()
DATA = Segment(offset=0x500, paddr=LOAD + 0x1000)
NOTE = Segment(kind=4, offset=0x300, paddr=0, filesz=0x14, memsz=0x14, align=4)
PVH_NOTE = struct.pack("<III4sI", 4, 4, 18, b"Xen", LOAD + 16)


def elf(segments=(TEXT, DATA, NOTE), bits=2, order=1, kind=2, machine=62, entry=LOAD, phoff=64, phentsize=56,
        phnum=None, shoff=0, shnum=0, shstrndx=0, notes=PVH_NOTE):
    """An ELF file with 1536 bytes; segments may point anywhere."""
    header = struct.pack("<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", bits, order, 1, kind, machine, 1, entry, phoff, shoff, 0,
                         64, phentsize, len(segments) if phnum is None else phnum, 64, shnum, shstrndx)
    table = b"".join(struct.pack("<IIQQQQQQ", s.kind, 7, s.offset, s.vaddr, s.paddr, s.filesz, s.memsz, s.align)
                     for s in segments)
    file = bytearray(b"\xf4" * 0x600)  # hlt
    file[:0x400] = bytes(0x400)
    file[: len(header)] = header
    file[64 : 64 + len(table)] = table
    file[0x300 : 0x300 + len(notes)] = notes
    return bytes(file)


def compressed_elf(output=1 * MIB, entry=0x200, names=b"\0.rodata..compressed\0"):
    """Like arch/x86/boot/compressed/vmlinux: linked at 0, with a compressed kernel in a section."""
    text = TEXT._replace(offset=0, paddr=0, filesz=0x600, memsz=0x600)
    file = bytearray(elf((text, DATA._replace(paddr=0x1000)), kind=3, entry=entry, shoff=0x600, shnum=2, shstrndx=0))
    file[0x580:0x584] = struct.pack("<I", output)
    sections = struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 0x680, len(names), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 0x484, 0x100, 0, 0, 1, 0)
    return bytes(file) + sections + names


def bzimage(sectors=1, syssize=0x30, version=0x20F, loadflags=1, alignment=2 * MIB, relocatable=1, xloadflags=3,
            pref_address=LOAD, init_size=MIB, header_length=0x6A, payload=0x300, magic=b"HdrS"):
    file = bytearray(1024) + b"\xf4" * payload
    file[:2] = b"MZ"
    file[0x1F1] = sectors
    file[0x1F4:0x1F8] = struct.pack("<I", syssize)
    file[0x1FE:0x206] = b"\x55\xaa\xeb" + bytes([header_length]) + magic
    file[0x206:0x208] = struct.pack("<H", version)
    file[0x211] = loadflags
    file[0x22C:0x23C] = struct.pack("<IIBBHI", 0x7FFFFFFF, alignment, relocatable, 21, xloadflags, 2047)
    file[0x258:0x264] = struct.pack("<QI", pref_address, init_size)
    return bytes(file)


def at(offset, data, size=8192):
    """Some bytes in a file that is nothing else."""
    file = bytearray(b"\x81\x02" * (size // 2))
    file[offset : offset + len(data)] = data
    return bytes(file)


CPIO = b"070701" + b"0" * 104 + b"TRAILER!!!\0\0\0\0"


# ---- bad ones -------------------------------------------------------------------


def damaged_elf():
    yield "elf-32-bit", elf(bits=1, machine=3), "a 32-bit ELF file"
    yield "elf-big-endian", elf(order=2), "a big-endian ELF file"
    yield "elf-arm64", elf(machine=183), "an ELF file for arm64"
    yield "elf-riscv", elf(machine=243), "an ELF file for RISC-V"
    yield "elf-module", elf(kind=1), "a kernel module"
    yield "elf-core", elf(kind=4), "a core dump"
    yield "elf-library", elf((TEXT, DATA._replace(kind=2)), kind=3), "a shared library"
    yield "elf-program", elf((TEXT, DATA._replace(kind=3))), "a program, not a kernel"
    yield "elf-no-segments", elf(phnum=0), "no segments"
    yield "elf-many-segments", elf(phnum=65535), "more than 64 segments"
    yield "elf-phentsize", elf(phentsize=32), "segment headers have the wrong size"
    yield "elf-phoff", elf(phoff=2**64 - 8), "segment headers lie outside"
    yield "elf-cut-header", elf()[:40], "truncated: 24 bytes are missing"
    yield "elf-cut-segment", elf()[:-1], "truncated: 1 bytes are missing"
    yield "elf-filesz", elf((TEXT._replace(filesz=0x201),)), "larger in the file than in memory"
    yield "elf-offset-wraps", elf((TEXT._replace(offset=2**64 - 0x80),)), "a segment lies outside of the file"
    yield "elf-paddr-wraps", elf((TEXT._replace(paddr=2**64 - 0x80),)), "a segment is out of range"
    yield "elf-at-0", elf((TEXT._replace(paddr=0),), entry=16), "below the 1 MiB"
    yield "elf-in-the-hole", elf((TEXT._replace(paddr=0xC0000000),)), "where no guest has memory"
    yield "elf-high", elf((TEXT._replace(paddr=1 << 40),)), "where no guest has memory"
    yield "elf-overlap", elf((TEXT, DATA._replace(paddr=LOAD + 0x1FF))), "two segments overlap"
    yield "elf-no-entry", elf((TEXT, DATA), entry=2**64 - 0x7F000000), "without a 64-bit (physical) or PVH entry"
    yield "elf-pvh-outside", elf(entry=0, notes=PVH_NOTE[:16] + struct.pack("<I", LOAD - 1)), "PVH entry point lies outside"
    yield "elf-large", elf((TEXT, DATA._replace(memsz=512 * MIB))), "pass --mem 529 or more"
    yield "elf-output-huge", compressed_elf(output=2**32 - 1), "where no guest has memory"


def damaged_bzimage():
    yield "bz-version", bzimage(version=0x204), "boot protocol 2.04, 2.12 is needed"
    yield "bz-32-bit", bzimage(xloadflags=0), "a 32-bit kernel"
    yield "bz-zimage", bzimage(loadflags=0), "a zImage"
    yield "bz-header", bzimage(header_length=4), "setup header is too short"
    yield "bz-sectors", bzimage(sectors=2), "truncated: 512 bytes are missing"
    yield "bz-syssize", bzimage(syssize=2**32 - 1), "truncated"
    yield "bz-no-code", bzimage(syssize=0x20), "no code at its 64-bit entry"
    yield "bz-init-size", bzimage(init_size=0x2FF), "init_size is smaller than the kernel"
    yield "bz-large", bzimage(init_size=512 * MIB), "pass --mem 528 or more"
    yield "bz-hole", bzimage(init_size=3 << 30), "where no guest has memory"
    yield "bz-low", bzimage(pref_address=0x10000, alignment=0x1000), "below the 1 MiB"
    yield "bz-wraps", bzimage(pref_address=2**64 - 2 * MIB, init_size=2 * MIB), "out of range"
    yield "bz-alignment", bzimage(alignment=3), "not a power of two"
    yield "bz-unaligned", bzimage(pref_address=LOAD + 4096), "is not aligned"
    yield "bz-cut", bzimage()[:-100], "truncated: 100 bytes are missing"
    yield "bz-first-sector", bzimage()[:512], "only the first sector"
    yield "bz-cut-header", bzimage()[:0x220], "truncated"


def other_files():
    yield "empty", b"", "an empty file"
    yield "gzip", gzip.compress(elf()), "gzip compressed data; decompress it"
    yield "xz", lzma.compress(elf()), "xz compressed data; decompress it"
    yield "lzma", lzma.compress(elf(), format=lzma.FORMAT_ALONE), "lzma compressed data; decompress it"
    yield "bzip2", bz2.compress(elf()), "bzip2 compressed data; decompress it"
    yield "zstd", at(0, b"\x28\xb5\x2f\xfd"), "zstd compressed data; decompress it"
    yield "lz4", at(0, b"\x02\x21\x4c\x18"), "lz4 compressed data; decompress it"
    yield "lzop", at(0, b"\x89LZO\0\r\n\x1a\n"), "lzop compressed data; decompress it"
    yield "arm64-image", at(0x38, b"ARM\x64"), "an arm64 kernel Image"
    yield "riscv-image", at(0x38, b"RSC\x05"), "a RISC-V kernel Image"
    yield "uki", at(0x200, b".linux\0\0").replace(b"\x81\x02", b"MZ", 1), "a unified kernel image (UKI)"
    yield "efi", at(0, b"MZ"), "an EFI application"
    yield "cpio", CPIO, "a cpio archive, that is an initrd; pass it with --initrd"
    yield "deb", at(0, b"!<arch>\ndebian-binary"), "Debian package"
    yield "qcow2", at(0, b"QFI\xfb"), "a qcow2 disk image"
    yield "gpt", at(512, b"EFI PART"), "a disk image with a GPT"
    yield "mbr", at(510, b"\x55\xaa"), "a boot sector"
    yield "ext4", at(0x438, b"\x53\xef"), "an ext2, ext3 or ext4 file system"
    yield "squashfs", at(0, b"hsqs"), "a squashfs file system"
    yield "iso", at(0x8001, b"CD001", 0x9000), "an ISO 9660 image"
    yield "btrfs", at(0x10040, b"_BHRfS_M", 0x11000), "a btrfs file system"
    yield "script", b"#!/bin/sh\nexec true\n", "a script"
    yield "text", b"vmlinuz goes here\n", "a text file"
    yield "zeroes", bytes(8192), "begins with zeroes"
    yield "noise", at(0, b""), "not a kernel that crosvm knows"


def write(directory):
    """Writes all files into the directory. Returns the cases."""
    directory = pathlib.Path(directory)
    cases = []

    for generator in (damaged_elf, damaged_bzimage, other_files):
        for name, content, message in generator():
            path = directory / name
            path.write_bytes(content)
            cases.append(Case(name, str(path), [], message))

    folder = directory / "folder"
    folder.mkdir(exist_ok=True)
    fifo = directory / "fifo"
    if not fifo.exists():
        os.mkfifo(fifo)
    cases.append(Case("folder", str(folder), [], "a directory; pass the vmlinux or bzImage in it"))
    cases.append(Case("fifo", str(fifo), [], "a pipe"))
    cases.append(Case("device", "/dev/null", [], "a character device"))
    cases.append(Case("small-guest", str(directory / "good-bzimage"), ["--mem", "16"], "pass --mem 17 or more"))

    kernel = directory / "good-bzimage"
    kernel.write_bytes(bzimage())
    large = directory / "large-initrd"
    with open(large, "wb") as file:
        file.truncate(1 << 30)
    for name, path, message in (
        ("initrd-folder", folder, "cannot load initrd"),
        ("initrd-fifo", fifo, "a pipe or a device"),
        ("initrd-empty", directory / "empty", "it is empty"),
        ("initrd-large", large, "pass --mem 1056 or more"),
    ):
        cases.append(Case(name, str(kernel), ["--initrd", str(path)], message))
    return cases


def write_seeds(directory):
    """Good images of every kind, which the fuzzer makes worse, and one bad one of each family."""
    seeds = {
        "fuzz_elf_image": {
            "vmlinux": elf(),
            "pvh": elf(entry=0xFFFFFFFF81000000),
            "compressed": compressed_elf(),
            "compressed-no-sections": compressed_elf(names=b"\0.rodata\0"),
            "module": elf(kind=1),
        },
        "fuzz_bzimage": {
            "bzimage": bzimage(),
            "fixed": bzimage(relocatable=0, xloadflags=1, pref_address=MIB),
            "old": bzimage(version=0x204),
            "gzip": at(0, b"\x1f\x8b", 64),
            "ext4": at(0x438, b"\x53\xef", 0x440),
            "uki": b"MZ" + bytes(0x300) + b".linux\0\0",
        },
        "fuzz_initrd": {
            "small": struct.pack("<4Q", 5000, 0, 4096, 2**64 - 1),
            "limited": struct.pack("<4Q", 4096, 0x80000, 4096, 0x17FFFF),
            "large": struct.pack("<4Q", 1 << 40, 0, 4096, 0x7FFFFFFF),
        },
    }
    for target, files in seeds.items():
        folder = pathlib.Path(directory) / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--seeds":
        write_seeds(sys.argv[2])
    elif len(sys.argv) == 2:
        pathlib.Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        for case in write(sys.argv[1]):
            print(f"{case.name}\t{' '.join(case.options + [case.kernel])}\t{case.message}")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
