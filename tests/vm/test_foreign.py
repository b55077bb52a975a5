# SPDX-License-Identifier: BSD-3-Clause
"""Linux on disks that qemu-storage-daemon serves: the vhost-user back end that we did not write."""
import hashlib
import shutil
import subprocess
import time

import disks
import pytest
import vm
from disks import MIB


@pytest.fixture
def storage_daemon(tmp_path):
    """A root and an empty disk behind it; the options of crosvm run, and the empty disk's image."""
    if shutil.which("qemu-storage-daemon") is None:
        pytest.skip("no qemu-storage-daemon: install qemu-system-common")
    tree = disks.make_tree(tmp_path / "tree")
    images = {"root": disks.make_root("ext4", tree, tmp_path / "root"), "data": disks.sparse(tmp_path / "data", 16 * MIB)}
    argv, options = ["qemu-storage-daemon"], []
    for name, image in images.items():
        path = tmp_path / f"{name}.sock"
        argv += ["--blockdev", f"driver=file,node-name={name},filename={image},discard=unmap",
                 "--export", f"type=vhost-user-blk,id=export-{name},node-name={name},addr.type=unix,addr.path={path},"
                 "writable=on,num-queues=2"]
        options += ["--vhost-user", f"type=block,socket={path}"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as daemon:
        end = time.monotonic() + 10
        while not all((tmp_path / f"{name}.sock").exists() for name in images):
            assert daemon.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        yield options, images["data"]
        daemon.kill()


def test_root_and_data(storage_daemon):
    """Linux boots from it, writes and reads; what was written is in the image."""
    options, data = storage_daemon
    script = ("head -c 4194304 /dev/urandom > /tmp/noise; dd if=/tmp/noise of=/dev/vdb bs=64k oflag=direct conv=fsync "
              "&& dd if=/dev/vdb bs=64k count=64 iflag=direct | cmp - /tmp/noise && "
              "sha256sum /tmp/noise; cat /proc/mounts")
    done = vm.run(disks.command("small", *options, params="root=/dev/vda rw", script=script, cpus=2)).check()
    assert "/dev/root / ext4 rw" in done.output
    assert hashlib.sha256(data.read_bytes()[:4 * MIB]).hexdigest() in done.output
