"""What the tests of the private Valkey share."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedded import EmbeddedError, keeper, leftover, running
from tests.conftest import all_closed
from tests.support import Patch
from tests.support.embedded import Keeping
from tests.support.processes import processes_in
from tests.support.waiting import wait_until

Keep = Callable[..., Keeping]


@pytest.fixture
def data(folder: Path) -> Path:
    """The folder of an embedded Valkey, yet to be made."""
    return folder / "data"


@pytest.fixture
def keep(data: Path) -> Iterator[Keep]:
    """Start a process that keeps a Valkey in that folder, and end it after the test."""
    yield from all_closed(functools.partial(Keeping, data=data))
    wait_until(lambda: not processes_in(data))


def refused(folder: Path | str) -> str:
    """Return why no Valkey is kept in a folder."""
    with pytest.raises(EmbeddedError) as caught, running(str(folder)):
        pass
    return str(caught.value)


@pytest.fixture
def hasty(monkeypatch: Patch) -> None:
    """Let who keeps a Valkey, and who starts one, have little patience."""
    for name in ("LEFTOVER", "STEADY", "SECOND_TRY"):
        monkeypatch.setattr(keeper, name, getattr(keeper, name) / 10)
    monkeypatch.setattr(leftover, "STOP", leftover.STOP / 10)
