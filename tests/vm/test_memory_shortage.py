# SPDX-License-Identifier: BSD-3-Clause
"""The host's memory runs out, in a memory cgroup: who dies then, how the VM ends, what is left, and what is on the disk."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import disks
import pytest
import vm
from disks import MIB

sys.path.append(str(vm.ROOT / "tests/kvm"))
import vmm  # noqa: E402

SMALL, LARGE, LESS = 80, 128, 32  # MiB; a guest that is up has touched 30
TOLD = 3  # numbers that are on the disk before memory runs out
SECONDS = 4 * vmm.PATIENCE  # from the kernel's first kill to the end of the VM

# Each number is on the disk when it is on the console. The rest waits for a line.
LOAD = """mount -t ext4 /dev/vda /mnt || exit 1
(n=0; while :; do n=$((n+1)); echo number $n | dd of=/mnt/f$n conv=fsync 2>/dev/null && echo "synced $n"; done) &
read line; """
# A vCPU touches new memory, or the device alone does, since cat moves no byte to /dev/null itself.
USE = {"vcpu": "mkdir /t; mount -t tmpfs -o size=100% t /t; dd if=/dev/zero of=/t/file bs=256k; wait",
       "device": "cat /dev/vda >/dev/null; wait"}
SOAK = pytest.mark.soak


class Group:
    """A memory cgroup of the host."""

    def __init__(self, path, limit="max"):
        path.mkdir()
        self.path = path
        (path / "memory.max").write_text(str(limit))
        if (path / "memory.swap.max").exists():
            (path / "memory.swap.max").write_text("0")
        # For vm.run() and vm.started(): all of the VM, from its start.
        self.wrapper = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(path / "cgroup.procs")]

    def add(self, pid):
        """What the process takes from now on counts here."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def kills(self):
        """How many processes the kernel killed since they had no memory."""
        return int(re.search(r"^oom_kill (\d+)$", (self.path / "memory.events").read_text(), re.MULTILINE)[1])

    def is_empty(self):
        return (self.path / "cgroup.procs").read_text() == ""


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """A directory for memory cgroups; to remove them is to see that nothing is left in them."""
    with disks.mounted(tmp_path_factory.mktemp("groups") / "cgroup", "-t", "cgroup2", "cgroup2") as place:
        control = place / "cgroup.subtree_control"
        on_before = "memory" in control.read_text().split()
        try:
            control.write_text("+memory")
        except OSError as error:
            pytest.skip(f"no memory cgroups of version 2 here: {error.strerror}")
        yield place
        for path in place.glob("crosvm-*"):
            path.rmdir()
        if not on_before:
            control.write_text("-memory")


@pytest.fixture
def new_group(groups):
    """A function that makes a cgroup with a limit."""
    return lambda *limit: Group(groups / f"crosvm-{os.getpid()}-{len(list(groups.glob('crosvm-*')))}", *limit)


@pytest.fixture
def image(tmp_path):
    """An empty ext4, larger than what the guest has left."""
    path = disks.sparse(tmp_path / "disk", LARGE * MIB)
    subprocess.run([disks.tool("mkfs.ext4"), "-q", "-F", path], check=True)
    return path


@pytest.fixture
def traces(tmp_path, monkeypatch):
    """A function that says where something may be left: mounts, shared memory, files other than sockets."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    return lambda: {*pathlib.Path("/proc/mounts").read_text().splitlines(), *os.listdir("/dev/shm"),
                    *(str(path) for path in tmp_path.rglob("*") if not path.is_socket())}


def command(initrd, image, script, *options, memory=SMALL, engine="uring"):
    """The command line of a VM with one disk and a control socket."""
    return vm.command("small", initrd, script=script, cpus=2, mem=str(memory), options=[
        "-s", str(image.parent / "vm.sock"), "-b", f"path={image},engine={engine}", *options])


def wait_for_end(guest, group):
    """The VM's status; it has some seconds after the kernel's first kill."""
    end = time.monotonic() + vm.TIMEOUT
    while group.kills() == 0 and guest.process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    status = guest.process.wait(SECONDS)
    assert group.kills() > 0, guest.messages()
    return status


def check_disk(image):
    """Whole after its journal's replay, and all that the guest was told to be there is there."""
    disks.check_ext4(image, replay=True)
    for number in range(1, TOLD + 1):
        assert disks.cat_ext4(image, f"/f{number}") == f"number {number}\n".encode()


def check_message(said, disk):
    """Of status 6: the device, its process, and the signal."""
    assert f"crosvm: device block: its process {disk} was ended by signal 9 (Killed)\n" in said
    assert "crosvm: the process of a device was lost" in said


def victims(pids):
    """Those of the processes that the kernel killed, in order."""
    log = subprocess.run(["dmesg"], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"emory cgroup out of memory: Killed process (\d+) ", log)
    return [int(pid) for pid in found if int(pid) in pids]


def check_nothing_left(group, traces, before):
    vmm.wait_until(group.is_empty)
    vmm.wait_until(lambda: traces() <= before)


# First, so that crosvm's own pages count for us, not for a group that would have to read them again and again.
@pytest.mark.parametrize("engine", ["uring", pytest.param("sync", marks=SOAK)])
def test_device_alone(initrd, image, traces, new_group, engine):
    """The process of a disk may have little; the others have what they want, and say what became of it."""
    group = new_group(8 * MIB)
    before = traces()
    with vm.started(command(initrd, image, LOAD + USE["device"], "-u", engine=engine)) as guest:
        guest.expect(f"synced {TOLD}")
        disk = vmm.device_processes(guest.pid)["block"]
        group.add(disk)
        guest.send("\n")
        assert wait_for_end(guest, group) == vm.DEVICE
        check_message(guest.messages(), disk)
        assert victims({guest.pid, disk}) == [disk]
    check_nothing_left(group, traces, before)
    assert not (image.parent / "vm.sock").exists()
    check_disk(image)


@pytest.mark.parametrize("options, use, memory", [
    pytest.param(("-u",), "vcpu", SMALL, id="jailed-vcpu"),
    pytest.param(("-u",), "device", LARGE, id="jailed-device", marks=SOAK),
    pytest.param((), "vcpu", SMALL, id="threads-vcpu", marks=SOAK),
    pytest.param((), "device", LARGE, id="threads-device", marks=SOAK),
])
def test_whole_vm(initrd, image, traces, new_group, options, use, memory):
    """The VM may have less than its guest: the kernel kills its largest process, and the VM is at its end."""
    group = new_group((memory - LESS) * MIB)
    before = traces()
    with vm.started(command(initrd, image, LOAD + USE[use], *options, memory=memory), wrapper=group.wrapper) as guest:
        guest.expect(f"synced {TOLD}")
        disk = vmm.device_processes(guest.pid).get("block")
        guest.send("\n")
        status = wait_for_end(guest, group)
        said = guest.messages()
    killed = victims({guest.pid, disk})
    assert killed[0] == (disk if disk is not None and use == "device" else guest.pid)
    # After the device's the main process may be killed too: the guest's memory is still there.
    if guest.pid in killed:
        assert status == -signal.SIGKILL
    else:
        assert status == vm.DEVICE
        check_message(said, disk)
    check_nothing_left(group, traces, before)
    check_disk(image)


# In KiB. The program, its start, the kernel in the guest's memory; it takes 32 MiB for all of them.
FEW = [1 << 10, 4 << 10, 16 << 10]
MANY = [int(256 * 1.15 ** step) for step in range(31)]


@pytest.mark.parametrize("options, limits", [
    pytest.param(("-u",), FEW, id="jailed"),
    pytest.param(("-u",), MANY, id="jailed-many", marks=SOAK),
    pytest.param((), MANY, id="threads-many", marks=SOAK),
    pytest.param(("-u", "--prealloc"), [(SMALL - LESS) << 10], id="jailed-prealloc", marks=SOAK),
    pytest.param(("--prealloc",), [(SMALL - LESS) << 10], id="threads-prealloc", marks=SOAK),
])
def test_start(initrd, image, traces, new_group, options, limits):
    """Less than a start takes: killed, or refused with a line; the next start is one as any other."""
    argv = command(initrd, image, "mount -t ext4 /dev/vda /mnt", *options)
    before = traces()
    for kib in limits:
        group = new_group(kib << 10)
        done = vm.run(argv, wrapper=group.wrapper, timeout=SECONDS)
        assert group.kills() > 0, (kib, done.last_words())
        assert done.status in (-signal.SIGKILL, vm.HOST, vm.DEVICE), (kib, done.last_words())
        assert done.status == -signal.SIGKILL or done.stderr.startswith("crosvm: "), (kib, done.last_words())
        assert vm.UP not in done.console
        check_nothing_left(group, traces, before)
    if limits is not FEW:  # which has no time for it
        vm.run(argv).check()
