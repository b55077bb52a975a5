# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the test host and of ./demo. They need no KVM, QEMU only."""
import pytest


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="all, not only a sample")


def pytest_configure(config):
    config.addinivalue_line("markers", "soak: takes long; runs with --soak")
    config.addinivalue_line("markers", "xdist_group: of pytest-xdist: tests that one worker runs, in order")


def pytest_collection_modifyitems(config, items):
    """With -n, those that share a nested host follow each other; those that have one of their own go beside them."""
    for item in items:
        if "host" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("host"))
    if not config.option.soak and not config.option.markexpr:
        out = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)
