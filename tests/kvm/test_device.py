# SPDX-License-Identifier: BSD-3-Clause
"""crosvm device: a device alone, in the jail that it has with -u; and policies from a directory, for both."""
import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import front_end
import jails
import pytest
import test_foreign
import test_hostile_start
import vmm

pytestmark = [pytest.mark.skipif(vmm.SANITIZED, reason="a sanitizer build, whose policies only log")]
POLICIES = vmm.ROOT / "seccomp/x86_64"


def only_child(back_end):
    (name, pid), = vmm.device_processes(back_end.pid).items()
    return name, pid


@contextlib.contextmanager
def spec(name, place):
    """(what it is, descriptors to pass, the disk's descriptor)"""
    if name == "net":
        if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
            pytest.skip("needs root and /dev/net/tun")
        with jails.network() as ((_, card), fds):
            yield [card], fds, None
    elif name == "block":
        disk = place / "disk.img"
        disk.write_bytes(bytes(1 << 20))
        yield [f"path={disk}"], (), (str(disk), os.O_RDWR)
    else:
        yield {"vsock": [f"cid=42,socket={place / 'vsock'}"], "balloon": ["reporting"], "rng": [],
               "wl": [place / "wayland-0"]}[name], (), None


@pytest.mark.no_kvm
@pytest.mark.parametrize("name", jails.KINDS)
def test_jailed(tmp_path, name):
    """And the helpers."""
    path = tmp_path / "sock"
    with spec(name, tmp_path) as (words, fds, disk), \
            vmm.started([vmm.CROSVM, "device", name, "--socket-path", path, *words], pass_fds=fds) as back_end:
        test_foreign.wait_for_socket(path, back_end)
        found = vmm.device_processes(back_end.pid)
        assert set(found) == {name, f"{name}-to"} & {name, *jails.HELPERS}
        for kind, pid in found.items():
            # One socket, of the pair with its parent: it has no listener.
            jails.check_jail(pid, back_end.pid, jails.manifest(kind, disk, memory=False), guest=False)
        jails.check_apart(back_end.pid)


@pytest.mark.no_kvm
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_end(tmp_path, signal_number):
    path = tmp_path / "sock"
    with test_foreign.device("rng", path) as back_end:
        pid = only_child(back_end)[1]
        assert vmm.end_by(back_end, signal_number)[0] == vmm.OK
    assert not os.path.exists(f"/proc/{pid}") and not path.exists()


@pytest.mark.no_kvm
@pytest.mark.parametrize("closed", [(2,), (0, 2), (0, 1, 2)])
def test_closed_descriptors(tmp_path, closed):
    """No file becomes stderr: what is logged does not go into the disk."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))

    def close_them():
        for number in closed:
            os.close(number)
    with vmm.started([vmm.CROSVM, "device", "block", "--socket-path", tmp_path / "sock", disk],
                     preexec_fn=close_them) as back_end:
        test_foreign.wait_for_socket(tmp_path / "sock", back_end)
        for number in range(3):
            name = os.readlink(f"/proc/{back_end.pid}/fd/{number}")
            assert (name == "/dev/null") == (number in closed or number == 0), name
        os.kill(only_child(back_end)[1], signal.SIGKILL)  # which is logged
        assert back_end.wait(10) == vmm.HOST
    assert disk.read_bytes() == bytes(1 << 20)


@pytest.mark.no_kvm
def test_killed(tmp_path):
    """Nothing is left but the socket, which the next one replaces."""
    path = tmp_path / "sock"
    for _ in range(2):
        with test_foreign.device("rng", path) as back_end:
            vmm.wait_until(lambda: vmm.device_processes(back_end.pid))
            pid = only_child(back_end)[1]
            # Before its jail is complete, a stopped process does not hear of its parent's end.
            vmm.wait_until(lambda: vmm.status_number(pid, "Seccomp") == 2)
            os.kill(pid, signal.SIGSTOP)
            back_end.kill()
            back_end.wait()
            vmm.wait_until(lambda: vmm.descendants() == [])


@pytest.mark.no_kvm
def test_dead_device(tmp_path):
    path = tmp_path / "sock"
    argv = [vmm.CROSVM, "device", "rng", "--socket-path", path]
    with vmm.started(argv) as back_end:
        test_foreign.wait_for_socket(path, back_end)
        pid = only_child(back_end)[1]
        os.kill(pid, signal.SIGKILL)
        assert back_end.wait(5) == vmm.HOST
        assert back_end.stderr.read().decode() == f"crosvm: device rng: its process {pid} was ended by signal 9 (Killed)\n"
    assert not path.exists()


# ---- front ends that keep a device, and devices that take what they do not serve ----

SET_VRING_ERR = 14


def full_pipe():
    """Whose other end is not read; both."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write, bytes(4096))
    return read, write


def full_event():
    """As an eventfd of a front end may be that waits for it in a read()."""
    event = os.eventfd(0)
    os.write(event, struct.pack("=Q", 2**64 - 2))
    return (event,)


class KeepingFrontEnd(front_end.FrontEnd):
    """Of an entropy device, which is not let go of."""

    def __init__(self, path, make_full):
        self.fds = make_full()
        super().__init__(path, 1)

    def close(self):
        super().close()
        self.socket.close()

    def make_call(self):
        return os.fdopen(os.dup(self.fds[-1]), "wb", buffering=0)

    def keep_queue(self):
        """Its thread calls."""
        self.offer(0, b"entropy")
        used = front_end.PAGE * 3
        vmm.wait_until(lambda: struct.unpack_from("<H", self.memory, used + 2)[0] == 1)

    def keep_device(self):
        """It tells of a ring that cannot start."""
        self.send(SET_VRING_ERR, struct.pack("<Q", 0), [self.fds[-1]])
        self.send(front_end.SET_VRING_ADDR, struct.pack("<IIQQQQ", 0, 0, 1 << 40, 1 << 40, 1 << 40, 0))


@pytest.mark.no_kvm
@pytest.mark.parametrize("keep", [KeepingFrontEnd.keep_queue, KeepingFrontEnd.keep_device])
@pytest.mark.parametrize("make_full", [full_pipe, full_event])
def test_front_end_that_keeps_the_device(tmp_path, keep, make_full):
    """By what it shall write to: once that one has gone, it ends, and does not leave the next one without an answer."""
    path = tmp_path / "sock"
    with test_foreign.device("rng", path, stderr=subprocess.PIPE) as back_end:
        front = KeepingFrontEnd(path, make_full)
        keep(front)
        time.sleep(0.1)
        assert back_end.poll() is None
        front.close()
        assert back_end.wait(10) == vmm.HOST
        assert back_end.stderr.read() == b"crosvm: device rng: its process does not let go of a front end that has gone, and is killed\n"
    assert not path.exists()


@pytest.mark.no_kvm
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take the device's sockets")
def test_device_that_asks_for_more_front_ends_than_it_takes(tmp_path):
    path = tmp_path / "sock"
    with test_foreign.device("rng", path, stderr=subprocess.PIPE) as back_end, contextlib.ExitStack() as stack:
        pid = only_child(back_end)[1]
        asking, = jails.sockets_of(pid)
        os.kill(pid, signal.SIGSTOP)
        with contextlib.suppress(OSError):  # until it has ended
            for _ in range(800):
                stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
                asking.send(b"\1")
        assert back_end.wait(10) == vmm.HOST
        assert b"its process does not take a front end that it asked for, and is killed" in back_end.stderr.read()


@pytest.mark.no_kvm
def test_taken_path(tmp_path):
    """One line says it, and the file stays."""
    path = tmp_path / "sock"
    path.write_text("text")
    done = vmm.run([vmm.CROSVM, "device", "rng", "--socket-path", path])
    assert done.returncode == vmm.HOST
    assert "exists and is not a socket" in done.stderr and done.stderr.count("\n") == 1
    assert path.read_text() == "text"


# ---- the helper that connects to sockets: of vsock with socket=, and of wl ----

# The device, its option, and what it makes in the sockets' directory.
HELPED = [("vsock", ("--vsock", "cid=42,socket={}/sock"), ["sock"]), ("wl", ("--wayland-sock", "{}/sock"), [])]


def helped_argv(tmp_path, words):
    return vmm.command("hang", None, "-u", *(word.format(tmp_path) for word in words))


@pytest.mark.parametrize("kind, words, made", HELPED)
def test_helper(tmp_path, kind, words, made):
    """It sees the directory of the sockets and can change nothing there; the device sees nothing.

    What else a helper has and has not: test_multiprocess.py.
    """
    (tmp_path / "beside").write_text("text")
    with vmm.started(helped_argv(tmp_path, words), until=b"hanging") as process:
        pids = vmm.device_processes(process.pid)
        assert set(pids) == {kind, f"{kind}-to", "rng"}
        helper = pids[f"{kind}-to"]
        assert sorted(os.listdir(f"/proc/{helper}/root/")) == ["beside", *made]
        for line in pathlib.Path(f"/proc/{helper}/mountinfo").read_text().splitlines():
            assert "ro,nosuid,nodev,noexec" in line
        assert os.listdir(f"/proc/{pids[kind]}/root/") == []
        with pytest.raises(OSError, match="Read-only file system"):
            os.open(f"/proc/{helper}/root/beside", os.O_WRONLY)
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK
    assert os.listdir(tmp_path) == ["beside"]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids.values())


@pytest.mark.skipif(os.geteuid() != 0, reason="makes another user's directory")
@pytest.mark.parametrize("kind, words, made", HELPED)
def test_helper_in_the_directory_of_a_user(tmp_path, kind, words, made):
    """Root's helper is that user there: to root without capabilities the directory is closed."""
    session = tmp_path / "session"
    session.mkdir(mode=0o700)
    os.chown(session, 65534, 65533)
    with vmm.started(helped_argv(session, words), until=b"hanging") as process:
        helper = vmm.device_processes(process.pid)[f"{kind}-to"]
        assert os.listdir(f"/proc/{helper}/root/") == made
        fields = jails.status(helper)
        assert fields["Uid"].split() == ["65534"] * 4 and fields["Gid"].split() == ["65533"] * 4
        assert fields["Groups"].split() == []
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK


@pytest.mark.parametrize("kind, words, made", HELPED)
def test_a_dead_helper_ends_the_vm(tmp_path, kind, words, made):
    """Else each connection of the guest's would be refused, and nobody would know why."""
    with vmm.started(helped_argv(tmp_path, words), until=b"hanging") as process:
        helper = vmm.device_processes(process.pid)[f"{kind}-to"]
        os.kill(helper, signal.SIGKILL)
        status, said = process.wait(10), process.stderr.read().decode()
    assert status == vmm.DEVICE
    assert f"device {kind}-to: its process {helper} was ended by signal 9" in said


def test_sockets_in_two_directories(tmp_path):
    """A jailed device has one; in threads any are fine."""
    words = ("--wayland-sock", "/one/wayland-0", "--wayland-sock", "/two/wayland-0,name=second")
    done = vmm.run(vmm.command("hang", None, "-u", *words))
    assert done.returncode == vmm.HOST
    assert "'/one/wayland-0' and '/two/wayland-0' lie in two directories" in done.stderr
    assert done.stderr.count("\n") == 1 + done.stderr.count("no compositor at") == 3
    with vmm.started(vmm.command("hang", None, *words), until=b"hanging") as process:
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK


@pytest.mark.no_kvm
@pytest.mark.parametrize("words, says", [
    ((), "no socket; pass that of a Wayland compositor"),
    (("/etc/passwd",), "'/etc/passwd' is no socket"),
    (("/nowhere,id=63",), "that is for 'crosvm run'"),
    (("/nowhere", "/elsewhere"), "one argument too many"),
])
def test_no_compositor(tmp_path, words, says):
    done = vmm.run([vmm.CROSVM, "device", "wl", "--socket-path", tmp_path / "sock", *words])
    assert done.returncode == vmm.USAGE and says in done.stderr
    assert done.stderr.count("\n") == 1 + done.stderr.count("no compositor at")
    assert os.listdir(tmp_path) == []


def test_a_dead_helper_ends_the_server(tmp_path):
    argv = [vmm.CROSVM, "device", "vsock", "--socket-path", tmp_path / "sock", f"cid=42,socket={tmp_path / 'vsock'}"]
    with vmm.started(argv) as process:
        vmm.wait_until(lambda: os.path.exists(tmp_path / "sock"))
        helper = vmm.device_processes(process.pid)["vsock-to"]
        os.kill(helper, signal.SIGKILL)
        status, said = process.wait(10), process.stderr.read().decode()
    assert status == vmm.HOST, said
    assert f"its process {helper} was ended by signal 9" in said


# ---- --seccomp-policy-dir ----

@pytest.fixture
def policies(tmp_path):
    return pathlib.Path(shutil.copytree(POLICIES, tmp_path / "policies"))


def device_argv(tmp_path, policies):
    return [vmm.CROSVM, "device", "rng", "--seccomp-policy-dir", policies, "--socket-path", tmp_path / "sock"]


def run_argv(_, policies):
    return vmm.command("hang", None, "-u", "--seccomp-policy-dir", str(policies))


@pytest.mark.no_kvm
@pytest.mark.parametrize("argv", [device_argv, run_argv])
def test_wrong_policies(tmp_path, policies, argv):
    """With file and line, before there is any process."""
    path = policies / "rng_device.policy"
    lines = path.read_text().count("\n")
    path.write_text(path.read_text() + "raed: 1\n")
    done = vmm.run(argv(tmp_path, policies))
    assert done.returncode == vmm.HOST
    assert done.stderr == f"crosvm: --seccomp-policy-dir: {path}:{lines + 1}: x86_64 has no system call 'raed'\n"
    path.unlink()
    done = vmm.run(argv(tmp_path, policies))
    assert done.returncode == vmm.HOST
    assert f"{path}: cannot read '" in done.stderr and done.stderr.count("\n") == 1


def forbid_getrandom(policies):
    """What the guest asks an entropy device for."""
    path = policies / "rng_device.policy"
    path.write_text(re.sub(r"(?m)^getrandom: 1.*$", "", path.read_text()))


def test_policies_are_taken(policies):
    """What the guest does on them, and that it dies on one that forbids it."""
    forbid_getrandom(policies)
    argv = vmm.command("hostile_dev", "rng", "-u", "--rng", "--seccomp-policy-dir", str(policies), params="victim=rng")
    done = vmm.run(argv, input=b"xx")
    assert "PASS" not in done.stdout
    assert re.search(r"device rng: its process \d+ was ended by signal 31 \(Bad system call\); it made a system call "
                     r"that it may not", done.stderr), done.stderr


# ---- --seccomp-log-failures ----

SYS_GETRANDOM, LOGGED = 318, "0x7ffc0000"


@contextlib.contextmanager
def entropy_of_run(_, options):
    """(crosvm that runs a guest which asks for entropy all the time, the parent of the device)"""
    with vmm.started(vmm.command("load", "load", "-u", *options), until=b"serving") as process:
        yield process, process


@contextlib.contextmanager
def entropy_alone(place, options):
    with test_foreign.device("rng", place / "sock", *options) as back_end, \
            vmm.started(vmm.command("load", "load", "--vhost-user", f"type=rng,socket={place / 'sock'}"), until=b"serving") as process:
        yield process, back_end


@contextlib.contextmanager
def kernels_log():
    """From now on; None where this process may not read it, or such lines go elsewhere."""
    logged = pathlib.Path("/proc/sys/kernel/seccomp/actions_logged").read_text().split()
    auditless = "audit=0" in pathlib.Path("/proc/cmdline").read_text().split()
    if auditless or os.path.exists("/run/auditd.pid") or "log" not in logged:
        yield None
        return
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    os.lseek(log, 0, os.SEEK_END)
    yield log
    os.close(log)


def says(log, line):
    """Whether the kernel has just said so; of many such lines it drops some."""
    found = False
    with contextlib.suppress(BlockingIOError):
        while not found:
            try:
                found = re.search(line, os.read(log, 8192)) is not None
            except BrokenPipeError:  # some were overwritten
                continue
    return found


@pytest.mark.parametrize("devices", [entropy_of_run, entropy_alone])
def test_logged_failures(tmp_path, policies, devices):
    """A forbidden call is made, and the kernel's log has the device and the number."""
    forbid_getrandom(policies)
    line = rf'type=1326 .*comm="crosvm-rng" .*sig=0 .*syscall={SYS_GETRANDOM} .*code={LOGGED}'.encode()
    with kernels_log() as log, \
            devices(tmp_path, ["--seccomp-log-failures", "--seccomp-policy-dir", str(policies)]) as (process, parent):
        pid = vmm.device_processes(parent.pid)["rng"]
        if log is not None:
            vmm.wait_until(lambda: says(log, line), timeout=20)
        assert parent.poll() is None and os.path.exists(f"/proc/{pid}")
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK


# ---- --jail, --rng ----

@pytest.mark.no_kvm
def test_bad_jail(tmp_path):
    done = vmm.run([vmm.CROSVM, "device", "rng", "--jail", "loose", "--socket-path", tmp_path / "sock"])
    assert done.returncode == vmm.USAGE
    assert "neither strict nor best-effort" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.no_kvm
@pytest.mark.parametrize("how", ["strict", "best-effort"])
def test_jail_of_a_host_that_refuses_nothing(tmp_path, how):
    """The same for both."""
    with test_foreign.device("rng", tmp_path / "sock", "--jail", how, stderr=subprocess.PIPE) as back_end:
        jails.check_jail(only_child(back_end)[1], back_end.pid, jails.manifest("rng", memory=False), guest=False)
        vmm.end_by(back_end, signal.SIGTERM)
        assert back_end.stderr.read() == b""


def test_jail_without_user_namespaces(tmp_path):
    """Strict, it does not start; with the best effort it serves, and says what is missing."""
    path = tmp_path / "sock"
    off = test_hostile_start.without_user_namespaces()
    strict = vmm.run([*off, vmm.CROSVM, "device", "rng", "--socket-path", path])
    assert strict.returncode == vmm.HOST and "max_user_namespaces" in strict.stderr
    argv = [*off, vmm.CROSVM, "device", "rng", "--jail", "best-effort", "--socket-path", path]
    with test_foreign.running(argv, path, stderr=subprocess.PIPE) as back_end:
        done = vmm.run(vmm.command("hostile_dev", "flood", "--vhost-user", f"type=rng,socket={path}", params="victim=rng"),
                       input=b"xx")
        assert "PASS flood" in done.stdout, done.stderr
        assert vmm.end_by(back_end, signal.SIGTERM)[0] == vmm.OK
        assert b"its jail lacks: user namespace" in back_end.stderr.read()


@pytest.mark.parametrize("jailed", [[], ["-u"]], ids=["threads", "jailed"])
def test_second_entropy_device(jailed):
    """Besides the one that each VM has, which the guest finds too few."""
    done = vmm.run(vmm.command("hostile_dev", "flood", *jailed, "--rng", params="victim=rng"), input=b"xx")
    assert "PASS flood" in done.stdout, done.stderr
    with vmm.started(vmm.command("hang", None, "--rng", "-u"), until=b"hanging") as process:
        assert [name for name, _ in vmm.processes(process.pid)] == ["rng", "rng"]
