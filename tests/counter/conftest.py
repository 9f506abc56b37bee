"""What the tests of the counter share."""

from pathlib import Path

import pytest

import counter.probing
from tests.support.before import run_before


@pytest.fixture
def often_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the counter look for Redis ten times as often, where that is not the promise."""
    monkeypatch.setattr(counter.probing, "PROBE_EVERY", counter.probing.PROBE_EVERY / 10)


@pytest.fixture
def data(folder: Path) -> Path:
    """The folder of an embedded Valkey, yet to be made."""
    return folder / "data"


@pytest.fixture
def hasty(tmp_path: Path) -> dict[str, str]:
    """The variables of a program that has little patience with its embedded Valkey."""
    names = ("STOP", "LEFTOVER", "STEADY", "SECOND_TRY")
    code = "; ".join(f"it.{name} /= 10" for name in names)
    return run_before(tmp_path, f"import counter.keeper as it\n{code}")
