"""The engine that the stores run on, and the table of what was run, for docs/settings.md."""

import pytest

from tests.container import engine
from tests.container.conftest import figure as figure
from tests.container.conftest import pytest_terminal_summary as pytest_terminal_summary


def pytest_sessionstart() -> None:
    if not engine.succeeds("docker", "version", seconds=20):
        raise pytest.UsageError(f"no Docker Engine answers: {engine.HOW_TO_GET_IT}")


def pytest_sessionfinish() -> None:
    engine.clear()
