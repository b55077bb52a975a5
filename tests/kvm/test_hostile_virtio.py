# SPDX-License-Identifier: BSD-3-Clause
"""Guests whose virtio drivers break every rule (tests/guest/hostile_{vq,ring,dev,balloon,pci}.c): only their device suffers.

The guest itself checks what a guest can see. Here is what only the host can: the process lives, holds no more
descriptors, threads or memory than before, comes to rest, logs little, and the disks are byte for byte what they were.
"""
import contextlib
import os
import socket
import threading

import oracle
import pytest
import taps
import vmm

SECTOR, SECTORS = 512, 4096
WRITTEN_SECTOR, WRITTEN = 3, b"\xa5" * SECTOR  # tests/guest/hostile_dev.c
SOAK = os.environ.get("CROSVM_SOAK")

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
    ("hostile_ring", "reset", ("rng",), []),
    ("hostile_ring", "flip", BOTH, ["-c", "2"]),
    ("hostile_ring", "moving-idx", BOTH, ["-c", "2"]),
    ("hostile_dev", "requests", ("blk",), []),
    ("hostile_dev", "segments", ("blk",), []),
    ("hostile_dev", "layouts", ("blk",), []),
    ("hostile_dev", "reset-in-flight", ("blk",), []),
    ("hostile_dev", "two-drivers", ("blk",), []),
    ("hostile_dev", "rng", ("rng",), ["-m", "128"]),
    ("hostile_dev", "flood", ("rng",), []),
    ("hostile_balloon", "inflate", ("balloon",), BALLOON),
    ("hostile_balloon", "reporting", ("balloon",), BALLOON),
    ("hostile_balloon", "stats", ("balloon",), BALLOON),
    ("hostile_balloon", "config", ("balloon",), BALLOON),
    ("hostile_pci", "queue-select", BOTH, []),
    ("hostile_pci", "device-config", BOTH, []),
    ("hostile_pci", "generation", ("blk",), ["-c", "2"]),
    ("hostile_pci", "status", BOTH, []),
    ("hostile_pci", "msix-messages", BOTH, []),
]
# The same code for whatever device, and in the main process also with -u: src/bus/pci_host.c, src/virtio/pci_config.c, msix.c.
# With -u all of them take `make soak`.
IN_MAIN = [("hostile_pci", case, ("blk",), []) for case in ("bar-sizing", "bar-moves", "pci-cfg")]
IN_MAIN += [("hostile_pci", "memory-enable-race", ("blk",), ["-c", "2"])]
LONG_IN_MAIN = [("hostile_pci", case, ("blk",), []) for case in (
    "config-space", "memory-enable", "bar-space", "msix-registers")]
# The same for the queues of other devices, which have loops of their own around them: those of requests, and those by
# which the device has its say. The latter with -u take `make soak`.
NET, VSOCK, WL = ["--net", taps.NETWORK], ["--vsock", "cid=42,socket={place}/vsock"], ["--wayland-sock", "{place}/wayland-0"]
OTHERS = {"net": NET, "vsock": VSOCK, "balloon": BALLOON, "wl": WL, "net-rx": NET, "vsock-rx": VSOCK, "wl-in": WL}
SAY = ("net-rx", "vsock-rx", "wl-in")
RINGS = {"places": [], "chains": [], "avail-idx": [], "same-head": [], "storm": [], "reset": [], "flip": ["-c", "2"]}
LONG_RINGS = {"sizes": [], "long-chains": ["-m", "128"], "garbage": [], "wrap": [], "kicks": [], "moving-idx": ["-c", "2"]}
IN_VQ = ("places", "chains", "sizes", "long-chains")  # of hostile_vq.c, the others of hostile_ring.c


IMAGE = oracle.image(SECTORS)


def check_disks(read_only, writable):
    assert read_only.read_bytes() == IMAGE
    data = writable.read_bytes()
    start = WRITTEN_SECTOR * SECTOR
    assert data[start:start + SECTOR] in (WRITTEN, IMAGE[start:start + SECTOR])
    assert data[:start] + IMAGE[start:start + SECTOR] + data[start + SECTOR:] == IMAGE


@contextlib.contextmanager
def watched(victim):
    """Of a network card, what comes out of its tap: good frames and no others."""
    if victim != "net":
        yield
        return
    with contextlib.closing(taps.tap_socket()) as packets:
        yield
        assert set(taps.arrived(packets)) == {"GOOD"}


def run(directory, guest, case, victim, options, engine=None):
    """With -u, where each reset is a message to another process and its answer, a fifth of the rounds will do."""
    every = 5 if "-u" in options and not SOAK else 1
    read_only, writable = directory / "ro.img", directory / "rw.img"
    for path in (read_only, writable):
        path.write_bytes(IMAGE)
    suffix = f",engine={engine}" if engine else ""
    argv = vmm.command(guest, case, "-b", f"path={read_only},ro{suffix}", "-b", f"path={writable}{suffix}", *options,
                       params=f"victim={victim} seconds={5 if SOAK else 1} every={every}")
    if "-m" in options:  # the guest's own comes first in vmm.command()
        del argv[2:4]
    with oracle.hostile(directory, argv, case) as running, watched(victim):
        running.begin()
        running.check(timeout=300 if SOAK else 60)
    assert not any("Sanitizer" in line or "runtime error" in line for line in running.lines), running.lines
    check_disks(read_only, writable)
    return writable


NOT_SANITIZED = pytest.mark.skipif(vmm.SANITIZED, reason="a sanitizer build, whose policies only log")


def parameters(cases):
    return pytest.mark.parametrize("guest, case, victim, options", [
        pytest.param(guest, case, victim, options, id="-".join([guest.split("_")[1], case, victim, *options]))
        for guest, case, victims, options in cases for victim in victims])


@parameters([*CASES, *IN_MAIN, *LONG_IN_MAIN])
def test_case(tmp_path, guest, case, victim, options):
    run(tmp_path, guest, case, victim, options)


@NOT_SANITIZED
@parameters([*CASES, *IN_MAIN, *(LONG_IN_MAIN if SOAK else [])])
def test_jailed(tmp_path, guest, case, victim, options):
    run(tmp_path, guest, case, victim, ["-u", *options])


@contextlib.contextmanager
def hanging_up(path):
    """Who connects has the end of it at once."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(100)

        def run_listener():
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=run_listener)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


HOSTS = {
    "net": lambda _: taps.network(),
    "net-rx": lambda _: taps.network_with_frames(),
    "wl-in": lambda place: hanging_up(place / "wayland-0"),
}


def run_rings(place, case, victim, *options):
    guest = "hostile_vq" if case in IN_VQ else "hostile_ring"
    device = [option.format(place=place) for option in OTHERS[victim]]
    with HOSTS.get(victim, contextlib.nullcontext)(place):
        run(place, guest, case, victim, [*options, *device, *{**RINGS, **LONG_RINGS}[case]])


@pytest.mark.parametrize("case", [*RINGS, *(LONG_RINGS if SOAK else [])])
@pytest.mark.parametrize("victim", OTHERS)
def test_rings_of_other_devices(tmp_path, victim, case):
    run_rings(tmp_path, case, victim)


@NOT_SANITIZED
@pytest.mark.parametrize("case", [*RINGS, *(LONG_RINGS if SOAK else [])])
@pytest.mark.parametrize("victim", [victim for victim in OTHERS if SOAK or victim not in SAY])
def test_jailed_rings_of_other_devices(tmp_path, victim, case):
    run_rings(tmp_path, case, victim, "-u")


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
