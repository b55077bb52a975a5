# SPDX-License-Identifier: BSD-3-Clause
"""A vhost-user front end without a VM, for devices of which crosvm run takes none that others serve.

It keeps to the rules: starts all queues, and makes one request at a time.
"""
import contextlib
import mmap
import os
import select
import socket
import struct

from test_compromised_device import GET_CONFIG, GET_FEATURES, SET_MEM_TABLE, SET_VRING_ENABLE, SET_VRING_KICK, VERSION

(SET_FEATURES, SET_OWNER, SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_CALL, SET_PROTOCOL_FEATURES) = (
    2, 3, 8, 9, 10, 13, 16)
F_VERSION_1, F_PROTOCOL_FEATURES, PROTOCOL_F_CONFIG = 1 << 32, 1 << 30, 1 << 9
PAGE, RING_SIZE, MEMORY = 4096, 8, 1 << 20
HEADER = struct.Struct("<III")


class FrontEnd:
    """The device's, at this socket; `memory` is the guest's."""

    def __init__(self, path, queues):
        self.stack = contextlib.ExitStack()
        self.socket = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        fd = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(fd, MEMORY)
        self.memory = mmap.mmap(fd, MEMORY)
        self.features = struct.unpack("<Q", self.ask(GET_FEATURES))[0]
        self.send(SET_OWNER)
        self.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", PROTOCOL_F_CONFIG))
        self.send(SET_FEATURES, struct.pack("<Q", F_VERSION_1 | F_PROTOCOL_FEATURES))
        self.send(SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, 0, MEMORY, 0, 0), [fd])
        os.close(fd)
        self.events = [self.start(queue) for queue in range(queues)]

    def close(self):
        self.stack.close()

    def send(self, request, payload=b"", fds=()):
        socket.send_fds(self.socket, [HEADER.pack(request, VERSION, len(payload)) + payload], fds)

    def ask(self, request, payload=b""):
        self.send(request, payload)
        answer, _, size = HEADER.unpack(self.socket.recv(HEADER.size, socket.MSG_WAITALL))
        assert answer == request
        return self.socket.recv(size, socket.MSG_WAITALL)

    def config(self, size):
        return self.ask(GET_CONFIG, struct.pack("<III", 0, size, 0) + bytes(size))[12:]

    def start(self, queue):
        """Its kick and its call; descriptors, what is available and what is used have a page each."""
        desc, avail, used = (PAGE * (1 + 3 * queue + part) for part in range(3))
        kick, call = os.fdopen(os.eventfd(0), "r+b", buffering=0), self.make_call()
        self.send(SET_VRING_NUM, struct.pack("<II", queue, RING_SIZE))
        self.send(SET_VRING_ADDR, struct.pack("<IIQQQQ", queue, 0, desc, used, avail, 0))
        self.send(SET_VRING_BASE, struct.pack("<II", queue, 0))
        for request, event in ((SET_VRING_CALL, call), (SET_VRING_KICK, kick)):
            self.send(request, struct.pack("<Q", queue), [self.stack.enter_context(event).fileno()])
        self.send(SET_VRING_ENABLE, struct.pack("<II", queue, 1))
        return kick, call

    def make_call(self):
        return os.fdopen(os.eventfd(0), "r+b", buffering=0)

    def offer(self, queue, data):
        """Bytes that the device reads: the request's number."""
        desc, avail = (PAGE * (1 + 3 * queue + part) for part in range(2))
        place = MEMORY - PAGE
        self.memory[place:place + len(data)] = data
        self.memory[desc:desc + 16] = struct.pack("<QIHH", place, len(data), 0, 0)
        idx = struct.unpack_from("<H", self.memory, avail + 2)[0]
        struct.pack_into("<H", self.memory, avail + 4 + idx % RING_SIZE * 2, 0)
        struct.pack_into("<H", self.memory, avail + 2, (idx + 1) % 2**16)
        self.events[queue][0].write(struct.pack("=Q", 1))
        return idx

    def request(self, queue, data):
        """The same, and waits: how many bytes it says it wrote."""
        used, call = PAGE * (3 + 3 * queue), self.events[queue][1]
        idx = self.offer(queue, data)
        assert select.select([call], [], [], 10)[0]
        call.read(8)
        assert struct.unpack_from("<H", self.memory, used + 2)[0] == (idx + 1) % 2**16
        head, written = struct.unpack_from("<II", self.memory, used + 4 + idx % RING_SIZE * 8)
        assert head == 0
        return written
