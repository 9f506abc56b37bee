"""What the tests of replicas share."""

import pytest

import counter.visits


@pytest.fixture
def often_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the counter look for Redis ten times as often, where that is not the promise."""
    monkeypatch.setattr(counter.visits, "PROBE_EVERY", counter.visits.PROBE_EVERY / 10)
