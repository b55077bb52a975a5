# SPDX-License-Identifier: BSD-3-Clause
"""./demo, as a newcomer runs it, but for the downloads, which the cache has already."""
import os
import pathlib
import subprocess

import pexpect
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TIMEOUT = 500  # seconds; 15 on an idle machine
UP = "crosvm-init: up"  # guest/init
ATTEMPTS = 2
# Both write the same files.
pytestmark = [pytest.mark.xdist_group("demo"),
              pytest.mark.skipif(os.environ.get("CROSVM_TEST_HOST") == "nested", reason="is inside a nested host")]


def lost(said):
    """QEMU's emulation of SVM loses a guest that boots, or its host, now and then; tests/vm has the same patience."""
    return "host: nested: " in said and UP not in said


def test_without_a_terminal():
    for _ in range(ATTEMPTS):
        done = subprocess.run(["./demo"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=TIMEOUT)
        if not lost(done.stdout):
            break
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert any(line.startswith(("host: direct: ", "host: nested: ")) for line in lines), done.stdout
    assert "demo: self-check passed" in lines
    assert lines[-1] == "demo: the guest booted, checked itself and powered off"


def to_the_prompt():
    """A terminal where ./demo has come to the guest's shell."""
    for attempt in range(ATTEMPTS):
        demo = pexpect.spawn("./demo", cwd=ROOT, encoding="utf-8", codec_errors="replace", timeout=TIMEOUT)
        said = demo.expect_exact(["/ # ", pexpect.EOF, pexpect.TIMEOUT])
        if said == 0:
            return demo
        demo.close(force=True)
        if attempt + 1 == ATTEMPTS or not lost(demo.before):
            pytest.fail(f"no prompt: {demo.before}", pytrace=False)
    raise AssertionError


def test_on_a_terminal():
    demo = to_the_prompt()
    try:
        assert "'exit' powers off" in demo.before and "Ctrl-a x" in demo.before
        demo.sendline("echo answer=$((40 + 2)) on $(nproc)")
        demo.expect_exact("answer=42 on 2")
        demo.sendline("exit")
        demo.expect_exact("crosvm: the guest powered off")
        demo.expect(pexpect.EOF)
        demo.wait()
        assert (demo.exitstatus, demo.signalstatus) == (0, None)
    finally:
        demo.close(force=True)
