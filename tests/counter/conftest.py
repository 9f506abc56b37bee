"""What the tests of the counter share."""

import pytest

import counter.probing


@pytest.fixture
def often_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the counter look for Redis ten times as often, where that is not the promise."""
    monkeypatch.setattr(counter.probing, "PROBE_EVERY", counter.probing.PROBE_EVERY / 10)
