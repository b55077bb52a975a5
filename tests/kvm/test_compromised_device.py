# SPDX-License-Identifier: BSD-3-Clause
"""A device process that was taken over, against the main process: 18 cases, by name.

A program here speaks vhost-user well until the driver starts the device, and then does what the case says. The main
process believes nothing: the device is lost, and the VM ends in order and says why. What our own jailed devices do when
they are taken over is in test_taken_over.py.

What a device of other VMMs asks of its main process (interrupts, BARs, mappings, memory slots, doorbells by number) has
no message here, or one that we never asked for; sent all the same, it is such a case.
"""
import array
import contextlib
import os
import socket
import struct
import threading
import time

import pytest
import vmm

(GET_FEATURES, SET_MEM_TABLE, GET_VRING_BASE, SET_VRING_KICK, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE,
 GET_CONFIG, ADD_MEM_REG) = (1, 5, 11, 12, 15, 17, 18, 24, 37)
# What a back end may ask its front end on a channel of its own, which ours does not have.
BACKEND_HOST_NOTIFIER, BACKEND_VRING_CALL, BACKEND_SHMEM_MAP = 3, 4, 9
VERSION, REPLY, NEED_REPLY = 1, 4, 8
ANSWERS = {GET_FEATURES: 1 << 32 | 1 << 30, GET_PROTOCOL_FEATURES: 1 << 0 | 1 << 3 | 1 << 9 | 1 << 13, GET_QUEUE_NUM: 1}


class BackEnd(threading.Thread):
    """Serves one front end; `act` once it starts a ring."""

    def __init__(self, path, act):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen()
        self.act = act
        self.memory = []
        self.acted = threading.Event()

    def send(self, request, payload=b"", flags=VERSION | REPLY, fds=(), size=None):
        header = struct.pack("<III", request, flags, len(payload) if size is None else size)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.connection.sendmsg([header + payload], rights)

    def receive(self):
        header, rights, _, _ = self.connection.recvmsg(12, 4096, socket.MSG_WAITALL)
        if len(header) < 12:
            raise ConnectionResetError
        request, flags, size = struct.unpack("<III", header)
        fds = array.array("i")
        for _, _, data in rights:
            fds.frombytes(data[:len(data) // 4 * 4])
        payload = self.connection.recv(size, socket.MSG_WAITALL) if size else b""
        if request == SET_MEM_TABLE:
            self.memory = list(fds)
        return request, flags, payload

    def answer(self, request, flags, payload):
        if request in ANSWERS:
            self.send(request, struct.pack("<Q", ANSWERS[request]))
        elif request in (GET_CONFIG, GET_VRING_BASE):
            self.send(request, payload)
        elif flags & NEED_REPLY:
            self.send(request, bytes(8))

    def run(self):
        self.connection, _ = self.listener.accept()
        with contextlib.suppress(ConnectionError):
            while True:
                request, flags, payload = self.receive()
                if request == SET_VRING_ENABLE and not self.acted.is_set():
                    self.acted.set()
                    self.act(self)
                else:
                    self.answer(request, flags, payload)

    def good(self):
        self.send(SET_VRING_ENABLE, bytes(8))


def unknown_type(device):
    device.send(4711, bytes(8))


def short(device):
    device.send(SET_VRING_ENABLE, bytes(4))


def mebibyte(device):
    device.send(SET_VRING_ENABLE, bytes(1 << 20))


def fds_253(device):
    device.send(SET_VRING_ENABLE, bytes(8), fds=[0] * 253)


def no_fds(device):
    """Nor anything else."""
    device.send(SET_VRING_ENABLE)


def wrong_fd(device):
    with open("/dev/null", "rb") as null:
        device.send(SET_VRING_ENABLE, bytes(8), fds=[null.fileno()])


def reply_without_request(device):
    device.good()
    time.sleep(0.1)
    device.send(GET_FEATURES, bytes(8))


def two_replies(device):
    device.good()
    device.good()


def no_reply(_device):
    pass


def flood(device):
    while True:
        device.good()


def irq_of_another(device):
    device.good()
    device.send(BACKEND_VRING_CALL, struct.pack("<II", 99, 1), flags=VERSION)


def bar_of_another(device):
    device.good()
    device.send(BACKEND_HOST_NOTIFIER, struct.pack("<QQQ", 0, 4096, 1 << 40), flags=VERSION, fds=device.memory[:1])


def bar_of_ram(device):
    device.good()
    device.send(BACKEND_HOST_NOTIFIER, struct.pack("<QQQ", 0, 1 << 30, 0), flags=VERSION, fds=device.memory[:1])


def map_outside(device):
    device.good()
    device.send(BACKEND_SHMEM_MAP, struct.pack("<QQQQQ", 0, 0, 1 << 62, 1 << 62, 1), flags=VERSION, fds=device.memory[:1])


def memory_slots(device):
    device.good()
    for number in range(10000):
        device.send(ADD_MEM_REG, struct.pack("<QQQQQ", 0, number << 12, 4096, 0, 0), fds=device.memory[:1])


def doorbell_of_another(device):
    device.good()
    device.send(SET_VRING_KICK, struct.pack("<Q", 1), fds=device.memory[:1])


def truncate_memory(device):
    """The memory is sealed: the guest must not fall over a hole. Then it goes."""
    for fd in device.memory:
        for size in (0, 1 << 40):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
    device.connection.shutdown(socket.SHUT_RDWR)


def close_all(device):
    for fd in device.memory:
        os.close(fd)
    device.connection.close()
    raise ConnectionResetError


CASES = [unknown_type, short, mebibyte, fds_253, no_fds, wrong_fd, reply_without_request, two_replies, no_reply, flood,
         irq_of_another, bar_of_another, bar_of_ram, map_outside, memory_slots, doorbell_of_another, truncate_memory,
         close_all]


@pytest.mark.parametrize("act", CASES, ids=lambda function: function.__name__)
def test_it_ends_the_vm_in_order(tmp_path, act):
    path, log = str(tmp_path / "device.sock"), tmp_path / "stderr"
    back_end = BackEnd(path, act)
    back_end.start()
    argv = vmm.command("load", "rest", "--vhost-user", f"type=block,socket={path}", "-s", str(tmp_path / "vm.sock"))
    with open(log, "wb") as stderr, vmm.started(argv, stderr=stderr) as process:
        assert back_end.acted.wait(10), log.read_text()
        assert process.wait(10) == vmm.DEVICE, log.read_text()  # a device may be waited for 4 s
    assert "is lost" in log.read_text()
    assert log.read_text().count("\n") <= 5
