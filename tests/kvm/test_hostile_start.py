# SPDX-License-Identifier: BSD-3-Clause
"""Starts from surroundings that no shell would give: closed descriptors and far too many, masks, limits, names.

The same VM comes of each, and its devices' jails are what they always are.
"""
import ctypes
import os
import pathlib
import resource
import signal
import subprocess

import jails
import pytest
import vmm

pytestmark = pytest.mark.skipif(vmm.SANITIZED, reason="a sanitizer build, whose jails only log")

def close_stdin():
    os.close(0)


def close_stdin_and_stderr():
    os.close(0)
    os.close(2)


def inherit_200():
    directory = os.open("/", os.O_RDONLY)
    for number in range(200):
        os.dup2(directory, 100 + number, inheritable=True)


def umask_0():
    os.umask(0)


def ignore_signals():
    """Also those that the C library keeps for itself, by the system call."""
    for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    rt_sigaction, ignore = 13, (ctypes.c_uint64 * 4)(signal.SIG_IGN)
    for number in (32, 33):
        assert ctypes.CDLL(None).syscall(rt_sigaction, number, ignore, None, 8) == 0


def block_all_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))


def deep_and_gone():
    path = pathlib.Path(f"/tmp/crosvm-test-{os.getpid()}")
    path.mkdir()
    os.chdir(path)
    path.rmdir()


def hostile_environment():
    for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "TMPDIR", "HOME", "GLIBC_TUNABLES", "MALLOC_TRACE", "LOCPATH", "LC_ALL"):
        os.environ[name] = "/proc/self/mem:" + "A" * 4000


def few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


SURROUNDINGS = [close_stdin, close_stdin_and_stderr, inherit_200, umask_0, ignore_signals, block_all_signals,
                deep_and_gone, hostile_environment, few_descriptors]


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return str(path)


def log_place(surroundings):
    """Where a jailed device's log goes, as jails.manifest() has it: a closed one became the null device."""
    return ("/dev/null", os.O_WRONLY) if surroundings is close_stdin_and_stderr else ("pipe", os.O_WRONLY)


@pytest.mark.parametrize("surroundings", SURROUNDINGS, ids=lambda function: function.__name__)
def test_start(disk, surroundings):
    """A jail is what it is always, test_multiprocess.py."""
    with vmm.started(vmm.command("load", "load", "-u", "-b", disk), until=b"serving", stdin=None,
                     preexec_fn=surroundings) as process:
        found = vmm.device_processes(process.pid)
        assert set(found) == {"block", "rng"}
        for (name, pid), sibling in zip(found.items(), reversed(found.values())):
            queues, files = jails.manifest(name, (disk, os.O_RDWR))
            files["pipe", os.O_WRONLY] -= 1
            files[log_place(surroundings)] += 1
            jails.check_jail(pid, process.pid, (queues, +files), sibling=sibling)
        vmm.wait_until_started(process.pid)
        jails.check_main(process.pid)
        os.kill(found["block"], signal.SIGKILL)
        assert process.wait(10) == vmm.DEVICE
        said = process.stderr.read().decode()
    if surroundings is not close_stdin_and_stderr:
        assert f"device block: its process {found['block']} was ended by signal 9" in said


def without_user_namespaces():
    """The beginning of a command line for a host that forbids them."""
    off = ["unshare", "--user", "--map-root-user", "--keep-caps", "sh", "-c",
           'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh"]
    if subprocess.run([*off, "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("this host makes no user namespace to forbid them in")
    return off


def test_no_user_namespaces():
    """The host forbids them: the message says which knob it is; best effort goes on and says what is missing."""
    off = without_user_namespaces()
    strict = vmm.run([*off, *vmm.command("machine", "pci", "-u")])
    assert strict.returncode == vmm.HOST
    assert "max_user_namespaces" in strict.stderr
    loose = vmm.run([*off, *vmm.command("machine", "pci", "-u", "--jail", "best-effort")])
    assert "PASS pci" in loose.stdout, loose.stderr
    assert "its jail lacks: user namespace" in loose.stderr
