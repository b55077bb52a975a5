# SPDX-License-Identifier: BSD-3-Clause
"""Linux guests under crosvm: kernels, initramfs, runs to the end, and guests at a terminal."""
import base64
import contextlib
import hashlib
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from typing import NamedTuple

import pexpect
import pytest
from pexpect.fdpexpect import fdspawn

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / name) for name in ("guest", "tests", "bench")]
import chances  # noqa: E402
import debian  # noqa: E402

CROSVM = os.environ.get("CROSVM") or str(ROOT / "build/crosvm")
TIMEOUT = 120  # seconds for a guest's life; the slowest takes 15 where the processor is emulated
BOOT_TIMEOUT = 60
PROMPT = "/ # "
UP = "crosvm-init: up"  # guest/init

# For a parameter "options": a device's code is the same in both, and its jail is the harder place for it.
THREADS_IN_SOAK = [pytest.param((), id="threads", marks=pytest.mark.soak), pytest.param(("-u",), id="jailed")]

# src/vm/exit_status.h
OK, HOST, USAGE, IMAGE, CRASH, KVM, DEVICE = range(7)

# Text of src/vm/lifecycle.c
POWERED_OFF = "the guest powered off"
REBOOTED = "the guest rebooted"
PANICKED = "the guest's kernel panicked"
TRIPLE_FAULT = "the guest crashed with a triple fault"
STOPPED = "the VM was stopped"

# Linux before 6.2 says so of a machine without CF8/CFC, an instant before it finds the ECAM (ARCHITECTURE.md).
EXPECTED_ERROR = "PCI: Fatal: No config space access function found"

# How a kernel image is called here -> directory in the cache, file. A stock vmlinux is the ELF file that
# vmlinuz holds compressed, with neither symbols nor sections.
KERNELS = {
    "cloud-6.1": ("kernel-cloud-6.1", "vmlinuz"),
    "generic-6.1": ("kernel-generic-6.1", "vmlinuz"),
    "cloud-6.12": ("kernel-cloud-6.12", "vmlinuz"),
    "generic-6.12": ("kernel-generic-6.12", "vmlinuz"),
    "cloud-6.1-vmlinux": ("kernel-cloud-6.1", "vmlinux"),
    "small": ("kernel-small", "bzImage"),
    "small-vmlinux": ("kernel-small", "vmlinux"),
    "small-compressed": ("kernel-small", "compressed-vmlinux"),
}


def kernel(name):
    """Path of a kernel. It is not made here: the tests run where there is no network."""
    directory, file = KERNELS[name]
    maker = f"guest/fetch-kernel {directory.removeprefix('kernel-')}"
    if directory == "kernel-small":
        maker = "guest/build-kernel"
        directory += "-*-" + hashlib.sha256((ROOT / "guest/small.config").read_bytes()).hexdigest()[:12]
    found = sorted(debian.cache().glob(f"{directory}/{file}"))
    if not found:
        pytest.skip(f"no kernel {name}: run {maker}")
    return str(found[-1])


def make_initramfs(path, *args):
    """Runs guest/mkinitramfs with these arguments; returns the path as text."""
    subprocess.run([ROOT / "guest/mkinitramfs", "-o", path, *args], check=True)
    return str(path)


def libraries(program):
    """What a dynamic program needs, its loader included."""
    text = subprocess.run(["ldd", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    return re.findall(r"(/\S+)", text)


def with_program(name):
    """Arguments of make_initramfs() that put a program of this machine and what it needs into a guest."""
    program = shutil.which(name)
    if program is None:
        pytest.fail(f"no {name}: run tools/install-packages tests/host/packages")
    files = {f"/bin/{name}": program, **{library: library for library in libraries(program)}}
    return [word for dest, file in files.items() for word in ("-f", f"{pathlib.Path(file).resolve()}:{dest}")]


class Ended(NamedTuple):
    """A guest's life, looked back at."""

    status: int  # crosvm's exit status
    console: str  # without carriage returns
    stderr: str
    seconds: float

    @property
    def script_status(self):
        match = re.search(r"^crosvm-init: exit status (\d+)$", self.console, re.MULTILINE)
        return int(match[1]) if match else None

    @property
    def output(self):
        """What the script printed."""
        text = self.console.partition("crosvm-init: up\n")[2]
        return re.split(r"^crosvm-init: exit status", text, maxsplit=1, flags=re.MULTILINE)[0]

    def check(self, says=POWERED_OFF, status=OK, script_status=0):
        """Asserts how it ended; returns self."""
        assert (self.status, self.script_status) == (status, script_status), self.last_words()
        assert self.stderr.count(f"crosvm: {says}") == 1, self.last_words()
        return self

    def last_words(self):
        return f"status {self.status} after {self.seconds:.1f} s\n{self.stderr}console:\n{self.console[-3000:]}"


def command(kernel_name, initrd, *, script=None, cpus=1, mem=None, params="", options=(), end=None):
    """The command line. A script runs in the guest instead of a shell; both end by power off unless told."""
    words = ["quiet", params] if params else ["quiet"]
    if script is not None:
        words.append("crosvm.run=" + base64.b64encode(script.encode()).decode())
    if end is not None:
        words.append(f"crosvm.end={end}")
    size = ["-m", mem] if mem else []
    return [CROSVM, "run", "-c", str(cpus), *size, "-i", str(initrd), "-p", " ".join(words), *options,
            kernel(kernel_name)]


def guest_seconds(pid):
    """{thread: how long it ran in the guest}"""
    fields = {stat.parent.name: stat.read_text().rsplit(")", 1)[1].split()
              for stat in pathlib.Path(f"/proc/{pid}/task").glob("*/stat")}
    return {thread: int(words[40]) / os.sysconf("SC_CLK_TCK") for thread, words in fields.items()}


def spins(pid):
    """Whether a vCPU does nothing but run."""
    before = guest_seconds(pid)
    time.sleep(3)
    return any(after - before.get(thread, after) > 1 for thread, after in guest_seconds(pid).items())


def run_once(argv, stdin, timeout, wrapper):
    """(Ended, whether it had to be killed, whether a vCPU span then) of one guest."""
    start = time.monotonic()
    with subprocess.Popen([*wrapper, *argv], stdin=subprocess.DEVNULL if stdin is None else stdin,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        late = span = False
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            late, span = True, spins(process.pid)
            process.kill()
            out, err = process.communicate()
    return Ended(process.returncode, text(out), text(err), time.monotonic() - start), late, span


def is_lost(argv, ended, late, span):
    """
    QEMU's emulation of a processor with SVM loses a booting guest now and then, and at times the nested host with it; or
    a processor of several, and the others wait for it without end: where we lost an interrupt they would sleep. Of several
    processors it also delivers one an exception at the first instruction of a system call, on the user's stack: a triple
    fault (doc/benchmarks.md, "Known limits"). No other guest that got as far as its init is lost, and none with --direct.
    """
    if not chances.EMULATED or span:
        return chances.EMULATED
    crashed = ended.status == CRASH
    if UP not in ended.console:
        return late or crashed
    several = "-c" in argv and argv[argv.index("-c") + 1] != "1"
    return several and crashed and TRIPLE_FAULT in ended.stderr and ended.script_status is None


def run(*args, stdin=None, timeout=TIMEOUT, wrapper=(), **kwargs):
    """Runs a guest to its end; arguments are those of command(), or a whole command line as list."""
    argv = args[0] if isinstance(args[0], list) else command(*args, **kwargs)
    ended, late, span = run_once(argv, stdin, timeout, wrapper)
    if is_lost(argv, ended, late, span):
        chances.given.append(f"lost by the emulator, and tried again: {ended.last_words()}")
        ended, late, span = run_once(argv, stdin, timeout, wrapper)
    if late:
        pytest.fail(f"not at its end{', a vCPU spins' if span else ''}, killed: {ended.last_words()}", pytrace=False)
    return ended


def text(data):
    return data.decode(errors="replace").replace("\r", "")


class Guest:
    """A guest, running or about to. Its console is a terminal of ours, or nothing if crosvm was told another place.
    As a context: killed at the end if it still runs."""

    def __init__(self, argv):
        self.terminal, self.other_side = pty.openpty()
        self.modes = termios.tcgetattr(self.other_side)
        self.stderr = tempfile.TemporaryFile()
        # Its own session with that terminal, as under a shell.
        self.process = subprocess.Popen(argv, stdin=self.other_side, stdout=self.other_side, stderr=self.stderr,
                                        start_new_session=True)
        self.console = fdspawn(self.terminal, encoding="utf-8", codec_errors="replace", timeout=TIMEOUT)
        self.console.delaybeforesend = None

    @property
    def pid(self):
        return self.process.pid

    def expect(self, what, timeout=TIMEOUT):
        return expect(self.console, what, timeout)

    def send(self, what):
        self.console.send(what)

    def ask(self, line):
        """Types a command at the shell's prompt; returns what it answers."""
        return ask(self.console, line)

    def messages(self):
        self.stderr.seek(0)
        return text(self.stderr.read())

    def end(self, status=OK, says=STOPPED, timeout=10):
        """Waits until crosvm ended, and asserts how; seconds that it took."""
        start = time.monotonic()
        assert self.process.wait(timeout) == status, self.messages()
        assert f"crosvm: {says}" in self.messages()
        assert termios.tcgetattr(self.other_side) == self.modes
        return time.monotonic() - start

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.stderr.close()
        os.close(self.terminal)
        os.close(self.other_side)


def press_return(process):
    """An empty line for a guest of piped()."""
    process.stdin.write(b"\n")
    process.stdin.flush()


def is_up(console):
    return console.expect_exact([UP, pexpect.EOF, pexpect.TIMEOUT], timeout=BOOT_TIMEOUT) == 0


def lost(why):
    """A guest did not get as far as its init: a failure, unless the processor is emulated, as in run()."""
    if not chances.EMULATED:
        pytest.fail(why, pytrace=False)
    chances.given.append(f"lost while it booted, and tried again: {why}")


class Lost(Exception):
    """The emulator lost a guest while a test talked to it: conftest.py runs the test once more."""


@contextlib.contextmanager
def fails_if_lost(process):
    """What a test does with a guest that is up; if it fails, and the guest does nothing but run, as in run(), it is Lost."""
    try:
        yield
    except (Exception, pytest.fail.Exception) as error:
        if chances.EMULATED and process.poll() is None and spins(process.pid):
            raise Lost from error
        raise


@contextlib.contextmanager
def piped(argv, **kwargs):
    """(process, console) of a guest whose init is up, with pipes instead of a terminal; killed at the end."""
    process, console = start_piped(argv, **kwargs)
    if not is_up(console):
        lost(end_piped(process, console))
        process, console = start_piped(argv, **kwargs)
        expect(console, UP)
    try:
        with fails_if_lost(process):
            yield process, console
    finally:
        print(end_piped(process, console))  # pytest shows it of a test that failed


def start_piped(argv, **kwargs):
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    return process, fdspawn(process.stdout.fileno(), encoding="utf-8", codec_errors="replace")


def end_piped(process, console):
    """Kills it; what it said last."""
    process.kill()
    with process, contextlib.suppress(BrokenPipeError):
        said = text(process.stderr.read())
        if console.after is not pexpect.EOF:
            console.expect_exact([pexpect.EOF, pexpect.TIMEOUT], timeout=5)
        process.stdin.close()
    return f"{said}console:\n{console.before}"


@contextlib.contextmanager
def started(*args, wrapper=(), **kwargs):
    """A guest at a terminal whose init is up, with the arguments of run(); killed at the end if it still runs."""
    argv = [*wrapper, *(args[0] if isinstance(args[0], list) else command(*args, **kwargs))]
    with contextlib.ExitStack() as stack:
        guest = stack.enter_context(Guest(argv))
        if not is_up(guest.console):
            lost(f"{guest.messages()}console:\n{guest.console.before}")
            guest.process.kill()
            guest = stack.enter_context(Guest(argv))
            guest.expect(UP)
        with fails_if_lost(guest.process):
            yield guest


def expect(console, what, timeout=TIMEOUT):
    """pexpect's expect_exact, but a failure shows the console; returns what came before."""
    try:
        console.expect_exact(what, timeout=timeout)
    except (pexpect.TIMEOUT, pexpect.EOF) as error:
        seen = (console.before or "").replace("\r", "")[-3000:]
        pytest.fail(f"{type(error).__name__}, no {what!r} in:\n{seen}", pytrace=False)
    return console.before.replace("\r", "")


def ask(console, line):
    """Types a command at the prompt of a guest's shell; returns what it answers."""
    console.send(line + "\n")
    expect(console, line)  # its echo
    return expect(console, PROMPT).strip("\n")


def sections(output):
    """{name: lines} of a text with lines '=== name'."""
    parts = re.split(r"^=== (.*)\n", output, flags=re.MULTILINE)[1:]
    return {name: body.splitlines() for name, body in zip(parts[::2], parts[1::2])}


def processes():
    """Processes of crosvm that belong to these tests or to nobody."""
    found = set()
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if not (entry / "cmdline").read_bytes().startswith(CROSVM.encode() + b"\0"):
                continue
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent in (os.getpid(), 1):
                found.add(int(entry.name))
    return found
