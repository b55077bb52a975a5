# SPDX-License-Identifier: BSD-3-Clause
"""Windows of Debian's Wayland programs in a stock Debian guest, on a compositor of the host; pictures are counted."""
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import time

import pytest
import vm

WIDTH, HEIGHT, CLIENT = 640, 480, 250
BACKGROUND = WIDTH * HEIGHT
COLOUR = (32, 64, 96)
PROGRAMS = ["weston", "weston-simple-shm", "weston-screenshooter", "pngtopam", "ppmhist"]
INI = """[core]
idle-time=0
[shell]
background-color=0xff204060
panel-position=none
locking=false
animation=none
startup-animation=none
close-animation=none
"""

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)), reason="no weston or netpbm: install tests/host/packages")


class Weston:
    """A headless compositor with a picture that can be counted."""

    def __init__(self, directory):
        self.directory = directory
        directory.chmod(0o700)
        (directory / "weston.ini").write_text(INI)
        self.environment = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(directory), "HOME": str(directory),
                            "WAYLAND_DISPLAY": "wayland-0"}
        self.process = None
        self.start()

    @property
    def socket(self):
        return str(self.directory / "wayland-0")

    def start(self):
        log = open(self.directory / "out", "ab")
        environment = {name: value for name, value in self.environment.items() if name != "WAYLAND_DISPLAY"}
        self.process = subprocess.Popen(
            ["weston", "--backend=headless-backend.so", "--use-pixman", f"--width={WIDTH}", f"--height={HEIGHT}",
             "--socket=wayland-0", f"--config={self.directory}/weston.ini", "--debug"],
            env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        self.wait_for(lambda: os.path.exists(self.socket))
        self.wait_for(lambda: self.count() == BACKGROUND)

    def stop(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)

    def wait_for(self, condition):
        end = time.monotonic() + vm.TIMEOUT
        while not condition():
            assert self.process.poll() is None, (self.directory / "out").read_text()
            assert time.monotonic() < end, (self.directory / "out").read_text()[-2000:]
            time.sleep(0.1)

    def picture(self):
        """Path of a new screenshot, or None: the shell is not there yet."""
        for old in self.directory.glob("wayland-screenshot-*.png"):
            old.unlink()
        subprocess.run(["weston-screenshooter"], cwd=self.directory, env=self.environment, check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=vm.TIMEOUT)
        return next(self.directory.glob("wayland-screenshot-*.png"), None)

    def count(self, colour=COLOUR):
        """How many pixels have the colour."""
        picture = self.picture()
        if picture is None:
            return 0
        histogram = subprocess.run(f"pngtopam {picture} | ppmhist -noheader", shell=True, check=True,
                                   stdout=subprocess.PIPE, text=True).stdout
        found = re.search(r"^\s*%d\s+%d\s+%d\s+\d+\s+(\d+)\s*$" % colour, histogram, re.MULTILINE)
        return int(found[1]) if found else 0


@pytest.fixture
def weston(tmp_path_factory):
    compositor = Weston(tmp_path_factory.mktemp("weston"))
    yield compositor
    compositor.stop()


def libraries(program):
    """What a dynamic program needs, its loader included."""
    text = subprocess.run(["ldd", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    return re.findall(r"(/\S+)", text)


@pytest.fixture(scope="session")
def guest_files(tmp_path_factory):
    """An initramfs with crosvm-wl, Debian's weston-simple-shm as it is, and the module for drivers in user space."""
    client = shutil.which("weston-simple-shm")
    modules = pathlib.Path(vm.kernel("cloud-6.1")).parent / "modules"
    files = [f"{client}:/bin/weston-simple-shm", f"{vm.ROOT / 'build/guest/crosvm-wl'}:/bin/crosvm-wl"]
    files += [f"{pathlib.Path(library).resolve()}:{library}" for library in libraries(client)]
    return vm.make_initramfs(tmp_path_factory.mktemp("wl") / "initrd.gz", "-m", str(modules), "uio_pci_generic",
                             *[word for file in files for word in ("-f", file)])


PROXY = ("crosvm-wl & while [ ! -S /run/wayland-0 ]; do sleep 0.1; done; "
         "export XDG_RUNTIME_DIR=/run WAYLAND_DISPLAY=wayland-0; ")


def command(initrd, weston, script, *options):
    return vm.command("cloud-6.1", initrd, script=script, cpus=2, mem="512",
                      options=("--wayland-sock", weston.socket, *options))


def press_return(process):
    process.stdin.write(b"\n")
    process.stdin.flush()


@pytest.mark.parametrize("options", [[], ["-u"]])
def test_a_window(guest_files, weston, options):
    """Exactly the client's pixels, while it moves, and none after it; then the same again after a new compositor."""
    script = PROXY + ("weston-simple-shm & client=$!; read line; kill $client; wait $client; echo closed; "
                      "read line; weston-simple-shm & read line; echo end")
    with vm.piped(command(guest_files, weston, script, *options)) as (process, console):
        weston.wait_for(lambda: weston.count() == BACKGROUND - CLIENT * CLIENT)
        press_return(process)
        vm.expect(console, "closed")
        weston.wait_for(lambda: weston.count() == BACKGROUND)
        weston.stop()
        weston.start()
        press_return(process)
        weston.wait_for(lambda: weston.count() == BACKGROUND - CLIENT * CLIENT)
        press_return(process)
        vm.expect(console, "crosvm-init: exit status 0")
        assert process.wait(vm.TIMEOUT) == vm.OK


def test_a_user(guest_files, weston):
    """The proxy goes on as its directory's owner, is alone with the device, leaves no socket, and can come again."""
    script = ("mkdir -p /run/user/1000; chown 1000:1000 /run/user/1000; cd /run/user/1000; "
              "serve() { crosvm-wl $PWD/wayland-0 & proxy=$!; while [ ! -S wayland-0 ]; do sleep 0.1; done; }; "
              "serve; stat -c 'socket of %u' wayland-0; grep ^Uid: /proc/$proxy/status; "
              "crosvm-wl /run/second; echo second: $?; "
              "kill $proxy; wait $proxy; echo ended: $?; [ -S wayland-0 ] || echo gone; serve; "
              "export XDG_RUNTIME_DIR=$PWD WAYLAND_DISPLAY=wayland-0; weston-simple-shm & read line; echo end")
    with vm.piped(command(guest_files, weston, script)) as (process, console):
        vm.expect(console, "socket of 1000")
        vm.expect(console, "Uid:\t1000\t1000\t1000\t1000")
        vm.expect(console, "second: 1")
        vm.expect(console, "ended: 0")
        vm.expect(console, "gone")
        weston.wait_for(lambda: weston.count() == BACKGROUND - CLIENT * CLIENT)
        press_return(process)
        vm.expect(console, "crosvm-init: exit status 0")
        assert process.wait(vm.TIMEOUT) == vm.OK
