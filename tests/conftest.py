"""What holds for all tests."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import absl.logging
import hypothesis
import pytest

# A shell that starts the tests in the background makes them ignore Ctrl-C, and so would every process they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine's load than about the code.
hypothesis.settings.register_profile("any_machine", deadline=None)
hypothesis.settings.load_profile("any_machine")

# Images of containers often forbid bytecode files; then every process that tests start compiles all its imports, and a
# command of Kedro takes 7 CPU-seconds instead of 3.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# absl, which rouge-score brings, logs to the stream that it found when it was imported, and closes it as soon as
# logging is configured anew, as every command of Kedro does: that would be pytest's own stream.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


# Processes that test side by side share the cores; more threads than cores make each other wait.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    cores = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))


LONGEST_FIRST = (
    *("end_to_end/test_dvc.py", "end_to_end/test_faults.py", "end_to_end/test_mpo_dpo.py"),
    *("end_to_end/test_backends.py", "end_to_end/test_real_models.py", "end_to_end/test_tutorial.py"),
    *("end_to_end/test_pictures.py", "end_to_end/test_notebooks.py", "end_to_end/test_bad_input.py"),
    *("generators/test_conformance.py", "test_extending.py", "training/", "judges/", "hooks/", "runners/"),
    *("browser/", "lineage/"),
)
"""Files and folders of tests with which processes begin, so that none is left alone with long tests in the end.

Of the first two files one makes its own runs, and one makes the run that all others compare with.
"""
EACH_ALONE = {"test_backends.py", "test_real_models.py", "test_bad_input.py"}
"""Files of long tests that have nothing in common but runs that all processes share."""


ATTACKS_AND_FAULTS = {"Attacks": "security", "Faults": "faults"}
"""Tables of docs/security.md, and the mark of the tests that they name."""


def listed_tests() -> dict[str, set[str]]:
    """The files of tests, or single tests (file::name), that each table of docs/security.md names, by its mark."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
    found = {}
    for heading, mark in ATTACKS_AND_FAULTS.items():
        table = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        rows = [line.split("|")[-2] for line in table.splitlines() if line.startswith("| ")]
        found[mark] = {name for row in rows for name in re.findall(r"`([\w/]+\.py(?:::\w+)?)`", row)}
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that docs/security.md names."""
    file, _, name = item.nodeid.partition("::")
    file = file.removeprefix("tests/")
    for mark, names in _LISTED.items():
        if file in names or f"{file}::{name.partition('[')[0]}" in names:
            item.add_marker(getattr(pytest.mark, mark))


_LISTED = listed_tests()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many attacks and faults were tried."""
    for mark in ATTACKS_AND_FAULTS.values():
        reports = [
            report
            for outcome in ("passed", "failed")
            for report in terminalreporter.stats.get(outcome, [])
            if report.when == "call" and mark in report.keywords
        ]
        if reports:
            seconds = sum(report.duration for report in reports)
            failed = sum(report.outcome == "failed" for report in reports)
            terminalreporter.write_line(f"{mark}: {len(reports)} tried, {failed} failed, in {seconds:.0f} s")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest tests, when tests run in several processes."""

    def place(item: pytest.Item) -> int:
        found = (number for number, name in enumerate(LONGEST_FIRST) if f"tests/{name}" in item.nodeid)
        return next(found, len(LONGEST_FIRST))

    if hasattr(config, "workerinput"):
        items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file together, when tests run in several processes: they share what is expensive."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return nodeid if file.rpartition("/")[2] in EACH_ALONE else file

    return ByFile(config, log)
