# SPDX-License-Identifier: BSD-3-Clause
"""Network namespaces for a test: nothing of the host's network is in reach, and nothing is left in it."""
import contextlib
import ctypes
import os

CLONE_NEWNET = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def elsewhere(enter):
    """This thread, and what it starts, in the network where enter() brings it, and back. Needs root."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert enter() == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(before, CLONE_NEWNET) == 0
    finally:
        os.close(before)


def own_network():
    """This thread, and what it starts, in a network of their own. A socket that is made there stays there."""
    return elsewhere(lambda: libc.unshare(CLONE_NEWNET))


def in_network(namespace):
    """The same in the network of an open /proc/*/ns/net."""
    return elsewhere(lambda: libc.setns(namespace, CLONE_NEWNET))
