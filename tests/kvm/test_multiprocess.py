# SPDX-License-Identifier: BSD-3-Clause
"""Each device in a jailed process (-u): what the processes hold, how they end, and that a VM survives them.

What a jail is made of is in tests/unit/test_jail*.c; the hostile guests run with -u in test_hostile_virtio.py.
"""
import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time

import jails
import pytest
import vmm
from netns import own_network

pytestmark = pytest.mark.skipif(any(san in vmm.CROSVM for san in ("asan", "tsan", "msan")),
                                reason="a sanitizer build, whose policies only log")
# `make soak`: each 20 times, the main process killed 500 times.
SOAK = os.environ.get("CROSVM_SOAK")
USER = 54321  # in no file of the host


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.fixture
def running(disk):
    with vmm.started(vmm.command("hang", None, "-u", "-b", str(disk)), until=b"hanging") as process:
        yield process


@pytest.fixture(params=["root", "user"])
def place(request, tmp_path):
    """(directory, who starts crosvm, what does that): root, and a user whom the host has given /dev/kvm and nothing else."""
    if os.geteuid() != 0:
        if request.param == "root":
            pytest.skip("needs root")
        yield tmp_path, os.geteuid(), []
    elif request.param == "root":
        yield tmp_path, 0, []
    else:
        directory = pathlib.Path(tempfile.mkdtemp(prefix="crosvm-user-"))
        node = directory / "kvm"
        os.mknod(node, 0o666 | stat.S_IFCHR, os.stat("/dev/kvm").st_rdev)
        for path, mode in ((node, 0o666), (directory, 0o777)):
            os.chmod(path, mode)
        switch = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
        probe = [*switch, "test", "-x", vmm.CROSVM, "-a", "-r", vmm.guest("load")]
        if subprocess.run(probe, check=False).returncode != 0:
            pytest.skip("an ordinary user of this machine cannot reach the files of this test")
        for name in ("ro.img", "rw.img"):
            (directory / name).write_bytes(bytes(1 << 20))
            os.chmod(directory / name, 0o666)
        # In mounts of its own, the device node is one that all may use.
        yield directory, USER, ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /dev/kvm && exec "$@"', node, *switch]
        shutil.rmtree(directory)


def test_what_a_jail_is(place):
    """J1 to J17, J19, J20 of each kind of device, and of the helpers; with all of them at work."""
    directory, caller, before = place
    with jails.machine(directory, "load", before=before) as process:
        found = jails.processes(process.pid)
        disks = [(str(directory / "ro.img"), os.O_RDONLY), (str(directory / "rw.img"), os.O_RDWR)]
        kinds = {name for name in jails.KINDS if name != "net" or "--net" in process.args}
        assert sorted(name for name, _ in found) == sorted([*kinds, "block", *jails.HELPERS])
        vmm.wait_until(lambda: all("2" == jails.status(task)["Seccomp"] for task in jails.tasks(process.pid)))
        for name, pid in found:
            manifest = jails.manifest(name, disks.pop(0) if name == "block" else None)
            jails.check_jail(pid, process.pid, manifest, caller)
        for namespace in ("user", "pid", "mnt", "net"):
            assert len({jails.namespaces(pid)[namespace] for _, pid in found}) == len(found)
        jails.check_main(process.pid)


def test_a_stopped_device_ends_with_the_main_process(tmp_path):
    """J18, each kind. One that the kernel did not kill would stay for ever."""
    with jails.machine(tmp_path, "rest") as process:
        pids = [pid for _, pid in jails.processes(process.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait()
        vmm.wait_until(lambda: vmm.descendants() == [])


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(running, signal_number):
    """However the main process ends."""
    assert len(vmm.device_processes(running.pid)) == 2
    running.send_signal(signal_number)
    running.wait(10)
    vmm.wait_until(lambda: vmm.descendants() == [])


def traces(place):
    """Where something may be left: mounts, links, shared memory, files."""
    files = {str(path) for path in place.rglob("*") if not path.is_socket()}
    links = {name for _, name in socket.if_nameindex()}
    return {*pathlib.Path("/proc/mounts").read_text().splitlines(), *os.listdir("/dev/shm"), *files, *links}


def test_killed_at_any_moment(tmp_path):
    """The main process dies somewhere between its start and its guest's second second. `make soak`: 500 times.

    What stays are its sockets, since nobody is there to remove them: the next VM takes their places.
    """
    random_ = random.Random(4)
    is_root = os.geteuid() == 0 and os.path.exists("/dev/net/tun")
    card = ("--net", "host-ip=192.168.79.1,netmask=255.255.255.0,vhost=off") if is_root else ()
    argv = jails.command(tmp_path, "load", *card, "-s", str(tmp_path / "vm.sock"), "-b",
                         f"path={tmp_path}/ro.img,snapshot")
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    with own_network() if is_root else contextlib.nullcontext(), jails.compositor(tmp_path):
        before = traces(tmp_path)
        for _ in range(500 if SOAK else 15):
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, env=environment)
            time.sleep(random_.uniform(0, 2 if SOAK else 0.2))
            process.kill()
            process.wait()
            vmm.wait_until(lambda: vmm.descendants() == [])
            vmm.wait_until(lambda: traces(tmp_path) <= before)
            sockets = {path.name for path in tmp_path.rglob("*") if path.is_socket()}
            assert sockets <= {"vm.sock", "vsock", "wayland-0"}
        with vmm.started(argv, until=b"serving", env=environment) as process:
            assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK
        assert not (tmp_path / "vm.sock").exists() and not (tmp_path / "vsock").exists()


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
    control = str(tmp_path / "vm.sock")
    for _ in range(20 if SOAK else 1):
        with serving(case, "-s", control) as process:
            victim = device(process, kind)
            start = time.monotonic()
            os.kill(victim, signal.SIGSTOP)
            while process.poll() is None and time.monotonic() - start < 3:
                asked = time.monotonic()
                assert vmm.run([vmm.CROSVM, "status", control]).returncode == 0
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


def test_bad_words():
    done = vmm.run([vmm.CROSVM, "run", "-u", "--jail", "loose", vmm.guest("hang")])
    assert done.returncode == vmm.USAGE
    assert "neither strict nor best-effort" in done.stderr
