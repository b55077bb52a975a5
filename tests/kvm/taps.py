# SPDX-License-Identifier: BSD-3-Clause
"""The other end of a guest's network: a tap in a namespace of the test's own, whose frames are marked."""
import contextlib
import os
import socket
import threading

import pytest
from netns import own_network

ETHERTYPE, HEADER = 0x88b5, 14  # of tests/guest/victims.h and hostile_net.c
MARKED = b"\xff" * 6 + bytes([2, 0, 0, 0, 0, 2]) + ETHERTYPE.to_bytes(2, "big") + b"MARKED".ljust(50, b"\0")
NETWORK = "host-ip=192.168.78.1,netmask=255.255.255.0,mac=02:00:00:00:00:01,vhost=off"


def network():
    """A context with no interface but those that a VM in it makes."""
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root and /dev/net/tun")
    return own_network()


def tap_socket():
    """Sees what comes out of the tap, and puts into it what is sent."""
    taps = [name for _, name in socket.if_nameindex() if name != "lo"]
    assert len(taps) == 1, taps
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
    packets.bind((taps[0], ETHERTYPE))
    packets.setblocking(False)
    return packets


def arrived(packets):
    """The marks of the guest's frames."""
    marks = []
    while True:
        try:
            frame, address = packets.recvfrom(1 << 17)
        except BlockingIOError:
            return marks
        if address[2] != socket.PACKET_OUTGOING:
            marks.append(frame[HEADER:].split(b"\0")[0].decode("latin-1"))


def put(packets, frame):
    """False where the tap's queue is full."""
    try:
        packets.send(frame)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def network_with_frames():
    """One in which somebody sends all the time, from when there is a tap."""
    end = threading.Event()

    def send():
        packets = None
        while not end.wait(0.003):
            if packets is not None:
                put(packets, MARKED)
            elif len(socket.if_nameindex()) > 1:
                packets = tap_socket()
        if packets is not None:
            packets.close()

    with network():
        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield
        finally:
            end.set()
            sender.join()
