# SPDX-License-Identifier: BSD-3-Clause
"""Kernels and initrds that lie (tests/vm/bad_images.py makes them): status 3, one line, and no crash.

They are refused before a VM is made. ./test runs this with the release build and with ASan's.
"""
import importlib.util
import tempfile

import pytest
import vmm

pytestmark = pytest.mark.no_kvm

SOURCE = vmm.ROOT / "tests/vm/bad_images.py"


def load():
    spec = importlib.util.spec_from_file_location("bad_images", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", name="cases")
def fixture_cases():
    with tempfile.TemporaryDirectory(prefix="crosvm-images-") as directory:
        yield list(load().write(directory))


def test_refused(cases):
    failures = []
    for case in cases:
        done = vmm.run([vmm.CROSVM, "run", *map(str, case.options), str(case.kernel)], timeout=30)
        lines = done.stderr.splitlines()
        if done.returncode != vmm.IMAGE or case.message not in done.stderr or len(lines) != 1:
            failures.append(f"{case.name}: status {done.returncode}, not {case.message!r}: {done.stderr[:500]!r}")
    assert not failures, "\n".join(failures)
    assert len(cases) >= 24
