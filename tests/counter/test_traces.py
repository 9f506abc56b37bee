"""What is really sent and answered is one of the orders that were searched."""

import asyncio
from pathlib import Path

import pytest

from counter import Visits
from tests.support.losing import LosingTokens
from tests.support.proxy import Proxy
from tests.support.replayed import check
from tests.support.store import Store
from tests.support.traces import Event, Trace, recording
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE


async def test_a_trace_of_counters_that_are_cut_is_right(valkey: Valkey, tmp_path: Path) -> None:
    shown: list[int] = []

    async def come_back(visits: Visits) -> None:
        for _ in range(15):
            number = await visits.count()
            shown.extend([] if number is None else [number])

    with recording(tmp_path / "trace") as trace, Proxy([valkey.path]) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        processes = [Visits(url, timeout=PATIENCE) for _ in range(3)]
        coming = [asyncio.create_task(come_back(one)) for one in processes for _ in range(4)]
        while not all(one.done() for one in coming):
            proxy.cut()
            await asyncio.sleep(0.01)
        for one in processes:
            await one.close()
    events = trace.events()
    assert check(events, shown=shown) > 30
    assert len(shown) == valkey.counter() == 180


@pytest.fixture
def made(tmp_path: Path) -> list[Event]:
    """The events of a process that gets 1 and 2, and of another one that gets 3 to 5."""
    trace, store = Trace(tmp_path / "trace"), Store()
    for visits in (2, 3):
        tokens = LosingTokens("counter")
        request = tokens.request(visits)
        sent = request.command + request.arguments
        trace.sent(tokens, sent)
        trace.got(tokens, store.answer(sent))
    return trace.events()


@pytest.mark.parametrize("wrong", [b":3", b":4", b":6", b"+1 5 2", b"+2 5 3", b"+1 5 3 dropped"])
def test_a_reply_that_the_script_would_not_give_is_found(made: list[Event], wrong: bytes) -> None:
    assert check(made) == 2
    events = [one._replace(line=wrong) if one.line == b":5" else one for one in made]
    with pytest.raises(AssertionError, match="no order gives this reply"):
        check(events)


def test_numbers_that_are_shown_twice_or_come_from_nowhere_are_found(made: list[Event]) -> None:
    for shown in ([1, 2, 1], [1, 6]):
        with pytest.raises(AssertionError, match="shown"):
            check(made, shown=shown)
    first, reply, *rest = made
    with pytest.raises(AssertionError, match="no order"):
        check([*rest, first, reply])
