"""What measures the tricks: each is turned off, or the measurement ends."""

import json
import subprocess
import sys

import pytest

from bench import tricks
from bench.page import Page
from bench.tricks import TRICKS, measured, table
from bench.visitors import JSON, LOGGED
from tests.support import ROOT

PATIENCE = 120

MOVED = """
import sys
import handlers.base
from bench.tricks import turn_off

del handlers.base._request_id
turn_off("request id")
"""


def test_the_server_serves_without_each_trick() -> None:
    runs = json.dumps([(*trick.page, 64) for trick in TRICKS])
    command = [sys.executable, "-m", "bench.tricks", "--count", runs]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split()) == len(TRICKS)


def test_a_trick_that_has_moved_is_noticed() -> None:
    command = [sys.executable, "-c", MOVED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "_request_id" in done.stderr.splitlines()[-1]


def cost(page: Page) -> float:
    """As if each trick saved a tenth of a page for each letter of its name."""
    return 100.0 + 10 * len(page.without)


@pytest.mark.parametrize("is_counted", [True, False])
def test_a_trick_is_worth_what_a_page_takes_more_without_it(
    is_counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(pages: list[Page], module: str, number: int) -> list[float]:
        assert module == "bench.tricks"
        assert not {page.kind for page in pages} & {LOGGED, JSON}
        return [cost(page) for page in pages] if is_counted else []

    monkeypatch.setattr(tricks, "instructions", counted)
    monkeypatch.setattr(tricks, "microseconds", lambda page, *_: cost(page))
    worth = measured(TRICKS)
    assert {name: round(share, 6) for name, share in worth.items()} == {
        trick.name: round(len(trick.name) / 10, 6) for trick in TRICKS
    }
    most, *_ = table(worth).splitlines()[2:]
    longest = max(TRICKS, key=lambda trick: len(trick.name))
    assert most.startswith(f"| {longest.skipped} |")
    assert f"| {10 * len(longest.name)} % of a " in most
