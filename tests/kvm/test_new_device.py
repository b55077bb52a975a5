# SPDX-License-Identifier: BSD-3-Clause
"""A new device is one file and one line, those that HACKING.md shows.

To build it takes an emulated processor ten minutes. So it is built here, and where there is no /dev/kvm the guests run in nested
hosts of their own (tests/vm/run).
"""
import os
import re
import shutil
import subprocess

import pytest

import vmm

# The experimental half of virtio's PCI ids; see virtio 1.2, section 4.1.2.
VIRTIO_PCI_IDS, NULL_ID = 0x1040, 63


def text_of_hacking():
    """The file and the line."""
    text = (vmm.ROOT / "HACKING.md").read_text()
    section = text[text.index("## Add a virtio device"):]
    source = re.search(r"```c\n(.*?)```", section, re.DOTALL)[1]
    line = re.search(r"```\n(DEVICE\(null.*?\n)```", section)[1]
    return source, line


@pytest.fixture
def tree(tmp_path):
    """A copy of the tree with the release objects, so that only what the device concerns is built."""
    shutil.copytree(vmm.ROOT / "src", tmp_path / "src", copy_function=shutil.copy2)
    for name in ("Makefile", "tools"):
        (tmp_path / name).symlink_to(vmm.ROOT / name)
    shutil.copytree(vmm.ROOT / "build/gcc", tmp_path / "build/gcc", copy_function=shutil.copy2,
                    ignore=shutil.ignore_patterns("tests"))
    return tmp_path


def pci_ids(tree, *options):
    host = [] if os.access("/dev/kvm", os.R_OK | os.W_OK) else [str(vmm.ROOT / "tests/host/run"), "--"]
    crosvm = str(tree / "build/gcc/crosvm")
    done = vmm.run([*host, crosvm, *vmm.command("machine", "pci", *options)[1:]], cwd=tree)
    assert "PASS pci" in done.stdout, done.stdout + done.stderr
    return [int(device, 16) for device in re.findall(r"pci \S+ 1af4:(\w+)", done.stdout)]


@pytest.mark.no_kvm
@pytest.mark.skipif(vmm.CROSVM != str(vmm.ROOT / "build/crosvm"), reason="builds the release binary only")
def test_the_null_device_of_the_manual(tree):
    source, line = text_of_hacking()
    (tree / "src/virtio/null.c").write_text(source)
    with open(tree / "src/virtio/devices.def", "a") as table:
        table.write(line)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(["make", "-C", tree, "-j2", "WERROR=1"], check=True, env=environment, stdout=subprocess.DEVNULL)
    subprocess.run(["tools/check-includes", "src"], check=True, cwd=tree, stdout=subprocess.DEVNULL)
    assert "--null" in vmm.run([tree / "build/gcc/crosvm", "help", "run"]).stdout
    before = pci_ids(tree)
    assert pci_ids(tree, "--null") == [VIRTIO_PCI_IDS + NULL_ID] + before
    assert pci_ids(tree, "--null", "--null") == 2 * [VIRTIO_PCI_IDS + NULL_ID] + before
