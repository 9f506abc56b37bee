"""The event loop sleeps, but for a moment after an answer to a client that asks on and on."""

import asyncio
from types import SimpleNamespace

import pytest
from tornado.ioloop import IOLoop

import http1
from tests.http1.test_server import GET, Serve, Served, State, gen_test, new_loop, serve
from tests.support.waiting import eventually

__all__ = ["new_loop", "serve"]


class Clock:
    """The clock of busy polling, which reads it in each turn of the loop. It all but stands."""

    def __init__(self) -> None:
        self.now = 0.0
        self.readings = 0

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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("http1.busy_poll.time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


@gen_test
async def test_a_client_that_asks_at_once_finds_the_server_awake_for_a_moment(
    serve: Serve, clock: Clock
) -> None:
    client = await serve().connect()
    for _ in range(3):
        await client.ask(GET)
    before = clock.readings
    await eventually(lambda: clock.readings > before + 1000)
    clock.now += 1
    assert not await clock.is_read(), "it does not sleep when the moment is over"
    assert (await client.ask(GET)).status == 200


@gen_test
async def test_a_client_that_takes_its_time_is_waited_for_asleep(
    serve: Serve, clock: Clock
) -> None:
    client = await serve().connect()
    for _ in range(4):
        await client.ask(GET)
        clock.now += 1
    assert (await client.ask(GET)).status == 200
    assert not await clock.is_read()


@gen_test
async def test_clients_that_take_turns_are_waited_for_asleep(serve: Serve, clock: Clock) -> None:
    served = serve()
    one, other = await served.connect(), await served.connect()
    for _ in range(4):
        await one.ask(GET)
        await other.ask(GET)
    assert not await clock.is_read()


@gen_test
async def test_the_server_sleeps_while_a_request_takes_its_time(serve: Serve, clock: Clock) -> None:
    served = serve()
    client = await served.connect()
    for _ in range(3):
        await client.ask(GET)
    client.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n")
    await eventually(lambda: "/waiting" in served.state.begun)
    assert not await clock.is_read()
    served.state.go_on.set()
    assert (await client.answer()).body == b"at last"


class AtOnce(http1.RequestHandler):
    """Answers in the turn of the loop in which it is asked."""

    EAGER_START = True

    async def get(self) -> None:
        self.finish("at once")


@gen_test
async def test_answers_that_follow_each_other_at_once_do_not_make_more_turns_each(
    io_loop: IOLoop, clock: Clock
) -> None:
    served = Served(http1.HTTPServer(http1.Application([("/", AtOnce)])), State())
    client = await served.connect()
    for _ in range(20):
        assert (await client.ask(GET)).body == b"at once"
    before, turns = clock.readings, 100
    for _ in range(turns):
        await asyncio.sleep(0)
    assert 0 < clock.readings - before < 2 * turns
    await served.close()
