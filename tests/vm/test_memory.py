# SPDX-License-Identifier: BSD-3-Clause
"""Where the guest's memory comes from: huge pages of the host, and all of it at the start."""
import os
import pathlib
import re

import pytest
import smaps
import vm

RESERVED = pathlib.Path("/proc/sys/vm/nr_hugepages")
MEMORY_MIB = 128


def huge_pages():
    """How many of the host's huge pages of 2 MiB nobody has, and nobody is promised."""
    text = pathlib.Path("/proc/meminfo").read_text()
    free, promised = (int(re.search(rf"^HugePages_{name}: +(\d+)$", text, re.MULTILINE)[1]) for name in ("Free", "Rsvd"))
    return free - promised


@pytest.fixture
def reserve():
    """A function that reserves huge pages."""
    if os.geteuid() != 0:
        pytest.skip("needs root to reserve huge pages")
    before = RESERVED.read_text()

    def set_to(count):
        RESERVED.write_text(str(count))
        if huge_pages() < count:
            pytest.skip(f"this host has no {count} huge pages left")

    yield set_to
    RESERVED.write_text(before)


def test_huge_pages(initrd, reserve):
    """All of the memory is of huge pages, and they come back; without enough of them nothing starts."""
    reserve(MEMORY_MIB // 2)
    argv = vm.command("small", initrd, mem=str(MEMORY_MIB), options=["--hugepages"])
    with vm.Guest(argv) as guest:
        guest.expect(vm.PROMPT)
        assert huge_pages() == 0
        late = vm.run(argv)
        assert (late.status, late.console) == (vm.HOST, "")
        assert "huge pages" in late.stderr and late.stderr.count("\n") == 1, late.stderr
    assert huge_pages() == MEMORY_MIB // 2


def test_preallocated_memory(initrd):
    """--prealloc: the host has given it all before the guest has touched it."""
    with vm.started("small", initrd, mem=str(MEMORY_MIB), options=["--prealloc"]) as guest:
        guest.expect(vm.PROMPT)
        assert smaps.guest_kib(guest.pid, "Rss") == MEMORY_MIB << 10
