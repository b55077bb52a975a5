# SPDX-License-Identifier: BSD-3-Clause
"""Each device in a jailed process (-u): what the processes hold, how they end, and that a VM survives them.

What a jail is made of is in tests/unit/test_jail*.c; the hostile guests run with -u in test_hostile_virtio.py.
"""
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

import vmm

pytestmark = pytest.mark.skipif(any(san in vmm.CROSVM for san in ("asan", "tsan", "msan")),
                                reason="a sanitizer build, whose policies only log")
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def status(pid, field):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return re.search(rf"^{field}:\s*(.*)$", text, re.MULTILINE)[1]


def children(pid):
    """{name of the device: pid} of the device processes."""
    pids = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {pathlib.Path(f"/proc/{child}/comm").read_text().strip().removeprefix("crosvm-"): int(child)
            for child in pids}


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.fixture
def running(disk):
    with vmm.started(vmm.command("hang", None, "-u", "-b", str(disk)), until=b"hanging") as process:
        yield process


def test_one_process_a_device(running):
    assert set(children(running.pid)) == {"block", "rng"}


def test_they_hold_nothing(running):
    """For each thread of each: no capability, no privilege to gain, a filter, namespaces of its own, an empty root."""
    for pid in children(running.pid).values():
        for task in os.listdir(f"/proc/{pid}/task"):
            for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status(f"{pid}/task/{task}", field), 16) == 0
            assert status(f"{pid}/task/{task}", "NoNewPrivs") == "1"
            assert status(f"{pid}/task/{task}", "Seccomp") == "2"
        for name in NAMESPACES:
            assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/{running.pid}/ns/{name}"), name
        assert os.listdir(f"/proc/{pid}/root/") == []
        assert len(pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()) == 1
        assert status(pid, "NSpid").split()[-1] == "1"


def test_they_have_their_own_files_only(running, disk):
    def files(pid):
        return sorted(os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))

    processes = children(running.pid)
    assert str(disk) in files(processes["block"])
    for name, pid in processes.items():
        known = re.compile(r"/null|pipe:.*|socket:.*|anon_inode:\[(eventfd|io_uring)\]|/memfd:crosvm-guest.*"
                           + (f"|{disk}" if name == "block" else ""))
        assert [file for file in files(pid) if not known.fullmatch(file)] == []


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(running, signal_number):
    """However the main process ends."""
    pids = list(children(running.pid).values())
    running.send_signal(signal_number)
    running.wait(10)
    vmm.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def test_killed_at_any_moment(disk):
    """The main process dies somewhere between its start and its guest."""
    for number in range(20):
        process = subprocess.Popen(vmm.command("hang", None, "-u", "-b", str(disk)), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(number * 0.001)
        process.kill()
        process.wait()
    left = subprocess.run(["pgrep", "-x", "crosvm-block|crosvm-rng"], stdout=subprocess.PIPE, check=False)
    vmm.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in left.stdout.decode().split()))


@pytest.mark.parametrize("name", ["block", "rng"])
def test_a_dead_device_takes_nobody_along(disk, name):
    argv = vmm.command("hang", None, "-u", "-b", str(disk))
    with vmm.started(argv, until=b"hanging") as process:
        victim = children(process.pid)[name]
        os.kill(victim, signal.SIGKILL)
        vmm.wait_until(lambda: status(victim, "State").startswith("Z"))
        time.sleep(0.2)
        assert process.poll() is None
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK
        said = process.stderr.read().decode()
    assert f"device {name}: its process {victim} was ended by signal 9" in said


def test_a_frozen_device_does_not_hold_the_end(disk):
    """SIGSTOP: the tear-down waits for it no longer than its credit, 4 s."""
    argv = vmm.command("hang", None, "-u", "-b", str(disk))
    with vmm.started(argv, until=b"hanging") as process:
        for pid in children(process.pid).values():
            os.kill(pid, signal.SIGSTOP)
        assert vmm.end_by(process, signal.SIGTERM, timeout=30)[0] == vmm.OK


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_as_an_ordinary_user(disk):
    """No root, no set-up: the same jail."""
    probe = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "test", "-r",
                            "/dev/kvm", "-a", "-w", "/dev/kvm", "-a", "-x", vmm.CROSVM, "-a", "-r",
                            vmm.guest("machine")], check=False)
    if probe.returncode != 0:
        pytest.skip("an ordinary user of this machine cannot reach /dev/kvm or the files of this test")
    argv = vmm.command("machine", "pci", "-u")
    done = vmm.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *argv])
    assert "PASS pci" in done.stdout, done.stderr


def test_bad_words():
    done = vmm.run([vmm.CROSVM, "run", "-u", "--jail", "loose", vmm.guest("hang")])
    assert done.returncode == vmm.USAGE
    assert "neither strict nor best-effort" in done.stderr
