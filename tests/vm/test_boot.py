# SPDX-License-Identifier: BSD-3-Clause
"""Every kernel comes up: each image format, number of vCPUs, size of memory and kind of initrd."""
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile

import pytest
import vm

CPUS = [1, 2, 4]
# Each kernel once, each number of vCPUs for more than one format; all others in the soak.
SAMPLE = {
    ("cloud-6.1", 4), ("generic-6.1", 2), ("cloud-6.12", 1), ("cloud-6.1-vmlinux", 2),
    ("small", 1), ("small-vmlinux", 4), ("small-compressed", 2),
}
# Lines of the kernel's log that tell of a fault, of ours most likely: errors and worse by their level, and some
# that it logs as warnings.
COMPLAINTS = ("dmesg -r | grep -E '^<[0-3]>|BUG|WARNING|Firmware|ACPI.*([Ee]rror|[Ww]arning|[Ee]xception)"
              "|soft lockup|stalls|Call Trace' | grep -v '" + vm.EXPECTED_ERROR + "'")


def combinations():
    for name in vm.KERNELS:
        for cpus in CPUS:
            marks = [] if (name, cpus) in SAMPLE else [pytest.mark.soak]
            yield pytest.param(name, cpus, marks=marks)


@pytest.mark.parametrize("name, cpus", combinations())
def test_boots(initrd, name, cpus):
    done = vm.run(name, initrd, script=f"nproc; {COMPLAINTS}; true", cpus=cpus).check()
    assert done.output.splitlines() == [str(cpus)]


ENTRY_OFFSET = 24  # e_entry in an ELF file


def test_pvh_entry(initrd, tmp_path):
    """A vmlinux without a 64-bit entry is entered by its PVH note, and finds memory, initrd and ACPI all the same."""
    path = shutil.copy(vm.kernel("small-vmlinux"), tmp_path)
    with open(path, "r+b") as file:
        file.seek(ENTRY_OFFSET)
        file.write(struct.pack("<Q", 0))
    script = ("nproc; cat /proc/sys/kernel/bootloader_type; ls /sys/firmware/acpi/tables/DSDT; "
              f"sed -n 's/MemTotal: *//p' /proc/meminfo; {COMPLAINTS}; true")
    argv = vm.command("small-vmlinux", initrd, script=script, cpus=2, mem="5G")
    argv[-1] = path
    done = vm.run(argv).check()
    cpus, loader, dsdt, memory = done.output.splitlines()
    # 0xb0: Linux's own number for who enters it there.
    assert (cpus, loader, dsdt) == ("2", str(0xb0), "/sys/firmware/acpi/tables/DSDT")
    assert int(memory.split()[0]) > 4.8 * 1024 * 1024


# ---- memory ------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, mem, mib", [
    ("small-vmlinux", "32", 32), ("small", "36", 36), ("small", "128M", 128), ("small", "3G", 3072),
    ("small", "3584M", 3584), ("small", "5G", 5120),
])
def test_no_memory_is_lost(initrd, name, mem, mib):
    """All of it is in the e820 map but the 385 KiB below 1 MiB that belong to the BIOS."""
    script = ("dmesg | sed -n 's/.*BIOS-e820: .mem \\(0x[0-9a-f]*\\)-\\(0x[0-9a-f]*\\). usable/\\1 \\2/p'; "
              "sed -n 's/MemTotal: *//p' /proc/meminfo")
    done = vm.run(name, initrd, script=script, mem=mem).check()
    *ranges, total = done.output.splitlines()
    ranges = [[int(number, 16) for number in line.split()] for line in ranges]
    assert sum(end - start + 1 for start, end in ranges) == (mib << 20) - (0x100000 - 0x9fc00), done.output
    # What Linux takes for itself: 1/64 for its page structures, its own image, and above 3 GiB bounce buffers.
    own = 24 + (64 if mib > 3072 else 0)
    assert mib * 1024 * 0.975 - own * 1024 < int(total.split()[0]) < mib * 1024


def test_too_little_memory(initrd):
    """A bzImage says how much it needs: the small kernel 34 MiB."""
    done = vm.run("small", initrd, mem="32")
    assert (done.status, done.console) == (vm.IMAGE, "")
    assert "memory of 32 MiB is too small" in done.stderr


# ---- initrd ------------------------------------------------------------------------------------

@pytest.mark.parametrize("tool", ["cat", "xz --check=crc32", "zstd"])
def test_compressed_initrd(initrd, tmp_path, tool):
    """gzip is what all others have."""
    path = tmp_path / "initrd"
    with open(path, "wb") as out:
        subprocess.run(f"gzip -dc {initrd} | {tool} -1" if tool != "cat" else f"gzip -dc {initrd}", shell=True,
                       stdout=out, check=True)
    assert vm.run("small", path, script="echo here").check().output == "here\n"


def test_large_initrd(initrd, tmp_path):
    """120 MiB: a second, uncompressed archive behind the first."""
    size, mark = 120 << 20, b"at the very end"
    path = tmp_path / "initrd"

    def record(name, length):
        fields = (1, 0o100644, 0, 0, 1, 0, length, 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
        return head + bytes(-len(head) % 4)

    first = pathlib.Path(initrd).read_bytes()
    with open(path, "wb") as out:
        out.write(first + bytes(-len(first) % 512) + record(b"large", size))
        out.seek(size - len(mark), os.SEEK_CUR)  # zeros
        out.write(mark + record(b"TRAILER!!!", 0))
    done = vm.run("small", path, script="stat -c %s /large; tail -c 15 /large; echo", mem="512").check()
    assert done.output == f"{size}\n{mark.decode()}\n"


# ---- the clock -----------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["cloud-6.1", "cloud-6.12"])
def test_rtc_interrupts(tmp_path, name):
    """Linux makes the clock's update interrupts of alarms; hwclock and rtcwake wait for such. The small kernel has no /dev/rtc0."""
    initrd = vm.make_initramfs(tmp_path / "initrd.gz", "-f", f"{vm.ROOT / 'build/guest/rtc'}:/bin/rtc")
    script = "rtc; sed -n 's/^ *8:.* \\([a-z0-9]*\\)$/irq \\1/p' /proc/interrupts"
    lines = vm.run(name, initrd, script=script, cpus=2).check().output.splitlines()
    assert lines[:3] == ["update 1"] * 3
    late = re.fullmatch(r"alarm 1, late by (\d+)", lines[3])
    assert late and int(late[1]) <= 2
    assert lines[4:] == ["irq rtc0"]


# ---- without privileges ------------------------------------------------------------------------

def test_ordinary_user(initrd):
    """A user with no name, no home and no group but its own."""
    if os.getuid() != 0:
        assert vm.run("small", initrd, script="echo here").check().output == "here\n"
        return
    if not os.stat("/dev/kvm").st_mode & 0o006 == 0o006:
        pytest.skip("/dev/kvm is not for all users here")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        # What root has in its home, others cannot read.
        argv = vm.command("small", initrd, script="echo here")
        for index in (0, argv.index("-i") + 1, -1):
            argv[index] = shutil.copy(argv[index], directory)
        done = vm.run(argv, wrapper=["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups"])
        assert done.check().output == "here\n"
