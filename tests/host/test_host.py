# SPDX-License-Identifier: BSD-3-Clause
"""The test host itself: that commands inside behave as if they ran here, and that nothing is left behind.
A start of it is ten seconds of processor time, so that the sample of ./test has few."""
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pexpect
import pytest

HERE = pathlib.Path(__file__).resolve().parent
RUN = str(HERE / "run")
sys.path.insert(0, str(HERE))
import host as nested  # noqa: E402

pytestmark = pytest.mark.skipif(os.environ.get("CROSVM_TEST_HOST") == "nested", reason="is inside a nested host")
NOBODY = 65534
MIB = 1 << 20
SOON = 120  # seconds, for commands that take none on an idle machine
TIMEOUT = 180  # for a host's start and a little more: 5 on an idle machine, 50 on a very busy one


@pytest.fixture(scope="module")
def host():
    with nested.Host(memory_mib=2048) as running:
        yield running


def children(pid):
    """Everything that descends from a process."""
    below = []
    for task in pathlib.Path("/proc", str(pid), "task").glob("*/children"):
        for child in task.read_text().split():
            below += [int(child), *children(int(child))]
    return below


def running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_gone(pids, timeout=SOON):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if not any(running(p) for p in pids):
            return
        time.sleep(0.05)
    assert not [p for p in pids if running(p)]


@pytest.mark.parametrize("status", [0, 1, 77, 255])
def test_exit_status(host, status):
    assert host.run(["sh", "-c", f"exit {status}"], timeout=SOON).returncode == status


def test_killed_by_signal(host):
    assert host.run(["sh", "-c", "kill -SEGV $$"], timeout=SOON).returncode == -signal.SIGSEGV


def test_no_such_command(host):
    done = host.run(["/no/such/command"], timeout=SOON, text=True)
    assert done.returncode == 127
    assert "No such file" in done.stderr


def test_streams_cwd_and_environment(host):
    done = host.run(["sh", "-c", 'pwd; echo "$A" "$#" "$1" >&2', "sh", "two words"], cwd="/usr/share",
                    env={"A": "x  y", "PATH": "/bin"}, text=True, timeout=SOON)
    assert (done.stdout, done.stderr) == ("/usr/share\n", "x  y 1 two words\n")


def test_input_comes_back(host):
    data = os.urandom(5 * MIB)
    assert host.run(["cat"], input=data, timeout=SOON).stdout == data


def test_command_that_does_not_read_holds_up_no_other(host):
    slow = host.start(["sleep", "1000"], lambda *_: None)
    feeder = threading.Thread(target=slow.write, args=(bytes(4 * MIB),))
    feeder.start()
    assert host.run(["cat"], input=b"x", timeout=SOON).stdout == b"x"
    assert feeder.is_alive()
    slow.signal(signal.SIGKILL)
    feeder.join(SOON)
    assert slow.returncode == -signal.SIGKILL


@pytest.mark.soak
def test_big_output_is_intact(host):
    size = 50 * MIB
    made = host.run(["sh", "-c", f"head -c {size} /dev/urandom >/tmp/big; sha256sum </tmp/big; cat /tmp/big; rm /tmp/big"],
                    timeout=SOON).stdout
    digest, _, data = made.partition(b"\n")
    assert len(data) == size
    assert hashlib.sha256(data).hexdigest().encode() == digest.split()[0]


def test_many_at_once(host):
    answers = {}

    def one(number):
        answers[number] = host.run(["sh", "-c", f"sleep 0.2; cat; echo {number}"], input=b"in ", timeout=SOON).stdout

    threads = [threading.Thread(target=one, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: b"in %d\n" % n for n in range(20)}


def test_timeout_kills_all(host):
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        host.run(["sh", "-c", "echo begun; setsid sleep 987 & sleep 987"], timeout=3)
    assert caught.value.output == b"begun\n"
    time.sleep(0.3)
    assert host.run(["pgrep", "-f", "^sleep 987"], timeout=SOON).stdout == b""


def test_daemon_does_not_hold_the_command(host):
    assert host.run(["sh", "-c", "sleep 986 & echo done"], timeout=SOON).stdout == b"done\n"
    host.run(["pkill", "-f", "^sleep 986"], timeout=SOON)


def test_ordinary_user(host):
    script = "id -u; cat /proc/self/status | grep ^CapEff; test -w /dev/kvm && test -w /tmp && ! test -w /etc && echo fine"
    out = host.run(["sh", "-c", script], user=NOBODY, timeout=SOON, text=True).stdout
    assert out.split() == [str(NOBODY), "CapEff:", "0000000000000000", "fine"]


def test_kvm_works_inside(host):
    """Twice the nested speed of light: a VM inside the VM."""
    probe = nested.compile_static(HERE / "probe.c")
    done = host.run([probe], timeout=SOON, text=True)
    assert done.returncode == 0, done.stdout
    assert float(done.stdout) < nested.SLOW_NS


def test_machine_files_are_safe(host, tmp_path):
    target = pathlib.Path("/var/tmp/crosvm-test-host")
    target.unlink(missing_ok=True)
    assert host.run(["sh", "-c", f"echo x >{target} && cat {target}"], timeout=SOON).stdout == b"x\n"
    assert not target.exists()


@pytest.mark.soak
def test_host_that_ends_is_an_error():
    with nested.Host(memory_mib=1024) as short:
        threading.Timer(0.5, short.qemu.kill).start()
        with pytest.raises(nested.Error, match="ended"):
            short.run(["sleep", "100"], timeout=SOON)


@pytest.mark.soak
def test_run_forwards_everything(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    done = subprocess.run([RUN, "--nested", "--share", shared, "--", "sh", "-c",
                           'cat; echo err >&2; echo kept >"$0/file"; pwd; exit 9', shared],
                          input=b"in\n", capture_output=True, timeout=TIMEOUT, cwd=tmp_path)
    assert done.stdout == b"in\n%s\n" % bytes(tmp_path)
    assert done.stderr == b"host: nested: asked for\nerr\n"
    assert done.returncode == 9
    assert (shared / "file").read_text() == "kept\n"


FETCHED = [f"kernel-{nested.KERNEL}", f"qemu-{nested.QEMU_SUITE}"]


@pytest.mark.skipif(os.getuid() != 0, reason="all of these tests run as an ordinary user")
def test_run_by_an_ordinary_user(host):
    """From the start, so that QEMU has no rights but a user's; with a cache that has the downloads and nothing else."""
    nobody = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--"]
    if subprocess.run([*nobody, "test", "-x", RUN]).returncode:
        pytest.skip("the checkout is root's alone")
    inside = "id -u; test -w /dev/kvm && ! test -w /etc && echo fine; exit 7"
    with tempfile.TemporaryDirectory() as home:
        cache = pathlib.Path(home, "crosvm")
        for directory in (cache, *(cache / name for name in FETCHED)):
            directory.mkdir()
        os.chmod(home, 0o755)
        os.chown(cache, NOBODY, NOBODY)
        mounts = " && ".join(f"mount --bind {nested.debian.cache()}/{name} {cache}/{name}" for name in FETCHED)
        done = subprocess.run(["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh", *nobody,
                               RUN, "--nested", "-q", "--", "sh", "-c", inside], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=TIMEOUT, cwd="/", env={**os.environ, "XDG_CACHE_HOME": home})
    assert (done.stdout, done.stderr, done.returncode) == (b"%d\nfine\n" % NOBODY, b"", 7)


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_run_killed_leaves_nothing(number):
    before = set(os.listdir("/tmp"))
    with subprocess.Popen([RUN, "--nested", "sh", "-c", "echo up; sleep 1000"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        pids = children(process.pid)
        assert pids
        process.send_signal(number)
        assert process.wait(SOON) == (128 + number if number == signal.SIGTERM else -number)
    wait_gone(pids)
    assert not [n for n in set(os.listdir("/tmp")) - before if "host" in n or "qemu" in n or "crosvm" in n]


@pytest.mark.soak
def test_run_killed_while_booting():
    with subprocess.Popen([RUN, "--nested", "true"], stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 10
        while not (pids := children(process.pid)) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        pids = children(process.pid)
        process.send_signal(signal.SIGHUP)
        assert process.wait(SOON) == 128 + signal.SIGHUP
    wait_gone(pids)


def test_interrupt_reaches_the_command_and_a_second_one_ends_all():
    script = "trap 'echo got it' INT; echo up; while :; do sleep 0.2; done"
    with subprocess.Popen([RUN, "--nested", "sh", "-c", script], stdout=subprocess.PIPE,
                          start_new_session=True) as process:
        assert process.stdout.readline() == b"up\n"
        pids = children(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"got it\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON) == 128 + signal.SIGINT
    wait_gone(pids)


@pytest.mark.soak
def test_terminal():
    """An interactive shell: terminal inside, raw mode outside, window size, Ctrl-C, status."""
    shell = pexpect.spawn("bash", ["--norc", "--noprofile"], encoding="utf-8", timeout=TIMEOUT, dimensions=(33, 101),
                          env={**os.environ, "PS1": "outer> ", "TERM": "dumb"})
    try:
        shell.expect("outer> ")
        shell.sendline("stty -g >/dev/null; before=$(stty -g)")
        shell.expect("outer> ")
        shell.sendline(f"{RUN} --nested env PS1='inner> ' bash --norc --noprofile")
        shell.expect(r"\ninner> |\rinner> |[^']inner> $")
        shell.sendline("tty; stty size; echo done=$((1+1))")
        shell.expect(r"/dev/pts/\d+\s+33 101\s+done=2")
        shell.setwinsize(44, 102)
        time.sleep(0.5)
        shell.sendline("stty size")
        shell.expect("44 102")
        shell.sendline("sleep 500; echo after=$?")
        time.sleep(0.7)
        shell.sendcontrol("c")
        shell.sendline("echo alive=$((2+3))")
        shell.expect("alive=5")
        shell.sendline("exit 5")
        shell.expect("outer> ")
        shell.sendline('echo status=$? $([ "$before" = "$(stty -g)" ] && echo restored)')
        shell.expect("status=5 restored")
    finally:
        shell.close(force=True)
