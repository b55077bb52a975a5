# SPDX-License-Identifier: BSD-3-Clause
"""Our devices under a VMM that we did not write: QEMU as front end boots Linux with `crosvm device`."""
import base64
import contextlib
import os
import subprocess
import sys
import time

import disks
import pytest
import vm
from disks import MIB

sys.path.insert(0, str(vm.ROOT / "tests/host"))
import host  # noqa: E402


@contextlib.contextmanager
def served(name, socket, *spec):
    """crosvm device NAME at a socket; afterwards it ends by SIGTERM, well, and leaves no socket."""
    with subprocess.Popen([vm.CROSVM, "device", name, "--socket-path", str(socket), *spec], stderr=subprocess.PIPE) as device:
        try:
            deadline = time.monotonic() + 10
            while not socket.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            yield device
            device.terminate()
            assert device.wait(10) == vm.OK
            assert device.stderr.read() == b""
            assert not socket.exists()
        finally:
            device.kill()


def qemu(initrd, script, *devices):
    """A guest's console, as QEMU without KVM runs it; its memory is shared with the devices."""
    argv, env = host.qemu_command()
    words = "console=ttyS0 quiet panic=-1 crosvm.run=" + base64.b64encode(script.encode()).decode()
    command = [*map(str, argv), "-M", "q35,memory-backend=mem", "-m", "256", "-smp", "2", "-accel", "tcg", "-no-reboot",
               "-object", "memory-backend-memfd,id=mem,size=256M,share=on", "-nodefaults", "-nographic", "-serial", "stdio",
               "-kernel", vm.kernel("small"), "-initrd", initrd, "-append", words]
    for number, (kind, socket) in enumerate(devices):
        command += ["-chardev", f"socket,id=c{number},path={socket}", "-device", f"{kind},chardev=c{number}"]
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=vm.TIMEOUT, check=False)
    console = vm.text(done.stdout)
    assert "crosvm-init: exit status 0" in console, console[-3000:] + vm.text(done.stderr)
    return console


@pytest.fixture(autouse=True)
def there_is_qemu():
    if not any(host.debian.cache().glob("qemu-*")):
        pytest.skip("no QEMU: run tests/host/run true")


def test_disks(initrd, tmp_path):
    """Two devices copy between them, in requests as large as they may be; and each serves the next front end as the first."""
    source = disks.noise(tmp_path / "source", 8 * MIB, 1)
    target = disks.sparse(tmp_path / "target", 8 * MIB)
    script = ("dd if=/dev/vda of=/dev/vdb bs=1M iflag=direct oflag=direct && sync && cmp /dev/vda /dev/vdb && echo same; "
              "cat /sys/block/vda/ro /sys/block/vdb/ro; ls /sys/block/vdb/mq")
    with served("block", tmp_path / "a", f"path={source},ro"), \
         served("block", tmp_path / "b", f"path={target},queues=2"):
        for _ in range(2):
            os.truncate(target, 0)
            os.truncate(target, 8 * MIB)
            console = qemu(initrd, script, ("vhost-user-blk-pci,num-queues=1", tmp_path / "a"),
                           ("vhost-user-blk-pci,num-queues=2", tmp_path / "b"))
            assert console.split("same\n")[1].split()[:4] == ["1", "0", "0", "1"], console[-2000:]
            assert target.read_bytes() == source.read_bytes()


def test_rng(initrd, tmp_path):
    with served("rng", tmp_path / "rng"):
        console = qemu(initrd, "head -c 1000 /dev/hwrng | wc -c", ("vhost-user-rng-pci", tmp_path / "rng"))
    assert "\n1000\n" in console
