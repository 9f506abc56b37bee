"""A signal that comes at any moment is noticed soon."""

import contextlib
import signal
import time

from process import Stopping, signals, sleep
from tests.support import Patch


def test_a_signal_that_comes_just_before_a_long_sleep_is_noticed_soon(monkeypatch: Patch) -> None:
    """The system ends only the sleep that is under way; a handler runs between two of them."""
    slept: list[float] = []

    def slumber(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise SystemExit  # as the handler does

    monkeypatch.setattr(time, "sleep", slumber)
    with contextlib.suppress(SystemExit):
        sleep(3600)
    assert slept == [signals.LOOK_UP_EVERY] * 3
    assert signals.LOOK_UP_EVERY <= 0.25


def test_a_sleep_is_as_long_as_it_should_be() -> None:
    begun = time.monotonic()
    sleep(0.15)
    assert time.monotonic() - begun >= 0.15


def test_the_same_signal_within_a_quarter_of_a_second_is_one_and_another_is_a_second(
    monkeypatch: Patch,
) -> None:
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
