# SPDX-License-Identifier: BSD-3-Clause
"""CBMC, which Debian 12 does not have: its package from a newer Debian, unpacked into the cache.

It runs by that Debian's loader and libraries, so nothing is installed and nothing needs root.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "guest"))
import debian  # noqa: E402

SUITE = "trixie"
PACKAGES = ("cbmc",)


def root():
    """The unpacked packages."""

    def build(out):
        print("proofs: fetching CBMC, once", file=sys.stderr, flush=True)
        with debian.Apt(SUITE).session() as apt:
            for sub in ("bin", "sbin", "lib", "lib64"):
                (out / "usr" / sub).mkdir(parents=True)
                (out / sub).symlink_to(f"usr/{sub}")
            for deb in apt.closure(PACKAGES):
                debian.extract(deb, out)

    return debian.publish(debian.cache() / f"cbmc-{SUITE}", build)


def command(program="cbmc"):
    """argv that runs one of its programs."""
    where = root()
    return [str(where / "lib64/ld-linux-x86-64.so.2"), "--library-path",
            f"{where}/usr/lib/x86_64-linux-gnu:{where}/usr/lib", str(where / "usr/bin" / program)]
