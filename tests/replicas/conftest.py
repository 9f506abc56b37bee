"""What the tests of the figures share."""

import pytest

from replicas import figures
from tests.support import Patch
from tests.support.counting import ALWAYS


@pytest.fixture
def always_signed(monkeypatch: Patch) -> None:
    monkeypatch.setattr(figures, "SIGN_EVERY", ALWAYS)
