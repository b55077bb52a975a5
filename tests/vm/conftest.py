# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the whole program with Linux guests; they need a KVM that can run Linux:

    tests/vm/run [FILE...] [-- --soak]

$CROSVM names another binary than build/crosvm. Tests marked "soak" run with --soak, or if -m names them.
"""
import os
import pathlib
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import vm  # noqa: E402
import chances  # noqa: E402
import disks  # noqa: E402

# No guest gets a window of whoever runs the tests.
for name in ("XDG_RUNTIME_DIR", "WAYLAND_DISPLAY"):
    os.environ.pop(name, None)

REPORT = pathlib.Path(__file__).resolve().parent / "report.sh"


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="all combinations, not only a sample")


def pytest_configure(config):
    config.addinivalue_line("markers", "soak: one of many combinations; runs with --soak")


def why_no_kvm():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        return f"no usable /dev/kvm: {error.strerror}"
    return None


def pytest_collection_modifyitems(config, items):
    why = why_no_kvm()
    for item in items:
        if why:
            item.add_marker(pytest.mark.skip(reason=why))
    if config.option.soak or config.option.markexpr:
        return
    out = [item for item in items if item.get_closest_marker("soak")]
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    return chances.run_test(item, nextitem, "vm.Lost")


def pytest_terminal_summary(terminalreporter):
    chances.tell(terminalreporter)


@pytest.fixture(scope="session")
def initrd(tmp_path_factory):
    """Path of an initramfs: busybox, and report.sh as /report."""
    if not os.path.exists(vm.CROSVM):
        pytest.exit(f"{vm.CROSVM}: not there; run 'make'", returncode=2)
    return vm.make_initramfs(tmp_path_factory.mktemp("initramfs") / "initrd.gz", "-f", f"{REPORT}:/report")


@pytest.fixture(scope="module", autouse=True)
def nothing_left():
    """No process of ours survives; by module, as one guest may serve several tests. An orphan may be another worker's."""
    before = vm.processes()
    yield
    end = time.monotonic() + 5
    while not (left := vm.processes()) <= before and time.monotonic() < end:
        time.sleep(0.1)
    assert left <= before


@pytest.fixture(scope="session")
def fio():
    """Path of a disk image that holds fio: disks.MOUNT_FIO."""
    return disks.fio_image()
