# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the whole program with freestanding guests: any host that has /dev/kvm will do.

$CROSVM names another binary than build/crosvm, $CROSVM_GUESTS another directory than build/guest. Tests that
need no guest to run are marked "no_kvm" and run everywhere.
"""
import os
import pathlib
import sys
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent / "bench")]
pytest.register_assert_rewrite("jails", "oracle", "taps", "vmm")
import chances  # noqa: E402
import vmm  # noqa: E402

# No guest gets a window of whoever runs the tests.
for name in ("XDG_RUNTIME_DIR", "WAYLAND_DISPLAY"):
    os.environ.pop(name, None)


GUESTS = sorted(source.stem for source in (HERE.parent / "guest").glob("*.[cS]"))


def pytest_configure(config):
    vmm.adopt_orphans()
    config.addinivalue_line("markers", "no_kvm: runs without /dev/kvm")
    config.addinivalue_line("markers", "xdist_group: of pytest-xdist: tests that one worker runs, in order")


def why_no_kvm():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        return f"no usable /dev/kvm: {error.strerror}"
    return None


def pytest_collection_modifyitems(items):
    """With -n, the tests that look at the whole machine follow each other; the hostile guests' go beside them."""
    why = why_no_kvm()
    for item in items:
        if not item.path.name.startswith("test_hostile"):
            item.add_marker(pytest.mark.xdist_group("alone"))
        if why and item.get_closest_marker("no_kvm") is None:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    # The second is what a device's process has no time for while the emulator runs two vCPUs that ask it without end.
    return chances.run_test(item, nextitem, vmm.TRIPLE_FAULT, "process did not answer in time")


def pytest_terminal_summary(terminalreporter):
    chances.tell(terminalreporter)


@pytest.fixture(scope="session", autouse=True)
def built():
    """What the tests run must have been built; a test that cannot find it would fail for no reason of its own."""
    missing = [path for path in (vmm.CROSVM, *map(vmm.guest, GUESTS)) if not os.path.exists(path)]
    if missing:
        pytest.exit(f"{', '.join(missing)}: not there; run 'make all guests'", returncode=2)


@pytest.fixture(autouse=True)
def nothing_left():
    """Every test: no process of ours survives it."""
    before = set(vmm.descendants())
    yield
    end = time.monotonic() + 5
    while not (left := set(vmm.descendants())) <= before and time.monotonic() < end:
        time.sleep(0.05)
    assert left <= before
