# SPDX-License-Identifier: BSD-3-Clause
"""Sockets between Linux guests and this host, by the host's vhost-vsock."""
import hashlib
import os
import re
import socket
import threading

import pytest
import vm

CID = 42
SIZE = 8 << 20
CONNECTIONS = 200

# The nested host always has it.
pytestmark = pytest.mark.skipif(not vm.EMULATED and not os.path.exists("/dev/vhost-vsock"), reason="the host has no vhost-vsock")


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """An initramfs with guest/vsock.c."""
    return vm.make_initramfs(tmp_path_factory.mktemp("vsock") / "initrd.gz", "-f",
                             f"{vm.ROOT / 'build/guest/vsock'}:/bin/vsock")


def command(initrd, script, *options, kernel="small", **kwargs):
    return vm.command(kernel, initrd, script=script, options=("--cid", str(CID), *options), **kwargs)


def receive_all(connection):
    return b"".join(iter(lambda: connection.recv(65536), b""))


def answer_often(listener, data, repeats, heard):
    """A thread that takes one connection: hears as many pieces of that size, then says the data as often."""
    def serve():
        connection, peer = listener.accept()
        heard.append(peer)
        with connection:
            for _ in range(repeats):
                digest, left = hashlib.sha256(), len(data)
                while left > 0 and (piece := connection.recv(min(left, 65536))):
                    digest.update(piece)
                    left -= len(piece)
                heard.append(digest.hexdigest())
            heard.append(connection.recv(1))
            for _ in range(repeats):
                connection.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def send_often(port, size, repeats):
    """The guest's part: a file of random bytes, its checksum and that of what comes back."""
    return (f"dd if=/dev/urandom of=/data bs=1M count={size >> 20} 2>/dev/null && sha256sum /data && "
            f"for i in $(seq {repeats}); do cat /data; done | vsock connect 2 {port} | sha256sum")


def check_sums(output, data, repeats, heard):
    sums = re.findall(r"^([0-9a-f]{64}) ", output, re.MULTILINE)
    back = hashlib.sha256()
    for _ in range(repeats):
        back.update(data)
    assert heard[1:] == [sums[0]] * repeats + [b""] and sums[1:] == [back.hexdigest()]


class Listener:
    """Answers one connection of the guest with what `answer` makes of all that it sent."""

    def __init__(self, answer):
        self.socket = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        self.socket.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        self.socket.listen()
        self.socket.settimeout(vm.TIMEOUT)
        self.port = self.socket.getsockname()[1]
        self.peer = None
        self.thread = threading.Thread(target=self.serve, args=(answer,), daemon=True)
        self.thread.start()

    def serve(self, answer):
        connection, self.peer = self.socket.accept()
        with connection:
            connection.sendall(answer(receive_all(connection)))

    def close(self):
        self.thread.join(vm.TIMEOUT)
        self.socket.close()


# With the last one 1 GiB each way.
@pytest.mark.parametrize("cpus, repeats", [(1, 1), (2, 2), pytest.param(2, 128, marks=pytest.mark.soak)])
def test_guest_connects(tools, cpus, repeats):
    """Half close, and megabytes both ways: the host answers when it has heard everything."""
    data, heard = os.urandom(SIZE), []
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as listener:
        listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        listener.listen()
        thread = answer_often(listener, data, repeats, heard)
        script = send_often(listener.getsockname()[1], SIZE, repeats)
        done = vm.run(command(tools, script, cpus=cpus), timeout=1200 if repeats > 2 else vm.TIMEOUT).check()
        thread.join(vm.TIMEOUT)
    check_sums(done.output, data, repeats, heard)
    assert heard[0][0] == CID


def test_host_connects(tools):
    """Many connections one after the other, then one with much to say while it listens."""
    with vm.piped(command(tools, f"vsock echo 1234 {CONNECTIONS + 1}")) as (process, console):
        vm.expect(console, "listening")
        for number in range(CONNECTIONS):
            with connected() as connection:
                text = b"%d" % number
                connection.sendall(text)
                connection.shutdown(socket.SHUT_WR)
                assert receive_all(connection) == text
        data = os.urandom(SIZE)
        with connected() as connection:
            sender = threading.Thread(target=send_and_end, args=(connection, data), daemon=True)
            sender.start()
            assert receive_all(connection) == data
            sender.join()
        assert process.wait(vm.TIMEOUT) == vm.OK


def connected():
    connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    connection.settimeout(vm.TIMEOUT)
    connection.connect((CID, 1234))
    return connection


def send_and_end(connection, data):
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def test_driver_comes_and_goes(tools):
    """Each binding of the driver resets the device and starts its rings anew."""
    listener = Listener(lambda received: received[::-1])
    script = ("cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport && dev=$(ls -d virtio*) && "
              "for i in 1 2 3; do echo $dev >unbind && echo $dev >bind || exit 1; done; "
              f"echo live | vsock connect 2 {listener.port}; echo")
    done = vm.run(command(tools, script)).check()
    listener.close()
    assert "\nevil" in done.output


def test_context_id_in_use(tools):
    with vm.piped(command(tools, "echo ready; sleep 1000")) as (_, console):
        vm.expect(console, "ready")
        second = vm.run(command(tools, "true"))
        assert second.status == vm.HOST
        assert f"context id {CID} belongs to another VM" in second.stderr
