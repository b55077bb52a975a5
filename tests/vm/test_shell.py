# SPDX-License-Identifier: BSD-3-Clause
"""A person at the guest's console: on a terminal, on a socket; and where nobody is."""
import base64
import hashlib
import os
import random
import re
import socket
import threading
import time
from contextlib import ExitStack, suppress

import pytest
import smaps
import vm
from pexpect.fdpexpect import fdspawn


@pytest.fixture(scope="module")
def guests(initrd, nothing_left):  # in this order: nothing_left looks after these are gone
    """The guest of fixture shell, in a list: none at first, and after a test that spoilt it."""
    running = []
    with ExitStack() as stack:
        def start():
            if not running:
                guest = stack.enter_context(vm.started("small", initrd))
                guest.expect(vm.PROMPT)
                running.append(guest)
            return running[0]
        yield start, running


@pytest.fixture
def shell(guests):
    """A guest whose shell waits at its prompt: one for all tests that leave it so."""
    start, running = guests
    guest = start()
    yield guest
    try:
        guest.send("echo i''ntact\n")
        guest.expect("intact", timeout=10)
        guest.expect(vm.PROMPT, timeout=10)
    except pytest.fail.Exception:
        running.clear()


def interrupts(guest):
    line = guest.ask("grep ttyS0 /proc/interrupts")
    return int(re.match(r" *4: +(\d+) .*ttyS0$", line)[1])


def paste(console, size):
    """Pastes a here-document, as text is pasted into a terminal; asserts that it came whole."""
    data = random.Random(size).randbytes(size * 3 // 4)
    lines = base64.encodebytes(data).decode()
    assert abs(len(lines) - size) < size // 50
    console.send(f"base64 -d <<EOF | sha256sum\n{lines}EOF\n")
    assert hashlib.sha256(data).hexdigest() in vm.expect(console, vm.PROMPT)


def test_answers(shell):
    assert shell.ask("tty; echo answer=$((40+2))") == "/dev/ttyS0\nanswer=42"


def test_serial_port_interrupts(shell):
    before = interrupts(shell)
    shell.ask("echo some more of them")
    assert interrupts(shell) > before


def test_paste(shell):
    paste(shell.console, 4096)


def test_keys(shell):
    """Ctrl-C is the guest's; Ctrl-a Ctrl-a is one Ctrl-a."""
    # A shell of its own: until its child has the terminal, busybox's keeps Ctrl-C to itself.
    shell.send("sh -c \"echo sl''eeping; exec sleep 1000\"\n")
    shell.expect("sleeping")
    shell.send("\x03")
    shell.expect(vm.PROMPT)
    shell.send("stty raw -echo; echo re''ady; head -c 2 | hexdump -e '/1 \"<%x>\"'; stty sane\n")
    shell.expect("ready")
    shell.send("\x01\x01\x02")
    shell.expect("<1><2>")
    shell.expect(vm.PROMPT)


def test_clock_is_right_and_runs(shell):
    """Two readings some seconds apart, each compared with our clock at the same moment."""
    for pause in (0, 3):
        time.sleep(pause)
        before = time.time()
        date = int(shell.ask("date +%s"))
        assert before - 3 < date < time.time() + 3


@pytest.mark.parametrize("field", ["Private_Dirty", "Pss"])
def test_footprint_of_an_idle_guest(shell, field):
    """What a VM costs beyond its guest's memory: what it wrote; and its share of everything."""
    # Code that is not in use is let go at growing intervals, at last every 64 s; earlier tests used it.
    end = time.monotonic() + 80
    while (kib := smaps.own_kib(shell.pid, field)) > 512 and time.monotonic() < end:
        time.sleep(1)
    print(f"{field} without guest memory: {kib} KiB")
    assert 0 < kib <= 512


def test_idle_guest_leaves_the_processor_alone(shell):
    def cpu():
        with open(f"/proc/{shell.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    time.sleep(1)
    before = cpu()
    time.sleep(2)
    assert cpu() - before < 0.3


def test_ctrl_a_x_ends_it(initrd):
    with vm.started("small", initrd, cpus=2) as guest:
        guest.expect(vm.PROMPT)
        guest.send("\x01x")
        assert guest.end() < 8


def test_socket(initrd, tmp_path):
    """Two clients, one after the other; the socket is gone at the end."""
    path = tmp_path / "console"
    with vm.Guest(vm.command("small", initrd, options=["--serial", f"unix={path}"])) as guest:
        for client in range(2):
            with connect(path) as connection:
                console = fdspawn(connection.fileno(), encoding="utf-8", codec_errors="replace")
                if client == 0:
                    vm.expect(console, vm.PROMPT)
                else:
                    console.send("\n")
                    vm.expect(console, vm.PROMPT)
                assert vm.ask(console, f"echo client=$(({client}+1))") == f"client={client + 1}"
                if client == 1:
                    paste(console, 4096)
                    console.send("exit\n")
                    guest.end(says=vm.POWERED_OFF)
    assert not path.exists()


def connect(path):
    connection = socket.socket(socket.AF_UNIX)
    end = time.monotonic() + 5
    while True:
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def test_file(initrd, tmp_path):
    path = tmp_path / "console"
    path.write_text("from before")
    done = vm.run("small", initrd, script="echo in the file; nproc", options=["--serial", f"file={path}"])
    assert (done.status, done.console) == (vm.OK, "")
    written = vm.text(path.read_bytes())
    assert "crosvm-init: up\nin the file\n1\ncrosvm-init: exit status 0\n" in written
    assert "from before" not in written


@pytest.mark.parametrize("end, status, says", [("poweroff", vm.OK, vm.POWERED_OFF), ("panic", vm.CRASH, vm.PANICKED)])
def test_no_console(initrd, end, status, says):
    """Nobody hears it; the way it ends tells that init ran."""
    done = vm.run("small", initrd, script=":", end=end, options=["--serial", "null"])
    assert done.console == ""
    done.check(says, status, None)


# ---- input that is no terminal -----------------------------------------------------------------

def test_end_of_input(initrd):
    """What was piped comes; then the guest runs on without input. (With /dev/null: all tests that use vm.run.)"""
    argv = vm.command("small", initrd, script="echo ready; head -n 1 >/got; sleep 1; sed 's/^/got /' /got")
    with vm.piped(argv) as (process, console):
        vm.expect(console, "ready")
        process.stdin.write(b"all of it\n")
        process.stdin.close()
        vm.expect(console, "got all of it")
        assert process.wait(20) == vm.OK


def test_input_that_nobody_reads(initrd):
    """100 MB piped while the guest sleeps: the pipe fills, our memory does not, and the guest's end is its own."""
    def pour(stream):
        with suppress(BrokenPipeError):
            for _ in range(100):
                stream.write(b"x" * 1000000)

    argv = vm.command("small", initrd, script="stty raw -echo; echo ready; sleep 4; echo awake")
    with vm.piped(argv) as (process, console):
        vm.expect(console, "ready")
        before = smaps.own_kib(process.pid, "Rss")
        writer = threading.Thread(target=pour, args=(process.stdin,), daemon=True)
        writer.start()
        time.sleep(2)
        # Code that it had let go, as idle as it was, is back.
        assert smaps.own_kib(process.pid, "Rss") - before < 1024
        assert writer.is_alive()  # it waits for us, as it should
        vm.expect(console, "awake")
        assert process.wait(20) == vm.OK
        assert vm.POWERED_OFF in process.stderr.read().decode()
        writer.join(5)
