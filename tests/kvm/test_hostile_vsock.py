# SPDX-License-Identifier: BSD-3-Clause
"""A guest whose vsock driver breaks every rule (tests/guest/hostile_vsock.c); the host's programs are here.

The guest checks what a guest can see; here is what the process has when it rests.
"""
import contextlib
import os
import resource
import selectors
import socket
import threading

import chances
import oracle
import pytest
import vmm

CASES = ["packets", "connections", "credit", "connects", "resets", "unread", "half-close", "queues"]
ECHO, UNREAD = 7, 8


class Programs:
    """What listens at the host's ports: one sends back what it gets until its end, one never reads."""

    def __init__(self, path):
        self.selector = selectors.DefaultSelector()
        self.kept = []
        self.stop, other = socket.socketpair()
        self.selector.register(other, selectors.EVENT_READ, None)
        self.kept.append(other)
        self.listen(f"{path}_{ECHO}", self.begin_echo)
        self.listen(f"{path}_{UNREAD}", self.kept.append)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def listen(self, path, take):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1000)
        self.kept.append(listener)
        self.selector.register(listener, selectors.EVENT_READ, lambda: take(listener.accept()[0]))

    def begin_echo(self, connection):
        self.selector.register(connection, selectors.EVENT_READ, lambda: self.echo(connection))

    def echo(self, connection):
        data = b""
        with contextlib.suppress(ConnectionError):
            data = connection.recv(4096)
            connection.sendall(data)
        if not data:
            self.selector.unregister(connection)
            connection.close()

    def run(self):
        while True:
            for key, _ in self.selector.select():
                if key.data is None:
                    return
                key.data()

    def end(self):
        self.stop.send(b"x")
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        for kept in [*self.kept, self.stop]:
            kept.close()


@pytest.fixture(name="path")
def programs(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    path = str(tmp_path / "vsock")
    running = Programs(path)
    yield path
    running.end()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def full_windows(running):
    """Each of 1024 programs has a window of bytes to read and reads none: 64 of 512 KiB, the others of 32 KiB."""
    said = vmm.read_or_tell(running.process, b" full\n", 240, running.log)
    assert b"FAIL" not in said, said
    connections = int(said.split()[-2])
    windows_kib = 64 * 512 + (connections - 64) * 32
    assert windows_kib <= 64 * 1024
    assert abs(sum(running.oracle.grown_kib().values()) - windows_kib) <= oracle.GROWTH_KIB
    running.process.stdin.write(b"x")


@pytest.mark.parametrize("jailed", [[], ["-u"]], ids=["threads", "jailed"])
@pytest.mark.parametrize("case", CASES)
def test_driver_that_breaks_the_rules(tmp_path, path, case, jailed):
    if vmm.SANITIZED and case == "connects":
        pytest.skip("a sanitizer's allocator keeps the windows that are given back")
    # With -u each connection is asked of the helper, and each packet goes to another process; an emulated processor takes as
    # long without. `make soak` does all 65535.
    every = 32 if (jailed or chances.EMULATED) and not os.environ.get("CROSVM_SOAK") else 1
    argv = vmm.command("hostile_vsock", case, *jailed, "--vsock", f"cid=42,socket={path}", params=f"every={every}")
    with oracle.hostile(tmp_path, argv, case) as running:
        running.begin()
        if case == "connects":
            full_windows(running)
        running.check()
