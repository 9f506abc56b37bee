"""In a turn of the event loop: few answers leave at once and many together; few requests begin.

The loop sleeps, but for a moment after an answer to a client that asks on and on.
"""

import asyncio
from itertools import groupby
from typing import Any
from unittest.mock import Mock

import pytest
from tornado.iostream import StreamClosedError

import http1
from http1.outbox import MANY, SMALL, TURNS, Outbox
from http1.turns import AT_ONCE, Turns
from tests.support import Patch
from tests.support.served import GET, WAITING, Client, Serve, get
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("io_loop")


class Transport:
    """Keeps what was written on it."""

    def __init__(self, closing: bool = False) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append
        self.is_closing = lambda: closing


async def test_few_answers_leave_at_once_many_together_none_to_the_gone(monkeypatch: Patch) -> None:
    monkeypatch.setattr("http1.outbox.MANY", MANY)
    outbox = Outbox()
    for number, are_together in (1, False), (2 * MANY, True), (1, False):
        for _ in range(4 * TURNS):
            clients: list[Any] = [Transport() for _ in range(number)]
            gone: Any = Transport(closing=True)
            for client in (*clients, gone) if are_together else clients:
                outbox.send(client, b"answer")
            at_once = [client.written for client in clients].count([b"answer"])
            await asyncio.sleep(0)
            assert [client.written for client in clients] == [[b"answer"]] * number
        assert (at_once, gone.written) == (0 if are_together else number, [])


async def test_any_whole_answer_may_leave_with_others(serve: Serve) -> None:
    """Also one that a handler writes bit by bit, as Tornado's own handlers do."""
    served = serve()
    served.server.outbox = Mock(wraps=served.server.outbox)
    for path in ("/", "/missing", "/bare/204"):
        answer = await served.ask(get(path))
        [(_, whole)] = [call.args for call in served.server.outbox.send.call_args_list]
        assert whole.endswith(answer.body)
        served.server.outbox.reset_mock()


class Then(http1.RequestHandler):
    """Answers, and does what the test says in the same turn of the loop."""

    EAGER_START = True

    async def get(self) -> None:
        wire = self.request.connection.stream
        self.finish("x" * next(self.settings["sizes"]))
        self.settings["then"](wire)


async def asking(serve: Serve, then: Any, *sizes: int) -> Client:
    app = http1.Application([("/", Then)], then=then, sizes=iter(sizes))
    return (await serve(app=app).connect()).send(GET * len(sizes))


@pytest.mark.parametrize("close", ["close", "close_if_idle", "end", ""])
async def test_answer_is_sent_whatever_becomes_of_its_connection(close: str, serve: Serve) -> None:
    failed = []

    def then(wire: Any) -> None:
        if close:
            getattr(wire, close)()
        if close != "end":
            failed.append(isinstance(wire.write(b"after").exception(), StreamClosedError))

    client, last = await asking(serve, then, 5), b"xxxxx" if close else b"xxxxxafter"
    assert (await client.reader.readuntil(last)).endswith(b"\r\n\r\n" + last)
    assert failed in ([], [bool(close)])


async def test_pipelined_answers_come_in_order_though_some_are_too_large(serve: Serve) -> None:
    sizes = [1, 2 * SMALL, 2, 3 * SMALL, 3]
    client = await asking(serve, lambda wire: None, *sizes)
    client.half_close()  # it sends no more
    assert [len((await client.answer()).body) for _ in sizes] == sizes


async def test_so_many_begin_in_one_turn_in_their_order_and_a_failure_stops_none() -> None:
    turns, begun, turn = Turns(), list[tuple[int, int]](), 0
    number = 3 * AT_ONCE + 1
    failed = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))

    def begin(one: int) -> None:
        begun.append((turn, one))
        if one == 0:
            turns.add(lambda: begin(number))  # it comes again, after all who wait
            raise ValueError

    for one in range(number):
        turns.add(lambda one=one: begin(one))
    while len(begun) <= number:
        await asyncio.sleep(0)
        turn += 1
    assert [one for _, one in begun] == [*range(number + 1)]
    assert max(len([*group]) for _, group in groupby(begun, lambda pair: pair[0])) == AT_ONCE
    assert len(failed) == 1


class Clock:
    """The clock of busy polling, which reads it in each turn of the loop. It all but stands."""

    now, readings = 0.0, 0

    def perf_counter(self) -> float:
        self.readings += 1
        self.now += 1e-12  # no two readings are the same
        return self.now

    async def is_read(self) -> bool:
        """Tell whether the loop is kept turning."""
        await asyncio.sleep(0.05)  # what was sent has its consequences
        before = self.readings
        await asyncio.sleep(0.05)
        return self.readings > before


async def test_who_asks_at_once_finds_the_server_awake(serve: Serve, monkeypatch: Patch) -> None:
    clock = Clock()
    monkeypatch.setattr("http1.busy_poll.time", clock)
    served = serve()
    client, other = await served.connect(), await served.connect()
    for _ in range(20):
        await client.ask(GET)
    before, turns = clock.readings, 100
    for _ in range(turns):
        await asyncio.sleep(0)
    assert 0 < clock.readings - before < 2 * turns, "many answers make no more turns than one"
    await eventually(lambda: clock.readings > before + 1000)
    client.send(WAITING)
    await eventually(lambda: "/waiting" in served.state.begun)
    assert not await clock.is_read(), "it does not sleep while a request takes its time"
    served.state.go_on.set()
    assert (await client.answer()).body == b"at last"
    for clients, seconds, is_awake in (
        ([client], 0, True),
        ([client, other], 0, False),  # they take turns
        ([client], 1, False),  # it takes its time
    ):
        for _ in range(4):
            for one in clients:
                clock.now += seconds
                assert (await one.ask(GET)).status == 200
        assert await clock.is_read() == is_awake
        clock.now += 1
        assert not await clock.is_read(), "it does not sleep when the moment is over"
