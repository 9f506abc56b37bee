"""What the tests of the private Valkey share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedded import keeper, leftover
from tests.support import Patch
from tests.support.embedded import Keeping

Keep = Callable[..., Keeping]


@pytest.fixture
def data(folder: Path) -> Path:
    """The folder of an embedded Valkey, yet to be made."""
    return folder / "data"


@pytest.fixture
def keep(data: Path) -> Iterator[Keep]:
    """Start a process that keeps a Valkey in that folder, and end it after the test."""
    started: list[Keeping] = []

    def start(**options: object) -> Keeping:
        started.append(Keeping(data, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for one in started:
        one.close()
    if started:
        started[-1].wait_gone()


@pytest.fixture
def hasty(monkeypatch: Patch) -> None:
    """Let who keeps a Valkey, and who starts one, have little patience."""
    for module, name in (
        *((keeper, name) for name in ("LEFTOVER", "STEADY", "SECOND_TRY")),
        (leftover, "STOP"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name) / 10)


@pytest.fixture
def resting(monkeypatch: Patch) -> None:
    """Let the second try to start Valkey again be a long time off."""
    monkeypatch.setattr(keeper, "SECOND_TRY", 3600)
    monkeypatch.setattr(keeper, "LONGEST", 3600)
