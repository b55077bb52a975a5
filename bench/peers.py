# SPDX-License-Identifier: BSD-3-Clause
"""What the benchmarks share: where crosvm and its peers are, how they are started, how numbers are shown.

Used by the scripts in this directory, which run from anywhere and need nothing but Python.
"""
import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
GUESTS = BUILD / "guest"


def crosvm():
    """The binary that is measured: $CROSVM or the release build."""
    return os.environ.get("CROSVM") or str(BUILD / "crosvm")


def cache():
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "crosvm"


def qemu():
    """(argv, extra environment) of QEMU: $QEMU, the one in the PATH, or the test host's; None without."""
    program = os.environ.get("QEMU") or shutil.which("qemu-system-x86_64")
    if program:
        return [program], {}
    root = cache() / "qemu-trixie"
    libraries = root / "usr/lib/x86_64-linux-gnu"
    if not (root / "usr/bin/qemu-system-x86_64").exists():
        return None
    return ([str(root / "lib64/ld-linux-x86-64.so.2"), "--library-path", str(libraries),
             str(root / "usr/bin/qemu-system-x86_64"), "-L", str(root / "usr/share/qemu"),
             "-L", str(root / "usr/share/seabios")],
            {"QEMU_MODULE_DIR": str(libraries / "qemu")})


def arguments(description, **defaults):
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    if "runs" in defaults:
        parser.add_argument("-n", "--runs", type=int, default=defaults["runs"], metavar="N",
                            help="measured rounds (default %(default)s)")
    return parser


def need(*paths):
    """End with one line when something to measure is not there."""
    for path in paths:
        if not os.path.exists(path):
            sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {path} is not there; run 'make bench'")


def machine():
    """What the numbers depend on, as one line."""
    model = "unknown processor"
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {len(os.sched_getaffinity(0))} processors, Linux {platform.release()}"


def program_version(argv, environment=None):
    done = subprocess.run([*argv, "--version"], capture_output=True, text=True,
                          env={**os.environ, **(environment or {})})
    return done.stdout.splitlines()[0] if done.stdout else "unknown version"


def ratios(samples, name, base):
    """Median of the pairwise ratios of two columns that were measured in turn."""
    return statistics.median(a / b for a, b in zip(samples[name], samples[base]))


def spread(values):
    """'median (lowest to highest)'"""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def ratio_spread(values, base):
    """The same of the rounds' ratios of two columns that were measured in turn."""
    return spread([a / b for a, b in zip(values, base)])


def show(arguments_, title, header, rows, facts):
    """Prints the result: a markdown table, or JSON of the facts."""
    if arguments_.json:
        print(json.dumps({"benchmark": title, "machine": machine(), **facts}, indent=1))
        return
    print(f"{title}; {machine()}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
