# SPDX-License-Identifier: BSD-3-Clause
"""The balloon with a Linux guest: what it gives up, the host has; what it gets back, it can use."""
import contextlib
import json
import subprocess
import time

import pytest
import smaps
import vm

MIB = 1 << 20
PATIENCE = 60  # seconds; the guest's driver works in the background


def guest_memory_mib(pid):
    """What of the guest's memory the host has backed."""
    return smaps.guest_kib(pid) / 1024


def crosvm(*arguments, status=0):
    done = subprocess.run([vm.CROSVM, *arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == status, done.stderr
    return done


def stats(path):
    return json.loads(crosvm("balloon_stats", "--json", path).stdout)


def wait_until(what, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def wait_actual(path, mib):
    wait_until(f"a balloon of {mib} MiB", lambda: stats(path)["actual_mib"] == mib)


@contextlib.contextmanager
def shell(initrd, path, *options, balloon="size=0"):
    with vm.started("small", initrd, options=["-s", path, "--balloon", balloon, *options]) as guest:
        guest.expect(vm.PROMPT)
        yield guest


def use(guest, mib):
    """The guest writes that much memory once, and frees it again."""
    guest.ask(f"mkdir -p /use; mount -t tmpfs -o size={mib}m use /use")
    assert f"{mib}+0 records out" in guest.ask(f"dd if=/dev/zero of=/use/all bs=1M count={mib}")
    guest.ask("umount /use")


@pytest.fixture(name="path")
def socket_path(tmp_path):
    return str(tmp_path / "vm.sock")


@pytest.mark.parametrize("options", vm.THREADS_IN_SOAK)
def test_inflate_and_deflate(initrd, path, options):
    """100 MiB of 256: the host gets 95 or more, and the guest has them again when they are given back."""
    with shell(initrd, path, *options) as guest:
        use(guest, 180)
        full, before = guest_memory_mib(guest.pid), stats(path)
        assert full > 180
        assert before["actual_mib"] == before["target_mib"] == 0
        assert 200 * MIB < before["stats"]["total-memory"] < 256 * MIB
        assert 180 * MIB < before["stats"]["free-memory"] <= before["stats"]["available-memory"] + 64 * MIB

        crosvm("balloon", "100", path)
        wait_actual(path, 100)
        inflated, during = guest_memory_mib(guest.pid), stats(path)
        print(f"guest memory: {full:.1f} MiB, with a balloon of 100 MiB {inflated:.1f} MiB")
        assert full - inflated >= 95
        assert abs(before["stats"]["free-memory"] - during["stats"]["free-memory"] - 100 * MIB) < 10 * MIB

        crosvm("balloon", "0", path)
        wait_actual(path, 0)
        use(guest, 180)
        assert guest_memory_mib(guest.pid) > 180
        assert abs(before["stats"]["free-memory"] - stats(path)["stats"]["free-memory"]) < 10 * MIB


def test_deflates_rather_than_kill(initrd, path):
    """A guest out of memory takes what it needs from a balloon that it was started with."""
    with shell(initrd, path, balloon="size=150") as guest:
        wait_actual(path, 150)
        use(guest, 180)
        assert "Out of memory" not in guest.ask("dmesg")
        assert stats(path)["actual_mib"] < 150


def test_free_pages_are_reported(initrd, path):
    """Nobody asks: what the guest has freed goes back by itself."""
    with shell(initrd, path, "-u", balloon="reporting") as guest:
        use(guest, 180)
        wait_until("free memory given back", lambda: guest_memory_mib(guest.pid) < 100)
        use(guest, 180)


def test_refusals(initrd, path):
    with shell(initrd, path) as guest:
        done = crosvm("balloon", "257", path, status=vm.HOST)
        assert "the guest has 256 MiB, not 257 to give up" in done.stderr
        assert "not a number" in crosvm("balloon", "all", path, status=vm.USAGE).stderr
        assert "no socket" in crosvm("balloon", "1", status=vm.USAGE).stderr
        assert "0 of 0 MiB given up" in crosvm("balloon_stats", path).stdout
        assert guest.process.poll() is None


def test_no_balloon(initrd, path):
    with vm.started("small", initrd, options=["-s", path]) as guest:
        guest.expect(vm.PROMPT)
        assert "start it with --balloon" in crosvm("balloon", "1", path, status=vm.HOST).stderr
        assert "start it with --balloon" in crosvm("balloon_stats", path, status=vm.HOST).stderr
