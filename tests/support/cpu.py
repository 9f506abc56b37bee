"""Which tests use the processor: ``python -m pytest -p tests.support.cpu -n 2 …``.

It counts the seconds of the processor, not of the clock, so a busy machine changes little. A test's
seconds are those of its fixtures and of the processes that it started and awaited, too.
"""

import os
from collections import defaultdict
from collections.abc import Generator
from typing import Any

import pytest

#: How many tests are printed one by one.
GREATEST = 100

#: By file, and by test with all its parameters.
_files: dict[str, float] = defaultdict(float)
_tests: dict[str, float] = defaultdict(float)
_starts: list[float] = []
_before = 0.0


def _cpu() -> float:
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Add to the report what was used since the one before."""
    global _before
    report = yield
    now = _cpu()
    report.cpu = now - _before
    _before = now
    return report


@pytest.hookimpl
def pytest_collection_finish(session: pytest.Session) -> None:
    """Take the imports apart from the tests."""
    global _before
    _before = _cpu()
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["cpu"] = _before


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take what a worker of pytest-xdist used before its first test."""
    _starts.append(getattr(node, "workeroutput", {}).get("cpu", 0.0))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Sum it up."""
    _files[report.nodeid.split("::")[0]] += getattr(report, "cpu", 0.0)
    _tests[report.nodeid.split("[")[0]] += getattr(report, "cpu", 0.0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the greatest tests, and the files, the greatest first."""
    terminalreporter.section("seconds of the processor")
    tests, files = (sorted(one.items(), key=lambda item: -item[1]) for one in (_tests, _files))
    for name, seconds in [*tests[:GREATEST], *files]:
        terminalreporter.write_line(f"{seconds:7.1f}  {name}")
    terminalreporter.write_line(f"{sum(_starts):7.1f}  imports of {len(_starts)} workers")
    terminalreporter.write_line(f"{sum(_starts) + sum(_files.values()):7.1f}  together")
