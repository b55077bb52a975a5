# SPDX-License-Identifier: BSD-3-Clause
"""A guest whose network driver breaks every rule (tests/guest/hostile_net.c), on a tap in a namespace of the test's own.

The guest checks what a guest can see; here is what comes out of the tap, and what the process has when it rests.
"""
import contextlib
import itertools
import json
import os
import re
import subprocess
import time

import oracle
import pytest
import vmm
from taps import MARKED, NETWORK, arrived, network, put, tap_socket

SOAK = os.environ.get("CROSVM_SOAK")
FLOOD = MARKED.replace(b"MARKED", b"FLOODS")


@pytest.fixture(autouse=True)
def namespace():
    with network():
        yield


def flood(process, packets):
    """More than the tap's queue holds, of which the guest takes nothing."""
    vmm.read_until(process.stdout, b"flood\n")
    end = time.monotonic() + 60 * bool(SOAK)
    for i in itertools.count():
        put(packets, FLOOD)
        if i >= 3000 and time.monotonic() >= end:
            break
    process.stdin.write(b"x")
    process.stdin.flush()


def send_until_received(process, packets):
    seen, end = vmm.read_until(process.stdout, b"send\n"), time.monotonic() + 60
    os.set_blocking(process.stdout.fileno(), False)
    while b"received\n" not in seen:
        assert time.monotonic() < end and b"FAIL" not in seen, seen
        put(packets, MARKED)
        time.sleep(0.02)
        seen += process.stdout.read() or b""
    return seen


HOST = {
    "tx-sizes": [],
    "tx-offloads": [],
    "rx-buffers": [send_until_received],
    "rx-stalled": [flood, send_until_received],
    "control": [],
    "roles": [],
}
BOTH_WAYS = pytest.mark.parametrize("jailed", [[], ["-u"]], ids=["threads", "jailed"])


@BOTH_WAYS
@pytest.mark.parametrize("case", HOST)
def test_driver_that_breaks_the_rules(tmp_path, case, jailed):
    argv = vmm.command("hostile_net", case, *jailed, "--net", f"{NETWORK},queues=2")
    with oracle.hostile(tmp_path, argv, case, most_lines=20) as running:
        packets = tap_socket()
        running.begin()
        said = b""
        for step in HOST[case]:
            said = step(running.process, packets) or b""
        running.check(said, timeout=60)
        marks = arrived(packets)  # the tap goes with the VM
        packets.close()
    assert marks and marks == [f"GOOD {chr(ord('a') + i)}" for i in range(len(marks))]


@contextlib.contextmanager
def flooding(directory, jailed):
    """(Case, control socket) of a guest that sends without end and reads its disk now and then; both go well to the end."""
    (directory / "disk").write_bytes(oracle.image(8))
    path = directory / "vm.sock"
    argv = vmm.command("hostile_net", "tx-flood", *jailed, "--net", NETWORK, "-b", f"path={directory / 'disk'},ro", "-s", str(path))
    with oracle.hostile(directory, argv, "tx-flood", most_lines=5) as running:
        running.begin()
        yield running, path
        running.process.stdin.write(b"x")
        running.check()


def count(running, command=b"c"):
    """(frames, reads of the disk) since the last time, of a guest under way."""
    running.process.stdin.write(command)
    said = vmm.read_until(running.process.stdout, b" reads\n")
    return [int(number) for number in re.search(rb"(\d+) frames, (\d+) reads\n", said).groups()]


def check_status(path):
    done = vmm.run([vmm.CROSVM, "status", "--json", str(path)], timeout=30)
    assert done.returncode == vmm.OK and json.loads(done.stdout)["state"] == "running", done.stderr


@BOTH_WAYS
def test_frames_without_end(tmp_path, jailed):
    """The control socket answers and the disk serves meanwhile; the oracle looks at the memory."""
    with flooding(tmp_path, jailed) as (running, path):
        packets = tap_socket()
        end = time.monotonic() + (60 if SOAK else 2)
        while time.monotonic() < end:
            check_status(path)
        frames, reads = count(running)
        assert b"FLOOD" in packets.recv(1 << 17)
        packets.close()
        assert frames > 0 and reads > 0


@BOTH_WAYS
@pytest.mark.parametrize("end", ["delete vmtap0", "set vmtap0 down"], ids=["deleted", "down"])
@pytest.mark.parametrize("turn", range(20 if SOAK else 1))
def test_tap_ends_under_frames_without_end(tmp_path, jailed, end, turn):  # pylint: disable=unused-argument
    """The guest goes on to send, and the network device has rest: it looks some 90 times a second, and one that spins never stops.

    That is 3 % of a CPU, or 15 % of one that is emulated. Meanwhile the other devices are not asked, whose work is more.
    """
    with flooding(tmp_path, jailed) as (running, path):
        vmm.wait_until(lambda: count(running)[0] > 0)
        subprocess.run(["ip", "link", *end.split()], check=True)
        count(running, b"a")
        running.oracle.check_rest(seconds=1, most_ticks=30)
        check_status(path)
        count(running, b"a")
        vmm.wait_until(lambda: min(count(running)) > 0)  # as ever, although the frames go nowhere
    assert sum("the guest has no network any more" in line for line in running.lines) == ("delete" in end), running.lines


# In passt's place: takes what the guest sends little by little, and writes down the length and the mark of each frame.
SLOW = """#!/usr/bin/python3
import socket, sys, time
peer = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1])).makefile("rb", 0)
def take(size):
    data = b""
    while len(data) < size:
        data += peer.read(min(size - len(data), 8192)) or sys.exit()
        time.sleep(0.001)
    return data
with open("{frames}", "w", buffering=1) as frames:
    while True:
        frame = take(int.from_bytes(take(4), "big"))
        print(len(frame), frame[14:].split(bytes(1))[0].decode("latin-1"), file=frames)
"""


@BOTH_WAYS
def test_a_program_that_reads_slowly_gets_all(tmp_path, monkeypatch, jailed):
    """Frames of which its socket takes a part, and the rest later."""
    (tmp_path / "passt").write_text(SLOW.format(frames=tmp_path / "frames"))
    (tmp_path / "passt").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    argv = vmm.command("hostile_net", "tx-slow", *jailed, "--net", "user")
    with oracle.hostile(tmp_path, argv, "tx-slow") as running:
        running.begin()
        vmm.read_until(running.process.stdout, b"sent\n")
        vmm.wait_until(lambda: (tmp_path / "frames").read_text() == 64 * "65000 LARGE\n", timeout=60)
        running.process.stdin.write(b"x")
        running.check()
