# SPDX-License-Identifier: BSD-3-Clause
"""Each device in a jailed process (-u): what the processes hold, how they end, and that a VM survives them.

What a jail is made of is in tests/unit/test_jail*.c; the hostile guests run with -u in test_hostile_virtio.py.
"""
import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

import pytest

import vmm

pytestmark = pytest.mark.skipif(any(san in vmm.CROSVM for san in ("asan", "tsan", "msan")),
                                reason="a sanitizer build, whose policies only log")
# `make soak`: each 20 times, the main process killed 500 times.
SOAK = os.environ.get("CROSVM_SOAK")
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def status(pid, field):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return re.search(rf"^{field}:[ \t]*(.*)$", text, re.MULTILINE)[1]


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
    assert set(vmm.device_processes(running.pid)) == {"block", "rng"}


def test_they_hold_nothing(running):
    """For each thread of each: no capability, no privilege to gain, a filter, namespaces of its own, an empty root."""
    for pid in vmm.device_processes(running.pid).values():
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

    processes = vmm.device_processes(running.pid)
    assert str(disk) in files(processes["block"])
    for name, pid in processes.items():
        known = re.compile(r"/null|pipe:.*|socket:.*|anon_inode:\[(eventfd|io_uring)\]|/memfd:crosvm-guest.*"
                           + (f"|{disk}" if name == "block" else ""))
        assert [file for file in files(pid) if not known.fullmatch(file)] == []


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(running, signal_number):
    """However the main process ends."""
    pids = list(vmm.device_processes(running.pid).values())
    running.send_signal(signal_number)
    running.wait(10)
    vmm.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def test_killed_at_any_moment(disk):
    """The main process dies somewhere between its start and its guest's second second. `make soak`: 500 times."""
    random_ = random.Random(4)
    for _ in range(500 if SOAK else 20):
        process = subprocess.Popen(vmm.command("load", "load", "-u", "-b", str(disk)), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random_.uniform(0, 2 if SOAK else 0.05))
        process.kill()
        process.wait()
    vmm.wait_until(lambda: vmm.descendants() == [])
    left = subprocess.run(["pgrep", "-x", "crosvm-block|crosvm-rng"], stdout=subprocess.PIPE, check=False)
    vmm.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in left.stdout.decode().split()))


KINDS = ["block", "net", "rng"]


@pytest.fixture
def serving(disk):
    """A guest with a device of each kind, at rest or with requests without end; net as far as this host has passt."""
    @contextlib.contextmanager
    def start(case, *options):
        net = ("--net", "user") if shutil.which("passt") else ()
        argv = vmm.command("load", case, "-u", "-b", str(disk), *net, *options)
        with vmm.started(argv, until=b"serving") as process:
            yield process
    return start


def device(process, kind):
    pids = vmm.device_processes(process.pid)
    if kind not in pids:
        pytest.skip("no passt, so no network card")
    return pids[kind]


def how_it_ended(process, timeout):
    start = time.monotonic()
    status_ = process.wait(timeout)
    return status_, time.monotonic() - start, process.stderr.read().decode()


def overwrite_code(pid, code):
    """In place of all that the process may execute: no-operations that lead to `code`."""
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            if line.split()[1] == "r-xp" and "[v" not in line:
                memory.seek(start)
                memory.write((bytes([0x90]) * (1024 - len(code)) + code) * ((end - start) // 1024))


def end_device(pid, how):
    """SIGSEGV and SIGSYS are a process's own: the first of a pid namespace is deaf for those that others send."""
    if how == signal.SIGKILL:
        os.kill(pid, signal.SIGKILL)
        return
    os.kill(pid, signal.SIGSTOP)
    tasks = list(pathlib.Path(f"/proc/{pid}/task").glob("*/stat"))
    vmm.wait_until(lambda: all(task.read_text().rsplit(")", 1)[1].split()[0] == "T" for task in tasks))
    code = {signal.SIGSEGV: b"\x31\xc0\x88\x00",  # xor %eax, %eax; mov %al, (%rax)
            signal.SIGSYS: b"\xb8\x3b\x00\x00\x00\x0f\x05"}  # execve()
    overwrite_code(pid, code[how])
    os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("case", ["rest", "load"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSYS])
def test_a_dead_device_ends_the_vm(serving, kind, case, how):
    """Within a second, with a status and a line of their own."""
    if how != signal.SIGKILL and os.geteuid() != 0:
        pytest.skip("only root can write into a device's process")
    for _ in range(20 if SOAK else 1):
        with serving(case) as process:
            victim = device(process, kind)
            end_device(victim, how)
            status_, seconds, said = how_it_ended(process, 10)
        assert status_ == vmm.DEVICE
        assert seconds < 1, said
        assert f"device {kind}: its process {victim} was ended by signal {how.value} (" in said
        assert "crosvm: the process of a device was lost" in said


@pytest.mark.parametrize("kind, case", [(kind, case) for kind in KINDS for case in ("rest", "load")
                                        if SOAK or (kind, case) in (("block", "load"), ("net", "rest"), ("rng", "rest"))])
def test_a_stopped_device_ends_the_vm(serving, tmp_path, kind, case):
    """It is found within 5 s, and meanwhile the control socket answers."""
    socket = str(tmp_path / "vm.sock")
    for _ in range(20 if SOAK else 1):
        with serving(case, "-s", socket) as process:
            victim = device(process, kind)
            start = time.monotonic()
            os.kill(victim, signal.SIGSTOP)
            while process.poll() is None and time.monotonic() - start < 3:
                asked = time.monotonic()
                assert vmm.run([vmm.CROSVM, "status", socket]).returncode == 0
                assert time.monotonic() - asked < 1
                time.sleep(0.5)
            status_, _, said = how_it_ended(process, 10)
            assert time.monotonic() - start < 6  # 4, and what a busy machine takes
        assert status_ == vmm.DEVICE
        assert f"device {kind}: its process {victim} was" in said or f"{kind}: the device's process did not" in said


@pytest.mark.parametrize("case", ["rest", "load"])
def test_a_device_may_be_stopped_for_a_while(serving, case):
    """For less than 4 s."""
    with serving(case) as process:
        for victim in vmm.device_processes(process.pid).values():
            os.kill(victim, signal.SIGSTOP)
        time.sleep(0.5)
        for victim in vmm.device_processes(process.pid).values():
            os.kill(victim, signal.SIGCONT)
        time.sleep(0.2 if case == "load" else 4)
        assert process.poll() is None
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK


def test_a_frozen_device_does_not_hold_the_end(disk):
    """SIGSTOP: the tear-down waits for it no longer than its credit, 4 s."""
    argv = vmm.command("hang", None, "-u", "-b", str(disk))
    with vmm.started(argv, until=b"hanging") as process:
        for pid in vmm.device_processes(process.pid).values():
            os.kill(pid, signal.SIGSTOP)
        assert vmm.end_by(process, signal.SIGTERM, timeout=30)[0] == vmm.OK


def test_memory_goes_to_the_main_process_last(running):
    """J14: when memory runs out, the kernel takes a device first."""
    def score(pid):
        return int(pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text())

    for pid in vmm.device_processes(running.pid).values():
        assert score(pid) >= min(score(running.pid) + 200, 1000)


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
