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

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/vhost-vsock"), reason="the host has no vhost-vsock")


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """An initramfs with guest/vsock.c."""
    return vm.make_initramfs(tmp_path_factory.mktemp("vsock") / "initrd.gz", "-f",
                             f"{vm.ROOT / 'build/guest/vsock'}:/bin/vsock")


def command(initrd, script, *options, kernel="small", **kwargs):
    return vm.command(kernel, initrd, script=script, options=("--cid", str(CID), *options), **kwargs)


def receive_all(connection):
    return b"".join(iter(lambda: connection.recv(65536), b""))


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


@pytest.mark.parametrize("cpus", [1, 2])
def test_guest_connects(tools, cpus):
    """Half close, and megabytes both ways: the host answers when it has heard everything."""
    data = os.urandom(SIZE)
    heard = []

    def answer(received):
        heard.append(hashlib.sha256(received).hexdigest())
        return data

    listener = Listener(answer)
    script = (f"dd if=/dev/urandom of=/data bs=1M count={SIZE >> 20} 2>/dev/null && sha256sum /data && "
              f"vsock connect 2 {listener.port} </data | sha256sum")
    done = vm.run(command(tools, script, cpus=cpus)).check()
    listener.close()
    sums = re.findall(r"^([0-9a-f]{64}) ", done.output, re.MULTILINE)
    assert sums == [heard[0], hashlib.sha256(data).hexdigest()]
    assert listener.peer[0] == CID


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
