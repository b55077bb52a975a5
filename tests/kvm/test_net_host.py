# SPDX-License-Identifier: BSD-3-Clause
"""What network cards and vsock do on the host before a guest speaks to them: descriptors of taps, what a host refuses."""
import fcntl
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess

import pytest
import vmm
from netns import own_network

TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454ca, 0x2, 0x1000, 0x4000


@pytest.fixture
def tap():
    """The descriptor of a tap in a network namespace of its own, which the test leaves again."""
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root and /dev/net/tun")
    with own_network():
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"given0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        yield fd
        os.close(fd)


def taps_of(pid):
    """{number: closed in programs that are started?} of a process's descriptors of taps."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("/dev/net/tun"):
            info = pathlib.Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
            flags = int(info.partition("flags:")[2].split()[0], 8)
            found[int(fd)] = bool(flags & os.O_CLOEXEC)
    return found


def test_a_given_tap_is_taken_over(tap):
    """No second descriptor of it stays, which passt, or another program that is started, would inherit."""
    argv = vmm.command("hang", None, "--net", f"tap-fd={tap},vhost=off")
    with vmm.started(argv, until=b"hanging", pass_fds=[tap]) as process:
        vmm.wait_until_started(process.pid)
        taps = taps_of(process.pid)
        assert list(taps.values()) == [True]
        assert tap not in taps


def test_a_tap_is_given_once(tap):
    done = vmm.run(vmm.command("hang", None, "--net", f"tap-fd={tap}", "--net", f"tap-fd={tap}"), pass_fds=[tap])
    assert done.returncode == vmm.HOST
    assert f"tap-fd={tap} is not the descriptor of a tap" in done.stderr


def with_passt(directory, script):
    """A PATH in which this is passt."""
    program = directory / "passt"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}


@pytest.mark.parametrize("jailed", [[], ["-u"]], ids=["threads", "jailed"])
def test_a_passt_that_does_not_start_ends_the_vm(tmp_path, jailed):
    """It starts while the VM does; its own message says why it could not, and the guest does not run on without."""
    done = vmm.run(vmm.command("hang", None, *jailed, "--net", "user"),
                   env=with_passt(tmp_path, "echo no template interface; exit 1"))
    assert done.returncode == vmm.HOST, done.stderr
    assert "device net: its program did not start" in done.stderr
    assert "no template interface" in done.stderr


@pytest.mark.parametrize("kind, host, forwarded", [
    ("tcp", "127.0.0.1", ""),  # passt would take it for IPv6 alone
    ("tcp", "127.0.0.1", "127.0.0.1"),
    ("tcp", "::1", ""),
    ("tcp", "::1", "[::1]"),
    ("udp", "127.0.0.1", ""),
    ("udp", "::1", "[::1]"),
])
def test_a_port_that_is_taken(tmp_path, kind, host, forwarded):
    """Refused before passt is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as taken:
        try:
            taken.bind((host, 0))
        except OSError:
            pytest.skip("this host has no IPv6")
        if kind == "tcp":
            taken.listen()
        port = taken.getsockname()[1]
        done = vmm.run(vmm.command("hang", None, "--net", f"user,forward={kind}:{forwarded}:{port}-:80"),
                       env=with_passt(tmp_path, "echo started"))
    assert done.returncode == vmm.HOST
    assert f"net: cannot forward {kind} port {port} of " in done.stderr and "another program has it" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_of_another_host(tmp_path):
    done = vmm.run(vmm.command("hang", None, "--net", "user,forward=tcp:192.0.2.1:8080-:80"),
                   env=with_passt(tmp_path, "echo started"))
    assert done.returncode == vmm.HOST
    assert "tcp port 8080 of 192.0.2.1: " in done.stderr and "no such address" in done.stderr


def test_a_port_that_is_free(tmp_path):
    """And one whose last connection has ended a moment ago; it is free for passt again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            listener.accept()[0].close()
    program = f"python3 -c 'import socket; socket.create_server((\"127.0.0.1\", {port})); print(\"bound\")'; exit 1"
    done = vmm.run(vmm.command("hang", None, "--net", f"user,forward=tcp::{port}-:80"), env=with_passt(tmp_path, program))
    assert "bound" in done.stderr + done.stdout
    assert "its program did not start" in done.stderr


@pytest.mark.parametrize("script, says", [
    ("echo unknown option >&2; exit 1", "this passt is too old for vhost=on"),
    ("exit 0", "net's program does not answer by vhost-user"),
    # It is not waited for longer than a device has credit.
    ('[ "$1" = --print-capabilities ] || exec sleep 1000', "net's program does not answer by vhost-user: Connection timed out"),
])
def test_a_passt_that_serves_no_rings_ends_the_vm(tmp_path, script, says):
    done = vmm.run(vmm.command("hang", None, "--net", "user,vhost"), env=with_passt(tmp_path, script))
    assert done.returncode == vmm.HOST
    assert says in done.stderr
    assert "unknown option" not in done.stderr


def is_nobodys(path):
    """Whether the process whose id is in the file has become another user's; root looks into /proc as well while it changes."""
    pid = path.read_text().strip() if path.exists() else ""
    return pid != "" and os.stat(f"/proc/{pid}").st_uid == 65534


def test_a_passt_that_cannot_be_ended_holds_nobody(tmp_path):
    """Root's is another user's by then. Here it only stands still."""
    if os.geteuid() != 0 or vmm.SANITIZED:
        pytest.skip("an ordinary user, and a sanitizer build, which keeps its rights, may end its own")
    script = f"echo $$ > {tmp_path}/pid; exec setpriv --reuid 65534 --clear-groups sleep 1000"
    with vmm.started(vmm.command("hang", None, "--net", "user"), until=b"hanging", env=with_passt(tmp_path, script)) as process:
        vmm.wait_until(lambda: is_nobodys(tmp_path / "pid"))
        try:
            assert vmm.end_by(process, signal.SIGTERM, timeout=20)[0] == vmm.OK
        finally:
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        assert "passt does not end, and cannot be ended" in process.stderr.read().decode()


def test_what_another_program_serves_is_no_device_alone(tmp_path):
    done = vmm.run([vmm.CROSVM, "device", "net", "user,vhost", "--socket-path", str(tmp_path / "socket")])
    assert done.returncode == vmm.USAGE
    assert "another program would serve it" in done.stderr


# ---- what a host refuses: one line, the cause and the cure -------------------------------------------

ADDRESS = "host-ip=192.168.79.1,netmask=255.255.255.0"
STRACE = pytest.mark.skipif(shutil.which("strace") is None or vmm.SANITIZED,
                            reason="strace is not installed, or LeakSanitizer cannot work under it")
ROOT = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/net/tun"), reason="needs root and /dev/net/tun")


def assert_refused(done, *says):
    assert done.returncode == vmm.HOST, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("crosvm: ") and done.stderr.count("\n") == 1, done.stderr
    for text in says:
        assert text in done.stderr


def failing(tmp_path, path, fault, *options):
    """A start during which a system call on this file fails."""
    call = fault.partition(":")[0]
    return vmm.run(["strace", "-f", "-qq", "-o", str(tmp_path / "strace"), "-P", path, "-e", f"trace={call}", "-e",
                    f"inject={fault}", "--", *vmm.command("hang", None, *options)])


@STRACE
@pytest.mark.parametrize("path, error, options, says", [
    ("/dev/net/tun", "EACCES", ["--net", "tap-name=tap0"], ["Permission denied", "--net user"]),
    ("/dev/net/tun", "EPERM", ["--net", ADDRESS], ["Operation not permitted", "--net user"]),
    ("/dev/net/tun", "ENOENT", ["--net", ADDRESS], ["No such file", "modprobe tun"]),
    ("/dev/vhost-vsock", "ENOENT", ["--cid", "42"], ["No such file", "modprobe vhost_vsock", "--vsock cid=N,socket=PATH"]),
    ("/dev/vhost-vsock", "EACCES", ["--cid", "42"], ["Permission denied", "group kvm", "--vsock cid=N,socket=PATH"]),
])
def test_a_device_file_that_is_not_to_be_had(tmp_path, path, error, options, says):
    assert_refused(failing(tmp_path, path, f"openat:error={error}", *options), f"cannot open {path}: ", *says)


@ROOT
@STRACE
@pytest.mark.parametrize("fault, says", [
    ("ioctl:error=EPERM:when=1", ["cannot attach to a new tap", "CAP_NET_ADMIN", "ip tuntap add", "--net user"]),
    ("ioctl:error=EBUSY:when=1", ["another program has it open", "another tap-name"]),
    ("ioctl:error=EINVAL:when=1", ["it is no tap", "multi_queue"]),
    ("ioctl:error=EINVAL:when=2", ["tap vmtap0: cannot set its header's size"]),
])
def test_a_tap_that_is_refused(tmp_path, fault, says):
    with own_network():
        assert_refused(failing(tmp_path, "/dev/net/tun", fault, "--net", ADDRESS), *says)


@ROOT
def test_a_tap_of_ones_own_has_no_address_by_us():
    """Who may use a tap may not set its address; really refused, by the kernel."""
    with own_network():
        subprocess.run(["ip", "tuntap", "add", "mine", "mode", "tap", "user", "root"], check=True)
        weak = ["setpriv", "--bounding-set=-net_admin"]
        assert_refused(vmm.run([*weak, *vmm.command("hang", None, "--net", f"tap-name=mine,{ADDRESS}")]),
                       "tap mine: cannot set its address", "CAP_NET_ADMIN", "--net user")
        assert_refused(vmm.run([*weak, *vmm.command("hang", None, "--net", ADDRESS)]),
                       "cannot attach to a new tap", "CAP_NET_ADMIN", "--net user")


@ROOT
@STRACE
def test_without_vhost_net(tmp_path):
    with own_network():
        assert_refused(failing(tmp_path, "/dev/vhost-net", "openat:error=ENOENT", "--net", f"{ADDRESS},vhost=on"),
                       "cannot open /dev/vhost-net: No such file", "modprobe vhost_net", "vhost=auto")
