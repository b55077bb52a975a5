# SPDX-License-Identifier: BSD-3-Clause
"""Devices that other programs serve (--vhost-user): qemu-storage-daemon, which we did not write, and crosvm device."""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
import test_hostile_virtio as disks
import vmm

BYTES = disks.SECTORS * disks.SECTOR


def wait_for_socket(path, back_end):
    end = time.monotonic() + 10
    while not os.path.exists(path):
        assert back_end.poll() is None and time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def running(argv, *paths):
    """A back end; ended at the end."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as back_end:
        try:
            for path in paths:
                wait_for_socket(path, back_end)
            yield back_end
        finally:
            back_end.kill()


@contextlib.contextmanager
def storage_daemon(directory):
    """QEMU's, with two disks: paths of their sockets, and who serves the second."""
    if shutil.which("qemu-storage-daemon") is None:
        pytest.skip("no qemu-storage-daemon: install qemu-system-common")
    argv, paths = ["qemu-storage-daemon"], []
    for name, writable in (("ro", False), ("rw", True)):
        image, path = directory / f"{name}.img", directory / f"{name}.sock"
        argv += ["--blockdev", f"driver=file,node-name={name},filename={image},read-only={'off' if writable else 'on'}",
                 "--export", f"type=vhost-user-blk,id=export-{name},node-name={name},addr.type=unix,addr.path={path},"
                 f"writable={'on' if writable else 'off'},num-queues=2"]
        paths.append(path)
    with running(argv, *paths) as daemon:
        yield paths, daemon


@contextlib.contextmanager
def device(name, path, *spec):
    with running([vmm.CROSVM, "device", name, "--socket-path", path, *spec], path) as back_end:
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
    ("type=floppy,socket=/x", "block, net, rng and vsock are"),
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
