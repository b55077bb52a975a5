# SPDX-License-Identifier: BSD-3-Clause
"""When a VM has a wayland device, which one, and which specifications are refused: no guest here uses it.

tests/vm/test_wl.py has windows, test_hostile_wl.py a driver that breaks the rules.
"""
import os
import re
import socket

import pytest
import test_foreign
import vmm

ID_FIRST, ID_LATER = 0x105e, 0x107f
# The longest that there may be.
PATH, NAME = "/" + "p" * 106, "n" * 32


@pytest.fixture(name="runtime")
def session(tmp_path):
    """The directory of a user's session, with a compositor that only listens."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "wayland-0"))
        listener.listen()
        yield tmp_path


def wl_ids(*options, says=(), **environment):
    """The wayland devices that a guest of this session finds; beside its end crosvm says just these lines."""
    done = vmm.run(vmm.command("machine", "pci", *options), env={**os.environ, **environment})
    assert "PASS pci" in done.stdout and done.returncode == vmm.OK, done.stdout + done.stderr
    *lines, end = done.stderr.splitlines()
    assert end.startswith(vmm.POWERED_OFF) and len(lines) == len(says), done.stderr
    assert all(text in line for text, line in zip(says, lines)), done.stderr
    found = [int(device, 16) for device in re.findall(r"pci \S+ 1af4:(\w+)", done.stdout)]
    return [device for device in found if device in (ID_FIRST, ID_LATER)]


@pytest.mark.parametrize("jailed", [[], ["-u"]], ids=["threads", "jailed"])
def test_the_session_s_compositor(runtime, jailed):
    """Where there is one the guest has a device, unless told otherwise; and just one."""
    session = {"XDG_RUNTIME_DIR": str(runtime)}
    assert wl_ids(*jailed, **session) == [ID_FIRST]
    assert wl_ids(*jailed, "--no-wl", **session) == []
    assert wl_ids(*jailed, "--wayland-sock", f"{runtime}/wayland-0", **session) == [ID_FIRST]
    assert wl_ids(*jailed, "--wayland-sock", f"{runtime}/wayland-0,id=63", **session) == [ID_LATER]


def test_a_named_display(runtime):
    """WAYLAND_DISPLAY is a name in the session's directory, or a path."""
    path = runtime / "wayland-0"
    path = path.rename(runtime / "other")
    assert wl_ids(XDG_RUNTIME_DIR=str(runtime), WAYLAND_DISPLAY="other") == [ID_FIRST]
    assert wl_ids(XDG_RUNTIME_DIR="/nowhere", WAYLAND_DISPLAY=str(path)) == [ID_FIRST]
    assert wl_ids(XDG_RUNTIME_DIR=str(runtime), says=[f"no Wayland compositor at '{runtime}/wayland-0'"]) == []


@pytest.mark.parametrize("made", [None, "file"])
def test_a_session_without_a_compositor(tmp_path, made):
    """One line says so; the VM runs, without a device."""
    if made:
        (tmp_path / "wayland-0").touch()
    says = [f"no Wayland compositor at '{tmp_path}/wayland-0': the guest has no wayland device; --no-wl says that"]
    assert wl_ids(XDG_RUNTIME_DIR=str(tmp_path), says=says) == []
    assert wl_ids("--no-wl", XDG_RUNTIME_DIR=str(tmp_path)) == []


@pytest.mark.parametrize("runtime", [{}, {"XDG_RUNTIME_DIR": ""}], ids=["unset", "empty"])
def test_no_session(runtime):
    """Not a word; a compositor can be named all the same, there or, with a warning, not."""
    assert wl_ids(**runtime) == []
    says = ["--wl: no compositor at '/nowhere/wayland-0': No such file or directory; the guest's programs find none"]
    assert wl_ids("--wl", "/nowhere/wayland-0", says=says, **runtime) == [ID_FIRST]


@pytest.mark.no_kvm
@pytest.mark.parametrize("option", ["wl", "wayland-sock"])
@pytest.mark.parametrize("specs, says", [
    ([""], "a path is 1 to 107 characters"),
    ([PATH + "p"], "a path is 1 to 107 characters"),
    (["/a,name="], "'name' needs a value"),
    ([f"/a,name={NAME}n"], "name= is 1 to 32 characters"),
    (["name=x,path=/a"], "name= comes after the path that it names"),
    (["/a", "/b"], "two sockets with the name ''; pass name=N"),
    (["/a,name=x", "/b,name=x"], "two sockets with the name 'x'; pass name=N"),
    (["/a,id=31"], "id= is 30 or 63"),
    (["/a,id=63x"], "id= is 30 or 63"),
    (["/a,title=x"], "title"),
    ([f"/a,name={i}" for i in range(9)], "more than 8 sockets"),
    (["/etc/passwd"], "'/etc/passwd' is no socket"),
    (["/tmp"], "'/tmp' is no socket"),
])
def test_refused(option, specs, says):
    options = [word for spec in specs for word in (f"--{option}", spec)]
    done = vmm.run(vmm.command("machine", "pci", *options))
    assert (done.returncode, done.stdout) == (vmm.USAGE, ""), done.stderr
    assert done.stderr.startswith(f"crosvm: --{option}: ") and says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("jailed", [[], ["-u"]], ids=["threads", "jailed"])
def test_one_that_another_program_serves(runtime, tmp_path, jailed):
    """It is the one that a VM has, whatever the session has."""
    path = tmp_path / "device"
    with test_foreign.device("wl", path, runtime / "wayland-0"):
        assert wl_ids(*jailed, "--vhost-user", f"type=wl,socket={path}", XDG_RUNTIME_DIR=str(runtime)) == [ID_FIRST]


@pytest.mark.no_kvm
@pytest.mark.parametrize("other", [("--wl", "/a"), ("--vhost-user", "type=wl,socket=/b")], ids=["ours", "theirs"])
def test_two(other):
    done = vmm.run(vmm.command("machine", "pci", "--vhost-user", "type=wl,socket=/a", *other))
    assert (done.returncode, done.stdout) == (vmm.USAGE, "")
    assert "a VM has one wl device" in done.stderr and done.stderr.count("\n") == 1


def test_as_much_as_there_may_be():
    specs = [f"{PATH},name={NAME}", *(f"/a,name={i}" for i in range(7))]
    assert wl_ids(*(word for spec in specs for word in ("--wayland-sock", spec)),
                  says=[f"no compositor at '{spec.split(',')[0]}'" for spec in specs]) == [ID_FIRST]
