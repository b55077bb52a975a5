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


def bench(name, *arguments):
    done = subprocess.run([vmm.ROOT / "bench" / name, "--json", *arguments], capture_output=True, text=True,
                          timeout=120, env={**os.environ, "CROSVM": vmm.CROSVM})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


release_only = pytest.mark.skipif("san" in os.path.realpath(vmm.CROSVM), reason="a sanitizer build")


@release_only
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_system_calls_to_the_first_instruction(record_property):
    result = bench("syscalls")
    print(result["count"], "system calls:", result["calls"])
    record_property("syscalls", result["count"])
    assert result["count"] <= SYSCALLS_MAX


@release_only
@pytest.mark.parametrize("vms", [
    8,  # which share the pages of the program
    1,
])
def test_memory_of_an_idle_vm(tmp_path, vms, record_property):
    """Of a copy of the program, which shares no page with the VMs of other tests."""
    program = shutil.copy(vmm.CROSVM, tmp_path / "crosvm")
    command = ["--memory", "64", "--vms", str(vms), "--", program, *vmm.command("hang")[1:]]
    result = next(weight for name, weight in bench("memory", *command).items() if isinstance(weight, dict))
    print(result)
    record_property("pss_kib", result["pss"])
    assert result["pss"] <= PSS_MAX_KIB
    assert result["processes"] == 1
