"""Every order of events, within small bounds; `tests/faults/test_orders.py` has the large ones.

What is really sent and answered is one of these orders.
"""

import asyncio
from pathlib import Path

import pytest

from counter import Visits
from tests.support.life import Bounds
from tests.support.orders import Search, Violation
from tests.support.proxy import Proxy
from tests.support.replayed import check
from tests.support.store import LosingTokens, Store
from tests.support.traces import Trace, recording
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE

SMALL = [
    Bounds(batches=3, sizes=(1, 2, 3), deadlines=2, looks=2),
    Bounds(deadlines=1, looks=2, beside=2, goers=1),
    Bounds(deadlines=1, looks=2, starts=True),
    Bounds(deadlines=1, looks=1, kills=1, goers=1),
    Bounds(sizes=(1,), deadlines=1, looks=1, refusals=1),
    Bounds(processes=2, batches=1, deadlines=1, looks=1),
    Bounds(processes=2, batches=1, sizes=(1,), deadlines=1, looks=1, goers=1, kills=1),
    Bounds(deadlines=1, looks=1, wait=1, failovers=2),
    Bounds(processes=2, batches=1, sizes=(1,), deadlines=1, wait=1, failovers=1),
    Bounds(cuts=2, deadlines=1, goers=1),
    Bounds(cuts=1, deadlines=1, wait=1, failovers=1),
]


@pytest.mark.parametrize("bounds", SMALL, ids=str)
def test_no_order_of_events_shows_a_number_twice_or_loses_one(bounds: Bounds) -> None:
    assert Search(bounds._replace(in_two=True)).run().states > 100


def test_a_failover_without_wait_is_found_to_lose_a_number() -> None:
    with pytest.raises(Violation) as found:
        Search(Bounds(failovers=1)).run()
    schedule = str(found.value).splitlines()
    assert "the replica becomes the primary" in schedule
    assert schedule[-1].startswith("[1] are beyond the counter")


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


def test_a_reply_that_the_script_would_not_give_is_found_and_so_is_what_was_shown_wrongly(
    tmp_path: Path,
) -> None:
    trace, store = Trace(tmp_path / "trace"), Store()
    for visits in (2, 3):  # a process gets 1 and 2, and another one 3 to 5
        tokens = LosingTokens("counter")
        request = tokens.request(visits)
        sent = request.command + request.arguments
        trace.sent(tokens, sent)
        trace.got(tokens, store.answer(sent))
    made = trace.events()
    assert check(made, shown=range(1, 6)) == 2
    for shown in ([1, 2, 1], [1, 6]):
        with pytest.raises(AssertionError, match="shown"):
            check(made, shown=shown)
    first, reply, *rest = made
    wrong = [[*rest, first, reply]]
    for line in (b":3", b":4", b":6", b"+1 5 2", b"+2 5 3", b"+1 5 3 dropped"):
        wrong.append([one._replace(line=line) if one.line == b":5" else one for one in made])
    for events in wrong:
        with pytest.raises(AssertionError, match="no order gives this reply"):
            check(events)
