"""Answers leave at once, or together at the end of a turn; nobody can tell but by the time."""

import asyncio
from typing import Any

import pytest
from tornado.ioloop import IOLoop

import http1
from http1.outbox import MANY, SMALL, TURNS, Outbox
from tests.http1.test_server import GET, Served, State, gen_test, new_loop

__all__ = ["new_loop"]


class Client:
    """A transport, and what was written on it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closing


async def sent(outbox: Outbox, clients: list[Any]) -> int:
    """Send each an answer, and return how many got it at once; then the turn ends."""
    for client in clients:
        outbox.send(client, b"answer")
    at_once = sum(len(client.written) for client in clients)
    await asyncio.sleep(0)
    for client in clients:
        assert client.written == [b"answer"]
        client.written.clear()
    return at_once


@gen_test
async def test_few_answers_leave_at_once_and_many_together(
    io_loop: IOLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("http1.outbox.MANY", MANY)
    outbox, clients = Outbox(), [Client() for _ in range(2 * MANY)]
    for _ in range(4 * TURNS):
        assert await sent(outbox, clients[:1]) == 1
    for _ in range(4 * TURNS):
        at_once = await sent(outbox, clients)
    assert at_once == 0
    for _ in range(4 * TURNS):
        at_once = await sent(outbox, clients[:1])
    assert at_once == 1


@gen_test
async def test_who_has_gone_by_the_end_of_the_turn_gets_nothing(
    io_loop: IOLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("http1.outbox.MANY", 0)
    outbox, gone, there = Outbox(), Client(), Client()
    outbox.send(gone, b"answer")  # type: ignore[arg-type]
    outbox.send(there, b"answer")  # type: ignore[arg-type]
    gone.closing = True
    await asyncio.sleep(0)
    assert (gone.written, there.written) == ([], [b"answer"])


class Then(http1.RequestHandler):
    """Answers, and does what the test says in the same turn of the loop."""

    EAGER_START = True

    async def get(self) -> None:
        wire = self.request.connection.stream  # type: ignore[union-attr]
        self.finish("whole")
        self.settings["then"](wire)


def served(then: Any) -> Served:
    return Served(http1.HTTPServer(http1.Application([("/", Then)], then=then)), State())


@pytest.mark.parametrize("act", ["close", "close_if_idle", "end"])
@gen_test
async def test_an_answer_is_sent_whatever_is_done_to_the_connection_in_its_turn(
    act: str, io_loop: IOLoop
) -> None:
    site = served(lambda wire: getattr(wire, act)())
    client = await site.connect()
    assert (await client.ask(GET)).body == b"whole"
    await site.close()


@gen_test
async def test_who_asks_and_sends_no_more_is_answered(io_loop: IOLoop) -> None:
    site = served(lambda wire: None)
    client = (await site.connect()).send(GET)
    client.half_close()
    assert (await client.answer()).body == b"whole"
    await site.close()


@gen_test
async def test_what_is_written_after_an_answer_comes_after_it(io_loop: IOLoop) -> None:
    site = served(lambda wire: wire.write(b"after"))
    client = (await site.connect()).send(GET)
    assert (await client.reader.readuntil(b"after")).endswith(b"wholeafter")
    await site.close()


@gen_test
async def test_pipelined_answers_come_in_order_also_where_one_is_too_large_to_wait(
    io_loop: IOLoop,
) -> None:
    class Size(http1.RequestHandler):
        EAGER_START = True

        async def get(self) -> None:
            self.finish("x" * self.settings["sizes"].pop(0))

    sizes = [1, 2 * SMALL, 2, 3 * SMALL, 3]
    application = http1.Application([("/", Size)], sizes=[*sizes])
    site = Served(http1.HTTPServer(application), State())
    client = (await site.connect()).send(GET * len(sizes))
    assert [len((await client.answer()).body) for _ in sizes] == sizes
    await site.close()
