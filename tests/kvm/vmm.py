# SPDX-License-Identifier: BSD-3-Clause
"""Starting crosvm from a test, and looking at what it leaves behind."""
import contextlib
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import time

import chances

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GUESTS = pathlib.Path(os.environ.get("CROSVM_GUESTS") or ROOT / "build/guest")
CROSVM = os.environ.get("CROSVM") or str(ROOT / "build/crosvm")
# No sandbox, and more memory. The Makefile's directory says it, and no other part of the path.
SANITIZED = pathlib.Path(os.path.realpath(CROSVM)).parent.name.endswith(("asan", "tsan", "msan"))
PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 5 if chances.EMULATED else 1  # all times are for a processor that is not emulated

# src/vm/exit_status.h
OK, HOST, USAGE, IMAGE, CRASH, KVM, DEVICE = range(7)

# Text of src/vm/lifecycle.c
POWERED_OFF = "crosvm: the guest powered off"
REBOOTED = "crosvm: the guest rebooted"
TRIPLE_FAULT = "crosvm: the guest crashed with a triple fault"
STOPPED = "crosvm: the VM was stopped"


def guest(name):
    return str(GUESTS / f"{name}.elf")


def command(name, test=None, *options, params=""):
    """The command line that runs a test case of a guest."""
    argv = [CROSVM, "run", "-m", "64", *options]
    words = ([f"test={test}"] if test else []) + ([params] if params else [])
    if words:
        argv += ["-p", " ".join(words)]
    return [*argv, guest(name)]


def run(argv, timeout=60, **kwargs):
    """Runs to the end; output as text."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    if "input" in kwargs:
        del kwargs["stdin"]
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    done = subprocess.run(argv, timeout=timeout * PATIENCE, **kwargs)
    done.stdout = (done.stdout or b"").decode("latin-1")
    done.stderr = (done.stderr or b"").decode("latin-1")
    return done


def run_case(name, test, *options, params="", **kwargs):
    """Runs a case that must pass; returns what the guest printed."""
    done = run(command(name, test, *options, params=params), **kwargs)
    assert f"PASS {test}" in done.stdout, f"{done.stdout[-2000:]!r} {done.stderr!r}"
    assert done.returncode == OK, done.stderr
    assert POWERED_OFF in done.stderr
    return done.stdout


@contextlib.contextmanager
def started(argv, until=None, **kwargs):
    """A running crosvm; killed at the end if it still runs. Waits for a text on its stdout."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    process = subprocess.Popen(argv, **kwargs)
    try:
        if until is not None:
            read_or_tell(process, until)
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def read_until(stream, text, timeout=20):
    """Reads from a pipe until the text has come; returns all that came."""
    seen = b""
    end = time.monotonic() + timeout * PATIENCE
    os.set_blocking(stream.fileno(), False)
    while text not in seen:
        assert time.monotonic() < end, f"no {text!r} in {seen!r}"
        try:
            piece = os.read(stream.fileno(), 65536)
        except BlockingIOError:
            time.sleep(0.005)
            continue
        assert piece != b"", f"the end, and no {text!r} in {seen!r}"
        seen += piece
    os.set_blocking(stream.fileno(), True)
    return seen


def read_or_tell(process, text, timeout=20, log=None):
    """The same of a crosvm's stdout; if the text does not come, what crosvm said, in a log of the test's or by a pipe, is told."""
    try:
        return read_until(process.stdout, text, timeout)
    except AssertionError as error:
        said = b""
        if log is not None:
            log.seek(0)
            said = log.read()
        elif process.stderr is not None:
            os.set_blocking(process.stderr.fileno(), False)
            said = process.stderr.read() or b""
        raise AssertionError(f"{error} {process.poll()} {said[-3000:]!r}") from None


def comes_true(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True


def wait_until(condition, timeout=10):
    assert comes_true(condition, timeout * PATIENCE)


def wait_until_started(pid):
    """The main thread makes descriptors of its own while the guest runs already, then waits in its sandbox, if it has one."""
    def waits():
        status = pathlib.Path(f"/proc/{pid}/task/{pid}/status").read_text()
        return "State:\tS" in status and ("Seccomp:\t2" in status or SANITIZED)
    wait_until(waits)


def name_of(pid):
    return pathlib.Path(f"/proc/{pid}/comm").read_text().strip().removeprefix("crosvm-")


def processes(main):
    """[(name, pid)] of those of ours, which passt is not, once they are in their jails: the guest does not wait for that."""
    pids = pathlib.Path(f"/proc/{main}/task/{main}/children").read_text().split()
    pids = [pid for pid in pids if not name_of(pid).startswith("passt")]
    wait_until(lambda: all(status_number(pid, "Seccomp") == 2 for pid in pids))
    return [(name_of(pid), int(pid)) for pid in pids]


def device_processes(main):
    """{name of the device: pid}, the last one of each."""
    return dict(processes(main))


def end_by(process, signal_number, timeout=5):
    """Sends a signal; (exit status, seconds until the end)."""
    start = time.monotonic()
    process.send_signal(signal_number)
    status = process.wait(timeout * PATIENCE)
    return status, time.monotonic() - start


def status_number(pid, field):
    """A number of /proc/PID/status: VmRSS in KiB, Threads..."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)[1])


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def adopt_orphans():
    """Who loses its parent becomes our child, so that no other run's are taken for ours, and none waits for a slow init."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children():
    """Processes that threads of this one started."""
    found = []
    for task in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended
            found += map(int, (task / "children").read_text().split())
    return found


def descendants():
    """Processes below this one that are crosvm's. Devices' that have ended, and their parent too, are reaped here."""
    found = []
    for child in children():
        with contextlib.suppress(OSError):
            command_line = pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
            is_device = pathlib.Path(f"/proc/{child}/comm").read_text().startswith("crosvm-")
            if is_device and os.waitpid(child, os.WNOHANG)[0] == child:
                continue
            if is_device or command_line.startswith(CROSVM.encode() + b"\0"):
                found.append(child)
    return found


SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
