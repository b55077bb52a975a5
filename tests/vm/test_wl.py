# SPDX-License-Identifier: BSD-3-Clause
"""Windows of Debian's Wayland programs in a stock Debian guest, on a compositor of the host; pictures are counted."""
import contextlib
import glob
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

import pytest
import vm

WIDTH, HEIGHT, CLIENT = 640, 480, 250
BACKGROUND = WIDTH * HEIGHT
COLOUR = (32, 64, 96)
PROGRAMS = ["weston", "weston-simple-shm", "weston-screenshooter", "pngtopam", "ppmhist", "sway", "foot", "wtype",
            "wl-copy", "wl-paste"]
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
    not all(map(shutil.which, PROGRAMS)), reason="no weston, sway or their programs: install tests/host/packages")


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


NOBODY = 65534


class Sway:
    """A headless compositor with a keyboard and a clipboard, which refuses to run as root."""

    CONFIG = "xwayland disable\noutput HEADLESS-1 resolution 640x480\ndefault_border none\n"

    def __init__(self, directory):
        self.directory = directory
        (directory / "config").write_text(self.CONFIG)
        self.log = directory / "log"
        self.log.touch()
        for path in (directory, self.log):
            os.chown(path, NOBODY, NOBODY)
        directory.chmod(0o700)
        self.environment = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(directory), "HOME": str(directory)}
        headless = {"WLR_BACKENDS": "headless", "WLR_LIBINPUT_NO_DEVICES": "1", "WLR_RENDERER": "pixman"}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.argv("sway", "-c", f"{directory}/config"), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env={**self.environment, **headless})
        self.wait_for(lambda: list(directory.glob("wayland-?")) and list(directory.glob("sway-ipc.*.sock")))
        self.socket = str(next(directory.glob("wayland-?")))
        self.environment["WAYLAND_DISPLAY"] = self.socket
        self.environment["SWAYSOCK"] = str(next(directory.glob("sway-ipc.*.sock")))
        self.typist = None

    @staticmethod
    def argv(*command_):
        return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command_]

    def wait_for(self, condition):
        end = time.monotonic() + vm.TIMEOUT
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()[-2000:]
            time.sleep(0.1)

    def run(self, *command_):
        """What a program of its user prints; wl-paste fails while there is nothing."""
        return subprocess.run(self.argv(*command_), env=self.environment, check=False, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=vm.TIMEOUT).stdout

    def type_line(self, text):
        """And stay: a program may change the clipboard if it has the keyboard, which goes with who types."""
        self.typist = subprocess.Popen(
            self.argv("wtype", "-s", "500", text, "-s", "200", "-k", "Return", "-s", "3600000"), env=self.environment)

    def focused(self):
        """The program whose window has the keyboard."""
        def search(node):
            children = map(search, node["nodes"] + node["floating_nodes"])
            return node.get("app_id") if node["focused"] else next(filter(None, children), None)
        return search(json.loads(self.run("swaymsg", "-t", "get_tree")))

    def let_others_in(self):
        """Without a jail crosvm is a root who may do what all may."""
        self.directory.chmod(0o711)
        os.chmod(self.socket, 0o777)

    def stop(self):
        for process in filter(None, [self.typist, self.process]):
            process.kill()
            process.wait()


@pytest.fixture
def sway(tmp_path_factory):
    # Above its own directory the user must find the way.
    directory = pathlib.Path(tempfile.mkdtemp(prefix="crosvm-sway-"))
    compositor = Sway(directory)
    yield compositor
    compositor.stop()
    shutil.rmtree(directory)


CLIENTS = ["weston-simple-shm", "foot", "wl-copy", "wl-paste"]
# What foot needs beside its libraries: a font, how to find it, a directory of keymaps, and a locale for UTF-8.
FOOT = ["/etc/fonts/fonts.conf", "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf", "/usr/share/terminfo/f/foot",
        "/usr/share/X11/xkb/rules/evdev", *glob.glob("/usr/lib/locale/C.utf8/LC_*")]


def with_libraries(programs, *others):
    """Words for guest/mkinitramfs: Debian's programs as they are, what they are linked with, and other files in their places."""
    paths = [shutil.which(program) for program in programs]
    files = {library for path in paths for library in vm.libraries(path)} | set(others)
    items = [f"{path}:/bin/{os.path.basename(path)}" for path in paths]
    items += [f"{pathlib.Path(file).resolve()}:{file}" for file in sorted(files)]
    return [word for item in items for word in ("-f", item)]


@pytest.fixture(scope="session")
def guest_files(tmp_path_factory):
    """An initramfs with crosvm-wl and clients."""
    modules = pathlib.Path(vm.kernel("cloud-6.1")).parent / "modules"
    return vm.make_initramfs(tmp_path_factory.mktemp("wl") / "initrd.gz", "-w", str(modules),
                             *with_libraries(CLIENTS, *filter(os.path.isfile, FOOT)))


PROXY = ("crosvm-wl & while [ ! -S /run/wayland-0 ]; do sleep 0.1; done; "
         "export XDG_RUNTIME_DIR=/run WAYLAND_DISPLAY=wayland-0; ")


def command(initrd, script, *options):
    return vm.command("cloud-6.1", initrd, script=script, cpus=2, mem="512", options=options)


@contextlib.contextmanager
def served(compositor):
    """The options for a device that `crosvm device` serves, instead, and the process of that."""
    path = compositor.directory / "device"
    with subprocess.Popen([vm.CROSVM, "device", "wl", "--socket-path", path, compositor.socket]) as back_end:
        try:
            compositor.wait_for(path.exists)
            yield ["--vhost-user", f"type=wl,socket={path}"], back_end
        finally:
            back_end.kill()


def pixels_mapped(pid):
    """The files that the guest draws into, for each time that the process maps one."""
    return re.findall(r"(\d+) +/memfd:crosvm-wl", pathlib.Path(f"/proc/{pid}/maps").read_text())


def device_process(pid):
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return next(child for child in children if pathlib.Path(f"/proc/{child}/comm").read_text() == "crosvm-wl\n")


def come_and_go(argv, weston, parent=None):
    """A client's window. `parent` gives the pid of the device's process' parent; None: the device has no process."""
    with vm.piped(argv) as (process, console):
        weston.wait_for(lambda: weston.count() == BACKGROUND - CLIENT * CLIENT)
        # For the guest alone: the VMM copies no pixel, and a jailed device has none to copy.
        buffers = pixels_mapped(process.pid)
        assert len(buffers) == len(set(buffers)) == 2
        assert parent is None or pixels_mapped(device_process(parent(process.pid))) == []
        vm.press_return(process)
        vm.expect(console, "closed")
        weston.wait_for(lambda: weston.count() == BACKGROUND)
        vm.press_return(process)
        weston.wait_for(lambda: weston.count() == BACKGROUND - CLIENT * CLIENT)
        weston.stop()
        vm.expect(console, "lost")
        weston.start()
        vm.press_return(process)
        weston.wait_for(lambda: weston.count() == BACKGROUND - CLIENT * CLIENT)
        vm.press_return(process)
        vm.expect(console, "crosvm-init: exit status 0")
        assert process.wait(vm.TIMEOUT) == vm.OK


SCRIPT = PROXY + ("weston-simple-shm & client=$!; read line; kill $client; wait $client; echo closed; "
                  "read line; weston-simple-shm; echo lost; read line; weston-simple-shm & read line; echo end")


@pytest.mark.parametrize("options", vm.THREADS_IN_SOAK)
def test_a_window(guest_files, weston, options):
    """Exactly the client's pixels, while it moves, and none after it. One sees its compositor die; the next has a new one."""
    come_and_go(command(guest_files, SCRIPT, "--wayland-sock", weston.socket, *options), weston,
                (lambda pid: pid) if options else None)


@pytest.mark.soak
def test_a_window_of_a_device_alone(guest_files, weston):
    """The same by `crosvm device`."""
    with served(weston) as (options, back_end):
        come_and_go(command(guest_files, SCRIPT, *options), weston, lambda _: back_end.pid)


def test_a_user(guest_files, weston):
    """The proxy goes on as its directory's owner, is alone with the device, leaves no socket, and can come again."""
    script = ("mkdir -p /run/user/1000; chown 1000:1000 /run/user/1000; cd /run/user/1000; "
              "serve() { crosvm-wl $PWD/wayland-0 & proxy=$!; while [ ! -S wayland-0 ]; do sleep 0.1; done; }; "
              "serve; stat -c 'socket of %u' wayland-0; grep ^Uid: /proc/$proxy/status; "
              "crosvm-wl /run/second; echo second: $?; "
              "kill $proxy; wait $proxy; echo ended: $?; [ -S wayland-0 ] || echo gone; serve; "
              "export XDG_RUNTIME_DIR=$PWD WAYLAND_DISPLAY=wayland-0; weston-simple-shm & read line; echo end")
    with vm.piped(command(guest_files, script, "--wayland-sock", weston.socket)) as (process, console):
        vm.expect(console, "socket of 1000")
        vm.expect(console, "Uid:\t1000\t1000\t1000\t1000")
        vm.expect(console, "second: 1")
        vm.expect(console, "ended: 0")
        vm.expect(console, "gone")
        weston.wait_for(lambda: weston.count() == BACKGROUND - CLIENT * CLIENT)
        vm.press_return(process)
        vm.expect(console, "crosvm-init: exit status 0")
        assert process.wait(vm.TIMEOUT) == vm.OK


@pytest.mark.parametrize("options", vm.THREADS_IN_SOAK)
def test_keyboard_and_clipboard(guest_files, sway, options):
    """What is typed on the host arrives in the guest's terminal; text is copied both ways."""
    script = ("export HOME=/root LANG=C.UTF-8; mkdir -p /tmp; " + PROXY + "foot sh -c 'read text; echo typed: $text >/dev/ttyS0'; "
              "printf 'from the guest' | wl-copy; echo copied; read line; echo pasted: $(wl-paste -n)")
    if not options:
        sway.let_others_in()
    with vm.piped(command(guest_files, script, "--wayland-sock", sway.socket, *options)) as (process, console):
        sway.wait_for(lambda: sway.focused() == "foot")
        sway.type_line("hello")
        vm.expect(console, "typed: hello")
        vm.expect(console, "copied")
        sway.wait_for(lambda: sway.run("wl-paste", "-n") == "from the guest")
        sway.run("wl-copy", "from the host")
        vm.press_return(process)
        vm.expect(console, "pasted: from the host")
        vm.expect(console, "crosvm-init: exit status 0")
        assert process.wait(vm.TIMEOUT) == vm.OK
