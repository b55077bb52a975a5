# SPDX-License-Identifier: BSD-3-Clause
"""A guest that breaks every rule (tests/guest/hostile.c): the VM goes on, and the host does not notice.

`make soak`: all cases also with jailed devices, else those that take no second.
"""
import os
import time

import pytest
import smaps
import vmm

SHORT = ["ports-unclaimed", "mmio-straddle", "uart-divisor", "uart-widths", "i8042", "acpi", "pit"]
LONG = ["ports-read", "ports-zero", "ports-ones", "strings", "mmio", "mmio-window", "uart-registers", "uart-loopback",
        "uart-interrupts", "cmos"]
CASES = SHORT + LONG
SOAK = os.environ.get("CROSVM_SOAK")
WHOLE = "every=1 count=1000000" if SOAK else ""  # of loops that are sampled else


def run_hostile(test, *options):
    """Oracle: passed, status 0, next to nothing in the log, no other output than its own."""
    done = vmm.run(vmm.command("hostile", test, *options, params=WHOLE), timeout=300)
    assert f"PASS {test}" in done.stdout, f"{done.stdout[-1000:]!r} {done.stderr[-1000:]!r}"
    assert done.returncode == vmm.OK, done.stderr
    assert done.stderr.count("\n") <= 50
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr
    return done


@pytest.mark.parametrize("test", CASES)
def test_case(test):
    run_hostile(test)


@pytest.mark.skipif(vmm.SANITIZED, reason="a sanitizer build, whose policies only log")
@pytest.mark.parametrize("test", CASES if SOAK else SHORT)
def test_jailed(tmp_path, test):
    """The same code of the main process, which must not take its devices for lost meanwhile."""
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    run_hostile(test, "-u", "-b", str(tmp_path / "disk.img"))


def test_memory_does_not_grow():
    """The host's memory for a guest that keeps its serial port busy is that of an idle one."""
    with vmm.started(vmm.command("hang"), until=b"hanging") as idle:
        base = smaps.own_kib(idle.pid, "Rss")
    with vmm.started(vmm.command("hostile", "uart-loopback", params="count=1000000000")) as busy:
        time.sleep(1.5)
        assert busy.poll() is None
        assert smaps.own_kib(busy.pid, "Rss") <= base + 4096


@pytest.mark.parametrize("options", [("-c", "1"), ("-c", "4"), pytest.param(("-c", "4", "-u"), marks=pytest.mark.skipif(
    vmm.SANITIZED, reason="a sanitizer build, whose policies only log"))], ids=" ".join)
def test_storm_of_resets_is_one_reset(options):
    done = vmm.run(vmm.command("machine", "reset-storm", *options))
    assert done.returncode == vmm.OK
    assert done.stderr.count(vmm.REBOOTED) == 1
    assert done.stderr.count("\n") == 1
