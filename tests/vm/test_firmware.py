# SPDX-License-Identifier: BSD-3-Clause
"""What Linux finds in its machine: ACPI tables, MP table, clocks. One guest of each kind tells it all."""
import base64
import re
import subprocess

import chances
import pytest
import vm


@pytest.fixture(scope="module", params=["small", "cloud-6.12"])
def report(request, initrd):
    """Sections of report.sh from a guest with two vCPUs."""
    done = vm.run(request.param, initrd, script="sh /report", cpus=2).check()
    return vm.sections(done.output)


def test_kernel_has_nothing_to_complain_about(report):
    """Level 3 is an error. Of what it calls warnings, none may be about the firmware."""
    log = report["dmesg"]
    assert len(log) > 50
    errors = [line for line in log if re.match("<[0-3]>", line) and vm.EXPECTED_ERROR not in line]
    warnings = [line for line in log if line.startswith("<4>")]
    print(*warnings, sep="\n")
    assert errors == []
    about_us = re.compile(r"ACPI|firmware|BIOS|BUG|WARNING|MP.?table|APIC|IRQ|TSC|PCI", re.IGNORECASE)
    # A driver for the power management of real processors misses theirs. And an emulated processor that is held up
    # between a look at its TSC and one at the other clock seems to Linux to have the one go wrong.
    excused = ["amd_pstate:", *(["clocksource:"] if chances.EMULATED else [])]
    assert [line for line in warnings if about_us.search(line) and not any(word in line for word in excused)] == []


def test_tables_disassemble(report, tmp_path):
    """iasl takes each table apart, checksums included, and can compile the DSDT again."""
    tables = dict(line.split() for line in report["tables"])
    assert {"APIC", "DSDT", "FACP", "MCFG"} <= set(tables)
    for name, data in tables.items():
        path = tmp_path / f"{name}.dat"
        path.write_bytes(base64.b64decode(data))
        done = subprocess.run(["iasl", "-d", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
        said = done.stdout.decode()
        assert not re.search(r"error|warning|invalid|incorrect|unknown|exception", said, re.IGNORECASE), said
        source = path.with_suffix(".dsl").read_text()
        assert not re.search(r"error|warning|invalid|incorrect|\bunknown", source, re.IGNORECASE), source
    done = subprocess.run(["iasl", "-p", tmp_path / "again", tmp_path / "DSDT.dsl"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=True)
    assert "0 Errors, 0 Warnings" in done.stdout.decode()


def test_clocks(report):
    assert "kvm-clock" in report["clocksources"][0].split()
    assert report["clocksource"][0] in ("kvm-clock", "tsc")  # tsc, where the host says that it never stops
    assert report["clockevent"] == ["lapic-deadline"]
    [timer] = [line.split() for line in report["interrupts"] if line.strip().startswith("LOC:")]
    assert all(int(count) > 0 for count in timer[1:3])


def test_knows_where_it_is(report):
    log = "\n".join(report["dmesg"])
    assert "Hypervisor detected: KVM" in log
    assert sum(line.startswith("processor\t") for line in report["cpuinfo"]) == 2


def test_devices_are_found(report):
    assert report["pci"].count("0x1af4") >= 1  # virtio's vendor


def test_mp_table_without_acpi(initrd):
    """Both vCPUs come up by the MP table alone. Power off is ACPI's, so the guest reboots."""
    script = "nproc; dmesg | grep -c 'found SMP MP-table'; dmesg | grep -c 'Processors: 2'; ls /sys/firmware/acpi"
    done = vm.run("small", initrd, script=script, cpus=2, params="acpi=off", end="reboot")
    done.check(vm.REBOOTED, script_status=1)
    assert done.output.startswith("2\n1\n1\nls: "), done.output
