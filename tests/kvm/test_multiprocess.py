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

pytestmark = pytest.mark.skipif(vmm.SANITIZED, reason="a sanitizer build, whose policies only log")
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
        found = vmm.processes(process.pid)
        disks = [(str(directory / "ro.img"), os.O_RDONLY), (str(directory / "rw.img"), os.O_RDWR)]
        kinds = {name for name in jails.KINDS if name != "net" or "--net" in process.args}
        assert sorted(name for name, _ in found) == sorted([*kinds, "block", *jails.HELPERS])
        vmm.wait_until(lambda: all("2" == jails.status(task)["Seccomp"] for task in jails.tasks(process.pid)))
        for name, pid in found:
            manifest = jails.manifest(name, disks.pop(0) if name == "block" else None)
            sibling = next(other for _, other in found if other != pid)
            jails.check_jail(pid, process.pid, manifest, caller, sibling=sibling)
        for namespace in ("user", "pid", "mnt", "net"):
            assert len({jails.namespaces(pid)[namespace] for _, pid in found}) == len(found)
        jails.check_main(process.pid)


@pytest.mark.parametrize("options", [["-b", "disk"], ["-b", "disk", "--net", "user"]], ids=["disk", "passt"])
def test_a_start_that_is_refused_waits_for_no_device(tmp_path, options):
    """They were not released yet, and hear nobody; each has the sockets of those before it."""
    if "--net" in options and shutil.which("passt") is None:
        pytest.skip("passt is not installed")
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    (tmp_path / "kernel").write_text("a text\n")
    done = vmm.run([vmm.CROSVM, "run", "-u", *options, "kernel"], cwd=tmp_path)
    assert done.returncode == vmm.IMAGE
    assert done.stderr.count("crosvm: ") == 1 and "'kernel'" in done.stderr, done.stderr


def test_a_stopped_device_ends_with_the_main_process(tmp_path):
    """J18, each kind. One that the kernel did not kill would stay for ever."""
    with jails.machine(tmp_path, "rest") as process:
        pids = [pid for _, pid in vmm.processes(process.pid)]
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


def device(process, kind):
    """The last of its kind."""
    found = vmm.device_processes(process.pid)
    if kind not in found:
        pytest.skip("neither root nor passt, so no network card")
    return found[kind]


@pytest.mark.parametrize("case", ["rest", "load"])
@pytest.mark.parametrize("kind", [*jails.KINDS, *jails.HELPERS])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_dead_device_ends_the_vm(tmp_path, kind, case, how):
    """Within a second, with a status and a line of their own."""
    if how != signal.SIGKILL and os.geteuid() != 0:
        pytest.skip("only root can write into a device's process")
    if kind in jails.HELPERS and not SOAK and case == "load":
        pytest.skip("a helper is idle then, too; the long form does it")
    for _ in range(20 if SOAK else 1):
        with jails.machine(tmp_path, case) as process:
            victim = device(process, kind)
            if how == signal.SIGKILL:
                os.kill(victim, how)
            else:  # its own: the first of a pid namespace is deaf for those that others send
                jails.run_code(victim, b"\x31\xc0\x88\x00")  # xor %eax, %eax; mov %al, (%rax)
            start = time.monotonic()
            assert process.wait(10) == vmm.DEVICE
            seconds, said = time.monotonic() - start, process.stderr.read().decode()
        assert seconds < 3.9, said  # far less than 1, but for a busy machine; 4 would be a credit waited for
        assert f"device {kind}: its process {victim} was ended by signal {how.value} (" in said
        assert "crosvm: the process of a device was lost" in said


# VMs at the same time, since each takes its 4 s.
TRIPLES = [(("block", "load"), ("net", "rest"), ("wl", "rest")), (("balloon", "rest"), ("vsock", "rest"), ("rng", "rest"))]
OTHER_TRIPLES = [(("block", "rest"), ("net", "load"), ("wl", "load")), (("balloon", "load"), ("vsock", "load"), ("rng", "load"))]


@pytest.mark.parametrize("triple", [*TRIPLES, *(OTHER_TRIPLES if SOAK else [])], ids=str)
def test_a_stopped_device_ends_the_vm(tmp_path, triple):
    """It is found within 5 s, and meanwhile the control socket answers."""
    for _ in range(20 if SOAK else 1):
        with contextlib.ExitStack() as stack:
            machines = []
            for kind, case in triple:
                (tmp_path / kind).mkdir(exist_ok=True)
                control = str(tmp_path / kind / "vm.sock")
                process = stack.enter_context(jails.machine(tmp_path / kind, case, "-s", control))
                machines.append((process, kind, device(process, kind), control))
            start = time.monotonic()
            for _, _, victim, _ in machines:
                os.kill(victim, signal.SIGSTOP)
            while time.monotonic() - start < 3:
                for process, _, _, control in machines:
                    asked = time.monotonic()
                    answer = vmm.run([vmm.CROSVM, "status", control])
                    assert answer.returncode == 0 or process.wait(5) == vmm.DEVICE, answer.stderr
                    assert time.monotonic() - asked < 3
                time.sleep(0.5)
            for process, kind, victim, _ in machines:
                assert process.wait(10) == vmm.DEVICE
                said = process.stderr.read().decode()
                assert f"device {kind}: its process {victim} was" in said or f"{kind}: the device's process did not" in said
            assert time.monotonic() - start < 8  # 4, and what a busy machine takes


@pytest.mark.parametrize("case", ["rest", "load"])
def test_a_device_may_be_stopped_for_a_while(tmp_path, case):
    """For less than 4 s."""
    with jails.machine(tmp_path, case) as process:
        for signal_number in (signal.SIGSTOP, signal.SIGCONT):
            for _, victim in vmm.processes(process.pid):
                os.kill(victim, signal_number)
            time.sleep(0.5)
        time.sleep(0 if case == "load" else 3.5)
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
