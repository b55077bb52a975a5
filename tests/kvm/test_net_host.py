# SPDX-License-Identifier: BSD-3-Clause
"""What the network device does on the host before a guest speaks to it: descriptors of taps, the start of passt."""
import fcntl
import os
import pathlib
import shutil
import socket
import struct

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
        taps = taps_of(process.pid)
        assert list(taps.values()) == [True]
        assert tap not in taps


def test_a_tap_is_given_once(tap):
    done = vmm.run(vmm.command("hang", None, "--net", f"tap-fd={tap}", "--net", f"tap-fd={tap}"), pass_fds=[tap])
    assert done.returncode == vmm.HOST
    assert f"tap-fd={tap} is not the descriptor of a tap" in done.stderr


@pytest.mark.parametrize("jailed", [[], ["-u"]], ids=["threads", "jailed"])
@pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not installed")
def test_a_passt_that_does_not_start_ends_the_vm(jailed):
    """It starts while the VM does; its own message says why it could not, and the guest does not run on without."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        forward = f"forward=tcp:127.0.0.1:{taken.getsockname()[1]}-:80"
        done = vmm.run(vmm.command("hang", None, *jailed, "--net", f"user,{forward}"))
    assert done.returncode == vmm.HOST, done.stderr
    assert "device net: its program did not start" in done.stderr
    assert "bind" in done.stderr or "interface" in done.stderr
