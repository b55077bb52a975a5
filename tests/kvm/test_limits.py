# SPDX-License-Identifier: BSD-3-Clause
"""J12: what device processes may use of the host, as /proc has it."""
import pathlib
import re

import pytest

import vmm

MIB = 1 << 20


def limits(pid):
    """{name: (soft, hard)}"""
    text = pathlib.Path(f"/proc/{pid}/limits").read_text()
    return {name.strip(): (soft, hard) for name, soft, hard in re.findall(r"^(Max .{22})\s*(\S+)\s+(\S+)", text, re.MULTILINE)}


@pytest.mark.skipif(vmm.SANITIZED, reason="a sanitizer build, which needs memory of its own")
def test_limits(tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(MIB))
    # SECURITY.md, "Limits": threads, queues, and descriptors at most
    wanted = {"rng": (1 + 1, 1, 64), "block": (1 + 2 + 64, 2, 64), "vsock": (1 + 3, 3, 1024 + 64)}
    argv = vmm.command("hang", None, "-u", "--block", f"path={disk},queues=2", "--vsock", f"cid=5,socket={tmp_path}/vsock")
    with vmm.started(argv, until=b"hanging") as process:
        found = vmm.device_processes(process.pid)
        for name, (threads, queues, files) in wanted.items():
            held = limits(found[name])
            assert held["Max processes"] == (str(threads),) * 2
            assert held["Max core file size"] == held["Max msgqueue size"] == ("0", "0")
            assert int(held["Max open files"][1]) <= files
            more = (128 + 20 * queues) * MIB
            assert more < int(held["Max data size"][1]) < more + 16 * MIB, name
            assert held["Max data size"][0] == held["Max data size"][1]
            assert held["Max stack size"] == (str(8 * MIB),) * 2
