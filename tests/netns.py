# SPDX-License-Identifier: BSD-3-Clause
"""A network namespace for a test: nothing of the host's network is in reach, and nothing is left in it."""
import contextlib
import ctypes
import os

CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def own_network():
    """This thread, and what it starts, in a network of their own. Needs root."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)
