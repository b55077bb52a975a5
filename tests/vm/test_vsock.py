# SPDX-License-Identifier: BSD-3-Clause
"""Sockets between Linux guests and this host: by the host's vhost-vsock, and by unix sockets, each with and without -u."""
import hashlib
import os
import pathlib
import re
import resource
import socket
import stat
import threading

import chances
import pexpect
import pytest
import vm

CID = 42
SIZE = 8 << 20
CONNECTIONS = 1000  # at once


class Vhost:
    """The host's kernel carries the packets."""

    size, in_turn = SIZE, 200

    def __init__(self, options):
        self.options = ["--cid", str(CID), *options]

    def listen(self):
        """(listening socket, its port)"""
        listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        listener.listen(CONNECTIONS)
        listener.settimeout(vm.TIMEOUT)
        return listener, listener.getsockname()[1]

    def dial(self, port):
        connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        connection.settimeout(vm.TIMEOUT)
        connection.connect((CID, port))
        return connection


class Unix:
    """A device of ours: guests find PATH_PORT, programs of the host say at PATH which port they want."""

    size, in_turn = 2 * SIZE, 1000

    def __init__(self, directory, options):
        self.path = str(directory / "vsock")
        self.options = ["--vsock", f"cid={CID},socket={self.path}", *options]
        self.port = 70

    def listen(self):
        self.port += 1
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{self.path}_{self.port}")
        listener.listen(CONNECTIONS)
        listener.settimeout(vm.TIMEOUT)
        return listener, self.port

    def dial(self, port):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(vm.TIMEOUT)
        connection.connect(self.path)
        connection.sendall(b"CONNECT %d\n" % port)
        answer = b""
        while not answer.endswith(b"\n"):
            byte = connection.recv(1)
            if not byte:
                raise ConnectionRefusedError
            answer += byte
        assert re.fullmatch(rb"OK \d+\n", answer)
        return connection


# A device's code is the same in both, and its jail is the harder place for it.
@pytest.fixture(params=[pytest.param("vhost", marks=pytest.mark.soak), "vhost-u",
                        pytest.param("unix", marks=pytest.mark.soak), "unix-u"])
def host(request, tmp_path):
    options = ["-u"] if request.param.endswith("-u") else []
    if request.param.startswith("unix"):
        yield Unix(tmp_path, options)
        assert not os.path.exists(tmp_path / "vsock"), "the socket is removed at the end"
        return
    if not chances.EMULATED and not os.path.exists("/dev/vhost-vsock"):  # the nested host always has it
        pytest.skip("the host has no vhost-vsock")
    yield Vhost(options)


TOOL = ("-f", f"{vm.ROOT / 'build/guest/vsock'}:/bin/vsock")


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """An initramfs with guest/vsock.c."""
    return vm.make_initramfs(tmp_path_factory.mktemp("vsock") / "initrd.gz", *TOOL)


@pytest.fixture(scope="module")
def stock_tools(tmp_path_factory):
    """The same for Debian's kernel."""
    modules = pathlib.Path(vm.kernel("cloud-6.1")).parent / "modules"
    return vm.make_initramfs(tmp_path_factory.mktemp("stock") / "initrd.gz", *TOOL, "-m", str(modules), "virtio_pci",
                             "vmw_vsock_virtio_transport")


def command(initrd, host, script, kernel="small", **kwargs):
    return vm.command(kernel, initrd, script=script, options=host.options, **kwargs)


def receive_all(connection):
    return b"".join(iter(lambda: connection.recv(65536), b""))


def start(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def answer_often(listener, data, repeats, heard):
    """Takes one connection: hears as many pieces of that size, then says the data as often."""
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


# Each binding of the driver resets the device and starts its rings anew.
REBIND = ("cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport && dev=$(ls -d virtio*) && "
          "for i in 1 2 3; do echo $dev >unbind && echo $dev >bind || exit 1; done; ")
MAKE_DATA = "dd if=/dev/urandom of=/data bs=1M count={} 2>/dev/null && sha256sum /data && "


def sums(text):
    return re.findall(r"^([0-9a-f]{64}) ", text, re.MULTILINE)


@pytest.mark.parametrize("total", [None, pytest.param(1 << 30, marks=pytest.mark.soak)])
def test_guest_connects(tools, host, total):
    """The driver comes and goes; then half close, and megabytes both ways: the host answers when it has heard
    everything."""
    repeats = total // host.size if total else 1
    data, heard = os.urandom(host.size), []
    listener, port = host.listen()
    with listener:
        thread = start(answer_often, listener, data, repeats, heard)
        script = (REBIND + MAKE_DATA.format(host.size >> 20) +
                  f"for i in $(seq {repeats}); do cat /data; done | vsock connect 2 {port} | sha256sum")
        done = vm.run(command(tools, host, script, cpus=2), timeout=1200 if repeats > 1 else vm.TIMEOUT).check()
        thread.join(vm.TIMEOUT)
    back = hashlib.sha256()
    for _ in range(repeats):
        back.update(data)
    sent, received = sums(done.output)
    assert heard[1:] == [sent] * repeats + [b""] and received == back.hexdigest()
    if isinstance(host, Vhost):
        assert heard[0][0] == CID


def check_hosts_side(host, console):
    """The guest listens for in_turn + 1 connections at a port, after it was refused at one of ours. Many
    connections one after the other, then one with much to say while it listens. Where nobody does, none."""
    vm.expect(console, "refused by the host")
    vm.expect(console, "listening")
    with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
        host.dial(9)
    if isinstance(host, Unix):
        assert stat.S_IMODE(os.stat(host.path).st_mode) == 0o600
    for number in range(host.in_turn):
        with host.dial(1234) as connection:
            text = b"%d" % number
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            assert receive_all(connection) == text
    data = os.urandom(SIZE)
    with host.dial(1234) as connection:
        sender = start(send_and_end, connection, data)
        assert hashlib.sha256(receive_all(connection)).digest() == hashlib.sha256(data).digest()
        sender.join()


def check_context_id_in_use(initrd, host):
    second = vm.run(command(initrd, host, "true"))
    assert second.status == vm.HOST
    assert f"context id {CID} belongs to another VM" in second.stderr


def send_and_end(connection, data):
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def accept_all(listener, console):
    """CONNECTIONS of them; if some do not come, what the guest says of it."""
    peers = []
    try:
        while len(peers) < CONNECTIONS:
            peers.append(listener.accept()[0])
    except TimeoutError:
        console.expect_exact([pexpect.TIMEOUT, pexpect.EOF], timeout=1)
        pytest.fail(f"{len(peers)} connections, then none; the guest:\n{console.before}")
    return peers


@pytest.fixture
def many_descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 4 * CONNECTIONS), max(before[1], 4 * CONNECTIONS)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_stock_guest(stock_tools, host, many_descriptors):
    """Debian's kernel: connections of the host's; then a thousand connections of the guest at once; one whose host does not read, one whose guest does
    not; some that end in the middle. None of them keeps another one from working."""
    listener, port = host.listen()
    script = (f"vsock connect 2 5 </dev/null || echo refused by the host; vsock echo 1234 {host.in_turn + 1}; "
              + MAKE_DATA.format(SIZE >> 20) + f"vsock many 2 {port} {CONNECTIONS}; "
              # The host does not read this one yet.
              f"vsock connect 2 {port} </data >/dev/null & slow=$!; "
              # Nor is this one read here.
              f"vsock connect 2 {port} </dev/null | (until [ -e /go ]; do sleep 0.1; done; sha256sum) & lazy=$!; "
              "read line; "
              f"vsock connect 2 {port} </data >/dev/null; echo was reset; "
              f"vsock connect 2 {port} </dev/zero >/dev/null & sleep 1; kill -KILL $!; "
              "read line; touch /go; wait $slow $lazy; echo end")
    data = os.urandom(SIZE)
    # One vCPU: the nested host's emulator stops guests with two now and then, in the middle of all this as well.
    with listener, vm.piped(command(stock_tools, host, script, kernel="cloud-6.1")) as (process, console):
        if isinstance(host, Vhost):
            check_context_id_in_use(stock_tools, host)
        check_hosts_side(host, console)
        sent = vm.expect(console, "  /data")[-64:]
        peers = accept_all(listener, console)
        for peer in peers:  # only now; all of them are there
            peer.sendall(peer.recv(100))
        vm.expect(console, f"{CONNECTIONS} answered")
        for peer in peers:
            peer.close()
        ways = {}
        for _ in range(2):  # which of the two comes first is open
            peer, _ = listener.accept()
            peer.settimeout(vm.TIMEOUT)
            ways[peer.recv(1, socket.MSG_PEEK) != b""] = peer
        sender = start(send_and_end, ways[False], data)
        vm.press_return(process)
        lost, _ = listener.accept()
        assert lost.recv(10)
        lost.close()  # with much unread
        vm.expect(console, "was reset")
        killed, _ = listener.accept()
        assert hashlib.sha256(receive_all(ways[True])).hexdigest() == sent
        ways[True].close()
        assert set(receive_all(killed)) == {0}
        killed.close()
        assert sender.is_alive()
        vm.press_return(process)
        assert vm.expect(console, "  -")[-64:] == hashlib.sha256(data).hexdigest()
        sender.join()
        vm.expect(console, "end")
        assert process.wait(vm.TIMEOUT) == vm.OK
