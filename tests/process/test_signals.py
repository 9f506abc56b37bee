"""A signal that comes at any moment is noticed soon."""

import signal
import time

import pytest

from process import Stopping, sleep
from tests.support import Patch


def test_a_long_sleep_is_of_short_ones(monkeypatch: Patch) -> None:
    """The system ends only the sleep that is under way; a handler runs between two of them."""
    now, slept = 1000.0, []

    def slumber(seconds: float) -> None:
        nonlocal now
        now += seconds
        slept.append(seconds)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", slumber)
    sleep(0.25)
    assert slept == pytest.approx([0.1, 0.1, 0.05])


def test_a_signal_within_a_quarter_of_a_second_is_the_same(monkeypatch: Patch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stopping = Stopping()
    assert not stopping.asked
    assert not stopping.ask(signal.SIGTERM)
    assert stopping.asked
    now += 0.25
    assert not stopping.ask(signal.SIGTERM)
    assert stopping.ask(signal.SIGINT)
    now += 0.01
    assert stopping.ask(signal.SIGTERM)
