# SPDX-License-Identifier: BSD-3-Clause
"""The machine that a well-behaved guest sees: tests/guest/machine.c looks, this judges."""
import datetime
import os
import re
import shutil
import subprocess
import time

import pytest
import vmm

MIB = 1 << 20
LOW_RAM_END = 0xC0000000
HIGH_RAM = 1 << 32


def e820(memory):
    found = re.findall(r"e820 (\w+) (\w+) (\d+)", case("e820", memory))
    return [(int(gpa, 16), int(size, 16), int(kind)) for gpa, size, kind in found]


def case(name, memory="64", cpus=1, params=""):
    done = vmm.run([vmm.CROSVM, "run", "-m", memory, "-c", str(cpus), "-p", f"test={name} {params}",
                    vmm.guest("machine")])
    assert f"PASS {name}" in done.stdout, f"{done.stdout!r} {done.stderr!r}"
    assert done.returncode == vmm.OK
    return done.stdout


@pytest.mark.parametrize("memory, mib", [("32", 32), ("128M", 128), ("3G", 3072), ("3584", 3584), ("5G", 5120)])
def test_memory_map_loses_only_the_legacy_hole(memory, mib):
    entries = e820(memory)
    ram = [(gpa, size) for gpa, size, kind in entries if kind == 1]
    assert sum(size for _, size in ram) >= mib * MIB - (MIB - 0x9FC00)
    for gpa, size in ram:
        assert gpa + size <= LOW_RAM_END or gpa >= HIGH_RAM
    # What lies below the hole is all there, and the rest starts at 4 GiB.
    assert max(gpa + size for gpa, size in ram if gpa < HIGH_RAM) == min(mib * MIB, LOW_RAM_END)
    high = [(gpa, size) for gpa, size in ram if gpa >= HIGH_RAM]
    assert high == ([(HIGH_RAM, mib * MIB - LOW_RAM_END)] if mib * MIB > LOW_RAM_END else [])


@pytest.mark.parametrize("memory", ["32", "3G", "5G"])
def test_memory_is_there(memory):
    case("ram", memory)


@pytest.mark.parametrize("cpus", [1, 2, 3, 8, 64, 300])
def test_tables_name_every_vcpu(cpus):
    """The MP table has a byte for an APIC's id, of which the last means all of them."""
    assert re.search(r"cpus (\d+)", case("acpi", cpus=cpus))[1] == str(cpus)
    assert re.search(r"cpus (\d+)", case("mptable", cpus=cpus))[1] == str(min(cpus, 255))


@pytest.mark.parametrize("cpus", [1, 2, 3, 8])
def test_cpuid(cpus):
    out = case("cpuid", cpus=cpus)
    assert cpus == 1 or "htt 1" in out
    assert int(re.search(r"ids (\d+)", out)[1]) in range(cpus, 2 * cpus)
    topology = re.search(r"topology (.*)", out)[1].strip()
    if topology != "none":
        threads, cores, shift = map(int, topology.split())
        assert (threads, cores, 1 << shift >= cpus) == (1, cpus, True)


@pytest.mark.parametrize("cpus", [2, 4])
def test_other_vcpus_start(cpus):
    case("smp", cpus=cpus, params=f"cpus={cpus}")


@pytest.mark.skipif(shutil.which("iasl") is None, reason="iasl (acpica-tools) is not installed")
@pytest.mark.parametrize("cpus", [1, 8])
def test_tables_as_iasl_sees_them(cpus, tmp_path):
    tables = dict(re.findall(r"table (\w+) ([0-9a-f]+)", case("dump", cpus=cpus)))
    assert {"XSDT", "DSDT", "FACS", "FACP", "APIC"} <= set(tables)
    for name, content in tables.items():
        path = tmp_path / f"{name}.aml"
        path.write_bytes(bytes.fromhex(content))
        done = subprocess.run(["iasl", "-d", path], capture_output=True, text=True, cwd=tmp_path)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert not re.search(r"(?i)error|warning|incorrect|invalid", said), said
        listing = (tmp_path / f"{name}.dsl").read_text()
        assert not re.search(r"(?i)\berror|warning|incorrect|invalid", listing), listing


def test_clock_is_utc():
    before = datetime.datetime.now(datetime.timezone.utc)
    numbers = re.search(r"clock (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", case("cmos"))
    clock = datetime.datetime(*map(int, numbers.groups()), tzinfo=datetime.timezone.utc)
    after = datetime.datetime.now(datetime.timezone.utc)
    assert before - datetime.timedelta(seconds=2) <= clock <= after + datetime.timedelta(seconds=2)


def test_pm_timer_keeps_time():
    for _ in range(5):  # the machine may be busy
        with vmm.started(vmm.command("machine", "pm-timer"), until=b"start\n") as process:
            start = time.monotonic()
            seen = vmm.read_until(process.stdout, b"half a second")
            took = time.monotonic() - start
            assert b"PASS pm-timer" in seen + process.stdout.read()
        if 0.4 < took < 0.7:
            return
    pytest.fail(f"half a second took {took} s")


def test_smallest_guest():
    done = vmm.run([vmm.CROSVM, "run", vmm.guest("m")])
    assert (done.stdout, done.returncode) == ("M", vmm.CRASH)
    assert vmm.TRIPLE_FAULT in done.stderr


@pytest.mark.parametrize("arguments, says", [
    (["--mem=64", "--params=test=e820", "KERNEL"], "e820 100000 3f00000 1\n"),
    (["--mem", "64", "--params", "test=e820", "KERNEL"], "e820 100000 3f00000 1\n"),
    (["-m64", "-ptest=e820", "KERNEL"], "e820 100000 3f00000 1\n"),
    (["KERNEL", "-m", "64M", "-p", "test=e820"], "e820 100000 3f00000 1\n"),
    (["-p", "test=acpi", "KERNEL", "--cpus=3"], "cpus 3\n"),
    (["-c3", "-p", "test=acpi", "--", "KERNEL"], "cpus 3\n"),
    (["KERNEL", "-p", "test=acpi", "-c", "3", "--"], "cpus 3\n"),
    (["-p", "test=acpi", "-c", "3", "--", "--mem"], "cpus 3\n"),
])
def test_options_in_any_order_and_form(arguments, says, tmp_path):
    """Also a kernel that is called like an option, behind the dashes that end them."""
    for name in ("KERNEL", "--mem"):
        (tmp_path / name).symlink_to(vmm.guest("machine"))
    done = vmm.run([vmm.CROSVM, "run", *arguments], cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (vmm.OK, vmm.POWERED_OFF), done.stderr
    assert says in done.stdout


def test_parameters_reach_the_guest_in_order():
    done = vmm.run([vmm.CROSVM, "run", "-p", "a=1", "--params", "test=poweroff", "-p", "z", vmm.guest("machine")])
    assert (done.returncode, done.stdout) == (vmm.OK, "")


@pytest.mark.skipif(os.cpu_count() < 2, reason="one processor")
def test_many_starts_in_parallel():
    processes = [subprocess.Popen(vmm.command("machine", "poweroff"), stdin=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE) for _ in range(100)]
    for process in processes:
        _, error = process.communicate(timeout=60)
        assert process.returncode == vmm.OK, error
