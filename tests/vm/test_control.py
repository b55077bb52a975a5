# SPDX-License-Identifier: BSD-3-Clause
"""The control socket with a Linux guest: the power button, and suspensions that Linux hardly notices."""
import contextlib
import json
import os
import random
import re
import subprocess
import threading
import time

import disks
import pytest
import vm

MIB = 1 << 20

# Waits until the power button's key comes, then goes; guest/init powers off. Opened before it says so,
# since the kernel keeps no event for who comes later.
BUTTON = """event=$(basename "$(dirname "$(grep -l 'Power Button' /sys/class/input/event*/device/name | head -n 1)" | xargs dirname)")
exec 3<"/dev/input/$event"
echo "waiting for $event"
head -c 24 <&3 >/key && echo pressed
"""


@pytest.fixture(name="path")
def socket_path(tmp_path):
    return str(tmp_path / "vm.sock")


def crosvm(*arguments):
    return subprocess.run([vm.CROSVM, *arguments], check=True, capture_output=True, text=True, timeout=30).stdout


def state(path):
    return json.loads(crosvm("status", "--json", path))["state"]


@pytest.mark.parametrize("cpus", [1, 2])
def test_power_button(initrd, path, cpus):
    with vm.started("small", initrd, script=BUTTON, cpus=cpus, options=["-s", path]) as guest:
        guest.expect("waiting for event")
        crosvm("powerbtn", path)
        guest.expect("pressed")
        guest.end(says=vm.POWERED_OFF, timeout=30)
    assert not os.path.lexists(path)


@pytest.mark.parametrize("kernel, cpus", [("small", 2), pytest.param("cloud-6.1", 1, marks=pytest.mark.soak)])
def test_suspend_ten_seconds(initrd, path, kernel, cpus, record_property):
    """The clocks went on, the shell answers, no watchdog barks, and what the serial line carried is whole."""
    with vm.started(kernel, initrd, cpus=cpus, options=["-s", path]) as guest:
        guest.expect(vm.PROMPT)
        # The watchdog of those kernels that have one barks after twice as many seconds, at what is busy.
        guest.ask("echo 2 >/proc/sys/kernel/watchdog_thresh; dmesg -c >/seen")
        guest.ask("(while :; do :; done) &")
        clock = guest.ask("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
        record_property("clocksource", clock)
        # A timer that runs out meanwhile, and one that does not; no jobs of the shell's, which it would tell of.
        guest.ask("( (sleep 3; echo short) >/short & (sleep 14; echo long) >/long & )")
        skew = int(guest.ask("date +%s")) - time.time()
        uptime = float(guest.ask("cut -d ' ' -f 1 /proc/uptime"))
        start = time.monotonic()
        lines = [str(number) for number in range(1000, 1500)]
        guest.send("stty -echo; seq 1000 1499; stty echo\n")
        guest.expect("\n1100\r")
        crosvm("suspend", path)
        assert state(path) == "suspended"
        guest.send("echo typed mean''while\n")
        time.sleep(10)
        crosvm("resume", path)
        assert guest.expect(vm.PROMPT).split() == lines[101:]
        guest.expect("typed meanwhile")
        guest.expect(vm.PROMPT)
        assert guest.ask("cat /short").startswith("short")
        passed = float(guest.ask("cut -d ' ' -f 1 /proc/uptime")) - uptime
        assert abs(passed - (time.monotonic() - start)) < 3, clock
        assert abs(int(guest.ask("date +%s")) - time.time() - skew) < 4, clock
        time.sleep(max(0, 16 - (time.monotonic() - start)))
        assert guest.ask("until grep . /long; do sleep 1; done").startswith("long")  # and the shell tells of its jobs
        assert guest.ask("dmesg | grep -iE 'lockup|stall|hung|blocked for'; true") == ""
        crosvm("stop", path)
        guest.end()


COPIES = """for i in 1 2 3 4 5 6; do
	head -c 2000000 /dev/urandom >/data
	dd if=/data of=/dev/vda bs=64k conv=fsync 2>/dev/null || exit 1
	dd if=/dev/vda bs=128k iflag=direct 2>/dev/null | head -c 2000000 | cmp - /data || exit 1
	dd if=/dev/hwrng of=/dev/null bs=512 count=20 2>/dev/null || exit 1
	echo "copied $i"
done
sha256sum /data
"""


def test_suspend_under_load(initrd, path, tmp_path, record_property):
    """Disk and entropy under way, held at 100 moments or so; each byte arrives, and the last ones stay."""
    image = disks.sparse(tmp_path / "disk.img", 4 * MIB)
    options = ["-s", path, "-b", f"{image},queues=2"]
    chance = random.Random(1)
    done = threading.Event()
    slowest = [0.0, 0]

    def suspend_and_resume():
        while not done.wait(chance.random() * 0.2):
            with contextlib.suppress(subprocess.CalledProcessError):
                start = time.monotonic()
                crosvm("suspend", path)
                slowest[0] = max(slowest[0], time.monotonic() - start)
                slowest[1] += 1
                time.sleep(chance.random() * 0.05)
                crosvm("resume", path)

    with vm.started("small", initrd, script=COPIES, cpus=2, options=options) as guest:
        thread = threading.Thread(target=suspend_and_resume)
        thread.start()
        try:
            said = guest.expect("crosvm-init: exit status ")
        finally:
            done.set()
            thread.join()
        assert said.count("copied") == 6, said
        guest.end(says=vm.POWERED_OFF, timeout=30)
    digest = re.search(r"^([0-9a-f]{64})  /data", said, re.MULTILINE)[1]
    data = image.read_bytes()[:2000000]
    assert subprocess.run(["sha256sum"], input=data, capture_output=True, check=True).stdout.decode().startswith(digest)
    assert slowest[1] >= 5
    print(f"{slowest[1]} suspensions, the slowest {slowest[0] * 1000:.0f} ms with its process")
    record_property("suspensions", slowest[1])


@pytest.mark.parametrize("options", vm.THREADS_IN_SOAK)
def test_disk_resize(initrd, path, tmp_path, options):
    """Linux sees the new size at once, without asking, while it writes; what is new can be used."""
    image = disks.sparse(tmp_path / "disk.img", 4 * MIB)
    with vm.started("small", initrd, cpus=2, options=["-s", path, "-b", str(image), *options]) as guest:
        guest.expect(vm.PROMPT)
        guest.ask("w() { dd if=/dev/zero of=/dev/vda bs=64k count=16 conv=fsync; }")
        guest.ask("(while w 2>/dev/null; do :; done) &")
        guest.ask("sees() { grep -qx $1 /sys/block/vda/size || { sleep 0.1; false; }; }")
        for mib in (64, 2, 16):
            crosvm("disk", "resize", "0", f"{mib}M", path)
            guest.ask(f"for n in $(seq 99); do sees {mib * 2048} && break; done")
            assert guest.ask("cat /sys/block/vda/size") == str(mib * 2048)
        guest.ask("echo the end | dd of=/dev/vda bs=512 seek=32767 conv=sync,fsync")
        crosvm("stop", path)
        guest.end()
    data = image.read_bytes()
    assert len(data) == 16 * MIB and data[-512:].startswith(b"the end\n")


# fio writes the first 4 MiB at random and checks each block; the fifth is written in order, and known.
LOAD = disks.MOUNT_FIO + """head -c 1048576 /dev/urandom >/data
(while :; do dd if=/dev/hwrng of=/dev/null bs=4096 count=20 2>/dev/null; done) &
(while chroot /mnt /usr/bin/fio --verify_state_save=0 --filename=/dev/vda --ioengine=libaio --direct=1 --iodepth=16 \\
	--size=4m --rw=randwrite --bsrange=4k-64k --verify=crc32c --verify_fatal=1 --minimal --name=load >/fio; do echo verified; done
cat /fio; echo failed) &
while dd if=/data of=/dev/vda bs=64k seek=64 conv=fsync 2>/dev/null &&
	dd if=/dev/vda bs=64k skip=64 count=16 iflag=direct 2>/dev/null | cmp - /data
do sha256sum /data; done
echo failed
"""


@pytest.mark.parametrize("options", vm.THREADS_IN_SOAK)
def test_every_verb_under_load(initrd, fio, path, tmp_path, options):
    """Disk and entropy are busy all the time; what was written before the end is there after it."""
    image = disks.sparse(tmp_path / "disk.img", 8 * MIB)
    with vm.started("small", initrd, script=LOAD, cpus=2, options=[
            "-s", path, "-b", str(image), "-d", str(fio), "--balloon", "size=0", *options]) as guest:
        guest.expect("verified")
        with subprocess.Popen([vm.CROSVM, "events", path], stdout=subprocess.PIPE) as listener:
            for _ in range(3):
                for words in (["suspend"], ["status"], ["resume"], ["status", "--json"], ["version"], ["powerbtn"],
                              ["balloon", "20"], ["disk", "resize", "0", "16M"], ["balloon_stats"], ["balloon", "0"],
                              ["disk", "resize", "0", "8M"]):
                    crosvm(*words, path)
                guest.expect("verified")
                digest = re.search(r"([0-9a-f]{64})", guest.expect("  /data"))[1]
            crosvm("stop", path)
            events = [json.loads(line)["event"] for line in listener.stdout]
        guest.end()
        assert "failed" not in guest.console.before
    assert events == ["boot"] + ["suspended", "resumed"] * 3 + ["stopped"]
    with subprocess.Popen(["sha256sum"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False) as process:
        out, _ = process.communicate(image.read_bytes()[4 * MIB:5 * MIB])
    assert out.decode().startswith(digest)


SLOW_DISK = """while dd if=/dev/urandom of=/dev/vda bs=64k count=4 conv=fsync 2>/dev/null; do echo written; done
echo failed
"""


@contextlib.contextmanager
def frozen(mount):
    """The host's disk takes no write meanwhile."""
    subprocess.run(["fsfreeze", "-f", mount], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", mount], check=True)


@pytest.fixture
def ext4(tmp_path):
    """A directory on a file system of its own, which can be frozen."""
    host_disk = disks.sparse(tmp_path / "host", 32 * MIB)
    subprocess.run([disks.tool("mkfs.ext4"), "-q", "-F", host_disk], check=True)
    with disks.mounted(tmp_path / "mount", "-o", "loop", host_disk) as mount:
        yield mount


@pytest.mark.parametrize("options", vm.THREADS_IN_SOAK)
def test_a_slow_disk_is_not_lost(initrd, path, ext4, options):
    """What is in flight takes the host longer than a device may take to answer: no suspension, and no harm."""
    image = disks.sparse(ext4 / "disk.img", 4 * MIB)
    with vm.started("small", initrd, script=SLOW_DISK, options=["-s", path, "-b", str(image), *options]) as guest:
        guest.expect("written")
        with frozen(ext4):
            time.sleep(1)  # until the guest has something in flight
            for words in (["suspend"], ["disk", "resize", "0", "2M"]):
                said = subprocess.run([vm.CROSVM, *words, path], capture_output=True, text=True, timeout=30, check=False)
                assert said.returncode == 1 and "try again" in said.stderr, said
                assert state(path) == "running"
            time.sleep(2)  # with that, longer than the credit
        guest.expect("written")
        crosvm("suspend", path)
        crosvm("resume", path)
        guest.expect("written")
        crosvm("stop", path)
        guest.end()
        assert "failed" not in guest.console.before
