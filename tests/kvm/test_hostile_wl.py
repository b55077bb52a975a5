# SPDX-License-Identifier: BSD-3-Clause
"""A guest whose wayland driver breaks every rule (tests/guest/hostile_wl.c); the compositor is here.

The guest checks what a guest can see; here is what the process has when it rests.
"""
import contextlib
import fcntl
import os
import selectors
import socket
import threading

import oracle
import pytest
import test_foreign
import vmm

CASES = ["commands", "descriptors", "reuse", "read-only", "ends"]
FILE_BYTES = 24167  # of hostile_wl.c
SEAL_SHRINK, SEAL_WRITE = 2, 8
SLOTS = 1024  # src/vm/window.h


def memory_file(seals=0, read_only=False):
    """A file of the compositor's, full of the word "host"."""
    fd = os.memfd_create("compositor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, (b"host" * FILE_BYTES)[:FILE_BYTES])
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    if not read_only:
        return fd
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    return again


class Compositor:
    """Answers each word of four letters; of Wayland it knows nothing."""

    def __init__(self, path):
        self.files = [memory_file(read_only=True), memory_file(SEAL_SHRINK, read_only=True),
                      memory_file(SEAL_SHRINK | SEAL_WRITE), memory_file(SEAL_SHRINK)]
        self.null = os.open("/dev/null", os.O_RDWR)
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(100)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.silent = []
        self.stop, other = socket.socketpair()
        self.selector.register(other, selectors.EVENT_READ, None)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def accept(self, listener):
        self.selector.register(listener.accept()[0], selectors.EVENT_READ, self.answer)

    def close(self, client):
        self.selector.unregister(client)
        client.close()

    def answer(self, client):
        word, fds = b"", []
        with contextlib.suppress(ConnectionError):
            word, fds, _, _ = socket.recv_fds(client, 4, 64)
        for fd in fds:
            os.close(fd)
        if word in (b"", b"quit"):
            self.close(client)
        elif word == b"ping":
            client.send(b"pong")
        elif word == b"take":
            client.send(b"t%03d" % len(fds))
        elif word in (b"f028", b"f029"):
            socket.send_fds(client, [word], [self.null] * int(word[1:]))
        elif word == b"keys":
            socket.send_fds(client, [word], self.files)
        elif word == b"seen":
            client.send(b"".join(os.pread(fd, 4, 0) for fd in self.files))
        elif word == b"hush":
            client.send(word)
            self.selector.unregister(client)
            self.silent.append(client)

    def run(self):
        while True:
            for key, _ in self.selector.select():
                if key.data is None:
                    return
                key.data(key.fileobj)

    def end(self):
        self.stop.send(b"x")
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        for kept in [*self.silent, self.stop]:
            kept.close()
        for fd in [*self.files, self.null]:
            os.close(fd)


@pytest.fixture(name="path")
def compositor(tmp_path):
    path = str(tmp_path / "wayland-0")
    running = Compositor(path)
    yield path
    running.end()


@contextlib.contextmanager
def served(where, tmp_path, path):
    """The options of a VM with the device there."""
    if where == "device":
        back_end = tmp_path / "wl.sock"
        with test_foreign.device("wl", back_end, path):
            yield ["--vhost-user", f"type=wl,socket={back_end}"]
    else:
        yield [*(["-u"] if where == "jailed" else []), "--wayland-sock", path]


@pytest.mark.parametrize("where", ["threads", "jailed", "device"])
@pytest.mark.parametrize("case", CASES)
def test_driver_that_breaks_the_rules(tmp_path, path, case, where):
    with served(where, tmp_path, path) as options:
        argv = vmm.command("hostile_wl", case, *options, params=f"times={SLOTS + 10 if where == 'threads' else 100}")
        with oracle.hostile(tmp_path, argv, case) as running:
            running.begin()
            running.check()


def test_one_vm_after_the_other(tmp_path, path):
    """At one device, with other devices in processes and without."""
    with served("device", tmp_path, path) as options:
        for jailed in ([], ["-u"], []):
            vmm.run_case("hostile_wl", "reuse", *jailed, *options, params="times=20", input=b"xx")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a compositor to another user")
@pytest.mark.skipif(vmm.SANITIZED, reason="a sanitizer build, without a sandbox, in which root may")
def test_a_compositor_of_another_user(tmp_path, path):
    """In the sandbox root is no more than others; a jail's helper is that user."""
    for owned in (path, tmp_path):
        os.chown(owned, 65534, 65533)
    tmp_path.chmod(0o700)
    done = vmm.run(vmm.command("hostile_wl", "ends", "--wayland-sock", path))
    assert "NEW_CTX, 0, OTHER is answered by 1100" in done.stdout
    assert f"wl: cannot connect to '{path}': Permission denied; with --multiprocess root can" in done.stderr
    vmm.run_case("hostile_wl", "ends", "-u", "--wayland-sock", path, input=b"xx")
