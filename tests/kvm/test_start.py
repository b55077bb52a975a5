# SPDX-License-Identifier: BSD-3-Clause
"""What a start costs, by counts that do not depend on the machine: bench/ measures, this sets the limits."""
import json
import os
import shutil
import subprocess

import pytest
import vmm

SYSCALLS_MAX = 60
PSS_MAX_KIB = 512
DEVICES_PSS_MAX_KIB = 1024
DEVICE_SYSCALLS_MAX = 25


def bench(name, *arguments):
    done = subprocess.run([vmm.ROOT / "bench" / name, "--json", *arguments], capture_output=True, text=True,
                          timeout=120, env={**os.environ, "CROSVM": vmm.CROSVM})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fewest(limit, key, *words):
    """Of several series of starts: where other work keeps the vCPU's thread waiting, the main thread's later calls come first."""
    for _ in range(6):
        result = bench(*words)
        if result[key] <= limit:
            break
    return result


release_only = pytest.mark.skipif(vmm.SANITIZED, reason="a sanitizer build")


@release_only
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_system_calls_to_the_first_instruction(record_property):
    result = fewest(SYSCALLS_MAX, "count", "syscalls")
    print(result["count"], "system calls:", result["calls"])
    record_property("syscalls", result["count"])
    assert result["count"] <= SYSCALLS_MAX


@release_only
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_system_calls_for_a_jailed_device():
    """Of the main process's threads, to the first instruction."""
    result = fewest(DEVICE_SYSCALLS_MAX, "main_calls_a_device", "multiprocess", "--only", "calls")
    assert result["main_calls_a_device"] <= DEVICE_SYSCALLS_MAX


@release_only
@pytest.mark.parametrize("vms", [
    8,  # which share the pages of the program
    1,
])
def test_memory_of_an_idle_vm(tmp_path, vms, record_property):
    result = weigh(tmp_path, vms)
    record_property("pss_kib", result["pss"])
    assert result["pss"] <= PSS_MAX_KIB
    assert result["processes"] == 1


@release_only
def test_memory_of_an_idle_vm_and_its_devices(tmp_path, record_property):
    """-u with three disks and the entropy device: all five processes."""
    disks = [tmp_path / f"{number}.img" for number in range(3)]
    for disk in disks:
        disk.write_bytes(bytes(1 << 20))
    result = weigh(tmp_path, 1, "-u", *[word for disk in disks for word in ("-b", str(disk))])
    record_property("pss_kib", result["pss"])
    assert result["pss"] <= DEVICES_PSS_MAX_KIB
    assert result["processes"] == 5


def weigh(directory, vms, *options):
    """Idle VMs of a copy of the program, which shares no page with the VMs of other tests."""
    program = shutil.copy(vmm.CROSVM, directory / "crosvm")
    command = ["--memory", "64", "--vms", str(vms), "--", program, *vmm.command("hang", None, *options)[1:]]
    result = next(weight for name, weight in bench("memory", *command).items() if isinstance(weight, dict))
    print(result)
    return result
