# SPDX-License-Identifier: BSD-3-Clause
"""A Linux guest whose devices are jailed processes: they serve, and nothing else about the guest changes."""
import hashlib
import os
import sys

import pytest
import vm

sys.path.append(str(vm.ROOT / "tests/kvm"))
import jails  # noqa: E402
import vmm  # noqa: E402

MAC, HOST, GUEST = "02:12:34:56:78:9a", "192.168.78.1", "192.168.78.2"


@pytest.mark.parametrize("engine", ["uring", "sync"])
def test_disk_and_entropy(initrd, tmp_path, engine):
    """What is written is there, for the guest and for the host."""
    image = tmp_path / "disk.img"
    with open(image, "wb") as file:
        file.truncate(8 << 20)
    script = ("dd if=/dev/urandom of=/data bs=1M count=4 2>/dev/null && "
              "dd if=/data of=/dev/vda bs=64k conv=fsync 2>/dev/null && "
              "dd if=/dev/vda bs=64k count=64 2>/dev/null | cmp - /data && "
              "sha256sum /data && head -c 100 /dev/hwrng | wc -c")
    done = vm.run(vm.command("small", initrd, script=script, cpus=2,
                             options=["-u", "-b", f"path={image},engine={engine},queues=2"])).check()
    assert "\n100\n" in done.output
    assert done.output.split()[0] == hashlib.sha256(image.read_bytes()[:4 << 20]).hexdigest()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a tap")
def test_network(initrd):
    """The tap reaches the device as a descriptor; its namespace has no interface."""
    script = f"ip addr add {GUEST}/24 dev eth0 && ip link set eth0 up && ping -c 3 -s 4000 {HOST}"
    done = vm.run(vm.command("small", initrd, script=script, cpus=2, options=[
        "-u", "--net", f"host-ip={HOST},netmask=255.255.255.0,mac={MAC},vhost=off,queues=2"])).check()
    assert " 0% packet loss" in done.output


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a tap")
@pytest.mark.skipif(not all(os.path.exists(f"/dev/vhost-{name}") for name in ("net", "vsock")),
                    reason="the host has no vhost-net or no vhost-vsock")
def test_devices_that_the_kernel_serves(initrd):
    """Only who sets the rings up is a process, jailed as the others are; it goes with the VM, and the VM with it."""
    script = (f"ip addr add {GUEST}/24 dev eth0 && ip link set eth0 up && ping -c 3 -s 4000 {HOST}; "
              "ls /sys/bus/virtio/drivers/vmw_vsock_virtio_transport; echo served; read line")
    argv = vm.command("small", initrd, script=script, options=[
        "-u", "--cid", "77", "--net", f"host-ip={HOST},netmask=255.255.255.0,mac={MAC},vhost=on"])
    with vm.piped(argv) as (process, console):
        said = vm.expect(console, "served")
        assert " 0% packet loss" in said and "virtio" in said
        found = vmm.device_processes(process.pid)
        for name in ("net", "vsock"):
            jails.check_jail(found[name], process.pid, jails.kernels_manifest(name))
        os.kill(found["vsock"], 9)
        assert process.wait(10) == vm.DEVICE
