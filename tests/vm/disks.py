# SPDX-License-Identifier: BSD-3-Clause
"""Disk images for the tests of disks: root file systems from busybox, random data, file system checks."""
import base64
import contextlib
import os
import pathlib
import random
import shutil
import subprocess

import pytest
import vm

MIB = 1 << 20

# Obeys what guest/init would: a read-only root has no place for the script.
SCRIPT = """for word in $(cat /proc/cmdline); do
	case $word in disk.run=*) echo "${word#disk.run=}" | base64 -d >/dev/shm/run ;; esac
done
exec sh /dev/shm/run
"""


def sparse(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def numbered(path, number):
    """A disk of 4 KiB that says its number."""
    path.write_bytes(f"{number:<8}".encode().ljust(4096, b"\0"))
    return path


def noise(path, size, seed):
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def allocated(path):
    return os.stat(path).st_blocks * 512


def tool(name):
    """Path of a program, or the test is skipped."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"no {name}: run tools/install-packages tools/packages")
    return path


def make_tree(root):
    """A directory that is a root file system: busybox, and guest/init as its init."""
    for name in ("bin", "proc", "sys", "dev", "tmp", "root", "etc", "run", "mnt", "lib/modules"):
        (root / name).mkdir(parents=True)
    shutil.copy(tool("busybox"), root / "bin/busybox")
    for applet in subprocess.run([root / "bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout.split():
        if applet not in ("busybox", "init"):
            (root / "bin" / applet).symlink_to("busybox")
    shutil.copy(vm.ROOT / "guest/init", root / "bin/init")
    (root / "sbin").symlink_to("bin")
    (root / "lib/modules/order").touch()
    (root / "crosvm-run").write_text(SCRIPT)
    return root


def make_root(kind, tree, path):
    """An image of that file system with the tree in it."""
    commands = {
        "squashfs": [tool("mksquashfs") if kind == "squashfs" else "", tree, path, "-quiet", "-no-progress", "-all-root"],
        "erofs": [tool("mkfs.erofs") if kind == "erofs" else "", "-zlz4", "--all-root", path, tree],
        "ext4": [tool("mkfs.ext4") if kind == "ext4" else "", "-q", "-F", "-d", tree, path, "24M"],
    }
    subprocess.run(commands[kind], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path


@contextlib.contextmanager
def mounted(place, *words):
    """A file system on the directory `place`, which is made; words as mount takes them."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    place.mkdir()
    subprocess.run(["mount", *words, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def loop_device(image):
    """Path of a block device of the host that is this file."""
    path = subprocess.run([tool("losetup"), "--find", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield path
    finally:
        subprocess.run(["losetup", "--detach", path], check=True)


# In a guest whose second disk is that of fio_image(): the directory to chroot into.
MOUNT_FIO = """mount -t squashfs -o ro /dev/vdb /mnt && mount -t devtmpfs dev /mnt/dev && mount -t proc proc /mnt/proc &&
mount -t tmpfs tmp /mnt/tmp || exit 1
"""


def fio_image():
    """A squashfs with fio and its libraries."""
    tool("fio"), tool("mksquashfs")
    return subprocess.run([vm.ROOT / "guest/mkfio"], check=True, capture_output=True, text=True).stdout.strip()


def check_ext4(path, replay=False):
    """Asserts that the file system is clean, after its journal is replayed if that is due."""
    if replay:
        done = subprocess.run([tool("e2fsck"), "-p", path], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stdout + done.stderr
    done = subprocess.run([tool("e2fsck"), "-f", "-n", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def cat_ext4(path, name):
    """What a file in an ext4 image holds."""
    return subprocess.run([tool("debugfs"), "-R", f"cat {name}", path], check=True, capture_output=True).stdout


def run_word(script):
    return "disk.run=" + base64.b64encode(script.encode()).decode()


def command(kernel_name, *options, params="", script=None, cpus=1):
    """A command line without initrd."""
    words = ["quiet", *([params] if params else []), *([run_word(script)] if script is not None else [])]
    return [vm.CROSVM, "run", "-c", str(cpus), *map(str, options), "-p", " ".join(words), vm.kernel(kernel_name)]


def attached(*disks, **words):
    """Options for disks: path -> --block path=...,word=value."""
    text = "".join(f",{name.replace('_', '-')}={value}" for name, value in words.items())
    return [option for disk in disks for option in ("--block", f"path={pathlib.Path(disk)}{text}")]
