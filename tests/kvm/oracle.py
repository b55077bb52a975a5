# SPDX-License-Identifier: BSD-3-Clause
"""What only the host can see of a VM whose guest breaks every rule: in each of its processes, with -u those of the devices.

While the devices are at rest before the case, and again after it: no more descriptors, no more threads, no more memory,
and nothing runs.
"""
import contextlib
import os
import pathlib
import struct
import time

import smaps
import vmm

GROWTH_KIB = 16384 if vmm.SANITIZED else 4096


def image(sectors):
    """A disk as image_word() of tests/guest/disk.h says."""
    words = [(sector * 0x9e3779b97f4a7c15 + word) % 2**64 for sector in range(sectors) for word in range(64)]
    return struct.pack(f"<{len(words)}Q", *words)


def thread_ticks(pid):
    """CPU time by thread."""
    ticks = {}
    for stat in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"):
        fields = stat.read_text().rsplit(")", 1)[1].split()
        ticks[stat.parent.name] = int(fields[11]) + int(fields[12])
    return ticks


def threads(pid):
    """How many, without those of io_uring, which the kernel keeps a while when they have nothing to do."""
    names = (comm.read_text() for comm in pathlib.Path(f"/proc/{pid}/task").glob("*/comm"))
    return sum(not name.startswith("iou-") for name in names)


class Oracle:
    """Of a VM that waits for its case to begin."""

    def __init__(self, process):
        vmm.wait_until_started(process.pid)
        self.pids = [process.pid, *(pid for _, pid in vmm.processes(process.pid))]
        self.held = self.look()
        self.resident = {pid: smaps.own_kib(pid, "Rss") for pid in self.pids}

    def look(self):
        """{pid: (descriptors, threads)}"""
        return {pid: (len(os.listdir(f"/proc/{pid}/fd")), threads(pid)) for pid in self.pids}

    def check_held(self):
        """A thread that was joined may be in /proc a moment longer."""
        vmm.comes_true(lambda: self.look() == self.held, 10)
        assert self.look() == self.held

    def spend(self, seconds):
        """The ticks of each thread in so many seconds, but of the one that has most: vCPU 0, which polls the UART for us."""
        before = {pid: thread_ticks(pid) for pid in self.pids}
        time.sleep(seconds)
        return sorted(ticks - before[pid].get(thread, 0) for pid in self.pids for thread, ticks in thread_ticks(pid).items())[:-1]

    def check_rest(self, seconds=0.4, most_ticks=2):
        """All other threads sleep. One that spins never does; what is only being brought to its end may take a moment."""
        windows = []
        while not windows or sum(windows[-1]) > most_ticks:
            assert len(windows) < 5, windows
            windows.append(self.spend(seconds))

    def grown_kib(self):
        """{pid: how much more memory it has}"""
        return {pid: smaps.own_kib(pid, "Rss") - self.resident[pid] for pid in self.pids}

    def check(self):
        self.check_held()
        grown = self.grown_kib()
        assert max(grown.values()) <= GROWTH_KIB, grown
        self.check_rest()


class Case:
    """A hostile guest at a case of its own: it waits to begin, ends, and waits again for us to look."""

    def __init__(self, process, log):
        self.process, self.log = process, log
        self.oracle = Oracle(process)
        self.lines = []  # of crosvm's log, once it is over

    def begin(self):
        self.process.stdin.write(b"x")

    def check(self, said=b"", timeout=120):
        """Waits for the end of the case, unless the test has read as far, and looks at what is held."""
        if b"end\n" not in said:
            said = vmm.read_or_tell(self.process, b"end\n", timeout, self.log)
        assert b"FAIL" not in said, said
        self.oracle.check()

    def finish(self, name):
        os.set_blocking(self.process.stdout.fileno(), True)
        self.process.stdin.write(b"x")
        assert self.process.wait(30) == vmm.OK
        assert f"PASS {name}".encode() in self.process.stdout.read()
        self.log.seek(0)
        self.lines = self.log.read().decode("latin-1").splitlines()


@contextlib.contextmanager
def hostile(directory, argv, name, most_lines=50):
    """The Case of that name, of which the test calls begin() and check(); afterwards, it has ended well."""
    with open(directory / "log", "w+b") as log, vmm.started(argv, stdin=-1, stderr=log, bufsize=0) as process:
        vmm.read_or_tell(process, b"begin\n", log=log)
        case = Case(process, log)
        yield case
        case.finish(name)
    assert case.lines[-1].startswith(vmm.POWERED_OFF) and len(case.lines) <= most_lines, case.lines[-20:]
