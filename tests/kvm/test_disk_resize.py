# SPDX-License-Identifier: BSD-3-Clause
"""disk resize while a guest uses the disk: file and capacity change together, or it is refused by name."""
import json
import os
import subprocess

import pytest
import vmm

MIB = 1 << 20


@pytest.fixture(name="disk")
def disk_file(tmp_path):
    path = tmp_path / "disk.img"
    with open(path, "wb") as file:
        file.truncate(4 * MIB)
    return path


@pytest.fixture(name="socket")
def socket_path(tmp_path):
    return str(tmp_path / "vm.sock")


def resize(socket, *words):
    return vmm.run([vmm.CROSVM, "disk", "resize", *(str(word) for word in words), socket])


def ok(socket, *words):
    done = resize(socket, *words)
    assert (done.returncode, done.stdout, done.stderr) == (vmm.OK, "", "")


def refused(socket, *words):
    done = resize(socket, *words)
    assert (done.returncode, done.stdout) == (vmm.HOST, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"crosvm: {socket}: ")
    return done.stderr


def load(socket, *options, case="load"):
    return vmm.started(vmm.command("load", case, "-s", socket, *options), until=b"serving")


@pytest.mark.parametrize("options", [(), ("-u",)], ids=["threads", "jailed"])
@pytest.mark.parametrize("engine", ["uring", "sync"])
def test_under_load(disk, socket, options, engine):
    with load(socket, "-b", f"{disk},engine={engine}", *options) as process:
        for mib in [8, 1, 64, 4, 2, 1024] * 3:
            ok(socket, 0, f"{mib}M")
            assert os.stat(disk).st_size == mib * MIB
        vmm.run([vmm.CROSVM, "suspend", socket])
        ok(socket, 0, "1G")
        ok(socket, 0, "3K")
        assert json.loads(vmm.run([vmm.CROSVM, "status", "--json", socket]).stdout)["state"] == "suspended"
        vmm.run([vmm.CROSVM, "resume", socket])
        ok(socket, 0, 5 * MIB)
        assert os.stat(disk).st_size == 5 * MIB
        assert vmm.run([vmm.CROSVM, "stop", socket]).returncode == vmm.OK
        assert process.wait(5) == vmm.OK
        assert process.stderr.read().decode() == f"{vmm.STOPPED}\n"
    assert os.stat(disk).st_size == 5 * MIB


@pytest.mark.parametrize("options", [(), ("-u",)], ids=["threads", "jailed"])
def test_refusals(disk, socket, tmp_path, options):
    read_only = tmp_path / "ro.img"
    snapshot = tmp_path / "snapshot.img"
    for path in (read_only, snapshot):
        path.write_bytes(bytes(MIB))
    with load(socket, "-b", f"{disk},block-size=4096", "-b", f"{read_only},ro", "-b", f"{snapshot},snapshot",
              *options, case="rest") as process:
        assert "cannot resize disk 0: the size must be a multiple" in refused(socket, 0, 4 * MIB + 512)
        assert "cannot resize disk 0: the size must be a multiple" in refused(socket, 0, 4 * MIB + 1)
        assert "cannot resize disk 0: the size must be a multiple" in refused(socket, 0, 0)
        if vmm.PATIENCE == 1:  # the nested host's files are in memory, where they may be as large
            assert "cannot resize disk 0: File too large" in refused(socket, 0, (1 << 63) - 4096)
        assert "cannot resize disk 1: it is read-only" in refused(socket, 1, "2M")
        assert "cannot resize disk 2: it is a snapshot" in refused(socket, 2, "2M")
        assert "there is no disk 3" in refused(socket, 3, "2M")
        assert [os.stat(path).st_size for path in (disk, read_only, snapshot)] == [4 * MIB, MIB, MIB]
        ok(socket, 0, "4100K")
        assert process.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a loop device")
@pytest.mark.parametrize("options", [(), ("-u",)], ids=["threads", "jailed"])
def test_a_block_device_is_read_again(disk, socket, options):
    done = subprocess.run(["losetup", "-f", "--show", disk], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop device: {done.stderr}")
    device = done.stdout.strip()
    try:
        with load(socket, "-b", device, *options) as process:
            assert "a block device of the host, which has another size" in refused(socket, 0, "8M")
            os.truncate(disk, 8 * MIB)
            subprocess.run(["losetup", "-c", device], check=True)
            ok(socket, 0, "8M")
            assert "which has another size" in refused(socket, 0, "4M")
            assert process.poll() is None
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert os.stat(disk).st_size == 8 * MIB


@pytest.mark.no_kvm
def test_usage():
    words = ["resize", "0", "1G", "/nowhere"]
    cases = [words[:n] for n in range(4)]
    cases += [words[:at] + [bad] + words[at + 1:] for at, bads in
              enumerate([["shrink"], ["-1", "x", "65536", ""], ["1P", "G", "", "1.5G", "1GB", "8388608T", "0x10", "-1"]])
              for bad in bads]
    for case in cases:
        done = vmm.run([vmm.CROSVM, "disk", *case])
        assert (done.returncode, done.stdout) == (vmm.USAGE, ""), case
        assert done.stderr.startswith("crosvm: ") and done.stderr.count("\n") == 1
    for size in ("1G", "1g", "2m", "4k", "1t"):
        done = vmm.run([vmm.CROSVM, "disk", "resize", "0", size, "/nowhere"])
        assert done.returncode == vmm.HOST and done.stderr.startswith("crosvm: /nowhere: ")
