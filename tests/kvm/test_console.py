# SPDX-License-Identifier: BSD-3-Clause
"""COM1 outside of the guest: pipes, files, sockets and terminals, slow, full, closed or gone."""
import contextlib
import fcntl
import os
import pty
import resource
import signal
import socket
import subprocess
import termios
import threading
import time

import chances
import pytest
import smaps
import vmm

ECHO = ("hostile", "echo")


def closed(*descriptors):
    """For preexec_fn: standard streams that are not there."""
    def close():
        for descriptor in descriptors:
            os.close(descriptor)
    return close


# ---- input that is no terminal ----------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 64, 1000, 3000 if chances.EMULATED else 20000])
def test_piped_input_comes_whole(size):
    data = bytes(1 + i * 7 % 255 for i in range(size))
    done = subprocess.run(vmm.command(*ECHO, params=f"bytes={size}"), input=data, capture_output=True,
                          timeout=60 * vmm.PATIENCE)
    assert done.returncode == vmm.OK, done.stderr
    head, _, rest = done.stdout.partition(b"echo\n")
    assert (head, rest) == (b"", data + b"\nPASS echo\n")


def test_input_from_a_file(tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"from a file" * 100)
    with open(path, "rb") as file:
        done = vmm.run(vmm.command(*ECHO, params="bytes=1100"), stdin=file)
    assert "from a file" * 100 in done.stdout


@pytest.mark.parametrize("stdin", ["null", "closed", "ended"])
def test_end_of_input_is_not_the_end(stdin):
    """The guest runs on, and waiting for more costs nothing."""
    kwargs = {"null": {}, "closed": {"preexec_fn": closed(0)}, "ended": {"stdin": subprocess.PIPE}}[stdin]
    with vmm.started(vmm.command("hang"), until=b"hanging", **kwargs) as process:
        if stdin == "ended":
            process.stdin.close()
        vmm.wait_until_started(process.pid)
        before = vmm.cpu_seconds(process.pid)
        time.sleep(1)
        assert process.poll() is None
        assert vmm.cpu_seconds(process.pid) - before < 0.05
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK


def test_input_that_nobody_reads():
    """100 MB: the pipe fills, our memory does not, and the processor stays idle."""
    def pour(stream):
        with contextlib.suppress(BrokenPipeError):
            for _ in range(100):
                stream.write(b"x" * 1000000)

    with vmm.started(vmm.command("hang"), until=b"hanging", stdin=subprocess.PIPE) as process:
        before = smaps.own_kib(process.pid, "Rss")
        writer = threading.Thread(target=pour, args=(process.stdin,), daemon=True)
        writer.start()
        time.sleep(1)
        cpu = vmm.cpu_seconds(process.pid)
        time.sleep(1)
        assert smaps.own_kib(process.pid, "Rss") - before < 1024
        assert vmm.cpu_seconds(process.pid) - cpu < 0.05
        assert writer.is_alive()  # it waits for us, as it should
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK
        writer.join(5)


# ---- output ------------------------------------------------------------------------------------

# More than a pipe of one page and the console's 64 KiB hold together.
LOAD = 96000
PIPE = 4096


def test_output_comes_whole_when_it_is_read():
    done = vmm.run(vmm.command("hostile", "flood", params=f"bytes={LOAD}"), timeout=60, pipesize=PIPE)
    assert done.stdout == "0123456789abcdef" * (LOAD // 16) + "\nPASS flood\n"


@pytest.mark.parametrize("kwargs", [{"preexec_fn": closed(1)}, {"preexec_fn": closed(0, 1, 2)}])
def test_no_output(kwargs):
    with vmm.started(vmm.command("hostile", "flood", params="bytes=5000"), stdout=None, stderr=None,
                     **kwargs) as process:
        assert process.wait(20) == vmm.OK


def test_full_disk():
    with open("/dev/full", "wb") as full:
        done = vmm.run(vmm.command("hostile", "flood", params="bytes=5000"), stdout=full)
    assert done.returncode == vmm.OK
    assert done.stderr.count("\n") <= 10


def test_reader_that_went_away():
    with vmm.started(vmm.command("hostile", "flood", params="bytes=50000")) as process:
        process.stdout.close()
        assert process.wait(20) == vmm.OK


@pytest.mark.parametrize("test", ["flood", "flood-blind"])
def test_reader_that_stopped(test):
    """Nobody reads; the guest prints on, its bytes are dropped, and the VM comes to its own end."""
    with vmm.started(vmm.command("hostile", test, params=f"bytes={LOAD}"), pipesize=PIPE) as process:
        assert process.wait(30) == vmm.OK


@pytest.mark.parametrize("test", ["flood", "flood-blind"])
def test_reader_that_stopped_does_not_hold_up_the_end(test):
    with vmm.started(vmm.command("hostile", test)) as process:
        time.sleep(0.5)
        status, seconds = vmm.end_by(process, signal.SIGTERM)
        assert status == vmm.OK
        assert seconds < 4  # 1 for the reader


def test_output_does_not_change_the_stream_for_others():
    """A pipe that we make non-blocking would be so for all that share it."""
    reader, writer = os.pipe()
    with vmm.started(vmm.command("hostile", "flood", params="bytes=100"), stdout=writer) as process:
        assert process.wait(20) == vmm.OK
    assert os.get_blocking(writer)
    os.close(reader)
    os.close(writer)


def test_input_stays_blocking_for_others():
    reader, writer = os.pipe()
    with vmm.started(vmm.command("hang"), until=b"hanging", stdin=reader) as process:
        assert os.get_blocking(reader)
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK
    assert os.get_blocking(reader)
    os.close(reader)
    os.close(writer)


# ---- --serial -----------------------------------------------------------------------------------

def test_serial_file(tmp_path):
    path = tmp_path / "console.log"
    done = vmm.run(vmm.command("hostile", "flood", "--serial", f"file={path}", params="bytes=3200"))
    assert (done.returncode, done.stdout) == (vmm.OK, "")
    assert path.read_text() == "0123456789abcdef" * 200 + "\nPASS flood\n"


@pytest.mark.parametrize("path", ["/nonexistent/console.log", "/"])
def test_serial_file_refused(path):
    done = vmm.run(vmm.command("machine", "poweroff", "--serial", f"file={path}"))
    assert done.returncode == vmm.HOST
    assert path in done.stderr and done.stderr.count("\n") == 1


def test_serial_file_of_a_start_that_fails(tmp_path):
    """What the first VM said is there still when a second one finds its disk locked, or no kernel."""
    path = tmp_path / "console.log"
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    options = ["--rwdisk", disk, "--serial", f"file={path}"]
    with vmm.started(vmm.command("hang", None, *options)):
        vmm.wait_until(lambda: path.exists() and path.read_text() == "hanging\n")
        said = path.read_text()
        second = vmm.run(vmm.command("hang", None, *options))
        assert second.returncode == vmm.HOST and "in use" in second.stderr
        assert path.read_text() == said
    for kernel in (disk, "/nonexistent"):
        assert vmm.run([vmm.CROSVM, "run", "--serial", f"file={path}", kernel]).returncode == vmm.IMAGE
        assert path.read_text() == said
    assert vmm.run(vmm.command("machine", "poweroff", *options)).returncode == vmm.OK
    assert said not in path.read_text()


@pytest.mark.no_kvm
@pytest.mark.parametrize("option", ["--disk", "--rwdisk", "--block", "--initrd", None])
@pytest.mark.parametrize("link", [os.link, os.symlink, None])
def test_serial_file_that_is_the_machines(tmp_path, option, link):
    """The machine's own kernel, initrd and disks, by whatever name."""
    file, name = tmp_path / "y.img", tmp_path / "y.img"
    file.write_bytes(b"precious" * 512)
    if link is not None:
        name = tmp_path / "name"
        link(file, name)
    words = [option, file, vmm.guest("machine")] if option else [file]
    done = vmm.run([vmm.CROSVM, "run", "--serial", f"file={name}", *words])
    assert (done.returncode, done.stdout) == (vmm.USAGE, "")
    assert f"--serial: '{name}' is " in done.stderr and done.stderr.count("\n") == 1
    assert file.read_bytes() == b"precious" * 512


def test_serial_null():
    done = vmm.run(vmm.command("hostile", "flood", "--serial", "null", params="bytes=3200"))
    assert (done.returncode, done.stdout) == (vmm.OK, "")


def connect(path, timeout=5):
    end = time.monotonic() + timeout
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
            client.settimeout(10)
            return client
        except OSError:
            client.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def receive_until(client, text):
    seen = b""
    while text not in seen:
        piece = client.recv(4096)
        assert piece != b"", seen
        seen += piece
    return seen


def test_serial_socket(tmp_path):
    path = tmp_path / "console"
    with vmm.started(vmm.command(*ECHO, "--serial", f"unix={path}")) as process:
        with connect(path) as client:
            client.sendall(b"hello")
            receive_until(client, b"hello")
        # The next one finds the same guest.
        with connect(path) as client:
            client.sendall(b"again")
            receive_until(client, b"again")
            client.sendall(b"\x04")
            assert process.wait(10) == vmm.OK
    assert not path.exists()


def test_serial_socket_without_a_client(tmp_path):
    path = tmp_path / "console"
    with vmm.started(vmm.command("hang", None, "--serial", f"unix={path}")) as process:
        connect(path).close()
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK
    assert not path.exists()


def test_serial_socket_clients_come_and_go(tmp_path):
    path, control = tmp_path / "console", str(tmp_path / "control")
    with vmm.started(vmm.command(*ECHO, "--serial", f"unix={path}", "-s", control)) as process:
        # The main thread opens its own while the guest runs already; what it answers comes after that.
        with connect(path) as client:
            client.sendall(b"first")
            receive_until(client, b"first")
            assert vmm.run([vmm.CROSVM, "version", control]).returncode == vmm.OK
            before = len(os.listdir(f"/proc/{process.pid}/fd"))
        for _ in range(200):
            connect(path).close()
        end = time.monotonic() + 10
        while len(os.listdir(f"/proc/{process.pid}/fd")) > before + 1 and time.monotonic() < end:
            time.sleep(0.05)
        assert len(os.listdir(f"/proc/{process.pid}/fd")) <= before + 1
        with connect(path) as client:
            client.sendall(b"still there")
            receive_until(client, b"still there")
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK


def test_serial_socket_without_a_descriptor_for_a_client(tmp_path):
    """It waits until there is one, and the VM looks for it now and then only."""
    path, control = tmp_path / "console", str(tmp_path / "control")
    argv = vmm.command(*ECHO, "--serial", f"unix={path}", "-s", control, "--log-level", "debug")
    # poll() wants a limit of four at least, so those shall be in use.
    with vmm.started(["sh", "-c", 'exec "$0" "$@" 3</dev/null', *argv]) as process:
        with connect(path) as client:
            client.sendall(b"first")
            receive_until(client, b"first")
        # Who answers has all descriptors that it needs.
        assert vmm.run([vmm.CROSVM, "version", control]).returncode == vmm.OK
        limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (4, limits[1]))
        with connect(path) as client:
            client.sendall(b"hello")
            vmm.read_until(process.stderr, b"Too many open files")
            time.sleep(0.2)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
            receive_until(client, b"hello")
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK
        assert process.stderr.read().count(b"Too many open files") < 5
    assert not path.exists()


def test_serial_socket_that_is_in_use(tmp_path):
    path = tmp_path / "console"
    with vmm.started(vmm.command("hang", None, "--serial", f"unix={path}")) as process:
        connect(path).close()
        done = vmm.run(vmm.command("machine", "poweroff", "--serial", f"unix={path}"))
        assert done.returncode == vmm.HOST
        assert str(path) in done.stderr
        connect(path).close()
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK


def test_serial_socket_of_a_killed_vm(tmp_path):
    path = tmp_path / "console"
    for _ in range(2):
        with vmm.started(vmm.command("hang", None, "--serial", f"unix={path}")) as process:
            connect(path).close()
            vmm.end_by(process, signal.SIGKILL)
    done = vmm.run(vmm.command("machine", "poweroff", "--serial", f"unix={path}"))
    assert done.returncode == vmm.OK, done.stderr


def test_serial_socket_does_not_replace_a_file(tmp_path):
    path = tmp_path / "console"
    path.write_text("precious")
    done = vmm.run(vmm.command("machine", "poweroff", "--serial", f"unix={path}"))
    assert done.returncode == vmm.HOST and str(path) in done.stderr
    assert path.read_text() == "precious"


def test_serial_socket_path_too_long(tmp_path):
    done = vmm.run(vmm.command("machine", "poweroff", "--serial", f"unix={tmp_path}/{'x' * 200}"))
    assert done.returncode in (vmm.HOST, vmm.USAGE)
    assert done.stderr.count("\n") == 1


# ---- terminals ----------------------------------------------------------------------------------

class Terminal:
    """A crosvm on a terminal of its own; before and after are its settings."""

    def __init__(self, argv):
        self.master, self.slave = pty.openpty()
        settings = termios.tcgetattr(self.slave)
        settings[1] |= termios.OPOST | termios.ONLCR
        termios.tcsetattr(self.slave, termios.TCSANOW, settings)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(argv, stdin=self.slave, stdout=self.slave, stderr=subprocess.PIPE,
                                        start_new_session=True, preexec_fn=self.make_controlling)
        self.reader = os.fdopen(os.dup(self.master), "rb", buffering=0)

    def make_controlling(self):
        """Who is not in the foreground of its terminal must leave it alone."""
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def until(self, text):
        return vmm.read_until(self.reader, text)

    def type(self, keys):
        os.write(self.master, keys)

    def settings(self):
        return termios.tcgetattr(self.slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        self.reader.close()
        os.close(self.master)
        os.close(self.slave)

    def ended(self, status, timeout=5):
        assert self.process.wait(timeout) == status
        assert self.settings() == self.before


def test_terminal_is_raw_while_it_runs():
    with Terminal(vmm.command("hang")) as terminal:
        terminal.until(b"hanging")
        local = terminal.settings()[3]
        assert not local & (termios.ICANON | termios.ECHO | termios.ISIG)
        terminal.type(b"\x01x")
        terminal.ended(vmm.OK)
        said = terminal.process.stderr.read().decode()
        assert "Ctrl-a x" in said.splitlines()[0]
        assert said.splitlines()[1].startswith(vmm.STOPPED)


@pytest.mark.parametrize("signal_number", vmm.SIGNALS)
def test_terminal_after_a_signal(signal_number):
    with Terminal(vmm.command("hang")) as terminal:
        terminal.until(b"hanging")
        terminal.process.send_signal(signal_number)
        terminal.ended(vmm.OK)


@pytest.mark.parametrize("case, status", [(("machine", "poweroff"), vmm.OK), (("machine", "reset"), vmm.OK),
                                          (("machine", "triple-fault"), vmm.CRASH), (("machine", "panic"), vmm.CRASH),
                                          (("astray",), vmm.KVM)])
def test_terminal_after_the_guest_ended(case, status):
    with Terminal(vmm.command(*case)) as terminal:
        terminal.ended(status, 20)


def test_terminal_after_a_refusal():
    with Terminal([vmm.CROSVM, "run", "/dev/null"]) as terminal:
        terminal.ended(vmm.IMAGE)


@pytest.mark.parametrize("name", "SEGV BUS ILL FPE ABRT TRAP SYS QUIT USR1 USR2 ALRM VTALRM PROF XCPU IO PWR STKFLT".split())
def test_terminal_after_a_crash_of_ours(name):
    signal_number = signal.Signals["SIG" + name]
    with Terminal(vmm.command("hang")) as terminal:
        terminal.until(b"hanging")
        terminal.process.send_signal(signal_number)
        terminal.ended(-signal_number)


def test_terminal_keys_go_to_the_guest():
    """All of them, those that usually make signals included; two escape keys are one."""
    keys = bytes([3, 26, 28, 17, 19, 13, 10, 127, 27]) + b"[A"
    with Terminal(vmm.command(*ECHO)) as terminal:
        terminal.until(b"echo")
        time.sleep(0.1)
        terminal.type(keys)
        terminal.until(keys[-3:])
        terminal.type(b"\x01\x01")
        terminal.until(b"\x01")
        terminal.type(b"end\x04")
        terminal.until(b"end")
        terminal.ended(vmm.OK)


def test_terminal_after_stop_and_continue():
    """A shell that stopped us has set the terminal as it likes; on SIGCONT it is raw again."""
    with Terminal(vmm.command("hang")) as terminal:
        terminal.until(b"hanging")
        raw = terminal.settings()
        terminal.process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        termios.tcsetattr(terminal.slave, termios.TCSANOW, terminal.before)
        terminal.process.send_signal(signal.SIGCONT)
        end = time.monotonic() + 5
        while terminal.settings() != raw and time.monotonic() < end:
            time.sleep(0.01)
        assert terminal.settings() == raw
        terminal.type(b"\x01x")
        terminal.ended(vmm.OK)


def test_terminal_that_hangs_up():
    with Terminal(vmm.command("hang")) as terminal:
        terminal.until(b"hanging")
        terminal.reader.close()
        master, terminal.master = terminal.master, os.open(os.devnull, os.O_RDWR)
        os.close(master)
        before = vmm.cpu_seconds(terminal.process.pid)
        time.sleep(0.5)
        if terminal.process.poll() is None:
            assert vmm.cpu_seconds(terminal.process.pid) - before < 0.1
            terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(5) == vmm.OK
