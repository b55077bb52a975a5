# SPDX-License-Identifier: BSD-3-Clause
"""A guest that breaks every rule (tests/guest/hostile.c): the VM goes on, and the host does not notice."""
import time

import pytest
import smaps
import vmm

CASES = ["ports-read", "ports-zero", "ports-ones", "ports-unclaimed", "strings", "mmio", "mmio-straddle",
         "mmio-window", "uart-registers", "uart-divisor", "uart-loopback", "uart-interrupts", "uart-widths", "i8042",
         "cmos", "acpi", "pit"]


def run_hostile(test, *options):
    """Oracle: passed, status 0, next to nothing in the log, no other output than its own."""
    done = vmm.run(vmm.command("hostile", test, *options), timeout=120)
    assert f"PASS {test}" in done.stdout, f"{done.stdout[-1000:]!r} {done.stderr[-1000:]!r}"
    assert done.returncode == vmm.OK, done.stderr
    assert done.stderr.count("\n") <= 50
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr
    return done


@pytest.mark.parametrize("test", CASES)
def test_case(test):
    run_hostile(test)


def test_memory_does_not_grow():
    """The host's memory for a guest that keeps its serial port busy is that of an idle one."""
    with vmm.started(vmm.command("hang"), until=b"hanging") as idle:
        base = smaps.own_kib(idle.pid, "Rss")
    with vmm.started(vmm.command("hostile", "uart-loopback", params="count=1000000000")) as busy:
        time.sleep(1.5)
        assert busy.poll() is None
        assert smaps.own_kib(busy.pid, "Rss") <= base + 4096


@pytest.mark.parametrize("cpus", [1, 4])
def test_storm_of_resets_is_one_reset(cpus):
    done = vmm.run(vmm.command("machine", "reset-storm", "-c", str(cpus)))
    assert done.returncode == vmm.OK
    assert done.stderr.count(vmm.REBOOTED) == 1
    assert done.stderr.count("\n") == 1
