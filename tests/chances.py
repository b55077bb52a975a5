# SPDX-License-Identifier: BSD-3-Clause
"""An emulated processor loses guests (doc/benchmarks.md, "Known limits"). A test whose guest was lost has a second chance.

Each is told at the end of the run, where tests/vm/run counts them: of more than a few it is not the emulator any more.
"""
import os

from _pytest.runner import runtestprotocol

EMULATED = os.environ.get("CROSVM_TEST_HOST") == "nested"
# Why they were given.
given = []


def run_test(item, nextitem, *signs):
    """The body of pytest_runtest_protocol(); a failure in which the guest was lost says one of the signs."""
    if not EMULATED:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    lost = next((report for report in reports if report.failed and any(sign in report.longreprtext for sign in signs)), None)
    if lost:
        given.append(f"{item.nodeid}, lost by the emulator: {lost.capstdout}")
        item._initrequest()  # pylint: disable=protected-access # its fixtures anew
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def tell(terminalreporter):
    """The body of pytest_terminal_summary()."""
    for why in given:
        terminalreporter.write_line(f"second chance: {why!r}")
