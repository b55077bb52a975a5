# SPDX-License-Identifier: BSD-3-Clause
"""Every way in which a VM ends: the status, the one line that says why, and nothing left."""
import re
import resource
import signal
import time

import pytest
import vmm


@pytest.mark.parametrize("test, status, line", [
    ("poweroff", vmm.OK, vmm.POWERED_OFF),
    ("reset", vmm.OK, vmm.REBOOTED),
    ("reset-i8042", vmm.OK, vmm.REBOOTED),
    ("triple-fault", vmm.CRASH, vmm.TRIPLE_FAULT),
    ("panic", vmm.CRASH, "crosvm: the guest's kernel panicked"),
])
@pytest.mark.parametrize("cpus", [1, 4])
def test_guest_ends_it(test, status, line, cpus):
    done = vmm.run(vmm.command("machine", test, "-c", str(cpus)))
    assert done.returncode == status
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("cpus", [1, 4])
def test_kvm_cannot_go_on(cpus):
    """An internal error of KVM's. That the registers are read in the sandbox is part of it."""
    done = vmm.run(vmm.command("astray", None, "-c", str(cpus)))
    assert (done.returncode, done.stdout) == (vmm.KVM, "astray\n")
    *state, last = done.stderr.splitlines()
    assert last.startswith("crosvm: KVM could not go on with the guest")
    assert state and all(line.startswith("crosvm: vCPU 0: ") for line in state), done.stderr
    # Where it went astray, and that it was in 64-bit mode with paging.
    assert re.search(r" rip 000000003ff00000 .* cpl 0$", done.stderr, re.MULTILINE), done.stderr
    assert re.search(r" cr0 8\w{7} .* efer \w{5}5\w\w$", done.stderr, re.MULTILINE), done.stderr


@pytest.mark.parametrize("level, said", [("error", ""), ("warn", ""), ("info", vmm.POWERED_OFF)])
def test_log_level(level, said):
    done = vmm.run(vmm.command("machine", "poweroff", "--log-level", level))
    assert done.returncode == vmm.OK
    assert done.stderr.startswith(said) and bool(done.stderr) == bool(said)


def test_debug_log_counts_exits():
    done = vmm.run(vmm.command("machine", "poweroff", "--log-level", "debug"))
    assert done.returncode == vmm.OK
    assert "port exits" in done.stderr


@pytest.mark.parametrize("signal_number", vmm.SIGNALS)
@pytest.mark.parametrize("name, says", [("hang", b"hanging"), ("machine", b"spinning")])
@pytest.mark.parametrize("cpus", [1, 4])
def test_signal_ends_it(signal_number, name, says, cpus):
    with vmm.started(vmm.command(name, "spin", "-c", str(cpus)), until=says) as process:
        status, seconds = vmm.end_by(process, signal_number)
        assert status == vmm.OK
        assert seconds < 4  # far less than 1, but for a busy machine
        assert process.stderr.read().decode().startswith(vmm.STOPPED)


@pytest.mark.parametrize("signal_number", vmm.SIGNALS)
def test_signal_at_any_time(signal_number):
    """From before main() to a running guest. Before crosvm takes signals, the kernel's default ends it."""
    for step in range(25):
        with vmm.started(vmm.command("hang")) as process:
            time.sleep(step * 0.0007)
            status, seconds = vmm.end_by(process, signal_number)
            assert status in (vmm.OK, -signal_number)
            assert seconds < 4  # far less than 1, but for a busy machine


def test_many_signals():
    with vmm.started(vmm.command("hang"), until=b"hanging") as process:
        for _ in range(200):
            for signal_number in vmm.SIGNALS:
                process.send_signal(signal_number)
        assert process.wait(5) == vmm.OK
        assert process.stderr.read().decode().count("\n") == 1


def test_stop_and_continue():
    with vmm.started(vmm.command("hang"), until=b"hanging") as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.1)
        assert process.poll() is None
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK


def test_kill_leaves_nothing():
    with vmm.started(vmm.command("hang", None, "-c", "4"), until=b"hanging") as process:
        assert vmm.end_by(process, signal.SIGKILL)[0] == -signal.SIGKILL


def test_idle_guest_costs_nothing():
    with vmm.started(vmm.command("hang"), until=b"hanging") as process:
        vmm.wait_until_started(process.pid)
        before = vmm.cpu_seconds(process.pid)
        time.sleep(1)
        assert vmm.cpu_seconds(process.pid) - before < 0.03


@pytest.mark.parametrize("environment", [{}, {"PATH": "", "LC_ALL": "xx", "HOME": "/nowhere", "TMPDIR": "/nowhere"}])
def test_environment_does_not_matter(environment):
    assert vmm.run(vmm.command("machine", "poweroff"), env=environment, cwd="/").returncode == vmm.OK


def test_inherited_descriptors_do_not_matter(tmp_path):
    files = [open(tmp_path / str(i), "w") for i in range(200)]  # pylint: disable=consider-using-with
    done = vmm.run(vmm.command("machine", "poweroff"), pass_fds=[file.fileno() for file in files])
    assert done.returncode == vmm.OK


def test_signals_that_cannot_be_queued_do_not_matter():
    """The kernel counts those of all the user's processes."""
    def leave_no_room():
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, 0))

    with vmm.started(vmm.command("hang"), until=b"hanging", preexec_fn=leave_no_room) as process:
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK


def test_ignored_signals_do_not_matter():
    """Under nohup, or as the child of a careless program."""
    def ignore():
        for number in (signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG, *range(signal.SIGRTMIN, signal.SIGRTMAX)})

    with vmm.started(vmm.command("hang"), until=b"hanging", preexec_fn=ignore) as process:
        assert vmm.end_by(process, signal.SIGTERM)[0] == vmm.OK
