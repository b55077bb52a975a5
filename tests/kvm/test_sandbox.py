# SPDX-License-Identifier: BSD-3-Clause
"""The main process's sandbox: what each of its threads holds, and that a VM lives in it.

What the policies forbid is in tests/unit/test_sandbox.c. Every other test of this directory runs in the sandbox, too.
"""
import os
import pathlib
import re
import stat

import pytest

import vmm

pytestmark = pytest.mark.skipif(vmm.SANITIZED, reason="a sanitizer build, without sandbox")

NO_RIGHTS = {"NoNewPrivs": "1", "Seccomp": "2", "CapInh": "0" * 16, "CapPrm": "0" * 16, "CapEff": "0" * 16,
             "CapAmb": "0" * 16}


def threads(pid):
    """What /proc says of each thread: a dictionary each."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        yield dict(re.findall(r"^(\w+):\s*(.*)$", (task / "status").read_text(), re.MULTILINE))


def in_sandbox(process):
    """The main thread goes in last."""
    return all(thread["Seccomp"] == "2" for thread in threads(process.pid))


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return str(path)


@pytest.mark.parametrize("options", [(), ("-u",), ("-c", "4"), ("--serial", "unix=console.sock", "-s", "vm.sock")])
def test_no_thread_has_rights(tmp_path, disk, options):
    """J19: every thread, also those that the kernel makes for us."""
    until = None if "--serial" in options else b"hanging"
    with vmm.started(vmm.command("hang", None, "-b", disk, *options), until=until, cwd=tmp_path) as process:
        vmm.wait_until(lambda: in_sandbox(process))
        found = list(threads(process.pid))
        assert len(found) >= 2
        for thread in found:
            assert {name: thread[name] for name in NO_RIGHTS} == NO_RIGHTS, thread["Name"]
        assert vmm.end_by(process, vmm.SIGNALS[0])[0] == vmm.OK
        assert process.stderr.read().decode().count("\n") == 1  # that it was stopped
    assert list(tmp_path.glob("*.sock")) == []


@pytest.mark.parametrize("case", ["rest", "load"])
def test_threads_of_devices(disk, case):
    """They are born in a thread that has seen no guest, with its policy, and have one of their own on top."""
    with vmm.started(vmm.command("load", case, "-b", disk), until=b"serving") as process:
        vmm.wait_until(lambda: in_sandbox(process))
        # Block and rng.
        vmm.wait_until(lambda: sum(thread["Seccomp_filters"] == "2" for thread in threads(process.pid)) >= 2)
        assert {thread["Seccomp"] for thread in threads(process.pid)} == {"2"}
        assert vmm.end_by(process, vmm.SIGNALS[0])[0] == vmm.OK


@pytest.mark.parametrize("options", [(), ("-u",)])
def test_no_directory_is_open(disk, options):
    with vmm.started(vmm.command("hang", None, "-b", disk, *options), until=b"hanging") as process:
        vmm.wait_until(lambda: in_sandbox(process))
        for fd in os.listdir(f"/proc/{process.pid}/fd"):
            assert not stat.S_ISDIR(os.stat(f"/proc/{process.pid}/fd/{fd}").st_mode)


def test_nobody_looks_into_it():
    """Not even a process of the same user: what /proc has of it is root's."""
    with vmm.started(vmm.command("hang"), until=b"hanging") as process:
        vmm.wait_until(lambda: in_sandbox(process))
        assert os.stat(f"/proc/{process.pid}/mem").st_uid == 0


def test_it_can_be_turned_off():
    with vmm.started(vmm.command("hang", None, "--disable-sandbox"), until=b"hanging") as process:
        assert {thread["Seccomp"] for thread in threads(process.pid)} == {"0"}
        assert {thread["NoNewPrivs"] for thread in threads(process.pid)} == {"0"}
        assert vmm.end_by(process, vmm.SIGNALS[0])[0] == vmm.OK
        assert "the sandbox is off" in process.stderr.read().decode()


def test_a_host_without_seccomp(tmp_path):
    """It says what is missing and how to go on without."""
    argv = ["strace", "-f", "-o", str(tmp_path / "trace"), "-e", "inject=seccomp:error=ENOSYS", *vmm.command("hang")]
    done = vmm.run(argv)
    assert done.returncode == vmm.HOST
    assert "cannot install a seccomp filter: Function not implemented; --disable-sandbox" in done.stderr
