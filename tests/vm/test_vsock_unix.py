# SPDX-License-Identifier: BSD-3-Clause
"""Sockets between Linux guests and this host by unix sockets, without a kernel module."""
import hashlib
import os
import re
import socket
import stat
import threading

import pytest
import test_vsock
import vm
from test_vsock import answer_often, check_sums, receive_all, send_and_end, send_often

SIZE = 64 << 20
tools = test_vsock.tools
CONNECTIONS = 1000


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "vsock")


def command(initrd, path, script, *options, **kwargs):
    return vm.command("small", initrd, script=script, options=("--vsock", f"cid=42,socket={path}", *options), **kwargs)


def dial(path, port):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(vm.TIMEOUT)
    connection.connect(path)
    connection.sendall(b"CONNECT %d\n" % port)
    answer = b""
    while not answer.endswith(b"\n"):
        byte = connection.recv(1)
        assert byte, "the guest refused"
        answer += byte
    assert re.fullmatch(rb"OK \d+\n", answer)
    return connection


# With 16 of them 1 GiB each way.
@pytest.mark.parametrize("cpus, repeats, options", [(1, 1, []), (2, 1, ["-u"])] + [
    pytest.param(2, 16, options, marks=pytest.mark.soak) for options in ([], ["-u"])])
def test_guest_connects(tools, path, cpus, repeats, options):
    """Half close, and megabytes both ways: the host answers when it has heard everything."""
    data, heard = os.urandom(SIZE), []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path + "_77")
        listener.listen()
        thread = answer_often(listener, data, repeats, heard)
        done = vm.run(command(tools, path, send_often(77, SIZE, repeats), *options, cpus=cpus),
                      timeout=1200 if repeats > 2 else vm.TIMEOUT).check()
        thread.join(vm.TIMEOUT)
    check_sums(done.output, data, repeats, heard)
    assert not os.path.exists(path), "the socket is removed at the end"


def test_host_connects(tools, path):
    """Many connections one after the other, then one with much to say while it listens."""
    with vm.piped(command(tools, path, f"vsock echo 1234 {CONNECTIONS + 1}")) as (process, console):
        vm.expect(console, "listening")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        for number in range(CONNECTIONS):
            with dial(path, 1234) as connection:
                connection.sendall(b"%d" % number)
                connection.shutdown(socket.SHUT_WR)
                assert receive_all(connection) == b"%d" % number
        data = os.urandom(SIZE)
        with dial(path, 1234) as connection:
            sender = threading.Thread(target=send_and_end, args=(connection, data), daemon=True)
            sender.start()
            assert hashlib.sha256(receive_all(connection)).digest() == hashlib.sha256(data).digest()
            sender.join()
        assert process.wait(vm.TIMEOUT) == vm.OK


@pytest.mark.parametrize("options", [[], ["-u"]])
def test_refused(tools, path, options):
    """Nobody listens, on either side."""
    script = "vsock connect 2 5 </dev/null || echo refused by the host; sleep 1000"
    with vm.piped(command(tools, path, script, *options)) as (_, console):
        vm.expect(console, "refused by the host")
        with pytest.raises(AssertionError, match="the guest refused"):
            dial(path, 9)
