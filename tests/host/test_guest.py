# SPDX-License-Identifier: BSD-3-Clause
"""The guests' kernels and initramfs, booted by QEMU alone: whatever fails later is the VMM's. The boots only with
--soak: tests/vm has them too."""
import base64
import gzip
import os
import pathlib
import subprocess
import sys

import pexpect
import pytest
from pexpect.popen_spawn import PopenSpawn

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import host as nested  # noqa: E402

MKINITRAMFS = nested.GUEST / "mkinitramfs"
TIMEOUT = 180
STOCK_MODULES = ["virtio_pci", "virtio_rng", "virtio_blk", "virtio_net", "ext4"]
pytestmark = pytest.mark.skipif(os.environ.get("CROSVM_TEST_HOST") == "nested", reason="is inside a nested host")


def command(kernel, initrd, script=None, append=""):
    argv, env = nested.qemu_command()
    if script is not None:
        append += " crosvm.run=" + base64.b64encode(script.encode()).decode()
    argv += ["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "512", "-nodefaults",
             "-display", "none", "-no-reboot", "-serial", "stdio", "-device", "virtio-rng-pci", "-kernel", str(kernel),
             "-initrd", str(initrd), "-append", "console=ttyS0 quiet panic=-1 " + append]
    return argv, env


def boot(*args):
    argv, env = command(*args)
    return subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=True, timeout=TIMEOUT).stdout.decode(errors="replace").replace("\r", "")


def mkinitramfs(*args, **kwargs):
    return subprocess.run([MKINITRAMFS, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("initramfs") / "plain.gz"
    mkinitramfs("-o", path, check=True)
    return path


@pytest.fixture(scope="module")
def small():
    """The small kernel, if it is there: its build takes minutes and is asked for by name."""
    found = sorted(nested.debian.cache().glob("kernel-small-*-*"))
    if not found:
        pytest.skip("no small kernel: run guest/build-kernel")
    return found[-1]


@pytest.mark.soak
@pytest.mark.parametrize("name", ["cloud-6.1", "cloud-6.12"])
def test_stock_kernel_with_modules(name, tmp_path):
    kernel = nested.fetch_kernel(name)
    initrd = tmp_path / "initrd.gz"
    mkinitramfs("-o", initrd, "-m", kernel / "modules", *STOCK_MODULES, "-f", f"{__file__}:/etc/this", check=True)
    out = boot(kernel / "vmlinuz", initrd, "uname -r; nproc; cat /sys/class/misc/hw_random/rng_current; "
               "grep -wo ext4 /proc/filesystems; wc -l </etc/this; exit 7")
    lines = pathlib.Path(__file__).read_text().count("\n")
    release = (kernel / "version").read_text().strip()
    assert out.split("\n")[:7] == ["crosvm-init: up", release, "2", "virtio_rng.0", "ext4", str(lines),
                                   "crosvm-init: exit status 7"]


@pytest.mark.soak
@pytest.mark.parametrize("image", ["bzImage", "vmlinux"])
def test_small_kernel(small, plain, image):
    out = boot(small / image, plain, "ls -1 /dev/hwrng /dev/ttyS0 /dev/mem; exit 3")
    assert "/dev/hwrng\n/dev/mem\n/dev/ttyS0\ncrosvm-init: exit status 3\n" in out
    assert "Power down" in out


@pytest.mark.soak
@pytest.mark.parametrize("end, says", [("panic", "Kernel panic"), ("reboot", "Restarting system")])
def test_ends(small, plain, end, says):
    assert says in boot(small / "bzImage", plain, ":", f"crosvm.end={end}")


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:setDaemon")
def test_interactive_shell(small, plain):
    argv, env = command(small / "bzImage", plain)
    guest = PopenSpawn(argv, env=env, timeout=TIMEOUT, encoding="utf-8")
    guest.expect("/ # ")
    guest.send("tty; echo answer=$((40+2)); sleep 100\n")
    guest.expect("/dev/ttyS0\\s+answer=42")
    guest.send("\x03")  # job control: ends sleep, not the shell
    guest.expect("/ # ")
    guest.send("exit\n")
    guest.expect("Power down")
    guest.expect(pexpect.EOF)
    assert guest.wait() == 0


def test_same_input_same_bytes(plain):
    assert mkinitramfs(check=True).stdout == plain.read_bytes()


def test_modules_come_in_order():
    modules = nested.fetch_kernel("cloud-6.1") / "modules"
    archive = gzip.decompress(mkinitramfs("-m", modules, "virtio_net", check=True).stdout)
    order = [archive.index(b"/lib/modules/%s.ko\n" % n) for n in (b"failover", b"net_failover", b"virtio_net")]
    assert order == sorted(order)


@pytest.mark.parametrize("args, says", [
    (["-m", "/no/such", "x"], "/no/such/modules.dep: No such file"),
    (["-f", "/no/such"], "/no/such: No such file"),
])
def test_says_what_is_missing(args, says):
    done = mkinitramfs(*args)
    assert done.returncode == 1
    assert says in done.stderr.decode() and "Traceback" not in done.stderr.decode()


def test_no_such_module():
    done = mkinitramfs("-m", nested.fetch_kernel("cloud-6.1") / "modules", "nonesuch")
    assert done.returncode == 1
    assert b"no module nonesuch" in done.stderr
