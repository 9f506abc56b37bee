"""Which tests use the processor: ``python -m pytest -p tests.support.cpu -n 2 …``.

It counts the seconds of the processor, not of the clock, so a busy machine changes little. A test's
seconds are those of its fixtures and of the processes that it started and awaited, too.
"""

import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

#: How many tests are printed one by one, with all their parameters.
GREATEST = 100

_files, _tests = Counter[str](), Counter[str]()
_before = 0.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Add to the report what was used since the one before: of the first test, the imports too."""
    global _before
    report = yield
    now = sum(os.times()[:4])
    report.cpu, _before = now - _before, now
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Sum it up."""
    _files[report.nodeid.split("::")[0]] += report.cpu
    _tests[report.nodeid.split("[")[0]] += report.cpu


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the greatest tests, and the files, the greatest first."""
    terminalreporter.section("seconds of the processor")
    for name, seconds in [*_tests.most_common(GREATEST), *_files.most_common()]:
        terminalreporter.write_line(f"{seconds:7.1f}  {name}")
    terminalreporter.write_line(f"{sum(_files.values()):7.1f}  together")
