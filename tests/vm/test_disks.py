# SPDX-License-Identifier: BSD-3-Clause
"""Linux guests on disks: roots, data, sizes, many disks, disks that fail, and VMs that die on them."""
import json
import os
import re
import subprocess
import time

import disks
import pytest
import vm
from disks import MIB, attached, command

# What a boot costs the host; doc/benchmarks.md tells what they are.
EXITS_MAX = 500


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return disks.make_tree(tmp_path_factory.mktemp("root") / "tree")


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """An initramfs for Debian's kernel: all that makes a disk are modules there."""
    modules = os.path.join(os.path.dirname(vm.kernel("cloud-6.1")), "modules")
    path = tmp_path_factory.mktemp("stock") / "initrd.gz"
    return vm.make_initramfs(path, "-m", modules, "virtio_pci", "virtio_blk", "ext4")


# ---- root file systems ------------------------------------------------------------


@pytest.mark.parametrize("kind, kernel", [("squashfs", "small"), ("erofs", "small-vmlinux")])
def test_read_only_root(tree, tmp_path, kind, kernel):
    """-r alone: the kernel finds its root, read-only, and no write reaches the image."""
    image = disks.make_root(kind, tree, tmp_path / "root.img")
    size = image.stat().st_size
    # A root is a whole number of blocks, or its tail would be lost.
    if size % 512:
        os.truncate(image, size + 512 - size % 512)
    before = image.read_bytes()
    script = "grep ' / ' /proc/mounts; cat /proc/cmdline /sys/block/vda/ro; touch /x && exit 1; true"
    done = vm.run(command(kernel, "-r", image, script=script)).check()
    assert re.search(rf"^/dev/root / {kind} ro", done.output, re.MULTILINE), done.last_words()
    assert " root=/dev/vda ro " in done.output
    assert "\n1\n" in done.output
    assert image.read_bytes() == before


def test_writable_root(tree, tmp_path):
    """--rwroot among other disks: what the guest writes is there, the file system is clean, and root= names it."""
    image = disks.make_root("ext4", tree, tmp_path / "root.img")
    other = disks.numbered(tmp_path / "other.img", 1)
    script = "cat /proc/cmdline; echo hello from the guest >/etc/mark; mount -o remount,ro / && sync"
    done = vm.run(command("small", "--disk", other, "--rwroot", image, script=script)).check()
    assert " root=/dev/vdb rw " in done.output
    disks.check_ext4(image)
    assert disks.cat_ext4(image, "/etc/mark") == b"hello from the guest\n"


def test_snapshot(tree, tmp_path, monkeypatch):
    """A root that is written, on an image that is not: nothing is left of the writes, also after kill -9."""
    image = disks.make_root("ext4", tree, tmp_path / "root.img")
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setenv("TMPDIR", str(room))
    before = image.read_bytes()
    script = """grep ' / ' /proc/mounts; dd if=/dev/urandom of=/big bs=64k count=64 2>/dev/null
echo hello >/etc/mark && sync && echo 3 >/proc/sys/vm/drop_caches && cat /etc/mark && md5sum /big /big && sleep 1000"""
    with vm.Guest(command("small", *attached(image, root="true", snapshot="true"), script=script)) as guest:
        assert "/dev/root / ext4 rw" in guest.expect("hello")
        guest.expect("/big")
        guest.expect("/big")
        held = sum(os.stat(f"/proc/{guest.pid}/fd/{fd}").st_blocks * 512 for fd in os.listdir(f"/proc/{guest.pid}/fd")
                   if os.readlink(f"/proc/{guest.pid}/fd/{fd}").startswith(str(room)))
        assert held >= 4 * MIB
        assert not list(room.iterdir())
    # It was killed with kill -9.
    assert not list(room.iterdir())
    assert image.read_bytes() == before


def test_root_by_parameter(tree, tmp_path):
    """crosvm run --rwdisk root.ext4 -p "root=/dev/vda" vmlinux"""
    image = disks.make_root("ext4", tree, tmp_path / "root.img")
    done = vm.run(command("small-vmlinux", "--rwdisk", image, params="root=/dev/vda",
                          script="grep ' / ' /proc/mounts; echo x >/y && mount -o remount,ro /")).check()
    assert "/dev/root / ext4 rw" in done.output  # the default of a vmlinux
    disks.check_ext4(image)
    assert disks.cat_ext4(image, "/y") == b"x\n"


@pytest.mark.parametrize("init", ["/sbin/agetty", pytest.param("systemd", marks=pytest.mark.soak)])
def test_stock_debian_to_a_login(tmp_path, init):
    """Debian as it is installed: its own kernel and initrd, an ext4 root that it writes to, and root logs in."""
    image, root = vm.debian.cache() / "debian-bookworm", tmp_path / "root.ext4"
    if not image.exists():
        pytest.skip("no Debian: run guest/fetch-debian")
    subprocess.run(["cp", "--sparse=always", image / "root.ext4", root], check=True)
    words = [] if init == "systemd" else ["-p", f"init={init} -- 115200 ttyS0"]
    argv = [vm.CROSVM, "run", "-m", "512", "-c", "2", "-i", str(image / "initrd.img"), *words, "--rwroot", str(root),
            str(image / "vmlinuz")]
    with vm.Guest(argv) as guest:
        guest.expect(" login: ", timeout=5 * vm.TIMEOUT)
        guest.send("root\n")
        guest.expect(":~# ")
        guest.send("grep ' / ' /proc/mounts; echo x >/x && sync && echo written to the ro''ot\n")
        assert "/dev/vda / ext4 rw" in guest.expect("written to the root")
        guest.send("systemctl poweroff -ff\n")
        guest.end(says=vm.POWERED_OFF, timeout=vm.TIMEOUT)


# ---- data -----------------------------------------------------------------------------

# Four writers at once, each with its quarter of the disk and its size of request, direct and through the
# guest's cache; then all is read back around the cache.
COPY = """cd /dev
writer() {{ dd if=vdb of=vda bs=$1 skip=$(($2*Q/$1)) seek=$(($2*Q/$1)) count=$((Q/$1)) conv=notrunc $3 2>/dev/null || echo bad $*; }}
Q={quarter}
writer 4096 0 oflag=direct & writer 512 1 & writer 65536 2 oflag=direct & writer 1048576 3 conv=fsync &
wait
sync; echo 3 >/proc/sys/vm/drop_caches
cmp vda vdb && echo same
ls /sys/block/vda/mq
"""


def copies():
    for kernel in ("small", "cloud-6.1"):
        for queues in (1, 4):
            for cpus in (1, 4):
                for engine in ("uring", "sync"):
                    sampled = (kernel, queues, cpus, engine) in [("small", 1, 1, "uring"), ("small", 4, 4, "uring"),
                                                                 ("small", 4, 4, "sync"), ("cloud-6.1", 4, 4, "uring")]
                    yield pytest.param(kernel, queues, cpus, engine, marks=[] if sampled else [pytest.mark.soak])


@pytest.mark.parametrize("kernel, queues, cpus, engine", copies())
def test_data(request, initrd, tmp_path, kernel, queues, cpus, engine):
    size = 4 * MIB
    source = disks.noise(tmp_path / "source", size, queues * cpus)
    target = disks.sparse(tmp_path / "target", size)
    ramdisk = request.getfixturevalue("stock") if kernel == "cloud-6.1" else initrd
    options = attached(target, queues=queues, engine=engine) + ["--disk", str(source)]
    done = vm.run(kernel, ramdisk, script=COPY.format(quarter=size // 4), cpus=cpus, mem="512", options=options).check()
    assert "same" in done.output and "bad" not in done.output, done.last_words()
    assert done.output.split("same\n")[1].split() == [str(n) for n in range(min(queues, cpus))]
    assert target.read_bytes() == source.read_bytes()


# Writes at random, asynchronously, each block with its checksum; then all of it is read and checked.
VERIFY = disks.MOUNT_FIO + """chroot /mnt /usr/bin/fio --verify_state_save=0 --thread --filename=/dev/vda \\
--ioengine=libaio --direct=1 --iodepth=32 --numjobs={cpus} --size={size} --offset_increment={size} --rw=randwrite \\
--bsrange=512-16k --bs_unaligned=0 --blockalign=512 --verify=crc32c --verify_fatal=1 --group_reporting --minimal \\
--name=verify >/dev/null && echo verified
"""


@pytest.mark.parametrize("queues, cpus, snapshot", [
    (1, 1, False), (1, 4, False), (4, 1, False), (4, 4, False), pytest.param(4, 4, True, marks=pytest.mark.soak)])
def test_fio_verifies(initrd, fio, tmp_path, queues, cpus, snapshot):
    image = disks.noise(tmp_path / "disk", 8 * MIB, 1)
    before = image.read_bytes()
    words = {"snapshot": "true"} if snapshot else {}
    done = vm.run("small", initrd, script=VERIFY.format(cpus=cpus, size=8 * MIB // cpus), cpus=cpus, mem="512",
                  options=attached(image, queues=queues, **words) + ["--disk", str(fio)]).check()
    assert "verified" in done.output, done.last_words()
    assert (image.read_bytes() == before) == snapshot


def test_discard_frees_blocks_of_the_host(initrd, tmp_path):
    image = disks.noise(tmp_path / "disk", 8 * MIB, 1)
    before = image.read_bytes()
    script = "blkdiscard -o 1048576 -l 4194304 /dev/vda && dd if=/dev/vda bs=1M skip=1 count=4 2>/dev/null | tr -d '\\0' | wc -c"
    allocated = disks.allocated(image)
    done = vm.run("small", initrd, script=script, options=["--rwdisk", str(image)]).check()
    assert done.output.strip() == "0"
    assert allocated - disks.allocated(image) == 4 * MIB
    after = image.read_bytes()
    assert after[:MIB] == before[:MIB] and after[5 * MIB:] == before[5 * MIB:] and not any(after[MIB:5 * MIB])


def test_sparse_false_keeps_blocks(initrd, tmp_path):
    image = disks.noise(tmp_path / "disk", 4 * MIB, 1)
    allocated = disks.allocated(image)
    script = "blkdiscard /dev/vda 2>/dev/null; cat /sys/block/vda/queue/discard_max_bytes"
    done = vm.run("small", initrd, script=script, options=attached(image, sparse="false")).check()
    assert done.output.strip() == "0"
    assert disks.allocated(image) == allocated


# ---- what the guest sees ------------------------------------------------------------------

LOOK = """cd /sys/block
for d in vd?; do echo "=== $d"; for f in ro size serial queue/logical_block_size queue/physical_block_size cache_type; do
echo $f $(cat $d/$f); done; done
echo "=== writes"
echo x 2>/dev/null >/dev/vda && echo vda written
blkdiscard /dev/vda 2>/dev/null && echo vda discarded
echo write through >vdb/cache_type && cat vdb/cache_type
dd if=/dev/zero of=/dev/vdb bs=4k count=4 oflag=direct 2>/dev/null && echo vdb written
"""


def test_options_reach_the_guest(initrd, tmp_path):
    """Read-only is read-only also for root; id, sizes and the write cache are what was asked for."""
    first = disks.noise(tmp_path / "first", 64 << 10, 1)
    second = disks.noise(tmp_path / "second", MIB, 2)
    before = first.read_bytes()
    options = ["--disk", str(first), *attached(second, id="disk-with-an-id-20ch", block_size=4096)]
    done = vm.run("small", initrd, script=LOOK, options=options).check()
    found = vm.sections(done.output)
    assert found["vda"] == ["ro 1", "size 128", "serial", "queue/logical_block_size 512",
                            "queue/physical_block_size 4096", "cache_type write back"]
    assert found["vdb"] == ["ro 0", "size 2048", "serial disk-with-an-id-20ch", "queue/logical_block_size 4096",
                            "queue/physical_block_size 4096", "cache_type write back"]
    assert found["writes"] == ["write through", "vdb written"]
    assert first.read_bytes() == before
    assert not any(second.read_bytes()[:16384])


def letters(index):
    name = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        name = chr(ord("a") + rest) + name
    return f"vd{name}"


@pytest.mark.parametrize("count", [30, pytest.param(40, marks=pytest.mark.soak)])
def test_many_disks_in_order(initrd, tmp_path, count):
    images = [disks.numbered(tmp_path / f"disk{number}", number) for number in range(count)]
    options = [word for image in images for word in ("--disk", str(image))]
    script = "for d in /sys/block/vd*; do n=${d##*/}; echo $n $(head -c 8 /dev/$n); done"
    done = vm.run("small", initrd, script=script, options=options).check()
    assert sorted(done.output.split("\n")[:-1]) == sorted(f"{letters(n)} {n}" for n in range(count))


# ---- two VMs, full disks, dead VMs ------------------------------------------------------------


def test_one_writer_an_image(initrd, tmp_path):
    image = disks.sparse(tmp_path / "disk", MIB)
    with vm.started("small", initrd, options=["--rwdisk", str(image)]) as guest:
        guest.expect(vm.PROMPT)
        for option in ("--rwdisk", "--disk"):
            done = vm.run("small", initrd, script=":", options=[option, str(image)])
            assert done.status == vm.HOST
            assert done.console == ""
            assert f"disk '{image}' is in use by another VM (process {guest.pid}); stop it" in done.stderr
            assert done.stderr.count("\n") == 1
    vm.run("small", initrd, script=":", options=["--rwdisk", str(image)]).check()


@pytest.fixture
def small_file_system(tmp_path):
    """A directory with room for 2 MiB."""
    with disks.mounted(tmp_path / "full", "-t", "tmpfs", "-o", "size=2M", "tmpfs") as place:
        yield place


FILL = """dd if=/dev/zero of=/dev/vda bs=64k oflag=direct 2>&1 | grep -c 'rror'
dd if=/dev/vda of=/dev/null bs=64k iflag=direct count=4 2>/dev/null && echo read
blkdiscard /dev/vda && dd if=/dev/zero of=/dev/vda bs=64k count=16 oflag=direct 2>/dev/null && echo room again"""


def fill(initrd, *options):
    """The guest sees I/O errors, and goes on."""
    done = vm.run("small", initrd, script=FILL, params="loglevel=0", options=options).check()
    assert done.output.split("\n")[:3] == ["1", "read", "room again"], done.last_words()


def test_full_host_disk_is_an_io_error(initrd, small_file_system):
    """A sparse image outgrows its file system."""
    fill(initrd, "--rwdisk", str(disks.sparse(small_file_system / "disk", 8 * MIB)))


def test_full_block_device_is_an_io_error(initrd, small_file_system):
    """A block device of the host that cannot take what its size promises."""
    with disks.loop_device(disks.sparse(small_file_system / "disk", 8 * MIB)) as device:
        fill(initrd, "-b", f"{device},direct")


# Each number is on the disk when it is on the console.
LOAD = """mount -t ext4 /dev/vda /mnt || exit 1
(while :; do dd if=/dev/zero of=/mnt/big bs=64k count=64 2>/dev/null; rm /mnt/big; done) &
n=0; while :; do n=$((n+1)); echo number $n | dd of=/mnt/f$n conv=fsync 2>/dev/null && echo "synced $n"; done"""


@pytest.mark.parametrize("count, engine", [(8, "uring"), pytest.param(25, "uring", marks=pytest.mark.soak),
                                           pytest.param(25, "sync", marks=pytest.mark.soak)])
def test_killed_under_load(initrd, tmp_path, count, engine):
    """kill -9: the journal replays, the file system is clean, and all that was told to be on the disk is."""
    image = disks.sparse(tmp_path / "disk", 24 * MIB)
    subprocess.run([disks.tool("mkfs.ext4"), "-q", "-F", image], check=True)
    with vm.started("small", initrd, script=LOAD, cpus=2, options=attached(image, engine=engine)) as guest:
        guest.expect(f"synced {count}")
        guest.process.kill()
        guest.process.wait()
    disks.check_ext4(image, replay=True)
    for number in range(1, count + 1):
        assert disks.cat_ext4(image, f"/f{number}") == f"number {number}\n".encode()


def test_made_and_checked_after_a_stop(initrd, tmp_path):
    """SIGTERM in the middle of writes: it ends at once, and the journal makes the file system whole."""
    image = disks.sparse(tmp_path / "disk", 24 * MIB)
    subprocess.run([disks.tool("mkfs.ext4"), "-q", "-F", image], check=True)
    with vm.started("small", initrd, script=LOAD, cpus=2, options=["--rwdisk", str(image)]) as guest:
        guest.expect("synced 3")
        start = time.monotonic()
        guest.process.terminate()
        guest.end()
        assert time.monotonic() - start < 5
    disks.check_ext4(image, replay=True)


def test_a_file_cut_under_the_guest(initrd, tmp_path):
    """The image shrinks while the guest runs: I/O errors behind its new end, the rest works, nobody dies."""
    image = disks.noise(tmp_path / "disk", 4 * MIB, 1)
    with vm.started("small", initrd, params="loglevel=0", options=["--rwdisk", str(image)]) as guest:
        guest.expect(vm.PROMPT)
        os.truncate(image, MIB)
        assert "rror" in guest.ask("dd if=/dev/vda of=/dev/null bs=64k skip=32 count=1 iflag=direct")
        assert "rror" not in guest.ask("dd if=/dev/vda of=/dev/null bs=64k count=1 iflag=direct")
        # The file is whole again, and so is the disk.
        os.truncate(image, 4 * MIB)
        assert "rror" not in guest.ask("dd if=/dev/vda of=/dev/null bs=64k skip=32 count=1 iflag=direct")
        guest.send("exit\n")
        guest.end(says=vm.POWERED_OFF, timeout=vm.TIMEOUT)


# As guest/init, but it says nothing before the disk is there.
SILENT_INIT = f"""#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev 2>/dev/null
while read -r module; do insmod "$module"; done </lib/modules/order
test -b /dev/vda && echo {vm.UP} >/dev/console
while :; do sleep 3600; done
"""


@pytest.mark.parametrize("kernel", ["cloud-6.12", "cloud-6.1"])
def test_exits_of_a_boot(tmp_path, kernel):
    """A stock kernel with one disk, quiet: how often it needs the VMM until its init has found the disk."""
    image, init, path = disks.numbered(tmp_path / "disk.img", 1), tmp_path / "init", str(tmp_path / "vm.sock")
    init.write_text(SILENT_INIT)
    modules = os.path.join(os.path.dirname(vm.kernel(kernel)), "modules")
    initrd = vm.make_initramfs(tmp_path / "initrd.gz", "-i", init, "-m", modules, "virtio_pci", "virtio_blk")
    with vm.piped(vm.command(kernel, initrd, options=("-s", path, "--disk", image))):
        status = subprocess.run([vm.CROSVM, "status", "--json", path], check=True, capture_output=True, text=True)
    exits = json.loads(status.stdout)["exits"]
    print(exits)
    assert exits["port"] + exits["mmio"] <= EXITS_MAX
