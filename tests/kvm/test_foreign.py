# SPDX-License-Identifier: BSD-3-Clause
"""Devices that other programs serve (--vhost-user): qemu-storage-daemon and passt, which we did not write, and crosvm device."""
import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import front_end
import jails
import pytest
import test_hostile_virtio as disks
import test_hostile_vsock
import vmm
from netns import own_network

BYTES = disks.SECTORS * disks.SECTOR


def wait_for_socket(path, back_end):
    end = time.monotonic() + 10
    while not os.path.exists(path):
        assert back_end.poll() is None and time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def running(argv, *paths, **kwargs):
    """A back end; ended at the end."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, **kwargs) as back_end:
        try:
            for path in paths:
                wait_for_socket(path, back_end)
            yield back_end
        finally:
            back_end.kill()


@contextlib.contextmanager
def storage_daemon(directory, queues=2):
    """QEMU's, with two disks: paths of their sockets, and who serves the second."""
    if shutil.which("qemu-storage-daemon") is None:
        pytest.skip("no qemu-storage-daemon: install qemu-system-common")
    argv, paths = ["qemu-storage-daemon"], []
    for name, writable in (("ro", False), ("rw", True)):
        image, path = directory / f"{name}.img", directory / f"{name}.sock"
        argv += ["--blockdev", f"driver=file,node-name={name},filename={image},read-only={'off' if writable else 'on'}",
                 "--export", f"type=vhost-user-blk,id=export-{name},node-name={name},addr.type=unix,addr.path={path},"
                 f"writable={'on' if writable else 'off'},num-queues={queues}"]
        paths.append(path)
    with running(argv, *paths) as daemon:
        yield paths, daemon


@contextlib.contextmanager
def device(name, path, *spec, **kwargs):
    with running([vmm.CROSVM, "device", name, "--socket-path", path, *spec], path, **kwargs) as back_end:
        yield back_end


@contextlib.contextmanager
def our_disks(directory):
    paths = [directory / "ro.sock", directory / "rw.sock"]
    with device("block", paths[0], f"path={directory / 'ro.img'},ro"), \
         device("block", paths[1], f"path={directory / 'rw.img'},queues=2") as back_end:
        yield paths, back_end


@pytest.fixture
def images(tmp_path):
    for name in ("ro.img", "rw.img"):
        (tmp_path / name).write_bytes(disks.IMAGE)
    return tmp_path


def driving(paths, *options):
    """A guest that writes, reads and compares."""
    words = [word for path in paths for word in ("--vhost-user", f"type=block,socket={path}")]
    return vmm.command("drive", "disk", *words, *options, params="victim=blk")


def go_on(process, until):
    process.stdin.write(b"x")
    process.stdin.flush()
    return vmm.read_until(process.stdout, until)


@pytest.mark.parametrize("back_end", [storage_daemon, our_disks])
def test_disks(images, back_end):
    """A guest's disks: also over resets, suspends, and the next VM's; what is written is in the image."""
    control = str(images / "vm.sock")
    with back_end(images) as (paths, _):
        for _ in range(2):
            with vmm.started(driving(paths, "-s", control), until=b"begin\n", stdin=-1) as process:
                go_on(process, b"\n50 rounds")
                for verb in ("suspend", "resume") * 5:
                    assert vmm.run([vmm.CROSVM, verb, control]).returncode == vmm.OK
                vmm.read_until(process.stdout, b" rounds")
                go_on(process, b"end\n")
                go_on(process, b"PASS disk")
                assert process.wait(10) == vmm.OK
                assert process.stderr.read().decode().startswith(vmm.POWERED_OFF)
    assert (images / "ro.img").read_bytes() == disks.IMAGE
    written, first = (images / "rw.img").read_bytes(), 64 * disks.SECTOR  # tests/guest/drive.c
    last = first + 16 * 32 * disks.SECTOR
    assert written[:first] + written[last:] == disks.IMAGE[:first] + disks.IMAGE[last:]
    assert written[first:last] != disks.IMAGE[first:last]


def test_more_queues_than_there_can_be(images):
    """Those that a device has beyond 16 are left alone."""
    with storage_daemon(images, queues=64) as (paths, _), vmm.started(driving(paths), until=b"begin\n", stdin=-1) as process:
        go_on(process, b" rounds")
        go_on(process, b"end\n")
        go_on(process, b"PASS disk")
        assert process.wait(10) == vmm.OK


@pytest.mark.skipif(vmm.SANITIZED, reason="test_disks is enough")
def test_a_hostile_guest(images):
    """Its driver breaks every rule before a back end of ours, as in test_hostile_virtio.py."""
    with our_disks(images) as (paths, _):
        words = [word for path in paths for word in ("--vhost-user", f"type=block,socket={path}")]
        argv = vmm.command("hostile_dev", "requests", *words, params="victim=blk")
        done = vmm.run(argv, input=b"xx")
        assert "PASS requests" in done.stdout, done.stderr
    disks.check_disks(images / "ro.img", images / "rw.img")


def test_entropy(images):
    """The one device without a configuration space: the guest asks both that it has."""
    path = images / "rng.sock"
    with device("rng", path):
        argv = [vmm.CROSVM, "run", "-m", "128", "--vhost-user", f"type=rng,socket={path}", "-p", "test=rng victim=rng",
                vmm.guest("hostile_dev")]
        done = vmm.run(argv, input=b"xx")
        assert "PASS rng" in done.stdout, done.stderr


# ---- networks ----

ADDRESS = "192.0.2.1"  # which the guest asks for


def passt_with_rings():
    """The host's, or the one of guest/fetch-passt."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    for program in (shutil.which("passt"), cache / "crosvm/passt-trixie/run/passt"):
        if program and os.path.exists(program) and "--vhost-user" in "".join(vmm.run([program, "--help"]).stdout):
            return program
    return pytest.skip("no passt that speaks vhost-user: run guest/fetch-passt")


def listens(path):
    """Its file is there before; and a connection that ends is one that passt would serve."""
    lines = pathlib.Path("/proc/thread-self/net/unix").read_text().splitlines()
    return any(line.endswith(f" {path}") and line.split()[3] == "00010000" for line in lines)


@contextlib.contextmanager
def passt(path):
    """In a network where nothing else is: it answers for all addresses."""
    with running([passt_with_rings(), "--vhost-user", "--socket", path, "--foreground", "--quiet", "--address", "192.0.2.2",
                  "--netmask", "24", "--gateway", ADDRESS], path, stderr=subprocess.DEVNULL):
        vmm.wait_until(lambda: listens(path))
        yield


@contextlib.contextmanager
def our_card(path):
    """On a given tap, behind which the kernel answers."""
    with os.fdopen(os.open("/dev/net/tun", os.O_RDWR), "r+b", buffering=0) as tap:
        fcntl.ioctl(tap, jails.TUNSETIFF, struct.pack("16sH22x", b"alone0", jails.IFF_TAP | jails.IFF_NO_PI | jails.IFF_VNET_HDR))
        for words in (["addr", "add", f"{ADDRESS}/24", "dev", "alone0"], ["link", "set", "alone0", "up"]):
            subprocess.run(["ip", *words], check=True)
        with device("net", path, f"tap-fd={tap.fileno()},vhost=off", pass_fds=[tap.fileno()]):
            yield


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/net/tun"), reason="makes a network")
@pytest.mark.parametrize("back_end", [passt, our_card])
def test_network(tmp_path, back_end):
    """A guest asks who has an address, after each of three resets; the next VM does, too."""
    path = tmp_path / "sock"
    with own_network(), back_end(path):
        for _ in range(2):
            vmm.run_case("drive", "arp", "--vhost-user", f"type=net,socket={path}")


@pytest.mark.parametrize("case", ["packets", "half-close"])
def test_vsock(tmp_path, case):
    """Ours: good connections to a program of the host's, after each thing that is none."""
    programs = test_hostile_vsock.Programs(str(tmp_path / "vsock"))
    try:
        with device("vsock", tmp_path / "sock", f"cid=42,socket={tmp_path / 'vsock'}"):
            argv = vmm.command("hostile_vsock", case, "--vhost-user", f"type=vsock,socket={tmp_path / 'sock'}")
            done = vmm.run(argv, input=b"xx")
            assert f"PASS {case}" in done.stdout, done
    finally:
        programs.end()


def test_balloon(tmp_path):
    """Ours, without a VM: what the guest puts into it has no memory any more."""
    inflate, pages = 0, (64, 65, 66)
    with device("balloon", tmp_path / "sock", "size=3,reporting"), \
            contextlib.closing(front_end.FrontEnd(tmp_path / "sock", jails.KINDS["balloon"])) as front:
        assert struct.unpack("<II", front.config(8)) == (3 * 256, 0)
        for page in pages:
            front.memory[page * front_end.PAGE:(page + 1) * front_end.PAGE] = bytes([page]) * front_end.PAGE
        assert front.request(inflate, struct.pack("<I", pages[1])) == 0
        first = [front.memory[page * front_end.PAGE] for page in pages]
        assert first == [pages[0], 0, pages[2]]


def refused(*specs, status=vmm.USAGE):
    words = [word for spec in specs for word in ("--vhost-user", spec)]
    done = vmm.run(vmm.command("hang", None, *words))
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.no_kvm
@pytest.mark.parametrize("spec, says", [
    ("type=block", "say type=T,socket=PATH"),
    ("socket=/x", "say type=T,socket=PATH"),
    ("type=floppy,socket=/x", "block, net, rng, vsock and wl are"),
    ("type=block,socket=/x,ro", "'ro'"),
])
def test_bad_words(spec, says):
    said = refused(spec)
    assert says in said and said.count("\n") == 1


@pytest.mark.parametrize("make, says", [
    (lambda path: None, "No such file or directory; start the back end first, or correct the path"),
    (lambda path: path.write_text("text"), "Connection refused; nobody listens there any more"),
    (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
])
def test_no_back_end(tmp_path, make, says):
    path = tmp_path / "sock"
    make(path)
    said = refused(f"type=block,socket={path}", status=vmm.HOST)
    assert f"crosvm: --vhost-user: cannot connect to '{path}': {says}" in said and said.count("\n") == 1


def test_a_dead_back_end(tmp_path):
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    assert "start the back end again" in refused(f"type=block,socket={path}", status=vmm.HOST)


def test_another_type_of_socket(tmp_path):
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        assert "that is no stream socket" in refused(f"type=block,socket={path}", status=vmm.HOST)


def test_another_device(images):
    """A disk where an entropy device is: it has no configuration space that could be one."""
    path = images / "rng.sock"
    with device("rng", path):
        said = refused(f"type=block,socket={path}", status=vmm.HOST)
    assert f"block at {path} does not answer as such a device must" in said
    assert "is it another device, or busy with another VM?" in said


def test_one_that_is_busy(images):
    """It serves one VM at a time: the second waits no longer than 4 s."""
    path = images / "rng.sock"
    argv = vmm.command("hang", None, "--vhost-user", f"type=rng,socket={path}")
    with device("rng", path):
        with vmm.started(argv, until=b"hanging") as first:
            assert "busy with another VM?" in refused(f"type=rng,socket={path}", status=vmm.HOST)
            vmm.end_by(first, signal.SIGTERM)
        with vmm.started(argv, until=b"hanging") as next_one:
            assert vmm.end_by(next_one, signal.SIGTERM)[0] == vmm.OK


@pytest.mark.parametrize("back_end", [storage_daemon, our_disks])
def test_a_back_end_that_ends(images, back_end):
    """Killed while it serves: the VM ends, and says which device it was."""
    with back_end(images) as (paths, process_of_disk):
        with vmm.started(driving(paths), until=b"begin\n", stdin=-1) as process:
            go_on(process, b"\n50 rounds")
            process_of_disk.kill()
            assert process.wait(5) == vmm.DEVICE
            said = process.stderr.read().decode()
    assert re.search(r"block at \S+: the device's process hung up", said), said


def test_a_back_end_that_ends_before_a_driver_runs(images):
    """Nobody asks anything of it yet."""
    path = images / "ro.sock"
    with device("block", path, f"path={images / 'ro.img'},ro") as back_end:
        argv = vmm.command("hang", None, "--vhost-user", f"type=block,socket={path}")
        with vmm.started(argv, until=b"hanging") as process:
            back_end.kill()
            assert process.wait(5) == vmm.DEVICE
            assert f"block at {path}: the device's process hung up" in process.stderr.read().decode()


def test_a_back_end_that_stops(images):
    """Found when the driver asks something of it next, and then within 4 s."""
    path = images / "rw.sock"
    with device("block", path, f"path={images / 'rw.img'}") as back_end, \
         device("block", images / "ro.sock", f"path={images / 'ro.img'},ro"):
        child = pathlib.Path(f"/proc/{back_end.pid}/task/{back_end.pid}/children").read_text().split()[0]
        with vmm.started(driving([images / "ro.sock", path]), until=b"begin\n", stdin=-1) as process:
            os.kill(int(child), signal.SIGSTOP)
            process.stdin.write(b"x")
            process.stdin.flush()
            assert process.wait(15) == vmm.DEVICE
            assert f"block at {path}: the device's process did not answer in time" in process.stderr.read().decode()
