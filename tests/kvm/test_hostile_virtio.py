# SPDX-License-Identifier: BSD-3-Clause
"""Guests whose virtio drivers break every rule (tests/guest/hostile_{vq,ring,dev,balloon,pci}.c): only their device suffers.

The guest itself checks what a guest can see. Here is what only the host can: the process lives, holds no more
descriptors, threads or memory than before, comes to rest, logs little, and the disks are byte for byte what they were.
"""
import pathlib
import struct
import time

import pytest
import smaps
import vmm

SECTOR, SECTORS = 512, 4096
WRITTEN_SECTOR, WRITTEN = 3, b"\xa5" * SECTOR  # tests/guest/hostile_dev.c
SANITIZED = "san/" in vmm.CROSVM  # whose own memory grows, too

BOTH = ("blk", "rng")
BALLOON = ["--balloon", "reporting"]
# guest, case, victims, further options
CASES = [
    ("hostile_vq", "sizes", BOTH, []),
    ("hostile_vq", "places", BOTH, []),
    ("hostile_vq", "places", ("blk",), ["-m", "4096"]),  # RAM on both sides of the hole
    ("hostile_vq", "chains", BOTH, []),
    ("hostile_vq", "chains", ("blk",), ["-m", "4096"]),
    ("hostile_vq", "long-chains", BOTH, ["-m", "128"]),
    ("hostile_ring", "avail-idx", BOTH, []),
    ("hostile_ring", "same-head", BOTH, []),
    ("hostile_ring", "garbage", BOTH, []),
    ("hostile_ring", "wrap", BOTH, []),
    ("hostile_ring", "kicks", BOTH, []),
    ("hostile_ring", "storm", BOTH, []),
    ("hostile_ring", "flip", BOTH, ["-c", "2"]),
    ("hostile_ring", "moving-idx", BOTH, ["-c", "2"]),
    ("hostile_dev", "requests", ("blk",), []),
    ("hostile_dev", "segments", ("blk",), []),
    ("hostile_dev", "layouts", ("blk",), []),
    ("hostile_dev", "reset-in-flight", ("blk",), []),
    ("hostile_dev", "rng", ("rng",), []),
    ("hostile_dev", "flood", ("rng",), []),
    ("hostile_balloon", "inflate", ("balloon",), BALLOON),
    ("hostile_balloon", "reporting", ("balloon",), BALLOON),
    ("hostile_balloon", "stats", ("balloon",), BALLOON),
    ("hostile_balloon", "config", ("balloon",), BALLOON),
    ("hostile_pci", "config-space", BOTH, []),
    ("hostile_pci", "bar-sizing", BOTH, []),
    ("hostile_pci", "bar-moves", BOTH, []),
    ("hostile_pci", "memory-enable", BOTH, []),
    ("hostile_pci", "bar-space", BOTH, []),
    ("hostile_pci", "queue-select", BOTH, []),
    ("hostile_pci", "device-config", BOTH, []),
    ("hostile_pci", "status", BOTH, []),
    ("hostile_pci", "msix-messages", BOTH, []),
    ("hostile_pci", "msix-registers", BOTH, []),
    ("hostile_pci", "pci-cfg", BOTH, []),
]


def image():
    """As image_word() of tests/guest/virtio.h says."""
    words = ((sector * 0x9e3779b97f4a7c15 + word) % 2**64 for sector in range(SECTORS) for word in range(SECTOR // 8))
    return struct.pack(f"<{SECTORS * SECTOR // 8}Q", *words)


IMAGE = image()


def thread_ticks(pid):
    """CPU time by thread."""
    ticks = {}
    for stat in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"):
        fields = stat.read_text().rsplit(")", 1)[1].split()
        ticks[stat.parent.name] = int(fields[11]) + int(fields[12])
    return ticks


def sample(pid):
    return {"descriptors": len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir())),
            "threads": vmm.status_number(pid, "Threads")}


def settle(pid, expected):
    """A thread that was joined may be in /proc a moment longer."""
    for _ in range(100):
        if sample(pid) == expected:
            break
        time.sleep(0.01)
    return sample(pid)


def check_rest(pid):
    """All threads sleep but one: while the guest waits for us, its vCPU 0 polls the UART."""
    before = thread_ticks(pid)
    time.sleep(0.4)
    spent = sorted(ticks - before.get(thread, 0) for thread, ticks in thread_ticks(pid).items())
    assert sum(spent[:-1]) <= 2, spent


def check_disks(read_only, writable):
    assert read_only.read_bytes() == IMAGE
    data = writable.read_bytes()
    start = WRITTEN_SECTOR * SECTOR
    assert data[start:start + SECTOR] in (WRITTEN, IMAGE[start:start + SECTOR])
    assert data[:start] + IMAGE[start:start + SECTOR] + data[start + SECTOR:] == IMAGE


def run(directory, guest, case, victim, options, engine=None):
    read_only, writable = directory / "ro.img", directory / "rw.img"
    for path in (read_only, writable):
        path.write_bytes(IMAGE)
    suffix = f",engine={engine}" if engine else ""
    argv = vmm.command(guest, case, "-b", f"path={read_only},ro{suffix}", "-b", f"path={writable}{suffix}", *options,
                       params=f"victim={victim}")
    if "-m" in options:  # the guest's own comes first in vmm.command()
        del argv[2:4]
    with open(directory / "log", "w+b") as log, \
            vmm.started(argv, until=b"begin\n", stdin=-1, stderr=log) as process:
        before, resident = sample(process.pid), smaps.own_kib(process.pid, "Rss")
        process.stdin.write(b"x")
        process.stdin.flush()
        try:
            said = vmm.read_until(process.stdout, b"end\n", timeout=60)
        except AssertionError as error:
            log.seek(0)
            raise AssertionError(f"{error} {log.read()[-3000:]!r}") from None
        assert b"FAIL" not in said
        assert settle(process.pid, before) == before
        assert smaps.own_kib(process.pid, "Rss") - resident <= (16384 if SANITIZED else 4096)
        check_rest(process.pid)
        process.stdin.write(b"x")
        process.stdin.flush()
        assert process.wait(30) == vmm.OK
        assert f"PASS {case}".encode() in process.stdout.read()
        log.seek(0)
        lines = log.read().decode("latin-1").splitlines()
    assert lines[-1].startswith(vmm.POWERED_OFF), lines[-20:]
    assert len(lines) <= 50, lines[-20:]
    assert not any("Sanitizer" in line or "runtime error" in line for line in lines), lines
    check_disks(read_only, writable)
    return writable


@pytest.mark.parametrize("guest, case, victim, options", [
    pytest.param(guest, case, victim, options, id="-".join([guest.split("_")[1], case, victim, *options]))
    for guest, case, victims, options in CASES for victim in victims])
def test_case(tmp_path, guest, case, victim, options):
    run(tmp_path, guest, case, victim, options)


@pytest.mark.skipif(SANITIZED, reason="a sanitizer build, whose policies only log")
@pytest.mark.parametrize("guest, case, options", [
    ("hostile_dev", "requests", []), ("hostile_dev", "layouts", []), ("hostile_dev", "reset-in-flight", []),
    ("hostile_vq", "chains", []), ("hostile_ring", "storm", []), ("hostile_ring", "flip", ["-c", "2"]),
    ("hostile_ring", "moving-idx", ["-c", "2"]), ("hostile_balloon", "inflate", BALLOON),
    ("hostile_balloon", "reporting", BALLOON), ("hostile_balloon", "stats", BALLOON)])
def test_jailed(tmp_path, guest, case, options):
    run(tmp_path, guest, case, "blk", ["-u", *options])


@pytest.mark.parametrize("case", ["requests", "segments", "layouts", "reset-in-flight"])
def test_without_io_uring(tmp_path, case):
    run(tmp_path, "hostile_dev", case, "blk", [], engine="sync")


@pytest.mark.parametrize("guest, case", [("hostile_vq", "chains"), ("hostile_ring", "same-head"),
                                         ("hostile_ring", "wrap"), ("hostile_ring", "flip")])
def test_rings_without_io_uring(tmp_path, guest, case):
    run(tmp_path, guest, case, "blk", ["-c", "2"], engine="sync")


def test_the_good_write_is_on_the_disk(tmp_path):
    """So that a disk which never changes is no proof by itself."""
    writable = run(tmp_path, "hostile_dev", "layouts", "blk", [])
    assert writable.read_bytes()[WRITTEN_SECTOR * SECTOR:][:SECTOR] == WRITTEN
