# SPDX-License-Identifier: BSD-3-Clause
"""Our own jailed devices, taken over: their code is overwritten, or something is sent in their name.

What they do that no policy allows, how they end by themselves (SIGSEGV is in test_multiprocess.py), what they say on
each of their sockets: each ends the VM in order, with a line that says which device it was and what it did.
"""
import contextlib
import errno
import fcntl
import os
import signal
import socket
import struct

import jails
import pytest
import vmm
from test_compromised_device import GET_FEATURES, REPLY, VERSION

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="only root can write into a device's process"),
              pytest.mark.skipif(vmm.SANITIZED, reason="a sanitizer build, whose policies only log")]
KINDS = [*jails.KINDS, *jails.HELPERS]
# A socket without a file, and its address in memory.
ABSTRACT = b"\0crosvm-%d" % os.getpid()
SOCKET_TYPE = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
ABSTRACT_ADDRESS = struct.pack("<H", socket.AF_UNIX) + ABSTRACT
MKNOD_MODE, SESSION_KEYRING = 0o20666, -3
# Name, code, the error that the call gets, from a device and not from a helper, instead of the end; who may do it.
ACTS = [
    ("open", jails.call(2, b"/etc/passwd\0", 0), errno.ENOENT, ()),
    ("openat", jails.call(257, -100, b"..\0", 0), errno.ENOENT, ()),
    ("proc", jails.call(2, b"/proc/self/maps\0", 0), errno.ENOENT, ()),
    ("socket", jails.call(41, socket.AF_INET, socket.SOCK_STREAM, 0), None, ()),
    ("connect", jails.call(42, 0, ABSTRACT_ADDRESS, len(ABSTRACT_ADDRESS)), None, jails.HELPERS),
    ("clone", jails.call(56, signal.SIGCHLD, 0), None, ()),
    ("clone3", jails.call(435, 0, 0), errno.ENOSYS, ()),
    ("execve", jails.call(59, b"/bin/sh\0", 0, 0), None, ()),
    ("mmap rwx", jails.call(9, 0, 4096, 7, 0x22, -1, 0), None, ()),
    ("mprotect +x", jails.call(10, 0, 4096, 5), None, ()),
    ("ftruncate", jails.call(77, 0, 0), None, ("block", "wl")),  # of none has the guest's memory a descriptor
    ("kill -1", jails.call(62, -1, signal.SIGKILL), None, ()),
    ("ptrace", jails.call(101, jails.PTRACE_SEIZE, 1, 0, 0), None, ()),
    ("process_vm_readv", jails.call(310, 1), None, ()),
    ("mount", jails.call(165, 0, 0, 0, 0, 0), None, ()),
    ("unshare", jails.call(272, jails.CLONE_NEWUSER), None, ()),
    ("io_uring_setup", jails.call(425, 1, 0), None, ()),
    ("bpf", jails.call(321, 0, 0, 0), None, ()),
    ("userfaultfd", jails.call(323, 0), None, ()),
    ("keyctl", jails.call(250, 0, SESSION_KEYRING, 1), None, ()),
    ("add_key", jails.call(248, b"user\0", b"name\0", b"x", 1, SESSION_KEYRING), None, ()),
    ("chdir", jails.call(80, b"..\0"), None, ()),
    ("mknod", jails.call(133, b"node\0", MKNOD_MODE, 0x103), None, ()),
    ("setuid", jails.call(105, 0), None, ()),
    ("capset", jails.call(126, 0, 0), None, ()),
    ("dumpable", jails.call(157, jails.PR_SET_DUMPABLE, 1), None, ()),
]
# `make soak`: each in each kind; else each once, and every kind has its turn.
EVERYWHERE = [(act, kind) for act in ACTS for kind in KINDS if kind not in act[3]]


def turns():
    for number, act in enumerate(ACTS):
        kinds = [kind for kind in KINDS[number % len(KINDS):] + KINDS if kind not in act[3]]
        yield act, kinds[0]


def ids(pairs):
    return [f"{act[0]}-{kind}" for act, kind in pairs]


PAIRS = EVERYWHERE if os.environ.get("CROSVM_SOAK") else list(turns())


@contextlib.contextmanager
def victim(tmp_path, kind):
    """(VM at rest, the pid of its device of that kind)"""
    with jails.machine(tmp_path, "rest") as process:
        yield process, vmm.device_processes(process.pid)[kind]


def way_to_helper(pid):
    return next(end for end in jails.sockets_of(pid) if end.type == socket.SOCK_SEQPACKET)


def streams(pid):
    """The control connection is the last; the one before came by it: a wayland device's window."""
    return [end for end in jails.sockets_of(pid) if end.type == socket.SOCK_STREAM
            and not end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]


def check_end(process, line):
    assert process.wait(5) == vmm.DEVICE
    said = process.stderr.read().decode()
    assert line in said, said
    assert said.endswith("the process of a device was lost, as said above\n")
    assert said.count("\n") <= 5, said


@pytest.mark.parametrize("act, kind", PAIRS, ids=ids(PAIRS))
def test_forbidden_act(tmp_path, act, kind):
    """The line names the process, and the signal or what the call got instead."""
    _, code, error, _ = act
    with victim(tmp_path, kind) as (process, pid):
        jails.run_code(pid, code)
        ended = error is None or kind in jails.HELPERS
        check_end(process, f"device {kind}: its process {pid} " + (
            f"was ended by signal {signal.SIGSYS.value} (" if ended else f"ended with status {error}\n"))


@pytest.mark.parametrize("kind", jails.HELPERS if os.environ.get("CROSVM_SOAK") else jails.HELPERS[:1])
def test_a_helper_reaches_no_socket_without_a_file(tmp_path, kind):
    """It may connect, but such a name of the host's is none in its network."""
    with socket.socket(socket.AF_UNIX) as listener, victim(tmp_path, kind) as (process, pid):
        listener.bind(ABSTRACT)
        listener.listen()
        with socket.socket(socket.AF_UNIX) as ours:
            ours.connect(ABSTRACT)
        code = jails.system_call(41, socket.AF_UNIX, SOCKET_TYPE, 0)
        jails.run_code(pid, code + jails.call(42, jails.RESULT, ABSTRACT_ADDRESS, len(ABSTRACT_ADDRESS)))
        check_end(process, f"device {kind}: its process {pid} ended with status {errno.ECONNREFUSED}\n")


@pytest.mark.parametrize("kind, status", [("rng", 0), ("block", 1), ("vsock", 0), ("wl-to", 0)])
def test_exit(tmp_path, kind, status):
    with victim(tmp_path, kind) as (process, pid):
        jails.run_code(pid, jails.call(231, status))
        check_end(process, f"device {kind}: its process {pid} ended with status {status}\n")


def test_kill_main(tmp_path):
    """By the number that it has outside."""
    with victim(tmp_path, "balloon") as (process, pid):
        jails.run_code(pid, jails.call(62, process.pid, signal.SIGKILL))
        check_end(process, f"device balloon: its process {pid} was ended by signal {signal.SIGSYS.value} (")


@pytest.mark.parametrize("kind", jails.KINDS)
def test_message_that_nobody_asked_for(tmp_path, kind):
    with victim(tmp_path, kind) as (process, pid):
        streams(pid)[-1].send(struct.pack("<IIIQ", GET_FEATURES, VERSION | REPLY, 8, 0))
        check_end(process, f"{kind}: the device's process broke the protocol")


@pytest.mark.parametrize("kind", ["vsock", "wl"])
@pytest.mark.parametrize("message", [b"no", b"number" * 100], ids=["short", "long"])
def test_what_is_no_number_for_a_helper(tmp_path, kind, message):
    with victim(tmp_path, kind) as (process, pid):
        helper = vmm.device_processes(process.pid)[f"{kind}-to"]
        way_to_helper(pid).send(message)
        check_end(process, f"device {kind}-to: its process {helper} ended with status 0\n")


# ---- the window of a wayland device, which asks the main process to show files to the guest ----

PAGE = 4096
WINDOW_SIZE = 16 << 30


MAP, UNMAP, NEED_REPLY = 9, 10, 8  # of vhost-user's back end


def request(number, payload, flags=VERSION | NEED_REPLY):
    return struct.pack("<III", number, flags, len(payload)) + payload


def map_request(offset, size, flags=1, shmid=0, fd_offset=0):
    return request(MAP, struct.pack("<QQQQQ", shmid, fd_offset, offset, size, flags))


def unmap_request(offset, size):
    return request(UNMAP, struct.pack("<QQQQQ", 0, 0, offset, size, 0))


def memory_file(size, seals):
    fd = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def test_window_requests_that_are_refused(tmp_path):
    """One after the other; a good one between them is done."""
    sealed, open_ = memory_file(2 * PAGE, fcntl.F_SEAL_SHRINK), memory_file(2 * PAGE, 0)
    null, text = os.open("/dev/null", os.O_RDWR), os.open(tmp_path / "text", os.O_RDWR | os.O_CREAT)
    refused = [(map_request(0, PAGE), [open_]), (map_request(0, PAGE), [null]), (map_request(0, PAGE), [text]),
               (map_request(0, 3 * PAGE), [sealed]), (map_request(0, 1), [sealed]), (map_request(0, 0), [sealed]),
               (map_request(1, PAGE), [sealed]), (map_request(WINDOW_SIZE, PAGE), [sealed]),
               (map_request(WINDOW_SIZE - PAGE, 2 * PAGE), [sealed]), (map_request(2**64 - PAGE, PAGE), [sealed]),
               (map_request(PAGE, 2**64 - PAGE), [sealed]), (map_request(0, PAGE, flags=2), [sealed]),
               (map_request(0, PAGE, shmid=1), [sealed]), (map_request(0, PAGE, fd_offset=PAGE), [sealed]),
               (unmap_request(PAGE, 0), []), (unmap_request(0, 2 * PAGE), []), (unmap_request(2**64 - 1, 1), [])]
    with victim(tmp_path, "wl") as (process, pid):
        end = streams(pid)[0]
        vmm.wait_until_started(process.pid)
        before = len(os.listdir(f"/proc/{process.pid}/fd"))

        def ask(message, fds):
            socket.send_fds(end, [message], fds)
            number, flags, size, result = struct.unpack("<IIIQ", end.recv(100))
            assert (number, flags, size) == (message[0], VERSION | REPLY, 8)
            return result

        for message, fds in refused:
            assert ask(message, fds) > 0, message
            assert ask(map_request(0, PAGE), [sealed]) == 0
            assert ask(map_request(0, PAGE), [sealed]) == errno.EEXIST
            assert ask(unmap_request(0, PAGE), []) == 0
        assert len(os.listdir(f"/proc/{process.pid}/fd")) == before
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK
    for fd in (sealed, open_, null, text):
        os.close(fd)


@pytest.mark.parametrize("message, fds", [
    (request(MAP, bytes(39)), 1), (bytes(1 << 16), 0), (map_request(0, PAGE), 0), (map_request(0, PAGE), 2),
    (map_request(0, PAGE), 253), (request(1, b""), 0), (request(MAP, bytes(40), flags=2), 1), (unmap_request(0, PAGE), 1),
], ids=["short", "long", "no-fd", "two-fds", "253-fds", "another", "version", "needless-fd"])
def test_window_messages_that_are_none(tmp_path, message, fds):
    with victim(tmp_path, "wl") as (process, pid):
        socket.send_fds(streams(pid)[0], [message], [0] * fds)
        check_end(process, "a device asks for shared memory, and breaks the protocol")
