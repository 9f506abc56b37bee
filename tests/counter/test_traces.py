"""What is really sent and answered is one of the orders that were searched."""

import asyncio
from pathlib import Path

import pytest

from counter import Visits
from counter.connection import Request, packed
from tests.support.losing import LosingTokens
from tests.support.proxy import Proxy
from tests.support.replayed import check
from tests.support.store import Store
from tests.support.traces import Trace, recording
from tests.support.valkey import Valkey
from tests.support.waiting import PATIENCE


async def test_a_trace_of_real_counters_whose_connections_are_cut_is_right(
    valkey: Valkey, tmp_path: Path
) -> None:
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


class Made:
    """A trace of two processes, made in the store."""

    def __init__(self, path: Path) -> None:
        self.trace, self.store = Trace(path), Store()
        self.processes = LosingTokens("counter"), LosingTokens("counter")
        self.requests: dict[int, Request] = {}

    def ask(self, process: int, visits: int) -> bytes:
        request = self.requests[process] = self.processes[process].request(visits)
        sent = request.command + request.arguments
        self.trace.sent(self.processes[process], sent)
        return sent

    def answer(self, process: int, reply: bytes) -> None:
        self.processes[process].numbers(reply, self.requests[process])
        self.trace.got(self.processes[process], reply)

    def count(self, process: int, visits: int) -> None:
        self.answer(process, self.store.answer(self.ask(process, visits)))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "trace")


def test_a_trace_may_have_requests_in_another_order_than_replies_and_without_them(
    made: Made,
) -> None:
    lost, second = made.ask(0, 2), made.ask(1, 1)
    made.answer(1, made.store.answer(second))
    made.store.answer(lost)
    made.count(1, 1)
    made.count(0, 0)
    made.count(1, 4)
    assert [one.line for one in made.trace.events() if one.is_reply][-1] == b"+3 3 2 6 2"
    by_hand = packed("INCR", "counter")
    made.trace.sent("by hand", by_hand)
    made.trace.got("by hand", made.store.answer(by_hand))
    for is_applied in (True, False):
        lost = made.ask(0, 2)
        if is_applied:
            made.store.answer(lost)
        made.trace.got(made.processes[0], b"-ERR something is wrong")
        made.count(0, 3)
    # Too few replicas have acknowledged these numbers, say: they may be another's.
    made.trace.got(made.processes[0], made.store.answer(made.ask(0, 2)))
    made.count(0, 0)
    made.count(1, 2)
    shown = [1, 4, 2, 3, 5, 6, *range(8, 16)]
    assert check(made.trace.events(), shown=shown) == 10


@pytest.mark.parametrize("wrong", [b":3", b":4", b":6", b"+1 5 2", b"+2 5 3", b"+1 5 3 dropped"])
def test_a_reply_that_the_script_would_not_give_is_found(made: Made, wrong: bytes) -> None:
    made.count(0, 2)
    made.count(1, 3)
    events = [one._replace(line=wrong) if one.line == b":5" else one for one in made.trace.events()]
    with pytest.raises(AssertionError, match=r"no order gives this reply|[12] has two tokens"):
        check(events)


def test_a_number_shown_twice_or_that_no_reply_gave_and_a_token_before_its_sending_are_found(
    made: Made,
) -> None:
    made.count(0, 2)
    made.count(1, 1)
    first, reply, *rest = made.trace.events()
    for shown in ([1, 2, 1], [1, 4]):
        with pytest.raises(AssertionError, match="shown twice"):
            check([first, reply, *rest], shown=shown)
    with pytest.raises(AssertionError, match="no order"):
        check([*rest, first, reply])
