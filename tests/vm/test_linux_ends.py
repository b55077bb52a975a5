# SPDX-License-Identifier: BSD-3-Clause
"""Every way in which Linux ends its machine, and every way in which we end Linux."""
import re
import signal
import time

import pytest
import vm

# Power off: nearly all other tests.
ENDS = {
    # name: (crosvm.end, kernel parameters, script, exit status, message)
    "reboot": ("reboot", "", ":", vm.OK, vm.REBOOTED),
    "reboot by keyboard controller": ("reboot", "reboot=k", ":", vm.OK, vm.REBOOTED),
    "reboot by ACPI": ("reboot", "reboot=a", ":", vm.OK, vm.REBOOTED),
    "reboot by triple fault": ("reboot", "reboot=t", ":", vm.CRASH, vm.TRIPLE_FAULT),
    "panic": ("panic", "", ":", vm.CRASH, vm.PANICKED),
    "crash by sysrq": ("none", "", "echo c >/proc/sysrq-trigger", vm.CRASH, vm.PANICKED),
}


@pytest.mark.parametrize("name", ENDS)
def test_linux_ends_it(initrd, name):
    end, params, script, status, says = ENDS[name]
    done = vm.run("small", initrd, script=script, cpus=2, end=end, params=params)
    done.check(says, status, None if end == "none" else 0)


def others():
    for name in vm.KERNELS:
        for end, status, says in (("reboot", vm.OK, vm.REBOOTED), ("panic", vm.CRASH, vm.PANICKED)):
            sampled = (name, end) == ("cloud-6.12", "panic")
            yield pytest.param(name, end, status, says, marks=[] if sampled else [pytest.mark.soak])


@pytest.mark.parametrize("name, end, status, says", others())
def test_every_kernel_ends_it(initrd, name, end, status, says):
    vm.run(name, initrd, script=":", cpus=2, end=end).check(says, status)


@pytest.mark.parametrize("number, until, cpus", [
    (signal.SIGTERM, "", 1),  # Linux is about to start a shell
    (signal.SIGINT, "sleeping", 2),
    (signal.SIGHUP, "busy", 4),
])
def test_signal_ends_it(initrd, number, until, cpus):
    script = {"sleeping": "echo sleeping; sleep 1000",
              "busy": "for i in 1 2 3 4 5; do while :; do :; done & done; echo busy; wait"}.get(until)
    with vm.started("small", initrd, script=script, cpus=cpus) as guest:
        guest.expect(until)
        guest.process.send_signal(number)
        assert guest.end() < 8


def test_signal_while_linux_starts(initrd):
    with vm.Guest(vm.command("small", initrd)) as guest:
        time.sleep(0.8)
        guest.process.send_signal(signal.SIGTERM)
        assert guest.end() < 8


def test_exits_of_a_stock_kernel(initrd, record_property):
    """No limit here; the numbers are for who compares. A byte on the serial port is an exit, so `quiet`."""
    done = vm.run("cloud-6.1", initrd, script=":", options=["--log-level", "debug"]).check()
    counts = re.findall(r"vCPU (\d+): (\d+) (.*) exits", done.stderr)
    assert {kind for _, _, kind in counts} >= {"port"}, done.stderr
    for vcpu, number, kind in counts:
        record_property(f"vCPU {vcpu} {kind} exits", number)
        print(f"vCPU {vcpu}: {number} {kind} exits")
