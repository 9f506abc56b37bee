"""The engine that the stores run on, and the table of what was run."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.container import engine
from tests.container.engine import docker
from tests.stores.machines import RUN

#: Notes what a store did, in a way to it.
Note = Callable[[str, str, str], None]

_found: dict[str, dict[str, str]] = {}


def pytest_sessionstart() -> None:
    if not engine.succeeds("docker", "version", seconds=20):
        raise pytest.UsageError(f"no Docker Engine answers: {engine.HOW_TO_GET_IT}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _found:
        return
    terminalreporter.section("what was run, for docs/settings.md")
    ways = sorted({way for row in _found.values() for way in row})
    rows = [[store, *(row.get(way, "") for way in ways)] for store, row in sorted(_found.items())]
    for cells in (["", *ways], ["---"] * (1 + len(ways)), *rows):
        terminalreporter.write_line(f"| {' | '.join(cells)} |")


@pytest.fixture
def note() -> Note:
    def note(store: str, way: str, what: str) -> None:
        _found.setdefault(store, {})[way] = what

    return note


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    if left := docker("ps", "-aq", f"--filter=label={RUN}").split():
        docker("rm", "--force", *left)


@pytest.fixture
def folders() -> Iterator[Callable[[], Path]]:
    """Make folders that a container's user may write to, whoever that is."""
    made: list[str] = []

    def make() -> Path:
        made.append(tempfile.mkdtemp(prefix="hello-store-"))
        return Path(made[-1])

    yield make
    for one in made:
        shutil.rmtree(one, ignore_errors=True)
