"""What the tests of the private Valkey share."""

from pathlib import Path

import pytest

from tests.support.before import run_before


@pytest.fixture
def data(folder: Path) -> Path:
    """The folder of an embedded Valkey, yet to be made."""
    return folder / "data"


@pytest.fixture
def hasty(tmp_path: Path) -> dict[str, str]:
    """The variables of a program that has little patience with its embedded Valkey."""
    patient = ("leftover.STOP", "keeper.LEFTOVER", "keeper.STEADY", "keeper.SECOND_TRY")
    code = "; ".join(f"{name} /= 10" for name in patient)
    return run_before(tmp_path, f"from embedded import keeper, leftover\n{code}")
